//! What a dataset and its examples look like, for whoever prints it.

use serde::Serialize;

use super::format::Format;
use super::preference::PreferenceExample;
use super::reader::Dataset;
use super::tokenize::LmExample;
use super::tokenizer::Tokenizer;
use crate::error::Result;

/// A token's text; several tokens where only together they make whole characters
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Span {
    /// Decoded text
    pub text: String,
    /// The ids behind it
    pub ids: Vec<u32>,
    /// Whether these tokens are targets
    pub carries_loss: bool,
}

/// Texts of `ids` with their loss mask
pub fn spans(ids: &[u32], loss: &[bool], tokenizer: &Tokenizer) -> Result<Vec<Span>> {
    /// Bytes of the longest UTF-8 character
    const LONGEST: usize = 4;
    let mut spans = Vec::new();
    let mut start = 0;
    while start < ids.len() {
        let alike = loss[start..].iter().take(LONGEST).take_while(|carries| **carries == loss[start]).count();
        let mut text = tokenizer.decode(&ids[start..=start], false)?;
        let mut taken = 1;
        for count in 2..=alike {
            if !text.contains('\u{fffd}') {
                break;
            }
            let longer = tokenizer.decode(&ids[start..start + count], false)?;
            if !longer.contains('\u{fffd}') {
                (text, taken) = (longer, count);
            }
        }
        spans.push(Span { text, ids: ids[start..start + taken].to_vec(), carries_loss: loss[start] });
        start += taken;
    }
    Ok(spans)
}

/// [`spans`] of a language-modelling example; its first token carries no loss, because nothing predicts it
pub fn lm_spans(example: &LmExample, tokenizer: &Tokenizer) -> Result<Vec<Span>> {
    let loss: Vec<bool> = example.loss.iter().enumerate().map(|(index, loss)| index > 0 && *loss).collect();
    spans(&example.ids, &loss, tokenizer)
}

/// [`spans`] of both sides of a preference example, chosen first
pub fn preference_spans(example: &PreferenceExample, tokenizer: &Tokenizer) -> Result<[Vec<Span>; 2]> {
    let side = |(prompt, completion): (&[u32], &[u32])| {
        let ids = [prompt, completion].concat();
        let loss: Vec<bool> = (0..ids.len()).map(|index| index > 0 && index >= prompt.len()).collect();
        spans(&ids, &loss, tokenizer)
    };
    Ok([side(example.chosen_sequence())?, side(example.rejected_sequence())?])
}

/// What a dataset holds
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Summary {
    /// The format that it was taken for
    pub format: Format,
    /// Columns in order of appearance
    pub columns: Vec<String>,
    /// Rows
    pub rows: usize,
    /// Lengths of the examples in tokens, where there are any
    pub lengths: Option<LengthStats>,
}

/// Lengths in tokens
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct LengthStats {
    /// Shortest
    pub min: usize,
    /// Half are not longer
    pub median: usize,
    /// 95 of 100 are not longer
    pub p95: usize,
    /// Longest
    pub max: usize,
    /// Average
    pub mean: f64,
    /// All together
    pub total: usize,
}

impl LengthStats {
    /// `None` for no lengths
    pub fn of(lengths: &[usize]) -> Option<Self> {
        let mut sorted = lengths.to_vec();
        sorted.sort_unstable();
        // Nearest rank, so that every figure is the length of some example
        let rank = |percent: usize| sorted[(sorted.len() * percent).div_ceil(100).max(1) - 1];
        let total = sorted.iter().sum();
        Some(Self {
            min: *sorted.first()?,
            median: rank(50),
            p95: rank(95),
            max: *sorted.last()?,
            mean: total as f64 / sorted.len() as f64,
            total,
        })
    }
}

/// Summary of a dataset taken for `format`, with the lengths of its examples
pub fn summarize(dataset: &Dataset, format: Format, lengths: &[usize]) -> Summary {
    Summary { format, columns: dataset.columns.clone(), rows: dataset.rows.len(), lengths: LengthStats::of(lengths) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks_are_nearest_ranks() {
        let stats = LengthStats::of(&(1..=20).rev().collect::<Vec<_>>()).unwrap();
        assert_eq!((stats.min, stats.median, stats.p95, stats.max, stats.total), (1, 10, 19, 20, 210));
        assert_eq!(LengthStats::of(&[]), None);
    }
}
