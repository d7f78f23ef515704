//! `command:PROGRAM ARGS`: a child process that stays up. For each sample it reads one JSON object on a line of stdin,
//! and prints one number, or `null`, on a line of stdout, in the same order.

use std::io::ErrorKind;
use std::sync::Arc;
use std::time::Duration;

use tracing::warn;

use super::answer::sample_json;
use super::child::{Child, Fault};
use super::{Check, Options, Reward, Sample};
use crate::{Error, Result};

const HINT: &str = "for each line of stdin, and before it waits for the next, the child prints one number or `null` on \
                    stdout and flushes it; everything else belongs on stderr; `reward_timeout` is the longest wait for \
                    one answer, `reward_retries` how often a child is started anew";

/// A child process as a reward
pub struct CommandReward {
    program: String,
    arguments: Vec<String>,
    options: Options,
    child: Option<Child>,
}

impl CommandReward {
    /// Starts the child; `command` is split into words as a shell splits it, and no shell runs
    ///
    /// # Errors
    /// No words, an open quote; the program cannot be started
    pub fn start(command: &str, options: Options) -> Result<Self> {
        let mut words = shlex::split(command)
            .ok_or_else(|| Error::usage(format!("`command:{command}`: a quote is left open")))?
            .into_iter();
        let program =
            words.next().ok_or_else(|| Error::usage("`command:` names no program").hint("`command:PROGRAM ARGS`"))?;
        let arguments: Vec<String> = words.collect();
        let child = Child::start(&program, &arguments).map_err(|cause| {
            let error = Error::usage(format!("cannot start the reward `{program}`: {cause}"));
            match cause.kind() {
                ErrorKind::NotFound => error.hint("name a program on PATH, or a path such as `./judge`"),
                ErrorKind::PermissionDenied => error.hint("a script needs its interpreter before it, or `chmod +x`"),
                _ => error,
            }
        })?;
        Ok(Self { program, arguments, options, child: Some(child) })
    }

    fn failed(&self, what: &str) -> Error {
        Error::run(format!("reward `command`: the child `{}` {what}", self.program)).hint(HINT)
    }
}

impl Reward for CommandReward {
    fn name(&self) -> &'static str {
        "command"
    }

    fn score(&mut self, samples: &[Sample<'_>], check: Check<'_>) -> Result<Vec<Option<f64>>> {
        let lines: Vec<String> = samples.iter().map(|sample| sample_json(sample).to_string()).collect();
        let lines: Arc<[u8]> = (lines.join("\n") + "\n").into_bytes().into();
        let mut attempt = 0;
        loop {
            let mut child = match self.child.take() {
                Some(child) => child,
                None => Child::start(&self.program, &self.arguments)
                    .map_err(|cause| self.failed(&format!("cannot be started again: {cause}")))?,
            };
            match child.ask(&lines, samples.len(), self.options.timeout, check)? {
                Ok(values) => {
                    self.child = Some(child);
                    return Ok(values);
                }
                Err(Fault::Surplus(what)) => return Err(self.failed(&what)),
                Err(Fault::Failed(what)) if attempt == self.options.retries => {
                    let times =
                        if attempt == 0 { String::new() } else { format!(", the last of {} attempts", attempt + 1) };
                    return Err(self.failed(&what.replacen('\n', &format!("{times}\n"), 1)));
                }
                Err(Fault::Failed(what)) => {
                    drop(child);
                    attempt += 1;
                    warn!("reward `command`: the child `{}` {what}; starting it again", self.program);
                    self.options.wait_before(attempt, Duration::ZERO, check)?;
                }
            }
        }
    }
}
