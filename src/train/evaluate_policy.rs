//! What a policy writes to some prompts, completion by completion: for tables and pages that show texts beside their figures.
//!
//! [`super::evaluate_completions`] has the metrics of `eval`; means and divergences here are the same.

use std::collections::BTreeSet;

use super::collect::Collector;
use super::evaluate_completions::{Mean, log_ratios, means};
use crate::model::gpt2::Gpt2;
use crate::rollout::Rollout;
use crate::run::StepClock;
use crate::{Error, Result};

/// Completions of some prompts, and what was found out about them
pub struct PolicyEvaluation {
    /// Completions with their rewards, by function and in sum
    pub rollout: Rollout,
    /// Prompt and completion as text
    pub texts: Vec<(String, String)>,
    /// Σ log π − log π_ref of each completion
    pub log_ratios: Vec<f64>,
}

/// Completes all prompts, `per_prompt` times each, and judges what came out
///
/// What is drawn depends on `seed`, the prompt's place and the policy alone: two policies that agree write the same.
pub fn evaluate_policy(
    policy: &Gpt2,
    reference: &Gpt2,
    prompts: &mut Collector,
    per_prompt: usize,
    seed: u64,
    check: &dyn Fn() -> Result<()>,
) -> Result<PolicyEvaluation> {
    let rows: Vec<usize> = (0..prompts.len()).collect();
    let rollout = prompts.collect(policy, &rows, per_prompt, seed, &mut StepClock::new(), check)?;
    let log_ratios = log_ratios(&rollout, policy, reference)?;
    Ok(PolicyEvaluation { texts: prompts.texts(&rollout)?, rollout, log_ratios })
}

impl PolicyEvaluation {
    /// Mean over prompts of a reward function, by its place in `reward_funcs`
    ///
    /// # Errors
    /// It could not judge every completion
    pub fn reward(&self, function: usize) -> Result<Mean> {
        let values: Option<Vec<f64>> = self.rollout.rewards_by_function[function].iter().copied().collect();
        self.mean(&values.ok_or_else(|| Error::run("a reward could not judge every completion"))?)
    }

    /// KL(π‖π_ref) in nats a completion, estimated by the mean log-ratio of what π wrote
    ///
    /// # Errors
    /// There is no completion
    pub fn kl(&self) -> Result<Mean> {
        self.mean(&self.log_ratios)
    }

    fn mean(&self, values: &[f64]) -> Result<Mean> {
        Mean::of(&means(&self.rollout, values)).ok_or_else(|| Error::run("there is no completion to measure"))
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
