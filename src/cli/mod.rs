//! The command line: the only room that prints.
//!
//! Each fixed command has a file with its arguments and its `run`; training commands share `train.rs`, which makes
//! their flags out of the keys that their configs declare.

use std::ffi::OsString;
use std::process::ExitCode;

use clap::{ArgMatches, Command, FromArgMatches, Subcommand};

use crate::{Error, Result};

mod args;
pub mod chat;
pub mod compare;
mod convert;
pub mod data;
pub mod demo;
pub mod doctor;
pub mod eval;
mod failure;
mod flags;
pub mod generate;
pub mod inspect;
mod judge;
pub mod keyed;
mod lines;
mod logging;
pub mod logprobs;
pub mod output;
pub mod report;
pub mod rl;
mod sampling;
pub mod score;
mod speaker;
mod train;

/// The commands whose arguments are fixed
#[derive(Debug, Subcommand)]
enum Fixed {
    Demo(demo::Args),
    Generate(generate::Args),
    Chat(chat::Args),
    Logprobs(logprobs::Args),
    Score(score::Args),
    Eval(eval::Args),
    Compare(compare::Args),
    Inspect(inspect::Args),
    Report(report::Args),
    #[command(subcommand)]
    Data(data::Data),
    #[command(subcommand)]
    Rl(rl::Rl),
    Doctor(doctor::Args),
}

/// Parses the command line, runs it, reports an error, and says how the process should exit
pub fn main_with<I>(args: I) -> ExitCode
where
    I: IntoIterator<Item = OsString>,
{
    let args: Vec<OsString> = args.into_iter().collect();
    let matches = match command().try_get_matches_from(&args) {
        Ok(matches) => matches,
        Err(error) => return failure::report_parse(&error, &args),
    };
    match dispatch(&matches, &args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => failure::report(&error),
    }
}

/// The whole command line
fn command() -> Command {
    let root = Command::new("collimate").subcommands(crate::train::registry::RECIPES.iter().map(train::command));
    let root = Fixed::augment_subcommands(root).mut_subcommands(|command| {
        if crate::train::registry::RECIPES.iter().any(|spec| spec.name == command.get_name()) {
            command
        } else if command.has_subcommands() {
            // A command that only holds others passes the common flags on to them
            command.mut_subcommands(|command| command.args(args::common()))
        } else {
            command.args(args::common())
        }
    });
    let root = root
        .version(env!("CARGO_PKG_VERSION"))
        .about("Align small language models on a plain processor")
        .args(args::common())
        .subcommand_required(true)
        .arg_required_else_help(true)
        .disable_help_subcommand(true)
        .max_term_width(100);
    args::both_spellings(root)
}

fn dispatch(matches: &ArgMatches, args: &[OsString]) -> Result<()> {
    let outer = args::Common::of(matches);
    let (name, inner) = matches.subcommand().ok_or_else(|| Error::usage("no command was given"))?;
    if let Some(spec) = crate::train::registry::RECIPES.iter().find(|spec| spec.name == name) {
        return train::run(spec, inner, &outer, args);
    }
    let innermost = inner.subcommand().map_or(inner, |(_, matches)| matches);
    outer.or(&args::Common::of(innermost)).apply()?;
    match Fixed::from_arg_matches(matches).map_err(|error| Error::usage(error.to_string()))? {
        Fixed::Demo(args) => demo::run(args),
        Fixed::Generate(args) => generate::run(args),
        Fixed::Chat(args) => chat::run(args),
        Fixed::Logprobs(args) => logprobs::run(args),
        Fixed::Score(args) => score::run(args),
        Fixed::Eval(args) => eval::run(args),
        Fixed::Compare(args) => compare::run(args),
        Fixed::Inspect(args) => inspect::run(args),
        Fixed::Report(args) => report::run(args),
        Fixed::Data(data::Data::Inspect(args)) => data::inspect(args),
        Fixed::Data(data::Data::Convert(args)) => convert::run(args),
        Fixed::Rl(command) => rl::run(command),
        Fixed::Doctor(args) => doctor::run(args),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    fn check(command: &clap::Command) {
        let mut seen = BTreeSet::new();
        for arg in command.get_arguments() {
            let names = arg.get_long().into_iter().chain(arg.get_all_aliases().into_iter().flatten());
            for name in names.map(str::to_owned) {
                assert!(seen.insert(name.clone()), "`--{name}` stands twice in `{}`", command.get_name());
                // Both spellings, whichever way round the names come
                let hyphenated = name.replace('_', "-");
                let known = arg.get_all_aliases().unwrap_or_default().contains(&hyphenated.as_str());
                assert!(known || arg.get_long() == Some(&hyphenated), "`--{name}` has no spelling `--{hyphenated}`");
            }
        }
        command.get_subcommands().for_each(check);
    }

    #[test]
    fn every_flag_stands_once_and_in_both_spellings() {
        let command = super::command();
        check(&command);
        // clap's own checks, which only debug builds make
        command.debug_assert();
    }
}
