//! Losses without a reference model. CPO (Xu et al. 2024, eq. 3, <https://arxiv.org/abs/2401.08417>) is
//! [`cdpo`](super::cdpo) on log-probabilities in place of log-ratios.

use candle_core::{Result, Tensor};

use super::smoothed;
use crate::ops::{log_sigmoid, log1m_exp};

/// ORPO's log odds ratio: log(odds(y_w)/odds(y_l)), odds = p/(1 − p), p = e^{ℓ}, ℓ the mean of log π over the tokens
///
/// Hong et al. 2024, eq. 4 and 7, <https://arxiv.org/abs/2403.07691>.
///
/// # Shapes
/// chosen and rejected mean log-probabilities, below 0, (B,) → (B,)
pub fn log_odds_ratio(chosen: &Tensor, rejected: &Tensor) -> Result<Tensor> {
    (chosen - rejected)? - (log1m_exp(chosen)? - log1m_exp(rejected)?)?
}

/// ORPO's odds ratio loss: −λ log σ(log odds ratio); the negative log-likelihood of the chosen text comes besides
///
/// Hong et al. 2024, eq. 7, <https://arxiv.org/abs/2403.07691>. TRL calls λ `beta`.
///
/// # Shapes
/// log odds ratio (B,) → loss of each pair (B,)
pub fn orpo(log_odds_ratio: &Tensor, lambda: f64) -> Result<Tensor> {
    log_sigmoid(log_odds_ratio)? * -lambda
}

/// SimPO: −(1 − ε) log σ(β(ℓ_w − ℓ_l) − γ) − ε log σ(−β(ℓ_w − ℓ_l) + γ), ℓ the mean of log π over the tokens
///
/// Meng et al. 2024, eq. 6, <https://arxiv.org/abs/2405.14734>.
///
/// # Shapes
/// chosen and rejected mean log-probabilities (B,) → loss of each pair (B,)
pub fn simpo(chosen: &Tensor, rejected: &Tensor, beta: f64, gamma: f64, label_smoothing: f64) -> Result<Tensor> {
    smoothed(&(chosen - rejected)?.affine(beta, -gamma)?, label_smoothing)
}

/// AlphaPO's reward: (1 − p^{−α})/α, p = e^{ℓ}; ℓ itself in the limit α = 0
///
/// Gupta et al. 2025, <https://arxiv.org/abs/2501.03884>.
///
/// # Shapes
/// log-probability (B,) → (B,)
pub fn alpha_reward(log_prob: &Tensor, alpha: f64) -> Result<Tensor> {
    if alpha == 0.0 {
        return Ok(log_prob.clone());
    }
    (log_prob * -alpha)?.exp()?.affine(-1.0 / alpha, 1.0 / alpha)
}
