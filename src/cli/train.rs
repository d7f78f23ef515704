//! The training commands: flags from their keys, one notice, then the run.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Arg, ArgMatches, Command, value_parser};

use super::{args, flags};
use crate::Result;
use crate::config::{CommandSpec, Context, TrainKeys, Value};

const AFTER_HELP: &str = "Each key can stand under the same name in the file of --config; a flag beats the file. \
    Names and defaults are TRL's, so a TRL config or command line runs unchanged: keys that cannot change a result \
    here are accepted with one notice, keys whose effect is missing here are refused.";

/// The command with its flags
pub(super) fn command(spec: &CommandSpec) -> Command {
    let config = Arg::new("config")
        .long("config")
        .value_name("FILE.yaml")
        .value_parser(value_parser!(PathBuf))
        .help("YAML file with any of the keys below");
    let command = Command::new(spec.name).about(spec.about).after_help(AFTER_HELP).next_line_help(true).arg(config);
    flags::add_keys(command, spec)
}

/// Reads the config, starts what every command starts, and runs
pub(super) fn run(
    spec: &CommandSpec,
    matches: &ArgMatches,
    outer: &args::Common,
    command_line: &[OsString],
) -> Result<()> {
    // Flags before the command's name come first, so that those after it beat them
    let before = outer.threads.map(|threads| ("threads".to_owned(), Value::Number(threads.to_string())));
    let before = before.into_iter().chain(outer.quiet.then(|| ("quiet".to_owned(), Value::Bool(true))));
    let config = matches.get_one::<PathBuf>("config").map(PathBuf::as_path);
    let (values, notices) = spec.load(config, before.chain(flags::typed(matches, spec)))?;

    let train = TrainKeys::from_values(&values)?;
    args::Common { threads: train.threads, quiet: train.quiet }.apply()?;
    if !notices.is_empty() {
        tracing::info!("accepted, with no effect here: {}", notices.join(", "));
    }
    let command_line = command_line.iter().map(|word| word.to_string_lossy().into_owned()).collect();
    (spec.run)(&values, &Context { command_line })
}
