//! A child process that answers lines with lines.
//!
//! Its three pipes have a thread each, so that neither side can block the other however much is said; these threads end
//! when the pipes close.

use std::io::{BufReader, Read, Write};
use std::process::Command;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender, SyncSender};
use std::thread;
use std::time::{Duration, Instant};

use super::Check;
use super::answer::parse_value;
use crate::Result;
use crate::process::{Group, describe_status, excerpt, next_line};

/// Answers held before the child must wait, so that one that never stops talking does not fill the memory
const AHEAD: usize = 4096;
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
    group: Group,
    requests: Option<Sender<Arc<[u8]>>>,
    answers: Receiver<String>,
    last_line: Option<String>,
    healthy: bool,
}

impl Child {
    pub fn start(program: &str, arguments: &[String]) -> std::io::Result<Self> {
        let mut group = Group::start(Command::new(program).args(arguments), |_| {})?;
        let (requests, to_write) = mpsc::channel::<Arc<[u8]>>();
        let (to_read, answers) = mpsc::sync_channel(AHEAD);
        if let Some(mut stdin) = group.stdin() {
            // A child that does not read any more shows itself by the answers that are missing
            thread::spawn(move || to_write.iter().try_for_each(|bytes| stdin.write_all(&bytes)));
        }
        if let Some(stdout) = group.stdout() {
            thread::spawn(move || pass_lines(stdout, &to_read));
        }
        Ok(Self { group, requests: Some(requests), answers, last_line: None, healthy: true })
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
        self.group.wait(GRACE).map_or_else(|| "closed its stdout".to_owned(), describe_status)
    }

    /// What happened, and what the child said last
    fn report(&mut self, what: &str) -> String {
        let mut report = vec![what.to_owned()];
        report.push(match &self.last_line {
            Some(line) => format!("  its last line on stdout: `{line}`"),
            None => "  it printed nothing on stdout".to_owned(),
        });
        report.extend(self.group.last_words());
        report.join("\n")
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        self.requests = None;
        self.group.end(if self.healthy { GRACE } else { Duration::ZERO });
    }
}

fn pass_lines(stdout: impl Read, lines: &SyncSender<String>) {
    let mut reader = BufReader::new(stdout);
    while let Some(line) = next_line(&mut reader) {
        if lines.send(line).is_err() {
            return;
        }
    }
}
