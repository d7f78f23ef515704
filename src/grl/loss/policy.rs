//! Policy-gradient losses: plain, clipped, tapered, advantage-weighted.

use super::batch::{Batch, Reduction};
use crate::algo::policy::Clip;
use crate::error::{Error, Result};

/// A loss whose descent direction is a policy gradient
#[derive(Debug, Clone, PartialEq)]
pub struct PolicyLoss {
    /// The surrogate's value
    pub loss: f64,
    /// ∂loss/∂log π of every token
    pub grad_log_probs: Vec<f64>,
    /// Share of the tokens (responses, for sequence weights) on which a bound was active
    pub clipped: f64,
}

/// −Σ A log π: REINFORCE
///
/// # Shapes
/// advantages (B,), one a response, for each of its tokens → gradient (T,), the tokens of all responses
pub fn reinforce(batch: &Batch<'_>, advantages: &[f64], reduction: Reduction) -> Result<PolicyLoss> {
    batch.check("advantages", advantages)?;
    Ok(weighted(batch, advantages, reduction, 0.0))
}

/// −Σ min(ρA, clip(ρ)A) with ρ = π/μ of each token: PPO's surrogate ([`Clip::term`]) on stored behaviour log-probabilities
///
/// Where ρ = 1 its gradient is REINFORCE's.
///
/// # Shapes
/// behaviour log-probabilities (T,), advantages (B,) → gradient (T,)
pub fn clip(
    batch: &Batch<'_>,
    log_probs_behaviour: &[f64],
    advantages: &[f64],
    bounds: &Clip,
    reduction: Reduction,
) -> Result<PolicyLoss> {
    batch.check("advantages", advantages)?;
    batch.check_tokens("behaviour log-probabilities", log_probs_behaviour)?;
    let scale = reduction.weight(batch);
    let mut grad_log_probs = vec![0.0; batch.tokens()];
    let (mut loss, mut clipped) = (0.0, 0_usize);
    for (span, a) in batch.spans().iter().zip(advantages) {
        for t in span.clone() {
            let log_ratio = batch.log_probs()[t] - log_probs_behaviour[t];
            let term = bounds.term(log_ratio, *a);
            loss += term.loss * scale;
            grad_log_probs[t] = term.grad * scale;
            clipped += usize::from(bounds.is_low(log_ratio, *a) || bounds.is_high(log_ratio, *a));
        }
    }
    finite(PolicyLoss { loss, grad_log_probs, clipped: clipped as f64 / batch.tokens() as f64 })
}

/// −mean [A log π where A ≥ 0, min(π/μ, 1) A log π where A < 0], the weights constants: tapered off-policy REINFORCE
///
/// Le Roux et al. 2025, <https://arxiv.org/abs/2503.14286>. Responses that the policy has already left push no further.
pub fn topr(batch: &Batch<'_>, log_probs_behaviour: &[f64], advantages: &[f64]) -> Result<PolicyLoss> {
    batch.check("advantages", advantages)?;
    batch.check_tokens("behaviour log-probabilities", log_probs_behaviour)?;
    let ratio = |t: usize| batch.log_probs()[t] - log_probs_behaviour[t];
    let mut tapered = 0_usize;
    let weights = batch.spans().iter().zip(advantages).map(|(span, a)| {
        let log_ratio: f64 = span.clone().map(ratio).sum();
        if *a >= 0.0 || log_ratio >= 0.0 {
            return *a;
        }
        tapered += 1;
        log_ratio.exp() * a
    });
    let weights: Vec<f64> = weights.collect();
    Ok(weighted(batch, &weights, Reduction::SequenceMean, tapered as f64 / batch.len() as f64))
}

/// −mean min(e^{A/τ}, w_max) log π: advantage-weighted regression
///
/// With A = R − τ(log μ − log π_ref) − V under the behaviour policy μ its optimum is the best policy itself.
pub fn awr(batch: &Batch<'_>, advantages: &[f64], tau: f64, largest_weight: f64) -> Result<PolicyLoss> {
    batch.check("advantages", advantages)?;
    if !(tau > 0.0 && largest_weight > 0.0) {
        let message = format!("tau is {tau} and the largest weight {largest_weight}, expected positive numbers");
        return Err(Error::usage(message));
    }
    let free: Vec<f64> = advantages.iter().map(|a| (a / tau).exp()).collect();
    let bounded = free.iter().filter(|w| **w > largest_weight).count() as f64 / batch.len() as f64;
    let weights: Vec<f64> = free.into_iter().map(|w| w.min(largest_weight)).collect();
    finite(weighted(batch, &weights, Reduction::SequenceMean, bounded))
}

/// −Σ w log π with one constant weight for each response
fn weighted(batch: &Batch<'_>, weights: &[f64], reduction: Reduction, clipped: f64) -> PolicyLoss {
    let scale = reduction.weight(batch);
    let mut grad_log_probs = vec![0.0; batch.tokens()];
    let mut loss = 0.0;
    for (span, w) in batch.spans().iter().zip(weights) {
        grad_log_probs[span.clone()].fill(-w * scale);
        loss -= w * scale * batch.log_probs()[span.clone()].iter().sum::<f64>();
    }
    PolicyLoss { loss, grad_log_probs, clipped }
}

/// e^x of a large x is infinite; a step with it would ruin the policy
fn finite(loss: PolicyLoss) -> Result<PolicyLoss> {
    if loss.loss.is_finite() && loss.grad_log_probs.iter().all(|grad| grad.is_finite()) {
        return Ok(loss);
    }
    let message = format!("a policy loss is {}: a ratio or weight is beyond what a number holds", loss.loss);
    Err(Error::run(message).hint("the policy has moved too far from the one that sampled; replay less or shorter ago"))
}
