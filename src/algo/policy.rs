//! Policy losses of one sample, and the surrogate of PPO over a minibatch.
//!
//! With ρ = exp(log π - log π_old) and the advantage A, each [`Term`] is a loss with its derivative with respect to
//! log π (or log ρ, which is the same as long as π_old is fixed).

use serde::{Deserialize, Serialize};

use super::{counts, same_length, same_length_if_any};

/// Loss of one sample and its derivative with respect to log π
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Term {
    /// Value
    pub loss: f64,
    /// d loss / d log π
    pub grad: f64,
}

/// REINFORCE: -A log π
///
/// Williams 1992; the gradient of every loss here at ρ = 1.
#[inline]
pub fn reinforce_term(log_prob: f64, advantage: f64) -> Term {
    Term { loss: -advantage * log_prob, grad: -advantage }
}

/// Bounds on the ratio
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Clip {
    /// ε: gains end below 1 - ε
    pub low: f64,
    /// ε_high: gains end above 1 + ε_high ("clip higher", DAPO); for CISPO the cap on ρ itself
    pub high: f64,
    /// δ: the unclipped ratio is capped here (INTELLECT-2's two-sided clipping)
    pub delta: Option<f64>,
    /// c > 1: with A < 0 the loss is at most -cA (dual clip). The same as `delta` where that exceeds 1 + ε_high
    pub dual: Option<f64>,
}

impl Default for Clip {
    fn default() -> Self {
        Self::symmetric(0.2)
    }
}

impl Clip {
    /// 1 ± ε
    pub const fn symmetric(epsilon: f64) -> Self {
        Self { low: epsilon, high: epsilon, delta: None, dual: None }
    }

    /// Clipped surrogate: -min(min(ρ, δ) A, clip(ρ, 1 - ε, 1 + ε_high) A), with dual clip at most -cA where A < 0
    ///
    /// PPO, Schulman et al. 2017, eq. 7, <https://arxiv.org/abs/1707.06347>; asymmetric bounds: DAPO, Yu et al. 2025,
    /// <https://arxiv.org/abs/2503.14476>; δ: INTELLECT-2, 2025, <https://arxiv.org/abs/2505.07291>; dual clip: Ye et
    /// al. 2020, <https://arxiv.org/abs/1912.09729>. The gradient is 0 where the bound holds.
    #[inline]
    pub fn term(&self, log_ratio: f64, advantage: f64) -> Term {
        let ratio = log_ratio.exp();
        let clipped = ratio.clamp(1.0 - self.low, 1.0 + self.high);
        let capped = self.delta.map_or(ratio, |delta| ratio.min(delta));
        let chosen = if capped * advantage <= clipped * advantage { capped } else { clipped };
        // A bound that does not bind leaves the ratio as it is, and only then does the gradient flow
        let mut term = Term { loss: -chosen * advantage, grad: if chosen == ratio { -ratio * advantage } else { 0.0 } };
        if let Some(cap) = self.dual
            && advantage < 0.0
            && term.loss > -cap * advantage
        {
            term = Term { loss: -cap * advantage, grad: 0.0 };
        }
        term
    }

    /// Whether the lower bound holds this sample: ρ < 1 - ε with A < 0
    #[inline]
    pub fn is_low(&self, log_ratio: f64, advantage: f64) -> bool {
        self.capped(log_ratio) < 1.0 - self.low && advantage < 0.0
    }

    /// Whether the upper bound holds this sample: ρ > 1 + ε_high with A > 0
    #[inline]
    pub fn is_high(&self, log_ratio: f64, advantage: f64) -> bool {
        self.capped(log_ratio) > 1.0 + self.high && advantage > 0.0
    }

    fn capped(&self, log_ratio: f64) -> f64 {
        let ratio = log_ratio.exp();
        self.delta.map_or(ratio, |delta| ratio.min(delta))
    }
}

/// CISPO: -min(ρ, cap) A log π, the weight being a constant: no token's gradient is lost to clipping
///
/// MiniMax-M1, 2025, eq. 4, <https://arxiv.org/abs/2506.13585>; the cap alone as in ScaleRL,
/// <https://arxiv.org/abs/2510.13786>.
#[inline]
pub fn cispo_term(log_prob: f64, log_ratio: f64, advantage: f64, cap: f64) -> Term {
    let weight = log_ratio.exp().min(cap);
    Term { loss: -weight * advantage * log_prob, grad: -weight * advantage }
}

/// SAPO: -(4/τ) σ(τ(ρ - 1)) A, a soft gate instead of a bound
///
/// Gao et al. 2025, <https://arxiv.org/abs/2511.20347>; `temperature` is τ_pos where A > 0 and τ_neg elsewhere.
#[inline]
pub fn sapo_term(log_ratio: f64, advantage: f64, temperature: f64) -> Term {
    let ratio = log_ratio.exp();
    let gate = 1.0 / (1.0 + (-temperature * (ratio - 1.0)).exp());
    // Far out ρ overflows while the gate's slope is 0: their product is 0, not NaN
    let slope = 4.0 * gate * (1.0 - gate);
    let grad = if slope == 0.0 { 0.0 } else { -slope * ratio * advantage };
    Term { loss: -4.0 * gate / temperature * advantage, grad }
}

/// Shape of VESPO's weight, one pair for A ≥ 0 and one for A < 0
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Vespo {
    /// Power k for A ≥ 0
    pub k_pos: f64,
    /// Decay λ for A ≥ 0
    pub lambda_pos: f64,
    /// Power k for A < 0
    pub k_neg: f64,
    /// Decay λ for A < 0
    pub lambda_neg: f64,
}

impl Default for Vespo {
    fn default() -> Self {
        Self { k_pos: 2.0, lambda_pos: 3.0, k_neg: 3.0, lambda_neg: 2.0 }
    }
}

impl Vespo {
    /// φ(w) = e^λ w^k e^{-λw}, w the ratio of the whole sequence; φ(1) = 1. The loss is -φ A log π, φ a constant
    ///
    /// Bounds as in TRL: log w within [ln 1e-8, 20], λ ≥ 1e-4. The sequence's log-ratio is the sum of per-token ones, each
    /// bounded to ±20 ([`Vespo::bounded`]).
    #[inline]
    pub fn weight(&self, sequence_log_ratio: f64, advantage: f64) -> f64 {
        let (k, lambda) = if advantage >= 0.0 { (self.k_pos, self.lambda_pos) } else { (self.k_neg, self.lambda_neg) };
        let lambda = lambda.max(1e-4);
        let log_w = sequence_log_ratio.clamp(1e-8_f64.ln(), 20.0);
        let weight = (lambda + k * log_w - lambda * log_w.exp()).exp();
        if weight.is_finite() { weight } else { 0.0 }
    }

    /// One token's log-ratio as it goes into the sequence's
    #[inline]
    pub fn bounded(log_ratio: f64) -> f64 {
        log_ratio.clamp(-20.0, 20.0)
    }
}

/// PPO's policy loss over a part of a minibatch, and what is logged with it
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Surrogate {
    /// This part's share of the loss: Σ terms / normalizer
    pub loss: f64,
    /// Σ [(ρ - 1) - log ρ] / normalizer, what Stable-Baselines3 and CleanRL stop early on
    pub approx_kl: f64,
    /// Σ ½(log ρ)² / normalizer, TRL's `policy/approxkl_avg`
    pub approx_kl_k2: f64,
    /// Share of samples where the clipped loss exceeds the unclipped one, TRL's `policy/clipfrac_avg`
    pub clip_fraction: f64,
    /// Share of samples with the ratio out of bounds whatever the advantage, Stable-Baselines3's `clip_fraction`
    pub outside_fraction: f64,
    /// Σ ρ / normalizer
    pub ratio: f64,
}

/// [`Clip::term`] over a part of a minibatch, with the gradient of the share of the mean
///
/// ```text
/// L = −Σ_t min(ρ_t A_t, clip(ρ_t, 1 − ε, 1 + ε_high) A_t) / normalizer        ρ_t = e^{log π(t) − log π_old(t)}
/// ```
///
/// `normalizer` is the number of samples that count in the *whole* minibatch (`log_probs.len()` where it is not split and
/// has no mask): shares of all parts add up. All fields of the result are such shares.
///
/// # Shapes
/// log-probabilities, advantages, mask, grad (N,); grad is overwritten, 0 where the mask is false
pub fn clipped_surrogate(
    clip: &Clip,
    log_probs: &[f32],
    old_log_probs: &[f32],
    advantages: &[f32],
    mask: Option<&[bool]>,
    normalizer: f64,
    grad: &mut [f32],
) -> Surrogate {
    let samples = log_probs.len();
    same_length("old_log_probs", old_log_probs.len(), samples);
    same_length("advantages", advantages.len(), samples);
    same_length_if_any("mask", mask, samples);
    same_length("grad", grad.len(), samples);
    let weight = 1.0 / normalizer.max(1.0);
    let mut sum = Surrogate::default();
    for t in 0..samples {
        if !counts(mask, t) {
            grad[t] = 0.0;
            continue;
        }
        let log_ratio = f64::from(log_probs[t]) - f64::from(old_log_probs[t]);
        let advantage = f64::from(advantages[t]);
        let term = clip.term(log_ratio, advantage);
        grad[t] = (term.grad * weight) as f32;
        let ratio = log_ratio.exp();
        sum.loss += term.loss;
        sum.approx_kl += log_ratio.exp_m1() - log_ratio;
        sum.approx_kl_k2 += 0.5 * log_ratio * log_ratio;
        sum.clip_fraction += f64::from(clip.is_low(log_ratio, advantage) || clip.is_high(log_ratio, advantage));
        sum.outside_fraction += f64::from(ratio < 1.0 - clip.low || ratio > 1.0 + clip.high);
        sum.ratio += ratio;
    }
    Surrogate {
        loss: sum.loss * weight,
        approx_kl: sum.approx_kl * weight,
        approx_kl_k2: sum.approx_kl_k2 * weight,
        clip_fraction: sum.clip_fraction * weight,
        outside_fraction: sum.outside_fraction * weight,
        ratio: sum.ratio * weight,
    }
}

/// [`reinforce_term`] over a part of a minibatch: returns this part's share of the loss, −Σ_t A_t log π(t) / normalizer
///
/// `normalizer` as in [`clipped_surrogate`].
///
/// # Shapes
/// all (N,); grad is overwritten, 0 where the mask is false
pub fn reinforce(
    log_probs: &[f32],
    advantages: &[f32],
    mask: Option<&[bool]>,
    normalizer: f64,
    grad: &mut [f32],
) -> f64 {
    let samples = log_probs.len();
    same_length("advantages", advantages.len(), samples);
    same_length_if_any("mask", mask, samples);
    same_length("grad", grad.len(), samples);
    let weight = 1.0 / normalizer.max(1.0);
    let mut loss = 0.0;
    for t in 0..samples {
        grad[t] = 0.0;
        if counts(mask, t) {
            let term = reinforce_term(f64::from(log_probs[t]), f64::from(advantages[t]));
            grad[t] = (term.grad * weight) as f32;
            loss += term.loss;
        }
    }
    loss * weight
}
