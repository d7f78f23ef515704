//! `collimate demo`

use std::path::PathBuf;

use crate::{Error, Result};

/// The whole pipeline on the model and data that ship with the program
#[derive(Debug, clap::Args)]
#[command(rename_all = "snake_case")]
pub struct Args {
    /// Folder for the runs and the report
    #[arg(long, value_name = "FOLDER", default_value = "collimate-demo")]
    pub output_dir: PathBuf,
}

/// Runs the command
pub fn run(_args: Args) -> Result<()> {
    Err(Error::run("`demo` is not part of this build"))
}
