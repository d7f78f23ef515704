//! `collimate data convert`

use std::path::{Path, PathBuf};

use super::args::share;
use super::data::parse_columns;
use super::output::Output;
use crate::data::{
    Dataset, Format, Kind, ReadOptions, convert, kind_name, read_dataset, split_by_prompt, to_chatml, write_dataset,
};
use crate::model::hub::Hub;
use crate::{Error, Result};

/// The arguments of `collimate data convert`
#[derive(Debug, clap::Args)]
#[command(rename_all = "snake_case")]
pub struct ConvertArgs {
    /// Dataset: a file, a folder, or an id on the Hub
    #[arg(long, value_name = "DATASET")]
    pub from: String,
    /// File to write: `.jsonl`, `.json`, `.csv` (each also `.gz`) or `.parquet`
    #[arg(long, value_name = "FILE")]
    pub to: PathBuf,
    /// Split to read
    #[arg(long, value_name = "SPLIT", default_value = "train")]
    pub from_split: String,
    /// Configuration of a dataset on the Hub
    #[arg(long, value_name = "NAME")]
    pub dataset_config: Option<String>,
    /// Columns to rename: found name = expected name
    #[arg(long, value_name = "NAME=VALUE", num_args = 1.., value_delimiter = ',')]
    pub columns: Vec<String>,
    /// Messages of `from` and `value` as `role` and `content`, `conversations` as `messages`
    #[arg(long, value_name = "true|false", num_args = 0..=1, default_value = "false", default_missing_value = "true")]
    pub chatml: bool,
    /// The format to make: language_modeling, prompt_completion, prompt_only, preference, implicit_preference or
    /// unpaired_preference; as it is where not set
    #[arg(long, value_name = "FORMAT", value_parser = kind)]
    pub format: Option<Kind>,
    /// Two files: this share of the rows under `train`, the rest under `test`, rows of one prompt together
    #[arg(long, value_name = "SHARE", value_parser = share)]
    pub split: Option<f64>,
    /// Seed of the split
    #[arg(long, value_name = "N", default_value = "42", requires = "split")]
    pub seed: u64,
    /// Replace files that exist
    #[arg(long, value_name = "true|false", num_args = 0..=1, default_value = "false", default_missing_value = "true")]
    pub overwrite: bool,
    /// Never ask the network (also HF_HUB_OFFLINE=1)
    #[arg(long, value_name = "true|false", num_args = 0..=1, default_value = "false", default_missing_value = "true")]
    pub offline: bool,
}

const KINDS: [Kind; 6] = [
    Kind::LanguageModeling,
    Kind::PromptCompletion,
    Kind::PromptOnly,
    Kind::Preference,
    Kind::ImplicitPreference,
    Kind::UnpairedPreference,
];

fn kind(text: &str) -> std::result::Result<Kind, String> {
    let plain = text.replace('-', "_").to_lowercase();
    let names = KINDS.map(kind_name).join("`, `");
    KINDS.into_iter().find(|kind| kind_name(*kind) == plain).ok_or_else(|| format!("must be one of `{names}`"))
}

/// Runs `collimate data convert`
pub fn run(args: ConvertArgs) -> Result<()> {
    let targets = match args.split {
        None => vec![args.to.clone()],
        Some(_) => ["train", "test"].map(|part| part_of(&args.to, part)).to_vec(),
    };
    if let Some(taken) = targets.iter().find(|path| path.exists() && !args.overwrite) {
        return Err(Error::usage(format!("`{}` exists already", taken.display()))
            .hint("choose another name, or allow it with `--overwrite`"));
    }
    let path = Hub::from_env(args.offline)?.dataset(&args.from, None, args.dataset_config.as_deref())?;
    let options = ReadOptions {
        split: args.from_split.clone(),
        config: args.dataset_config.clone(),
        columns: parse_columns(&args.columns)?,
    };
    let mut dataset = read_dataset(&path, &options)?;
    if args.chatml {
        to_chatml(&mut dataset);
    }
    if let Some(kind) = args.format {
        let (converted, left_out) = convert(&dataset, kind)?;
        if left_out > 0 {
            tracing::info!("{left_out} rows are left out: their completions were disliked");
        }
        dataset = converted;
    }
    let parts = match args.split {
        None => vec![dataset],
        Some(share) => split_by_prompt(&dataset, share, args.seed)?.to_vec(),
    };
    let mut output = Output::open();
    for (path, part) in targets.iter().zip(&parts) {
        write_dataset(path, part)?;
        output.line(&format!("{}: {} rows, {}", path.display(), part.rows.len(), format_of(part)))?;
    }
    output.flush()
}

fn format_of(dataset: &Dataset) -> String {
    // Columns that no trainer knows are no fault here
    Format::of(dataset, "text").map_or_else(|_| dataset.columns.join(", "), |format| format.to_string())
}

/// `reviews.jsonl` → `reviews.train.jsonl`, which every reader of datasets takes for the training split
fn part_of(path: &Path, part: &str) -> PathBuf {
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let plain = name.strip_suffix(".gz").unwrap_or(&name);
    let at = plain.rfind('.').unwrap_or(plain.len());
    path.with_file_name(format!("{}.{part}{}", &name[..at], &name[at..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_named_after_their_split() {
        for (name, expected) in
            [("a/reviews.jsonl", "a/reviews.train.jsonl"), ("reviews.v2.csv.gz", "reviews.v2.train.csv.gz")]
        {
            assert_eq!(part_of(Path::new(name), "train"), Path::new(expected));
        }
    }

    #[test]
    fn formats_have_both_spellings() {
        assert_eq!(kind("prompt-only"), Ok(Kind::PromptOnly));
        assert!(kind("prompts").unwrap_err().starts_with("must be one of `language_modeling`"));
    }
}
