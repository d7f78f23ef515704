//! `collimate logprobs`

use std::path::PathBuf;

use super::args::count;
use crate::{Error, Result};

/// Log-probabilities of the tokens of texts
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
    /// Keep the first tokens of longer texts
    #[arg(long, value_name = "N", value_parser = count)]
    pub max_length: Option<usize>,
    /// Texts of one forward pass
    #[arg(long, value_name = "N", default_value = "8", value_parser = count)]
    pub batch_size: usize,
    /// Compute in bfloat16 where that is safe
    #[arg(long, value_name = "true|false", num_args = 0..=1, default_value = "false", default_missing_value = "true")]
    pub bf16: bool,
    /// Never ask the network (also HF_HUB_OFFLINE=1)
    #[arg(long, value_name = "true|false", num_args = 0..=1, default_value = "false", default_missing_value = "true")]
    pub offline: bool,
}

/// Runs the command
pub fn run(_args: Args) -> Result<()> {
    Err(Error::run("`logprobs` is not part of this build"))
}
