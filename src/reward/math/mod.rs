//! Rewards that check a final answer against that of a column: numbers and formulas by value, anything else as text.

mod expression;
mod extract;
mod value;

use super::column::Column;
use super::text::Compared;
use super::{Reward, Sample, length};
use crate::{Error, Result};
use value::Answer;

/// TRL's column of the right answer
const SOLUTION: &str = "solution";
/// What ends the reasoning of a completion
const END_OF_REASONING: &str = "</think>";

/// The final answer of a completion against those of a row; none where no answer of the row holds anything
pub(super) fn math_answer(column: Option<&str>) -> Box<dyn Reward> {
    let function = |sample: &Sample<'_>, answers: &[String]| {
        let right: Vec<Answer> = answers
            .iter()
            .filter_map(|text| extract::final_answer(text).or_else(|| extract::whole(text)))
            .map(Answer::new)
            .collect();
        if right.is_empty() {
            return None;
        }
        let text = sample.completion_text();
        let given = extract::final_answer(&text).or_else(|| extract::whole(&text)).map(Answer::new);
        Some(truth(given.is_some_and(|given| right.iter().any(|right| right.equals(&given)))))
    };
    Box::new(Compared { name: "math_answer", column: Column::new(column), function })
}

/// TRL's `accuracy_reward`
pub(super) fn accuracy(column: Option<&str>) -> Box<dyn Reward> {
    let function = |sample: &Sample<'_>, answers: &[String]| is_accurate(&sample.completion_text(), answers).map(truth);
    Box::new(Compared { name: "accuracy_reward", column: Column::new(column.or(Some(SOLUTION))), function })
}

/// TRL's `reasoning_accuracy_reward`: reasoning that does not end is wrong, whatever the solution
pub(super) fn reasoning_accuracy(column: Option<&str>) -> Box<dyn Reward> {
    let function =
        |sample: &Sample<'_>, answers: &[String]| match sample.completion_text().rsplit_once(END_OF_REASONING) {
            None => Some(0.0),
            Some((_, answer)) => is_accurate(answer, answers).map(truth),
        };
    Box::new(Compared { name: "reasoning_accuracy_reward", column: Column::new(column.or(Some(SOLUTION))), function })
}

/// TRL's `get_cosine_scaled_reward` with its default bounds
pub(super) fn cosine_scaled(max: &str) -> Result<Box<dyn Reward>> {
    let max: usize = max.trim().parse().ok().filter(|max| *max > 0).ok_or_else(|| {
        Error::usage(format!("`get_cosine_scaled_reward:{max}`: expected a number of tokens from 1 up"))
    })?;
    let function = move |sample: &Sample<'_>, answers: &[String]| {
        let right = is_accurate(&sample.completion_text(), answers)?;
        Some(length::cosine(right, sample.completion_ids.len(), max))
    };
    Ok(Box::new(Compared { name: "cosine_scaled_reward", column: Column::new(Some(SOLUTION)), function }))
}

fn truth(fact: bool) -> f64 {
    f64::from(u8::from(fact))
}

/// Whether a completion's LaTeX answer is one of the solutions'; none where no solution holds mathematics
fn is_accurate(text: &str, solutions: &[String]) -> Option<bool> {
    let right: Vec<Answer> = solutions.iter().filter_map(|text| extract::solution(text)).map(Answer::new).collect();
    if right.is_empty() {
        return None;
    }
    let given = extract::latex_answer(text).map(Answer::new);
    Some(given.is_some_and(|given| right.iter().any(|right| right.equals(&given))))
}
