//! Keys to settings, for agents that learn from what the present policy has just done.

use super::agents::schedule;
use crate::config::{EntropyWeight, RlConfig};
use crate::rl::agents::PpoOptions;
use crate::{Error, Result};

/// The weight of an entropy that is not learned
fn entropy_weight(config: &RlConfig) -> Result<f64> {
    let agent = config.general.agent;
    match config.general.ent_coef {
        EntropyWeight::Fixed(weight) => Ok(weight),
        EntropyWeight::Auto { .. } => Err(Error::usage(format!("`ent_coef` must be a number for `{agent}`, got `auto`"))),
    }
}

pub(super) fn ppo(config: &RlConfig) -> Result<PpoOptions> {
    let (general, keys) = (&config.general, &config.on_policy);
    Ok(PpoOptions {
        n_steps: keys.n_steps,
        batch_size: general.batch_size,
        n_epochs: keys.n_epochs,
        gamma: general.gamma,
        gae_lambda: keys.gae_lambda,
        learning_rate: schedule(general.learning_rate),
        clip_range: schedule(keys.clip_range),
        clip_range_vf: keys.clip_range_vf,
        ent_coef: entropy_weight(config)?,
        vf_coef: keys.vf_coef,
        max_grad_norm: general.max_grad_norm,
        target_kl: keys.target_kl,
        normalize_advantage: keys.normalize_advantage,
        normalize: keys.normalize,
        hidden: general.net_arch.clone(),
        log_std_init: keys.log_std_init,
    })
}
