//! One process that steps some of the environments.

use std::io::{BufReader, ErrorKind, Read, Write};
use std::ops::Range;
use std::process::{ChildStdin, ChildStdout, Command};
use std::time::Duration;

use rustix::process::Pid;
use serde::Deserialize;
use tracing::info;

use super::PREFIX;
use super::frame::{Head, answer, compose, read_head};
use crate::process::{Group, describe_status, excerpt};
use crate::{Error, Result};

/// What the Python runs
const SCRIPT: &str = include_str!("../../../../scripts/gym_worker.py");
/// How long a worker whose stdin has closed may take to close its environments
const GRACE: Duration = Duration::from_millis(500);
/// So much of a small answer is read with one call
const BUFFER: usize = 1 << 16;
/// Longest answer that is kept whole: hellos, histories, errors
const LONGEST_TEXT: usize = 1 << 28;

/// What a worker says when it fails
#[derive(Debug, Deserialize)]
struct Failure {
    kind: String,
    message: String,
    /// Lines of a traceback
    #[serde(default)]
    places: Vec<String>,
    /// Which of its environments
    env: Option<usize>,
}

pub(super) struct Worker {
    group: Group,
    requests: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
    /// As the user wrote them
    id: String,
    python: String,
    environments: Range<usize>,
    frame: Vec<u8>,
    failed: bool,
}

impl Worker {
    /// Starts Python with the script; nothing is asked yet
    pub(super) fn start(id: &str, python: &str, environments: Range<usize>) -> Result<Self> {
        let mut command = Command::new(python);
        command.args(["-c", SCRIPT]);
        // What the environments print is there for the user
        let hear = |line: &str| {
            if !line.is_empty() {
                info!("{line}");
            }
        };
        let mut group = Group::start(&mut command, hear).map_err(|cause| no_python(python, &cause))?;
        let (Some(requests), Some(answers)) = (group.stdin(), group.stdout()) else {
            return Err(Error::run(format!("cannot reach `{python}` through pipes")));
        };
        Ok(Self {
            group,
            requests: Some(requests),
            answers: BufReader::with_capacity(BUFFER, answers),
            id: id.to_owned(),
            python: python.to_owned(),
            environments,
            frame: Vec::new(),
            failed: false,
        })
    }

    pub(super) fn group(&self) -> Pid {
        self.group.id()
    }

    /// Which of all environments are its own
    pub(super) fn environments(&self) -> Range<usize> {
        self.environments.clone()
    }

    /// Asks. One that does not read any more is found out by the answer that is missing
    pub(super) fn send(&mut self, kind: u8, parts: &[&[u8]]) {
        compose(&mut self.frame, kind, parts);
        if let Some(requests) = &mut self.requests {
            requests.write_all(&self.frame).ok();
        }
    }

    /// The length of the answer that comes next, which must be of this kind
    ///
    /// # Errors
    /// Another one, the worker's own error among them; its end; bytes that are no answer
    pub(super) fn expect(&mut self, kind: u8) -> Result<usize> {
        match read_head(&mut self.answers) {
            Ok(Head::Answer(found, length)) if found == kind => Ok(length),
            Ok(Head::Answer(answer::ERROR, length)) => {
                let text = self.text(length)?;
                match serde_json::from_slice(&text) {
                    Ok(failure) => Err(self.reported(failure)),
                    Err(_) => Err(self.failure(&format!("failed: `{}`", excerpt(&String::from_utf8_lossy(&text))))),
                }
            }
            Ok(Head::Answer(found, _)) => Err(self.failure(&format!(
                "answered with a frame of kind `{}` where `{}` was due",
                char::from(found),
                char::from(kind)
            ))),
            Ok(Head::Foreign(mut bytes)) => {
                bytes.extend_from_slice(self.answers.buffer());
                let text = excerpt(&String::from_utf8_lossy(&bytes));
                Err(self.failure(&format!("answered with something else than a frame: {text:?}")))
            }
            Err(cause) => Err(self.broken(cause.kind())),
        }
    }

    /// The next bytes of an answer
    pub(super) fn read(&mut self, bytes: &mut [u8]) -> Result<()> {
        self.answers.read_exact(bytes).map_err(|cause| match cause.kind() {
            ErrorKind::UnexpectedEof => {
                let how = self.how_it_ended();
                self.failure(&format!("{how} in the middle of an answer"))
            }
            kind => self.broken(kind),
        })
    }

    /// A whole payload
    pub(super) fn text(&mut self, length: usize) -> Result<Vec<u8>> {
        if length > LONGEST_TEXT {
            return Err(self.failure(&format!("answered with {length} bytes of text")));
        }
        let mut text = vec![0; length];
        self.read(&mut text)?;
        Ok(text)
    }

    /// An answer of another length than its kind has
    pub(super) fn expect_length(&mut self, found: usize, expected: usize) -> Result<()> {
        if found == expected {
            return Ok(());
        }
        Err(self.failure(&format!("answered with {found} bytes where {expected} were due")))
    }

    fn broken(&mut self, kind: ErrorKind) -> Error {
        match kind {
            ErrorKind::UnexpectedEof => {
                let how = self.how_it_ended();
                self.failure(&how)
            }
            kind => self.failure(&format!("cannot be read from: {kind}")),
        }
    }

    fn how_it_ended(&mut self) -> String {
        self.group.wait(GRACE).map_or_else(|| "closed its stdout".to_owned(), describe_status)
    }

    /// Something that must not happen, with what the worker said last
    pub(super) fn failure(&mut self, what: &str) -> Error {
        self.failed = true;
        let of = match self.environments.len() {
            1 => format!("of environment {}", self.environments.start),
            _ => format!("of environments {} to {}", self.environments.start, self.environments.end - 1),
        };
        let mut lines = vec![format!("`{}`: the worker {of} (`{}`) {what}", self.id, self.python)];
        lines.extend(self.group.last_words());
        Error::run(lines.join("\n"))
    }

    /// Something that an environment did
    pub(super) fn misbehaved(&mut self, env: usize, what: &str) -> Error {
        self.failed = true;
        Error::run(format!("`{}`: environment {env} {what}", self.id))
    }

    /// What the worker itself says of its failure
    fn reported(&mut self, failure: Failure) -> Error {
        self.failed = true;
        let Self { id, python, .. } = self;
        let Failure { kind, message, places, env } = failure;
        let told = match env {
            Some(env) => format!("`{id}`: environment {} failed: {message}", self.environments.start + env),
            None if kind == "missing" || kind == "old" => format!("`{id}`: `{python}` {message}"),
            None => format!("`{id}`: {message}"),
        };
        let lines: Vec<String> = std::iter::once(told).chain(places).collect();
        let error = if kind == "step" { Error::run(lines.join("\n")) } else { Error::usage(lines.join("\n")) };
        let is_own = id.strip_prefix(PREFIX).is_some_and(|id| id.contains(':'));
        match kind.as_str() {
            "missing" | "old" => error.hint(format!(
                "`{python} -m pip install \"gymnasium>=1.0\"`, or `gym_python` names a Python that has it"
            )),
            "import" | "make" if is_own => error.hint(
                "the module before the colon is imported from the current directory or as an installed package; it \
                 registers the id",
            ),
            "import" => error.hint("install it in the Python that `gym_python` names"),
            "make" if message.contains("pip install") => error.hint("in the Python that `gym_python` names"),
            "make" => error.hint("an environment of your own is `gym:MODULE:ID`, where importing MODULE registers ID"),
            "actions" => error.hint("a wrapper of your own can make them of a number or a vector: `gym_wrappers`"),
            "space" => error.hint("a wrapper of your own can make other ones of them: `gym_wrappers`"),
            "wrapper" => error.hint(
                "`gym_wrappers` takes `Name` or `Name:key=value,key=value` of Gymnasium's, and `module:Name` of others",
            ),
            "history" => error.hint("leave out `save_steps`"),
            _ => error,
        }
    }

    /// Says that nothing more will be asked
    pub(super) fn close(&mut self) {
        self.requests = None;
    }

    /// It will not be asked again, and need not end in good order
    pub(super) fn give_up(&mut self) {
        self.failed = true;
    }

    /// Whether it may be asked again
    pub(super) fn is_well(&self) -> bool {
        !self.failed
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.close();
        self.group.end(if self.failed { Duration::ZERO } else { GRACE });
    }
}

/// Why a Python could not be started
pub(super) fn no_python(python: &str, cause: &std::io::Error) -> Error {
    Error::usage(format!("cannot start `{python}`: {cause}"))
        .hint("`gym_python` names the Python in which Gymnasium is installed, such as `.venv/bin/python`")
}
