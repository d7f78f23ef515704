//! REINFORCE with a baseline: one gradient step on each batch of whole episodes.
//!
//! Williams 1992. The gradient is that of Σ (G_t - b(s_t)) log π(a_t|s_t), with the returns as they came, and the value
//! network as b: a baseline leaves the mean of the gradient where it is and takes away variance (Greensmith et al. 2004).
//! Without a discount's γᵗ in front of each term, as everyone leaves it out.
//!
//! A time limit is no end: with the baseline, its value of the last state counts for what would have come.

use super::actor_critic::Batch;
use super::on_policy::{OnPolicy, Shared};
use super::{Agent, Figures, Schedule};
use crate::Result;
use crate::algo::advantage::normalize;
use crate::algo::policy::reinforce;
use crate::algo::value::explained_variance;
use crate::rl::env::{Episode, EpisodeStatistics, VectorEnv};
use crate::rl::observer::ActionSpace;
use crate::rl::optimizer::Adam;
use crate::rl::policy::Policy;
use crate::rl::rollout::Rollout;
use crate::rl::state::State;

/// Settings of REINFORCE
#[derive(Debug, Clone, PartialEq)]
pub struct ReinforceOptions {
    /// Whole episodes before an update
    pub episodes_per_update: usize,
    /// γ
    pub gamma: f64,
    /// Learning rate
    pub learning_rate: Schedule,
    /// Subtract the value network's estimate from the returns
    pub baseline: bool,
    /// Weight of the entropy bonus
    pub ent_coef: f64,
    /// Passes of the value network over the episodes
    pub n_critic_updates: usize,
    /// Largest norm of the gradients
    pub max_grad_norm: f64,
    /// Centre and scale what weighs the steps of an update
    pub normalize_advantage: bool,
    /// Normalise observations and scale rewards
    pub normalize: bool,
    /// Widths of the hidden layers, of policy and value network each
    pub hidden: Vec<usize>,
    /// log σ at the start, for continuous actions
    pub log_std_init: f64,
}

impl Default for ReinforceOptions {
    fn default() -> Self {
        Self {
            episodes_per_update: 8,
            gamma: 0.99,
            learning_rate: Schedule::constant(3e-3),
            baseline: true,
            ent_coef: 0.0,
            n_critic_updates: 10,
            max_grad_norm: 0.5,
            normalize_advantage: true,
            normalize: false,
            hidden: vec![64, 64],
            log_std_init: 0.0,
        }
    }
}

/// Steps of one environment since its episode began, and of the episodes before it
#[derive(Debug, Clone, Default)]
struct Track {
    features: Vec<f32>,
    discrete: Vec<usize>,
    continuous: Vec<f32>,
    log_probs: Vec<f32>,
    values: Vec<f32>,
    rewards: Vec<f32>,
    /// For each episode its end, whether the task was over there, and the value of what was reached
    ends: Vec<(usize, bool, f32)>,
}

/// The agent with its environments
pub struct Reinforce {
    options: ReinforceOptions,
    base: OnPolicy,
    tracks: Vec<Track>,
    grads: Vec<f32>,
    /// Of the policy, and of the value network
    adams: [Adam; 2],
}

impl Reinforce {
    /// Networks are drawn from `seed`, and the environments are reset with it
    ///
    /// # Errors
    /// What the environments report
    pub fn new(env: Box<dyn VectorEnv>, options: ReinforceOptions, seed: u64) -> Result<Self> {
        let shared = Shared {
            gamma: options.gamma,
            normalize: options.normalize,
            hidden: &options.hidden,
            log_std_init: options.log_std_init,
        };
        let base = OnPolicy::new(env, shared, seed)?;
        let tracks = vec![Track::default(); base.env.num_envs()];
        let (params, policy) = (base.networks.params.len(), base.networks.log_std.end);
        let adams = [policy, params - policy].map(|params| Adam::new(params, 1e-8));
        Ok(Self { grads: vec![0.0; params], adams, tracks, base, options })
    }

    /// Plays whole episodes. Each environment plays its share, so that short episodes do not count more than long ones
    fn collect(&mut self) -> Result<()> {
        let n = self.tracks.len();
        let episodes = self.options.episodes_per_update;
        let share = |env: usize| episodes / n + usize::from(env < episodes % n);
        self.tracks.fill(Track::default());
        if n > 1 && self.base.timesteps > 0 {
            // What those that were ready early have begun meanwhile belongs to the policy before
            self.base.env.reset(None, &mut self.base.step.observations)?;
            self.base.statistics = EpisodeStatistics::new(n);
        }
        let mut rewards = vec![0.0; n];
        while (0..n).any(|env| self.tracks[env].ends.len() < share(env)) {
            self.base.act();
            let (width, acting) = (self.base.observer.width(), &self.base.acting);
            for (env, track) in self.tracks.iter_mut().enumerate().filter(|(env, track)| track.ends.len() < share(*env))
            {
                track.features.extend_from_slice(&acting.features[env * width..(env + 1) * width]);
                match &self.base.actions {
                    ActionSpace::Discrete(_) => track.discrete.push(acting.discrete[env]),
                    ActionSpace::Continuous { low, .. } => {
                        track.continuous.extend_from_slice(&acting.continuous[env * low.len()..(env + 1) * low.len()]);
                    }
                }
                track.log_probs.push(acting.log_probs[env]);
                track.values.push(acting.value.outputs()[env]);
            }
            self.base.advance(&mut rewards)?;
            if (0..n).any(|env| self.base.step.ended(env)) {
                self.base.value_final();
            }
            let reached = self.base.acting.value.outputs();
            for (env, track) in self.tracks.iter_mut().enumerate().filter(|(env, track)| track.ends.len() < share(*env))
            {
                track.rewards.push(rewards[env]);
                if self.base.step.ended(env) {
                    track.ends.push((track.rewards.len(), self.base.step.terminated[env], reached[env]));
                }
            }
        }
        Ok(())
    }

    /// The episodes one after the other, as a rollout of one environment with λ = 1
    fn rollout(&self) -> Rollout {
        let steps = self.tracks.iter().map(|track| track.rewards.len()).sum();
        let mut rollout = Rollout::new(1, steps, self.base.observer.width(), self.base.action_width());
        let mut at = 0;
        let (features, width) = (self.base.observer.width(), self.base.action_width().unwrap_or(0));
        let played = self.tracks.iter().filter(|track| !track.rewards.is_empty());
        for track in played {
            let row = at..at + track.rewards.len();
            rollout.features[row.start * features..row.end * features].copy_from_slice(&track.features);
            rollout.log_probs[row.clone()].copy_from_slice(&track.log_probs);
            rollout.rewards[row.clone()].copy_from_slice(&track.rewards);
            if width == 0 {
                rollout.discrete[row.clone()].copy_from_slice(&track.discrete);
            } else {
                rollout.continuous[row.start * width..row.end * width].copy_from_slice(&track.continuous);
            }
            if self.options.baseline {
                rollout.values[row.clone()].copy_from_slice(&track.values);
                rollout.next_values[row.start..row.end - 1].copy_from_slice(&track.values[1..]);
            }
            for (end, terminated, reached) in &track.ends {
                let last = at + end - 1;
                (rollout.terminated[last], rollout.truncated[last]) = (*terminated, !terminated);
                rollout.next_values[last] = if self.options.baseline { *reached } else { 0.0 };
            }
            at = row.end;
        }
        rollout.finish(self.options.gamma, 1.0);
        rollout
    }

    fn update(&mut self, rollout: &Rollout, progress: f64) -> Figures {
        let Self { options, base, grads, adams: [adam, adam_of_values], .. } = self;
        let rows = rollout.len();
        let learning_rate = options.learning_rate.at(progress);
        let mut batch = Batch::new(rows, &base.networks);
        batch.gather(rollout, &(0..rows as u32).collect::<Vec<_>>());
        if options.normalize_advantage {
            normalize(&mut batch.advantages);
        }
        base.networks.forward(rows, &base.actions, &mut batch);
        let policy = reinforce(&batch.log_probs, &batch.advantages, None, rows as f64, &mut batch.grad_log_probs);
        batch.grad_entropies.fill((-options.ent_coef / rows as f64) as f32);
        base.networks.backward(rows, &base.actions, &mut batch, grads);
        let first = base.networks.log_std.end;
        let norm = adam.step(&mut base.networks.params[..first], &grads[..first], learning_rate, options.max_grad_norm);
        let mut figures = vec![("policy_loss", policy)];
        if options.baseline {
            let mut sum = 0.0;
            for _ in 0..options.n_critic_updates {
                sum += base.networks.value_gradients(rows, &mut batch, 1.0, grads);
                adam_of_values.step(&mut base.networks.params[first..], &grads[first..], learning_rate, f64::INFINITY);
            }
            figures.push(("value_loss", sum / options.n_critic_updates as f64));
        }
        figures.push(("entropy", batch.mean_entropy(rows)));
        if options.baseline {
            figures.push(("explained_variance", explained_variance(&rollout.values, &rollout.returns)));
        }
        figures.extend([("grad_norm", norm), ("learning_rate", learning_rate)]);
        figures
    }
}

impl Agent for Reinforce {
    fn iterate(&mut self, total: u64) -> Result<Figures> {
        self.collect()?;
        let rollout = self.rollout();
        Ok(self.update(&rollout, self.base.progress(total)))
    }

    fn timesteps(&self) -> u64 {
        self.base.timesteps
    }

    fn take_episodes(&mut self) -> Vec<Episode> {
        std::mem::take(&mut self.base.episodes)
    }

    fn policy(&self) -> Policy {
        self.base.policy()
    }

    fn persist(&mut self, state: &mut State) -> Result<()> {
        let [adam, adam_of_values] = &mut self.adams;
        state.part("policy", |state| adam.persist(state))?;
        state.part("values", |state| adam_of_values.persist(state))?;
        self.base.persist(state)
    }
}
