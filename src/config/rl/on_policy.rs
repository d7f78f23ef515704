//! Keys of agents that learn from what the present policy has just done.

use super::Falling;
use crate::Result;
use crate::config::{Range, config_keys};

config_keys! {
    /// Keys of on-policy agents
    pub struct OnPolicyKeys {
        "On-policy rollouts" {
            /// λ of generalised advantage estimation
            gae_lambda: f64 = 0.95, Range::within(0.0, 1.0);
            /// Weight of the value loss
            vf_coef: f64 = 0.5, Range::at_least(0.0);
            /// Centre and scale the advantages of each minibatch
            normalize_advantage: bool = true;
            /// Normalise observations, scale rewards
            normalize: bool = false;
            /// log σ at the start, for continuous actions
            log_std_init: f64 = 0.0;
        }
        "Trust region" {
            /// ppo ends an update where the KL exceeds 1.5 times this; trpo steps as far as this
            target_kl: Option<f64> = None, Range::above(0.0);
        }
        "PPO" {
            /// Passes over a rollout
            n_epochs: usize = 10, Range::at_least(1.0);
            /// ε, how far the ratio may go
            clip_range: Falling = Falling::constant(0.2);
            /// How far a value may move from its first estimate
            clip_range_vf: Option<f64> = None, Range::above(0.0);
        }
        "Critic" {
            /// Passes of the value network over a rollout
            n_critic_updates: usize = 10, Range::at_least(1.0);
        }
        "A2C" {
            /// RMSprop, or else Adam
            use_rms_prop: bool = true;
            /// ε of RMSprop
            rms_prop_eps: f64 = 1e-5, Range::above(0.0);
        }
        "TRPO" {
            /// Largest number of Fisher products for a direction
            cg_max_steps: usize = 15, Range::at_least(1.0);
            /// c of F + cI
            cg_damping: f64 = 0.1, Range::at_least(0.0);
            /// What a rejected step is multiplied by
            line_search_shrinking_factor: f64 = 0.8, Range::within_below(0.0, 1.0);
            /// Steps that are tried
            line_search_max_iter: usize = 10, Range::at_least(1.0);
        }
        "REINFORCE" {
            /// Whole episodes before an update
            episodes_per_update: usize = 8, Range::at_least(1.0);
            /// Subtract the value network's estimate from the returns
            baseline: bool = true;
        }
    }
}

impl OnPolicyKeys {
    #[expect(clippy::unused_self, clippy::unnecessary_wraps, reason = "every group of keys has this method")]
    fn check(&self) -> Result<()> {
        Ok(())
    }
}
