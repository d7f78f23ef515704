//! Data on stdout.

use std::io::{self, BufWriter, ErrorKind, IsTerminal, StdoutLock, Write};

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

    /// Writes a piece of a line and shows it at once
    pub fn piece(&mut self, text: &str) -> Result<()> {
        if text.is_empty() {
            return Ok(());
        }
        self.0.write_all(text.as_bytes()).and_then(|()| self.0.flush()).or_else(|cause| failed(&cause))
    }

    /// Writes names and values, the values below each other
    pub fn table(&mut self, rows: &[(&str, String)]) -> Result<()> {
        let width = rows.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0);
        rows.iter().try_for_each(|(name, value)| self.line(format!("{name:width$}  {value}").trim_end()))
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

/// Whether stdout may be coloured: a terminal that can, and nobody who set NO_COLOR
pub fn has_colour() -> bool {
    let refused = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    !refused && io::stdout().is_terminal() && std::env::var_os("TERM").is_none_or(|term| term != "dumb")
}

/// A text on one line, cut after so many letters
pub(super) fn one_line(text: &str, longest: usize) -> String {
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(longest) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line,
    }
}
