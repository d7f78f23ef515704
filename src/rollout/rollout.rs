//! What one round of generation leaves for learning, whatever the algorithm.

use serde::{Deserialize, Serialize};

/// Completions of some prompts, ragged: real tokens only, those of one prompt together
///
/// Everything per token is one vector a completion. Enough for an exact resume in the middle of its use.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Rollout {
    /// Which row of the dataset each prompt is, (P,)
    pub rows: Vec<usize>,
    /// Tokens of each prompt, (P,)
    pub prompts: Vec<Vec<u32>>,
    /// Which prompt each completion belongs to, ascending, (B,)
    pub prompt_of: Vec<usize>,
    /// Tokens of each completion, the end-of-text token included where it was drawn, (B,)
    pub completions: Vec<Vec<u32>>,
    /// Whether a completion was cut at the limit, (B,)
    pub truncated: Vec<bool>,
    /// log π of each token as it was drawn; empty where completions were not sampled here
    pub sampled_log_probs: Vec<Vec<f32>>,
    /// log π of each token before the first update on this rollout, by the trainer's own pass; empty where not needed
    pub old_log_probs: Vec<Vec<f32>>,
    /// log π of each token under the reference model; empty where not needed
    pub ref_log_probs: Vec<Vec<f32>>,
    /// V of the state before each token; empty where there is no value model
    pub values: Vec<Vec<f32>>,
    /// What each reward said, by function, then by completion; None where it could not judge
    pub rewards_by_function: Vec<Vec<Option<f64>>>,
    /// Their weighted sum; None where no reward could judge, (B,)
    pub rewards: Vec<Option<f64>>,
    /// Advantages, one a completion or one a token
    pub advantages: Vec<Vec<f32>>,
    /// Targets of the value model, one a token; empty where there is none
    pub returns: Vec<Vec<f32>>,
}

impl Rollout {
    /// Number of completions
    pub fn len(&self) -> usize {
        self.completions.len()
    }

    /// Whether there are none
    pub fn is_empty(&self) -> bool {
        self.completions.is_empty()
    }

    /// Prompt and completion of one sequence
    pub fn sequence(&self, i: usize) -> (&[u32], &[u32]) {
        (&self.prompts[self.prompt_of[i]], &self.completions[i])
    }

    /// Tokens of all sequences, each prompt as often as it is used
    pub fn tokens(&self) -> u64 {
        (0..self.len()).map(|i| self.sequence(i)).map(|(prompt, answer)| (prompt.len() + answer.len()) as u64).sum()
    }

    /// Rewards as a stream in which a missing one is NaN, as the group functions take it
    pub fn scores(&self) -> Vec<f32> {
        self.rewards.iter().map(|reward| reward.map_or(f32::NAN, |reward| reward as f32)).collect()
    }

    /// Removes completions that no reward could judge: nothing can be learnt from them. Before anything is computed of
    /// the others
    pub fn drop_unjudged(&mut self) {
        fn keep<T>(values: &mut Vec<T>, judged: &[bool]) {
            let mut judged = judged.iter();
            values.retain(|_| judged.next().is_none_or(|judged| *judged));
        }
        let judged: Vec<bool> = self.rewards.iter().map(Option::is_some).collect();
        keep(&mut self.prompt_of, &judged);
        keep(&mut self.completions, &judged);
        keep(&mut self.truncated, &judged);
        keep(&mut self.sampled_log_probs, &judged);
        keep(&mut self.rewards, &judged);
        for values in &mut self.rewards_by_function {
            keep(values, &judged);
        }
    }
}
