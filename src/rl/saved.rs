//! Policies on disk: `config.json` says what the policy is, `model.safetensors` holds its network.

use std::fs;
use std::path::Path;

use safetensors::serialize;
use serde::{Deserialize, Serialize};

use super::env::{GymOptions, Kwargs, MakeOptions};
use super::mlp::{Activation, Mlp};
use super::normalize::Moments;
use super::observer::{ActionSpace, Observer};
use super::policy::{Head, Policy};
use crate::rl::env::EnvSpec;
use crate::run::{Slice, TensorFile};
use crate::{Error, Result, files};

const CONFIG: &str = "config.json";
const WEIGHTS: &str = "model.safetensors";

/// What a policy was trained in
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Origin {
    /// The agent's name
    pub agent: String,
    /// Id of the environment
    pub env: String,
    /// Its arguments
    pub env_kwargs: Kwargs,
    /// Its limit, where it was set
    pub max_episode_steps: Option<u32>,
    /// How Gymnasium made it, where it was not native
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gym: Option<GymOptions>,
}

impl Origin {
    /// How to make its environment
    pub fn make_options(&self) -> MakeOptions {
        MakeOptions {
            max_episode_steps: self.max_episode_steps,
            kwargs: self.env_kwargs.clone(),
            gym: self.gym.clone().unwrap_or_default(),
        }
    }

    /// Whether a run of one can go on as a run of the other: where the processes run does not matter
    pub fn continues(&self, other: &Self) -> bool {
        let Self { agent, env, env_kwargs, max_episode_steps, gym } = self;
        (agent, env, env_kwargs, max_episode_steps)
            == (&other.agent, &other.env, &other.env_kwargs, &other.max_episode_steps)
            && gym.clone().unwrap_or_default().same_environments(&other.gym.clone().unwrap_or_default())
    }
}

#[derive(Serialize, Deserialize)]
struct Config {
    #[serde(flatten)]
    origin: Origin,
    widths: Vec<usize>,
    activation: Activation,
    head: SavedHead,
    observation: Option<Moments>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum SavedHead {
    Categorical,
    Gaussian,
    Values { epsilon: f64 },
    Squashed,
    Deterministic,
}

/// Writes a policy into a folder
pub fn save(folder: &Path, policy: &Policy, origin: &Origin) -> Result<()> {
    let layers = policy.network.layers();
    let config = Config {
        origin: origin.clone(),
        widths: layers.iter().map(|layer| layer.inputs).chain([policy.network.outputs()]).collect(),
        activation: policy.network.activation(),
        head: match &policy.head {
            Head::Categorical => SavedHead::Categorical,
            Head::Gaussian(_) => SavedHead::Gaussian,
            Head::Values(epsilon) => SavedHead::Values { epsilon: *epsilon },
            Head::Squashed => SavedHead::Squashed,
            Head::Deterministic => SavedHead::Deterministic,
        },
        observation: policy.observer.moments().cloned(),
    };
    let mut tensors = Vec::new();
    for (at, layer) in layers.iter().enumerate() {
        let shape = [layer.outputs, layer.inputs];
        tensors.push((format!("policy.{at}.weight"), Slice::shaped(&shape, &policy.params[layer.weight.clone()])));
        tensors.push((format!("policy.{at}.bias"), Slice::flat(&policy.params[layer.bias.clone()])));
    }
    if let Head::Gaussian(log_std) = &policy.head {
        tensors.push(("log_std".to_owned(), Slice::flat(log_std)));
    }
    let bytes = serialize(tensors, None).map_err(|cause| Error::write(folder.join(WEIGHTS), cause))?;
    files::write_bytes(&folder.join(WEIGHTS), &bytes)?;
    let mut json = serde_json::to_string_pretty(&config).map_err(|cause| Error::write(folder.join(CONFIG), cause))?;
    json.push('\n');
    files::write_bytes(&folder.join(CONFIG), json.as_bytes())
}

/// What a policy in a folder was trained in
pub fn origin(folder: &Path) -> Result<Origin> {
    Ok(config(folder)?.origin)
}

fn config(folder: &Path) -> Result<Config> {
    let path = folder.join(CONFIG);
    let text = fs::read_to_string(&path)
        .map_err(|cause| Error::read(&path, cause).hint("name the folder of a finished `collimate rl train`"))?;
    serde_json::from_str(&text).map_err(|cause| {
        Error::usage(format!("not the config of a policy: {cause}"))
            .context(path.display())
            .hint("name the folder of a finished `collimate rl train`")
    })
}

/// Reads a policy for environments like this
pub fn load(folder: &Path, spec: &EnvSpec) -> Result<Policy> {
    let config = config(folder)?;
    let path = folder.join(CONFIG);
    if config.widths.len() < 2 || config.widths.contains(&0) {
        return Err(Error::usage("`widths` must hold at least two numbers above 0").context(path.display()));
    }
    let network = Mlp::new(&config.widths, config.activation, 0);
    let mut observer = Observer::new(&spec.observation_space, false);
    let actions = ActionSpace::of(spec);
    let is_continuous = matches!(actions, ActionSpace::Continuous { .. });
    if is_continuous == matches!(config.head, SavedHead::Categorical | SavedHead::Values { .. }) {
        let message = format!("the policy in `{}` is not one for the actions of `{}`", folder.display(), spec.id);
        return Err(Error::usage(message));
    }
    let outputs = actions.outputs() * if matches!(config.head, SavedHead::Squashed) { 2 } else { 1 };
    if (network.inputs(), network.outputs()) != (observer.width(), outputs) {
        return Err(Error::usage(format!(
            "the policy in `{}` takes {} numbers and gives {}; `{}` needs {} and {}",
            folder.display(),
            network.inputs(),
            network.outputs(),
            spec.id,
            observer.width(),
            outputs
        )));
    }
    if config.observation.as_ref().is_some_and(|moments| moments.columns().count() != observer.width()) {
        return Err(Error::usage("`observation` has not the width of an observation").context(path.display()));
    }
    observer.set_moments(config.observation);
    let mut file = TensorFile::open(&folder.join(WEIGHTS))?;
    let mut params = vec![0.0_f32; network.end()];
    for (at, layer) in network.layers().iter().enumerate() {
        file.read_into(&format!("policy.{at}.weight"), &mut params[layer.weight.clone()])?;
        file.read_into(&format!("policy.{at}.bias"), &mut params[layer.bias.clone()])?;
    }
    let head = match config.head {
        SavedHead::Categorical => Head::Categorical,
        SavedHead::Values { epsilon } => Head::Values(epsilon),
        SavedHead::Squashed => Head::Squashed,
        SavedHead::Deterministic => Head::Deterministic,
        SavedHead::Gaussian => {
            let mut log_std = vec![0.0_f32; actions.outputs()];
            file.read_into("log_std", &mut log_std)?;
            Head::Gaussian(log_std)
        }
    };
    Ok(Policy { observer, actions, network, params, head })
}
