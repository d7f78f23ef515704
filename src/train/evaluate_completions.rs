//! What a model writes for prompts, judged by rewards: mean reward, win rate against another model, KL to it.

use super::collect::Collector;
use super::evaluate::{Evaluation, log_probs};
use super::evaluate_reward::wilson;
use crate::model::gpt2::Gpt2;
use crate::rollout::{Policy, Rollout};
use crate::run::{Metrics, StepClock};
use crate::{Error, Result};

/// How completions are judged
#[derive(Debug, Clone, Copy)]
pub struct JudgeOptions {
    /// Completions of each prompt
    pub per_prompt: usize,
    /// Seed of the sampling; both models draw with the same numbers
    pub seed: u64,
    /// Whether completions come from the model's own distribution, so that the KL can be measured on them
    pub whole_distribution: bool,
}

/// Rewards of what `model` writes and, beside it, of what `reference` writes for the same prompts
///
/// `win_rate` is the probability that a completion of the model has a higher reward than one of the reference for the same
/// prompt, ties counting one half: the mean over prompts of the share among all pairs. Its 95 % interval is Wilson's, for
/// as many trials as would vary as the prompts' shares do. `kl` is the mean of Σ log p − log p_ref over the model's own
/// completions, an unbiased estimate of KL(model ‖ reference) in nats a completion. Standard errors are those of a mean
/// over prompts. Completions that no reward could judge are left out and counted in `unjudged`.
///
/// # Errors
/// A reward failed, or could judge nothing; what `check` returned
pub fn evaluate_completions<'p>(
    collector: &mut Collector,
    model: impl Into<Policy<'p>>,
    reference: Option<&Gpt2>,
    options: &JudgeOptions,
    check: &dyn Fn() -> Result<()>,
) -> Result<Evaluation> {
    let rows: Vec<usize> = (0..collector.len()).collect();
    let model = model.into();
    let mut write = |model: Policy<'_>| {
        collector.collect(model, &rows, options.per_prompt, options.seed, &mut StepClock::default(), check)
    };
    let own = write(model)?;
    let other = reference.map(|reference| write(reference.into())).transpose()?;
    let mut metrics = Metrics::new();
    report("", &own, collector, &mut metrics)?;
    if let (Some(other), Some(reference)) = (&other, reference) {
        report("ref_", other, collector, &mut metrics)?;
        let shares = win_shares(&by_prompt(&own), &by_prompt(other));
        if let Some(Mean { mean, variance }) = Mean::of(&shares) {
            // As many trials of a coin as have this variance; where nothing varies, one a prompt
            let trials = if variance > 0.0 { mean * (1.0 - mean) / variance } else { shares.len() as f64 };
            let [low, high] = wilson(mean, trials);
            metrics.extend([("win_rate", mean), ("win_rate_low", low), ("win_rate_high", high)]);
        }
        if options.whole_distribution {
            let ratios = match model.bend {
                None => log_ratios(&own, model.model, reference)?,
                Some(_) => sampled_log_ratios(&own, reference)?,
            };
            Mean::of(&means(&own, &ratios)).inspect(|kl| kl.report("kl", &mut metrics));
        }
    }
    let tokens = own.completions.iter().map(Vec::len).sum();
    Ok(Evaluation { rows: collector.len(), tokens, metrics })
}

/// Mean reward, length and ends of a model's completions
fn report(prefix: &str, rollout: &Rollout, collector: &Collector, metrics: &mut Metrics) -> Result<()> {
    let judged: Vec<Vec<f64>> = by_prompt(rollout);
    let of_prompt: Vec<f64> = judged.iter().filter(|rewards| !rewards.is_empty()).map(|r| average(r)).collect();
    let Some(reward) = Mean::of(&of_prompt) else {
        return Err(Error::run("no reward could judge any completion").hint("look at what the rewards need of a row"));
    };
    reward.report(&format!("{prefix}reward"), metrics);
    for (name, values) in collector.reward_weights().0.iter().zip(&rollout.rewards_by_function) {
        let values: Vec<f64> = values.iter().flatten().copied().collect();
        if !values.is_empty() {
            metrics.set(format!("{prefix}rewards/{name}/mean"), average(&values));
        }
    }
    let n = rollout.len() as f64;
    metrics.set(format!("{prefix}length"), rollout.completions.iter().map(Vec::len).sum::<usize>() as f64 / n);
    metrics.set(format!("{prefix}finished"), rollout.truncated.iter().filter(|cut| !**cut).count() as f64 / n);
    metrics.set(format!("{prefix}unjudged"), rollout.rewards.iter().filter(|reward| reward.is_none()).count() as f64);
    Ok(())
}

/// The rewards that there are, prompt by prompt
fn by_prompt(rollout: &Rollout) -> Vec<Vec<f64>> {
    let mut all = vec![Vec::new(); rollout.prompts.len()];
    for (prompt, reward) in rollout.prompt_of.iter().zip(&rollout.rewards) {
        all[*prompt].extend(*reward);
    }
    all
}

/// For each prompt that both have answers to: among all pairs, the share that the first wins, half of a tie
fn win_shares(first: &[Vec<f64>], second: &[Vec<f64>]) -> Vec<f64> {
    let won = |a: f64, b: f64| match a.total_cmp(&b) {
        std::cmp::Ordering::Greater => 1.0,
        std::cmp::Ordering::Equal => 0.5,
        std::cmp::Ordering::Less => 0.0,
    };
    let share = |(first, second): (&Vec<f64>, &Vec<f64>)| {
        let pairs: Vec<f64> = first.iter().flat_map(|a| second.iter().map(move |b| won(*a, *b))).collect();
        (!pairs.is_empty()).then(|| average(&pairs))
    };
    first.iter().zip(second).filter_map(share).collect()
}

/// Σ log p − log p_ref of each completion
pub(super) fn log_ratios(rollout: &Rollout, model: &Gpt2, reference: &Gpt2) -> Result<Vec<f64>> {
    let mut ratios = vec![0.0; rollout.len()];
    add_log_probs(&mut ratios, rollout, model, 1.0)?;
    add_log_probs(&mut ratios, rollout, reference, -1.0)?;
    Ok(ratios)
}

/// The same with the log-probabilities that the sampler drew from, where the model is only part of what writes
fn sampled_log_ratios(rollout: &Rollout, reference: &Gpt2) -> Result<Vec<f64>> {
    let sampled = rollout.sampled_log_probs.iter();
    let mut ratios = sampled.map(|own| own.iter().map(|x| f64::from(*x)).sum()).collect::<Vec<f64>>();
    add_log_probs(&mut ratios, rollout, reference, -1.0)?;
    Ok(ratios)
}

/// Adds `sign` times Σ log p of each completion
fn add_log_probs(sums: &mut [f64], rollout: &Rollout, model: &Gpt2, sign: f64) -> Result<()> {
    let prompt = |i: usize| &rollout.prompts[rollout.prompt_of[i]];
    let sequences: Vec<Vec<u32>> =
        (0..rollout.len()).map(|i| [&prompt(i)[..], &rollout.completions[i][..]].concat()).collect();
    log_probs(model, &sequences, None, |i, values| {
        // `values[t]` belongs to token t + 1
        let completion = &values[prompt(i).len() - 1..];
        sums[i] += sign * completion.iter().map(|value| f64::from(*value)).sum::<f64>();
        Ok(())
    })
}

/// Means of the completions of each prompt
pub(super) fn means(rollout: &Rollout, values: &[f64]) -> Vec<f64> {
    let mut all = vec![Vec::new(); rollout.prompts.len()];
    rollout.prompt_of.iter().zip(values).for_each(|(prompt, value)| all[*prompt].push(*value));
    all.iter().filter(|values| !values.is_empty()).map(|values| average(values)).collect()
}

fn average(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

/// A mean, and the variance of that mean
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Mean {
    /// The mean
    pub mean: f64,
    /// Its variance; NaN where it is not known
    pub variance: f64,
}

impl Mean {
    /// `None` of nothing; of one value the variance is not known
    pub fn of(values: &[f64]) -> Option<Self> {
        let n = values.len() as f64;
        (n > 0.0).then_some(())?;
        let mean = average(values);
        let squares = values.iter().map(|value| (value - mean).powi(2)).sum::<f64>();
        Some(Self { mean, variance: if n > 1.0 { squares / (n - 1.0) / n } else { f64::NAN } })
    }

    /// Its standard error
    pub fn standard_error(&self) -> f64 {
        self.variance.sqrt()
    }

    fn report(&self, name: &str, metrics: &mut Metrics) {
        metrics.set(name, self.mean);
        if self.variance.is_finite() {
            metrics.set(format!("{name}_stderr"), self.standard_error());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ties_count_one_half_and_prompts_without_a_judge_nothing() {
        let shares = win_shares(
            &[vec![1.0, 2.0], vec![0.0], vec![], vec![5.0]],
            &[vec![1.0, 0.0], vec![0.0, 1.0, 2.0, -1.0], vec![1.0], vec![]],
        );
        assert_eq!(shares, [(0.5 + 1.0 + 1.0 + 1.0) / 4.0, (0.5 + 1.0) / 4.0]);
    }

    #[test]
    fn a_mean_of_prompts_has_the_textbook_s_standard_error() {
        let Mean { mean, variance } = Mean::of(&[1.0, 2.0, 4.0]).unwrap();
        assert!((mean - 7.0 / 3.0).abs() < 1e-15 && (variance - 7.0 / 9.0).abs() < 1e-15, "{mean} {variance}");
        assert!(Mean::of(&[]).is_none() && Mean::of(&[1.0]).unwrap().variance.is_nan());
    }
}
