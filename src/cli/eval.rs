//! `collimate eval`

use super::args::count;
use crate::{Error, Result};

/// Metrics of a model on a dataset
#[derive(Debug, clap::Args)]
#[command(rename_all = "snake_case")]
pub struct Args {
    /// Model: a folder, or an id on the Hub
    #[arg(long, alias = "model_name_or_path", value_name = "MODEL")]
    pub model: String,
    /// Branch, tag or commit on the Hub
    #[arg(long, value_name = "REVISION", default_value = "main")]
    pub model_revision: String,
    /// Dataset: a file, a folder, or an id on the Hub
    #[arg(long, alias = "dataset", value_name = "DATASET")]
    pub dataset_name: String,
    /// Configuration of a dataset on the Hub
    #[arg(long, value_name = "NAME")]
    pub dataset_config: Option<String>,
    /// Split to evaluate on
    #[arg(long, value_name = "SPLIT", default_value = "test")]
    pub dataset_test_split: String,
    /// Columns to rename: found name = expected name
    #[arg(long, value_name = "NAME=VALUE", num_args = 1.., value_delimiter = ',')]
    pub columns: Vec<String>,
    /// Longest sequence in tokens; longer ones are cut
    #[arg(long, value_name = "N", default_value = "1024", value_parser = count)]
    pub max_length: usize,
    /// Rows of one forward pass
    #[arg(long, alias = "per_device_eval_batch_size", value_name = "N", default_value = "8", value_parser = count)]
    pub batch_size: usize,
    /// Compute in bfloat16 where that is safe
    #[arg(long, value_name = "true|false", num_args = 0..=1, default_value = "false", default_missing_value = "true")]
    pub bf16: bool,
    /// Print one JSON object
    #[arg(long, value_name = "true|false", num_args = 0..=1, default_value = "false", default_missing_value = "true")]
    pub json: bool,
    /// Never ask the network (also HF_HUB_OFFLINE=1)
    #[arg(long, value_name = "true|false", num_args = 0..=1, default_value = "false", default_missing_value = "true")]
    pub offline: bool,
}

/// Runs the command
pub fn run(_args: Args) -> Result<()> {
    Err(Error::run("`eval` is not part of this build"))
}
