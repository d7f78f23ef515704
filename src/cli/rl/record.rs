//! `collimate rl record`

use std::path::PathBuf;

use serde_json::json;

use super::gym::GymArgs;
use super::trace::parse_kwargs;
use crate::cli::args::count;
use crate::cli::output::Output;
use crate::rl::dataset::{RecordOptions, record};
use crate::rl::env::{MakeOptions, make_vec};
use crate::rl::saved;
use crate::{Error, Result};

/// Environments that are played at once
const AT_ONCE: usize = 10;

/// The arguments of `collimate rl record`
#[derive(Debug, clap::Args)]
#[command(rename_all = "snake_case")]
pub struct Args {
    /// Folder of a finished `collimate rl train`
    #[arg(long, value_name = "DIR", required_unless_present = "env", conflicts_with_all = ["env", "env_kwargs"])]
    pub policy: Option<PathBuf>,
    /// Without a policy: id of the environment in which every action is drawn at random
    #[arg(long, value_name = "ID")]
    pub env: Option<String>,
    /// Arguments of that environment, for example is_slippery=false
    #[arg(long, value_name = "NAME=VALUE", num_args = 1.., value_delimiter = ',')]
    pub env_kwargs: Vec<String>,
    /// Steps to record
    #[arg(long, value_name = "N", default_value = "10000", value_parser = count)]
    pub steps: usize,
    /// Share of the policy's actions that are drawn at random instead
    #[arg(long, value_name = "X", default_value = "0")]
    pub random_actions: f64,
    /// Take the best action always, or draw as in training
    #[arg(long, value_name = "true|false", num_args = 0..=1, default_value = "true", default_missing_value = "true",
          action = clap::ArgAction::Set)]
    pub deterministic: bool,
    /// Seed of the environments and of the draws
    #[arg(long, value_name = "N", default_value = "0")]
    pub seed: u64,
    /// File to write
    #[arg(long, value_name = "FILE.safetensors")]
    pub output: PathBuf,
    #[command(flatten)]
    gym: GymArgs,
}

/// Runs `collimate rl record`
pub(super) fn run(args: &Args) -> Result<()> {
    if !(0.0..=1.0).contains(&args.random_actions) {
        let found = args.random_actions;
        return Err(Error::usage(format!("`--random_actions` must be at least 0 and at most 1, got `{found}`")));
    }
    let (id, mut options) = if let Some(folder) = &args.policy {
        let origin = saved::origin(folder)?;
        let options = origin.make_options();
        (origin.env, options)
    } else {
        let kwargs = parse_kwargs(&args.env_kwargs)?;
        (args.env.clone().unwrap_or_default(), MakeOptions { kwargs, ..MakeOptions::default() })
    };
    options.gym = args.gym.over(&options.gym);
    let mut env = make_vec(&id, AT_ONCE.min(args.steps), &options)?;
    let policy = args.policy.as_ref().map(|folder| saved::load(folder, env.spec())).transpose()?;
    let options = RecordOptions {
        steps: args.steps,
        random_actions: args.random_actions,
        deterministic: args.deterministic,
        seed: args.seed,
    };
    let (data, returns) = record(policy.as_ref(), &mut *env, &options)?;
    data.save(&args.output, &id)?;
    let mean = (!returns.is_empty()).then(|| returns.iter().sum::<f64>() / returns.len() as f64);
    let line = json!({
        "env": id,
        "output": args.output,
        "transitions": data.len(),
        "episodes": returns.len(),
        "mean": mean,
        "random_actions": if policy.is_some() { args.random_actions } else { 1.0 },
        "seed": args.seed,
    });
    let mut output = Output::open();
    output.line(&line.to_string())?;
    output.flush()
}
