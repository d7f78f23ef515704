//! A child process that answers lines with lines.
//!
//! Its three pipes have a thread each, so that neither side can block the other however much is said; these threads end
//! when the pipes close. The child leads its own process group: Ctrl-C in the terminal does not reach it before the
//! run has written its checkpoint, and what it started itself ends with it.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child as Process, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender, SyncSender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group};

use super::Check;
use super::answer::{excerpt, parse_value};
use crate::Result;

/// An answer is a number; what is longer than this is none, and is not kept
const LONGEST_LINE: u64 = 64 << 10;
/// Answers held before the child must wait, so that one that never stops talking does not fill the memory
const AHEAD: usize = 4096;
/// Lines of stderr that a message repeats
const TAIL: usize = 8;
/// How often the caller's check is asked
const SLICE: Duration = Duration::from_millis(20);
/// How long a child whose stdin has closed may take to end by itself
const GRACE: Duration = Duration::from_millis(500);

/// Why a batch was not answered
pub(super) enum Fault {
    /// Another attempt may succeed; the sentence goes on from `the child`
    Failed(String),
    /// Answers and samples may have been out of step before
    Surplus(String),
}

pub(super) struct Child {
    process: Process,
    requests: Option<Sender<Arc<[u8]>>>,
    answers: Receiver<String>,
    errors: Arc<Mutex<VecDeque<String>>>,
    error_reader: Option<JoinHandle<()>>,
    last_line: Option<String>,
    healthy: bool,
}

impl Child {
    pub fn start(program: &str, arguments: &[String]) -> std::io::Result<Self> {
        let mut command = Command::new(program);
        command.args(arguments).process_group(0);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        // A Python child that forgets to flush would look like one that hangs
        command.env("PYTHONUNBUFFERED", "1");
        let mut process = command.spawn()?;
        let errors = Arc::default();
        let (requests, to_write) = mpsc::channel::<Arc<[u8]>>();
        let (to_read, answers) = mpsc::sync_channel(AHEAD);
        if let Some(mut stdin) = process.stdin.take() {
            // A child that does not read any more shows itself by the answers that are missing
            thread::spawn(move || to_write.iter().try_for_each(|bytes| stdin.write_all(&bytes)));
        }
        if let Some(stdout) = process.stdout.take() {
            thread::spawn(move || pass_lines(stdout, &to_read));
        }
        let error_reader = process.stderr.take().map(|stderr| {
            let errors = Arc::clone(&errors);
            thread::spawn(move || keep_tail(stderr, &errors))
        });
        let requests = Some(requests);
        Ok(Self { process, requests, answers, errors, error_reader, last_line: None, healthy: true })
    }

    /// Sends lines and waits for `count` answers, for each at most `timeout`
    pub fn ask(
        &mut self,
        lines: &Arc<[u8]>,
        count: usize,
        timeout: Duration,
        check: Check<'_>,
    ) -> Result<std::result::Result<Vec<Option<f64>>, Fault>> {
        let answer = self.converse(lines, count, timeout, check);
        // One in the middle of a conversation must not be asked again
        self.healthy = matches!(answer, Ok(Ok(_)));
        answer
    }

    fn converse(
        &mut self,
        lines: &Arc<[u8]>,
        count: usize,
        timeout: Duration,
        check: Check<'_>,
    ) -> Result<std::result::Result<Vec<Option<f64>>, Fault>> {
        if let Some(fault) = self.surplus(0, count) {
            return Ok(Err(fault));
        }
        if let Some(requests) = &self.requests {
            requests.send(Arc::clone(lines)).ok();
        }
        let mut values = Vec::with_capacity(count);
        while values.len() < count {
            let so_far = || format!("{} of {count} answers", values.len());
            let begin = Instant::now();
            let line = loop {
                check()?;
                match self.answers.recv_timeout(SLICE) {
                    Ok(line) => break line,
                    Err(RecvTimeoutError::Disconnected) => {
                        let how = self.how_it_ended();
                        return Ok(Err(Fault::Failed(self.report(&format!("{how} after {}", so_far())))));
                    }
                    Err(RecvTimeoutError::Timeout) if begin.elapsed() >= timeout => {
                        let seconds = timeout.as_secs_f64();
                        let what = format!("said nothing for {seconds} s after {}", so_far());
                        return Ok(Err(Fault::Failed(self.report(&what))));
                    }
                    Err(RecvTimeoutError::Timeout) => {}
                }
            };
            let text = line.trim();
            self.last_line = Some(excerpt(text));
            let Ok(value) = parse_value(text) else {
                return Ok(Err(self.no_value(values.len(), count)));
            };
            values.push(value);
        }
        Ok(self.surplus(count, count).map_or(Ok(values), Err))
    }

    fn no_value(&mut self, answers: usize, count: usize) -> Fault {
        let what = format!("printed a line that is neither a number nor `null`, after {answers} of {count} answers");
        Fault::Failed(self.report(&what))
    }

    /// A line that nobody asked for. One that is no value, such as a greeting, has not been taken for an answer
    fn surplus(&mut self, answers: usize, count: usize) -> Option<Fault> {
        let line = self.answers.try_recv().ok()?;
        self.last_line = Some(excerpt(&line));
        Some(match parse_value(line.trim()) {
            Ok(_) => Fault::Surplus(self.report("printed more lines than it was sent")),
            Err(_) => self.no_value(answers, count),
        })
    }

    fn how_it_ended(&mut self) -> String {
        match self.wait(GRACE) {
            None => "closed its stdout".to_owned(),
            Some(status) => describe_status(status),
        }
    }

    fn wait(&mut self, patience: Duration) -> Option<ExitStatus> {
        let begin = Instant::now();
        loop {
            if let Ok(Some(status)) = self.process.try_wait() {
                return Some(status);
            }
            if begin.elapsed() >= patience {
                return None;
            }
            thread::sleep(Duration::from_millis(2));
        }
    }

    /// What happened, and what the child said last
    fn report(&mut self, what: &str) -> String {
        // The reader may be behind a child that has just died; something it started may hold the pipe for ever
        let begin = Instant::now();
        while self.error_reader.as_ref().is_some_and(|reader| !reader.is_finished())
            && begin.elapsed() < Duration::from_millis(100)
        {
            thread::sleep(Duration::from_millis(2));
        }
        let mut report = vec![what.to_owned()];
        report.push(match &self.last_line {
            Some(line) => format!("  its last line on stdout: `{line}`"),
            None => "  it printed nothing on stdout".to_owned(),
        });
        let errors = self.errors.lock().unwrap_or_else(PoisonError::into_inner);
        if !errors.is_empty() {
            report.push("  the end of its stderr:".to_owned());
            report.extend(errors.iter().map(|line| format!("    {line}")));
        }
        report.join("\n")
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        self.requests = None;
        let ended = self.healthy && self.wait(GRACE).is_some();
        // What it started may outlive it; ESRCH where nothing does
        kill_process_group(Pid::from_child(&self.process), Signal::KILL).ok();
        if !ended {
            self.process.wait().ok();
        }
    }
}

fn describe_status(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exited with status {code}"),
        (_, Some(signal)) => format!("was ended by signal {signal}"),
        _ => "ended".to_owned(),
    }
}

/// The next line, at most [`LONGEST_LINE`] of it; `None` at the end
fn next_line(reader: &mut impl BufRead) -> Option<String> {
    let mut line = Vec::new();
    let read = reader.take(LONGEST_LINE).read_until(b'\n', &mut line).ok()?;
    (read > 0).then(|| String::from_utf8_lossy(&line).into_owned())
}

fn pass_lines(stdout: impl Read, lines: &SyncSender<String>) {
    let mut reader = BufReader::new(stdout);
    while let Some(line) = next_line(&mut reader) {
        if lines.send(line).is_err() {
            return;
        }
    }
}

fn keep_tail(stderr: impl Read, tail: &Mutex<VecDeque<String>>) {
    let mut reader = BufReader::new(stderr);
    while let Some(line) = next_line(&mut reader) {
        let mut tail = tail.lock().unwrap_or_else(PoisonError::into_inner);
        if tail.len() == TAIL {
            tail.pop_front();
        }
        tail.push_back(excerpt(&line));
    }
}
