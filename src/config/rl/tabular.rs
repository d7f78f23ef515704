//! Keys of agents in finite environments.

use crate::Result;
use crate::config::{Range, config_choice, config_keys};

config_choice! {
    /// How a table picks what to try
    pub enum ExplorationRule {
        /// Any action with probability ε
        EpsilonGreedy = "epsilon_greedy",
        /// By the softmax of the action values
        Boltzmann = "boltzmann",
        /// By an upper confidence bound
        Ucb = "ucb",
    }
}

config_keys! {
    /// Keys of agents in finite environments
    pub struct TabularKeys {
        "Tables" {
            /// How actions are tried; the keys under Exploration are for epsilon_greedy
            exploration: ExplorationRule = ExplorationRule::EpsilonGreedy;
            /// τ of boltzmann
            temperature: f64 = 1.0, Range::above(0.0);
            /// c of ucb
            ucb_coefficient: f64 = 2.0, Range::at_least(0.0);
        }
        "Planning" {
            /// Largest error of a value, for value_iteration
            tolerance: f64 = 1e-10, Range::above(0.0);
            /// Sweeps or rounds before planning gives up
            max_rounds: usize = 100_000, Range::at_least(1.0);
        }
    }
}

impl TabularKeys {
    #[expect(clippy::unused_self, clippy::unnecessary_wraps, reason = "every group of keys has this method")]
    fn check(&self) -> Result<()> {
        Ok(())
    }
}
