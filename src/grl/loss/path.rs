//! Path consistency: V(x) + τ L(y) = R holds for every response under the best policy, whoever produced it.
//!
//! Nachum et al. 2017, <https://arxiv.org/abs/1702.08892>. No importance weights are needed, but V must be right: with a V
//! that stays wrong, off-policy data lead to another fixed point.

use std::ops::Range;

use super::batch::{Batch, check_values};
use crate::error::{Error, Result};

/// A path-consistency loss
#[derive(Debug, Clone, PartialEq)]
pub struct PathLoss {
    /// Mean of the per-sample losses
    pub loss: f64,
    /// e_i
    pub residuals: Vec<f64>,
    /// ∂loss/∂log π of every token
    pub grad_log_probs: Vec<f64>,
    /// ∂loss/∂V_i, for a value head (then this is DRO's loss); unused where V comes from a memory
    pub grad_values: Vec<f64>,
}

/// e = R − τ L − V for every response
pub fn residuals(batch: &Batch<'_>, rewards: &[f64], values: &[f64], tau: f64) -> Result<Vec<f64>> {
    batch.check("rewards", rewards)?;
    batch.check("values", values)?;
    let ratios = batch.log_ratios();
    Ok(ratios.iter().zip(rewards).zip(values).map(|((ratio, reward), value)| reward - tau * ratio - value).collect())
}

/// mean ½ e², or Huber's loss of e with this width
///
/// ```text
/// e = R − τ L − V,  ∂(½ e²)/∂θ = −τ e ∇log π(y)
/// ```
/// which per sample is −τ times REINFORCE with the KL cost in the reward and V as baseline.
pub fn pcl(batch: &Batch<'_>, rewards: &[f64], values: &[f64], tau: f64, huber: Option<f64>) -> Result<PathLoss> {
    let residuals = residuals(batch, rewards, values, tau)?;
    let scale = 1.0 / batch.responses();
    let mut grad_log_probs = vec![0.0; batch.tokens()];
    for (e, span) in residuals.iter().zip(batch.spans()) {
        grad_log_probs[span.clone()].fill(-tau * slope(*e, huber) * scale);
    }
    let grad_values = residuals.iter().map(|e| -slope(*e, huber) * scale).collect();
    let loss = residuals.iter().map(|e| height(*e, huber)).sum::<f64>() * scale;
    Ok(PathLoss { loss, residuals, grad_log_probs, grad_values })
}

/// A stretch of a response with the rewards inside it and the values at its ends
#[derive(Debug, Clone, PartialEq)]
pub struct SubPath {
    /// Its tokens, in the batch's flat order
    pub tokens: Range<usize>,
    /// Σ r inside
    pub reward: f64,
    /// V(s_i)
    pub value: f64,
    /// V(s_j); 0 at the end of a response
    pub value_next: f64,
}

/// mean ½ e² over stretches, e_ij = Σr − τ L_{i:j} − V(s_i) + V(s_j). `grad_values` is with respect to V(s_i); that with
/// respect to V(s_j) has the opposite sign
pub fn pcl_spans(batch: &Batch<'_>, paths: &[SubPath], tau: f64) -> Result<PathLoss> {
    if paths.is_empty() {
        return Err(Error::run("path consistency over no stretch of any response"));
    }
    if let Some(path) =
        paths.iter().find(|path| path.tokens.start > path.tokens.end || path.tokens.end > batch.tokens())
    {
        return Err(Error::run(format!("tokens {:?} of a batch of {}", path.tokens, batch.tokens())));
    }
    let error =
        |path: &SubPath| path.reward - tau * batch.log_ratio(path.tokens.clone()) - path.value + path.value_next;
    let residuals: Vec<f64> = paths.iter().map(error).collect();
    check_values("residuals", &residuals, paths.len())?;
    let scale = 1.0 / batch.items(paths.len());
    let mut grad_log_probs = vec![0.0; batch.tokens()];
    for (e, path) in residuals.iter().zip(paths) {
        grad_log_probs[path.tokens.clone()].iter_mut().for_each(|grad| *grad -= tau * e * scale);
    }
    let grad_values = residuals.iter().map(|e| -e * scale).collect();
    let loss = residuals.iter().map(|e| 0.5 * e * e).sum::<f64>() * scale;
    Ok(PathLoss { loss, residuals, grad_log_probs, grad_values })
}

fn height(e: f64, huber: Option<f64>) -> f64 {
    match huber {
        Some(width) if e.abs() > width => width * (e.abs() - 0.5 * width),
        _ => 0.5 * e * e,
    }
}

fn slope(e: f64, huber: Option<f64>) -> f64 {
    huber.map_or(e, |width| e.clamp(-width, width))
}
