//! Rows that were tokenised elsewhere: `input_ids` with `labels` or masks, or the ids of preference rows.

use serde_json::{Map, Value};

use super::reader::Dataset;
use super::record::{Row, type_name};
use super::tokenize::{LmExample, LmOptions};
use crate::error::{Error, Result};

/// A row with `input_ids`: `labels` decide where they are given, else the masks as TRL reads them
pub(super) fn tokenized_row(row: &Row, vocab: usize, options: &LmOptions) -> Result<LmExample> {
    let numbers = |name: &str| integers(row, name);
    let ids = token_ids(row, "input_ids", vocab)?;
    let same_length = |name: &str, found: usize| {
        let error = || Error::usage(format!("{}: `{name}` has {found} entries, `input_ids` {}", row.place, ids.len()));
        (found == ids.len()).then_some(()).ok_or_else(error)
    };
    let mut loss = vec![true; ids.len()];
    if let Some(labels) = numbers("labels")? {
        const IGNORED: i64 = -100;
        same_length("labels", labels.len())?;
        for ((label, id), target) in labels.iter().zip(&ids).zip(&mut loss) {
            if *label != IGNORED && *label != i64::from(*id) {
                return Err(Error::usage(format!(
                    "{}: `labels` holds {label} where `input_ids` holds {id}, expected the same id or -100",
                    row.place
                )));
            }
            *target = *label != IGNORED;
        }
    } else {
        let completion_only = completion_only(&row.fields, options);
        for (name, applies) in [("completion_mask", completion_only), ("assistant_masks", true)] {
            if let (true, Some(mask)) = (applies, numbers(name)?) {
                same_length(name, mask.len())?;
                loss.iter_mut().zip(&mask).for_each(|(target, bit)| *target &= *bit != 0);
            }
        }
    }
    Ok(LmExample { ids, loss })
}

/// A column of token ids that the tokenizer knows
pub(super) fn token_ids(row: &Row, name: &str, vocab: usize) -> Result<Vec<u32>> {
    let Some(raw) = integers(row, name)? else {
        return Err(Error::usage(format!("{}: no `{name}`", row.place)));
    };
    let known = |number: &i64| {
        u32::try_from(*number).ok().filter(|id| (*id as usize) < vocab).ok_or_else(|| {
            Error::usage(format!("{}: `{name}` holds {number}, expected ids from 0 to {}", row.place, vocab - 1))
                .hint("tokenise the rows with the tokenizer of this model")
        })
    };
    raw.iter().map(known).collect()
}

/// One side of a tokenised pair, after the prompt where the row has one
pub(super) fn tokenized_side(row: &Row, side: &str, vocab: usize) -> Result<Vec<u32>> {
    let mut ids = match row.fields.get("prompt_ids") {
        None | Some(Value::Null) => Vec::new(),
        Some(_) => token_ids(row, "prompt_ids", vocab)?,
    };
    ids.extend(token_ids(row, &format!("{side}_ids"), vocab)?);
    Ok(ids)
}

fn integers(row: &Row, name: &str) -> Result<Option<Vec<i64>>> {
    let wrong = |found: &Value| {
        Error::usage(format!("{}: `{name}` holds {}, expected a list of integers", row.place, type_name(found)))
    };
    match row.fields.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::Array(entries)) => {
            let integer = |entry: &Value| entry.as_i64().or(entry.as_bool().map(i64::from)).ok_or_else(|| wrong(entry));
            entries.iter().map(integer).collect::<Result<_>>().map(Some)
        }
        Some(other) => Err(wrong(other)),
    }
}

fn completion_only(fields: &Map<String, Value>, options: &LmOptions) -> bool {
    // TRL decides by these two columns also for rows that are tokenised already
    let by_columns = fields.contains_key("prompt") && fields.contains_key("completion");
    options.completion_only_loss.unwrap_or(by_columns)
}

pub(super) fn warn_of_ignored_mask(dataset: &Dataset, options: &LmOptions) {
    let first = &dataset.rows[0].fields;
    if first.contains_key("completion_mask") && !first.contains_key("labels") && !completion_only(first, options) {
        tracing::warn!(
            "the `completion_mask` of `{}` is not used, as in TRL; set `completion_only_loss: true` to use it",
            dataset.path.display()
        );
    }
}
