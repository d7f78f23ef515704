//! `collimate rl train` and `collimate rl eval`

use std::path::{Path, PathBuf};

use clap::{Arg, ArgMatches, Command, value_parser};
use serde_json::{Map, Value as Json};

use super::args::count;
use super::flags;
use super::output::Output;
use crate::config::{CommandSpec, Context, Falling, RlAgent, RlKeys, Value, Values, to_yaml};
use crate::rl::agents::{Agent, Dqn, DqnOptions, Ppo, PpoOptions, Schedule};
use crate::rl::env::{Kwargs, MakeOptions, make_vec};
use crate::rl::evaluate::play;
use crate::rl::saved::{self, Origin};
use crate::rl::train::{RunOptions, train};
use crate::{Error, Result};

/// What `rl train` is called with, for the flags and for messages
pub(super) const TRAIN: CommandSpec = CommandSpec {
    name: "rl train",
    about: "Train an agent in an environment",
    groups: &[RlKeys::KEYS],
    defaults: &[],
    run: run_values,
};

/// The arguments of `collimate rl train`: a flag for each key
#[derive(Debug)]
pub struct TrainArgs {
    config: Option<PathBuf>,
    typed: Vec<(String, Value)>,
}

impl clap::FromArgMatches for TrainArgs {
    fn from_arg_matches(matches: &ArgMatches) -> std::result::Result<Self, clap::Error> {
        Ok(Self { config: matches.get_one("config").cloned(), typed: flags::typed(matches, &TRAIN) })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> std::result::Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

impl clap::Args for TrainArgs {
    fn augment_args(command: Command) -> Command {
        let config = Arg::new("config")
            .long("config")
            .value_name("FILE.yaml")
            .value_parser(value_parser!(PathBuf))
            .help("YAML file with any of the keys below; flags beat it");
        flags::add_keys(command.next_line_help(true).arg(config), &TRAIN)
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

/// The arguments of `collimate rl eval`
#[derive(Debug, clap::Args)]
#[command(rename_all = "snake_case")]
pub struct EvalArgs {
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

/// Runs `collimate rl train`
pub(super) fn run_train(args: &TrainArgs) -> Result<()> {
    let (values, _) = TRAIN.load(args.config.as_deref(), args.typed.clone())?;
    let command_line = std::env::args_os().map(|word| word.to_string_lossy().into_owned()).collect();
    (TRAIN.run)(&values, &Context { command_line })
}

fn run_values(values: &Values, context: &Context) -> Result<()> {
    let keys = RlKeys::from_values(values)?;
    refuse_keys_of_others(values, keys.agent)?;
    let kwargs: Kwargs = keys.env_kwargs.iter().map(|(name, value)| (name.to_owned(), json_or_text(value))).collect();
    let max_episode_steps = keys.max_episode_steps.map(|limit| limit as u32);
    let origin =
        Origin { agent: keys.agent.to_string(), env: keys.env.clone(), env_kwargs: kwargs.clone(), max_episode_steps };
    let env = make_vec(&keys.env, keys.n_envs, &MakeOptions { max_episode_steps, kwargs })?;
    let mut agent: Box<dyn Agent> = match keys.agent {
        RlAgent::Ppo => Box::new(Ppo::new(env, ppo(&keys), keys.seed)?),
        RlAgent::Dqn => Box::new(Dqn::new(env, dqn(&keys), keys.seed)?),
    };
    let options = RunOptions {
        output_dir: PathBuf::from(&keys.output_dir),
        overwrite: keys.overwrite_output_dir,
        total_timesteps: keys.total_timesteps,
        log_interval: keys.log_interval,
        seed: keys.seed,
        command: context.command_line.clone(),
        config: to_yaml(keys.to_values())?,
        quiet: !tracing::enabled!(tracing::Level::INFO),
    };
    train(&mut *agent, &origin, &options)
}

/// A key of another agent would do nothing, which nobody means
fn refuse_keys_of_others(values: &Values, agent: RlAgent) -> Result<()> {
    let others = match agent {
        RlAgent::Ppo => "DQN",
        RlAgent::Dqn => "PPO",
    };
    let mut of_others = RlKeys::KEYS.iter().filter(|key| key.heading == others);
    match of_others.find_map(|key| values.get(key.name).map(|(_, place)| (key, place))) {
        Some((key, place)) => {
            let message = format!("`{}` is a key of {}, and `agent` is `{agent}`", key.name, others.to_lowercase());
            Err(place.locate(Error::usage(message).hint(format!("leave out `{}`", key.name))))
        }
        None => Ok(()),
    }
}

fn schedule(falling: Falling) -> Schedule {
    Schedule { initial: falling.initial, linear: falling.linear }
}

fn ppo(keys: &RlKeys) -> PpoOptions {
    let default = PpoOptions::default();
    PpoOptions {
        n_steps: keys.n_steps,
        batch_size: keys.batch_size.unwrap_or(default.batch_size),
        n_epochs: keys.n_epochs,
        gamma: keys.gamma,
        gae_lambda: keys.gae_lambda,
        learning_rate: keys.learning_rate.map_or(default.learning_rate, schedule),
        clip_range: schedule(keys.clip_range),
        clip_range_vf: keys.clip_range_vf,
        ent_coef: keys.ent_coef,
        vf_coef: keys.vf_coef,
        max_grad_norm: keys.max_grad_norm.unwrap_or(default.max_grad_norm),
        target_kl: keys.target_kl,
        normalize_advantage: keys.normalize_advantage,
        normalize: keys.normalize,
        hidden: keys.net_arch.clone(),
        log_std_init: keys.log_std_init,
    }
}

fn dqn(keys: &RlKeys) -> DqnOptions {
    let default = DqnOptions::default();
    DqnOptions {
        learning_rate: keys.learning_rate.map_or(default.learning_rate, schedule),
        buffer_size: keys.buffer_size,
        learning_starts: keys.learning_starts,
        batch_size: keys.batch_size.unwrap_or(default.batch_size),
        gamma: keys.gamma,
        train_freq: keys.train_freq,
        gradient_steps: usize::try_from(keys.gradient_steps).ok(),
        target_update_interval: keys.target_update_interval,
        exploration_fraction: keys.exploration_fraction,
        exploration_initial_eps: keys.exploration_initial_eps,
        exploration_final_eps: keys.exploration_final_eps,
        max_grad_norm: keys.max_grad_norm.unwrap_or(default.max_grad_norm),
        double: keys.double,
        dueling: keys.dueling,
        hidden: keys.net_arch.clone(),
    }
}

/// A value of `env_kwargs`: JSON, or else a text
fn json_or_text(value: &str) -> Json {
    serde_json::from_str(value).unwrap_or_else(|_| Json::from(value))
}

/// Environments that `rl eval` plays at once
const AT_ONCE: usize = 10;

/// Runs `collimate rl eval`
pub(super) fn run_eval(args: &EvalArgs) -> Result<()> {
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
