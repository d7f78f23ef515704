//! What the user reads when something is wrong.

use std::ffi::OsString;
use std::io::{self, Write};
use std::process::ExitCode;

use clap::error::{ContextKind, ContextValue, ErrorKind};

use super::train;
use crate::Error;

/// Prints `error:` and `hint:` on stderr
pub(super) fn report(error: &Error) -> ExitCode {
    // Without stderr the exit code has to do; the hint is the last line of the error's own text
    let _ = writeln!(io::stderr(), "error: {error}");
    ExitCode::from(error.exit_code())
}

/// Help and version on stdout; what could not be parsed on stderr
pub(super) fn report_parse(error: &clap::Error, args: &[OsString]) -> ExitCode {
    if error.kind() == ErrorKind::UnknownArgument {
        return report(&unknown_flag(error, args));
    }
    // A reader that leaves early, as in `collimate --help | head -1`, is no failure
    let _ = error.print();
    ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2))
}

/// A training command names its keys in TRL's spelling, so the guess comes from its config and not from clap
fn unknown_flag(error: &clap::Error, args: &[OsString]) -> Error {
    let flag = match error.get(ContextKind::InvalidArg) {
        Some(ContextValue::String(flag)) => flag.as_str(),
        _ => "",
    };
    let Some(name) = flag.strip_prefix("--") else {
        return Error::usage(format!("unexpected argument `{flag}`"));
    };
    let spec = crate::train::registry::RECIPES.iter().find(|spec| args.iter().any(|arg| arg == spec.name));
    if let Some(spec) = spec {
        let name = name.split('=').next().unwrap_or(name).replace('-', "_");
        return spec.unknown(&name);
    }
    let error_text = Error::usage(format!("unknown flag `{flag}`"));
    match error.get(ContextKind::SuggestedArg) {
        Some(ContextValue::String(near)) => error_text.hint(format!("did you mean `{near}`?")),
        _ => error_text.hint("`--help` lists the flags"),
    }
}
