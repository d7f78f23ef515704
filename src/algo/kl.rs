//! Estimators of the divergence from the reference policy, and the controllers of its coefficient.
//!
//! All estimate KL(π ‖ π_ref) from samples of π, with d = log π - log π_ref of the sampled token
//! (Schulman 2020, <http://joschu.net/blog/kl-approx.html>).

use serde::{Deserialize, Serialize};

/// How a divergence is estimated from log-probabilities
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KlEstimator {
    /// d: unbiased, may be negative
    K1,
    /// ½d²: biased a little; its gradient is that of the reverse KL where samples are fresh
    K2,
    /// e^{-d} + d - 1: unbiased, never negative
    #[default]
    K3,
    /// ½(Σ_t d_t)² of the whole sequence, spread evenly over its tokens: its gradient, (Σ_t d_t) ∇ log π(y), is that of
    /// the KL between distributions over whole sequences, which no per-token penalty has
    SequenceK2,
}

impl KlEstimator {
    /// Estimate and derivative with respect to log π for one token, or one sequence with summed log-probabilities
    #[inline]
    pub fn value_and_grad(self, log_prob: f64, ref_log_prob: f64) -> (f64, f64) {
        let d = log_prob - ref_log_prob;
        match self {
            Self::K1 => (d, 1.0),
            Self::K2 | Self::SequenceK2 => (0.5 * d * d, d),
            Self::K3 => {
                // expm1 keeps the digits that e^{-d} - 1 loses near d = 0, where a run starts
                let tail = (-d).exp_m1();
                (tail + d, -tail)
            }
        }
    }
}

/// Coefficient of the KL penalty over a run
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum KlController {
    /// Never changes
    Fixed(FixedKl),
    /// Follows a target
    Adaptive(AdaptiveKl),
}

impl KlController {
    /// The coefficient β now
    pub fn coefficient(&self) -> f64 {
        match self {
            Self::Fixed(fixed) => fixed.coefficient,
            Self::Adaptive(adaptive) => adaptive.coefficient,
        }
    }

    /// Takes in the divergence of a rollout of `samples` sequences (nats per sequence)
    pub fn update(&mut self, kl: f64, samples: usize) {
        if let Self::Adaptive(adaptive) = self {
            adaptive.update(kl, samples);
        }
    }
}

/// A constant coefficient
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct FixedKl {
    /// β
    pub coefficient: f64,
}

/// A coefficient that steers the divergence to a target
///
/// ```text
/// e = clip(KL / target - 1, -0.2, 0.2);   β ← β (1 + e · n / horizon)
/// ```
///
/// Ziegler et al. 2019, §2.2, <https://arxiv.org/abs/1909.08593>. An unchanged β means that the target is met.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct AdaptiveKl {
    /// β now
    pub coefficient: f64,
    /// Divergence to hold, nats per sequence
    pub target: f64,
    /// Number of sequences over which a full error of 20 % moves β by 20 %
    pub horizon: f64,
}

impl AdaptiveKl {
    /// Takes in the divergence of a rollout of `samples` sequences (nats per sequence); one that is no number is ignored
    pub fn update(&mut self, kl: f64, samples: usize) {
        if kl.is_finite() {
            let error = (kl / self.target - 1.0).clamp(-0.2, 0.2);
            self.coefficient *= 1.0 + error * samples as f64 / self.horizon;
        }
    }
}

/// Divergence between the behaviour policy and the present one, for early stopping: mean of (ρ - 1) - log ρ
///
/// k3 with the roles that PPO's `target_kl` uses (Stable-Baselines3, CleanRL); ρ = π / π_old.
///
/// # Shapes
/// both (N,) → a mean; 0 for none
pub fn approx_kl(log_probs: &[f32], old_log_probs: &[f32]) -> f64 {
    super::same_length("old_log_probs", old_log_probs.len(), log_probs.len());
    let sum: f64 = log_probs
        .iter()
        .zip(old_log_probs)
        .map(|(new, old)| {
            let log_ratio = f64::from(*new) - f64::from(*old);
            log_ratio.exp_m1() - log_ratio
        })
        .sum();
    sum / log_probs.len().max(1) as f64
}
