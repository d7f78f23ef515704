//! Rewards: what judges a finished text. One interface for every online trainer.
//!
//! `reward_funcs` is read by [`Spec`], which knows the kinds of this room by one table ([`KINDS`]); a reward model is
//! left to the caller. [`Rewards`] asks every function about a batch, and adds what they say by weight.

mod answer;
mod child;
mod column;
mod command;
mod format;
mod http;
mod length;
mod lexicon;
mod math;
mod spec;
mod text;
mod walk;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Map, Value};
use tracing::warn;

pub use command::CommandReward;
pub use http::HttpReward;
pub use lexicon::Lexicon;
pub use spec::{Argument, KINDS, Kind, OTHER_KINDS, Spec};

use crate::{Error, Result};

/// One completion to be judged, and all that is known about it
#[derive(Debug, Clone, Copy)]
pub struct Sample<'a> {
    /// A text, or a list of messages
    pub prompt: &'a Value,
    /// A text, or a list of messages, as the prompt is
    pub completion: &'a Value,
    /// Tokens of the completion, EOS included where it was produced
    pub completion_ids: &'a [u32],
    /// All columns of the dataset row
    pub columns: &'a Map<String, Value>,
    /// Whether the completion was cut at `max_completion_length` rather than ended
    pub truncated: bool,
}

impl Sample<'_> {
    /// The completion as one text: the content of its message where it is one
    pub fn completion_text(&self) -> Cow<'_, str> {
        match self.completion {
            Value::String(text) => Cow::Borrowed(text),
            Value::Array(messages) => match messages.as_slice() {
                [one] => Cow::Borrowed(content(one)),
                several => Cow::Owned(several.iter().map(content).collect::<Vec<_>>().join("\n")),
            },
            _ => Cow::Borrowed(""),
        }
    }
}

fn content(message: &Value) -> &str {
    message["content"].as_str().unwrap_or_default()
}

/// Asked again and again while a reward is waited for; its error ends the wait and comes back to the caller
pub type Check<'a> = &'a dyn Fn() -> Result<()>;

/// What judges finished texts
pub trait Reward: Send {
    /// What metrics and the completions table call it: `rewards/NAME/mean`
    fn name(&self) -> &str;

    /// Whether a row has what this reward needs, so that a run need not begin in vain
    fn check_row(&self, _columns: &Map<String, Value>) -> Result<()> {
        Ok(())
    }

    /// One value a sample, in order; `None` where it cannot judge
    ///
    /// # Errors
    /// It failed, after its retries; what `check` returned
    fn score(&mut self, samples: &[Sample<'_>], check: Check<'_>) -> Result<Vec<Option<f64>>>;
}

/// How long and how often a child process or a server is asked
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// A child: longest wait for one answer; a server: longest wait for a batch
    pub timeout: Duration,
    /// Further attempts after one that failed
    pub retries: u32,
    /// Wait before the first further attempt; doubled for each later one
    pub backoff: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self { timeout: Duration::from_secs(300), retries: 2, backoff: Duration::from_secs(1) }
    }
}

impl Options {
    /// Waits before attempt `attempt`, counted from 1, and stays open to `check`
    fn wait_before(&self, attempt: u32, at_least: Duration, check: Check<'_>) -> Result<()> {
        const SLICE: Duration = Duration::from_millis(20);
        let doubled = self.backoff.saturating_mul(1 << (attempt - 1).min(10));
        let until = std::time::Instant::now() + doubled.max(at_least);
        while let Some(left) = until.checked_duration_since(std::time::Instant::now()) {
            check()?;
            std::thread::sleep(left.min(SLICE));
        }
        Ok(())
    }
}

/// What all rewards said about a batch
#[derive(Debug, Clone, PartialEq)]
pub struct Scores {
    /// By function, then by sample
    pub by_function: Vec<Vec<Option<f64>>>,
    /// Weighted sum over the functions that could judge; `None` where none could
    pub total: Vec<Option<f64>>,
}

/// All rewards of a run, with their weights
pub struct Rewards {
    functions: Vec<Box<dyn Reward>>,
    names: Vec<String>,
    weights: Vec<f64>,
}

impl Rewards {
    /// From functions and `reward_weights` (1 each where there are none)
    ///
    /// # Errors
    /// No function; another number of weights than of functions; a weight that is no finite number
    pub fn new(functions: Vec<Box<dyn Reward>>, weights: Option<&[f64]>) -> Result<Self> {
        if functions.is_empty() {
            return Err(Error::usage("no reward: `reward_funcs` is empty")
                .hint("name one, such as `--reward_funcs exact_match`; `collimate doctor --rewards` lists them"));
        }
        let weights = weights.map_or_else(|| vec![1.0; functions.len()], <[f64]>::to_vec);
        if weights.len() != functions.len() {
            return Err(Error::usage(format!(
                "`reward_weights` has {} values for {} rewards, expected one each",
                weights.len(),
                functions.len()
            )));
        }
        if let Some(weight) = weights.iter().find(|weight| !weight.is_finite()) {
            return Err(Error::usage(format!("`reward_weights` holds `{weight}`, expected finite numbers")));
        }
        let names = distinct(functions.iter().map(|function| function.name()));
        Ok(Self { functions, names, weights })
    }

    /// From `reward_funcs` and `reward_weights`; `model` loads a reward model by folder or Hub id
    ///
    /// # Errors
    /// As [`Spec::parse`], [`Spec::build`] and [`Rewards::new`]
    pub fn from_config(
        reward_funcs: &[String],
        reward_weights: Option<&[f64]>,
        options: Options,
        mut model: impl FnMut(&str) -> Result<Box<dyn Reward>>,
    ) -> Result<Self> {
        // All are parsed before the first is built: a slip in the last one must not wait for a model to load
        let specs = reward_funcs.iter().map(|text| Spec::parse(text)).collect::<Result<Vec<_>>>()?;
        let functions = specs.into_iter().map(|spec| match spec {
            Spec::Model(name) => model(&name),
            other => other.build(options),
        });
        Self::new(functions.collect::<Result<_>>()?, reward_weights)
    }

    /// Names for metrics and the completions table, each once: a second `regex` is `regex_2`
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// The weights, in the order of the names
    pub fn weights(&self) -> &[f64] {
        &self.weights
    }

    /// Whether a row has the columns that the rewards need
    ///
    /// # Errors
    /// A column is missing
    pub fn check_row(&self, columns: &Map<String, Value>) -> Result<()> {
        self.functions.iter().try_for_each(|function| function.check_row(columns))
    }

    /// Asks every function about every sample
    ///
    /// # Errors
    /// A function failed, gave another number of values than there are samples, or one that is NaN or infinite; what
    /// `check` returned
    pub fn score(&mut self, samples: &[Sample<'_>], check: Check<'_>) -> Result<Scores> {
        let mut by_function = Vec::with_capacity(self.functions.len());
        if samples.is_empty() {
            by_function.resize(self.functions.len(), Vec::new());
            return Ok(Scores { by_function, total: Vec::new() });
        }
        for (function, name) in self.functions.iter_mut().zip(&self.names) {
            check()?;
            let values = function.score(samples, check)?;
            if values.len() != samples.len() {
                return Err(Error::run(format!(
                    "reward `{name}` gave {} values for {} samples",
                    values.len(),
                    samples.len()
                )));
            }
            if let Some(index) = values.iter().position(|value| value.is_some_and(|value| !value.is_finite())) {
                let value = values[index].unwrap_or(f64::NAN);
                return Err(Error::run(format!(
                    "reward `{name}` is {value} for sample {} of {}: {}",
                    index + 1,
                    samples.len(),
                    answer::describe(&samples[index])
                ))
                .hint("a reward that cannot judge a sample says `null`"));
            }
            by_function.push(values);
        }
        let total: Vec<_> = (0..samples.len()).map(|sample| self.total(&by_function, sample)).collect();
        if let Some(index) = total.iter().position(Option::is_none) {
            let count = total.iter().filter(|value| value.is_none()).count();
            let sample = answer::describe(&samples[index]);
            warn!("no reward could judge {count} of {} samples; the first: {sample}", samples.len());
        }
        Ok(Scores { by_function, total })
    }

    fn total(&self, by_function: &[Vec<Option<f64>>], sample: usize) -> Option<f64> {
        let terms = by_function.iter().zip(&self.weights);
        terms.filter_map(|(values, weight)| values[sample].map(|value| value * weight)).reduce(|sum, term| sum + term)
    }
}

/// Names in order, a repeated one with its count
fn distinct<'a>(names: impl Iterator<Item = &'a str>) -> Vec<String> {
    let mut seen = BTreeMap::new();
    names
        .map(|name| {
            let count = seen.entry(name.to_owned()).and_modify(|count| *count += 1).or_insert(1);
            if *count == 1 { name.to_owned() } else { format!("{name}_{count}") }
        })
        .collect()
}
