//! Rows to token examples, id for id as TRL 1.16's `SFTTrainer`, `DPOTrainer` and online trainers prepare them.
//!
//! Prompt and completion are tokenised together and cut where they part from the prompt's own tokens. EOS is appended to
//! rows of plain text that do not end in it; a conversation ends as its chat template ends it. Rows that violate the
//! format are errors with their place; rows that can teach nothing are dropped and counted.

use std::path::Path;

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::encoder::{Encoder, Marked};
use super::format::{Content, Format, Kind, leading_column};
use super::reader::Dataset;
use super::record::Row;
use super::report::{Outcome, Prepared, collect};
use super::tokenized::{tokenized_row, warn_of_ignored_mask};
use super::tokenizer::Tokenizer;
use crate::error::{Error, Result};

/// Which end of a text survives `max_length`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Truncation {
    /// The first tokens
    #[default]
    KeepStart,
    /// The last tokens
    KeepEnd,
}

/// A text to model
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LmExample {
    /// Token ids
    pub ids: Vec<u32>,
    /// Which tokens are targets; nothing predicts the first token, so its entry never counts
    pub loss: Vec<bool>,
}

/// How language-modelling examples are made
#[derive(Debug, Clone)]
pub struct LmOptions {
    /// Column of plain text
    pub text_field: String,
    /// Loss on the completion alone; by default for rows with prompt and completion
    pub completion_only_loss: Option<bool>,
    /// Loss on assistant turns alone
    pub assistant_only_loss: bool,
    /// Longest example
    pub max_length: Option<usize>,
    /// Which end survives
    pub truncation: Truncation,
}

impl Default for LmOptions {
    fn default() -> Self {
        Self {
            text_field: "text".to_string(),
            completion_only_loss: None,
            assistant_only_loss: false,
            max_length: Some(1024),
            truncation: Truncation::KeepStart,
        }
    }
}

/// A prompt to generate from
#[derive(Debug, Clone, PartialEq)]
pub struct PromptExample {
    /// Token ids
    pub ids: Vec<u32>,
    /// The whole row, whose columns travel to the reward
    pub row: Row,
}

/// How prompts are made
#[derive(Debug, Clone, Default)]
pub struct PromptOptions {
    /// Longer prompts are dropped: a model with absolute positions has no room for a completion after them
    pub max_prompt_length: Option<usize>,
}

const NO_TOKENS: &str = "no token to learn from";
const CUT_AWAY: &str = "no completion token left within `max_length`";
pub(super) const NO_MESSAGES: &str = "a conversation without messages";

/// Examples for supervised fine-tuning
pub fn lm_examples(dataset: &Dataset, tokenizer: &Tokenizer, options: &LmOptions) -> Result<Prepared<LmExample>> {
    const KINDS: [Kind; 3] = [Kind::Tokenized, Kind::PromptCompletion, Kind::LanguageModeling];
    let needs = format!("`{}`, `messages`, or `prompt` with `completion`", options.text_field);
    let format = Format::among(dataset, &KINDS, &options.text_field, &needs)?;
    if options.assistant_only_loss && !format.conversational && format.kind != Kind::Tokenized {
        return Err(Error::usage("`assistant_only_loss` needs conversations, and these rows are texts")
            .hint("rows with `prompt` and `completion` have the loss on the completion alone without it"));
    }
    let encoder = Encoder::new(tokenizer, format.conversational)?;
    if format.kind == Kind::Tokenized {
        warn_of_ignored_mask(dataset, options);
    }
    let prepared = build_lm(dataset, options, format, &encoder)?;
    if options.assistant_only_loss && format.kind != Kind::Tokenized {
        warn_of_endless_turns(&prepared.examples[0], tokenizer);
    }
    Ok(prepared)
}

/// A template may leave the token that ends a turn outside its marks
fn warn_of_endless_turns(example: &LmExample, tokenizer: &Tokenizer) {
    let Some(eos) = tokenizer.eos_id() else { return };
    let learns = example.ids.iter().zip(&example.loss).any(|(id, carries)| *id == eos && *carries);
    if !learns {
        tracing::warn!(
            "with `assistant_only_loss` the model does not learn to end its turn: the chat template has the EOS token outside \
             `{{% generation %}}`, or not at all"
        );
    }
}

fn build_lm(
    dataset: &Dataset,
    options: &LmOptions,
    format: Format,
    encoder: &Encoder<'_>,
) -> Result<Prepared<LmExample>> {
    build(dataset, |row| {
        format.check(row, &options.text_field)?;
        let (mut example, boundary) = match format.kind {
            Kind::Tokenized => (tokenized_row(row, encoder.vocab, options)?, None),
            Kind::PromptCompletion => {
                let prompt = Content::of(row, "prompt", format.conversational)?;
                let completion = Content::of(row, "completion", format.conversational)?;
                let Some(joined) = encoder.joined(row, &prompt, &[&completion])? else {
                    return Ok(Outcome::Dropped(NO_MESSAGES));
                };
                let ids = joined.prompt.iter().chain(&joined.completions[0]).copied().collect::<Vec<_>>();
                let masked = if options.completion_only_loss.unwrap_or(true) { joined.prompt.len() } else { 0 };
                let mut loss: Vec<bool> = (0..ids.len()).map(|index| index >= masked).collect();
                if let (true, Content::Messages(prompt), Content::Messages(completion)) =
                    (options.assistant_only_loss, &prompt, &completion)
                {
                    let messages = [prompt.as_slice(), completion.as_slice()].concat();
                    let marked = encoder.whole_marked(row, &messages)?;
                    let generated = marked.map_or_else(Vec::new, |marked| marked.generated);
                    loss.iter_mut().zip(generated).for_each(|(target, generated)| *target &= generated);
                }
                (LmExample { ids, loss }, joined.boundary)
            }
            _ => {
                let column = leading_column(row, format.kind, &options.text_field);
                let content = Content::of(row, column, format.conversational)?;
                let marked = match &content {
                    Content::Messages(messages) if options.assistant_only_loss => {
                        encoder.whole_marked(row, messages)?
                    }
                    _ => encoder.whole(row, &content)?.map(|ids| Marked { generated: vec![true; ids.len()], ids }),
                };
                let Some(Marked { ids, generated: loss }) = marked else {
                    return Ok(Outcome::Dropped(NO_MESSAGES));
                };
                (LmExample { ids, loss }, None)
            }
        };
        let learns = |example: &LmExample| example.loss.iter().skip(1).any(|target| *target);
        if !learns(&example) {
            return Ok(Outcome::Dropped(NO_TOKENS));
        }
        if let Some(max_length) = options.max_length {
            truncate(&mut example.ids, max_length, options.truncation);
            truncate(&mut example.loss, max_length, options.truncation);
        }
        if !learns(&example) {
            return Ok(Outcome::Dropped(CUT_AWAY));
        }
        Ok(Outcome::Used { example, boundary, equal: false })
    })
}

/// Prompts for generation
pub fn prompt_examples(
    dataset: &Dataset,
    tokenizer: &Tokenizer,
    options: &PromptOptions,
) -> Result<Prepared<PromptExample>> {
    let format = Format::among(dataset, &[Kind::PromptOnly], "text", "`prompt`")?;
    let encoder = Encoder::new(tokenizer, format.conversational)?;
    build(dataset, |row| {
        format.check(row, "text")?;
        let Some(ids) = encoder.prompt(row, &Content::of(row, "prompt", format.conversational)?)? else {
            return Ok(Outcome::Dropped(NO_MESSAGES));
        };
        if ids.is_empty() {
            return Ok(Outcome::Dropped("a prompt without tokens"));
        }
        if options.max_prompt_length.is_some_and(|longest| ids.len() > longest) {
            return Ok(Outcome::Dropped("the prompt leaves no room for a completion"));
        }
        Ok(Outcome::used(PromptExample { ids, row: row.clone() }))
    })
}

/// What each row becomes, in order; the first row that fails is the one that is told of
pub(super) fn in_parallel<T: Send>(
    dataset: &Dataset,
    of_row: impl Fn(&Row) -> Result<T> + Sync + Send,
) -> Result<Vec<T>> {
    let all: Vec<Result<T>> = dataset.rows.par_iter().map(of_row).collect();
    all.into_iter().collect()
}

pub(super) fn build<T: Send>(
    dataset: &Dataset,
    example: impl Fn(&Row) -> Result<Outcome<T>> + Sync + Send,
) -> Result<Prepared<T>> {
    let outcomes: Vec<Result<Outcome<T>>> = dataset.rows.par_iter().map(example).collect();
    let path: &Path = &dataset.path;
    collect(path, dataset.rows.iter().map(|row| &row.place).zip(outcomes))
}

pub(super) fn truncate<T>(values: &mut Vec<T>, max_length: usize, truncation: Truncation) {
    match truncation {
        Truncation::KeepStart => values.truncate(max_length),
        Truncation::KeepEnd => drop(values.drain(..values.len().saturating_sub(max_length))),
    }
}
