//! `collimate rl eval`

use std::path::{Path, PathBuf};

use serde_json::{Map, Value as Json};

use crate::cli::args::count;
use crate::cli::output::Output;
use crate::rl::env::{MakeOptions, make_vec};
use crate::rl::evaluate::play;
use crate::rl::saved;
use crate::{Error, Result};

/// Environments that are played at once
const AT_ONCE: usize = 10;

/// The arguments of `collimate rl eval`
#[derive(Debug, clap::Args)]
#[command(rename_all = "snake_case")]
pub struct Args {
    /// Folder of a finished `collimate rl train`
    #[arg(long, value_name = "DIR")]
    pub policy: PathBuf,
    /// Episodes to play
    #[arg(long, value_name = "N", default_value = "100", value_parser = count)]
    pub episodes: usize,
    /// Take the best action always, or draw as in training
    #[arg(long, value_name = "true|false", num_args = 0..=1, default_value = "true", default_missing_value = "true",
          action = clap::ArgAction::Set)]
    pub deterministic: bool,
    /// Seed of the environments and of the draws
    #[arg(long, value_name = "N", default_value = "1000000")]
    pub seed: u64,
}

/// Runs `collimate rl eval`
pub(super) fn run(args: &Args) -> Result<()> {
    let folder: &Path = &args.policy;
    let origin = saved::origin(folder)?;
    let options = MakeOptions { max_episode_steps: origin.max_episode_steps, kwargs: origin.env_kwargs };
    let mut env = make_vec(&origin.env, args.episodes.min(AT_ONCE), &options)?;
    let policy = saved::load(folder, env.spec())?;
    let summary = play(&policy, &mut *env, args.episodes, args.deterministic, args.seed)?.summary();
    let mut line = Map::new();
    line.insert("agent".to_owned(), origin.agent.into());
    line.insert("env".to_owned(), origin.env.into());
    line.insert("deterministic".to_owned(), args.deterministic.into());
    line.insert("seed".to_owned(), args.seed.into());
    if let Json::Object(figures) = serde_json::to_value(summary).map_err(|cause| Error::run(cause.to_string()))? {
        line.extend(figures);
    }
    let mut output = Output::open();
    output.line(&Json::Object(line).to_string())?;
    output.flush()
}
