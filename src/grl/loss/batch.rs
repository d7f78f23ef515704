//! Ragged log-probabilities of a batch of responses.

use std::ops::Range;

use crate::error::{Error, Result};

/// Log-probabilities of the responses' tokens, one response after the other
#[derive(Debug, Clone)]
pub struct Batch<'a> {
    log_probs: &'a [f64],
    log_probs_ref: &'a [f64],
    spans: Vec<Range<usize>>,
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
            Self::SequenceMean => 1.0 / batch.len() as f64,
            Self::TokenMean => 1.0 / batch.log_probs.len() as f64,
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
        Ok(Self { log_probs, log_probs_ref, spans: ends.collect() })
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
