//! Keys of agents that learn from a replay of what was done before.

use crate::config::{Range, config_keys};
use crate::{Error, Result};

config_keys! {
    /// Keys of off-policy agents
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
        }
        "DQN" {
            /// Steps of each environment before the target network follows
            target_update_interval: usize = 10_000, Range::at_least(1.0);
            /// Choose the next action by the online network
            double: bool = false;
            /// Value and advantages apart
            dueling: bool = false;
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
