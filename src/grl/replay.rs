//! The replay store: scored responses with the log-probabilities of the distribution that truly sampled them.
//!
//! Distinct from the particle memory, which has lost the tokens: here a target can be computed again.

use std::collections::VecDeque;

use rand::Rng;
use serde_json::json;

use crate::error::{Error, Result};
use crate::grl::arrays::{Arrays, Header, Owner};
use crate::grl::kernel::Point;
use crate::grl::memory::PromptMemory;

const KIND: &str = "replay store";

/// Where a reward comes from
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RewardKind {
    /// The reward that counts
    Gold,
    /// A learnt stand-in for it
    Proxy,
    /// A field's guess: no query was made
    Imputed,
}

/// One scored response
#[derive(Debug, Clone, PartialEq)]
pub struct Rollout {
    /// The prompt's key
    pub prompt: u64,
    /// The prompt's tokens
    pub prompt_tokens: Vec<u32>,
    /// The response's tokens, its end mark included where it has one
    pub tokens: Vec<u32>,
    /// R
    pub reward: f64,
    /// Where R comes from
    pub reward_kind: RewardKind,
    /// Variance of R, 0 where it is exact
    pub reward_variance: f64,
    /// log μ of every token under the true sampling distribution, temperature and steering included
    pub log_probs_behaviour: Vec<f32>,
    /// log π_ref of every token
    pub log_probs_ref: Vec<f32>,
    /// L = Σ log π − log π_ref, as last computed
    pub log_ratio: f64,
    /// The update at which it was sampled
    pub born: u32,
    /// Responses sampled together for one prompt share a group
    pub group: u32,
}

impl Rollout {
    /// b = R − τ L
    pub fn soft_return(&self, tau: f64) -> f64 {
        self.reward - tau * self.log_ratio
    }

    /// log μ − log π_ref over the response
    pub fn behaviour_log_ratio(&self) -> f64 {
        let pairs = self.log_probs_behaviour.iter().zip(&self.log_probs_ref);
        pairs.map(|(behaviour, reference)| f64::from(*behaviour) - f64::from(*reference)).sum()
    }

    fn check(&self) -> Result<()> {
        let name = format!("a response to prompt {:016x}", self.prompt);
        let (tokens, behaviour, reference) = (self.tokens.len(), &self.log_probs_behaviour, &self.log_probs_ref);
        if tokens == 0 || behaviour.len() != tokens || reference.len() != tokens {
            let (behaviour, reference) = (behaviour.len(), reference.len());
            return Err(Error::run(format!(
                "{name} has {tokens} tokens, {behaviour} behaviour log-probabilities and {reference} of the reference"
            )));
        }
        if !(self.reward.is_finite() && self.reward_variance >= 0.0 && self.reward_variance.is_finite()) {
            let message = format!("{name} has reward {} with variance {}", self.reward, self.reward_variance);
            return Err(Error::run(message).hint("a reward must be a finite number"));
        }
        let is_log_prob = |x: &f32| x.is_finite() && *x <= 0.0;
        if !behaviour.iter().chain(reference).all(is_log_prob) || !self.log_ratio.is_finite() {
            let message = format!("{name} has a log-probability that is positive or not finite");
            return Err(Error::run(message).hint("a token outside the support of the reference cannot be weighed"));
        }
        Ok(())
    }
}

/// A bounded store, first in first out
#[derive(Debug, Clone, PartialEq)]
pub struct ReplayStore {
    capacity: usize,
    most_age: u32,
    rollouts: VecDeque<Rollout>,
}

impl ReplayStore {
    /// An empty store for `capacity` responses, each kept for at most `most_age` updates
    pub fn new(capacity: usize, most_age: u32) -> Result<Self> {
        if capacity == 0 {
            return Err(Error::usage("a replay store needs room for at least one response"));
        }
        Ok(Self { capacity, most_age, rollouts: VecDeque::new() })
    }

    /// Responses
    pub fn len(&self) -> usize {
        self.rollouts.len()
    }

    /// Whether there is none
    pub fn is_empty(&self) -> bool {
        self.rollouts.is_empty()
    }

    /// The responses, oldest first
    pub fn iter(&self) -> impl Iterator<Item = &Rollout> {
        self.rollouts.iter()
    }

    /// Response `i`, counted from the oldest
    pub fn get(&self, i: usize) -> Option<&Rollout> {
        self.rollouts.get(i)
    }

    /// Adds a response and gives back the one that had to leave
    pub fn push(&mut self, rollout: Rollout) -> Result<Option<Rollout>> {
        rollout.check()?;
        let leaving = if self.len() == self.capacity { self.rollouts.pop_front() } else { None };
        self.rollouts.push_back(rollout);
        Ok(leaving)
    }

    /// Takes out what is older than the store keeps
    pub fn expire(&mut self, now: u32) -> Vec<Rollout> {
        let is_old = |rollout: &Rollout| now.saturating_sub(rollout.born) > self.most_age;
        let (old, kept): (VecDeque<_>, VecDeque<_>) = self.rollouts.drain(..).partition(is_old);
        self.rollouts = kept;
        old.into()
    }

    /// Records L of response `i` under the present policy
    pub fn set_log_ratio(&mut self, i: usize, log_ratio: f64) -> Result<()> {
        let Some(rollout) = self.rollouts.get_mut(i).filter(|_| log_ratio.is_finite()) else {
            return Err(Error::run(format!("log-ratio {log_ratio} for response {i} of {}", self.len())));
        };
        rollout.log_ratio = log_ratio;
        Ok(())
    }

    /// b of every response to a prompt, oldest first
    pub fn soft_returns(&self, prompt: u64, tau: f64) -> Vec<f64> {
        self.iter().filter(|rollout| rollout.prompt == prompt).map(|rollout| rollout.soft_return(tau)).collect()
    }

    /// Restates a prompt's particle from the responses that are here
    pub fn refresh(&self, memory: &mut PromptMemory, prompt: Point<'_>, tau: f64, now: u32) -> Result<()> {
        memory.restate(prompt, &self.soft_returns(prompt.key, tau), now)
    }

    /// Mean age in updates
    pub fn mean_age(&self, now: u32) -> f64 {
        let ages = self.iter().map(|rollout| f64::from(now.saturating_sub(rollout.born)));
        ages.sum::<f64>() / self.len().max(1) as f64
    }

    /// Draws `count` positions with replacement, of which the first `fresh` share comes from the newest `newest` responses
    /// and the rest from all
    pub fn draw(&self, count: usize, newest: usize, fresh: f64, rng: &mut impl Rng) -> Vec<usize> {
        if self.is_empty() {
            return Vec::new();
        }
        let newest = newest.clamp(1, self.len());
        let from_newest = (fresh.clamp(0.0, 1.0) * count as f64).ceil() as usize;
        let draw = |i: usize, rng: &mut _| {
            if i < from_newest { self.len() - newest + below(rng, newest) } else { below(rng, self.len()) }
        };
        (0..count).map(|i| draw(i, rng)).collect()
    }

    /// The store as flat arrays
    pub fn to_arrays(&self, owner: &Owner) -> Arrays {
        let extra = json!({
            "capacity": self.capacity, "most_age": self.most_age, "rollouts": self.len(),
            "prompt_tokens": self.iter().map(|rollout| rollout.prompt_tokens.len()).sum::<usize>(),
            "tokens": self.iter().map(|rollout| rollout.tokens.len()).sum::<usize>(),
        });
        let kinds: Vec<u32> = self.iter().map(|rollout| rollout.reward_kind as u32).collect();
        let prompt_lengths = self.iter().map(|rollout| rollout.prompt_tokens.len() as u32);
        Arrays::new(Header::new(KIND, owner, extra))
            .with("prompt", self.iter().map(|rollout| rollout.prompt).collect::<Vec<u64>>())
            .with("prompt_length", prompt_lengths.collect::<Vec<u32>>())
            .with("prompt_tokens", self.flat(|rollout| &rollout.prompt_tokens))
            .with("length", self.iter().map(|rollout| rollout.tokens.len() as u32).collect::<Vec<u32>>())
            .with("tokens", self.flat(|rollout| &rollout.tokens))
            .with("reward", self.iter().map(|rollout| rollout.reward).collect::<Vec<f64>>())
            .with("reward_kind", kinds)
            .with("reward_variance", self.iter().map(|rollout| rollout.reward_variance).collect::<Vec<f64>>())
            .with("log_probs_behaviour", self.flat(|rollout| &rollout.log_probs_behaviour))
            .with("log_probs_ref", self.flat(|rollout| &rollout.log_probs_ref))
            .with("log_ratio", self.iter().map(|rollout| rollout.log_ratio).collect::<Vec<f64>>())
            .with("born", self.iter().map(|rollout| rollout.born).collect::<Vec<u32>>())
            .with("group", self.iter().map(|rollout| rollout.group).collect::<Vec<u32>>())
    }

    fn flat<T: Copy>(&self, of: impl Fn(&Rollout) -> &Vec<T>) -> Vec<T> {
        self.iter().flat_map(|rollout| of(rollout).iter().copied()).collect()
    }

    /// The store in the bytes of a file, which must belong to `owner`
    pub fn from_bytes(bytes: &[u8], owner: &Owner) -> Result<Self> {
        let mut arrays = Arrays::from_bytes(bytes, KIND, owner)?;
        let (capacity, n, tokens) = (arrays.size("capacity")?, arrays.size("rollouts")?, arrays.size("tokens")?);
        let mut store = Self::new(capacity, arrays.size("most_age")? as u32)?;
        let prompt_tokens = arrays.size("prompt_tokens")?;
        let damaged = || Error::usage(format!("the {KIND} is damaged: its lengths do not add up"));
        let lengths: Vec<u32> = arrays.take("length", n)?;
        let prompt_lengths: Vec<u32> = arrays.take("prompt_length", n)?;
        let add_up = |lengths: &[u32], to: usize| lengths.iter().map(|x| *x as usize).sum::<usize>() == to;
        if n > capacity || !add_up(&lengths, tokens) || !add_up(&prompt_lengths, prompt_tokens) {
            return Err(damaged());
        }
        let mut prompts = cut(arrays.take("prompt_tokens", prompt_tokens)?, &prompt_lengths);
        let mut responses = cut(arrays.take("tokens", tokens)?, &lengths);
        let mut behaviour = cut(arrays.take("log_probs_behaviour", tokens)?, &lengths);
        let mut reference = cut(arrays.take("log_probs_ref", tokens)?, &lengths);
        let keys: Vec<u64> = arrays.take("prompt", n)?;
        let [reward, variance, ratio] =
            ["reward", "reward_variance", "log_ratio"].map(|name| arrays.take::<f64>(name, n));
        let (reward, variance, ratio) = (reward?, variance?, ratio?);
        let [kind, born, group] = ["reward_kind", "born", "group"].map(|name| arrays.take::<u32>(name, n));
        let (kind, born, group) = (kind?, born?, group?);
        for i in 0..n {
            let rollout = Rollout {
                prompt: keys[i],
                prompt_tokens: std::mem::take(&mut prompts[i]),
                tokens: std::mem::take(&mut responses[i]),
                reward: reward[i],
                reward_kind: match kind[i] {
                    0 => RewardKind::Gold,
                    1 => RewardKind::Proxy,
                    2 => RewardKind::Imputed,
                    other => return Err(Error::usage(format!("the {KIND} is damaged: reward kind {other}"))),
                },
                reward_variance: variance[i],
                log_probs_behaviour: std::mem::take(&mut behaviour[i]),
                log_probs_ref: std::mem::take(&mut reference[i]),
                log_ratio: ratio[i],
                born: born[i],
                group: group[i],
            };
            store.push(rollout).map_err(|cause| cause.context(format!("the {KIND} is damaged")))?;
        }
        Ok(store)
    }
}

fn cut<T: Copy>(flat: Vec<T>, lengths: &[u32]) -> Vec<Vec<T>> {
    let mut rest = &flat[..];
    let pieces = lengths.iter().map(|length| {
        let (piece, after) = rest.split_at(*length as usize);
        rest = after;
        piece.to_vec()
    });
    pieces.collect()
}

/// Uniform in `0..bound` without bias (Lemire 2019), written here so that a run repeats across versions of a crate
fn below(rng: &mut impl Rng, bound: usize) -> usize {
    let bound = bound as u64;
    let reject_below = bound.wrapping_neg() % bound;
    loop {
        let product = u128::from(rng.next_u64()) * u128::from(bound);
        if product as u64 >= reject_below {
            return (product >> 64) as usize;
        }
    }
}
