//! Losses of a value function.

use serde::{Deserialize, Serialize};

use super::{counts, same_length, same_length_if_any};

/// Which regression, e = V - R
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ValueLoss {
    /// e²
    Squared,
    /// max(e², (V_old + clip(V - V_old, ±range) - R)²): PPO in TRL and CleanRL
    ClippedMax {
        /// Widest move from the old value
        range: f64,
    },
    /// (V_old + clip(V - V_old, ±range) - R)²: `clip_range_vf` of Stable-Baselines3
    ClippedPrediction {
        /// Widest move from the old value
        range: f64,
    },
    /// ½e² within ±delta, delta(|e| - ½delta) beyond
    Huber {
        /// Where the parabola ends
        delta: f64,
    },
}

impl ValueLoss {
    /// Loss and derivative of an error, of the losses that need no old value
    #[track_caller]
    pub(super) fn regression(self, error: f64) -> (f64, f64) {
        assert!(matches!(self, Self::Squared | Self::Huber { .. }), "{self:?} needs old values");
        let (loss, slope, _) = term(self, error, 0.0, 0.0);
        (loss, slope)
    }
}

/// Loss and derivative of one value, and whether the clipped form won
#[inline]
fn term(loss: ValueLoss, value: f64, old: f64, target: f64) -> (f64, f64, bool) {
    let error = value - target;
    let clipped = |range: f64| {
        let moved = value - old;
        let error = old + moved.clamp(-range, range) - target;
        (error * error, if moved.abs() <= range { 2.0 * error } else { 0.0 })
    };
    match loss {
        ValueLoss::Squared => (error * error, 2.0 * error, false),
        ValueLoss::ClippedPrediction { range } => {
            let (loss, grad) = clipped(range);
            (loss, grad, (value - old).abs() > range)
        }
        ValueLoss::ClippedMax { range } => {
            let (plain, (bounded, grad)) = (error * error, clipped(range));
            if bounded > plain { (bounded, grad, true) } else { (plain, 2.0 * error, false) }
        }
        ValueLoss::Huber { delta } if error.abs() <= delta => (0.5 * error * error, error, false),
        ValueLoss::Huber { delta } => (delta * (error.abs() - 0.5 * delta), delta * error.signum(), false),
    }
}

/// A value loss over a part of a minibatch
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct ValueTerm {
    /// This part's share of the loss
    pub loss: f64,
    /// Share of samples that the clipping decided, TRL's `val/clipfrac_avg`
    pub clip_fraction: f64,
}

/// `factor` · Σ loss / `normalizer`, with its gradient
///
/// `factor` holds what the peers hide in different places: TRL and CleanRL ½ · vf_coef (vf_coef .1 and .5), for
/// Stable-Baselines3 vf_coef alone (.5). `normalizer` is the number of samples that count in the whole minibatch.
/// `old_values` are read by the clipped losses only and may be empty for the others.
///
/// # Shapes
/// all (N,); grad is overwritten, 0 where the mask is false
pub fn value_loss(
    loss: ValueLoss,
    values: &[f32],
    old_values: &[f32],
    returns: &[f32],
    mask: Option<&[bool]>,
    factor: f64,
    normalizer: f64,
    grad: &mut [f32],
) -> ValueTerm {
    let samples = values.len();
    let clips = matches!(loss, ValueLoss::ClippedMax { .. } | ValueLoss::ClippedPrediction { .. });
    if clips {
        same_length("old_values", old_values.len(), samples);
    }
    same_length("returns", returns.len(), samples);
    same_length_if_any("mask", mask, samples);
    same_length("grad", grad.len(), samples);
    let share = 1.0 / normalizer.max(1.0);
    let mut sum = ValueTerm::default();
    for t in 0..samples {
        if !counts(mask, t) {
            grad[t] = 0.0;
            continue;
        }
        let old = if clips { f64::from(old_values[t]) } else { 0.0 };
        let (value, slope, clipped) = term(loss, f64::from(values[t]), old, f64::from(returns[t]));
        grad[t] = (factor * share * slope) as f32;
        sum.loss += value;
        sum.clip_fraction += f64::from(clipped);
    }
    ValueTerm { loss: sum.loss * factor * share, clip_fraction: sum.clip_fraction * share }
}

/// Explained variance: 1 - Var(R - V) / Var(R); 1 is a perfect critic, 0 no better than a constant
///
/// # Errors
/// NaN where all returns are equal: there is nothing to explain
///
/// # Shapes
/// both (N,)
pub fn explained_variance(values: &[f32], returns: &[f32]) -> f64 {
    same_length("returns", returns.len(), values.len());
    let variance = |x: &dyn Fn(usize) -> f64| {
        let mean = (0..values.len()).map(x).sum::<f64>() / values.len() as f64;
        (0..values.len()).map(|t| (x(t) - mean).powi(2)).sum::<f64>()
    };
    let total = variance(&|t| f64::from(returns[t]));
    if total == 0.0 {
        return f64::NAN;
    }
    1.0 - variance(&|t| f64::from(returns[t]) - f64::from(values[t])) / total
}
