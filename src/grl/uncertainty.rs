//! What a field does with not knowing. Everything here is off unless a run asks for it.
//!
//! The variance of V(x) says how much evidence lies near a prompt. It says nothing about single responses, nor about a
//! reward that is being exploited; for that, a process over responses is needed.

use rand::Rng;

use crate::error::{Error, Result};
use crate::grl::value::Prediction;

/// ∓τ log E e^{∓r/τ} of a normal reward: μ ∓ σ²/2τ, the reward that a careful (−) learner at temperature τ should use
pub fn pessimistic_reward(mean: f64, variance: f64, tau: f64) -> f64 {
    mean - variance / (2.0 * tau)
}

/// The same for a curious learner: μ + σ²/2τ
pub fn optimistic_reward(mean: f64, variance: f64, tau: f64) -> f64 {
    mean + variance / (2.0 * tau)
}

/// g = 1 − σ²/k(x, x): 1 where the field is sure, 0 where it knows nothing. 1 for estimators without a variance
pub fn confidence(prediction: &Prediction) -> f64 {
    match prediction.variance {
        Some(variance) if prediction.prior_variance > 0.0 => {
            (1.0 - variance / prediction.prior_variance).clamp(0.0, 1.0)
        }
        Some(_) => 0.0,
        None => 1.0,
    }
}

/// log π_ref + g (log π − log π_ref), in place of the policy's logits: the reference, to the last bit, at g = 0, and the
/// policy at g = 1
pub fn abstain(policy: &mut [f32], reference: &[f32], g: f64) {
    if g >= 1.0 {
        return;
    }
    for (policy, reference) in policy.iter_mut().zip(reference) {
        *policy = if g <= 0.0 {
            *reference
        } else {
            (f64::from(*reference) + g * (f64::from(*policy) - f64::from(*reference))) as f32
        };
    }
}

/// Weights σ(x)/√cost by which prompts are drawn where learning pays most; equal ones where nothing is uncertain
///
/// # Shapes
/// deviations and costs (N,) → weights (N,), which add up to 1
pub fn acquisition_weights(deviations: &[f64], costs: &[f64]) -> Result<Vec<f64>> {
    let is_cost = |cost: &f64| *cost > 0.0 && cost.is_finite();
    if deviations.len() != costs.len()
        || !deviations.iter().all(|x| *x >= 0.0 && x.is_finite())
        || !costs.iter().all(is_cost)
    {
        return Err(Error::run("prompt acquisition needs a deviation from 0 and a positive cost for every prompt"));
    }
    let weights: Vec<f64> = deviations.iter().zip(costs).map(|(deviation, cost)| deviation / cost.sqrt()).collect();
    let total: f64 = weights.iter().sum();
    let even = 1.0 / weights.len() as f64;
    Ok(weights.into_iter().map(|weight| if total > 0.0 { weight / total } else { even }).collect())
}

/// Draws `count` different positions by weight (Efraimidis and Spirakis: the largest u^{1/w})
pub fn draw_by_weight(weights: &[f64], count: usize, rng: &mut impl Rng) -> Vec<usize> {
    let mut keyed: Vec<(f64, usize)> =
        weights.iter().enumerate().map(|(i, weight)| (uniform(rng).ln() / weight, i)).collect();
    keyed.sort_by(|a, b| b.0.total_cmp(&a.0));
    keyed.truncate(count);
    keyed.into_iter().map(|(_, i)| i).collect()
}

/// One draw from the normal distribution with this mean and variance: Thompson sampling of a prompt's value
pub fn thompson(prediction: &Prediction, rng: &mut impl Rng) -> f64 {
    prediction.mean + prediction.variance.unwrap_or(0.0).sqrt() * standard_normal(rng)
}

/// One draw from N(0, 1) (Box and Muller)
pub fn standard_normal(rng: &mut impl Rng) -> f64 {
    let (u, v) = (uniform(rng), uniform(rng));
    (-2.0 * u.ln()).sqrt() * (2.0 * std::f64::consts::PI * v).cos()
}

/// In (0, 1]
fn uniform(rng: &mut impl Rng) -> f64 {
    ((rng.next_u64() >> 11) as f64 + 1.0) / (1_u64 << 53) as f64
}

/// How many responses each prompt gets: `fewest` each, and what is left of `budget` where the variance of the mean,
/// σ²/K, falls most by one more, up to `most`
pub fn adaptive_counts(variances: &[f64], budget: usize, (fewest, most): (usize, usize)) -> Result<Vec<usize>> {
    if fewest == 0 || fewest > most || budget < fewest * variances.len() {
        let n = variances.len();
        let message = format!("{budget} responses for {n} prompts with {fewest} to {most} each");
        return Err(Error::usage(message));
    }
    let mut counts = vec![fewest; variances.len()];
    let mut left = budget - fewest * variances.len();
    while left > 0 {
        let gain = |i: usize| variances[i] / (counts[i] * (counts[i] + 1)) as f64;
        let open = (0..counts.len()).filter(|&i| counts[i] < most);
        let Some(best) = open.max_by(|&i, &j| gain(i).total_cmp(&gain(j)).then(j.cmp(&i))) else { break };
        counts[best] += 1;
        left -= 1;
    }
    Ok(counts)
}

/// Whether a reward need not be asked for: the process over responses is sure enough of it
pub fn can_impute(prediction: &Prediction, largest_deviation: f64) -> bool {
    prediction.variance.is_some_and(|variance| variance.sqrt() < largest_deviation)
}
