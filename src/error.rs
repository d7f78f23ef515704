//! The one error type: what went wrong in the user's terms, what to do about it, and the exit code.
//!
//! Library rooms that only compute (`ops`, `algo`, `model` forward passes) return candle's error; everything that
//! touches a request (config, files, rows, the Hub) returns this one, so that every message can carry a place and a hint.

use std::fmt;
use std::path::Path;

/// Shorthand for results of everything that can fail for a reason that a user must read
pub type Result<T> = std::result::Result<T, Error>;

/// Whose fault it is, which is what the exit code says
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The request was wrong: flag, config, model, file, row (exit code 2)
    Usage,
    /// The run failed: NaN, disk full, reward failed (exit code 1)
    Run,
    /// Stopped by this signal, after writing a checkpoint (exit code 128 + signal)
    Signal(i32),
}

/// An error with cause and hint
#[derive(Debug)]
pub struct Error {
    kind: Kind,
    message: String,
    hint: Option<String>,
}

impl Error {
    /// The request was wrong
    pub fn usage(message: impl Into<String>) -> Self {
        Self { kind: Kind::Usage, message: message.into(), hint: None }
    }

    /// The run failed
    pub fn run(message: impl Into<String>) -> Self {
        Self { kind: Kind::Run, message: message.into(), hint: None }
    }

    /// Stopped by `signal`
    pub fn signal(signal: i32, message: impl Into<String>) -> Self {
        Self { kind: Kind::Signal(signal), message: message.into(), hint: None }
    }

    /// A file or folder of the request could not be read
    pub fn read(path: impl AsRef<Path>, cause: impl fmt::Display) -> Self {
        Self::usage(format!("cannot read `{}`: {cause}", path.as_ref().display()))
    }

    /// A file of the run could not be written (disk full, no permission)
    pub fn write(path: impl AsRef<Path>, cause: impl fmt::Display) -> Self {
        Self::run(format!("cannot write `{}`: {cause}", path.as_ref().display()))
    }

    /// Adds what to do about it
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Puts a place or an activity before the message: `context: message`
    #[must_use]
    pub fn context(mut self, context: impl fmt::Display) -> Self {
        self.message = format!("{context}: {}", self.message);
        self
    }

    /// Whose fault
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The message without the hint
    pub fn message(&self) -> &str {
        &self.message
    }

    /// The hint, if there is one
    pub fn hint_text(&self) -> Option<&str> {
        self.hint.as_deref()
    }

    /// The process exit code: 2, 1, or 128 + signal
    pub fn exit_code(&self) -> u8 {
        match self.kind {
            Kind::Usage => 2,
            Kind::Run => 1,
            Kind::Signal(signal) => 128_u8.saturating_add(signal as u8),
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        if let Some(hint) = &self.hint {
            write!(f, "\nhint: {hint}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Error {}

impl From<candle_core::Error> for Error {
    fn from(error: candle_core::Error) -> Self {
        Self::run(without_backtrace(&error))
    }
}

/// With RUST_BACKTRACE set the tensor library puts a backtrace under its message
fn without_backtrace(error: &candle_core::Error) -> String {
    use candle_core::Error as E;
    match error {
        E::WithBacktrace { inner, .. } => without_backtrace(inner),
        E::WithPath { inner, path } => format!("`{}`: {}", path.display(), without_backtrace(inner)),
        E::Context { inner, context } => format!("{context}: {}", without_backtrace(inner)),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tensor_librarys_message_comes_without_its_backtrace() {
        let traced = || candle_core::Error::WithBacktrace {
            inner: Box::new(candle_core::Error::Msg("shapes differ".to_owned())),
            backtrace: Box::new(std::backtrace::Backtrace::force_capture()),
        };
        assert_eq!(Error::from(traced()).message(), "shapes differ");
        assert_eq!(Error::from(traced().context("layer 3")).message(), "layer 3: shapes differ");
    }
}
