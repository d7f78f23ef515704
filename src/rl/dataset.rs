//! Transitions on disk, for agents that learn without acting: one safetensors file, with D4RL's names.

use std::collections::HashMap;
use std::path::Path;

use safetensors::serialize;

use super::env::rng::Pcg64;
use super::env::{Actions, EnvSpec, Space, VecStep, VectorEnv};
use super::observer::{ActionSpace, Observer};
use super::policy::Policy;
use super::replay::{ActionNumber, Replay, Transition};
use crate::run::{Slice, TensorFile};
use crate::{Error, Result, files};

/// What was done, row by row
#[derive(Debug, Clone, PartialEq)]
pub enum RecordedActions {
    /// Indices
    Discrete(Vec<u32>),
    /// Vectors as the environment took them
    Continuous(Vec<f32>),
}

/// Transitions in the order in which they happened
#[derive(Debug, Clone, PartialEq)]
pub struct Dataset {
    /// (N, width): what was seen
    pub observations: Vec<f32>,
    /// What was done
    pub actions: RecordedActions,
    /// What it brought
    pub rewards: Vec<f32>,
    /// (N, width): what came of it
    pub next_observations: Vec<f32>,
    /// 1 where the task was over; time that was up does not count
    pub terminals: Vec<u8>,
}

/// How a data set is recorded
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RecordOptions {
    /// Steps of all environments together, rounded up to whole steps of each
    pub steps: usize,
    /// Share of actions that are drawn at random instead
    pub random_actions: f64,
    /// Whether the policy takes its best action
    pub deterministic: bool,
    /// Seed of environments and draws
    pub seed: u64,
}

/// Plays a policy, or chance where there is none, and keeps what happened; also returns the finished episodes' returns
///
/// # Errors
/// A policy that does not fit; bounds that are not finite, for chance
pub fn record(
    policy: Option<&Policy>,
    env: &mut dyn VectorEnv,
    options: &RecordOptions,
) -> Result<(Dataset, Vec<f64>)> {
    let spec = env.spec().clone();
    if policy.is_some_and(|policy| !policy.fits(&spec)) {
        return Err(Error::usage(format!("the policy does not fit the spaces of `{}`", spec.id)));
    }
    let (n, size) = (env.num_envs(), spec.action_space.len());
    let space = ActionSpace::of(&spec);
    let draws = options.random_actions > 0.0 || policy.is_none();
    if draws && matches!(space, ActionSpace::Continuous { .. }) {
        space.bounded("rl record", &spec.id)?;
    }
    let share = if policy.is_some() { options.random_actions } else { 1.0 };
    let mut actor = policy.map(|policy| policy.actor(n, options.deterministic, options.seed.wrapping_add(1 << 32)));
    let mut rng = Pcg64::new(u128::from(options.seed) + (1 << 33));
    let mut step = VecStep::of(env);
    let (mut discrete, mut continuous) = (vec![0; n], vec![0.0; n * size]);
    let mut data = Dataset {
        observations: Vec::new(),
        actions: match space {
            ActionSpace::Discrete(_) => RecordedActions::Discrete(Vec::new()),
            ActionSpace::Continuous { .. } => RecordedActions::Continuous(Vec::new()),
        },
        rewards: Vec::new(),
        next_observations: Vec::new(),
        terminals: Vec::new(),
    };
    let mut returns = Vec::new();
    let mut statistics = super::env::EpisodeStatistics::new(n);
    env.reset(Some(options.seed), &mut step.observations)?;
    for _ in 0..options.steps.div_ceil(n) {
        data.observations.extend_from_slice(&step.observations);
        match actor.as_mut().map(|actor| actor.act(&step.observations)) {
            Some(Actions::Discrete(chosen)) => discrete.copy_from_slice(chosen),
            Some(Actions::Continuous(chosen)) => continuous.copy_from_slice(chosen),
            None => {}
        }
        for env in 0..n {
            if share <= 0.0 || rng.random() >= share {
                continue;
            }
            match &space {
                ActionSpace::Discrete(count) => discrete[env] = rng.integers(0, *count as i64) as u32,
                ActionSpace::Continuous { low, high } => {
                    for (action, (low, high)) in continuous[env * size..].iter_mut().zip(low.iter().zip(high)) {
                        *action = rng.uniform(f64::from(*low), f64::from(*high)) as f32;
                    }
                }
            }
        }
        match &mut data.actions {
            RecordedActions::Discrete(actions) => {
                actions.extend_from_slice(&discrete);
                env.step(Actions::Discrete(&discrete), &mut step)?;
            }
            RecordedActions::Continuous(actions) => {
                actions.extend_from_slice(&continuous);
                env.step(Actions::Continuous(&continuous), &mut step)?;
            }
        }
        data.rewards.extend(step.rewards.iter().map(|reward| *reward as f32));
        data.next_observations.extend_from_slice(&step.final_obs);
        data.terminals.extend(step.terminated.iter().map(|over| u8::from(*over)));
        statistics.record(&step, |episode| returns.push(episode.episode_return));
    }
    Ok((data, returns))
}

impl Dataset {
    /// How many transitions there are
    pub fn len(&self) -> usize {
        self.rewards.len()
    }

    /// Whether there are none
    pub fn is_empty(&self) -> bool {
        self.rewards.is_empty()
    }

    /// Writes the file; `env` is for people who look into it
    pub fn save(&self, path: &Path, env: &str) -> Result<()> {
        let n = self.len();
        let rows = |values: &[f32]| [n, values.len().checked_div(n).unwrap_or(0)];
        let actions = match &self.actions {
            RecordedActions::Discrete(actions) => Slice::flat(actions),
            RecordedActions::Continuous(actions) => Slice::shaped(&rows(actions), actions),
        };
        let tensors = vec![
            ("observations", Slice::shaped(&rows(&self.observations), &self.observations)),
            ("actions", actions),
            ("rewards", Slice::flat(&self.rewards)),
            ("next_observations", Slice::shaped(&rows(&self.next_observations), &self.next_observations)),
            ("terminals", Slice::flat(&self.terminals)),
        ];
        let about = HashMap::from([("env".to_owned(), env.to_owned())]);
        let bytes = serialize(tensors, Some(about)).map_err(|cause| Error::write(path, cause))?;
        files::write_bytes(path, &bytes)
    }

    /// Reads transitions of environments like this
    ///
    /// # Errors
    /// A file of other shapes; states or actions that the environment does not have; numbers that are none
    pub fn load(path: &Path, spec: &EnvSpec) -> Result<Self> {
        let mut file = TensorFile::open(path)?;
        let n = file.shape("rewards")?.iter().product::<usize>();
        let size = spec.action_space.len();
        let data = Self {
            observations: file.read("observations")?,
            actions: match spec.action_space {
                Space::Discrete { .. } => RecordedActions::Discrete(file.read("actions")?),
                Space::Box(_) => RecordedActions::Continuous(file.read("actions")?),
            },
            rewards: file.read("rewards")?,
            next_observations: file.read("next_observations")?,
            terminals: file.read("terminals")?,
        };
        let refuse = |message: String| {
            Err(Error::usage(message)
                .context(path.display())
                .hint(format!("it must hold transitions of `{}`", spec.id)))
        };
        if n == 0 {
            return refuse("there are no transitions".to_owned());
        }
        let (actions, width) = match &data.actions {
            RecordedActions::Discrete(actions) => (actions.len(), 1),
            RecordedActions::Continuous(actions) => (actions.len(), size),
        };
        let observation = spec.observation_space.len();
        for (name, found, each) in [
            ("observations", data.observations.len(), observation),
            ("next_observations", data.next_observations.len(), observation),
            ("actions", actions, width),
            ("terminals", data.terminals.len(), 1),
        ] {
            if found != n * each {
                return refuse(format!("expected {} numbers as `{name}` of {n} transitions, found {found}", n * each));
            }
        }
        let seen = || data.observations.iter().chain(&data.next_observations);
        if let Space::Discrete { n: states } = spec.observation_space
            && let Some(state) = seen().find(|state| !(0.0..states as f32).contains(*state) || state.fract() != 0.0)
        {
            return refuse(format!("`{state}` is no state"));
        }
        if let (RecordedActions::Discrete(actions), Space::Discrete { n: count }) = (&data.actions, &spec.action_space)
            && let Some(action) = actions.iter().find(|action| *action >= count)
        {
            return refuse(format!("action `{action}` is out of range"));
        }
        let continuous =
            if let RecordedActions::Continuous(actions) = &data.actions { actions.as_slice() } else { &[] };
        match seen().chain(&data.rewards).chain(continuous).find(|number| !number.is_finite()) {
            Some(number) => refuse(format!("it holds `{number}`")),
            None => Ok(data),
        }
    }

    /// A replay of all transitions, with the actions that `action` makes of a row's number
    pub(super) fn replay<A: ActionNumber>(
        &self,
        observer: &Observer,
        gamma: f64,
        action_width: usize,
        mut action: impl FnMut(usize, &mut [A]),
    ) -> Replay<A> {
        let n = self.len();
        let (width, seen) = (observer.width(), self.observations.len() / n);
        let mut replay = Replay::new(n, width, action_width);
        let (mut features, mut next_features) = (vec![0.0; width], vec![0.0; width]);
        let mut done = vec![A::default(); action_width];
        for row in 0..n {
            observer.features(&self.observations[row * seen..(row + 1) * seen], &mut features);
            observer.features(&self.next_observations[row * seen..(row + 1) * seen], &mut next_features);
            action(row, &mut done);
            replay.push(&Transition {
                features: &features,
                action: &done,
                reward: self.rewards[row],
                next_features: &next_features,
                discount: if self.terminals[row] != 0 { 0.0 } else { gamma as f32 },
            });
        }
        replay
    }
}
