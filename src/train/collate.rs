//! Examples laid end to end as a ragged batch: real tokens only, a shared prompt once.

use std::sync::Arc;

use candle_core::Result;

use crate::data::{LmExample, PreferenceExample};
use crate::ops::Ragged;

/// Tokens of several sequences, and the (row, token) pairs whose log-probability a loss needs
#[derive(Debug, Default)]
pub struct Batch {
    /// Token ids, (N,)
    pub ids: Vec<u32>,
    /// Where sequences begin and end
    pub layout: Arc<Ragged>,
    /// Rows of the hidden states that predict a token of the loss, (M,)
    pub rows: Vec<u32>,
    /// The tokens that they predict, (M,)
    pub targets: Vec<u32>,
    /// How many consecutive pairs belong to each sequence
    pub counts: Vec<usize>,
    /// Tokens of all sequences, shared prompts counted once for each sequence that has them
    pub tokens: u64,
}

impl Batch {
    /// One sequence for each example; the pairs are its loss tokens
    pub fn of_texts<'a>(examples: impl IntoIterator<Item = &'a LmExample>) -> Result<Self> {
        let (mut batch, mut layout) = (Self::default(), Ragged::new());
        for example in examples {
            let start = layout.rows();
            layout.push(example.ids.len(), None)?;
            batch.ids.extend_from_slice(&example.ids);
            let before = batch.rows.len();
            for (i, &carries_loss) in example.loss.iter().enumerate().skip(1) {
                if carries_loss {
                    batch.rows.push((start + i - 1) as u32);
                    batch.targets.push(example.ids[i]);
                }
            }
            batch.counts.push(batch.rows.len() - before);
            batch.tokens += example.ids.len() as u64;
        }
        batch.layout = Arc::new(layout);
        Ok(batch)
    }

    /// Two sequences for each pair, all chosen completions before all rejected ones in `counts`; the pairs are the
    /// completion tokens. A prompt that both share is laid down once.
    pub fn of_pairs<'a>(examples: impl IntoIterator<Item = &'a PreferenceExample>) -> Result<Self> {
        Ok(Self::of_pairs_and_prompts(examples)?.0)
    }

    /// [`Self::of_pairs`], and the (row, token) pairs of the chosen sequences' prompts
    pub fn of_pairs_and_prompts<'a>(
        examples: impl IntoIterator<Item = &'a PreferenceExample>,
    ) -> Result<(Self, Vec<(u32, u32)>)> {
        let (mut batch, mut layout) = (Self::default(), Ragged::new());
        let mut halves = [Half::default(), Half::default()];
        let mut prompts = Vec::new();
        for example in examples {
            let sides = [example.chosen_sequence(), example.rejected_sequence()];
            // Rows after the last token of a completion predict nothing that counts
            let shared = (sides[0].0 == sides[1].0 && !sides[0].0.is_empty()).then_some(sides[0].0);
            let prompt_start = layout.rows();
            let prompt = shared.map(|ids| batch.lay(&mut layout, ids, None)).transpose()?;
            // Shared or not, the chosen side's prompt is what is laid down next
            prompts.extend(sides[0].0.iter().skip(1).enumerate().map(|(i, &id)| ((prompt_start + i) as u32, id)));
            for ((prompt_ids, completion), half) in sides.into_iter().zip(&mut halves) {
                batch.tokens += (prompt_ids.len() + completion.len()) as u64;
                let (mut last, first) = if let Some(segment) = prompt {
                    let first = layout.rows();
                    batch.lay(&mut layout, completion, Some(segment))?;
                    (Some(prompt_start + prompt_ids.len() - 1), first)
                } else {
                    let start = layout.rows();
                    batch.lay(&mut layout, &[prompt_ids, completion].concat(), None)?;
                    let first = start + prompt_ids.len();
                    (first.checked_sub(1).filter(|row| *row >= start), first)
                };
                let before = half.rows.len();
                for (i, &token) in completion.iter().enumerate() {
                    // A completion without any prompt has nothing that predicts its first token
                    if let Some(row) = last {
                        half.rows.push(row as u32);
                        half.targets.push(token);
                    }
                    last = Some(first + i);
                }
                half.counts.push(half.rows.len() - before);
            }
        }
        for half in halves {
            batch.rows.extend(half.rows);
            batch.targets.extend(half.targets);
            batch.counts.extend(half.counts);
        }
        batch.layout = Arc::new(layout);
        Ok((batch, prompts))
    }

    /// One sequence for each prompt and completion; the pairs are the completion tokens. Consecutive sequences of one
    /// prompt lay it down once.
    pub fn of_completions<'a>(sequences: impl IntoIterator<Item = (&'a [u32], &'a [u32])>) -> Result<Self> {
        let (mut batch, mut layout) = (Self::default(), Ragged::new());
        let mut shared: Option<(&[u32], usize, usize)> = None;
        for (prompt, completion) in sequences {
            batch.tokens += (prompt.len() + completion.len()) as u64;
            if prompt.is_empty() {
                // Nothing predicts its first token
                let start = layout.rows();
                batch.lay(&mut layout, completion, None)?;
                batch.rows.extend((start..).map(|row| row as u32).take(completion.len() - 1));
                batch.targets.extend_from_slice(&completion[1..]);
                batch.counts.push(completion.len() - 1);
                continue;
            }
            let (segment, last) = match shared {
                Some((known, segment, last)) if std::ptr::eq(known, prompt) => (segment, last),
                _ => {
                    let last = layout.rows() + prompt.len() - 1;
                    let segment = batch.lay(&mut layout, prompt, None)?;
                    shared = Some((prompt, segment, last));
                    (segment, last)
                }
            };
            let first = layout.rows();
            // Nothing is predicted from a completion's last token
            if completion.len() > 1 {
                batch.lay(&mut layout, &completion[..completion.len() - 1], Some(segment))?;
            }
            let predictors = std::iter::once(last).chain(first..);
            for (row, &token) in predictors.zip(completion) {
                batch.rows.push(row as u32);
                batch.targets.push(token);
            }
            batch.counts.push(completion.len());
        }
        batch.layout = Arc::new(layout);
        Ok(batch)
    }

    fn lay(&mut self, layout: &mut Ragged, ids: &[u32], prefix: Option<usize>) -> Result<usize> {
        self.ids.extend_from_slice(ids);
        layout.push(ids.len(), prefix)
    }
}

/// The pairs of one side of preference examples
#[derive(Default)]
struct Half {
    rows: Vec<u32>,
    targets: Vec<u32>,
    counts: Vec<usize>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn completions_share_their_prompt_and_end_before_their_last_token() {
        let (prompts, completions) = ([vec![1_u32, 2], vec![3]], [vec![4_u32, 5], vec![6], vec![7, 8]]);
        let of = [0, 0, 1];
        let sequences = of.iter().zip(&completions).map(|(&p, answer)| (&prompts[p][..], &answer[..]));
        let batch = Batch::of_completions(sequences).unwrap();
        assert_eq!(batch.ids, [1, 2, 4, 3, 7]);
        assert_eq!(batch.rows, [1, 2, 1, 3, 4]);
        assert_eq!((batch.targets, batch.counts, batch.tokens), (vec![4, 5, 6, 7, 8], vec![2, 1, 2], 10));
    }

    #[test]
    fn texts_take_the_token_before_each_loss_token() {
        let text = |ids: &[u32], loss: &[bool]| LmExample { ids: ids.to_vec(), loss: loss.to_vec() };
        let examples = [text(&[5, 6, 7], &[true, false, true]), text(&[8, 9], &[true, true])];
        let batch = Batch::of_texts(&examples).unwrap();
        assert_eq!(batch.ids, [5, 6, 7, 8, 9]);
        assert_eq!((batch.rows, batch.targets, batch.counts), (vec![1, 3], vec![7, 9], vec![1, 1]));
        assert_eq!(batch.tokens, 5);
    }

    #[test]
    fn pairs_share_a_prompt_and_give_its_tokens() {
        let pair = |prompt: &[u32], cut: [usize; 2]| PreferenceExample {
            prompt: prompt.to_vec(),
            chosen: vec![7, 8],
            rejected: vec![9],
            prompt_cut: cut,
        };
        let (batch, prompts) =
            Batch::of_pairs_and_prompts(&[pair(&[4, 5, 6], [0, 0]), pair(&[4, 5, 6], [1, 0])]).unwrap();
        assert_eq!(batch.ids, [4, 5, 6, 7, 8, 9, 5, 6, 7, 8, 4, 5, 6, 9]);
        // Chosen completions of both pairs, then the rejected ones
        assert_eq!((batch.rows, batch.targets), (vec![2, 3, 7, 8, 2, 12], vec![7, 8, 7, 8, 9, 9]));
        assert_eq!((batch.counts, prompts), (vec![2, 2, 1, 1], vec![(0, 5), (1, 6), (6, 6)]));
        let empty = Batch::of_pairs(&[pair(&[], [0, 0])]).unwrap();
        assert_eq!((empty.targets, empty.counts), (vec![8], vec![1, 0]));
        let completions = Batch::of_completions([(&[4, 5][..], &[6][..])]).unwrap();
        assert_eq!((completions.rows, completions.targets), (vec![1], vec![6]));
    }
}
