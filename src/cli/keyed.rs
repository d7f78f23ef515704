//! Commands with a flag for each key of a config, besides the training commands.

use std::marker::PhantomData;
use std::path::PathBuf;

use clap::{Arg, ArgMatches, Command, value_parser};

use super::flags;
use crate::Result;
use crate::config::{CommandSpec, Context, Value};

/// A command's keys and what it runs
pub trait Keyed {
    /// What it is called with, for the flags and for messages
    const SPEC: CommandSpec;

    /// Adds what the flags of the keys do not say by themselves
    fn arrange(command: Command) -> Command {
        command
    }
}

/// The arguments of such a command
#[derive(Debug)]
pub struct KeyedArgs<K> {
    config: Option<PathBuf>,
    typed: Vec<(String, Value)>,
    command: PhantomData<K>,
}

impl<K: Keyed> KeyedArgs<K> {
    /// Reads the config, lets the flags beat it, and runs
    pub(super) fn run(&self) -> Result<()> {
        let (values, _) = K::SPEC.load(self.config.as_deref(), self.typed.clone())?;
        let command_line = std::env::args_os().map(|word| word.to_string_lossy().into_owned()).collect();
        (K::SPEC.run)(&values, &Context { command_line })
    }
}

impl<K: Keyed> clap::FromArgMatches for KeyedArgs<K> {
    fn from_arg_matches(matches: &ArgMatches) -> std::result::Result<Self, clap::Error> {
        let config = matches.get_one("config").cloned();
        Ok(Self { config, typed: flags::typed(matches, &K::SPEC), command: PhantomData })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> std::result::Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

impl<K: Keyed> clap::Args for KeyedArgs<K> {
    fn augment_args(command: Command) -> Command {
        let config = Arg::new("config")
            .long("config")
            .value_name("FILE.yaml")
            .value_parser(value_parser!(PathBuf))
            .help("YAML file with any of the keys below; flags beat it");
        K::arrange(flags::add_keys(command.next_line_help(true).arg(config), &K::SPEC))
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}
