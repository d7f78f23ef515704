//! `collimate rl trace` and `collimate rl envs`

use std::fs;
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde_json::Value;

use super::gym::GymArgs;
use crate::cli::args::count;
use crate::cli::output::Output;
use crate::rl::env::{Actions, EnvSpec, GymOptions, Kwargs, MakeOptions, Space, VecStep, listing, make_vec};
use crate::{Error, Result};

/// The arguments of `collimate rl trace`
#[derive(Debug, clap::Args)]
#[command(rename_all = "snake_case")]
pub struct TraceArgs {
    /// Id of the environment, as `collimate rl envs` lists them, or `gym:ID` of an installed Gymnasium
    #[arg(long, value_name = "ID")]
    pub env: String,
    /// Seed of the first reset
    #[arg(long, value_name = "N", default_value = "0", allow_negative_numbers = true)]
    pub seed: u64,
    /// JSON file: a list of whole numbers, or of lists of numbers where the actions are continuous
    #[arg(long, value_name = "FILE")]
    pub actions: PathBuf,
    /// Arguments of the environment, for example is_slippery=false
    #[arg(long, value_name = "NAME=VALUE", num_args = 1.., value_delimiter = ',')]
    pub env_kwargs: Vec<String>,
    /// Truncate episodes after so many steps, instead of what the id says
    #[arg(long, value_name = "N", value_parser = count)]
    pub max_episode_steps: Option<usize>,
    #[command(flatten)]
    gym: GymArgs,
}

/// The arguments of `collimate rl envs`
#[derive(Debug, clap::Args)]
#[command(rename_all = "snake_case")]
pub struct EnvsArgs {
    /// Print one JSON object a line
    #[arg(long, value_name = "true|false", num_args = 0..=1, default_value = "false", default_missing_value = "true")]
    pub json: bool,
}

/// The actions of a trace, one after the other
enum Script {
    Discrete(Vec<u32>),
    Continuous { rows: Vec<f32>, width: usize },
}

impl Script {
    fn read(path: &Path, spec: &EnvSpec) -> Result<Self> {
        let text = fs::read_to_string(path).map_err(|cause| Error::read(path, cause))?;
        let expected = match &spec.action_space {
            Space::Discrete { n } => format!("a list of whole numbers from 0 to {}", n - 1),
            space @ Space::Box(_) => format!("a list of lists, each of length {}", space.len()),
        };
        let malformed = |message: String| {
            Error::usage(message).context(path.display()).hint(format!("the actions of `{}` are {expected}", spec.id))
        };
        let file: Value = serde_json::from_str(&text).map_err(|cause| malformed(format!("not JSON: {cause}")))?;
        let Value::Array(actions) = file else { return Err(malformed("not a list".to_owned())) };
        let refused = |(at, action): (usize, &Value)| {
            malformed(format!("action {at} is `{action}`, which `{}` does not take", spec.id))
        };
        let numbered = actions.iter().enumerate();
        match &spec.action_space {
            Space::Discrete { n } => {
                let parse = |action: &Value| action.as_u64().filter(|action| *action < u64::from(*n));
                let action = |item: (usize, &Value)| parse(item.1).map(|a| a as u32).ok_or_else(|| refused(item));
                Ok(Self::Discrete(numbered.map(action).collect::<Result<_>>()?))
            }
            space @ Space::Box(_) => {
                let width = space.len();
                let mut rows = Vec::with_capacity(actions.len() * width);
                for item in numbered {
                    let row = row(item.1).filter(|row| row.len() == width).ok_or_else(|| refused(item))?;
                    rows.extend(row);
                }
                Ok(Self::Continuous { rows, width })
            }
        }
    }

    fn actions(&self) -> Box<dyn Iterator<Item = Actions<'_>> + '_> {
        match self {
            Self::Discrete(actions) => Box::new(actions.chunks(1).map(Actions::Discrete)),
            Self::Continuous { rows, width } => Box::new(rows.chunks(*width).map(Actions::Continuous)),
        }
    }
}

/// The numbers of a list, where each fits an f32
fn row(value: &Value) -> Option<Vec<f32>> {
    let number = |value: &Value| value.as_f64().map(|number| number as f32).filter(|number| number.is_finite());
    value.as_array()?.iter().map(number).collect()
}

/// An observation as its space has it
#[derive(Serialize)]
#[serde(untagged)]
enum Observation<'a> {
    Number([u32; 1]),
    Vector(&'a [f32]),
}

impl<'a> Observation<'a> {
    fn new(numbers: &'a [f32], space: &Space) -> Self {
        match space {
            Space::Discrete { .. } => Self::Number([numbers[0] as u32]),
            Space::Box(_) => Self::Vector(numbers),
        }
    }
}

#[derive(Serialize)]
struct Line<'a> {
    obs: Observation<'a>,
    #[serde(flatten)]
    step: Option<Step>,
}

#[derive(Serialize)]
struct Step {
    reward: f64,
    terminated: bool,
    truncated: bool,
}

/// Runs `collimate rl trace`
pub(super) fn trace(args: &TraceArgs) -> Result<()> {
    let kwargs = parse_kwargs(&args.env_kwargs)?;
    let max_episode_steps = args.max_episode_steps.map(u32::try_from).transpose();
    let max_episode_steps = max_episode_steps.map_err(|_| Error::usage("`--max_episode_steps` is too large"))?;
    let mut env =
        make_vec(&args.env, 1, &MakeOptions { max_episode_steps, kwargs, gym: args.gym.over(&GymOptions::default()) })?;
    let script = Script::read(&args.actions, env.spec())?;
    let space = env.spec().observation_space.clone();
    let mut step = VecStep::of(&*env);
    let mut output = Output::open();
    let mut print = |numbers: &[f32], step| {
        let line = Line { obs: Observation::new(numbers, &space), step };
        output.line(&serde_json::to_string(&line).map_err(|cause| Error::run(cause.to_string()))?)
    };
    env.reset(Some(args.seed), &mut step.observations)?;
    print(&step.observations, None)?;
    for action in script.actions() {
        env.step(action, &mut step)?;
        let (reward, terminated, truncated) = (step.rewards[0], step.terminated[0], step.truncated[0]);
        print(&step.final_obs, Some(Step { reward, terminated, truncated }))?;
        if step.ended(0) {
            print(&step.observations, None)?;
        }
    }
    output.flush()
}

/// `NAME=VALUE` of `--env_kwargs`; a value that is not JSON is a text
pub(super) fn parse_kwargs(entries: &[String]) -> Result<Kwargs> {
    let parse = |entry: &String| match entry.split_once('=') {
        Some((name, value)) if !name.is_empty() => {
            let value = serde_json::from_str(value).unwrap_or_else(|_| Value::from(value));
            Ok((name.to_owned(), value))
        }
        _ => Err(Error::usage(format!("`--env_kwargs` must be NAME=VALUE, got `{entry}`"))
            .hint("for example `--env_kwargs is_slippery=false`")),
    };
    entries.iter().map(parse).collect()
}

#[derive(Serialize)]
struct Listed<'a> {
    id: &'a str,
    aliases: &'a [&'a str],
    action_space: &'a Space,
    observation_space: &'a Space,
    max_episode_steps: Option<u32>,
    reward_threshold: Option<f64>,
}

/// Runs `collimate rl envs`
pub(super) fn envs(args: &EnvsArgs) -> Result<()> {
    let mut output = Output::open();
    let listing = listing()?;
    if args.json {
        for env in &listing {
            let EnvSpec { id, observation_space, action_space, max_episode_steps, reward_threshold } = &env.spec;
            let listed = Listed {
                id,
                aliases: env.aliases,
                action_space,
                observation_space,
                max_episode_steps: *max_episode_steps,
                reward_threshold: *reward_threshold,
            };
            output.line(&serde_json::to_string(&listed).map_err(|cause| Error::run(cause.to_string()))?)?;
        }
        return output.flush();
    }
    let or_none = |number: Option<String>| number.unwrap_or_else(|| "-".to_owned());
    let mut rows = vec![["id", "actions", "observations", "limit", "solved at"].map(str::to_owned)];
    rows.extend(listing.iter().map(|env| {
        let names: Vec<_> = std::iter::once(env.spec.id.as_str()).chain(env.aliases.iter().copied()).collect();
        [
            names.join(", "),
            env.spec.action_space.to_string(),
            env.spec.observation_space.to_string(),
            or_none(env.spec.max_episode_steps.map(|limit| limit.to_string())),
            or_none(env.spec.reward_threshold.map(|threshold| threshold.to_string())),
        ]
    }));
    let widths: Vec<_> = (0..5).map(|column| rows.iter().map(|row| row[column].len()).max().unwrap_or(0)).collect();
    for row in &rows {
        let cells: Vec<_> = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        output.line(cells.join("  ").trim_end())?;
    }
    output.flush()
}
