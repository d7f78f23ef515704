//! `collimate report`

mod field;

use std::path::PathBuf;

use super::output::Output;
use crate::Result;
use crate::files::write_bytes;
use crate::report::run::name_apart;
use crate::report::{Run, render};

/// One HTML page for one or more finished or running run folders
///
/// The page carries all it needs: it opens from disk, without a network and without scripts. Of a `grl` run it shows the
/// field over prompts too. It prints the path of the page.
#[derive(Debug, clap::Args)]
#[command(rename_all = "snake_case")]
pub struct Args {
    /// Run folders; several are drawn into the same figures
    #[arg(value_name = "RUN_DIR", required = true)]
    pub runs: Vec<PathBuf>,
    /// The page; `report.html` in the run folder where there is one run, in the current folder where there are several
    #[arg(long, value_name = "FILE.html")]
    pub output: Option<PathBuf>,
}

/// Runs the command
pub fn run(args: Args) -> Result<()> {
    let mut runs = args.runs.iter().map(|folder| Run::read(folder)).collect::<Result<Vec<_>>>()?;
    name_apart(&mut runs);
    let path = args.output.unwrap_or_else(|| match args.runs.as_slice() {
        [folder] => folder.join("report.html"),
        _ => PathBuf::from("report.html"),
    });
    let page = render(&field::sections(&runs)?, &runs)?;
    write_bytes(&path, page.as_bytes())?;
    let mut output = Output::open();
    output.line(&path.display().to_string())?;
    output.flush()
}
