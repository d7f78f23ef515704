//! Rewards that look at the text of the completion alone, or beside a column.

use fancy_regex::Regex;
use serde_json::{Map, Value};

use super::column::Column;
use super::{Check, Lexicon, Reward, Sample, answer};
use crate::{Error, Result};

/// A reward that is a function of one sample
pub(super) struct PerSample<F> {
    pub name: &'static str,
    pub function: F,
}

impl<F: FnMut(&Sample<'_>) -> Result<Option<f64>> + Send> Reward for PerSample<F> {
    fn name(&self) -> &str {
        self.name
    }

    fn score(&mut self, samples: &[Sample<'_>], _check: Check<'_>) -> Result<Vec<Option<f64>>> {
        samples.iter().map(&mut self.function).collect()
    }
}

/// A reward that compares the text of one sample with the answers of its row
pub(super) struct Compared<F> {
    pub name: &'static str,
    pub column: Column,
    pub function: F,
}

impl<F: Fn(&Sample<'_>, &[String]) -> Option<f64> + Send> Reward for Compared<F> {
    fn name(&self) -> &str {
        self.name
    }

    fn check_row(&self, columns: &Map<String, Value>) -> Result<()> {
        self.column.check(self.name, columns)
    }

    fn score(&mut self, samples: &[Sample<'_>], _check: Check<'_>) -> Result<Vec<Option<f64>>> {
        let judge = |sample: &Sample<'_>| {
            let answers = self.column.answers(self.name, sample.columns)?;
            Ok(if answers.is_empty() { None } else { (self.function)(sample, &answers) })
        };
        samples.iter().map(judge).collect()
    }
}

fn truth(fact: bool) -> f64 {
    f64::from(u8::from(fact))
}

pub(super) fn regex(pattern: &str) -> Result<Box<dyn Reward>> {
    let regex = Regex::new(pattern).map_err(|cause| Error::usage(format!("`regex:{pattern}`: {cause}")))?;
    let function = move |sample: &Sample<'_>| {
        let text = sample.completion_text();
        regex.is_match(&text).map(|found| Some(truth(found))).map_err(|cause| {
            Error::run(format!("reward `regex`: {cause}, on {}", answer::describe(sample)))
                .hint("a pattern without nested repetition takes a time that grows with the text alone")
        })
    };
    Ok(Box::new(PerSample { name: "regex", function }))
}

pub(super) fn contains(word: &str) -> Box<dyn Reward> {
    let word = word.to_owned();
    let function = move |sample: &Sample<'_>| Ok(Some(truth(sample.completion_text().contains(&word))));
    Box::new(PerSample { name: "contains", function })
}

pub(super) fn exact_match(column: Option<&str>) -> Box<dyn Reward> {
    let function = |sample: &Sample<'_>, answers: &[String]| {
        let text = sample.completion_text();
        Some(truth(answers.iter().any(|answer| answer.trim() == text.trim())))
    };
    Box::new(Compared { name: "exact_match", column: Column::new(column), function })
}

pub(super) fn lexicon(file: &str) -> Result<Box<dyn Reward>> {
    let json = std::fs::read(file).map_err(|cause| Error::read(file, cause))?;
    let lexicon = Lexicon::from_json(&json).map_err(|error| error.context(format!("`{file}`")))?;
    let function = move |sample: &Sample<'_>| Ok(Some(lexicon.score(&sample.completion_text())));
    Ok(Box::new(PerSample { name: "lexicon", function }))
}
