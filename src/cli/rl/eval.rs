//! `collimate rl eval`

use std::path::{Path, PathBuf};

use serde::Serialize;

use super::gym::GymArgs;
use crate::cli::args::count;
use crate::cli::output::Output;
use crate::report::statistics::{Bootstrap, Estimate, Scores, iqm, mean};
use crate::rl::env::make_vec;
use crate::rl::evaluate::{Summary, play};
use crate::rl::saved::{self, Origin};
use crate::{Error, Result};

/// Environments that are played at once
const AT_ONCE: usize = 10;

/// The arguments of `collimate rl eval`
#[derive(Debug, clap::Args)]
#[command(rename_all = "snake_case")]
pub struct Args {
    /// Folder of a finished `collimate rl train`, or its `best`; several, of as many seeds, are summed up too
    #[arg(long, value_name = "DIR", required = true, num_args = 1..)]
    pub policy: Vec<PathBuf>,
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
    #[command(flatten)]
    gym: GymArgs,
}

/// What is said of one policy
#[derive(Serialize)]
struct Line<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    policy: Option<&'a Path>,
    agent: &'a str,
    env: &'a str,
    deterministic: bool,
    seed: u64,
    #[serde(flatten)]
    summary: Summary,
}

/// What is said of the policies of an agent together: each counts with its mean return
#[derive(Serialize)]
struct Total<'a> {
    policies: usize,
    agent: &'a str,
    env: &'a str,
    returns: &'a [f64],
    mean: f64,
    iqm: Estimate,
}

/// Runs `collimate rl eval`
pub(super) fn run(args: &Args) -> Result<()> {
    let origins = args.policy.iter().map(|folder| saved::origin(folder)).collect::<Result<Vec<_>>>()?;
    if let Some(other) = origins.iter().find(|origin| origin.env != origins[0].env) {
        let message = format!("one policy is for `{}`, another for `{}`", origins[0].env, other.env);
        return Err(Error::usage(message).hint("returns of several environments have no common scale: name one by one"));
    }
    let mut output = Output::open();
    let mut returns: Vec<(&str, Vec<f64>)> = Vec::new();
    for (folder, origin) in args.policy.iter().zip(&origins) {
        let summary = evaluate(folder, origin, args)?;
        let line = Line {
            policy: (origins.len() > 1).then_some(folder),
            agent: &origin.agent,
            env: &origin.env,
            deterministic: args.deterministic,
            seed: args.seed,
            summary,
        };
        output.line(&json(&line)?)?;
        match returns.iter_mut().find(|(agent, _)| *agent == origin.agent) {
            Some((_, returns)) => returns.push(summary.mean),
            None => returns.push((&origin.agent, vec![summary.mean])),
        }
    }
    for (agent, returns) in returns.iter().filter(|_| origins.len() > 1) {
        let scores = Scores::new(vec![returns.clone()])?;
        let total = Total {
            policies: returns.len(),
            agent,
            env: &origins[0].env,
            returns,
            mean: mean(&scores),
            iqm: Bootstrap::default().estimate(&scores, iqm),
        };
        output.line(&json(&total)?)?;
    }
    output.flush()
}

fn evaluate(folder: &Path, origin: &Origin, args: &Args) -> Result<Summary> {
    let mut options = origin.make_options();
    options.gym = args.gym.over(&options.gym);
    let mut env = make_vec(&origin.env, args.episodes.min(AT_ONCE), &options)?;
    let policy = saved::load(folder, env.spec())?;
    Ok(play(&policy, &mut *env, args.episodes, args.deterministic, args.seed)?.summary())
}

fn json(line: &impl Serialize) -> Result<String> {
    serde_json::to_string(line).map_err(|cause| Error::run(cause.to_string()))
}
