//! `collimate logprobs`

use std::path::{Path, PathBuf};

use rayon::prelude::*;
use serde::Serialize;
use serde_json::Value;

use super::args::{count, precision};
use super::lines::read_lines;
use super::output::Output;
use crate::data::Row;
use crate::model::hub::Hub;
use crate::train::evaluate::log_probs;
use crate::train::source::ModelSource;
use crate::{Error, Result};

/// Log-probabilities of the tokens of texts
///
/// Prints one object a text, in the order of the file: `token_ids`, and `logprobs` with the natural logarithm of the
/// probability of token i + 1 after tokens 0 to i. The ids are those of the whole text (prompt and completion together,
/// as in training); no token is added.
#[derive(Debug, clap::Args)]
#[command(rename_all = "snake_case")]
pub struct Args {
    /// Model: a folder, or an id on the Hub
    #[arg(long, alias = "model_name_or_path", value_name = "MODEL")]
    pub model: String,
    /// Branch, tag or commit on the Hub
    #[arg(long, value_name = "REVISION", default_value = "main")]
    pub model_revision: String,
    /// File of texts, `{"text": …}` or `{"prompt": …, "completion": …}` a line
    #[arg(long, value_name = "FILE.jsonl")]
    pub texts: PathBuf,
    /// Keep the first tokens of longer texts; the model's positions where not set
    #[arg(long, value_name = "N", value_parser = count)]
    pub max_length: Option<usize>,
    /// Most texts of one forward pass; as many as 8192 tokens hold where not set
    #[arg(long, value_name = "N", value_parser = count)]
    pub batch_size: Option<usize>,
    /// Compute in bfloat16 where that is safe
    #[arg(long, value_name = "true|false", num_args = 0..=1, default_value = "false", default_missing_value = "true")]
    pub bf16: bool,
    /// Never ask the network (also HF_HUB_OFFLINE=1)
    #[arg(long, value_name = "true|false", num_args = 0..=1, default_value = "false", default_missing_value = "true")]
    pub offline: bool,
}

/// One line of the answer
#[derive(Serialize)]
struct Line<'a> {
    token_ids: &'a [u32],
    logprobs: &'a [f32],
}

/// Runs the command
pub fn run(args: Args) -> Result<()> {
    let texts = read_texts(&args.texts)?;
    let source = ModelSource::find(&Hub::from_env(args.offline)?, &args.model, Some(&args.model_revision))?;
    let mut sequences: Vec<Vec<u32>> =
        texts.par_iter().map(|text| source.tokenizer.encode_rendered(text)).collect::<Result<_>>()?;
    source.check_tokens(sequences.iter().map(Vec::as_slice))?;
    let positions = source.config.n_positions;
    let max_length = args.max_length.unwrap_or(positions).min(positions);
    let too_long = sequences.iter().filter(|ids| ids.len() > max_length).count();
    if too_long > 0 && args.max_length != Some(max_length) {
        tracing::warn!("cut {too_long} of {} texts to {max_length} tokens, the model's positions", texts.len());
    }
    for ids in &mut sequences {
        ids.truncate(max_length);
    }

    source.warn_of_token_field();
    let model = source.load_frozen()?.with_precision(precision(args.bf16))?;
    let mut output = Output::open();
    log_probs(&model, &sequences, args.batch_size, |i, logprobs| {
        let line = Line { token_ids: &sequences[i], logprobs };
        output.line(&serde_json::to_string(&line).map_err(|cause| Error::run(cause.to_string()))?)
    })?;
    output.flush()
}

/// The texts of a file, one for each of its lines
fn read_texts(path: &Path) -> Result<Vec<String>> {
    read_lines(path)?.map_or_else(|| Ok(Vec::new()), |dataset| dataset.rows.iter().map(text_of).collect())
}

/// `text`, or `prompt` and `completion` joined
fn text_of(row: &Row) -> Result<String> {
    let columns: &[&str] = if row.fields.contains_key("text") { &["text"] } else { &["prompt", "completion"] };
    let mut text = String::new();
    for column in columns {
        match row.fields.get(*column) {
            Some(Value::String(part)) => text.push_str(part),
            Some(other) => {
                let found: String = other.to_string().chars().take(40).collect();
                return Err(Error::usage(format!("{}: `{column}` must be a text, got `{found}`", row.place)));
            }
            None => {
                let found: Vec<String> = row.fields.keys().map(|name| format!("`{name}`")).collect();
                let found = if found.is_empty() { "nothing".to_owned() } else { found.join(", ") };
                return Err(Error::usage(format!(
                    "{}: expected `text`, or `prompt` with `completion`, found {found}",
                    row.place
                )));
            }
        }
    }
    Ok(text)
}
