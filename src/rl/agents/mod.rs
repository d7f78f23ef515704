//! Agents, one file each.
//!
//! | kind | agents |
//! |---|---|
//! | [`planning`] and [`planner`], which know the model | policy evaluation, value iteration, policy iteration |
//! | [`tabular`], on finite environments | Q-learning, SARSA, expected SARSA, with an [`Exploration`] |
//! | [`reinforce`], [`a2c`], [`trpo`], [`ppo`], on-policy | REINFORCE with a baseline, A2C, TRPO, PPO |
//! | [`dqn`], off-policy, discrete | DQN; double, dueling, prioritised, n-step, with hindsight |
//! | [`td3`], [`sac`], off-policy, continuous | TD3, SAC |
//! | [`cql`], [`iql`], from a data set | CQL with discrete actions, IQL with both kinds |

pub mod a2c;
pub mod cql;
pub mod dqn;
pub mod iql;
pub mod planner;
pub mod planning;
pub mod ppo;
pub mod reinforce;
pub mod sac;
pub mod tabular;
pub mod td3;
pub mod trpo;

mod actor_critic;
mod collector;
mod exploration;
mod on_policy;
mod q_learner;
mod twin;

pub use a2c::{A2c, A2cOptions};
pub use collector::ReplayOptions;
pub use cql::{Cql, CqlOptions};
pub use dqn::{Dqn, DqnOptions};
pub use exploration::Exploration;
pub use iql::{Iql, IqlOptions};
pub use planner::{Planner, PlanningMethod};
pub use ppo::{Ppo, PpoOptions};
pub use reinforce::{Reinforce, ReinforceOptions};
pub use sac::{Sac, SacOptions, Temperature};
pub use tabular::{TabularAgent, TabularLearner, TabularMethod, TabularOptions, TabularSchedule};
pub use td3::{Td3, Td3Options};
pub use trpo::{Trpo, TrpoOptions};

use super::env::Episode;
use super::policy::Policy;
use super::state::State;
use crate::{Error, Result};

/// Named figures of an iteration, in the order in which they are logged
pub type Figures = Vec<(&'static str, f64)>;

/// Something that learns by acting in environments of its own
pub trait Agent {
    /// Acts and learns once, as part of a run of `total` environment steps
    ///
    /// # Errors
    /// What the environments report
    fn iterate(&mut self, total: u64) -> Result<Figures>;

    /// Environment steps so far
    fn timesteps(&self) -> u64;

    /// Whether it has nothing more to do in a run of `total` environment steps
    fn is_done(&self, total: u64) -> bool {
        self.timesteps() >= total
    }

    /// Episodes that have ended since the last call
    fn take_episodes(&mut self) -> Vec<Episode>;

    /// What it has learned
    fn policy(&self) -> Policy;

    /// Takes out everything that the next iteration depends on, or puts it back
    ///
    /// # Errors
    /// An agent that cannot be resumed; a state that is not its own
    fn persist(&mut self, _state: &mut State) -> Result<()> {
        Err(Error::usage("this agent cannot be resumed").hint("leave out `save_steps`"))
    }
}

/// A setting that is constant, or falls in a straight line to 0 at the end of the run
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Schedule {
    /// At the start
    pub initial: f64,
    /// Whether it falls
    pub linear: bool,
}

impl Schedule {
    /// Never changes
    pub const fn constant(initial: f64) -> Self {
        Self { initial, linear: false }
    }

    /// Falls to 0
    pub const fn linear(initial: f64) -> Self {
        Self { initial, linear: true }
    }

    /// Its value when this share of the run is over
    pub fn at(&self, progress: f64) -> f64 {
        if self.linear { self.initial * (1.0 - progress) } else { self.initial }
    }
}
