//! What a response teaches a token field: kernel TD with one-step targets, from its last token to its first.
//!
//! The reward comes at the last token, so that a sweep backwards carries it all the way in one go. Q(s, a) = V(x) + q(s, a):
//! the field holds what tokens are worth beyond the value of their prompt, and a token that was never tried counts as an
//! average one, not as one without reward.

use crate::error::{Error, Result};
use crate::grl::memory::TokenMemory;
use crate::grl::target::{Backup, Next};
use crate::grl::token_field::{TokenField, steer};

/// A response of the steered model
#[derive(Debug, Clone, Copy)]
pub struct Steps<'a> {
    /// Features of the state before each token
    pub states: &'a [Vec<f32>],
    /// Logits of the model itself at each of them, divided by the temperature, (T, V)
    pub logits: &'a [f32],
    /// The tokens
    pub tokens: &'a [u32],
    /// R − V(x)
    pub advantage: f64,
    /// Between which numbers targets are held: a soft value lies between the least and the largest reward, and a target far
    /// outside is an error of the field that feeds on itself
    pub bounds: (f64, f64),
}

/// The rule by which particles change
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TokenTd {
    /// How the value of the next state enters
    pub backup: Backup,
    /// α: the share of an error that one visit takes away where no other particle of the token is near
    pub rate: f64,
    /// η, divided by the temperature as the logits are
    pub eta: f64,
    /// τ
    pub tau: f64,
    /// Kernel correlation from which two states with the same token are one particle
    pub merge: f64,
}

/// What the field and the model say at one state
struct Seen {
    q: Vec<f64>,
    log_policy: Vec<f64>,
    log_reference: Vec<f64>,
}

impl TokenTd {
    /// log π of each token under the field as it is
    pub fn log_probs(&self, field: &TokenField, memory: &TokenMemory, steps: &Steps<'_>) -> Result<Vec<f64>> {
        steps.check()?;
        let at = |t: usize| Ok(self.seen(field, memory, steps, t)?.log_policy[steps.tokens[t] as usize]);
        (0..steps.tokens.len()).map(at).collect()
    }

    /// w += αδ/(1 + Σk) at the particle of each state and token, the sum over the token's other particles, with
    /// δ = y − q(s, a): y is R − V(x) at the last token, and what
    /// the backup says of the next state before it. Gives the errors, in the order of the tokens
    pub fn learn(&self, field: &TokenField, memory: &mut TokenMemory, steps: &Steps<'_>, now: u32) -> Result<Vec<f64>> {
        steps.check()?;
        let mut errors = vec![0.0; steps.tokens.len()];
        let mut next: Option<(Seen, usize)> = None;
        for t in (0..steps.tokens.len()).rev() {
            let action = steps.tokens[t] as usize;
            let target = next.as_ref().map_or(steps.advantage, |(seen, action)| {
                let Seen { q, log_policy, log_reference } = seen;
                self.backup.target(0.0, 1.0, Some(Next { q, log_policy, log_reference, action: *action }), self.tau)
            });
            let error =
                target.clamp(steps.bounds.0, steps.bounds.1) - f64::from(self.q(field, memory, steps, t)?[action]);
            let (kernel, state, token) = (field.states(), &steps.states[t], steps.tokens[t]);
            let by = self.rate * error / (1.0 + memory.crowd(kernel, state, token, self.merge));
            memory.add_near(kernel, state, token, by, self.merge, now)?;
            errors[t] = error;
            // With what has just been learnt
            next = Some((self.seen(field, memory, steps, t)?, action));
        }
        Ok(errors)
    }

    fn q(&self, field: &TokenField, memory: &TokenMemory, steps: &Steps<'_>, t: usize) -> Result<Vec<f32>> {
        field.read(memory, &steps.states[t], steps.logits_at(t), self.tau / self.eta)
    }

    fn seen(&self, field: &TokenField, memory: &TokenMemory, steps: &Steps<'_>, t: usize) -> Result<Seen> {
        let (q, logits) = (self.q(field, memory, steps, t)?, steps.logits_at(t));
        let mut steered = logits.to_vec();
        steer(&mut steered, &q, self.eta, self.tau);
        Ok(Seen {
            q: q.into_iter().map(f64::from).collect(),
            log_policy: log_softmax(&steered),
            log_reference: log_softmax(logits),
        })
    }
}

impl Steps<'_> {
    fn logits_at(&self, t: usize) -> &[f32] {
        let vocabulary = self.logits.len() / self.tokens.len();
        &self.logits[t * vocabulary..(t + 1) * vocabulary]
    }

    fn check(&self) -> Result<()> {
        let n = self.tokens.len();
        let whole = n > 0 && self.states.len() == n && self.logits.len().is_multiple_of(n);
        let vocabulary = self.logits.len() / n.max(1);
        if !whole || !self.tokens.iter().all(|token| (*token as usize) < vocabulary) {
            let (states, logits) = (self.states.len(), self.logits.len());
            return Err(Error::run(format!("a response of {n} tokens with {states} states and {logits} logits")));
        }
        if !self.advantage.is_finite() || self.bounds.0 > self.bounds.1 {
            return Err(Error::run(format!("a response has reward less value {}", self.advantage))
                .hint("a reward must be a finite number"));
        }
        Ok(())
    }
}

fn log_softmax(logits: &[f32]) -> Vec<f64> {
    let largest = f64::from(logits.iter().copied().fold(f32::NEG_INFINITY, f32::max));
    let total = largest + logits.iter().map(|x| (f64::from(*x) - largest).exp()).sum::<f64>().ln();
    logits.iter().map(|x| f64::from(*x) - total).collect()
}
