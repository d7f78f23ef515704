//! Rows of one format as rows of another, after TRL 1.16's `data_utils` and its guide to dataset formats.

use std::collections::BTreeMap;

use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use super::format::{Content, Format, Kind, leading_column};
use super::preference::{is_implicit, label, sides, taken_apart};
use super::reader::Dataset;
use super::record::Row;
use crate::error::{Error, Result};

const TEXT: &str = "text";
/// Columns that mean something in a format, in the order in which they are written
const COLUMNS: [&str; 8] = ["prompt", "completion", "chosen", "rejected", "label", "text", "messages", "conversations"];

/// What a row says, whatever its format
enum Parts {
    Pair { prompt: Value, chosen: Value, rejected: Value },
    Judged { prompt: Value, completion: Value, label: bool },
    Answered { prompt: Value, completion: Value },
    Whole(Value),
}

/// Rows in the format `kind`, and how many rows had no place in it (disliked completions, where only liked ones count)
///
/// Columns that belong to no format stay.
///
/// # Errors
/// A format that the other does not hold; a row that does not fit its dataset
pub fn convert(dataset: &Dataset, kind: Kind) -> Result<(Dataset, usize)> {
    let format = Format::of(dataset, TEXT)?;
    if format.kind == kind {
        return Ok((dataset.clone(), 0));
    }
    let made = makes(format);
    if !made.contains(&kind) {
        let names: Vec<String> = made.iter().map(|kind| format!("`{}`", name(*kind))).collect();
        let error =
            Error::usage(format!("`{}` is {format}, which does not hold `{}`", dataset.path.display(), name(kind)));
        let becomes = if names.is_empty() { "nothing else".to_owned() } else { names.join(", ") };
        return Err(error.hint(format!("it can become {becomes}")));
    }
    if kind == Kind::UnpairedPreference {
        let apart = taken_apart(dataset, format)?;
        let rows = apart.rows.into_iter().map(|row| {
            let own = ["prompt", "completion", "label"].map(|name| (name, row.fields[name].clone()));
            with(&row, own)
        });
        return Ok((dataset_of(dataset, rows.collect()), 0));
    }
    let implicit = is_implicit(dataset, format);
    let mut rows = Vec::with_capacity(dataset.rows.len());
    let mut left_out = 0;
    for row in &dataset.rows {
        format.check(row, TEXT)?;
        match become_kind(parts(row, format, implicit)?, kind, format.conversational) {
            Some(own) => rows.push(with(row, own)),
            None => left_out += 1,
        }
    }
    if rows.is_empty() {
        return Err(Error::usage(format!("no row of `{}` is left", dataset.path.display()))
            .hint("`label` is false in every row, and only liked completions are kept"));
    }
    Ok((dataset_of(dataset, rows), left_out))
}

/// What rows of a format can become
fn makes(format: Format) -> Vec<Kind> {
    use Kind::{ImplicitPreference, LanguageModeling, Preference, PromptCompletion, PromptOnly, UnpairedPreference};
    match format.kind {
        Preference => {
            vec![ImplicitPreference, UnpairedPreference, PromptCompletion, LanguageModeling, PromptOnly]
        }
        ImplicitPreference => vec![Preference, UnpairedPreference, PromptCompletion, LanguageModeling, PromptOnly],
        UnpairedPreference => vec![PromptCompletion, LanguageModeling, PromptOnly],
        PromptCompletion => vec![LanguageModeling, PromptOnly],
        // Where a text's prompt ends, nobody knows
        LanguageModeling if format.conversational => vec![PromptCompletion, PromptOnly],
        LanguageModeling | PromptOnly | Kind::Tokenized => Vec::new(),
    }
}

/// As the command line spells it
pub fn name(kind: Kind) -> &'static str {
    match kind {
        Kind::Tokenized => "tokenized",
        Kind::Preference => "preference",
        Kind::ImplicitPreference => "implicit_preference",
        Kind::UnpairedPreference => "unpaired_preference",
        Kind::PromptCompletion => "prompt_completion",
        Kind::LanguageModeling => "language_modeling",
        Kind::PromptOnly => "prompt_only",
    }
}

fn parts(row: &Row, format: Format, implicit: bool) -> Result<Parts> {
    let content = |column: &str| Content::of(row, column, format.conversational).map(|content| content.to_value());
    Ok(match format.kind {
        Kind::Preference | Kind::ImplicitPreference => {
            let Some((prompt, chosen, rejected)) = sides(row, format, implicit)? else {
                return Err(Error::usage(format!("{}: no prompt can be found: a side is empty", row.place))
                    .hint("give each row a `prompt`, or remove this one"));
            };
            Parts::Pair { prompt: prompt.to_value(), chosen: chosen.to_value(), rejected: rejected.to_value() }
        }
        Kind::UnpairedPreference => {
            Parts::Judged { prompt: content("prompt")?, completion: content("completion")?, label: label(row)? }
        }
        Kind::PromptCompletion => Parts::Answered { prompt: content("prompt")?, completion: content("completion")? },
        _ => Parts::Whole(content(leading_column(row, format.kind, TEXT))?).answered().ok_or_else(|| {
            Error::usage(format!("{}: the conversation does not end with a message of the assistant", row.place))
                .hint("remove this row, or its last messages")
        })?,
    })
}

impl Parts {
    /// A conversation as its last answer and what came before
    fn answered(self) -> Option<Self> {
        let Self::Whole(Value::Array(mut messages)) = self else { return None };
        let last = messages.pop().filter(|message| message["role"] == "assistant")?;
        Some(Self::Answered { prompt: Value::Array(messages), completion: Value::Array(vec![last]) })
    }
}

/// Columns of the new format; None for a row that has no place in it
fn become_kind(parts: Parts, kind: Kind, conversational: bool) -> Option<Vec<(&'static str, Value)>> {
    if let (Parts::Pair { prompt, chosen, rejected }, Kind::Preference | Kind::ImplicitPreference) = (&parts, kind) {
        let prompt = prompt.clone();
        return Some(if kind == Kind::Preference {
            vec![("prompt", prompt), ("chosen", chosen.clone()), ("rejected", rejected.clone())]
        } else {
            vec![("chosen", joined(prompt.clone(), chosen.clone())), ("rejected", joined(prompt, rejected.clone()))]
        });
    }
    let (prompt, completion) = match parts {
        Parts::Pair { prompt, chosen, .. } => (prompt, chosen),
        // Nobody wants to imitate what was disliked; a prompt is a prompt
        Parts::Judged { label: false, .. } if kind != Kind::PromptOnly => return None,
        Parts::Judged { prompt, completion, .. } | Parts::Answered { prompt, completion } => (prompt, completion),
        Parts::Whole(_) => return None,
    };
    Some(match kind {
        Kind::PromptOnly => vec![("prompt", prompt)],
        Kind::PromptCompletion => vec![("prompt", prompt), ("completion", completion)],
        _ => vec![(if conversational { "messages" } else { TEXT }, joined(prompt, completion))],
    })
}

fn joined(before: Value, after: Value) -> Value {
    match (before, after) {
        (Value::String(before), Value::String(after)) => Value::String(before + &after),
        (Value::Array(before), Value::Array(after)) => before.into_iter().chain(after).collect(),
        (_, after) => after,
    }
}

/// The row with these columns in place of those of its format
fn with(row: &Row, own: impl IntoIterator<Item = (&'static str, Value)>) -> Row {
    let mut fields: Map<String, Value> = own.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
    let others = row.fields.iter().filter(|(name, _)| !COLUMNS.contains(&name.as_str()));
    fields.extend(others.map(|(name, value)| (name.clone(), value.clone())));
    Row { fields, place: row.place.clone() }
}

fn dataset_of(source: &Dataset, rows: Vec<Row>) -> Dataset {
    Dataset { path: source.path.clone(), files: source.files.clone(), columns: columns(&rows), rows }
}

fn columns(rows: &[Row]) -> Vec<String> {
    let mut columns: Vec<String> = Vec::new();
    for name in rows.iter().flat_map(|row| row.fields.keys()) {
        if !columns.contains(name) {
            columns.push(name.clone());
        }
    }
    columns
}

/// Messages with `from` and `value` under the names `role` and `content`, `conversations` under the name `messages`
pub fn to_chatml(dataset: &mut Dataset) {
    const HOLD_MESSAGES: [&str; 6] = ["prompt", "completion", "chosen", "rejected", "messages", "conversations"];
    for row in &mut dataset.rows {
        for (name, value) in std::mem::take(&mut row.fields) {
            let value = match value {
                Value::Array(messages) if HOLD_MESSAGES.contains(&name.as_str()) => {
                    messages.into_iter().map(chatml_message).collect()
                }
                other => other,
            };
            let name = if name == "conversations" { "messages".to_owned() } else { name };
            row.fields.insert(name, value);
        }
    }
    dataset.columns = columns(&dataset.rows);
}

fn chatml_message(message: Value) -> Value {
    let Value::Object(fields) = message else { return message };
    let rename = |name: String| match name.as_str() {
        "from" => "role".to_owned(),
        "value" => "content".to_owned(),
        _ => name,
    };
    Value::Object(fields.into_iter().map(|(name, value)| (rename(name), value)).collect())
}

/// Two parts, the first with about `share` of the rows, such that rows of one prompt stay together
///
/// Which prompts go where depends on `seed` and their texts alone, not on the order of the rows.
pub fn split_by_prompt(dataset: &Dataset, share: f64, seed: u64) -> Result<[Dataset; 2]> {
    let format = Format::of(dataset, TEXT).ok();
    let implicit = format.is_some_and(|format| is_implicit(dataset, format));
    let mut groups: BTreeMap<Vec<u8>, Vec<usize>> = BTreeMap::new();
    for (i, row) in dataset.rows.iter().enumerate() {
        let key = prompt_of(row, format, implicit)?;
        let hash = Sha256::new().chain_update(seed.to_le_bytes()).chain_update(key).finalize();
        groups.entry(hash.to_vec()).or_default().push(i);
    }
    let wanted = share * dataset.rows.len() as f64;
    let mut first = vec![false; dataset.rows.len()];
    let mut taken = 0;
    for rows in groups.values() {
        if taken as f64 >= wanted {
            break;
        }
        taken += rows.len();
        for &row in rows {
            first[row] = true;
        }
    }
    if taken == 0 || taken == dataset.rows.len() {
        return Err(Error::usage(format!("`split` leaves one part of the {} prompts empty", groups.len()))
            .hint("choose a share nearer to the middle, or add rows"));
    }
    Ok([true, false].map(|part| {
        let rows = dataset.rows.iter().zip(&first).filter(|(_, first)| **first == part).map(|(row, _)| row.clone());
        dataset_of(dataset, rows.collect())
    }))
}

/// What rows must share to stay together: the prompt, or all of a row that has none
fn prompt_of(row: &Row, format: Option<Format>, implicit: bool) -> Result<String> {
    let prompt = match format {
        Some(format) if matches!(format.kind, Kind::ImplicitPreference | Kind::Preference) => {
            sides(row, format, implicit)?.map(|(prompt, ..)| prompt.to_value())
        }
        Some(Format { kind: Kind::LanguageModeling, conversational: true }) => {
            let column = leading_column(row, Kind::LanguageModeling, TEXT);
            let whole = Content::of(row, column, true)?.to_value();
            let asked = whole.as_array().map(|messages| messages.iter().take_while(|m| m["role"] != "assistant"));
            asked.map(|messages| messages.cloned().collect())
        }
        _ => row.fields.get("prompt").cloned(),
    };
    Ok(prompt.map_or_else(|| Value::Object(row.fields.clone()).to_string(), |prompt| prompt.to_string()))
}
