//! Returns and advantages along streams of steps.
//!
//! A stream is flat, `(N,)`, and holds one sequence after the other; a sequence ends where its trace is 0. `done` never
//! appears: [`step_streams`] and [`token_streams`] turn it into the two numbers that the recursions need,
//!
//! ```text
//! discount_t = γ (1 - terminated_t)           the worth of the next state's value
//! trace_t    = γ λ (1 - done_t)               what flows back from the next step, done = terminated or truncated
//! ```
//!
//! so that a truncated step still bootstraps from its next value but takes nothing from the step behind it.

use super::{counts, same_length, same_length_if_any};

/// Discounts and traces of environment steps
///
/// # Shapes
/// all (N,), environment after environment; with time-major storage use [`gae_strided`]. The last step of each
/// environment's share of the rollout must count as truncated unless it is terminated.
pub fn step_streams(
    terminated: &[bool],
    truncated: &[bool],
    gamma: f64,
    lambda: f64,
    discounts: &mut [f32],
    traces: &mut [f32],
) {
    let steps = terminated.len();
    same_length("truncated", truncated.len(), steps);
    same_length("discounts", discounts.len(), steps);
    same_length("traces", traces.len(), steps);
    for t in 0..steps {
        discounts[t] = if terminated[t] { 0.0 } else { gamma as f32 };
        traces[t] = if terminated[t] || truncated[t] { 0.0 } else { (gamma * lambda) as f32 };
    }
}

/// Next values, discounts and traces of ragged completions: the last token of each ends the episode
///
/// # Shapes
/// lengths (B,) with sum N; values, next values, discounts, traces (N,)
pub fn token_streams(
    lengths: &[usize],
    values: &[f32],
    gamma: f64,
    lambda: f64,
    next_values: &mut [f32],
    discounts: &mut [f32],
    traces: &mut [f32],
) {
    let tokens = lengths.iter().sum();
    same_length("values", values.len(), tokens);
    same_length("next_values", next_values.len(), tokens);
    same_length("discounts", discounts.len(), tokens);
    same_length("traces", traces.len(), tokens);
    let mut end = 0;
    for &length in lengths {
        let start = end;
        end += length;
        for t in start..end {
            let last = t + 1 == end;
            next_values[t] = if last { 0.0 } else { values[t + 1] };
            discounts[t] = if last { 0.0 } else { gamma as f32 };
            traces[t] = if last { 0.0 } else { (gamma * lambda) as f32 };
        }
    }
}

/// Generalised advantage estimation
///
/// ```text
/// δ_t = r_t + discount_t V(s_{t+1}) - V(s_t)
/// A_t = δ_t + trace_t A_{t+1}
/// ```
///
/// Schulman et al. 2016, eq. 16, <https://arxiv.org/abs/1506.02438>. λ = 0 gives A = δ, λ = 1 gives A = G - V. The
/// regression target of the value function is A + V ([`add_values`]).
///
/// # Shapes
/// all (N,)
pub fn gae(
    rewards: &[f32],
    values: &[f32],
    next_values: &[f32],
    discounts: &[f32],
    traces: &[f32],
    advantages: &mut [f32],
) {
    gae_strided(rewards, values, next_values, discounts, traces, 1, advantages);
}

/// [`gae`] on a time-major stream: the step behind `t` lies at `t + stride`
///
/// # Shapes
/// all (T · stride,); `stride` is the number of environments
pub fn gae_strided(
    rewards: &[f32],
    values: &[f32],
    next_values: &[f32],
    discounts: &[f32],
    traces: &[f32],
    stride: usize,
    advantages: &mut [f32],
) {
    let steps = rewards.len();
    same_length("values", values.len(), steps);
    same_length("next_values", next_values.len(), steps);
    same_length("discounts", discounts.len(), steps);
    same_length("traces", traces.len(), steps);
    same_length("advantages", advantages.len(), steps);
    assert!(stride > 0 && steps.is_multiple_of(stride), "{steps} steps are no multiple of the stride {stride}");
    for stream in 0..stride {
        let mut behind = 0.0_f64;
        for t in (stream..steps).step_by(stride).rev() {
            let delta = f64::from(rewards[t]) + f64::from(discounts[t]) * f64::from(next_values[t]);
            let delta = delta - f64::from(values[t]);
            behind = delta + carried(traces[t], behind);
            advantages[t] = behind as f32;
        }
    }
}

/// What flows back over a step; nothing at all, not even NaN, crosses the end of a sequence
fn carried(trace: f32, behind: f64) -> f64 {
    if trace == 0.0 { 0.0 } else { f64::from(trace) * behind }
}

/// Value targets: returns_t = A_t + V(s_t)
///
/// # Shapes
/// all (N,)
pub fn add_values(advantages: &[f32], values: &[f32], returns: &mut [f32]) {
    same_length("values", values.len(), advantages.len());
    same_length("returns", returns.len(), advantages.len());
    for (target, (a, v)) in returns.iter_mut().zip(advantages.iter().zip(values)) {
        *target = a + v;
    }
}

/// Discounted returns: G_t = r_t + trace_t G_{t+1}, with trace = γ (1 - done), that is λ = 1
///
/// # Shapes
/// all (N,)
pub fn discounted_returns(rewards: &[f32], traces: &[f32], returns: &mut [f32]) {
    same_length("traces", traces.len(), rewards.len());
    same_length("returns", returns.len(), rewards.len());
    let mut behind = 0.0;
    for t in (0..rewards.len()).rev() {
        behind = f64::from(rewards[t]) + carried(traces[t], behind);
        returns[t] = behind as f32;
    }
}

/// λ-returns: G_t = r_t + discount_t V(s_{t+1}) + trace_t (G_{t+1} - V(s_{t+1}))
///
/// Sutton & Barto 2018, eq. 12.18: with trace = γλ this is r + γ((1 - λ) V + λ G).
///
/// # Shapes
/// all (N,)
pub fn lambda_returns(rewards: &[f32], next_values: &[f32], discounts: &[f32], traces: &[f32], returns: &mut [f32]) {
    let steps = rewards.len();
    same_length("next_values", next_values.len(), steps);
    same_length("discounts", discounts.len(), steps);
    same_length("traces", traces.len(), steps);
    same_length("returns", returns.len(), steps);
    let mut behind = 0.0;
    for t in (0..steps).rev() {
        let value = f64::from(next_values[t]);
        behind = f64::from(rewards[t]) + f64::from(discounts[t]) * value + carried(traces[t], behind - value);
        returns[t] = behind as f32;
    }
}

/// n-step returns: n rewards, then the value of the state reached; fewer where the sequence ends before
///
/// ```text
/// G_t = Σ_{k<m} (Π_{j<k} discount_{t+j}) r_{t+k} + (Π_{j<m} discount_{t+j}) V(s_{t+m})
/// ```
///
/// where m ≤ n is the first with trace_{t+m-1} = 0. Sutton & Barto 2018, eq. 7.1.
///
/// # Shapes
/// all (N,); n ≥ 1
pub fn n_step_returns(
    rewards: &[f32],
    next_values: &[f32],
    discounts: &[f32],
    traces: &[f32],
    n: usize,
    returns: &mut [f32],
) {
    let steps = rewards.len();
    same_length("next_values", next_values.len(), steps);
    same_length("discounts", discounts.len(), steps);
    same_length("traces", traces.len(), steps);
    same_length("returns", returns.len(), steps);
    assert!(n > 0, "an n-step return needs n of at least 1");
    for (t, target) in returns.iter_mut().enumerate() {
        let (mut sum, mut weight) = (0.0, 1.0);
        for at in t..steps.min(t + n) {
            sum += weight * f64::from(rewards[at]);
            weight *= f64::from(discounts[at]);
            if traces[at] == 0.0 || at + 1 == steps.min(t + n) {
                sum += weight * f64::from(next_values[at]);
                break;
            }
        }
        *target = sum as f32;
    }
}

/// Number, mean and unbiased variance (0/0 where fewer than two count) of the elements that count
fn moments(x: &[f32], mask: Option<&[bool]>) -> (f64, f64, f64) {
    let counted = || x.iter().enumerate().filter(|(at, _)| counts(mask, *at)).map(|(_, x)| f64::from(*x));
    let count = counted().count() as f64;
    let mean = counted().sum::<f64>() / count;
    let variance = counted().map(|x| (x - mean).powi(2)).sum::<f64>() / (count - 1.0);
    (count, mean, variance)
}

/// Whitens in place: (x - mean) / √(var + 1e-8), unbiased variance, over the elements that count; the others become 0
///
/// As in the PPO of lm-human-preferences and TRL (`masked_whiten`). With `shift_mean` false the mean is put back, for
/// rewards, whose level means something. Fewer than two elements are left as they are: they have no variance.
///
/// # Shapes
/// x, mask (N,)
pub fn whiten(x: &mut [f32], mask: Option<&[bool]>, shift_mean: bool) {
    same_length_if_any("mask", mask, x.len());
    let (count, mean, variance) = moments(x, mask);
    let scale = if count < 2.0 { 1.0 } else { 1.0 / (variance + 1e-8).sqrt() };
    let (from, to) = if count < 2.0 { (0.0, 0.0) } else { (mean, if shift_mean { 0.0 } else { mean }) };
    for (at, x) in x.iter_mut().enumerate() {
        *x = if counts(mask, at) { ((f64::from(*x) - from) * scale + to) as f32 } else { 0.0 };
    }
}

/// Normalises a minibatch's advantages: (x - mean) / (std + 1e-8), unbiased standard deviation
///
/// As in Stable-Baselines3 and CleanRL. A single element is left as it is.
///
/// # Shapes
/// advantages (N,) → normalised (N,), which may be a gathered copy
pub fn normalize(advantages: &mut [f32]) {
    if advantages.len() < 2 {
        return;
    }
    let (_, mean, variance) = moments(advantages, None);
    let scale = 1.0 / (variance.sqrt() + 1e-8);
    for x in advantages {
        *x = ((f64::from(*x) - mean) * scale) as f32;
    }
}
