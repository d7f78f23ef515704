//! RLOO's loss: the clipped surrogate of whole completions.

use super::group_loss::ClipRatios;
use super::policy::Clip;
use super::{counts, same_length, same_length_if_any};

/// A micro-batch's share of the step's loss, and its metrics
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RlooLossValue {
    /// Share of the step's loss; shares add up
    pub loss: f64,
    /// `clip_ratio/*`, over sequences
    pub clip: ClipRatios,
    /// Mean of ρ over the micro-batch's sequences
    pub ratio: f64,
}

/// -min(ρA, clip(ρ) A) per sequence, ρ = exp(Σ_t (log π - log π_old)) over the tokens that count, mean over sequences
///
/// Ahmadian et al. 2024, <https://arxiv.org/abs/2402.14740>, as TRL's `RLOOTrainer._compute_loss`; the KL is in the reward
/// ([`super::shaping::subtract_kl`]). `sequences` is the number in the whole optimiser step. Without `old_log_probs` ρ is
/// exactly 1, and the gradient -A.
///
/// # Shapes
/// lengths, advantages (B,); log-probabilities, mask, grad (N,), grad overwritten, 0 where the mask is false
pub fn rloo_loss(
    clip: &Clip,
    lengths: &[usize],
    log_probs: &[f32],
    old_log_probs: Option<&[f32]>,
    advantages: &[f32],
    mask: Option<&[bool]>,
    sequences: f64,
    grad: &mut [f32],
) -> RlooLossValue {
    let tokens = lengths.iter().sum();
    same_length("log_probs", log_probs.len(), tokens);
    same_length_if_any("old_log_probs", old_log_probs, tokens);
    same_length("advantages", advantages.len(), lengths.len());
    same_length_if_any("mask", mask, tokens);
    same_length("grad", grad.len(), tokens);
    let (mut loss, mut ratio, mut low, mut high) = (0.0, 0.0, 0.0, 0.0);
    let mut end = 0;
    for (&length, &advantage) in lengths.iter().zip(advantages) {
        let start = end;
        end += length;
        let advantage = f64::from(advantage);
        let counted = (start..end).filter(|t| counts(mask, *t));
        let log_ratio =
            old_log_probs.map_or(0.0, |old| counted.map(|t| f64::from(log_probs[t]) - f64::from(old[t])).sum::<f64>());
        let term = clip.term(log_ratio, advantage);
        loss += term.loss;
        ratio += log_ratio.exp();
        low += f64::from(clip.is_low(log_ratio, advantage));
        high += f64::from(clip.is_high(log_ratio, advantage));
        for (grad, t) in grad[start..end].iter_mut().zip(start..) {
            *grad = if counts(mask, t) { (term.grad / sequences) as f32 } else { 0.0 };
        }
    }
    let batch = lengths.len() as f64;
    let share = 1.0 / batch.max(1.0);
    RlooLossValue {
        loss: loss / sequences,
        clip: ClipRatios {
            low_mean: low * share,
            low_min: if batch == 0.0 { f64::NAN } else { f64::from(low == batch) },
            high_mean: high * share,
            high_max: if batch == 0.0 { f64::NAN } else { f64::from(high > 0.0) },
            region_mean: (low + high) * share,
        },
        ratio: ratio * share,
    }
}
