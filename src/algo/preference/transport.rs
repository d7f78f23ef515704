//! Alignment via optimal transport: the distribution of chosen rewards is moved above that of rejected ones.
//!
//! Melnyk et al. 2024, <https://arxiv.org/abs/2406.05882>: first-order stochastic dominance, which in one dimension is a
//! comparison of sorted values. The sort goes over the rows of one call, so the loss depends on which rows come together.

use candle_core::{Result, Tensor};

use super::smoothed;

/// Ascending; gradients go back to where the values came from
fn sorted(x: &Tensor) -> Result<Tensor> {
    let order = x.detach().contiguous()?.arg_sort_last_dim(true)?;
    x.index_select(&order, 0)
}

/// AOT on pairs: −(1 − ε) log σ(βδ) − ε log σ(−βδ), δ = sort(log π_w − log π_l) − sort(log π_ref,w − log π_ref,l)
///
/// # Shapes
/// chosen and rejected log π and log π_ref (B,) → loss of each rank (B,)
pub fn aot(
    chosen: &Tensor,
    rejected: &Tensor,
    ref_chosen: &Tensor,
    ref_rejected: &Tensor,
    beta: f64,
    label_smoothing: f64,
) -> Result<Tensor> {
    let delta = (sorted(&(chosen - rejected)?)? - sorted(&(ref_chosen - ref_rejected)?)?)?;
    smoothed(&(delta * beta)?, label_smoothing)
}

/// AOT on unpaired rewards: −(1 − ε) log σ(βδ) − ε log σ(−βδ), δ = sort(Δ_w) − sort(Δ_l)
///
/// # Shapes
/// chosen and rejected log-ratios (B,) → loss of each rank (B,)
pub fn aot_unpaired(
    chosen_log_ratio: &Tensor,
    rejected_log_ratio: &Tensor,
    beta: f64,
    label_smoothing: f64,
) -> Result<Tensor> {
    let delta = (sorted(chosen_log_ratio)? - sorted(rejected_log_ratio)?)?;
    smoothed(&(delta * beta)?, label_smoothing)
}
