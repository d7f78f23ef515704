//! What the user reads when something is wrong.

use std::ffi::OsString;
use std::io::{self, Write};
use std::process::ExitCode;

use clap::error::{ContextKind, ContextValue, ErrorKind};

use crate::Error;

/// Prints `error:` and `hint:` on stderr
pub(super) fn report(error: &Error) -> ExitCode {
    // Without stderr the exit code has to do; the hint is the last line of the error's own text
    let _ = writeln!(io::stderr(), "error: {error}");
    ExitCode::from(error.exit_code())
}

/// Help and version on stdout; what could not be parsed on stderr
pub(super) fn report_parse(error: &clap::Error, args: &[OsString]) -> ExitCode {
    let ours = match error.kind() {
        ErrorKind::UnknownArgument => Some(unknown_flag(error, args)),
        ErrorKind::InvalidSubcommand => Some(unknown_command(error)),
        ErrorKind::InvalidValue | ErrorKind::ValueValidation => bad_value(error),
        _ => None,
    };
    if let Some(error) = ours {
        return report(&error);
    }
    // A reader that leaves early, as in `collimate --help | head -1`, is no failure
    let _ = error.print();
    ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2))
}

fn context(error: &clap::Error, kind: ContextKind) -> Option<&str> {
    match error.get(kind)? {
        ContextValue::String(text) => Some(text),
        ContextValue::Strings(texts) => texts.first().map(String::as_str),
        _ => None,
    }
}

fn unknown_command(error: &clap::Error) -> Error {
    let name = context(error, ContextKind::InvalidSubcommand).unwrap_or_default();
    let unknown = Error::usage(format!("unknown command `{name}`"));
    match context(error, ContextKind::SuggestedSubcommand) {
        Some(near) => unknown.hint(format!("did you mean `{near}`?")),
        None => unknown.hint("`collimate --help` lists the commands"),
    }
}

/// The same words as for a key of a config: the flag, what it must be, what it was
fn bad_value(error: &clap::Error) -> Option<Error> {
    // `--seed <N>`
    let flag = context(error, ContextKind::InvalidArg)?.split(' ').next()?;
    let value = context(error, ContextKind::InvalidValue).unwrap_or_default();
    if value.is_empty() {
        return Some(Error::usage(format!("`{flag}` needs a value")));
    }
    if let Some(ContextValue::Strings(valid)) = error.get(ContextKind::ValidValue)
        && !valid.is_empty()
    {
        return Some(Error::usage(format!("`{flag}` must be `{}`, got `{value}`", valid.join("` or `"))));
    }
    let cause = std::error::Error::source(error)?.to_string();
    Some(Error::usage(if cause.starts_with("must be ") {
        format!("`{flag}` {cause}, got `{value}`")
    } else {
        format!("`{flag}` cannot be `{value}`: {cause}")
    }))
}

/// A training command names its keys in TRL's spelling, so the guess comes from its config and not from clap
fn unknown_flag(error: &clap::Error, args: &[OsString]) -> Error {
    let flag = context(error, ContextKind::InvalidArg).unwrap_or_default();
    let Some(name) = flag.strip_prefix("--") else {
        return Error::usage(format!("unexpected argument `{flag}`"));
    };
    let said = |words: &str| words.split(' ').all(|word| args.iter().any(|arg| arg == word));
    let of_rl = [&super::rl::TRAIN, &super::rl::TOKENS].into_iter().find(|spec| said(spec.name));
    let spec =
        of_rl.or_else(|| crate::train::registry::RECIPES.iter().find(|spec| args.iter().any(|arg| arg == spec.name)));
    if let Some(spec) = spec {
        let name = name.split('=').next().unwrap_or(name).replace('-', "_");
        return spec.unknown(&name);
    }
    let unknown = Error::usage(format!("unknown flag `{flag}`"));
    match context(error, ContextKind::SuggestedArg) {
        Some(near) => unknown.hint(format!("did you mean `{near}`?")),
        None => unknown.hint("`--help` lists the flags"),
    }
}
