//! Losses on preferences: pairs of a chosen and a rejected completion, or single completions that were liked or not.
//!
//! Log-ratios are log π(y|x) − log π_ref(y|x), summed over the tokens of a completion y. Every function gives one loss
//! for each pair or completion; means, weights and masks are the caller's. All are differentiable in π and treat what
//! comes from π_ref as it is given: who wants it constant detaches it.

mod divergence;
mod pair;
mod reference_free;
mod transport;
mod unpaired;
mod weight;

pub use divergence::{alpha_divergence, forward_kl, js_divergence};
pub use pair::{
    apo_down, apo_zero, bco_pair, cdpo, discopop, dpo_sigmoid, exo_pair, hinge, implicit_reward, ipo, nca_pair, robust,
    sppo_hard,
};
pub use reference_free::{alpha_reward, log_odds_ratio, orpo, simpo};
pub use transport::{aot, aot_unpaired};
pub use unpaired::{kto_desirable, kto_undesirable};
pub use weight::{ld_weights, wpo_weight};

use candle_core::{Result, Tensor};

use crate::ops::log_sigmoid;

/// σ(x) with the digits of its small values, which 1/(1 + e^{−x}) loses in the gradient
fn sigmoid(x: &Tensor) -> Result<Tensor> {
    log_sigmoid(x)?.exp()
}

/// −(1 − ε) log σ(x) − ε log σ(−x): cross-entropy where the preference is wrong with probability ε
fn smoothed(x: &Tensor, label_smoothing: f64) -> Result<Tensor> {
    let right = (log_sigmoid(x)? * (label_smoothing - 1.0))?;
    if label_smoothing == 0.0 {
        return Ok(right);
    }
    right - (log_sigmoid(&x.neg()?)? * label_smoothing)?
}

#[cfg(test)]
mod tests;
