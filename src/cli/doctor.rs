//! `collimate doctor`

use crate::{Error, Result};

/// Versions, threads, processor features, cache folders, and whether the Hub answers
#[derive(Debug, clap::Args)]
#[command(rename_all = "snake_case")]
pub struct Args {
    /// Never ask the network (also HF_HUB_OFFLINE=1)
    #[arg(long, value_name = "true|false", num_args = 0..=1, default_value = "false", default_missing_value = "true")]
    pub offline: bool,
}

/// Runs the command
pub fn run(_args: Args) -> Result<()> {
    Err(Error::run("`doctor` is not part of this build"))
}
