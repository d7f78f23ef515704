//! Keys of agents that learn from transitions: a replay of what was done before, or a data set.

use crate::config::{Range, config_keys};
use crate::{Error, Result};

config_keys! {
    /// Keys of agents that learn from transitions
    pub struct OffPolicyKeys {
        "Replay" {
            /// Transitions kept
            buffer_size: usize = 1_000_000, Range::at_least(1.0);
            /// Random steps before the first update
            learning_starts: u64 = 100;
            /// Steps of each environment before updates
            train_freq: usize = 4, Range::at_least(1.0);
            /// Updates then; -1 for as many as there were steps
            gradient_steps: i64 = 1, Range::at_least(-1.0);
            /// Hindsight: goals of later steps with which every transition is kept too; 0 for none
            n_sampled_goal: usize = 0;
        }
        "Targets" {
            /// By which share target networks follow
            tau: f64 = 0.005, Range::within(0.0, 1.0);
            /// Steps of each environment (dqn) or updates (sac) before target networks follow
            target_update_interval: usize = 1, Range::at_least(1.0);
        }
        "DQN" {
            /// Choose the next action by the online network
            double: bool = false;
            /// Value and advantages apart
            dueling: bool = false;
            /// Draw what was surprising more often
            prioritized_replay: bool = false;
            /// How much more: 0 for not at all, 1 for in proportion to the errors
            prioritized_replay_alpha: f64 = 0.6, Range::within(0.0, 1.0);
            /// How far importance weights undo the bias of these draws at the start; entirely at the end
            prioritized_replay_beta0: f64 = 0.4, Range::within(0.0, 1.0);
            /// Added to every error, so that nothing is forgotten
            prioritized_replay_eps: f64 = 1e-6, Range::above(0.0);
        }
        "SAC" {
            /// Entropy that a learned `ent_coef` aims at; minus the numbers of an action where not set
            target_entropy: Option<f64> = None;
        }
        "TD3" {
            /// Updates of the critics between two of the actor
            policy_delay: usize = 2, Range::at_least(1.0);
            /// σ of the noise on the target's actions, whose bounds are ±1
            target_policy_noise: f64 = 0.2, Range::at_least(0.0);
            /// How far that noise goes at most
            target_noise_clip: f64 = 0.5, Range::at_least(0.0);
            /// σ of the noise on the actions that are taken
            noise_std: f64 = 0.1, Range::at_least(0.0);
        }
        "Data set" {
            /// Transitions to learn from, as `collimate rl record` writes them
            dataset: String = String::new();
        }
        "IQL" {
            /// Which expectile of Q the value is
            expectile: f64 = 0.7, Range::within(0.0, 1.0);
            /// How much an advantage counts in the policy
            weight_temp: f64 = 3.0, Range::at_least(0.0);
            /// Largest weight of an action in the policy
            max_weight: f64 = 100.0, Range::above(0.0);
        }
        "CQL" {
            /// Weight of the conservative term
            cql_alpha: f64 = 1.0, Range::at_least(0.0);
        }
    }
}

impl OffPolicyKeys {
    fn check(&self) -> Result<()> {
        if self.gradient_steps == 0 {
            return Err(Error::usage("`gradient_steps` must be at least 1, or -1, got 0"));
        }
        Ok(())
    }
}
