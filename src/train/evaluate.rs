//! What a model says of data without being trained on it: log-probabilities of tokens, and metrics of a dataset.
//!
//! A forward pass takes as many sequences as a budget of tokens allows. Sequences never see each other, so the budget
//! decides about speed and memory alone. Nothing here prints, and nothing is generated.

use std::ops::Range;

use super::collate::Batch;
use super::scored::{Scored, Sums, numbers, reward_metrics, token_metrics, vector};
use crate::algo::preference::{dpo_sigmoid, implicit_reward};
use crate::data::{LmExample, PreferenceExample};
use crate::model::gpt2::Gpt2;
use crate::run::{Metrics, Window};
use crate::{Error, Result};

/// Tokens of one forward pass; a longer sequence makes a pass of its own
const PASS: usize = 8192;

/// Consecutive sequences for one forward pass each: at most `most_rows` of them, and of [`PASS`] tokens together
fn passes(lengths: &[usize], most_rows: Option<usize>) -> Vec<Range<usize>> {
    let most_rows = most_rows.unwrap_or(usize::MAX);
    let mut passes = Vec::new();
    let (mut start, mut tokens) = (0, 0);
    for (i, length) in lengths.iter().enumerate() {
        if i > start && (tokens + length > PASS || i - start == most_rows) {
            passes.push(start..i);
            (start, tokens) = (i, 0);
        }
        tokens += length;
    }
    if start < lengths.len() {
        passes.push(start..lengths.len());
    }
    passes
}

/// One forward pass; `None` where the batch has no loss token
fn forward(model: &Gpt2, batch: &Batch) -> Result<Option<(Scored, Vec<f32>)>> {
    if batch.rows.is_empty() {
        return Ok(None);
    }
    let scored = Scored::new(model, batch, None)?;
    let log_probs = scored.tokens.log_probs.to_vec1::<f32>()?;
    if log_probs.iter().all(|p| p.is_finite()) {
        return Ok(Some((scored, log_probs)));
    }
    Err(Error::run("the model gives a log-probability that is not a finite number")
        .hint("its weights hold NaN or are far too large: take an earlier checkpoint"))
}

/// log p(token i + 1 | tokens 0..=i) for each sequence, handed to `each` in order; one number fewer than there are tokens
pub fn log_probs(
    model: &Gpt2,
    sequences: &[Vec<u32>],
    most_rows: Option<usize>,
    mut each: impl FnMut(usize, &[f32]) -> Result<()>,
) -> Result<()> {
    let lengths: Vec<usize> = sequences.iter().map(Vec::len).collect();
    for range in passes(&lengths, most_rows) {
        // A single token is predicted by nothing
        let scored = range.clone().filter(|&i| lengths[i] > 1);
        let texts: Vec<LmExample> =
            scored.map(|i| LmExample { ids: sequences[i].clone(), loss: vec![true; lengths[i]] }).collect();
        let all = forward(model, &Batch::of_texts(&texts)?)?.map_or_else(Vec::new, |(_, log_probs)| log_probs);
        let mut rest = all.as_slice();
        for i in range {
            let (of_this, after) = rest.split_at(lengths[i].saturating_sub(1));
            rest = after;
            each(i, of_this)?;
        }
    }
    Ok(())
}

/// The sums of each sequence of a batch, in the order of `counts`
fn sums(model: &Gpt2, batch: &Batch) -> Result<Vec<Sums>> {
    match forward(model, batch)? {
        Some((scored, _)) => scored.per_sequence(),
        None => Ok(vec![Sums::default(); batch.counts.len()]),
    }
}

fn score_texts(model: &Gpt2, examples: &[LmExample], most_rows: Option<usize>) -> Result<Vec<Sums>> {
    let lengths: Vec<usize> = examples.iter().map(|example| example.ids.len()).collect();
    let mut all = Vec::with_capacity(examples.len());
    for range in passes(&lengths, most_rows) {
        all.extend(sums(model, &Batch::of_texts(&examples[range])?)?);
    }
    Ok(all)
}

/// (chosen, rejected) for each pair
fn score_pairs(model: &Gpt2, pairs: &[PreferenceExample], most_rows: Option<usize>) -> Result<Vec<[Sums; 2]>> {
    let length = |pair: &PreferenceExample| pair.prompt.len() + pair.chosen.len() + pair.rejected.len();
    let lengths: Vec<usize> = pairs.iter().map(length).collect();
    let mut all = Vec::with_capacity(pairs.len());
    for range in passes(&lengths, most_rows) {
        let both = sums(model, &Batch::of_pairs(&pairs[range])?)?;
        let (chosen, rejected) = both.split_at(both.len() / 2);
        all.extend(chosen.iter().zip(rejected).map(|(chosen, rejected)| [*chosen, *rejected]));
    }
    Ok(all)
}

/// Metrics of a dataset
#[derive(Debug, Clone, PartialEq)]
pub struct Evaluation {
    /// Rows that were used
    pub rows: usize,
    /// Tokens whose log-probabilities were asked for
    pub tokens: usize,
    /// The rest, under the names of training
    pub metrics: Metrics,
}

/// Who else is asked, and how means are taken
#[derive(Default)]
pub struct EvaluateOptions<'a> {
    /// A model to compare with
    pub reference: Option<&'a Gpt2>,
    /// Scale of the implicit reward β(log π − log π_ref)
    pub beta: f64,
    /// Means over batches of this many rows come first, and then the mean of those, as an evaluation in training has it.
    /// Without it, means are over all rows or tokens at once
    pub batch_size: Option<usize>,
}

impl EvaluateOptions<'_> {
    /// Rows whose mean is taken at once
    fn group(&self, rows: usize) -> usize {
        self.batch_size.unwrap_or(rows).max(1)
    }
}

/// Loss, perplexity, accuracy and entropy on texts; with a reference, the log-ratio on their tokens
///
/// `loss`, `entropy` and `mean_token_accuracy` are those that training logs as `eval_…`. `perplexity` is the exponential
/// of the mean over all loss tokens, whatever the batch size. `log_ratio` is the mean over rows of
/// Σ (log π − log π_ref) over a row's loss tokens: an estimate of KL(π‖π_ref) only where π wrote the rows.
pub fn evaluate_texts(model: &Gpt2, examples: &[LmExample], options: &EvaluateOptions<'_>) -> Result<Evaluation> {
    let rows = score_texts(model, examples, options.batch_size)?;
    let mut window = Window::new();
    for group in rows.chunks(options.group(rows.len())) {
        let sums = Sums::total(group);
        window.add_ratio("loss", -sums.per_token(sums.log_prob) * group.len() as f64, group.len() as f64);
        window.add("mean_token_accuracy", sums.per_token(sums.correct as f64));
        window.add("entropy", sums.per_token(sums.entropy));
    }
    let all = Sums::total(&rows);
    window.set("perplexity", (-all.per_token(all.log_prob)).exp());
    if let Some(reference) = options.reference {
        let reference = Sums::total(&score_texts(reference, examples, options.batch_size)?);
        let log_ratio = all.log_prob - reference.log_prob;
        window.set("log_ratio", log_ratio / rows.len() as f64);
        window.set("log_ratio_per_token", all.per_token(log_ratio));
        window.set("ref_perplexity", (-all.per_token(reference.log_prob)).exp());
    }
    Ok(Evaluation { rows: rows.len(), tokens: all.tokens, metrics: window.take() })
}

/// How a model ranks chosen above rejected completions; with a reference, by DPO's implicit reward too
///
/// `entropy`, `mean_token_accuracy`, `logps/chosen`, `logps/rejected`, `logits/…`, and with a reference `loss` (DPO,
/// sigmoid) and `rewards/…`, are those that DPO logs as `eval_…`. `logps/accuracies` and `logps/margins` compare the
/// completions' log-probabilities, `logps_per_token/accuracies` their means per token.
pub fn evaluate_pairs(model: &Gpt2, pairs: &[PreferenceExample], options: &EvaluateOptions<'_>) -> Result<Evaluation> {
    let rows = score_pairs(model, pairs, options.batch_size)?;
    let reference = options.reference.map(|model| score_pairs(model, pairs, options.batch_size)).transpose()?;
    let group_size = options.group(rows.len());
    let mut window = Window::new();
    for (i, group) in rows.chunks(group_size).enumerate() {
        if let Some(reference) = &reference {
            add_rewards(&mut window, group, &reference[i * group_size..][..group.len()], options.beta)?;
        }
        let side = |side: usize| group.iter().map(|pair| pair[side]).collect::<Vec<_>>();
        let (chosen, rejected) = (side(0), side(1));
        let mean = |sum: f64| sum / group.len() as f64;
        let share = |better: &dyn Fn(&[Sums; 2]) -> bool| mean(group.iter().filter(|pair| better(pair)).count() as f64);
        let per_token = |sums: &Sums| sums.per_token(sums.log_prob);
        let (log_chosen, log_rejected) = (Sums::total(&chosen).log_prob, Sums::total(&rejected).log_prob);
        window.add("logps/chosen", mean(log_chosen));
        window.add("logps/rejected", mean(log_rejected));
        window.add("logps/accuracies", share(&|[chosen, rejected]| chosen.log_prob > rejected.log_prob));
        window.add("logps/margins", mean(log_chosen - log_rejected));
        window.add("logps_per_token/accuracies", share(&|[chosen, rejected]| per_token(chosen) > per_token(rejected)));
        for (name, value) in token_metrics(&chosen, &rejected) {
            window.add(name, value);
        }
    }
    let tokens = rows.iter().flatten().map(|sums| sums.tokens).sum();
    Ok(Evaluation { rows: rows.len(), tokens, metrics: window.take() })
}

/// DPO's loss and implicit rewards of some pairs
fn add_rewards(window: &mut Window, policy: &[[Sums; 2]], reference: &[[Sums; 2]], beta: f64) -> Result<()> {
    let log_ratio = |side: usize| {
        let pairs = policy.iter().zip(reference);
        vector(pairs.map(|(pi, pi_ref)| pi[side].log_prob - pi_ref[side].log_prob)) // (B,)
    };
    let (chosen, rejected) = (log_ratio(0)?, log_ratio(1)?);
    let losses = numbers(&dpo_sigmoid(&chosen, &rejected, beta)?)?;
    let (chosen, rejected) = (numbers(&implicit_reward(&chosen, beta)?)?, numbers(&implicit_reward(&rejected, beta)?)?);
    window.add_ratio("loss", losses.iter().sum(), policy.len() as f64);
    for (name, value) in reward_metrics(&chosen, &rejected) {
        window.add(name, value);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passes_keep_order_and_budget() {
        assert_eq!(passes(&[], None), Vec::<Range<usize>>::new());
        assert_eq!(passes(&[PASS - 1, 1, 1, PASS + 1, 0], None), [0..2, 2..3, 3..4, 4..5]);
        assert_eq!(passes(&[1; 5], Some(2)), [0..2, 2..4, 4..5]);
    }
}
