//! Whole sequences for a reward model, id for id as TRL 1.16's `RewardTrainer` prepares them.
//!
//! A prompt stands before its completion and both are tokenised together; EOS is appended to plain text that does not
//! end in it. Nothing is cut: half an answer would be judged as if it were whole.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::encoder::Encoder;
use super::format::{Content, Format, Kind, leading_column};
use super::reader::Dataset;
use super::record::{Place, Row, type_name};
use super::report::{Outcome, Prepared};
use super::tokenize::build;
use super::tokenized::tokenized_side;
use super::tokenizer::Tokenizer;
use crate::error::{Error, Result};

/// A better and a worse sequence, each with its prompt and EOS
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PairExample {
    /// Ids of the better one
    pub chosen: Vec<u32>,
    /// Ids of the worse one
    pub rejected: Vec<u32>,
    /// By how much the rewards should differ; in all rows of a dataset or in none
    pub margin: Option<f32>,
}

/// The sequences of a file in order, one or two for each row
#[derive(Debug, Clone, PartialEq)]
pub struct RowSequences {
    /// Ids; of pairs the chosen one first
    pub ids: Vec<Vec<u32>>,
    /// Whether each row has two, chosen and rejected
    pub pairs: bool,
}

const PAIRS: [Kind; 3] = [Kind::TokenizedPreference, Kind::Preference, Kind::ImplicitPreference];
const MARGIN: &str = "margin";

/// Pairs to train a reward model on. Rows with a side beyond `max_length` are dropped, as in TRL
pub fn pair_examples(dataset: &Dataset, tokenizer: &Tokenizer, max_length: usize) -> Result<Prepared<PairExample>> {
    let format = Format::among(dataset, &PAIRS, "text", "`chosen` with `rejected`")?;
    let encoder = Encoder::new(tokenizer, format.conversational)?;
    let with_margin = dataset.rows[0].fields.contains_key(MARGIN);
    build(dataset, |row| {
        let margin = margin(row, with_margin)?;
        let sides = [pair_side(&encoder, format, row, "chosen")?, pair_side(&encoder, format, row, "rejected")?];
        let [Some(chosen), Some(rejected)] = sides else {
            return Ok(Outcome::Dropped("a conversation without messages"));
        };
        if chosen.is_empty() || rejected.is_empty() {
            return Ok(Outcome::Dropped("a side without tokens"));
        }
        if chosen.len().max(rejected.len()) > max_length {
            return Ok(Outcome::Dropped("a side is longer than `max_length`"));
        }
        let equal = chosen == rejected;
        Ok(Outcome::Used { example: PairExample { chosen, rejected, margin }, boundary: None, equal })
    })
}

/// What a reward model is asked about: `prompt` with `completion`, `text`, `messages`, or preference pairs. Each row gives
/// its one or two sequences, whatever their length
pub fn row_sequences(dataset: &Dataset, tokenizer: &Tokenizer) -> Result<RowSequences> {
    let kinds = [PAIRS[0], PAIRS[1], PAIRS[2], Kind::PromptCompletion, Kind::LanguageModeling];
    let format = Format::among(dataset, &kinds, "text", "`prompt` with `completion`, or `chosen` with `rejected`")?;
    let encoder = Encoder::new(tokenizer, format.conversational)?;
    let pairs = PAIRS.contains(&format.kind);
    let of_row = |row: &Row| -> Result<Vec<Vec<u32>>> {
        let sides = match format.kind {
            Kind::PromptCompletion => {
                format.check(row, "text")?;
                let prompt = Content::of(row, "prompt", format.conversational)?;
                vec![encoder.after(row, Some(&prompt), &Content::of(row, "completion", format.conversational)?)?]
            }
            Kind::LanguageModeling => {
                format.check(row, "text")?;
                let column = leading_column(row, format.kind, "text");
                vec![encoder.after(row, None, &Content::of(row, column, format.conversational)?)?]
            }
            _ => vec![pair_side(&encoder, format, row, "chosen")?, pair_side(&encoder, format, row, "rejected")?],
        };
        let empty = || Error::usage(format!("{}: a conversation without messages cannot be scored", row.place));
        sides.into_iter().map(|side| side.ok_or_else(empty)).collect()
    };
    let rows = super::tokenize::in_parallel(dataset, of_row)?;
    Ok(RowSequences { ids: rows.into_iter().flatten().collect(), pairs })
}

/// Turns prompts and completions that come one by one into the sequences that a reward model is trained on
pub struct SequenceEncoder<'a> {
    tokenizer: &'a Tokenizer,
    encoder: Encoder<'a>,
    conversational: bool,
}

impl<'a> SequenceEncoder<'a> {
    /// For texts, or for lists of messages
    ///
    /// # Errors
    /// Messages, and a tokenizer without a chat template
    pub fn new(tokenizer: &'a Tokenizer, conversational: bool) -> Result<Self> {
        Ok(Self { tokenizer, encoder: Encoder::new(tokenizer, conversational)?, conversational })
    }

    /// Ids of prompt and completion together; `columns` may hold `tools` and `chat_template_kwargs`
    ///
    /// A text that is `finished` gets EOS, as in training; one that was broken off has none to be judged by. A
    /// conversation ends as its chat template ends it.
    pub fn ids(
        &self,
        prompt: &Value,
        completion: &Value,
        columns: &Map<String, Value>,
        finished: bool,
    ) -> Result<Vec<u32>> {
        let mut fields = columns.clone();
        fields.insert("prompt".to_owned(), prompt.clone());
        fields.insert("completion".to_owned(), completion.clone());
        let row = Row { fields, place: Place { file: "prompt and completion".into(), line: 1 } };
        let of = |column| Content::of(&row, column, self.conversational);
        let (prompt, completion) = (of("prompt")?, of("completion")?);
        if let (Content::Text(prompt), Content::Text(completion), false) = (&prompt, &completion, finished) {
            return self.tokenizer.encode(&format!("{prompt}{completion}"));
        }
        Ok(self.encoder.after(&row, Some(&prompt), &completion)?.unwrap_or_default())
    }
}

/// One side of a pair, after its prompt where the row has one; `None` for a conversation without messages
fn pair_side(encoder: &Encoder<'_>, format: Format, row: &Row, side: &str) -> Result<Option<Vec<u32>>> {
    format.check(row, "text")?;
    if format.kind == Kind::TokenizedPreference {
        return tokenized_side(row, side, encoder.vocab).map(Some);
    }
    let content = Content::of(row, side, format.conversational)?;
    // A text beside messages repeats the prompt that those begin with
    let repeats = format.conversational && row.fields.get("prompt").is_some_and(Value::is_string);
    let explicit = format.kind == Kind::Preference && !repeats;
    let prompt = explicit.then(|| Content::of(row, "prompt", format.conversational)).transpose()?;
    encoder.after(row, prompt.as_ref(), &content)
}

/// The row's margin, where the dataset has that column
fn margin(row: &Row, expected: bool) -> Result<Option<f32>> {
    let found = row.fields.get(MARGIN);
    if !expected {
        return match found {
            None => Ok(None),
            Some(_) => Err(Error::usage(format!("{}: has a `{MARGIN}`, which the first row lacks", row.place))
                .hint(format!("give each row a `{MARGIN}`, or none"))),
        };
    }
    let number = match found {
        Some(Value::Number(number)) => number.as_f64(),
        // Cells of a CSV file are texts
        Some(Value::String(text)) => text.trim().parse().ok(),
        _ => None,
    };
    number.filter(|number| number.is_finite()).map(|number| Some(number as f32)).ok_or_else(|| {
        let what = found.map_or("missing", type_name);
        Error::usage(format!("{}: `{MARGIN}` is {what}, expected a finite number", row.place))
            .hint(format!("give each row a `{MARGIN}`, or none"))
    })
}
