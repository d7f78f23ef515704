//! The keys of PPO; names are those of TRL's last PPO trainer.

use super::keys::Range;
use super::{config_choice, config_keys};
use crate::{Error, Result};

config_choice! {
    /// Estimator of the KL in the reward
    pub enum RewardKl {
        /// log π/π_ref of each token
        K1 = "k1",
        /// exp(−d) + d − 1 of each token
        K3 = "k3",
    }
}

config_choice! {
    /// Estimator of the KL term in the loss
    pub enum LossKl {
        /// d²/2 of each token
        K2 = "k2",
        /// exp(−d) + d − 1 of each token
        K3 = "k3",
    }
}

config_choice! {
    /// What estimates the value of a state
    pub enum ValueNetwork {
        /// A network of its own, from the reward model where there is one
        Separate = "separate",
        /// A head on the policy's hidden states
        Shared = "shared",
        /// No network: the particle memory of GRL, over prompts alone
        Field = "field",
    }
}

config_keys! {
    /// The keys of proximal policy optimisation
    pub struct PpoKeys {
        "Proximal policy optimisation" {
            /// Weight of the KL to the start in the reward; its first value with kl_target
            kl_coef: f64 = 0.05, Range::at_least(0.0);
            /// Estimator of the KL in the reward
            kl_estimator: RewardKl = RewardKl::K1;
            /// KL of a completion, in nats, that the weight is steered to; constant where not set
            kl_target: Option<f64> = None, Range::above(0.0);
            /// Completions over which the weight follows
            kl_horizon: f64 = 10000.0, Range::above(0.0);
            /// Weight of a KL term in the loss
            kl_loss_coef: f64 = 0.0, Range::at_least(0.0);
            /// Estimator of that term
            kl_loss_estimator: LossKl = LossKl::K2;
            /// Passes over each batch of completions
            num_ppo_epochs: usize = 4, Range::at_least(1.0);
            /// Updates of one such pass
            num_mini_batches: usize = 1, Range::at_least(1.0);
            /// Completions of the whole run, in place of num_train_epochs and max_steps
            total_episodes: Option<usize> = None, Range::at_least(1.0);
            /// ε, how far the ratio of a token may go
            cliprange: f64 = 0.2, Range::at_least(0.0);
            /// With a negative advantage the loss is at most this times it (dual clip)
            dual_clip: Option<f64> = None, Range::above(1.0);
            /// Weight of the value loss
            vf_coef: f64 = 0.1, Range::at_least(0.0);
            /// How far a value may move from its first estimate
            cliprange_value: f64 = 0.2, Range::at_least(0.0);
            /// Weight of the entropy bonus
            entropy_coef: f64 = 0.0, Range::at_least(0.0);
            /// γ, discount of a token
            gamma: f64 = 1.0, Range::within(0.0, 1.0);
            /// λ of generalised advantage estimation
            lam: f64 = 0.95, Range::within(0.0, 1.0);
            /// Scale rewards to unit variance, their mean kept
            whiten_rewards: bool = false;
            /// Centre and scale advantages over the batch
            whiten_advantages: bool = true;
            /// Subtracted from the score of a completion that has no end
            missing_eos_penalty: Option<f64> = None, Range::at_least(0.0);
            /// Lowest and highest score
            reward_clip_range: Option<Vec<f64>> = None;
            /// Leave out a step's further updates once the policy has moved this far, in nats a token
            target_kl: Option<f64> = None, Range::above(0.0);
            /// What estimates the value of a state
            value_network: ValueNetwork = ValueNetwork::Separate;
            /// Model that the separate value network starts from; the reward model, else the policy, where not set
            value_model_name_or_path: Option<String> = None;
        }
    }
}

impl PpoKeys {
    fn check(&self) -> Result<()> {
        match self.reward_clip_range.as_deref() {
            None => {}
            Some([low, high]) if low <= high => {}
            Some(other) => {
                return Err(Error::usage(format!(
                    "`reward_clip_range` must be two numbers, the lowest first, got {other:?}"
                )));
            }
        }
        Ok(())
    }
}

config_choice! {
    /// Loss on the pair of a prompt's completions
    pub enum OnlineDpoLoss {
        /// Bradley-Terry likelihood of the preference
        Sigmoid = "sigmoid",
        /// Squared distance to a margin
        Ipo = "ipo",
    }
}

config_keys! {
    /// The keys of online DPO
    pub struct OnlineDpoKeys {
        "Online DPO" {
            /// Strength of the pull towards the reference model
            beta: f64 = 0.1, Range::above(0.0);
            /// Loss on the pair of a prompt's completions
            loss_type: OnlineDpoLoss = OnlineDpoLoss::Sigmoid;
            /// Subtracted from the reward of a completion that has no end
            missing_eos_penalty: Option<f64> = None, Range::at_least(0.0);
        }
    }
}

impl OnlineDpoKeys {
    #[expect(clippy::unused_self, clippy::unnecessary_wraps, reason = "every group of keys is asked")]
    fn check(&self) -> Result<()> {
        Ok(())
    }
}
