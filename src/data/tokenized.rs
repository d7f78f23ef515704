//! Rows that were tokenised elsewhere: `input_ids` with `labels` or masks.

use serde_json::{Map, Value};

use super::reader::Dataset;
use super::record::{Row, type_name};
use super::tokenize::{LmExample, LmOptions};
use super::tokenizer::Tokenizer;
use crate::error::{Error, Result};

/// A row with `input_ids`: `labels` decide where they are given, else the masks as TRL reads them
pub(super) fn tokenized_row(row: &Row, tokenizer: &Tokenizer, options: &LmOptions) -> Result<LmExample> {
    let vocab = tokenizer.vocab_size();
    let numbers = |name: &str| integers(row, name);
    let Some(raw) = numbers("input_ids")? else {
        return Err(Error::usage(format!("{}: no `input_ids`", row.place)));
    };
    let id = |number: i64| u32::try_from(number).ok().filter(|id| (*id as usize) < vocab);
    let mut ids = Vec::with_capacity(raw.len());
    for number in &raw {
        ids.push(id(*number).ok_or_else(|| {
            Error::usage(format!("{}: `input_ids` holds {number}, expected ids from 0 to {}", row.place, vocab - 1))
                .hint("tokenise the rows with the tokenizer of this model")
        })?);
    }
    let same_length = |name: &str, found: usize| {
        let error = || Error::usage(format!("{}: `{name}` has {found} entries, `input_ids` {}", row.place, raw.len()));
        (found == raw.len()).then_some(()).ok_or_else(error)
    };
    let mut loss = vec![true; ids.len()];
    if let Some(labels) = numbers("labels")? {
        const IGNORED: i64 = -100;
        same_length("labels", labels.len())?;
        for ((label, id), target) in labels.iter().zip(&raw).zip(&mut loss) {
            if *label != IGNORED && label != id {
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
