//! f-DPO: what takes the place of a log-ratio under another divergence from the reference than the reverse KL.
//!
//! Wang et al. 2024, <https://arxiv.org/abs/2309.16240>: the score of a completion is f′(π/π_ref). Under the reverse KL
//! it is the log-ratio itself (plus a constant that pairs cancel).

use candle_core::{Result, Tensor};

use crate::ops::log_sigmoid;

/// Forward KL: f′(t) = 1 − 1/t, t = π/π_ref
///
/// # Shapes
/// log-ratio (B,) → score (B,)
pub fn forward_kl(log_ratio: &Tensor) -> Result<Tensor> {
    log_ratio.neg()?.exp()?.affine(-1.0, 1.0)
}

/// Jensen–Shannon divergence: f′(t) = log(2t/(t + 1)) = ln 2 + log σ(log t)
///
/// # Shapes
/// log-ratio (B,) → score (B,)
pub fn js_divergence(log_ratio: &Tensor) -> Result<Tensor> {
    log_sigmoid(log_ratio)? + std::f64::consts::LN_2
}

/// α-divergence: f′(t) = (t^{α−1} − 1)/(α − 1); log t in the limit α = 1
///
/// The exponent (α − 1)·log t is held at or below 80, as in TRL, so that it stays a number in f32.
///
/// # Shapes
/// log-ratio (B,) → score (B,)
pub fn alpha_divergence(log_ratio: &Tensor, alpha: f64) -> Result<Tensor> {
    const LARGEST: f64 = 80.0;
    if (alpha - 1.0).abs() < 1e-6 {
        return Ok(log_ratio.clone());
    }
    let power = (log_ratio * (alpha - 1.0))?;
    let over = power.gt(LARGEST)?;
    let held = over.where_cond(&(power.zeros_like()? + LARGEST)?, &power)?;
    (held.exp()? - 1.0)? / (alpha - 1.0)
}
