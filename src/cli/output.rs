//! Data on stdout.

use std::io::{self, BufWriter, ErrorKind, StdoutLock, Write};

use crate::{Error, Result};

/// Stdout for data: buffered, and at ease with a reader that leaves early
pub struct Output(BufWriter<StdoutLock<'static>>);

impl Output {
    /// Takes stdout until it is dropped
    pub fn open() -> Self {
        Self(BufWriter::new(io::stdout().lock()))
    }

    /// Writes one line
    pub fn line(&mut self, text: &str) -> Result<()> {
        writeln!(self.0, "{text}").or_else(|cause| failed(&cause))
    }

    /// Hands everything written so far to the reader
    pub fn flush(&mut self) -> Result<()> {
        self.0.flush().or_else(|cause| failed(&cause))
    }
}

/// `collimate generate … | head -1` has what it wanted: that is no failure, and there is nobody left to talk to
fn failed(cause: &io::Error) -> Result<()> {
    if cause.kind() == ErrorKind::BrokenPipe {
        std::process::exit(0);
    }
    Err(Error::write("stdout", cause))
}
