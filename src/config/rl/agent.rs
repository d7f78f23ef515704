//! The agents: what each one is, which keys it takes, which defaults are its own.

use crate::config::{ConfigValue, Key, Value, config_choice};

config_choice! {
    /// Which agent
    pub enum RlAgent {
        /// Plans by sweeps over all states
        ValueIteration = "value_iteration",
        /// Plans by exact evaluation and improvement
        PolicyIteration = "policy_iteration",
        /// A table that learns of the best next action
        QLearning = "q_learning",
        /// A table that learns of the next action taken
        Sarsa = "sarsa",
        /// A table that learns of the mean next action
        ExpectedSarsa = "expected_sarsa",
        /// Policy gradient on whole episodes
        Reinforce = "reinforce",
        /// Advantage actor-critic
        A2c = "a2c",
        /// Trust region policy optimisation
        Trpo = "trpo",
        /// Proximal policy optimisation
        Ppo = "ppo",
        /// Deep Q-network
        Dqn = "dqn",
        /// Twin delayed deep deterministic policy gradient
        Td3 = "td3",
        /// Soft actor-critic
        Sac = "sac",
        /// Conservative Q-learning on a data set
        Cql = "cql",
        /// Implicit Q-learning on a data set
        Iql = "iql",
    }
}

/// Headings of keys that every agent takes
pub(super) const EVERYWHERE: &[&str] = &["Run", "Gymnasium", "Evaluation", "Learning"];

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

/// Planning takes no step in the environment
const PLANNING: AgentSpec = AgentSpec {
    headings: &["Planning"],
    without: &["n_envs", "total_timesteps", "eval_freq", "n_eval_episodes", "learning_rate"],
    defaults: &[],
};

impl RlAgent {
    /// Its keys and defaults
    pub const fn spec(self) -> AgentSpec {
        match self {
            Self::ValueIteration => PLANNING,
            Self::PolicyIteration => AgentSpec {
                without: &["n_envs", "total_timesteps", "eval_freq", "n_eval_episodes", "learning_rate", "tolerance"],
                ..PLANNING
            },
            Self::QLearning | Self::Sarsa | Self::ExpectedSarsa => AgentSpec {
                headings: &["Checkpoints", "Exploration", "Tables"],
                without: &["n_envs"],
                // A tenth of the actions at random, from first to last, as in the textbooks
                defaults: &[("learning_rate", "0.1"), ("exploration_fraction", "0"), ("exploration_final_eps", "0.1")],
            },
            Self::Reinforce => AgentSpec {
                headings: &["Checkpoints", "Networks", "Entropy", "On-policy rollouts", "Critic", "REINFORCE"],
                without: &["batch_size", "gae_lambda", "vf_coef"],
                defaults: &[("learning_rate", "0.003")],
            },
            Self::A2c => AgentSpec {
                headings: &["Checkpoints", "Steps", "Networks", "Entropy", "On-policy rollouts", "A2C"],
                without: &["batch_size"],
                defaults: &[
                    ("log_interval", "100"),
                    ("learning_rate", "0.0007"),
                    ("n_steps", "5"),
                    ("gae_lambda", "1"),
                    ("normalize_advantage", "false"),
                ],
            },
            Self::Trpo => AgentSpec {
                headings: &["Checkpoints", "Steps", "Networks", "On-policy rollouts", "Trust region", "Critic", "TRPO"],
                without: &["max_grad_norm", "vf_coef"],
                defaults: &[("learning_rate", "0.001"), ("batch_size", "128"), ("target_kl", "0.01")],
            },
            Self::Ppo => AgentSpec {
                headings: &["Checkpoints", "Steps", "Networks", "Entropy", "On-policy rollouts", "Trust region", "PPO"],
                without: &[],
                defaults: &[],
            },
            Self::Dqn => AgentSpec {
                headings: &["Checkpoints", "Steps", "Networks", "Exploration", "Replay", "Targets", "DQN"],
                without: &[],
                defaults: &[
                    ("learning_rate", "0.0001"),
                    ("n_steps", "1"),
                    ("batch_size", "32"),
                    ("max_grad_norm", "10"),
                    ("tau", "1"),
                    ("target_update_interval", "10000"),
                ],
            },
            Self::Td3 => AgentSpec {
                headings: &["Checkpoints", "Steps", "Networks", "Replay", "Targets", "TD3"],
                without: &["max_grad_norm", "target_update_interval"],
                defaults: &[
                    ("log_interval", "100"),
                    ("learning_rate", "0.001"),
                    ("n_steps", "1"),
                    ("net_arch", "[400, 300]"),
                    ("batch_size", "256"),
                    ("train_freq", "1"),
                ],
            },
            Self::Sac => AgentSpec {
                headings: &["Checkpoints", "Steps", "Networks", "Entropy", "Replay", "Targets", "SAC"],
                without: &["max_grad_norm"],
                defaults: &[
                    ("log_interval", "100"),
                    ("n_steps", "1"),
                    ("net_arch", "[256, 256]"),
                    ("batch_size", "256"),
                    ("ent_coef", "auto"),
                    ("train_freq", "1"),
                ],
            },
            Self::Cql => AgentSpec {
                headings: &["Checkpoints", "Networks", "Targets", "Data set", "CQL"],
                without: &["n_envs", "target_update_interval"],
                defaults: &[("net_arch", "[256, 256]"), ("batch_size", "256"), ("max_grad_norm", "10")],
            },
            Self::Iql => AgentSpec {
                headings: &["Checkpoints", "Networks", "Targets", "Data set", "IQL"],
                without: &["n_envs", "max_grad_norm", "target_update_interval"],
                defaults: &[("net_arch", "[256, 256]"), ("batch_size", "256")],
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
