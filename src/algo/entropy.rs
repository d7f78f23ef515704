//! What entropy decides: which tokens learn, and how strong a bonus is.

use serde::{Deserialize, Serialize};

use super::{counts, same_length, same_length_if_any};

/// Marks the tokens whose entropy is at or above a quantile of all that count, among those that count
///
/// "Beyond the 80/20 rule", Wang et al. 2025, <https://arxiv.org/abs/2506.01939>; the quantile interpolates linearly
/// between neighbours, in `f32` as `torch.quantile` does, because a token at the edge hangs on the last bit. TRL's
/// `top_entropy_quantile` ρ is `quantile` = 1 - ρ, taken over the micro-batch.
///
/// # Shapes
/// entropies, mask, keep (N,)
pub fn high_entropy_mask(entropies: &[f32], mask: Option<&[bool]>, quantile: f64, keep: &mut [bool]) {
    same_length_if_any("mask", mask, entropies.len());
    same_length("keep", keep.len(), entropies.len());
    let mut sorted: Vec<f32> =
        entropies.iter().enumerate().filter(|(at, _)| counts(mask, *at)).map(|(_, x)| *x).collect();
    sorted.sort_unstable_by(f32::total_cmp);
    let Some(last) = sorted.len().checked_sub(1) else {
        keep.fill(false);
        return;
    };
    let rank = (quantile as f32).clamp(0.0, 1.0) * last as f32;
    let (below, weight) = (sorted[(rank.floor() as usize).min(last)], rank.fract());
    let above = sorted[(rank.ceil() as usize).min(last)];
    let threshold =
        if weight < 0.5 { below + weight * (above - below) } else { above - (above - below) * (1.0 - weight) };
    for (at, keep) in keep.iter_mut().enumerate() {
        *keep = counts(mask, at) && entropies[at] >= threshold;
    }
}

/// A coefficient of the entropy bonus that rises while the entropy lies below a target and falls above it
///
/// Skywork-OR1, He et al. 2025, <https://arxiv.org/abs/2505.22312>; the steps and the gate of TRL's
/// `use_adaptive_entropy`: the bonus acts only where the last optimiser step's entropy was at or below the target, and
/// not in the first step.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct AdaptiveEntropy {
    /// The coefficient now
    pub coefficient: f64,
    /// Lower bound
    pub min: f64,
    /// Upper bound
    pub max: f64,
    /// Change per optimiser step
    pub delta: f64,
    /// Mean entropy per token to hold, nats
    pub target: f64,
    /// Mean entropy per token of the last optimiser step
    pub last: Option<f64>,
}

impl AdaptiveEntropy {
    /// The coefficient that every micro-batch of the present optimiser step uses
    pub fn applied(&self) -> f64 {
        if self.last.is_some_and(|last| last <= self.target) { self.coefficient } else { 0.0 }
    }

    /// Takes in the mean entropy over all tokens of the optimiser step that ends
    pub fn update(&mut self, entropy: f64) {
        self.coefficient = if entropy <= self.target {
            (self.coefficient + self.delta).min(self.max)
        } else {
            (self.coefficient - self.delta).max(self.min)
        };
        self.last = Some(entropy);
    }
}
