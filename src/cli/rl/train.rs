//! `collimate rl train`

use std::path::PathBuf;

use clap::Command;
use serde_json::Value as Json;

use super::agents::build;
use super::gym;
use crate::Result;
use crate::cli::keyed::Keyed;
use crate::config::{self, CommandSpec, Context, RlAgent, RlConfig, Values, to_yaml};
use crate::rl::env::bridge::PREFIX;
use crate::rl::env::{Kwargs, MakeOptions, make_vec};
use crate::rl::saved::Origin;
use crate::rl::train::{Checkpoints, Evaluation, RunOptions, train};
use crate::run::Resume;

/// What `rl train` is called with, for the flags and for messages
pub(in crate::cli) const TRAIN: CommandSpec = CommandSpec {
    name: "rl train",
    about: "Train an agent in an environment",
    groups: RlConfig::GROUPS,
    defaults: &[],
    run: run_values,
};

/// `collimate rl train`
#[derive(Debug)]
pub struct Train;

impl Keyed for Train {
    const SPEC: CommandSpec = TRAIN;

    /// Each agent's own defaults, and which keys it takes
    fn arrange(command: Command) -> Command {
        TRAIN
            .keys()
            .fold(command, |command, key| {
                let own = RlAgent::all().filter_map(|agent| Some(format!("{agent}: {}", agent.default_of(key)?)));
                let own: Vec<_> = own.collect();
                if own.is_empty() {
                    return command;
                }
                command.mut_arg(key.name, |arg| {
                    let help = arg.get_help().map(ToString::to_string).unwrap_or_default();
                    arg.help(format!("{help} [{}]", own.join(", ")))
                })
            })
            .after_help(headings())
    }
}

/// Which agent takes the keys under which headings
fn headings() -> String {
    let line = |agent: RlAgent| {
        let spec = agent.spec();
        let without =
            if spec.without.is_empty() { String::new() } else { format!("; not {}", spec.without.join(", ")) };
        format!("\n  {agent}: {}{without}", spec.headings.join(", "))
    };
    let lines: String = RlAgent::all().map(line).collect();
    format!("Every agent takes the keys under Run, Gymnasium, Evaluation and Learning, and:{lines}")
}

fn run_values(values: &Values, context: &Context) -> Result<()> {
    let config = RlConfig::from_values(values)?;
    let keys = &config.general;
    let mut kwargs: Kwargs =
        keys.env_kwargs.iter().map(|(name, value)| (name.to_owned(), json_or_text(value))).collect();
    if keys.env.starts_with("GridWorld") && !kwargs.contains_key("layout_seed") {
        // Each seed has a grid of its own, and the policy is one for this grid
        kwargs.insert("layout_seed".to_owned(), keys.seed.into());
    }
    let max_episode_steps = keys.max_episode_steps.map(|limit| limit as u32);
    let make = MakeOptions { max_episode_steps, kwargs, gym: gym::options(&config.gym) };
    let mut env = make_vec(&keys.env, keys.n_envs, &make)?;
    let origin = Origin {
        agent: keys.agent.to_string(),
        env: keys.env.clone(),
        env_kwargs: make.kwargs,
        max_episode_steps,
        gym: keys.env.starts_with(PREFIX).then_some(make.gym),
    };
    let resume = match &keys.resume_from_checkpoint {
        config::Resume::No => None,
        config::Resume::Newest => Some(Resume::Newest),
        config::Resume::Folder(folder) => Some(Resume::From(PathBuf::from(folder))),
    };
    if keys.save_steps.is_some() || resume.is_some() {
        env.keep_history()?;
    }
    let mut agent = build(&config, env)?;
    let plans = matches!(keys.agent, RlAgent::ValueIteration | RlAgent::PolicyIteration);
    let options = RunOptions {
        output_dir: PathBuf::from(&keys.output_dir),
        overwrite: keys.overwrite_output_dir,
        resume,
        total_timesteps: if plans { config.tabular.max_rounds as u64 } else { keys.total_timesteps },
        log_interval: keys.log_interval,
        evaluation: keys.eval_freq.map(|every| Evaluation { every, episodes: keys.n_eval_episodes }),
        checkpoints: keys.save_steps.map(|every| Checkpoints { every, keep: keys.save_total_limit }),
        seed: keys.seed,
        command: context.command_line.clone(),
        config: to_yaml(config.to_values())?,
        quiet: !tracing::enabled!(tracing::Level::INFO),
    };
    train(&mut *agent, &origin, &options)
}

/// A value of `env_kwargs`: JSON, or else a text
fn json_or_text(value: &str) -> Json {
    serde_json::from_str(value).unwrap_or_else(|_| Json::from(value))
}
