//! Learning from a fixed data set: implicit and conservative Q-learning.

use super::same_length;

/// Expectile regression, `Σ |τ - 1[u < 0]| u² / normalizer` with u = target - value, with its gradient in the values
///
/// IQL, Kostrikov et al. 2022, eq. 5, <https://arxiv.org/abs/2110.06169>. τ = ½ is half the squared error; τ → 1 goes to
/// the highest target.
///
/// # Shapes
/// all (N,); grad is overwritten
pub fn expectile_loss(values: &[f32], targets: &[f32], tau: f64, normalizer: f64, grad: &mut [f32]) -> f64 {
    same_length("targets", targets.len(), values.len());
    same_length("grad", grad.len(), values.len());
    let share = 1.0 / normalizer.max(1.0);
    let mut sum = 0.0;
    for (n, grad) in grad.iter_mut().enumerate() {
        let u = f64::from(targets[n]) - f64::from(values[n]);
        let weight = if u < 0.0 { 1.0 - tau } else { tau };
        sum += weight * u * u;
        *grad = (-2.0 * weight * u * share) as f32;
    }
    sum * share
}

/// Weights of advantage-weighted regression: min(e^{β (Q - V)}, cap); the policy's loss is -weight · log π
///
/// IQL, eq. 7 (β 3, cap 100); Peng et al. 2019, <https://arxiv.org/abs/1910.00177>. The loss itself is
/// [`super::policy::reinforce`] with the weights for advantages.
///
/// # Shapes
/// all (N,)
pub fn advantage_weights(q: &[f32], values: &[f32], beta: f64, cap: f64, weights: &mut [f32]) {
    same_length("values", values.len(), q.len());
    same_length("weights", weights.len(), q.len());
    for (n, weight) in weights.iter_mut().enumerate() {
        *weight = (beta * (f64::from(q[n]) - f64::from(values[n]))).exp().min(cap) as f32;
    }
}

/// Conservative term for discrete actions, coefficient · Σ [log Σ_a e^{Q(s,a)} - Q(s, a_data)] / normalizer, with gradient
///
/// CQL, Kumar et al. 2020, eq. 4, <https://arxiv.org/abs/2006.04779>: pushes down what the data does not show. The
/// gradient is *added*, onto that of [`super::q::q_loss`].
///
/// # Shapes
/// q, grad (N · A,); actions (N,)
pub fn conservative_term(q: &[f32], actions: &[usize], coefficient: f64, normalizer: f64, grad: &mut [f32]) -> f64 {
    let states = actions.len();
    assert!(states > 0 && q.len().is_multiple_of(states), "{} action values for {states} states", q.len());
    same_length("grad", grad.len(), q.len());
    let width = q.len() / states;
    let share = coefficient / normalizer.max(1.0);
    let mut sum = 0.0;
    for (n, (q, grad)) in q.chunks(width).zip(grad.chunks_mut(width)).enumerate() {
        let top = f64::from(q.iter().copied().fold(f32::NEG_INFINITY, f32::max));
        let log_sum = top + q.iter().map(|q| (f64::from(*q) - top).exp()).sum::<f64>().ln();
        sum += log_sum - f64::from(q[actions[n]]);
        for (a, (grad, q)) in grad.iter_mut().zip(q).enumerate() {
            let chosen = if a == actions[n] { 1.0 } else { 0.0 };
            *grad = (f64::from(*grad) + share * ((f64::from(*q) - log_sum).exp() - chosen)) as f32;
        }
    }
    sum * share
}
