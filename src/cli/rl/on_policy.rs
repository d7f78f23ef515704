//! Keys to settings, for agents that learn from what the present policy has just done.

use super::agents::schedule;
use crate::config::{EntropyWeight, RlConfig};
use crate::rl::agents::{A2cOptions, PpoOptions, ReinforceOptions, TrpoOptions};
use crate::{Error, Result};

/// The weight of an entropy that is not learned
fn entropy_weight(config: &RlConfig) -> Result<f64> {
    let agent = config.general.agent;
    match config.general.ent_coef {
        EntropyWeight::Fixed(weight) => Ok(weight),
        EntropyWeight::Auto { .. } => {
            Err(Error::usage(format!("`ent_coef` must be a number for `{agent}`, got `auto`")))
        }
    }
}

pub(super) fn ppo(config: &RlConfig) -> Result<PpoOptions> {
    let (general, keys) = (&config.general, &config.on_policy);
    Ok(PpoOptions {
        n_steps: general.n_steps,
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

pub(super) fn reinforce(config: &RlConfig) -> Result<ReinforceOptions> {
    let (general, keys) = (&config.general, &config.on_policy);
    Ok(ReinforceOptions {
        episodes_per_update: keys.episodes_per_update,
        gamma: general.gamma,
        learning_rate: schedule(general.learning_rate),
        baseline: keys.baseline,
        ent_coef: entropy_weight(config)?,
        n_critic_updates: keys.n_critic_updates,
        max_grad_norm: general.max_grad_norm,
        normalize_advantage: keys.normalize_advantage,
        normalize: keys.normalize,
        hidden: general.net_arch.clone(),
        log_std_init: keys.log_std_init,
    })
}

pub(super) fn a2c(config: &RlConfig) -> Result<A2cOptions> {
    let (general, keys) = (&config.general, &config.on_policy);
    Ok(A2cOptions {
        n_steps: general.n_steps,
        gamma: general.gamma,
        gae_lambda: keys.gae_lambda,
        learning_rate: schedule(general.learning_rate),
        ent_coef: entropy_weight(config)?,
        vf_coef: keys.vf_coef,
        max_grad_norm: general.max_grad_norm,
        use_rms_prop: keys.use_rms_prop,
        rms_prop_eps: keys.rms_prop_eps,
        normalize_advantage: keys.normalize_advantage,
        normalize: keys.normalize,
        hidden: general.net_arch.clone(),
        log_std_init: keys.log_std_init,
    })
}

pub(super) fn trpo(config: &RlConfig) -> Result<TrpoOptions> {
    let (general, keys) = (&config.general, &config.on_policy);
    let target_kl = keys.target_kl.ok_or_else(|| Error::usage("`target_kl` must be a number above 0 for `trpo`"))?;
    Ok(TrpoOptions {
        n_steps: general.n_steps,
        batch_size: general.batch_size,
        gamma: general.gamma,
        gae_lambda: keys.gae_lambda,
        learning_rate: schedule(general.learning_rate),
        target_kl,
        cg_max_steps: keys.cg_max_steps,
        cg_damping: keys.cg_damping,
        line_search_shrinking_factor: keys.line_search_shrinking_factor,
        line_search_max_iter: keys.line_search_max_iter,
        n_critic_updates: keys.n_critic_updates,
        normalize_advantage: keys.normalize_advantage,
        normalize: keys.normalize,
        hidden: general.net_arch.clone(),
        log_std_init: keys.log_std_init,
    })
}
