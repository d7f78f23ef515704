//! Keys to settings, for agents that learn from a replay.

use super::agents::schedule;
use crate::config::RlConfig;
use crate::rl::agents::DqnOptions;

pub(super) fn dqn(config: &RlConfig) -> DqnOptions {
    let (general, keys) = (&config.general, &config.off_policy);
    DqnOptions {
        learning_rate: schedule(general.learning_rate),
        buffer_size: keys.buffer_size,
        learning_starts: keys.learning_starts,
        batch_size: general.batch_size,
        gamma: general.gamma,
        train_freq: keys.train_freq,
        gradient_steps: usize::try_from(keys.gradient_steps).ok(),
        target_update_interval: keys.target_update_interval,
        exploration_fraction: general.exploration_fraction,
        exploration_initial_eps: general.exploration_initial_eps,
        exploration_final_eps: general.exploration_final_eps,
        max_grad_norm: general.max_grad_norm,
        double: keys.double,
        dueling: keys.dueling,
        hidden: general.net_arch.clone(),
    }
}
