//! KTO: single completions that were liked or not.
//!
//! Ethayarajh et al. 2024, eq. 7 and 8, <https://arxiv.org/abs/2402.01306>: a value function of the reward against the
//! reference point z₀ = max(0, KL(π‖π_ref)), estimated by the caller and constant here. With z₀ = 0 the two are the
//! unpaired APO-zero loss (D'Oosterlinck et al. 2024, eq. 7, <https://arxiv.org/abs/2408.06266>).

use candle_core::{Result, Tensor};

use super::sigmoid;

/// A liked completion: 1 − σ(β(Δ − z₀))
///
/// # Shapes
/// log-ratio (B,) → loss of each completion (B,)
pub fn kto_desirable(log_ratio: &Tensor, kl: f64, beta: f64) -> Result<Tensor> {
    sigmoid(&log_ratio.affine(-beta, beta * kl)?)
}

/// A disliked completion: 1 − σ(β(z₀ − Δ))
///
/// # Shapes
/// log-ratio (B,) → loss of each completion (B,)
pub fn kto_undesirable(log_ratio: &Tensor, kl: f64, beta: f64) -> Result<Tensor> {
    sigmoid(&log_ratio.affine(beta, -beta * kl)?)
}
