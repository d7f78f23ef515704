//! What data of another policy are worth: importance weights, and how far they can be trusted.

/// Σ ρ f / N with ρ = π/μ: unbiased for E_π f
///
/// # Shapes
/// all (N,), a number for each response
pub fn importance_mean(log_probs: &[f64], log_probs_behaviour: &[f64], values: &[f64]) -> f64 {
    let rho = log_probs.iter().zip(log_probs_behaviour).map(|(policy, behaviour)| (policy - behaviour).exp());
    rho.zip(values).map(|(rho, value)| rho * value).sum::<f64>() / values.len() as f64
}

/// c_t = min(1, π/μ): Retrace's trace coefficients, for multi-step SARSA targets on replayed data
///
/// Munos et al. 2016, <https://arxiv.org/abs/1606.02647>, with λ = 1.
pub fn retrace_coefficients(log_probs: &[f64], log_probs_behaviour: &[f64]) -> Vec<f64> {
    log_probs.iter().zip(log_probs_behaviour).map(|(policy, behaviour)| (policy - behaviour).min(0.0).exp()).collect()
}

/// V* = τ log mean e^{(R − τ log(μ/π_ref))/τ} over responses sampled from μ
pub fn soft_optimal_value(rewards: &[f64], behaviour_log_ratios: &[f64], tau: f64) -> f64 {
    let scores = || rewards.iter().zip(behaviour_log_ratios).map(|(reward, ratio)| reward / tau - ratio);
    let largest = scores().fold(f64::NEG_INFINITY, f64::max);
    let sum: f64 = scores().map(|score| (score - largest).exp()).sum();
    tau * (largest + (sum / rewards.len() as f64).ln())
}

/// (Σρ)²/Σρ² over tokens, ρ = π/μ (Kish's effective sample size): how many fresh tokens the replayed ones are worth
///
/// # Shapes
/// both (T,), the tokens of any number of responses; 0 for none
pub fn effective_sample_size(log_probs: &[f64], log_probs_behaviour: &[f64]) -> f64 {
    let apart = || log_probs.iter().zip(log_probs_behaviour).map(|(policy, behaviour)| policy - behaviour);
    // The scale cancels
    let largest = apart().fold(f64::NEG_INFINITY, f64::max);
    let (sum, squares) = apart().map(|x| (x - largest).exp()).fold((0.0, 0.0), |(s, q), rho| (s + rho, q + rho * rho));
    if squares > 0.0 { sum * sum / squares } else { 0.0 }
}

/// KL(π‖μ) of a response, from its tokens sampled by μ: Σ_t ρ log ρ − ρ + 1, each term ≥ 0 with mean the token's KL
///
/// Prefixes are μ's, as they must be where only μ has sampled.
///
/// # Shapes
/// both (T,), the tokens of one response
pub fn sequence_kl(log_probs: &[f64], log_probs_behaviour: &[f64]) -> f64 {
    let apart = log_probs.iter().zip(log_probs_behaviour).map(|(policy, behaviour)| policy - behaviour);
    apart.map(|x| x.exp() * x - x.exp_m1()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_policy_is_worth_itself() {
        let same = [-0.3, -2.0, -1.0];
        assert_eq!(effective_sample_size(&same, &same), 3.0);
        assert_eq!(sequence_kl(&same, &same), 0.0);
        assert_eq!(retrace_coefficients(&same, &[-1.0, -1.0, -1.0]), [1.0, (-1.0_f64).exp(), 1.0]);
        assert_eq!(effective_sample_size(&[], &[]), 0.0);
        // One response that only π would give outweighs the others, at any scale
        assert!((effective_sample_size(&[800.0, 0.0, 0.0], &[0.0; 3]) - 1.0).abs() < 1e-12);
    }
}
