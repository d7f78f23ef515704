//! Agents by name: the one place that knows which constructor takes which keys.

use super::{off_policy, on_policy};
use crate::Result;
use crate::config::{Falling, RlAgent, RlConfig};
use crate::rl::agents::{Agent, Dqn, Ppo, Schedule};
use crate::rl::env::VectorEnv;

/// The agent of a config, in these environments
pub(super) fn build(config: &RlConfig, env: Box<dyn VectorEnv>) -> Result<Box<dyn Agent>> {
    let seed = config.general.seed;
    Ok(match config.general.agent {
        RlAgent::Ppo => Box::new(Ppo::new(env, on_policy::ppo(config)?, seed)?),
        RlAgent::Dqn => Box::new(Dqn::new(env, off_policy::dqn(config), seed)?),
    })
}

pub(super) fn schedule(falling: Falling) -> Schedule {
    Schedule { initial: falling.initial, linear: falling.linear }
}
