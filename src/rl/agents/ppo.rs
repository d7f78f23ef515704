//! Proximal policy optimisation, discrete and continuous.
//!
//! Schulman et al. 2017, <https://arxiv.org/abs/1707.06347>. Advantages, surrogate, value loss and distributions are the
//! functions of [`algo`](crate::algo) that the language model's PPO calls too: only the networks differ.

use super::actor_critic::Batch;
use super::on_policy::{OnPolicy, Shared};
use super::{Agent, Figures, Schedule};
use crate::algo::advantage::normalize;
use crate::algo::policy::{Clip, Surrogate, clipped_surrogate};
use crate::algo::value::{ValueLoss, explained_variance, value_loss};
use crate::rl::env::{Episode, VectorEnv};
use crate::rl::optimizer::Adam;
use crate::rl::policy::Policy;
use crate::rl::random;
use crate::rl::rollout::Rollout;
use crate::rl::state::State;
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
    base: OnPolicy,
    rollout: Rollout,
    order: Vec<u32>,
    batch: Batch,
    grads: Vec<f32>,
    adam: Adam,
}

impl Ppo {
    /// Networks are drawn from `seed`, and the environments are reset with it
    ///
    /// # Errors
    /// A rollout of a single step, whose advantage has no spread
    pub fn new(env: Box<dyn VectorEnv>, options: PpoOptions, seed: u64) -> Result<Self> {
        if options.batch_size < 2 {
            return Err(Error::usage("an update needs at least 2 steps").hint("take a larger `batch_size`"));
        }
        let shared = Shared {
            gamma: options.gamma,
            normalize: options.normalize,
            hidden: &options.hidden,
            log_std_init: options.log_std_init,
        };
        let base = OnPolicy::new(env, shared, seed)?;
        let rollout = base.rollout(options.n_steps)?;
        let params = base.networks.params.len();
        Ok(Self {
            grads: vec![0.0; params],
            adam: Adam::new(params, 1e-5),
            order: (0..rollout.len() as u32).collect(),
            batch: Batch::new(options.batch_size.min(rollout.len()), &base.networks),
            rollout,
            base,
            options,
        })
    }

    /// Gradients of a gathered minibatch
    fn gradients(&mut self, rows: usize, clip: f64) -> Losses {
        let (options, networks, batch) = (&self.options, &self.base.networks, &mut self.batch);
        if options.normalize_advantage {
            normalize(&mut batch.advantages[..rows]);
        }
        networks.forward(rows, &self.base.actions, batch);
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
        networks.backward(rows, &self.base.actions, batch, &mut self.grads);
        Losses { surrogate, value: value.loss, entropy: batch.mean_entropy(rows) }
    }

    fn update(&mut self, progress: f64) -> Figures {
        let learning_rate = self.options.learning_rate.at(progress);
        let clip = self.options.clip_range.at(progress);
        let (samples, size) = (self.rollout.len(), self.options.batch_size);
        let mut sums = [0.0; 6];
        let mut updates = 0.0;
        'epochs: for _ in 0..self.options.n_epochs {
            random::shuffle(&mut self.base.rng, &mut self.order);
            for start in (0..samples).step_by(size) {
                let end = samples.min(start + size);
                self.batch.gather(&self.rollout, &self.order[start..end]);
                let losses = self.gradients(end - start, clip);
                let kl = losses.surrogate.approx_kl;
                updates += 1.0;
                let norm = match self.options.target_kl {
                    Some(target) if kl > 1.5 * target => None,
                    _ => Some(self.adam.step(
                        &mut self.base.networks.params,
                        &self.grads,
                        learning_rate,
                        self.options.max_grad_norm,
                    )),
                };
                let Losses { surrogate, value, entropy } = losses;
                let last = [surrogate.loss, value, entropy, kl, surrogate.outside_fraction, norm.unwrap_or(0.0)];
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
        self.base.collect(&mut self.rollout)?;
        self.rollout.finish(self.options.gamma, self.options.gae_lambda);
        Ok(self.update(self.base.progress(total)))
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
        state.value("order", &mut self.order)?;
        self.adam.persist(state)?;
        self.base.persist(state)
    }
}
