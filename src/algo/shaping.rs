//! What is done to rewards before they become advantages.
//!
//! Completions are ragged: lengths `(B,)` with sum N, per-token slices `(N,)`, scores `(B,)`.

use super::kl::KlEstimator;
use super::{counts, same_length, same_length_if_any};

/// DAPO's soft penalty on length: 0 up to `max_length - buffer`, then a line down to -1 at `max_length`, -1 beyond
///
/// Yu et al. 2025, eq. 13, <https://arxiv.org/abs/2503.14476>; added to the reward.
pub fn overlong_penalty(length: usize, max_length: usize, buffer: usize) -> f64 {
    let soft = max_length.saturating_sub(buffer);
    if length <= soft {
        0.0
    } else if length <= max_length {
        -((length - soft) as f64) / buffer as f64
    } else {
        -1.0
    }
}

/// Subtracts `penalty` from the scores of completions that did not end by themselves (TRL's `missing_eos_penalty`)
///
/// # Shapes
/// scores, finished (B,)
pub fn penalize_unfinished(scores: &mut [f32], finished: &[bool], penalty: f64) {
    same_length("finished", finished.len(), scores.len());
    for (score, finished) in scores.iter_mut().zip(finished) {
        if !finished {
            *score = (f64::from(*score) - penalty) as f32;
        }
    }
}

/// Bounds scores to `[low, high]` (TRL RLOO's `reward_clip_range`); NaN stays NaN
///
/// # Shapes
/// scores (B,)
pub fn clip_scores(scores: &mut [f32], low: f64, high: f64) {
    for score in scores {
        *score = f64::from(*score).clamp(low, high) as f32;
    }
}

/// Σ_t (log π - log π_ref) of each sequence: k1, in nats per sequence
///
/// # Shapes
/// lengths (B,); log-probabilities, mask (N,); kl (B,), overwritten
pub fn sequence_kl(lengths: &[usize], log_probs: &[f32], ref_log_probs: &[f32], mask: Option<&[bool]>, kl: &mut [f32]) {
    let tokens = lengths.iter().sum();
    same_length("log_probs", log_probs.len(), tokens);
    same_length("ref_log_probs", ref_log_probs.len(), tokens);
    same_length_if_any("mask", mask, tokens);
    same_length("kl", kl.len(), lengths.len());
    let mut end = 0;
    for (kl, &length) in kl.iter_mut().zip(lengths) {
        let start = end;
        end += length;
        let counted = (start..end).filter(|t| counts(mask, *t));
        *kl = counted.map(|t| f64::from(log_probs[t]) - f64::from(ref_log_probs[t])).sum::<f64>() as f32;
    }
}

/// RLOO's reward: score - β Σ_t (log π_old - log π_ref)
///
/// Ahmadian et al. 2024, eq. 3, <https://arxiv.org/abs/2402.14740>; scores are clipped before.
///
/// # Shapes
/// scores, kl (B,)
pub fn subtract_kl(scores: &mut [f32], kl: &[f32], beta: f64) {
    same_length("kl", kl.len(), scores.len());
    for (score, kl) in scores.iter_mut().zip(kl) {
        *score = (f64::from(*score) - beta * f64::from(*kl)) as f32;
    }
}

/// What PPO logs about its rewards, means over sequences
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct RewardStats {
    /// Mean of Σ_t (log π - log π_ref): TRL's `objective/kl`, whatever the estimator
    pub kl: f64,
    /// Mean of Σ_t -β kl_t: `objective/non_score_reward`
    pub non_score_reward: f64,
    /// Mean score: `objective/scores`
    pub scores: f64,
    /// Sum of the two before: `objective/rlhf_reward`
    pub rlhf_reward: f64,
}

/// PPO's reward per token: -β kl_t, and the score on the last token
///
/// Ziegler et al. 2019, eq. 2, <https://arxiv.org/abs/1909.08593>. The last token is the last *real* one, the end-of-text
/// token included; the sequences here hold real tokens only.
///
/// # Shapes
/// lengths, scores (B,); log-probabilities, rewards (N,), the latter overwritten. A sequence of no tokens has nowhere to
/// put its score: it still counts in the means.
pub fn token_rewards(
    lengths: &[usize],
    log_probs: &[f32],
    ref_log_probs: &[f32],
    scores: &[f32],
    beta: f64,
    estimator: KlEstimator,
    rewards: &mut [f32],
) -> RewardStats {
    let tokens = lengths.iter().sum();
    same_length("log_probs", log_probs.len(), tokens);
    same_length("ref_log_probs", ref_log_probs.len(), tokens);
    same_length("scores", scores.len(), lengths.len());
    same_length("rewards", rewards.len(), tokens);
    let mut sum = RewardStats::default();
    let mut end = 0;
    for (&score, &length) in scores.iter().zip(lengths) {
        let start = end;
        end += length;
        for t in start..end {
            let (policy, reference) = (f64::from(log_probs[t]), f64::from(ref_log_probs[t]));
            let penalty = -beta * estimator.value_and_grad(policy, reference).0;
            sum.kl += policy - reference;
            sum.non_score_reward += penalty;
            let last = t + 1 == end;
            rewards[t] = (penalty + if last { f64::from(score) } else { 0.0 }) as f32;
        }
        sum.scores += f64::from(score);
    }
    let share = 1.0 / lengths.len().max(1) as f64;
    RewardStats {
        kl: sum.kl * share,
        non_score_reward: sum.non_score_reward * share,
        scores: sum.scores * share,
        rlhf_reward: (sum.scores + sum.non_score_reward) * share,
    }
}
