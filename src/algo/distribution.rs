//! Action distributions: log-probabilities and entropies of given actions, and the way back.
//!
//! Rows are states: logits `(N · K,)`, means `(N · D,)`, log-probabilities `(N,)`. The way back takes the loss's gradient
//! in log-probabilities and entropies (from [`super::policy`], say) and *overwrites* the gradient in the parameters.

use std::f64::consts::{LN_2, PI};

use super::same_length;

/// A row of log π = z - log Σ e^z into `out`; returns the entropy
fn log_softmax(logits: &[f32], out: &mut [f64]) -> f64 {
    let top = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = logits.iter().map(|z| (f64::from(*z) - f64::from(top)).exp()).sum();
    let log_sum = f64::from(top) + sum.ln();
    let mut entropy = 0.0;
    for (out, z) in out.iter_mut().zip(logits) {
        *out = f64::from(*z) - log_sum;
        entropy -= times_probability(*out, *out);
    }
    entropy
}

/// x e^{log p}, 0 for an action that a mask (logit -∞) forbids
fn times_probability(x: f64, log_p: f64) -> f64 {
    if log_p == f64::NEG_INFINITY { 0.0 } else { x * log_p.exp() }
}

/// Categorical: log π(a) = z_a - log Σ_k e^{z_k}, H = -Σ π log π, in nats
///
/// A logit of -∞ forbids an action.
///
/// # Shapes
/// logits (N · K,), actions (N,) below K → log_probs, entropies (N,)
pub fn categorical(logits: &[f32], actions: &[usize], log_probs: &mut [f32], entropies: &mut [f32]) {
    let classes = classes(logits.len(), actions.len());
    same_length("log_probs", log_probs.len(), actions.len());
    same_length("entropies", entropies.len(), actions.len());
    let mut row = vec![0.0; classes];
    for (n, logits) in logits.chunks(classes).enumerate() {
        entropies[n] = log_softmax(logits, &mut row) as f32;
        log_probs[n] = row[actions[n]] as f32;
    }
}

/// The way back of [`categorical`]: ∂log π(a)/∂z_k = 1[k = a] - π_k, ∂H/∂z_k = -π_k (log π_k + H)
///
/// # Shapes
/// logits, grad_logits (N · K,); actions, grad_log_probs, grad_entropies (N,)
pub fn categorical_backward(
    logits: &[f32],
    actions: &[usize],
    grad_log_probs: &[f32],
    grad_entropies: &[f32],
    grad_logits: &mut [f32],
) {
    let classes = classes(logits.len(), actions.len());
    same_length("grad_log_probs", grad_log_probs.len(), actions.len());
    same_length("grad_entropies", grad_entropies.len(), actions.len());
    same_length("grad_logits", grad_logits.len(), logits.len());
    let mut row = vec![0.0; classes];
    for (n, (logits, grad)) in logits.chunks(classes).zip(grad_logits.chunks_mut(classes)).enumerate() {
        let entropy = log_softmax(logits, &mut row);
        let (by_log_prob, by_entropy) = (f64::from(grad_log_probs[n]), f64::from(grad_entropies[n]));
        for (k, (grad, log_p)) in grad.iter_mut().zip(&row).enumerate() {
            let chosen = if k == actions[n] { by_log_prob } else { 0.0 };
            *grad = (chosen - times_probability(by_log_prob + by_entropy * (log_p + entropy), *log_p)) as f32;
        }
    }
}

#[track_caller]
fn classes(logits: usize, rows: usize) -> usize {
    assert!(rows > 0 && logits > 0 && logits.is_multiple_of(rows), "{logits} logits for {rows} actions");
    logits / rows
}

/// Diagonal Gaussian: log π(a) = Σ_d [-½((a - μ)/σ)² - log σ - ½ log 2π], H = Σ_d [log σ + ½ log 2πe]
///
/// # Shapes
/// mean, log_std, actions (N · D,) → log_probs, entropies (N,)
pub fn gaussian(mean: &[f32], log_std: &[f32], actions: &[f32], log_probs: &mut [f32], entropies: &mut [f32]) {
    let size = classes(mean.len(), log_probs.len());
    same_length("log_std", log_std.len(), mean.len());
    same_length("actions", actions.len(), mean.len());
    same_length("entropies", entropies.len(), log_probs.len());
    for n in 0..log_probs.len() {
        let (mut log_prob, mut entropy) = (0.0, 0.0);
        for at in n * size..(n + 1) * size {
            let log_std = f64::from(log_std[at]);
            let z = (f64::from(actions[at]) - f64::from(mean[at])) / log_std.exp();
            log_prob += normal(z, log_std);
            entropy += log_std + 0.5 * (1.0 + (2.0 * PI).ln());
        }
        log_probs[n] = log_prob as f32;
        entropies[n] = entropy as f32;
    }
}

/// Log-density of a normal at z standard deviations
fn normal(z: f64, log_std: f64) -> f64 {
    -0.5 * z * z - log_std - 0.5 * (2.0 * PI).ln()
}

/// The way back of [`gaussian`]: ∂log π/∂μ = (a - μ)/σ², ∂log π/∂log σ = ((a - μ)/σ)² - 1, ∂H/∂log σ = 1
///
/// A log σ shared by all states gets the sum of its rows.
///
/// # Shapes
/// mean, log_std, actions and their gradients (N · D,); grad_log_probs, grad_entropies (N,)
pub fn gaussian_backward(
    mean: &[f32],
    log_std: &[f32],
    actions: &[f32],
    grad_log_probs: &[f32],
    grad_entropies: &[f32],
    grad_mean: &mut [f32],
    grad_log_std: &mut [f32],
) {
    let size = classes(mean.len(), grad_log_probs.len());
    same_length("log_std", log_std.len(), mean.len());
    same_length("actions", actions.len(), mean.len());
    same_length("grad_entropies", grad_entropies.len(), grad_log_probs.len());
    same_length("grad_mean", grad_mean.len(), mean.len());
    same_length("grad_log_std", grad_log_std.len(), mean.len());
    for at in 0..mean.len() {
        let std = f64::from(log_std[at]).exp();
        let z = (f64::from(actions[at]) - f64::from(mean[at])) / std;
        let (by_log_prob, by_entropy) = (f64::from(grad_log_probs[at / size]), f64::from(grad_entropies[at / size]));
        grad_mean[at] = (by_log_prob * z / std) as f32;
        grad_log_std[at] = (by_log_prob * (z * z - 1.0) + by_entropy) as f32;
    }
}

/// log(1 - tanh²u) = 2 (ln 2 - u - softplus(-2u)), without the cancellation far out
fn log_tanh_slope(u: f64) -> f64 {
    let u = u.abs();
    2.0 * (LN_2 - u - (-2.0 * u).exp().ln_1p())
}

/// Squashed Gaussian, reparametrised: a = tanh(u), u = μ + σ noise; log π(a) = Σ_d [log N(u) - log(1 - a²)]
///
/// Haarnoja et al. 2018, appendix C, <https://arxiv.org/abs/1812.05905>. Actions lie in (-1, 1); scaling them to a box
/// shifts log π by a constant that no gradient sees.
///
/// # Shapes
/// mean, log_std, noise → actions (N · D,), log_probs (N,)
pub fn tanh_gaussian(mean: &[f32], log_std: &[f32], noise: &[f32], actions: &mut [f32], log_probs: &mut [f32]) {
    let size = classes(mean.len(), log_probs.len());
    same_length("log_std", log_std.len(), mean.len());
    same_length("noise", noise.len(), mean.len());
    same_length("actions", actions.len(), mean.len());
    for (n, log_prob) in log_probs.iter_mut().enumerate() {
        let mut sum = 0.0;
        for at in n * size..(n + 1) * size {
            let (log_std, noise) = (f64::from(log_std[at]), f64::from(noise[at]));
            let u = f64::from(mean[at]) + log_std.exp() * noise;
            actions[at] = u.tanh() as f32;
            sum += normal(noise, log_std) - log_tanh_slope(u);
        }
        *log_prob = sum as f32;
    }
}

/// The way back of [`tanh_gaussian`] with the noise held: through the action, and through its log-probability
///
/// ∂a/∂u = 1 - a², ∂log π/∂u = 2a, ∂log π/∂log σ = 2aσ·noise - 1.
///
/// # Shapes
/// mean, log_std, noise, grad_actions, grad_mean, grad_log_std (N · D,); grad_log_probs (N,)
pub fn tanh_gaussian_backward(
    mean: &[f32],
    log_std: &[f32],
    noise: &[f32],
    grad_actions: &[f32],
    grad_log_probs: &[f32],
    grad_mean: &mut [f32],
    grad_log_std: &mut [f32],
) {
    let size = classes(mean.len(), grad_log_probs.len());
    same_length("log_std", log_std.len(), mean.len());
    same_length("noise", noise.len(), mean.len());
    same_length("grad_actions", grad_actions.len(), mean.len());
    same_length("grad_mean", grad_mean.len(), mean.len());
    same_length("grad_log_std", grad_log_std.len(), mean.len());
    for at in 0..mean.len() {
        let reach = f64::from(log_std[at]).exp() * f64::from(noise[at]);
        let u = f64::from(mean[at]) + reach;
        let by_log_prob = f64::from(grad_log_probs[at / size]);
        let by_u = f64::from(grad_actions[at]) * log_tanh_slope(u).exp() + by_log_prob * 2.0 * u.tanh();
        grad_mean[at] = by_u as f32;
        grad_log_std[at] = (by_u * reach - by_log_prob) as f32;
    }
}

/// Mean over the states of KL(p ‖ q) = Σ_k p_k (log p_k - log q_k), exact
///
/// # Shapes
/// logits of p and q (N · K,); N > 0
pub fn categorical_kl(p: &[f32], q: &[f32], states: usize) -> f64 {
    let classes = classes(p.len(), states);
    same_length("q", q.len(), p.len());
    let (mut log_p, mut log_q) = (vec![0.0; classes], vec![0.0; classes]);
    let mut sum = 0.0;
    for (p, q) in p.chunks(classes).zip(q.chunks(classes)) {
        log_softmax(p, &mut log_p);
        log_softmax(q, &mut log_q);
        sum += log_p.iter().zip(&log_q).map(|(p, q)| times_probability(p - q, *p)).sum::<f64>();
    }
    sum / states as f64
}

/// The same for diagonal Gaussians: Σ_d [log σ_q/σ_p + (σ_p² + (μ_p - μ_q)²) / (2 σ_q²) - ½]
///
/// # Shapes
/// means of p and q (N · D,), log standard deviations (D,), one for all states; N > 0
pub fn gaussian_kl(p: (&[f32], &[f32]), q: (&[f32], &[f32]), states: usize) -> f64 {
    let size = classes(p.0.len(), states);
    same_length("means of q", q.0.len(), p.0.len());
    same_length("log_std of p", p.1.len(), size);
    same_length("log_std of q", q.1.len(), size);
    let mut sum = 0.0;
    for (at, (mean_p, mean_q)) in p.0.iter().zip(q.0).enumerate() {
        let (log_p, log_q) = (f64::from(p.1[at % size]), f64::from(q.1[at % size]));
        let apart = f64::from(*mean_p) - f64::from(*mean_q);
        sum += log_q - log_p + ((2.0 * log_p).exp() + apart * apart) / (2.0 * (2.0 * log_q).exp()) - 0.5;
    }
    sum / states as f64
}
