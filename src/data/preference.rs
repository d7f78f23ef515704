//! Rows to pairs of completions and to single completions with a label, id for id as TRL 1.16's `DPOTrainer`, `KTOTrainer`
//! and, where the ends are framed, its `ORPOTrainer` and `CPOTrainer` prepare them.

use serde_json::{Map, Value};

use super::encoder::{Encoder, Joined};
use super::format::{Content, Format, Kind, extract_messages, extract_prompt};
use super::reader::Dataset;
use super::record::{Row, type_name};
use super::report::{Outcome, Prepared};
use super::tokenize::{NO_MESSAGES, Truncation, build, truncate};
use super::tokenizer::Tokenizer;
use crate::error::{Error, Result};

const EMPTY_COMPLETION: &str = "a completion without tokens";
const PROMPT_FILLS: &str = "the prompt alone fills `max_length`";
const NOTHING_BEFORE: &str = "an empty prompt before a completion of one token, which nothing predicts";
const NO_SHARED_PROMPT: &str = "an empty `chosen` or `rejected`, so that no prompt can be found in them";
const PAIR_COLUMNS: &str = "`chosen` with `rejected`, and best a `prompt`,";

/// A prompt with two completions. `max_length` has been applied: with [`Truncation::KeepEnd`] each side may have lost a
/// different part of the prompt, so take the sequences from [`Self::chosen_sequence`] and [`Self::rejected_sequence`]
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PreferenceExample {
    /// The prompt, whole
    pub prompt: Vec<u32>,
    /// The better completion, its EOS included
    pub chosen: Vec<u32>,
    /// The worse completion, its EOS included
    pub rejected: Vec<u32>,
    /// Prompt tokens cut from the beginning of each side's sequence
    pub prompt_cut: [usize; 2],
}

impl PreferenceExample {
    /// Prompt part and completion of the chosen side
    pub fn chosen_sequence(&self) -> (&[u32], &[u32]) {
        (&self.prompt[self.prompt_cut[0]..], &self.chosen)
    }

    /// Prompt part and completion of the rejected side
    pub fn rejected_sequence(&self) -> (&[u32], &[u32]) {
        (&self.prompt[self.prompt_cut[1]..], &self.rejected)
    }
}

/// How preference examples are made
#[derive(Debug, Clone)]
pub struct PreferenceOptions {
    /// Longest prompt and completion
    pub max_length: Option<usize>,
    /// Which end survives
    pub truncation: Truncation,
}

impl Default for PreferenceOptions {
    fn default() -> Self {
        Self { max_length: Some(1024), truncation: Truncation::KeepStart }
    }
}

impl PreferenceExample {
    /// Cuts both sides to `max_length`, or says why nothing is left
    fn cut(
        prompt: Vec<u32>,
        mut completions: [Vec<u32>; 2],
        options: &PreferenceOptions,
    ) -> std::result::Result<Self, &'static str> {
        let mut prompt_cut = [0; 2];
        if let Some(max_length) = options.max_length {
            match options.truncation {
                Truncation::KeepStart => {
                    let room = max_length.saturating_sub(prompt.len());
                    if room == 0 {
                        return Err(PROMPT_FILLS);
                    }
                    for ids in &mut completions {
                        ids.truncate(room);
                    }
                }
                Truncation::KeepEnd => {
                    for (ids, cut) in completions.iter_mut().zip(&mut prompt_cut) {
                        *cut = (prompt.len() + ids.len()).saturating_sub(max_length).min(prompt.len());
                        truncate(ids, max_length, Truncation::KeepEnd);
                    }
                }
            }
        }
        let [chosen, rejected] = completions;
        Ok(Self { prompt, chosen, rejected, prompt_cut })
    }

    /// Why nothing can be learnt from it, if that is so
    fn useless(&self) -> Option<&'static str> {
        let predicted = [self.chosen_sequence(), self.rejected_sequence()]
            .map(|(prompt, completion)| completion.len() - usize::from(prompt.is_empty() && !completion.is_empty()));
        predicted.contains(&0).then_some(NOTHING_BEFORE)
    }
}

/// Examples for DPO and its relatives
pub fn preference_examples(
    dataset: &Dataset,
    tokenizer: &Tokenizer,
    options: &PreferenceOptions,
) -> Result<Prepared<PreferenceExample>> {
    pairs(dataset, tokenizer, options, &|_, _| {})
}

/// Examples whose prompt begins with the tokenizer's BOS token and whose completions end in EOS, whatever the chat
/// template says: what TRL's trainers without a reference model take
pub fn framed_preference_examples(
    dataset: &Dataset,
    tokenizer: &Tokenizer,
    options: &PreferenceOptions,
) -> Result<Prepared<PreferenceExample>> {
    let (bos, eos) = (tokenizer.bos_id(), tokenizer.eos_id());
    pairs(dataset, tokenizer, options, &move |prompt, completions| {
        if let Some(bos) = bos.filter(|bos| prompt.first() != Some(bos)) {
            prompt.insert(0, bos);
        }
        for ids in completions {
            ids.extend(eos.filter(|eos| ids.last() != Some(eos)));
        }
    })
}

/// Changes the ends of a prompt and its completions
type Frame = dyn Fn(&mut Vec<u32>, &mut [Vec<u32>]) + Sync;

fn pairs(
    dataset: &Dataset,
    tokenizer: &Tokenizer,
    options: &PreferenceOptions,
    frame: &Frame,
) -> Result<Prepared<PreferenceExample>> {
    let format = Format::among(dataset, &[Kind::Preference, Kind::ImplicitPreference], "text", PAIR_COLUMNS)?;
    let implicit = is_implicit(dataset, format);
    let encoder = Encoder::new(tokenizer, format.conversational)?;
    let prepared = build(dataset, |row| {
        format.check(row, "text")?;
        let Some((prompt, chosen, rejected)) = sides(row, format, implicit)? else {
            return Ok(Outcome::Dropped(NO_SHARED_PROMPT));
        };
        let Some(joined) = encoder.joined(row, &prompt, &[&chosen, &rejected])? else {
            return Ok(Outcome::Dropped(NO_MESSAGES));
        };
        let Joined { mut prompt, mut completions, boundary } = joined;
        if completions.iter().any(Vec::is_empty) {
            return Ok(Outcome::Dropped(EMPTY_COMPLETION));
        }
        frame(&mut prompt, &mut completions);
        let equal = completions[0] == completions[1];
        let completions = <[Vec<u32>; 2]>::try_from(completions).unwrap_or_default();
        Ok(match PreferenceExample::cut(prompt, completions, options) {
            Ok(example) => match example.useless() {
                Some(reason) => Outcome::Dropped(reason),
                None => Outcome::Used { example, boundary, equal },
            },
            Err(reason) => Outcome::Dropped(reason),
        })
    })?;
    warn_of_empty_prompts(dataset, prepared.examples.iter().map(|example| example.prompt.len()));
    Ok(prepared)
}

fn warn_of_empty_prompts(dataset: &Dataset, prompts: impl ExactSizeIterator<Item = usize>) {
    let rows = prompts.len();
    let empty = prompts.filter(|length| *length == 0).count();
    if empty > 0 {
        tracing::warn!(
            "{empty} of {rows} rows of `{}` have an empty prompt: nothing predicts the first token of their completions",
            dataset.path.display()
        );
    }
}

/// As TRL's `maybe_extract_prompt`: a text beside messages repeats the prompt that those begin with
pub(super) fn is_implicit(dataset: &Dataset, format: Format) -> bool {
    let first_prompt = dataset.rows[0].fields.get("prompt");
    format.kind == Kind::ImplicitPreference || (format.conversational && first_prompt.is_some_and(Value::is_string))
}

/// Prompt, chosen and rejected; `None` where no prompt can be found
pub(super) fn sides(
    row: &Row,
    format: Format,
    implicit: bool,
) -> Result<Option<(Content<'_>, Content<'_>, Content<'_>)>> {
    let chosen = Content::of(row, "chosen", format.conversational)?;
    let rejected = Content::of(row, "rejected", format.conversational)?;
    if implicit {
        return Ok(split_implicit(chosen, rejected));
    }
    Ok(Some((Content::of(row, "prompt", format.conversational)?, chosen, rejected)))
}

fn split_implicit<'a>(chosen: Content<'a>, rejected: Content<'a>) -> Option<(Content<'a>, Content<'a>, Content<'a>)> {
    match (chosen, rejected) {
        (Content::Text(chosen), Content::Text(rejected)) => {
            let (prompt, chosen, rejected) = extract_prompt(chosen, rejected)?;
            Some((Content::Text(prompt), Content::Text(chosen), Content::Text(rejected)))
        }
        (Content::Messages(chosen), Content::Messages(rejected)) => {
            let (prompt, chosen, rejected) = extract_messages(chosen, rejected)?;
            Some((Content::Messages(prompt), Content::Messages(chosen), Content::Messages(rejected)))
        }
        _ => None,
    }
}

/// A completion that was liked or not. Prompt and completion are whole: see [`Self::with_neighbour`]
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnpairedExample {
    /// The prompt
    pub prompt: Vec<u32>,
    /// The completion, its EOS included
    pub completion: Vec<u32>,
    /// Whether it was liked
    pub label: bool,
}

impl UnpairedExample {
    /// This row's completion and another row's completion after this row's prompt, both cut to `max_length`; the other
    /// one stands in place of a rejected one
    pub fn with_neighbour(&self, neighbour: &Self, options: &PreferenceOptions) -> Result<PreferenceExample> {
        let completions = [self.completion.clone(), neighbour.completion.clone()];
        PreferenceExample::cut(self.prompt.clone(), completions, options)
            .map_err(|reason| Error::usage(format!("a row cannot be used: {reason}")))
    }
}

/// Examples for KTO. Pairs are taken apart in blocks of 1000 rows: all chosen completions, then all rejected ones
pub fn unpaired_examples(
    dataset: &Dataset,
    tokenizer: &Tokenizer,
    options: &PreferenceOptions,
) -> Result<Prepared<UnpairedExample>> {
    const KINDS: [Kind; 3] = [Kind::UnpairedPreference, Kind::Preference, Kind::ImplicitPreference];
    let needs = "`prompt`, `completion` and `label`, or `chosen` with `rejected`,";
    let format = Format::among(dataset, &KINDS, "text", needs)?;
    if format.kind != Kind::UnpairedPreference {
        return unpaired_examples(&taken_apart(dataset, format)?, tokenizer, options);
    }
    let encoder = Encoder::new(tokenizer, format.conversational)?;
    let prepared = build(dataset, |row| {
        format.check(row, "text")?;
        let prompt = Content::of(row, "prompt", format.conversational)?;
        let completion = Content::of(row, "completion", format.conversational)?;
        let label = label(row)?;
        let Some(joined) = encoder.joined(row, &prompt, &[&completion])? else {
            return Ok(Outcome::Dropped(NO_MESSAGES));
        };
        let Joined { prompt, mut completions, boundary } = joined;
        let example = UnpairedExample { prompt, completion: completions.remove(0), label };
        if example.completion.is_empty() {
            return Ok(Outcome::Dropped(EMPTY_COMPLETION));
        }
        let itself = [example.completion.clone(), example.completion.clone()];
        let useless = PreferenceExample::cut(example.prompt.clone(), itself, options).map(|cut| cut.useless());
        Ok(match useless {
            Ok(None) => Outcome::Used { example, boundary, equal: false },
            Ok(Some(reason)) | Err(reason) => Outcome::Dropped(reason),
        })
    })?;
    warn_of_empty_prompts(dataset, prepared.examples.iter().map(|example| example.prompt.len()));
    Ok(prepared)
}

pub(super) fn label(row: &Row) -> Result<bool> {
    let value = row.fields.get("label").unwrap_or(&Value::Null);
    // A CSV file has nothing but text
    let file = row.place.file.to_ascii_lowercase();
    let from_csv = file.strip_suffix(".gz").unwrap_or(&file).split('.').next_back() == Some("csv");
    match value {
        Value::Bool(label) => Ok(*label),
        Value::String(text) if from_csv && text.eq_ignore_ascii_case("true") => Ok(true),
        Value::String(text) if from_csv && text.eq_ignore_ascii_case("false") => Ok(false),
        other => Err(Error::usage(format!(
            "{}: `label` is {}, expected `true` (a good completion) or `false`",
            row.place,
            match other {
                Value::String(text) => format!("the text {text:?}"),
                Value::Number(number) => format!("the number {number}"),
                other => type_name(other).to_owned(),
            }
        ))),
    }
}

/// The rows of a dataset of pairs, each twice: with the chosen completion, and with the rejected one
pub(super) fn taken_apart(dataset: &Dataset, format: Format) -> Result<Dataset> {
    const BLOCK: usize = 1000;
    let implicit = is_implicit(dataset, format);
    let mut rows = Vec::with_capacity(2 * dataset.rows.len());
    for block in dataset.rows.chunks(BLOCK) {
        let mut halves = [Vec::with_capacity(block.len()), Vec::with_capacity(block.len())];
        for row in block {
            format.check(row, "text")?;
            let Some((prompt, chosen, rejected)) = sides(row, format, implicit)? else {
                return Err(Error::usage(format!("{}: {NO_SHARED_PROMPT}", row.place))
                    .hint("give each row a `prompt`, or remove this one"));
            };
            for ((completion, label), half) in [(chosen, true), (rejected, false)].into_iter().zip(&mut halves) {
                let mut fields: Map<String, Value> = row.fields.clone();
                fields.shift_remove("chosen");
                fields.shift_remove("rejected");
                fields.insert("prompt".to_owned(), prompt.to_value());
                fields.insert("completion".to_owned(), completion.to_value());
                fields.insert("label".to_owned(), Value::Bool(label));
                half.push(Row { fields, place: row.place.clone() });
            }
        }
        rows.extend(halves.into_iter().flatten());
    }
    let columns = ["prompt", "completion", "label"].map(ToOwned::to_owned).to_vec();
    Ok(Dataset { path: dataset.path.clone(), files: dataset.files.clone(), columns, rows })
}
