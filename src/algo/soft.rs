//! Soft actor-critic: targets, the actor's loss, the temperature.
//!
//! Haarnoja et al. 2018, <https://arxiv.org/abs/1812.05905>. Slices are `(N,)`.

use super::same_length;

/// Soft values of sampled actions: min(Q₁, Q₂) - α log π
///
/// The bootstrap of the critics' target ([`super::q::targets`]); α = 0 is TD3's clipped double Q.
///
/// # Shapes
/// all (N,)
pub fn soft_values(q1: &[f32], q2: &[f32], log_probs: &[f32], alpha: f64, values: &mut [f32]) {
    same_length("q2", q2.len(), q1.len());
    same_length("log_probs", log_probs.len(), q1.len());
    same_length("values", values.len(), q1.len());
    for (n, value) in values.iter_mut().enumerate() {
        *value = (f64::from(q1[n].min(q2[n])) - alpha * f64::from(log_probs[n])) as f32;
    }
}

/// The actor's loss, mean of α log π - min(Q₁, Q₂), with its gradients
///
/// `grad_q1` and `grad_q2` go through the critics to the action; the critics themselves do not learn from them. Equal
/// critics share the gradient.
///
/// # Shapes
/// all (N,); gradients are overwritten
pub fn actor_loss(
    q1: &[f32],
    q2: &[f32],
    log_probs: &[f32],
    alpha: f64,
    normalizer: f64,
    grad_q1: &mut [f32],
    grad_q2: &mut [f32],
    grad_log_probs: &mut [f32],
) -> f64 {
    same_length("q2", q2.len(), q1.len());
    same_length("log_probs", log_probs.len(), q1.len());
    same_length("grad_q1", grad_q1.len(), q1.len());
    same_length("grad_q2", grad_q2.len(), q1.len());
    same_length("grad_log_probs", grad_log_probs.len(), q1.len());
    let share = 1.0 / normalizer.max(1.0);
    let mut sum = 0.0;
    for n in 0..q1.len() {
        let first = match q1[n].partial_cmp(&q2[n]) {
            Some(std::cmp::Ordering::Less) => 1.0,
            Some(std::cmp::Ordering::Equal) => 0.5,
            _ => 0.0,
        };
        grad_q1[n] = (-first * share) as f32;
        grad_q2[n] = (-(1.0 - first) * share) as f32;
        grad_log_probs[n] = (alpha * share) as f32;
        sum += alpha * f64::from(log_probs[n]) - f64::from(q1[n].min(q2[n]));
    }
    sum * share
}

/// The temperature's loss, mean of -log α (log π + target), and its derivative with respect to log α
///
/// As in Stable-Baselines3: linear in log α, so that the step does not shrink with α. α rises while the policy's entropy
/// lies below `target_entropy` (usually minus the number of action dimensions).
///
/// # Shapes
/// log_probs (N,) → (loss, derivative)
pub fn temperature_loss(log_alpha: f64, log_probs: &[f32], target_entropy: f64) -> (f64, f64) {
    let sum: f64 = log_probs.iter().map(|log_prob| f64::from(*log_prob) + target_entropy).sum();
    let slope = -sum / log_probs.len().max(1) as f64;
    (log_alpha * slope, slope)
}
