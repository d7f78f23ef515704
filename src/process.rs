//! Child processes, for every room: a group of their own, what they said last, how they ended.
//!
//! A child leads its own process group: Ctrl-C in the terminal does not reach it before the run has written its
//! checkpoint, and what it started itself ends with it. A thread reads its stderr, so that it is never blocked by what it
//! has to say; what is said over stdin and stdout is its owner's business.

use std::collections::VecDeque;
use std::io::{self, BufRead, BufReader, Read};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group};

/// Longest part of a foreign text that a message repeats
const EXCERPT: usize = 200;
/// What is longer than this is no line, and is not kept whole
const LONGEST_LINE: u64 = 64 << 10;
/// Lines of stderr that a message repeats
const TAIL: usize = 8;
/// How often it is looked whether something has happened
const SLICE: Duration = Duration::from_millis(2);

/// A child process with all that it starts; dropping it ends them
pub(crate) struct Group {
    process: Child,
    errors: Arc<Mutex<VecDeque<String>>>,
    error_reader: Option<JoinHandle<()>>,
    ended: bool,
}

impl Group {
    /// Starts a command with pipes at its stdin, stdout and stderr; `hear` is called with each line of stderr
    pub(crate) fn start(command: &mut Command, hear: impl Fn(&str) + Send + 'static) -> io::Result<Self> {
        command.process_group(0).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        // A Python child that forgets to flush would look like one that hangs
        command.env("PYTHONUNBUFFERED", "1");
        let mut process = command.spawn()?;
        let errors = Arc::default();
        let error_reader = process.stderr.take().map(|stderr| {
            let errors = Arc::clone(&errors);
            thread::spawn(move || keep_tail(stderr, &errors, hear))
        });
        Ok(Self { process, errors, error_reader, ended: false })
    }

    /// Where it reads, once
    pub(crate) fn stdin(&mut self) -> Option<ChildStdin> {
        self.process.stdin.take()
    }

    /// Where it writes, once
    pub(crate) fn stdout(&mut self) -> Option<ChildStdout> {
        self.process.stdout.take()
    }

    /// The leader, whose number is the group's
    pub(crate) fn id(&self) -> Pid {
        Pid::from_child(&self.process)
    }

    /// How it ended, if it does so within this time
    pub(crate) fn wait(&mut self, patience: Duration) -> Option<ExitStatus> {
        let begin = Instant::now();
        loop {
            if let Ok(Some(status)) = self.process.try_wait() {
                return Some(status);
            }
            if begin.elapsed() >= patience {
                return None;
            }
            thread::sleep(SLICE);
        }
    }

    /// The end of its stderr as lines of a message; none where it said nothing
    pub(crate) fn last_words(&self) -> Vec<String> {
        // The reader may be behind a child that has just died; something it started may hold the pipe for ever
        let begin = Instant::now();
        while self.error_reader.as_ref().is_some_and(|reader| !reader.is_finished())
            && begin.elapsed() < Duration::from_millis(100)
        {
            thread::sleep(SLICE);
        }
        let errors = self.errors.lock().unwrap_or_else(PoisonError::into_inner);
        let head = (!errors.is_empty()).then(|| "  the end of its stderr:".to_owned());
        head.into_iter().chain(errors.iter().map(|line| format!("    {line}"))).collect()
    }

    /// Lets it end by itself for this long, then ends it and what it started
    pub(crate) fn end(&mut self, patience: Duration) {
        if std::mem::replace(&mut self.ended, true) {
            return;
        }
        let has_ended = !patience.is_zero() && self.wait(patience).is_some();
        // What it started may outlive it
        kill(self.id());
        if !has_ended {
            self.process.wait().ok();
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.end(Duration::ZERO);
    }
}

/// Ends a group at once; there may be none any more
pub(crate) fn kill(group: Pid) {
    kill_process_group(group, Signal::KILL).ok();
}

/// As it completes «the child …»
pub(crate) fn describe_status(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exited with status {code}"),
        (_, Some(signal)) => format!("was ended by signal {signal}"),
        _ => "ended".to_owned(),
    }
}

/// The beginning of a foreign text, on one line
pub(crate) fn excerpt(text: &str) -> String {
    let line = text.trim().replace(['\n', '\r'], " ");
    if line.chars().count() <= EXCERPT {
        return line;
    }
    format!("{}…", line.chars().take(EXCERPT).collect::<String>())
}

/// The next line, at most [`LONGEST_LINE`] of it; `None` at the end
pub(crate) fn next_line(reader: &mut impl BufRead) -> Option<String> {
    let mut line = Vec::new();
    let read = reader.take(LONGEST_LINE).read_until(b'\n', &mut line).ok()?;
    (read > 0).then(|| String::from_utf8_lossy(&line).into_owned())
}

fn keep_tail(stderr: impl Read, tail: &Mutex<VecDeque<String>>, hear: impl Fn(&str)) {
    let mut reader = BufReader::new(stderr);
    while let Some(line) = next_line(&mut reader) {
        let line = without_colours(&line);
        // Tracebacks are read by their indentation
        let indent = &line[..line.len() - line.trim_start_matches(' ').len()];
        let line = format!("{indent}{}", excerpt(&line));
        hear(&line);
        let mut tail = tail.lock().unwrap_or_else(PoisonError::into_inner);
        if tail.len() == TAIL {
            tail.pop_front();
        }
        tail.push_back(line);
    }
}

/// Libraries colour their warnings without asking where they go
fn without_colours(line: &str) -> String {
    let mut plain = String::with_capacity(line.len());
    let mut rest = line;
    while let Some(at) = rest.find("\x1b[") {
        plain.push_str(&rest[..at]);
        rest = rest[at + 2..].trim_start_matches(|c: char| c.is_ascii_digit() || c == ';');
        rest = rest.strip_prefix(|c: char| c.is_ascii_alphabetic()).unwrap_or(rest);
    }
    plain + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_are_left_out() {
        assert_eq!(without_colours("\x1b[33mWARN: x\x1b[0m y"), "WARN: x y");
        assert_eq!(without_colours("\x1b[1;31mred\x1b["), "red");
    }

    #[test]
    fn a_group_ends_with_what_it_started() {
        let script = "echo last words >&2; sleep 60 & echo $!; wait";
        let mut group = Group::start(Command::new("sh").args(["-c", script]), |_| {}).unwrap();
        let grandchild = next_line(&mut BufReader::new(group.stdout().unwrap())).unwrap();
        group.end(Duration::ZERO);
        assert_eq!(group.last_words(), ["  the end of its stderr:", "    last words"]);
        let status = format!("/proc/{}/stat", grandchild.trim());
        let begin = Instant::now();
        // Orphans wait for whoever adopts them; a zombie runs no more
        let lives = || std::fs::read_to_string(&status).is_ok_and(|text| !text.contains(") Z "));
        while lives() && begin.elapsed() < Duration::from_secs(5) {
            thread::sleep(SLICE);
        }
        assert!(!lives(), "the grandchild lives on");
    }
}
