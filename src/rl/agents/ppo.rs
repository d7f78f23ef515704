//! Proximal policy optimisation, discrete and continuous.
//!
//! Schulman et al. 2017, <https://arxiv.org/abs/1707.06347>. Advantages, surrogate, value loss and distributions are the
//! functions of [`algo`](crate::algo) that the language model's PPO calls too: only the networks differ.

use super::actor_critic::{Batch, Networks};
use super::{Agent, Figures, Schedule};
use crate::algo::advantage::normalize;
use crate::algo::policy::{Clip, Surrogate, clipped_surrogate};
use crate::algo::value::{ValueLoss, explained_variance, value_loss};
use crate::rl::env::rng::Pcg64;
use crate::rl::env::{Actions, Episode, EpisodeStatistics, VecStep, VectorEnv};
use crate::rl::mlp::Adam;
use crate::rl::normalize::RewardScale;
use crate::rl::observer::{ActionSpace, Observer};
use crate::rl::policy::{Head, Policy};
use crate::rl::random;
use crate::rl::rollout::Rollout;
use crate::{Error, Result};

/// Settings of PPO; defaults are Stable-Baselines3's
#[derive(Debug, Clone, PartialEq)]
pub struct PpoOptions {
    /// Steps of each environment before an update
    pub n_steps: usize,
    /// Samples of a minibatch
    pub batch_size: usize,
    /// Passes over a rollout
    pub n_epochs: usize,
    /// γ
    pub gamma: f64,
    /// λ
    pub gae_lambda: f64,
    /// Learning rate
    pub learning_rate: Schedule,
    /// ε of the clipped surrogate
    pub clip_range: Schedule,
    /// How far a value may move from its first estimate
    pub clip_range_vf: Option<f64>,
    /// Weight of the entropy bonus
    pub ent_coef: f64,
    /// Weight of the value loss
    pub vf_coef: f64,
    /// Largest norm of the gradients
    pub max_grad_norm: f64,
    /// Ends an update where the KL exceeds 1.5 times this
    pub target_kl: Option<f64>,
    /// Centre and scale the advantages of each minibatch
    pub normalize_advantage: bool,
    /// Normalise observations and scale rewards
    pub normalize: bool,
    /// Widths of the hidden layers, of policy and value network each
    pub hidden: Vec<usize>,
    /// log σ at the start, for continuous actions
    pub log_std_init: f64,
}

impl Default for PpoOptions {
    fn default() -> Self {
        Self {
            n_steps: 2048,
            batch_size: 64,
            n_epochs: 10,
            gamma: 0.99,
            gae_lambda: 0.95,
            learning_rate: Schedule::constant(3e-4),
            clip_range: Schedule::constant(0.2),
            clip_range_vf: None,
            ent_coef: 0.0,
            vf_coef: 0.5,
            max_grad_norm: 0.5,
            target_kl: None,
            normalize_advantage: true,
            normalize: false,
            hidden: vec![64, 64],
            log_std_init: 0.0,
        }
    }
}

/// The agent with its environments
pub struct Ppo {
    options: PpoOptions,
    env: Box<dyn VectorEnv>,
    actions: ActionSpace,
    observer: Observer,
    rewards: Option<RewardScale>,
    networks: Networks,
    grads: Vec<f32>,
    adam: Adam,
    rng: Pcg64,
    step: VecStep,
    statistics: EpisodeStatistics,
    episodes: Vec<Episode>,
    timesteps: u64,
    rollout: Rollout,
    order: Vec<u32>,
    batch: Batch,
    /// For one step of all environments
    acting: Batch,
    env_actions: (Vec<u32>, Vec<f32>),
}

impl Ppo {
    /// Networks are drawn from `seed`, and the environments are reset with it
    ///
    /// # Errors
    /// A rollout of a single step, whose advantage has no spread
    pub fn new(mut env: Box<dyn VectorEnv>, options: PpoOptions, seed: u64) -> Result<Self> {
        let n = env.num_envs();
        let steps = n * options.n_steps;
        if steps < 2 || options.batch_size < 2 {
            return Err(Error::usage("an update needs at least 2 steps")
                .hint("take a larger `n_steps`, `n_envs` or `batch_size`"));
        }
        let actions = ActionSpace::of(env.spec());
        let mut observer = Observer::new(&env.spec().observation_space, options.normalize);
        let mut rng = Pcg64::new(u128::from(seed));
        let networks = Networks::new(&observer, &actions, &options.hidden, options.log_std_init, &mut rng);
        let mut step = VecStep::of(&*env);
        env.reset(Some(seed), &mut step.observations)?;
        observer.learn(&step.observations);
        let width = matches!(actions, ActionSpace::Continuous { .. }).then(|| actions.outputs());
        Ok(Self {
            rewards: options.normalize.then(|| RewardScale::new(n, options.gamma)),
            grads: vec![0.0; networks.params.len()],
            adam: Adam::new(networks.params.len(), 1e-5),
            rng,
            step,
            statistics: EpisodeStatistics::new(n),
            episodes: Vec::new(),
            timesteps: 0,
            rollout: Rollout::new(n, options.n_steps, observer.width(), width),
            order: (0..steps as u32).collect(),
            batch: Batch::new(options.batch_size.min(steps), &networks),
            acting: Batch::new(n, &networks),
            env_actions: (vec![0; n], vec![0.0; n * actions.outputs()]),
            options,
            env,
            actions,
            observer,
            networks,
        })
    }

    fn collect(&mut self) -> Result<()> {
        let n = self.env.num_envs();
        for t in 0..self.options.n_steps {
            let row = t * n..(t + 1) * n;
            self.observer.features(&self.step.observations, &mut self.acting.features);
            let width = self.observer.width();
            self.rollout.features[t * n * width..(t + 1) * n * width].copy_from_slice(&self.acting.features);
            self.act();
            self.networks.value(n, &mut self.acting);
            self.rollout.log_probs[row.clone()].copy_from_slice(&self.acting.log_probs);
            let values = self.acting.value.outputs();
            self.rollout.values[row.clone()].copy_from_slice(values);
            if t > 0 {
                // What a step led to is what the next one sees, unless an episode ended in between
                for (env, value) in values.iter().enumerate() {
                    let before = (t - 1) * n + env;
                    if !self.rollout.truncated[before] {
                        self.rollout.next_values[before] = *value;
                    }
                }
            }
            match &self.actions {
                ActionSpace::Discrete(_) => {
                    self.rollout.discrete[row.clone()].copy_from_slice(&self.acting.discrete);
                    self.env.step(Actions::Discrete(&self.env_actions.0), &mut self.step)?;
                }
                ActionSpace::Continuous { low, .. } => {
                    let width = low.len();
                    self.rollout.continuous[row.start * width..row.end * width]
                        .copy_from_slice(&self.acting.continuous);
                    self.env.step(Actions::Continuous(&self.env_actions.1), &mut self.step)?;
                }
            }
            self.timesteps += n as u64;
            self.rollout.record_ends(t, &self.step);
            self.observer.learn(&self.step.observations);
            if let Some(scale) = &mut self.rewards {
                scale.update(&self.step.rewards);
            }
            for env in 0..n {
                let reward = self.step.rewards[env];
                let scaled = self.rewards.as_ref().map_or(reward, |scale| scale.scale(reward));
                self.rollout.rewards[row.start + env] = scaled as f32;
                if let Some(scale) = &mut self.rewards
                    && self.step.ended(env)
                {
                    scale.forget(env);
                }
            }
            let episodes = &mut self.episodes;
            self.statistics.record(&self.step, |episode| episodes.push(episode));
            if t + 1 == self.options.n_steps || self.step.truncated.contains(&true) {
                self.bootstrap(t, t + 1 == self.options.n_steps);
            }
        }
        self.rollout.finish(self.options.gamma, self.options.gae_lambda);
        Ok(())
    }

    /// Values of what the actions of step `t` led to, where time was up or the rollout ends
    fn bootstrap(&mut self, t: usize, is_last: bool) {
        let n = self.env.num_envs();
        self.observer.features(&self.step.final_obs, &mut self.acting.features);
        self.networks.value(n, &mut self.acting);
        for (env, value) in self.acting.value.outputs().iter().enumerate() {
            if is_last || self.step.truncated[env] {
                self.rollout.next_values[t * n + env] = *value;
            }
        }
    }

    /// Draws an action for each environment
    fn act(&mut self) {
        let n = self.env.num_envs();
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
    }

    /// Copies the samples of a minibatch together
    fn gather(&mut self, rows: std::ops::Range<usize>) {
        let (batch, rollout) = (&mut self.batch, &self.rollout);
        let features = self.observer.width();
        let width = self.networks.log_std.len();
        for (to, from) in self.order[rows].iter().enumerate() {
            let from = *from as usize;
            batch.features[to * features..(to + 1) * features]
                .copy_from_slice(&rollout.features[from * features..(from + 1) * features]);
            match self.actions {
                ActionSpace::Discrete(_) => batch.discrete[to] = rollout.discrete[from],
                ActionSpace::Continuous { .. } => batch.continuous[to * width..(to + 1) * width]
                    .copy_from_slice(&rollout.continuous[from * width..(from + 1) * width]),
            }
            batch.old_log_probs[to] = rollout.log_probs[from];
            batch.old_values[to] = rollout.values[from];
            batch.advantages[to] = rollout.advantages[from];
            batch.returns[to] = rollout.returns[from];
        }
    }

    /// Gradients of a gathered minibatch
    fn gradients(&mut self, rows: usize, clip: f64) -> Losses {
        let (options, networks, batch) = (&self.options, &self.networks, &mut self.batch);
        if options.normalize_advantage {
            normalize(&mut batch.advantages[..rows]);
        }
        networks.policy.forward(&networks.params, rows, &batch.features, &mut batch.policy);
        networks.log_probs(rows, &self.actions, batch);
        networks.value(rows, batch);
        let surrogate = clipped_surrogate(
            &Clip::symmetric(clip),
            &batch.log_probs[..rows],
            &batch.old_log_probs[..rows],
            &batch.advantages[..rows],
            None,
            rows as f64,
            &mut batch.grad_log_probs[..rows],
        );
        batch.grad_entropies.fill((-options.ent_coef / rows as f64) as f32);
        let loss = options.clip_range_vf.map_or(ValueLoss::Squared, |range| ValueLoss::ClippedPrediction { range });
        let value = value_loss(
            loss,
            batch.value.outputs(),
            &batch.old_values[..rows],
            &batch.returns[..rows],
            None,
            options.vf_coef,
            rows as f64,
            &mut batch.grad_values[..rows],
        );
        networks.backward(rows, &self.actions, batch, &mut self.grads);
        let entropies = batch.entropies[..rows].iter().map(|h| f64::from(*h));
        Losses { surrogate, value: value.loss, entropy: entropies.sum::<f64>() / rows as f64 }
    }

    fn update(&mut self, progress: f64) -> Figures {
        let learning_rate = self.options.learning_rate.at(progress);
        let clip = self.options.clip_range.at(progress);
        let (samples, size) = (self.rollout.len(), self.options.batch_size);
        let mut sums = [0.0; 7];
        let mut updates = 0.0;
        'epochs: for _ in 0..self.options.n_epochs {
            random::shuffle(&mut self.rng, &mut self.order);
            for start in (0..samples).step_by(size) {
                let end = samples.min(start + size);
                self.gather(start..end);
                let losses = self.gradients(end - start, clip);
                let kl = losses.surrogate.approx_kl;
                updates += 1.0;
                let norm = match self.options.target_kl {
                    Some(target) if kl > 1.5 * target => None,
                    _ => Some(self.adam.step(
                        &mut self.networks.params,
                        &self.grads,
                        learning_rate,
                        self.options.max_grad_norm,
                    )),
                };
                let Losses { surrogate, value, entropy } = losses;
                let last = [surrogate.loss, value, entropy, kl, surrogate.outside_fraction, norm.unwrap_or(0.0), 1.0];
                sums.iter_mut().zip(last).for_each(|(sum, figure)| *sum += figure);
                if norm.is_none() {
                    break 'epochs;
                }
            }
        }
        let mean = |at: usize| sums[at] / updates;
        vec![
            ("policy_loss", mean(0)),
            ("value_loss", mean(1)),
            ("entropy", mean(2)),
            ("approx_kl", mean(3)),
            ("clip_fraction", mean(4)),
            ("explained_variance", explained_variance(&self.rollout.values, &self.rollout.returns)),
            ("grad_norm", mean(5)),
            ("learning_rate", learning_rate),
            ("clip_range", clip),
        ]
    }
}

struct Losses {
    surrogate: Surrogate,
    value: f64,
    entropy: f64,
}

impl Agent for Ppo {
    fn iterate(&mut self, total: u64) -> Result<Figures> {
        self.collect()?;
        Ok(self.update((self.timesteps as f64 / total as f64).min(1.0)))
    }

    fn timesteps(&self) -> u64 {
        self.timesteps
    }

    fn take_episodes(&mut self) -> Vec<Episode> {
        std::mem::take(&mut self.episodes)
    }

    fn policy(&self) -> Policy {
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
