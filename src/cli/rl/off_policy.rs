//! Keys to settings, for agents that learn from transitions.

use std::path::Path;

use super::agents::schedule;
use crate::config::{EntropyWeight, RlConfig};
use crate::rl::agents::{CqlOptions, DqnOptions, IqlOptions, ReplayOptions, SacOptions, Td3Options, Temperature};
use crate::rl::dataset::Dataset;
use crate::rl::env::EnvSpec;
use crate::rl::priority::PriorityOptions;
use crate::{Error, Result};

fn replay(config: &RlConfig) -> ReplayOptions {
    let (general, keys) = (&config.general, &config.off_policy);
    ReplayOptions {
        buffer_size: keys.buffer_size,
        learning_starts: keys.learning_starts,
        batch_size: general.batch_size,
        gamma: general.gamma,
        train_freq: keys.train_freq,
        gradient_steps: usize::try_from(keys.gradient_steps).ok(),
        n_steps: general.n_steps,
        n_sampled_goal: keys.n_sampled_goal,
    }
}

pub(super) fn dqn(config: &RlConfig) -> DqnOptions {
    let (general, keys) = (&config.general, &config.off_policy);
    let priorities = PriorityOptions {
        alpha: keys.prioritized_replay_alpha,
        beta0: keys.prioritized_replay_beta0,
        epsilon: keys.prioritized_replay_eps,
    };
    DqnOptions {
        learning_rate: schedule(general.learning_rate),
        replay: replay(config),
        prioritized: keys.prioritized_replay.then_some(priorities),
        target_update_interval: keys.target_update_interval,
        tau: keys.tau,
        exploration_fraction: general.exploration_fraction,
        exploration_initial_eps: general.exploration_initial_eps,
        exploration_final_eps: general.exploration_final_eps,
        max_grad_norm: general.max_grad_norm,
        double: keys.double,
        dueling: keys.dueling,
        hidden: general.net_arch.clone(),
    }
}

pub(super) fn td3(config: &RlConfig) -> Td3Options {
    let (general, keys) = (&config.general, &config.off_policy);
    Td3Options {
        learning_rate: schedule(general.learning_rate),
        replay: replay(config),
        tau: keys.tau,
        policy_delay: keys.policy_delay,
        target_policy_noise: keys.target_policy_noise,
        target_noise_clip: keys.target_noise_clip,
        noise_std: keys.noise_std,
        hidden: general.net_arch.clone(),
    }
}

pub(super) fn sac(config: &RlConfig) -> SacOptions {
    let (general, keys) = (&config.general, &config.off_policy);
    SacOptions {
        learning_rate: schedule(general.learning_rate),
        replay: replay(config),
        tau: keys.tau,
        target_update_interval: keys.target_update_interval,
        ent_coef: match general.ent_coef {
            EntropyWeight::Fixed(alpha) => Temperature::Fixed(alpha),
            EntropyWeight::Auto { initial } => Temperature::Auto { initial },
        },
        target_entropy: keys.target_entropy,
        hidden: general.net_arch.clone(),
    }
}

pub(super) fn cql(config: &RlConfig) -> CqlOptions {
    let (general, keys) = (&config.general, &config.off_policy);
    CqlOptions {
        learning_rate: schedule(general.learning_rate),
        batch_size: general.batch_size,
        gamma: general.gamma,
        tau: keys.tau,
        cql_alpha: keys.cql_alpha,
        max_grad_norm: general.max_grad_norm,
        hidden: general.net_arch.clone(),
    }
}

pub(super) fn iql(config: &RlConfig) -> IqlOptions {
    let (general, keys) = (&config.general, &config.off_policy);
    IqlOptions {
        learning_rate: schedule(general.learning_rate),
        batch_size: general.batch_size,
        gamma: general.gamma,
        tau: keys.tau,
        expectile: keys.expectile,
        weight_temp: keys.weight_temp,
        max_weight: keys.max_weight,
        hidden: general.net_arch.clone(),
    }
}

/// The transitions that an agent learns from without acting
pub(super) fn dataset(config: &RlConfig, spec: &EnvSpec) -> Result<Dataset> {
    let path = &config.off_policy.dataset;
    if path.is_empty() {
        let message = format!("`dataset` is not set, from which `{}` learns", config.general.agent);
        return Err(Error::usage(message).hint("`collimate rl record` writes one"));
    }
    Dataset::load(Path::new(path), spec)
}
