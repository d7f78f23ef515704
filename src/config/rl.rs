//! The keys of the classical agents; names are Stable-Baselines3's.

use super::convert::{ConfigValue, Map, Problem};
use super::keys::Range;
use super::value::Value;
use super::{config_choice, config_keys};
use crate::{Error, Result};

config_choice! {
    /// Which agent
    pub enum RlAgent {
        /// Proximal policy optimisation
        Ppo = "ppo",
        /// Deep Q-network
        Dqn = "dqn",
    }
}

/// A number, or `lin_` and a number that falls to 0 over the run, as RL-Zoo writes it
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Falling {
    /// At the start
    pub initial: f64,
    /// Whether it falls
    pub linear: bool,
}

impl Falling {
    /// One that does not fall
    pub const fn constant(initial: f64) -> Self {
        Self { initial, linear: false }
    }
}

impl ConfigValue for Falling {
    const VALUE_NAME: &'static str = "X|lin_X";

    fn expected() -> String {
        "a number above 0, or `lin_` and such a number".to_owned()
    }

    fn parse(value: &Value) -> std::result::Result<Self, Problem> {
        let parse = |text: &str| {
            let (linear, digits) = text.strip_prefix("lin_").map_or((false, text), |digits| (true, digits));
            let initial = digits.trim().parse().ok().filter(|number: &f64| number.is_finite() && *number > 0.0)?;
            Some(Self { initial, linear })
        };
        match value {
            Value::Number(text) | Value::Text(text) => parse(text.trim()),
            _ => None,
        }
        .ok_or_else(|| Problem::expected::<Self>(value))
    }

    fn to_value(&self) -> Value {
        if self.linear { Value::text(format!("lin_{:?}", self.initial)) } else { self.initial.to_value() }
    }
}

config_keys! {
    /// The keys of the classical agents
    pub struct RlKeys {
        "Run" {
            /// Agent
            agent: RlAgent = RlAgent::Ppo;
            /// Id of the environment, as `collimate rl envs` lists them
            env: String = "CartPole-v1".to_owned();
            /// Arguments of the environment
            env_kwargs: Map<String> = Map::default();
            /// Truncate episodes after so many steps, instead of what the id says
            max_episode_steps: Option<usize> = None, Range::within(1.0, 4_000_000_000.0);
            /// Environments that are stepped together
            n_envs: usize = 1, Range::at_least(1.0);
            /// Steps of all environments together
            total_timesteps: u64 = 100_000, Range::at_least(1.0);
            /// Seed of networks, actions and environments
            seed: u64 = 0;
            /// Folder of the run
            output_dir: String = String::new();
            /// Replace the run that `output_dir` holds
            overwrite_output_dir: bool = false;
            /// Iterations between two rows of metrics
            log_interval: usize = 1, Range::at_least(1.0);
        }
        "Learning" {
            /// Learning rate; 0.0003 for ppo, 0.0001 for dqn where not set
            learning_rate: Option<Falling> = None;
            /// Samples of an update; 64 for ppo, 32 for dqn where not set
            batch_size: Option<usize> = None, Range::at_least(2.0);
            /// γ
            gamma: f64 = 0.99, Range::within(0.0, 1.0);
            /// Largest norm of the gradients; 0.5 for ppo, 10 for dqn where not set
            max_grad_norm: Option<f64> = None, Range::above(0.0);
            /// Widths of the hidden layers
            net_arch: Vec<usize> = vec![64, 64], Range::at_least(1.0);
        }
        "PPO" {
            /// Steps of each environment before an update
            n_steps: usize = 2048, Range::at_least(1.0);
            /// Passes over them
            n_epochs: usize = 10, Range::at_least(1.0);
            /// λ of generalised advantage estimation
            gae_lambda: f64 = 0.95, Range::within(0.0, 1.0);
            /// ε, how far the ratio may go
            clip_range: Falling = Falling::constant(0.2);
            /// How far a value may move from its first estimate
            clip_range_vf: Option<f64> = None, Range::above(0.0);
            /// Weight of the entropy bonus
            ent_coef: f64 = 0.0, Range::at_least(0.0);
            /// Weight of the value loss
            vf_coef: f64 = 0.5, Range::at_least(0.0);
            /// End an update where the KL exceeds 1.5 times this
            target_kl: Option<f64> = None, Range::above(0.0);
            /// Centre and scale the advantages of each minibatch
            normalize_advantage: bool = true;
            /// Normalise observations, scale rewards
            normalize: bool = false;
            /// log σ at the start, for continuous actions
            log_std_init: f64 = 0.0;
        }
        "DQN" {
            /// Transitions kept
            buffer_size: usize = 1_000_000, Range::at_least(1.0);
            /// Random steps before the first update
            learning_starts: u64 = 100;
            /// Steps of each environment before updates
            train_freq: usize = 4, Range::at_least(1.0);
            /// Updates then; -1 for as many as there were steps
            gradient_steps: i64 = 1, Range::at_least(-1.0);
            /// Steps of each environment before the target network follows
            target_update_interval: usize = 10_000, Range::at_least(1.0);
            /// Share of the run over which ε falls
            exploration_fraction: f64 = 0.1, Range::within(0.0, 1.0);
            /// ε at first
            exploration_initial_eps: f64 = 1.0, Range::within(0.0, 1.0);
            /// ε then
            exploration_final_eps: f64 = 0.05, Range::within(0.0, 1.0);
            /// Choose the next action by the online network
            double: bool = false;
            /// Value and advantages apart
            dueling: bool = false;
        }
    }
}

impl RlKeys {
    fn check(&self) -> Result<()> {
        if self.output_dir.is_empty() {
            return Err(Error::usage("`output_dir` is not set").hint("for example `--output_dir runs/cartpole`"));
        }
        if self.gradient_steps == 0 {
            return Err(Error::usage("`gradient_steps` must be at least 1, or -1, got 0"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schedules_are_numbers_or_fall() {
        let parse = |text: &str| Falling::parse(&Value::text(text)).ok();
        assert_eq!(parse("lin_0.001"), Some(Falling { initial: 0.001, linear: true }));
        assert_eq!(parse("3e-4"), Some(Falling::constant(3e-4)));
        for falling in [Falling::constant(0.1), Falling { initial: 2.3e-3, linear: true }] {
            assert_eq!(Falling::parse(&falling.to_value()).ok(), Some(falling));
        }
        for refused in ["lin_", "-1", "exp_0.1", "nan"] {
            assert_eq!(parse(refused), None, "{refused}");
        }
    }
}
