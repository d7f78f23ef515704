//! Keys to settings, for agents in finite environments.

use super::agents::schedule;
use crate::config::{ExplorationRule, RlAgent, RlConfig};
use crate::rl::agents::{Exploration, PlanningMethod, TabularMethod, TabularOptions, TabularSchedule};

pub(super) fn planning(config: &RlConfig) -> PlanningMethod {
    match config.general.agent {
        RlAgent::PolicyIteration => PlanningMethod::PolicyIteration,
        _ => PlanningMethod::ValueIteration { tolerance: config.tabular.tolerance },
    }
}

pub(super) fn learning(config: &RlConfig) -> (TabularOptions, TabularSchedule) {
    let (general, keys) = (&config.general, &config.tabular);
    let options = TabularOptions {
        method: match general.agent {
            RlAgent::Sarsa => TabularMethod::Sarsa,
            RlAgent::ExpectedSarsa => TabularMethod::ExpectedSarsa,
            _ => TabularMethod::QLearning,
        },
        exploration: match keys.exploration {
            ExplorationRule::EpsilonGreedy => Exploration::EpsilonGreedy { epsilon: general.exploration_final_eps },
            ExplorationRule::Boltzmann => Exploration::Boltzmann { temperature: keys.temperature },
            ExplorationRule::Ucb => Exploration::Ucb { coefficient: keys.ucb_coefficient },
        },
        learning_rate: general.learning_rate.initial,
        gamma: general.gamma,
    };
    let schedule = TabularSchedule {
        initial_epsilon: general.exploration_initial_eps,
        epsilon_fraction: general.exploration_fraction,
        learning_rate: schedule(general.learning_rate),
    };
    (options, schedule)
}
