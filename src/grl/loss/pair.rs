//! Two responses to one prompt: V(x) cancels in the difference of their residuals.

use super::batch::{Batch, check_values};
use crate::error::{Error, Result};

/// What is asked of the pair
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Pair<'a> {
    /// −log σ(τ(L_w − L_l)): DPO
    Dpo,
    /// (L_w − L_l − 1/(2τ))²: IPO
    Ipo,
    /// ½ (ΔR − τ ΔL)² from rewards of all responses: path consistency without V
    Residual {
        /// R of every response of the batch
        rewards: &'a [f64],
    },
}

/// A loss over pairs
#[derive(Debug, Clone, PartialEq)]
pub struct PairLoss {
    /// Mean over pairs
    pub loss: f64,
    /// Loss of every pair
    pub losses: Vec<f64>,
    /// ∂loss/∂log π of every token
    pub grad_log_probs: Vec<f64>,
}

/// Mean loss over `pairs` of (preferred, other) responses of the batch; for [`Pair::Residual`] the order does not matter
pub fn pair(batch: &Batch<'_>, pairs: &[(usize, usize)], kind: Pair<'_>, tau: f64) -> Result<PairLoss> {
    if pairs.is_empty() {
        return Err(Error::run("a pair loss over no pairs"));
    }
    if let Some((first, second)) = pairs.iter().find(|(first, second)| first.max(second) >= &batch.len()) {
        return Err(Error::run(format!("pair ({first}, {second}) of a batch of {} responses", batch.len())));
    }
    if let Pair::Residual { rewards } = kind {
        check_values("rewards", rewards, batch.len())?;
    }
    if !(tau > 0.0 && tau.is_finite()) {
        return Err(Error::usage(format!("tau is {tau}, expected a positive number")));
    }
    let ratios = batch.log_ratios();
    let scale = 1.0 / batch.items(pairs.len());
    let mut grad_log_probs = vec![0.0; batch.tokens()];
    let mut losses = Vec::with_capacity(pairs.len());
    for &(first, second) in pairs {
        let apart = ratios[first] - ratios[second];
        // The loss of this pair and its slope in L_w − L_l
        let (loss, slope) = match kind {
            Pair::Dpo => (softplus(-tau * apart), -tau * sigmoid(-tau * apart)),
            Pair::Ipo => {
                let off = apart - 1.0 / (2.0 * tau);
                (off * off, 2.0 * off)
            }
            Pair::Residual { rewards } => {
                let off = rewards[first] - rewards[second] - tau * apart;
                (0.5 * off * off, -tau * off)
            }
        };
        losses.push(loss);
        for (response, sign) in [(first, 1.0), (second, -1.0)] {
            let span = batch.spans()[response].clone();
            grad_log_probs[span].iter_mut().for_each(|grad| *grad += sign * slope * scale);
        }
    }
    Ok(PairLoss { loss: losses.iter().sum::<f64>() * scale, losses, grad_log_probs })
}

/// log(1 + e^x), without overflow on one side or loss of digits on the other
pub(in crate::grl) fn softplus(x: f64) -> f64 {
    x.max(0.0) + (-x.abs()).exp().ln_1p()
}

/// 1/(1 + e^{−x})
pub(in crate::grl) fn sigmoid(x: f64) -> f64 {
    if x >= 0.0 {
        1.0 / (1.0 + (-x).exp())
    } else {
        let e = x.exp();
        e / (1.0 + e)
    }
}
