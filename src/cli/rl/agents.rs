//! Agents by name: the one place that knows which constructor takes which keys.

use super::{off_policy, on_policy, tabular};
use crate::Result;
use crate::config::{Falling, RlAgent, RlConfig};
use crate::rl::agents::{A2c, Agent, Cql, Dqn, Iql, Planner, Ppo, Reinforce, Sac, Schedule, TabularLearner, Td3, Trpo};
use crate::rl::env::VectorEnv;

/// The agent of a config, in these environments
pub(super) fn build(config: &RlConfig, env: Box<dyn VectorEnv>) -> Result<Box<dyn Agent>> {
    let general = &config.general;
    let seed = general.seed;
    Ok(match general.agent {
        RlAgent::ValueIteration | RlAgent::PolicyIteration => {
            let (method, rounds) = (tabular::planning(config), config.tabular.max_rounds);
            Box::new(Planner::new(env, method, general.gamma, rounds, seed)?)
        }
        RlAgent::QLearning | RlAgent::Sarsa | RlAgent::ExpectedSarsa => {
            let (options, schedule) = tabular::learning(config);
            Box::new(TabularLearner::new(env, options, schedule, seed)?)
        }
        RlAgent::Reinforce => Box::new(Reinforce::new(env, on_policy::reinforce(config)?, seed)?),
        RlAgent::A2c => Box::new(A2c::new(env, on_policy::a2c(config)?, seed)?),
        RlAgent::Trpo => Box::new(Trpo::new(env, on_policy::trpo(config)?, seed)?),
        RlAgent::Ppo => Box::new(Ppo::new(env, on_policy::ppo(config)?, seed)?),
        RlAgent::Dqn => Box::new(Dqn::new(env, off_policy::dqn(config), seed)?),
        RlAgent::Td3 => Box::new(Td3::new(env, off_policy::td3(config), seed)?),
        RlAgent::Sac => Box::new(Sac::new(env, off_policy::sac(config), seed)?),
        RlAgent::Cql => {
            let data = off_policy::dataset(config, env.spec())?;
            Box::new(Cql::new(env.spec(), &data, off_policy::cql(config), seed)?)
        }
        RlAgent::Iql => {
            let data = off_policy::dataset(config, env.spec())?;
            Box::new(Iql::new(env.spec(), &data, off_policy::iql(config), seed)?)
        }
    })
}

pub(super) fn schedule(falling: Falling) -> Schedule {
    Schedule { initial: falling.initial, linear: falling.linear }
}
