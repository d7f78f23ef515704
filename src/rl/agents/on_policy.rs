//! What on-policy agents share: environments, a policy that acts in them, and the rollout that comes of it.

use super::actor_critic::{Batch, Networks};
use crate::rl::env::rng::Pcg64;
use crate::rl::env::{Actions, Episode, EpisodeStatistics, VecStep, VectorEnv};
use crate::rl::normalize::RewardScale;
use crate::rl::observer::{ActionSpace, Observer};
use crate::rl::policy::{Head, Policy};
use crate::rl::random;
use crate::rl::rollout::Rollout;
use crate::rl::state::State;
use crate::{Error, Result};

/// Settings that every on-policy agent has
#[derive(Debug, Clone, Copy)]
pub(super) struct Shared<'o> {
    /// γ
    pub(super) gamma: f64,
    /// Normalise observations and scale rewards
    pub(super) normalize: bool,
    /// Widths of the hidden layers, of policy and value network each
    pub(super) hidden: &'o [usize],
    /// log σ at the start, for continuous actions
    pub(super) log_std_init: f64,
}

/// Environments, networks, and what the last step brought
pub(super) struct OnPolicy {
    pub(super) env: Box<dyn VectorEnv>,
    pub(super) actions: ActionSpace,
    pub(super) observer: Observer,
    pub(super) networks: Networks,
    pub(super) rng: Pcg64,
    pub(super) step: VecStep,
    /// What was seen, chosen and thought of it in this step of all environments
    pub(super) acting: Batch,
    pub(super) statistics: EpisodeStatistics,
    pub(super) episodes: Vec<Episode>,
    pub(super) timesteps: u64,
    rewards: Option<RewardScale>,
    env_actions: (Vec<u32>, Vec<f32>),
}

impl OnPolicy {
    /// Networks are drawn from `seed`, and the environments are reset with it
    pub(super) fn new(mut env: Box<dyn VectorEnv>, shared: Shared<'_>, seed: u64) -> Result<Self> {
        let n = env.num_envs();
        let actions = ActionSpace::of(env.spec());
        let mut observer = Observer::new(&env.spec().observation_space, shared.normalize);
        let mut rng = Pcg64::new(u128::from(seed));
        let networks = Networks::new(&observer, &actions, shared.hidden, shared.log_std_init, &mut rng);
        let mut step = VecStep::of(&*env);
        env.reset(Some(seed), &mut step.observations)?;
        observer.learn(&step.observations);
        Ok(Self {
            rewards: shared.normalize.then(|| RewardScale::new(n, shared.gamma)),
            rng,
            step,
            acting: Batch::new(n, &networks),
            statistics: EpisodeStatistics::new(n),
            episodes: Vec::new(),
            timesteps: 0,
            env_actions: (vec![0; n], vec![0.0; n * actions.outputs()]),
            env,
            actions,
            observer,
            networks,
        })
    }

    /// Numbers in a continuous action
    pub(super) fn action_width(&self) -> Option<usize> {
        matches!(self.actions, ActionSpace::Continuous { .. }).then(|| self.actions.outputs())
    }

    /// Room for `steps` steps of all environments
    ///
    /// # Errors
    /// A rollout of a single step, whose advantage has no spread
    pub(super) fn rollout(&self, steps: usize) -> Result<Rollout> {
        let n = self.env.num_envs();
        if n * steps < 2 {
            return Err(Error::usage("an update needs at least 2 steps").hint("take a larger `n_steps` or `n_envs`"));
        }
        Ok(Rollout::new(n, steps, self.observer.width(), self.action_width()))
    }

    /// Sees, chooses and values, into `acting`
    pub(super) fn act(&mut self) {
        let n = self.env.num_envs();
        self.observer.features(&self.step.observations, &mut self.acting.features);
        let Batch { features, policy, discrete, continuous, log_std, .. } = &mut self.acting;
        let outputs = self.networks.policy.forward(&self.networks.params, n, features, policy);
        match &self.actions {
            ActionSpace::Discrete(classes) => {
                for (env, row) in outputs.chunks_exact(*classes).enumerate() {
                    discrete[env] = random::categorical(&mut self.rng, row);
                    self.env_actions.0[env] = discrete[env] as u32;
                }
            }
            ActionSpace::Continuous { low, high } => {
                let width = low.len();
                let shared = &self.networks.params[self.networks.log_std.clone()];
                for at in 0..n * width {
                    log_std[at] = shared[at % width];
                    let noise = f64::from(log_std[at]).exp() * random::standard_normal(&mut self.rng);
                    continuous[at] = (f64::from(outputs[at]) + noise) as f32;
                    // The environment gets what it allows, learning what was drawn
                    self.env_actions.1[at] = continuous[at].clamp(low[at % width], high[at % width]);
                }
            }
        }
        self.networks.log_probs(n, &self.actions, &mut self.acting);
        self.networks.value(n, &mut self.acting);
    }

    /// Does in all environments what was chosen; the rewards that learning sees go to `rewards`
    pub(super) fn advance(&mut self, rewards: &mut [f32]) -> Result<()> {
        let actions = match &self.actions {
            ActionSpace::Discrete(_) => Actions::Discrete(&self.env_actions.0),
            ActionSpace::Continuous { .. } => Actions::Continuous(&self.env_actions.1),
        };
        self.env.step(actions, &mut self.step)?;
        self.timesteps += rewards.len() as u64;
        self.observer.learn(&self.step.observations);
        if let Some(scale) = &mut self.rewards {
            scale.update(&self.step.rewards);
        }
        for (env, out) in rewards.iter_mut().enumerate() {
            let reward = self.step.rewards[env];
            *out = self.rewards.as_ref().map_or(reward, |scale| scale.scale(reward)) as f32;
            if let Some(scale) = &mut self.rewards
                && self.step.ended(env)
            {
                scale.forget(env);
            }
        }
        let episodes = &mut self.episodes;
        self.statistics.record(&self.step, |episode| episodes.push(episode));
        Ok(())
    }

    /// Values what the last actions led to, before any new episode began, into `acting`
    pub(super) fn value_final(&mut self) {
        self.observer.features(&self.step.final_obs, &mut self.acting.features);
        self.networks.value(self.env.num_envs(), &mut self.acting);
    }

    /// Fills a rollout, without its advantages
    pub(super) fn collect(&mut self, rollout: &mut Rollout) -> Result<()> {
        let n = self.env.num_envs();
        let width = self.observer.width();
        let steps = rollout.len() / n;
        for t in 0..steps {
            let row = t * n..(t + 1) * n;
            self.act();
            rollout.features[t * n * width..(t + 1) * n * width].copy_from_slice(&self.acting.features);
            rollout.log_probs[row.clone()].copy_from_slice(&self.acting.log_probs);
            let values = self.acting.value.outputs();
            rollout.values[row.clone()].copy_from_slice(values);
            if t > 0 {
                // What a step led to is what the next one sees, unless an episode ended in between
                for (env, value) in values.iter().enumerate() {
                    let before = (t - 1) * n + env;
                    if !rollout.truncated[before] {
                        rollout.next_values[before] = *value;
                    }
                }
            }
            match &self.actions {
                ActionSpace::Discrete(_) => rollout.discrete[row.clone()].copy_from_slice(&self.acting.discrete),
                ActionSpace::Continuous { low, .. } => rollout.continuous[row.start * low.len()..row.end * low.len()]
                    .copy_from_slice(&self.acting.continuous),
            }
            self.advance(&mut rollout.rewards[row])?;
            rollout.record_ends(t, &self.step);
            let is_last = t + 1 == steps;
            if is_last || self.step.truncated.contains(&true) {
                self.value_final();
                for (env, value) in self.acting.value.outputs().iter().enumerate() {
                    if is_last || self.step.truncated[env] {
                        rollout.next_values[t * n + env] = *value;
                    }
                }
            }
        }
        Ok(())
    }

    /// Takes out everything that the next rollout depends on, or puts it back
    pub(super) fn persist(&mut self, state: &mut State) -> Result<()> {
        state.tensor("params", &mut self.networks.params)?;
        state.tensor("observations", &mut self.step.observations)?;
        state.value("rng", &mut self.rng)?;
        let mut moments = self.observer.moments().cloned();
        state.value("observer", &mut moments)?;
        self.observer.set_moments(moments);
        state.value("reward_scale", &mut self.rewards)?;
        state.value("running_episodes", &mut self.statistics)?;
        state.value("timesteps", &mut self.timesteps)?;
        state.environments(&mut *self.env)
    }

    /// The share of a run of `total` steps that is over
    pub(super) fn progress(&self, total: u64) -> f64 {
        (self.timesteps as f64 / total as f64).min(1.0)
    }

    /// What it would save now
    pub(super) fn policy(&self) -> Policy {
        let networks = &self.networks;
        Policy {
            observer: self.observer.clone(),
            actions: self.actions.clone(),
            network: networks.policy.clone(),
            params: networks.params[..networks.policy.end()].to_vec(),
            head: match self.actions {
                ActionSpace::Discrete(_) => Head::Categorical,
                ActionSpace::Continuous { .. } => Head::Gaussian(networks.params[networks.log_std.clone()].to_vec()),
            },
        }
    }
}
