//! Advantage actor-critic: one policy-gradient step on each short rollout of all environments.
//!
//! Mnih et al. 2016, <https://arxiv.org/abs/1602.01783>, without the asynchrony. It is PPO with one epoch, one minibatch
//! and ρ = 1, where no clipping can bind (Huang et al. 2022, <https://arxiv.org/abs/2205.09123>).

use super::actor_critic::Batch;
use super::on_policy::{OnPolicy, Shared};
use super::{Agent, Figures, Schedule};
use crate::Result;
use crate::algo::advantage::normalize;
use crate::algo::policy::reinforce;
use crate::algo::value::{ValueLoss, explained_variance, value_loss};
use crate::rl::env::{Episode, VectorEnv};
use crate::rl::optimizer::Adam;
use crate::rl::optimizer::{Optimizer, RmsProp};
use crate::rl::policy::Policy;
use crate::rl::rollout::Rollout;
use crate::rl::state::State;

/// Settings of A2C; defaults are Stable-Baselines3's
#[derive(Debug, Clone, PartialEq)]
pub struct A2cOptions {
    /// Steps of each environment before an update
    pub n_steps: usize,
    /// γ
    pub gamma: f64,
    /// λ
    pub gae_lambda: f64,
    /// Learning rate
    pub learning_rate: Schedule,
    /// Weight of the entropy bonus
    pub ent_coef: f64,
    /// Weight of the value loss
    pub vf_coef: f64,
    /// Largest norm of the gradients
    pub max_grad_norm: f64,
    /// RMSprop, or else Adam
    pub use_rms_prop: bool,
    /// ε of RMSprop
    pub rms_prop_eps: f64,
    /// Centre and scale the advantages of each rollout
    pub normalize_advantage: bool,
    /// Normalise observations and scale rewards
    pub normalize: bool,
    /// Widths of the hidden layers, of policy and value network each
    pub hidden: Vec<usize>,
    /// log σ at the start, for continuous actions
    pub log_std_init: f64,
}

impl Default for A2cOptions {
    fn default() -> Self {
        Self {
            n_steps: 5,
            gamma: 0.99,
            gae_lambda: 1.0,
            learning_rate: Schedule::constant(7e-4),
            ent_coef: 0.0,
            vf_coef: 0.5,
            max_grad_norm: 0.5,
            use_rms_prop: true,
            rms_prop_eps: 1e-5,
            normalize_advantage: false,
            normalize: false,
            hidden: vec![64, 64],
            log_std_init: 0.0,
        }
    }
}

/// The agent with its environments
pub struct A2c {
    options: A2cOptions,
    base: OnPolicy,
    rollout: Rollout,
    /// Every sample in its order: a sum does not care
    order: Vec<u32>,
    batch: Batch,
    grads: Vec<f32>,
    optimizer: Optimizer,
}

impl A2c {
    /// Networks are drawn from `seed`, and the environments are reset with it
    ///
    /// # Errors
    /// A rollout of a single step
    pub fn new(env: Box<dyn VectorEnv>, options: A2cOptions, seed: u64) -> Result<Self> {
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
            optimizer: if options.use_rms_prop {
                Optimizer::RmsProp(RmsProp::new(params, options.rms_prop_eps))
            } else {
                Optimizer::Adam(Adam::new(params, 1e-5))
            },
            order: (0..rollout.len() as u32).collect(),
            batch: Batch::new(rollout.len(), &base.networks),
            rollout,
            base,
            options,
        })
    }

    fn update(&mut self, progress: f64) -> Figures {
        let Self { options, base, rollout, batch, grads, .. } = self;
        let rows = rollout.len();
        batch.gather(rollout, &self.order);
        if options.normalize_advantage {
            normalize(&mut batch.advantages);
        }
        base.networks.forward(rows, &base.actions, batch);
        let policy = reinforce(&batch.log_probs, &batch.advantages, None, rows as f64, &mut batch.grad_log_probs);
        batch.grad_entropies.fill((-options.ent_coef / rows as f64) as f32);
        let value = value_loss(
            ValueLoss::Squared,
            batch.value.outputs(),
            &[],
            &batch.returns,
            None,
            options.vf_coef,
            rows as f64,
            &mut batch.grad_values,
        );
        base.networks.backward(rows, &base.actions, batch, grads);
        let learning_rate = options.learning_rate.at(progress);
        let norm = self.optimizer.step(&mut base.networks.params, grads, learning_rate, options.max_grad_norm);
        vec![
            ("policy_loss", policy),
            ("value_loss", value.loss),
            ("entropy", batch.mean_entropy(rows)),
            ("explained_variance", explained_variance(&rollout.values, &rollout.returns)),
            ("grad_norm", norm),
            ("learning_rate", learning_rate),
        ]
    }
}

impl Agent for A2c {
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
        self.optimizer.persist(state)?;
        self.base.persist(state)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rl::agents::{Ppo, PpoOptions};
    use crate::rl::env::{MakeOptions, make_vec};

    #[test]
    fn an_update_is_one_unclipped_epoch_of_ppo() {
        for (id, rate) in [("CartPole-v1", 7e-4), ("Pendulum-v1", 3e-3)] {
            let env = || make_vec(id, 4, &MakeOptions::default()).expect("the environment is made");
            let learning_rate = Schedule::constant(rate);
            let a2c =
                A2cOptions { n_steps: 16, learning_rate, ent_coef: 0.01, use_rms_prop: false, ..A2cOptions::default() };
            let ppo = PpoOptions {
                n_steps: 16,
                batch_size: 64,
                n_epochs: 1,
                gae_lambda: 1.0,
                learning_rate,
                clip_range: Schedule::constant(1e9),
                ent_coef: 0.01,
                normalize_advantage: false,
                ..PpoOptions::default()
            };
            let (mut a2c, mut ppo) = (A2c::new(env(), a2c, 7).unwrap(), Ppo::new(env(), ppo, 7).unwrap());
            let before = a2c.policy().params;
            a2c.iterate(1000).unwrap();
            ppo.iterate(1000).unwrap();
            let (a, b) = (a2c.policy(), ppo.policy());
            let moved = a.params.iter().zip(&before).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            assert!(moved > rate as f32 / 2.0, "{id}: nothing was learned");
            for (a, b) in a.params.iter().zip(&b.params) {
                assert!((a - b).abs() < 1e-6, "{id}: {a} and {b}");
            }
        }
    }
}
