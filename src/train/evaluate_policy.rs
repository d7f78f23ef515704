//! What a policy writes to held-out prompts, judged as its training would judge it: rewards, divergence from a
//! reference, lengths.

use std::collections::BTreeSet;

use super::collect::Collector;
use super::completions::log_probs;
use crate::Result;
use crate::model::gpt2::Gpt2;
use crate::rollout::Rollout;
use crate::run::StepClock;

/// Completions of one forward pass
const PASS: usize = 64;

/// A mean over completions
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Mean {
    /// The mean
    pub value: f64,
    /// Its standard error. Completions of one prompt are alike, so prompts count, not completions
    pub standard_error: f64,
}

impl Mean {
    /// Of values that fall into groups, which alone are independent of each other; `None` is left out
    ///
    /// ```text
    /// se² = G/(G − 1) · Σ_g (Σ_{i in g} (x_i − mean))² / n²
    /// ```
    /// With equal groups this is the standard error of the mean of the groups' means.
    pub fn over_groups(values: impl IntoIterator<Item = Option<f64>>, group_of: &[usize]) -> Self {
        let known: Vec<(f64, usize)> =
            values.into_iter().zip(group_of).filter_map(|(value, group)| Some((value?, *group))).collect();
        let n = known.len() as f64;
        let value = known.iter().map(|(x, _)| x).sum::<f64>() / n;
        let mut sums = std::collections::BTreeMap::<usize, f64>::new();
        for (x, group) in &known {
            *sums.entry(*group).or_default() += x - value;
        }
        let groups = sums.len() as f64;
        let squares: f64 = sums.values().map(|sum| sum * sum).sum();
        Self { value, standard_error: (groups / (groups - 1.0) * squares).sqrt() / n }
    }
}

/// Completions of held-out prompts, and what was found out about them
pub struct PolicyEvaluation {
    /// Completions with their rewards, by function and in sum
    pub rollout: Rollout,
    /// Prompt and completion as text
    pub texts: Vec<(String, String)>,
    /// log π(y|x) − log π_ref(y|x) of each completion; empty where there was no reference
    pub log_ratios: Vec<f64>,
}

/// Completes the prompts in `rows`, `per_prompt` times each, and judges what came out
///
/// What is drawn depends on `seed`, the place in `rows` and the policy alone: two policies that agree write the same.
pub fn evaluate_policy(
    policy: &Gpt2,
    reference: Option<&Gpt2>,
    prompts: &mut Collector,
    rows: &[usize],
    per_prompt: usize,
    seed: u64,
    check: &dyn Fn() -> Result<()>,
) -> Result<PolicyEvaluation> {
    let rollout = prompts.collect(policy, rows, per_prompt, seed, &mut StepClock::new(), check)?;
    let temperature = prompts.temperature();
    let totals = |model: &Gpt2| -> Result<Vec<f64>> {
        let all = log_probs(model, &rollout, PASS, temperature)?;
        Ok(all.iter().map(|tokens| tokens.iter().map(|x| f64::from(*x)).sum()).collect())
    };
    let log_ratios = match reference {
        Some(reference) => {
            totals(policy)?.into_iter().zip(totals(reference)?).map(|(pi, pi_ref)| pi - pi_ref).collect()
        }
        None => Vec::new(),
    };
    Ok(PolicyEvaluation { texts: prompts.texts(&rollout)?, rollout, log_ratios })
}

impl PolicyEvaluation {
    /// Mean of a reward function, by its place in `reward_funcs`
    pub fn reward(&self, function: usize) -> Mean {
        Mean::over_groups(self.rollout.rewards_by_function[function].iter().copied(), &self.rollout.prompt_of)
    }

    /// KL(π‖π_ref) in nats a completion, estimated by the mean log-ratio of what π wrote
    pub fn kl(&self) -> Option<Mean> {
        let log_ratios = self.log_ratios.iter().copied().map(Some);
        (!self.log_ratios.is_empty()).then(|| Mean::over_groups(log_ratios, &self.rollout.prompt_of))
    }

    /// Mean tokens of a completion, the end-of-text token included
    pub fn length(&self) -> f64 {
        self.rollout.completions.iter().map(Vec::len).sum::<usize>() as f64 / self.rollout.len() as f64
    }

    /// Share of completions that ended by themselves, within the limit
    pub fn ended(&self) -> f64 {
        self.rollout.truncated.iter().filter(|cut| !**cut).count() as f64 / self.rollout.len() as f64
    }

    /// Different completions, as a share of all
    pub fn different(&self) -> f64 {
        let different: BTreeSet<&Vec<u32>> = self.rollout.completions.iter().collect();
        different.len() as f64 / self.rollout.len() as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_count_as_one_observation_each() {
        // Means of the groups are 1, 2 and 6: mean 3, standard deviation √7
        let values = [0.0, 2.0, 2.0, 2.0, 5.0, 7.0];
        let mean = Mean::over_groups(values.map(Some), &[0, 0, 1, 1, 2, 2]);
        assert!((mean.value - 3.0).abs() < 1e-12);
        assert!((mean.standard_error - (7.0_f64 / 3.0).sqrt()).abs() < 1e-12, "{mean:?}");
    }

    #[test]
    fn what_could_not_be_judged_is_left_out() {
        let with = Mean::over_groups([Some(1.0), None, Some(4.0)], &[0, 1, 2]);
        assert_eq!(with, Mean::over_groups([Some(1.0), Some(4.0)], &[0, 2]));
        // A group of one each: the usual formula, sd / √n
        assert!((with.standard_error - 1.5).abs() < 1e-12);
    }
}
