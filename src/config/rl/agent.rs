//! The agents: what each one is, which keys it takes, which defaults are its own.

use crate::config::{ConfigValue, Key, Value, config_choice};

config_choice! {
    /// Which agent
    pub enum RlAgent {
        /// Proximal policy optimisation
        Ppo = "ppo",
        /// Deep Q-network
        Dqn = "dqn",
    }
}

/// Headings of keys that every agent takes
const EVERYWHERE: &[&str] = &["Run", "Learning"];

/// What the command line must know of an agent
#[derive(Debug, Clone, Copy)]
pub struct AgentSpec {
    /// Headings of the keys that it takes besides those that all take
    pub headings: &'static [&'static str],
    /// Keys under these headings that would do nothing for it
    pub without: &'static [&'static str],
    /// Defaults that are not the keys' own, as text; Stable-Baselines3's, where it has the agent
    pub defaults: &'static [(&'static str, &'static str)],
}

impl RlAgent {
    /// Its keys and defaults
    pub const fn spec(self) -> AgentSpec {
        match self {
            Self::Ppo => AgentSpec {
                headings: &["Networks", "Entropy", "On-policy rollouts", "Trust region", "PPO"],
                without: &[],
                defaults: &[],
            },
            Self::Dqn => AgentSpec {
                headings: &["Networks", "Exploration", "Replay", "DQN"],
                without: &[],
                defaults: &[("learning_rate", "0.0001"), ("batch_size", "32"), ("max_grad_norm", "10")],
            },
        }
    }

    /// All of them, in the order of `--help`
    pub fn all() -> impl Iterator<Item = Self> {
        Self::choices().into_iter().filter_map(|name| Self::parse(&Value::text(name)).ok())
    }

    /// Whether a key does something for it
    pub fn takes(self, key: &Key) -> bool {
        let AgentSpec { headings, without, .. } = self.spec();
        (EVERYWHERE.contains(&key.heading) || headings.contains(&key.heading)) && !without.contains(&key.name)
    }

    /// Its own default of a key, where it has one
    pub fn default_of(self, key: &Key) -> Option<&'static str> {
        let own = self.spec().defaults.iter().find(|(name, _)| *name == key.name);
        own.map(|(_, text)| *text)
    }
}
