//! What a model says of the sequences of a batch, and the metrics that every trainer on pairs makes of it.

use candle_core::{Device, Tensor};

use super::collate::Batch;
use crate::Result;
use crate::model::gpt2::Gpt2;
use crate::ops::TokenLogProbs;

/// Log-probabilities of the loss tokens of a batch
pub struct Scored {
    /// Of each loss token, (M,)
    pub tokens: TokenLogProbs,
    /// Hidden states of the batch, (N, C)
    pub hidden: Tensor,
    /// Loss tokens of each sequence
    pub counts: Vec<usize>,
    /// Tokens of all sequences
    pub total_tokens: u64,
}

impl Scored {
    /// One forward pass over a batch with at least one loss token
    pub fn new(model: &Gpt2, batch: &Batch, dropout: Option<u64>) -> Result<Self> {
        let hidden = model.hidden(&batch.ids, &batch.layout, dropout)?; // (N, C)
        let tokens = model.token_log_probs(&hidden, &batch.rows, &batch.targets, 1.0)?; // (M,)
        Ok(Self { tokens, hidden, counts: batch.counts.clone(), total_tokens: batch.tokens })
    }

    /// Σ w_t log p_t over the loss tokens t of each sequence, all weights 1 where there are none, (S,)
    pub fn sums(&self, weights: Option<&[f32]>) -> Result<Tensor> {
        let log_probs = &self.tokens.log_probs;
        let weighted = match weights {
            Some(weights) => (log_probs * Tensor::new(weights, log_probs.device())?)?,
            None => log_probs.clone(),
        };
        let sequence: Vec<u32> =
            self.counts.iter().enumerate().flat_map(|(i, &count)| std::iter::repeat_n(i as u32, count)).collect();
        let index = Tensor::new(sequence, log_probs.device())?;
        let zeros = Tensor::zeros(self.counts.len(), log_probs.dtype(), log_probs.device())?;
        Ok(zeros.index_add(&index, &weighted, 0)?)
    }

    /// Plain sums of each sequence
    pub fn per_sequence(&self) -> Result<Vec<Sums>> {
        let log_probs = self.tokens.log_probs.to_vec1::<f32>()?;
        let entropy = self.tokens.entropy.to_vec1::<f32>()?;
        let mut start = 0;
        let of_sequence = |&tokens: &usize| {
            let range = start..start + tokens;
            start += tokens;
            Sums {
                tokens,
                log_prob: total(&log_probs[range.clone()]),
                entropy: total(&entropy[range.clone()]),
                correct: self.tokens.top1[range.clone()].iter().filter(|top1| **top1).count(),
                logits: total(&self.tokens.mean_logits[range]),
            }
        };
        Ok(self.counts.iter().map(of_sequence).collect())
    }
}

/// The first and the second half of a tensor of an even number of sequences
pub fn halves(both: &Tensor) -> Result<[Tensor; 2]> {
    let n = both.dim(0)? / 2;
    Ok([both.narrow(0, 0, n)?, both.narrow(0, n, n)?])
}

/// Numbers as a tensor (n,)
pub fn vector(values: impl IntoIterator<Item = f64>) -> Result<Tensor> {
    Ok(Tensor::new(values.into_iter().map(|value| value as f32).collect::<Vec<_>>(), &Device::Cpu)?)
}

/// A tensor (n,) as numbers
pub fn numbers(tensor: &Tensor) -> Result<Vec<f64>> {
    Ok(tensor.to_vec1::<f32>()?.into_iter().map(f64::from).collect())
}

fn total(values: &[f32]) -> f64 {
    values.iter().map(|value| f64::from(*value)).sum()
}

/// The mean; 0 of nothing, as in TRL
pub fn mean(values: &[f64]) -> f64 {
    if values.is_empty() { 0.0 } else { values.iter().sum::<f64>() / values.len() as f64 }
}

/// What a model says of some tokens
#[derive(Clone, Copy, Debug, Default)]
pub struct Sums {
    /// How many tokens
    pub tokens: usize,
    /// Of log p
    pub log_prob: f64,
    /// Of the entropies
    pub entropy: f64,
    /// Tokens that have the largest logit
    pub correct: usize,
    /// Of the vocabulary's mean logit
    pub logits: f64,
}

impl Sums {
    /// Both together
    #[must_use]
    pub fn with(self, other: Self) -> Self {
        Self {
            tokens: self.tokens + other.tokens,
            log_prob: self.log_prob + other.log_prob,
            entropy: self.entropy + other.entropy,
            correct: self.correct + other.correct,
            logits: self.logits + other.logits,
        }
    }

    /// All together
    pub fn total<'a>(all: impl IntoIterator<Item = &'a Self>) -> Self {
        all.into_iter().fold(Self::default(), |sum, one| sum.with(*one))
    }

    /// `sum` as a mean over the tokens; 0 where there are none, as in TRL
    pub fn per_token(&self, sum: f64) -> f64 {
        if self.tokens == 0 { 0.0 } else { sum / self.tokens as f64 }
    }
}

/// TRL's metrics of the tokens of pairs; accuracy is the chosen completions'
pub fn token_metrics(chosen: &[Sums], rejected: &[Sums]) -> [(&'static str, f64); 4] {
    let (chosen, rejected) = (Sums::total(chosen), Sums::total(rejected));
    let both = chosen.with(rejected);
    [
        ("entropy", both.per_token(both.entropy)),
        ("logits/chosen", chosen.per_token(chosen.logits)),
        ("logits/rejected", rejected.per_token(rejected.logits)),
        ("mean_token_accuracy", chosen.per_token(chosen.correct as f64)),
    ]
}

/// TRL's metrics of the rewards of pairs; equal rewards are no win
pub fn reward_metrics(chosen: &[f64], rejected: &[f64]) -> [(&'static str, f64); 4] {
    let won: Vec<f64> = chosen.iter().zip(rejected).map(|(chosen, rejected)| f64::from(chosen > rejected)).collect();
    [
        ("rewards/chosen", mean(chosen)),
        ("rewards/rejected", mean(rejected)),
        ("rewards/accuracies", mean(&won)),
        ("rewards/margins", mean(chosen) - mean(rejected)),
    ]
}
