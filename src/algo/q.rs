//! Action values: targets and losses of Q-learning and its kin.
//!
//! Action values of discrete actions are `(N · A,)`, state after state.

use super::value::ValueLoss;
use super::{same_length, same_length_if_any};

#[track_caller]
fn actions_per_state(q: usize, states: usize) -> usize {
    assert!(states > 0 && q > 0 && q.is_multiple_of(states), "{q} action values for {states} states");
    q / states
}

/// The greedy action of a row; the first of equals
pub fn greedy(row: &[f32]) -> usize {
    row.iter().enumerate().fold(0, |best, (at, q)| if *q > row[best] { at } else { best })
}

/// max_a Q(s, a): the bootstrap of Q-learning and DQN
///
/// Watkins 1989; Mnih et al. 2015.
///
/// # Shapes
/// q (N · A,) → values (N,)
pub fn max_values(q: &[f32], values: &mut [f32]) {
    let actions = actions_per_state(q.len(), values.len());
    for (value, row) in values.iter_mut().zip(q.chunks(actions)) {
        *value = row[greedy(row)];
    }
}

/// Q_target(s, argmax_a Q_online(s, a)): the bootstrap of double DQN
///
/// van Hasselt et al. 2016, <https://arxiv.org/abs/1509.06461>.
///
/// # Shapes
/// online, target (N · A,) → values (N,)
pub fn double_values(online: &[f32], target: &[f32], values: &mut [f32]) {
    let actions = actions_per_state(online.len(), values.len());
    same_length("target", target.len(), online.len());
    let rows = online.chunks(actions).zip(target.chunks(actions));
    for (value, (online, target)) in values.iter_mut().zip(rows) {
        *value = target[greedy(online)];
    }
}

/// Σ_a π(a|s) Q(s, a): the bootstrap of expected SARSA
///
/// van Seijen et al. 2009.
///
/// # Shapes
/// q, probabilities (N · A,) → values (N,)
pub fn expected_values(q: &[f32], probabilities: &[f32], values: &mut [f32]) {
    let actions = actions_per_state(q.len(), values.len());
    same_length("probabilities", probabilities.len(), q.len());
    let rows = q.chunks(actions).zip(probabilities.chunks(actions));
    for (value, (q, p)) in values.iter_mut().zip(rows) {
        *value = q.iter().zip(p).map(|(q, p)| f64::from(*q) * f64::from(*p)).sum::<f64>() as f32;
    }
}

/// y = R + discount · V(s'), where R may sum n rewards and `discount` then is γⁿ, 0 where the episode ended
///
/// # Shapes
/// all (N,)
pub fn targets(rewards: &[f32], discounts: &[f32], next_values: &[f32], targets: &mut [f32]) {
    same_length("discounts", discounts.len(), rewards.len());
    same_length("next_values", next_values.len(), rewards.len());
    same_length("targets", targets.len(), rewards.len());
    for (t, target) in targets.iter_mut().enumerate() {
        *target = (f64::from(rewards[t]) + f64::from(discounts[t]) * f64::from(next_values[t])) as f32;
    }
}

/// Regression of the taken actions' values to their targets: Σ weight · loss(Q(s, a) - y) / normalizer
///
/// `weights` are the importance weights of prioritised replay (Schaul et al. 2016), whose next priorities are the
/// absolute `errors`, y - Q. `loss` must not be a clipped one.
///
/// # Shapes
/// q, grad (N · A,), grad overwritten; actions, targets, weights, errors (N,)
pub fn q_loss(
    loss: ValueLoss,
    q: &[f32],
    actions: &[usize],
    targets: &[f32],
    weights: Option<&[f32]>,
    normalizer: f64,
    errors: &mut [f32],
    grad: &mut [f32],
) -> f64 {
    let width = actions_per_state(q.len(), actions.len());
    same_length("targets", targets.len(), actions.len());
    same_length_if_any("weights", weights, actions.len());
    same_length("errors", errors.len(), actions.len());
    same_length("grad", grad.len(), q.len());
    grad.fill(0.0);
    let share = 1.0 / normalizer.max(1.0);
    let mut sum = 0.0;
    for (n, &action) in actions.iter().enumerate() {
        let at = n * width + action;
        let error = f64::from(q[at]) - f64::from(targets[n]);
        let weight = weights.map_or(1.0, |weights| f64::from(weights[n]));
        let (value, slope) = loss.regression(error);
        errors[n] = -error as f32;
        grad[at] = (weight * slope * share) as f32;
        sum += weight * value;
    }
    sum * share
}
