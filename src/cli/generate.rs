//! `collimate generate`

use std::path::PathBuf;

use super::args::{count, non_negative, positive, share};
use crate::{Error, Result};

/// Completions of prompts
#[derive(Debug, clap::Args)]
#[command(rename_all = "snake_case", group(clap::ArgGroup::new("input").required(true)))]
pub struct Args {
    /// Model: a folder, or an id on the Hub
    #[arg(long, alias = "model_name_or_path", value_name = "MODEL")]
    pub model: String,
    /// Branch, tag or commit on the Hub
    #[arg(long, value_name = "REVISION", default_value = "main")]
    pub model_revision: String,
    /// One prompt
    #[arg(long, value_name = "TEXT", group = "input", allow_hyphen_values = true)]
    pub prompt: Option<String>,
    /// File of prompts, `{"prompt": …}` a line
    #[arg(long, value_name = "FILE.jsonl", group = "input")]
    pub prompts: Option<PathBuf>,
    /// Most tokens of a completion
    #[arg(long, value_name = "N", default_value = "256", value_parser = count)]
    pub max_new_tokens: usize,
    /// Divides the logits; 0 takes the likeliest token each time
    #[arg(long, value_name = "X", default_value = "1.0", value_parser = non_negative, allow_negative_numbers = true)]
    pub temperature: f64,
    /// Keep the likeliest tokens up to this probability together
    #[arg(long, value_name = "X", default_value = "1.0", value_parser = share, allow_negative_numbers = true)]
    pub top_p: f64,
    /// Keep this many of the likeliest tokens; 0 keeps all
    #[arg(long, value_name = "N", default_value = "0", allow_negative_numbers = true)]
    pub top_k: usize,
    /// Keep tokens of at least this share of the likeliest one's probability
    #[arg(long, value_name = "X", value_parser = share, allow_negative_numbers = true)]
    pub min_p: Option<f64>,
    /// Above 1 makes tokens that have occurred less likely
    #[arg(long, value_name = "X", default_value = "1.0", value_parser = positive, allow_negative_numbers = true)]
    pub repetition_penalty: f64,
    /// Completions of each prompt
    #[arg(long, value_name = "N", default_value = "1", value_parser = count)]
    pub num_return_sequences: usize,
    /// Sequences that are generated together
    #[arg(long, value_name = "N", default_value = "8", value_parser = count)]
    pub batch_size: usize,
    /// Seed of the sampling
    #[arg(long, value_name = "N", default_value = "42")]
    pub seed: u64,
    /// Go on after the end-of-text token
    #[arg(long, value_name = "true|false", num_args = 0..=1, default_value = "false", default_missing_value = "true")]
    pub ignore_eos: bool,
    /// Compute in bfloat16 where that is safe
    #[arg(long, value_name = "true|false", num_args = 0..=1, default_value = "false", default_missing_value = "true")]
    pub bf16: bool,
    /// Print one JSON object a completion, in the order of the prompts
    #[arg(long, value_name = "true|false", num_args = 0..=1, default_value = "false", default_missing_value = "true")]
    pub json: bool,
    /// Write rows, tokens, times and memory to this file
    #[arg(long, value_name = "FILE")]
    pub metrics: Option<PathBuf>,
    /// Never ask the network (also HF_HUB_OFFLINE=1)
    #[arg(long, value_name = "true|false", num_args = 0..=1, default_value = "false", default_missing_value = "true")]
    pub offline: bool,
}

/// Runs the command
pub fn run(_args: Args) -> Result<()> {
    Err(Error::run("`generate` is not part of this build"))
}
