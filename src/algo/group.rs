//! Advantages from the rewards of several completions of one prompt.
//!
//! Completions of one prompt lie together: rewards `(P · G,)` with G the group size. NaN marks a completion that no
//! reward could score: it leaves the group's statistics and gets advantage 0.

use serde::{Deserialize, Serialize};

/// Added to every standard deviation that divides
const EPSILON: f64 = 1e-4;

/// A standard deviation at or below this is no spread (`torch.isclose` to 0)
const NO_SPREAD: f64 = 1e-8;

/// What the centred rewards are divided by
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scale {
    /// The standard deviation inside the group
    #[default]
    Group,
    /// The standard deviation over all rewards
    Batch,
    /// Nothing (Dr. GRPO, Liu et al. 2025, <https://arxiv.org/abs/2503.20783>)
    None,
}

/// Advantages and what is logged with them
#[derive(Debug, Clone, PartialEq)]
pub struct GroupAdvantages {
    /// One per completion, (P · G,)
    pub advantages: Vec<f32>,
    /// The standard deviation that each completion was judged by, (P · G,); NaN with fewer than two scored
    pub std: Vec<f32>,
    /// Share of completions without spread, TRL's `frac_reward_zero_std`
    pub zero_spread: f64,
}

/// Mean of what is not NaN
fn nan_mean(x: impl Iterator<Item = f64> + Clone) -> f64 {
    let scored = x.filter(|x| !x.is_nan());
    scored.clone().sum::<f64>() / scored.count() as f64
}

/// Mean and unbiased standard deviation of what is not NaN; the latter is NaN with fewer than two
///
/// Equal numbers have exactly 0: their sum in f64 is exact for `f32` inputs, and so is its quotient.
pub fn nan_mean_std(x: impl Iterator<Item = f64> + Clone) -> (f64, f64) {
    let mean = nan_mean(x.clone());
    let scored = x.filter(|x| !x.is_nan());
    let count = scored.clone().count();
    if count < 2 {
        return (mean, f64::NAN);
    }
    let squares = scored.map(|x| (x - mean).powi(2)).sum::<f64>();
    (mean, (squares / (count - 1) as f64).sqrt())
}

fn wide(x: &[f32]) -> impl Iterator<Item = f64> + Clone + '_ {
    x.iter().map(|x| f64::from(*x))
}

#[track_caller]
fn whole_groups(rewards: &[f32], group_size: usize) {
    assert!(
        group_size > 0 && rewards.len().is_multiple_of(group_size),
        "{} rewards, groups of {group_size}",
        rewards.len()
    );
}

fn nan_to_zero(x: f64) -> f32 {
    if x.is_nan() { 0.0 } else { x as f32 }
}

fn finish(advantages: impl Iterator<Item = f64>, std: Vec<f64>) -> GroupAdvantages {
    let zero = std.iter().filter(|std| std.abs() <= NO_SPREAD).count();
    GroupAdvantages {
        advantages: advantages.map(nan_to_zero).collect(),
        zero_spread: zero as f64 / std.len() as f64,
        std: std.into_iter().map(|std| std as f32).collect(),
    }
}

/// Several rewards per completion to one: the weighted sum of those that scored, NaN where none did
///
/// # Shapes
/// rewards (N · K,), completion after completion; weights (K,) → (N,)
pub fn weighted_sum(rewards: &[f32], weights: &[f64]) -> Vec<f32> {
    let functions = weights.len();
    whole_groups(rewards, functions);
    rewards.chunks(functions).map(|row| nan_sum(wide(row), weights, row) as f32).collect()
}

/// Weighted sum over what is not NaN; NaN where the whole `row` of raw rewards is
fn nan_sum(values: impl Iterator<Item = f64>, weights: &[f64], row: &[f32]) -> f64 {
    if row.iter().all(|x| x.is_nan()) {
        return f64::NAN;
    }
    values.zip(weights).map(|(x, weight)| x * weight).filter(|x| !x.is_nan()).sum()
}

/// Group-relative advantages: A_i = (r_i - mean_group) / (std + 1e-4)
///
/// GRPO, Shao et al. 2024, §4.1.2, <https://arxiv.org/abs/2402.03300>; unbiased standard deviation as in TRL. A group
/// of two with spread d has ±(d/2) / (d/√2 + 1e-4).
///
/// # Shapes
/// rewards (P · G,) → advantages (P · G,)
pub fn group_relative(rewards: &[f32], group_size: usize, scale: Scale) -> GroupAdvantages {
    whole_groups(rewards, group_size);
    let batch = if rewards.len() > 1 { nan_mean_std(wide(rewards)).1 } else { 0.0 };
    let mut std = Vec::with_capacity(rewards.len());
    let mut advantages = Vec::with_capacity(rewards.len());
    for group in rewards.chunks(group_size) {
        let (mean, spread) = nan_mean_std(wide(group));
        let spread = if group_size == 1 { 0.0 } else { spread };
        let (spread, divisor) = match scale {
            Scale::Group => (spread, spread + EPSILON),
            Scale::Batch => (batch, batch + EPSILON),
            Scale::None => (spread, 1.0),
        };
        advantages.extend(wide(group).map(|reward| (reward - mean) / divisor));
        std.extend(std::iter::repeat_n(spread, group_size));
    }
    finish(advantages.into_iter(), std)
}

/// Each reward function scaled inside its group, then summed, then normalised over the batch
///
/// TRL's `multi_objective_aggregation: normalize_then_sum`; GDPO, Liu et al. 2026. No function's scale drowns another's.
///
/// # Shapes
/// rewards (P · G · K,), completion after completion; weights (K,) → advantages (P · G,)
pub fn normalize_then_sum(rewards: &[f32], weights: &[f64], group_size: usize) -> GroupAdvantages {
    let functions = weights.len();
    whole_groups(rewards, group_size * functions);
    let mut sums = Vec::with_capacity(rewards.len() / functions);
    for group in rewards.chunks(group_size * functions) {
        let statistics: Vec<(f64, f64)> = (0..functions)
            .map(|k| {
                let (mean, std) = nan_mean_std(wide(group).skip(k).step_by(functions));
                (mean, if group_size == 1 { 0.0 } else { std })
            })
            .collect();
        sums.extend(group.chunks(functions).map(|row| {
            let scaled = wide(row).zip(&statistics).map(|(reward, (mean, std))| (reward - mean) / (std + EPSILON));
            nan_sum(scaled, weights, row)
        }));
    }
    let (mean, std) = nan_mean_std(sums.iter().copied());
    let std = if sums.len() > 1 { std } else { 0.0 };
    let spread = vec![std; sums.len()];
    finish(sums.into_iter().map(|sum| (sum - mean) / (std + EPSILON)), spread)
}

/// Leave-one-out advantages: A_i = r_i - mean of the others in the group
///
/// RLOO, Ahmadian et al. 2024, eq. 6, <https://arxiv.org/abs/2402.14740>. With `normalize` they are centred and divided
/// by their standard deviation + 1e-4 over the batch (TRL's `normalize_advantages`). A group of two has ±(r_1 - r_2).
///
/// # Shapes
/// rewards (P · G,) → advantages (P · G,)
pub fn leave_one_out(rewards: &[f32], group_size: usize, normalize: bool) -> GroupAdvantages {
    whole_groups(rewards, group_size);
    let mut std = Vec::with_capacity(rewards.len());
    let mut advantages = Vec::with_capacity(rewards.len());
    for group in rewards.chunks(group_size) {
        if group_size == 1 {
            std.push(0.0);
            advantages.push(0.0);
            continue;
        }
        let scored = wide(group).filter(|x| !x.is_nan());
        let (sum, count) = (scored.clone().sum::<f64>(), scored.count() as f64);
        advantages.extend(wide(group).map(|reward| reward - (sum - reward) / (count - 1.0)));
        std.extend(std::iter::repeat_n(nan_mean_std(wide(group)).1, group_size));
    }
    if normalize {
        let (mean, spread) = nan_mean_std(advantages.iter().copied());
        for advantage in &mut advantages {
            *advantage = (*advantage - mean) / (spread + EPSILON);
        }
    }
    finish(advantages.into_iter(), std)
}
