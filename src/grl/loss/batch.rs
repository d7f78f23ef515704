//! Ragged log-probabilities of a batch of responses.

use std::ops::Range;

use crate::error::{Error, Result};

/// Log-probabilities of the responses' tokens, one response after the other
#[derive(Debug, Clone)]
pub struct Batch<'a> {
    log_probs: &'a [f64],
    log_probs_ref: &'a [f64],
    spans: Vec<Range<usize>>,
    whole: Option<Whole>,
}

/// What the means of a split minibatch are taken over, so that the losses and gradients of its parts add up to its own
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Whole {
    /// Responses
    pub responses: usize,
    /// Tokens of all responses
    pub tokens: usize,
    /// Pairs, or stretches, where the loss is over these
    pub items: usize,
}

/// How token terms become one number
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reduction {
    /// Sum over a response's tokens, mean over responses: the gradient of a sequence's expected return
    SequenceMean,
    /// Mean over all tokens
    TokenMean,
}

impl Reduction {
    pub(super) fn weight(self, batch: &Batch<'_>) -> f64 {
        match self {
            Self::SequenceMean => 1.0 / batch.responses(),
            Self::TokenMean => 1.0 / batch.whole.map_or(batch.tokens(), |whole| whole.tokens) as f64,
        }
    }
}

impl<'a> Batch<'a> {
    /// A batch of responses with these lengths
    ///
    /// # Errors
    /// where the lengths do not add up, no response is there, or a log-probability is not finite
    pub fn new(log_probs: &'a [f64], log_probs_ref: &'a [f64], lengths: &[usize]) -> Result<Self> {
        let total: usize = lengths.iter().sum();
        if total == 0 || log_probs.len() != total || log_probs_ref.len() != total {
            let (policy, reference) = (log_probs.len(), log_probs_ref.len());
            let message = format!(
                "{} responses of {total} tokens with {policy} log-probabilities and {reference} of the reference",
                lengths.len()
            );
            return Err(Error::run(message));
        }
        if let Some(at) = log_probs.iter().chain(log_probs_ref).position(|x| !x.is_finite()) {
            let (whose, at) = if at < total { ("policy", at) } else { ("reference", at - total) };
            return Err(Error::run(format!("log-probability {at} of the {whose} is not finite")));
        }
        let ends = lengths.iter().scan(0, |end, length| {
            let start = *end;
            *end += length;
            Some(start..*end)
        });
        Ok(Self { log_probs, log_probs_ref, spans: ends.collect(), whole: None })
    }

    /// The same batch as a part of a larger one, over which means are taken
    #[must_use]
    pub fn part_of(self, whole: Whole) -> Self {
        Self { whole: Some(whole), ..self }
    }

    /// Responses that a mean is over
    pub(super) fn responses(&self) -> f64 {
        self.whole.map_or(self.len(), |whole| whole.responses) as f64
    }

    /// Pairs or stretches that a mean is over, of which `own` are in this batch
    pub(super) fn items(&self, own: usize) -> f64 {
        self.whole.map_or(own, |whole| whole.items) as f64
    }

    /// Responses
    pub fn len(&self) -> usize {
        self.spans.len()
    }

    /// Whether there is none
    pub fn is_empty(&self) -> bool {
        self.spans.is_empty()
    }

    /// Tokens of all responses
    pub fn tokens(&self) -> usize {
        self.log_probs.len()
    }

    /// Where each response's tokens lie
    pub fn spans(&self) -> &[Range<usize>] {
        &self.spans
    }

    /// log π of every token
    pub fn log_probs(&self) -> &'a [f64] {
        self.log_probs
    }

    /// L = Σ_t log π − log π_ref over a range of tokens
    pub fn log_ratio(&self, span: Range<usize>) -> f64 {
        let pairs = self.log_probs[span.clone()].iter().zip(&self.log_probs_ref[span]);
        pairs.map(|(policy, reference)| policy - reference).sum()
    }

    /// L of every response
    pub fn log_ratios(&self) -> Vec<f64> {
        self.spans.iter().map(|span| self.log_ratio(span.clone())).collect()
    }

    pub(super) fn check(&self, name: &str, values: &[f64]) -> Result<()> {
        check_values(name, values, self.len())
    }

    pub(super) fn check_tokens(&self, name: &str, values: &[f64]) -> Result<()> {
        check_values(name, values, self.tokens())
    }
}

pub(super) fn check_values(name: &str, values: &[f64], expected: usize) -> Result<()> {
    if values.len() != expected {
        return Err(Error::run(format!("{} {name}, expected {expected}", values.len())));
    }
    match values.iter().position(|x| !x.is_finite()) {
        None => Ok(()),
        Some(at) => Err(Error::run(format!("{name}: number {at} is {}, expected a finite number", values[at]))),
    }
}
