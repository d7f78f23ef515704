//! `collimate score`

use std::path::PathBuf;

use serde::Serialize;

use super::args::{count, precision};
use super::lines::read_lines;
use super::output::Output;
use crate::data::{RowSequences, row_sequences};
use crate::model::hub::Hub;
use crate::model::reward::RewardModel;
use crate::train::source::ModelSource;
use crate::{Error, Result};

/// Rows of one round of scoring where the request says nothing: output comes while the rest is computed
const ROWS: usize = 256;

/// Scores of a reward model
///
/// Prints one object a row, in the order of the file: `{"score": …}` for rows with `prompt` and `completion` (or `text`,
/// or `messages`), `{"chosen": …, "rejected": …}` for preference rows. Prompt and completion are tokenised together and
/// EOS is appended, as `reward` does in training; conversations go through the chat template. A sequence beyond the
/// model's positions is not cut: its score is null, with a warning.
#[derive(Debug, clap::Args)]
#[command(rename_all = "snake_case")]
pub struct Args {
    /// Reward model: a folder, or an id on the Hub
    #[arg(long, alias = "model_name_or_path", value_name = "MODEL")]
    pub model: String,
    /// Branch, tag or commit on the Hub
    #[arg(long, value_name = "REVISION", default_value = "main")]
    pub model_revision: String,
    /// File of rows, `{"prompt": …, "completion": …}` or `{"chosen": …, "rejected": …}` a line
    #[arg(long, alias = "texts", value_name = "FILE.jsonl")]
    pub rows: PathBuf,
    /// Print (score - mean) / standard deviation, with the mean and the deviation that the model keeps
    #[arg(long, value_name = "true|false", num_args = 0..=1, default_value = "false", default_missing_value = "true")]
    pub normalize: bool,
    /// Rows scored together; decides about speed and memory alone
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
#[serde(untagged)]
enum Line {
    One { score: Option<f32> },
    Pair { chosen: Option<f32>, rejected: Option<f32> },
}

/// Runs the command
pub fn run(args: Args) -> Result<()> {
    let dataset = read_lines(&args.rows)?;
    let source = ModelSource::find(&Hub::from_env(args.offline)?, &args.model, Some(&args.model_revision))?;
    let model = RewardModel::load(&source.folder)?.detached()?.with_precision(precision(args.bf16))?;
    let statistics = args.normalize.then(|| model.statistics()).flatten();
    if args.normalize && statistics.is_none() {
        return Err(Error::usage(format!(
            "`normalize` needs the mean and standard deviation of scores, which the model in `{}` does not keep",
            source.folder.display()
        ))
        .hint("train it with `reward_statistics_rows` above 0, or leave out `normalize`"));
    }
    let Some(dataset) = dataset else { return Ok(()) };
    let RowSequences { ids, pairs } = row_sequences(&dataset, &source.tokenizer)?;
    source.check_tokens(ids.iter().map(Vec::as_slice))?;
    let of_row = if pairs { 2 } else { 1 };
    let mut too_long = ids.iter().enumerate().filter(|(_, ids)| !model.takes(ids));
    if let Some((first, _)) = too_long.next() {
        tracing::warn!(
            "{} of {} sequences have no token, or more than the model's {} positions: they have no score (first at {})",
            1 + too_long.count(),
            ids.len(),
            model.config().n_positions,
            dataset.rows[first / of_row].place
        );
    }

    let mut output = Output::open();
    for ids in ids.chunks(args.batch_size.unwrap_or(ROWS) * of_row) {
        let fitting: Vec<&[u32]> = ids.iter().map(Vec::as_slice).filter(|ids| model.takes(ids)).collect();
        let mut scores = model.scores(&fitting)?.into_iter();
        let mut score = |ids: &Vec<u32>| {
            let score = if model.takes(ids) { scores.next() } else { None };
            score.map(|score| match &statistics {
                Some(statistics) => statistics.normalize(f64::from(score)) as f32,
                None => score,
            })
        };
        for row in ids.chunks(of_row) {
            let line = match row {
                [chosen, rejected] => Line::Pair { chosen: score(chosen), rejected: score(rejected) },
                row => Line::One { score: row.first().and_then(&mut score) },
            };
            output.line(&serde_json::to_string(&line).map_err(|cause| Error::run(cause.to_string()))?)?;
        }
    }
    output.flush()
}
