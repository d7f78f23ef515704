//! What online trainers say of a rollout: log-probabilities, metrics under TRL's names, the table of completions.

use std::path::Path;

use super::collate::Batch;
use super::collect::Collector;
use crate::Result;
use crate::algo::group::nan_mean_std;
use crate::model::gpt2::Gpt2;
use crate::rollout::Rollout;
use crate::run::{Column, Metrics, write_table};

/// log π of every completion token under `model`, without gradients, `chunk` completions a pass
pub fn log_probs(model: &Gpt2, rollout: &Rollout, chunk: usize, temperature: f64) -> Result<Vec<Vec<f32>>> {
    let mut all = Vec::with_capacity(rollout.len());
    for start in (0..rollout.len()).step_by(chunk.max(1)) {
        let completions = start..(start + chunk).min(rollout.len());
        let batch = Batch::of_completions(completions.map(|i| rollout.sequence(i)))?;
        let hidden = model.hidden(&batch.ids, &batch.layout, None)?;
        let scored = model.token_log_probs(&hidden, &batch.rows, &batch.targets, temperature)?;
        let values = scored.log_probs.to_vec1::<f32>()?;
        let mut rest = &values[..];
        for &count in &batch.counts {
            let (own, others) = rest.split_at(count);
            all.push(own.to_vec());
            rest = others;
        }
    }
    Ok(all)
}

/// TRL's metrics of rewards; what could not be judged is left out
pub fn reward_metrics(rollout: &Rollout, names: &[String], metrics: &mut Metrics) {
    let spread = |values: &[Option<f64>]| nan_mean_std(values.iter().map(|value| value.unwrap_or(f64::NAN)));
    let mut set = |name: String, value: f64| {
        if !value.is_nan() {
            metrics.set(name, value);
        }
    };
    for (name, values) in names.iter().zip(&rollout.rewards_by_function) {
        let (mean, std) = spread(values);
        set(format!("rewards/{name}/mean"), mean);
        set(format!("rewards/{name}/std"), std);
    }
    let (mean, std) = spread(&rollout.rewards);
    set("reward".to_owned(), mean);
    set("reward_std".to_owned(), std);
}

/// What all online trainers are compared by: `sequence_kl`, Σ log π/π_ref of a completion, and `objective`, the reward less
/// `tau` times that, means over the completions that could be judged. Nothing where a log-probability is not known
pub fn objective_metrics(rollout: &Rollout, tau: f64, metrics: &mut Metrics) {
    let policy = if rollout.old_log_probs.is_empty() { &rollout.sampled_log_probs } else { &rollout.old_log_probs };
    let (mut objective, mut total, mut judged) = (0.0, 0.0, 0.0);
    for ((policy, reference), reward) in policy.iter().zip(&rollout.ref_log_probs).zip(&rollout.rewards) {
        let Some(reward) = reward else { continue };
        let kl: f64 = policy.iter().zip(reference).map(|(p, q)| f64::from(*p) - f64::from(*q)).sum();
        objective += reward - tau * kl;
        total += kl;
        judged += 1.0;
    }
    if judged > 0.0 {
        metrics.set("sequence_kl", total / judged);
        metrics.set("objective", objective / judged);
    }
}

/// How far the sampler's log-probabilities lie from the trainer's
pub fn sampling_metrics(sampled: &[f32], trained: &[f32], metrics: &mut Metrics) {
    let difference = |(a, b): (&f32, &f32)| f64::from((a - b).abs());
    let differences: Vec<f64> = sampled.iter().zip(trained).map(difference).collect();
    let mean = differences.iter().sum::<f64>() / differences.len().max(1) as f64;
    metrics.set("sampling/sampling_logp_difference/mean", mean);
    metrics.set("sampling/sampling_logp_difference/max", differences.into_iter().fold(0.0, f64::max));
}

/// Writes `completions/completions_STEP.parquet` with TRL's columns
pub fn completions_table(
    collector: &Collector,
    rollout: &Rollout,
    names: &[String],
    step: u64,
    folder: &Path,
) -> Result<()> {
    let (prompts, completions) = collector.texts(rollout)?.into_iter().unzip();
    // GRL has no advantage of a completion: its values change with each update
    let mean = |i: usize| {
        let advantages = rollout.advantages.get(i).filter(|of_tokens| !of_tokens.is_empty())?;
        Some(advantages.iter().map(|a| f64::from(*a)).sum::<f64>() / advantages.len() as f64)
    };
    let mut columns = vec![
        ("step", Column::Integers(vec![step as i64; rollout.len()])),
        ("prompt", Column::Texts(prompts)),
        ("completion", Column::Texts(completions)),
    ];
    for (name, values) in names.iter().zip(&rollout.rewards_by_function) {
        columns.push((name, Column::Numbers(values.clone())));
    }
    columns.push(("advantage", Column::Numbers((0..rollout.len()).map(mean).collect())));
    write_table(&folder.join("completions").join(format!("completions_{step:05}.parquet")), &columns)
}

/// TRL's metrics of generation: lengths in tokens, and the share that was cut
pub fn length_metrics(rollout: &Rollout, metrics: &mut Metrics) {
    let lengths: Vec<f64> = rollout.completions.iter().map(|ids| ids.len() as f64).collect();
    let ended = lengths.iter().zip(&rollout.truncated).filter(|(_, cut)| !**cut).map(|(length, _)| *length);
    let ended: Vec<f64> = ended.collect();
    for (kind, lengths) in [("length", &lengths), ("terminated_length", &ended)] {
        let mean = lengths.iter().sum::<f64>() / lengths.len().max(1) as f64;
        let of = |pick: fn(f64, f64) -> f64| lengths.iter().copied().reduce(pick).unwrap_or(0.0);
        metrics.set(format!("completions/mean_{kind}"), mean);
        metrics.set(format!("completions/min_{kind}"), of(f64::min));
        metrics.set(format!("completions/max_{kind}"), of(f64::max));
    }
    let cut = rollout.truncated.iter().filter(|cut| **cut).count();
    metrics.set("completions/clipped_ratio", cut as f64 / lengths.len().max(1) as f64);
}

/// `objective/kl`: KL to the reference in nats a completion, by the mean of Σ log π − log π_ref over what π wrote
///
/// π is asked by the trainer's own pass where there was one, else by the sampler's; neither, no metric.
pub fn kl_metric(rollout: &Rollout, metrics: &mut Metrics) {
    let own = [&rollout.old_log_probs, &rollout.sampled_log_probs].into_iter().find(|all| all.len() == rollout.len());
    let (Some(policy), false) = (own, rollout.is_empty() || rollout.ref_log_probs.is_empty()) else { return };
    let total = |all: &[Vec<f32>]| all.iter().flatten().map(|x| f64::from(*x)).sum::<f64>();
    metrics.set("objective/kl", (total(policy) - total(&rollout.ref_log_probs)) / rollout.len() as f64);
}
