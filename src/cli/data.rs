//! `collimate data`

use super::args::count;
use crate::{Error, Result};

/// What datasets hold
#[derive(Debug, clap::Subcommand)]
#[command(arg_required_else_help = true)]
pub enum Data {
    /// What a dataset holds, which format it is taken for, and the tokens with their loss mask
    Inspect(InspectArgs),
}

/// The arguments of `collimate data inspect`
#[derive(Debug, clap::Args)]
#[command(rename_all = "snake_case", group(clap::ArgGroup::new("source").required(true)))]
pub struct InspectArgs {
    /// Dataset: a file, a folder, or an id on the Hub
    #[arg(value_name = "DATASET", group = "source")]
    pub dataset: Option<String>,
    /// The same as a flag
    #[arg(long, value_name = "DATASET", group = "source")]
    pub dataset_name: Option<String>,
    /// Configuration of a dataset on the Hub
    #[arg(long, value_name = "NAME")]
    pub dataset_config: Option<String>,
    /// Split to look at
    #[arg(long, alias = "dataset_train_split", value_name = "SPLIT", default_value = "train")]
    pub split: String,
    /// Columns to rename: found name = expected name
    #[arg(long, value_name = "NAME=VALUE", num_args = 1.., value_delimiter = ',')]
    pub columns: Vec<String>,
    /// Model whose tokenizer and chat template are used: a folder, or an id on the Hub; without it, no tokens are shown
    #[arg(long, alias = "model_name_or_path", value_name = "MODEL")]
    pub model: Option<String>,
    /// Longest sequence in tokens; longer ones are cut
    #[arg(long, value_name = "N", default_value = "1024", value_parser = count)]
    pub max_length: usize,
    /// Rows to show
    #[arg(long, value_name = "N", default_value = "3", value_parser = count)]
    pub rows: usize,
    /// Print one JSON object
    #[arg(long, value_name = "true|false", num_args = 0..=1, default_value = "false", default_missing_value = "true")]
    pub json: bool,
    /// Never ask the network (also HF_HUB_OFFLINE=1)
    #[arg(long, value_name = "true|false", num_args = 0..=1, default_value = "false", default_missing_value = "true")]
    pub offline: bool,
}

impl InspectArgs {
    /// The dataset, whichever way it was named
    pub fn source(&self) -> &str {
        self.dataset.as_deref().or(self.dataset_name.as_deref()).unwrap_or_default()
    }
}

/// Runs `collimate data inspect`
pub fn inspect(_args: InspectArgs) -> Result<()> {
    Err(Error::run("`data inspect` is not part of this build"))
}
