//! `collimate demo`

mod files;
mod measure;
mod page;
mod runs;
mod table;

use std::path::{Path, PathBuf};
use std::time::Instant;

use serde_json::{Value as Json, json};

use self::runs::STAGES;
use self::table::Results;
use crate::files::write_bytes;
use crate::{Error, Result};

/// Marks the folder as one that the demo may replace; when all is done, it holds the figures
const RECORD: &str = "demo.json";
const REPORT: &str = "report.html";

/// The whole pipeline on the model and data that ship with the program, within five minutes on 2 cores
///
/// Fine-tuning, a reward model, then DPO, PPO, GRPO and GRL from the same start at equal budgets. Prints a table and
/// reviews before and after, and writes a report that opens from disk. It needs no network.
#[derive(Debug, clap::Args)]
#[command(rename_all = "snake_case")]
pub struct Args {
    /// Folder for the runs, the report, the default model and its data; an earlier demo in it is replaced
    #[arg(long, value_name = "FOLDER", default_value = "collimate-demo")]
    pub output_dir: PathBuf,
}

/// Runs the command
pub fn run(args: Args) -> Result<()> {
    let begin = Instant::now();
    let folder = args.output_dir.as_path();
    claim(folder)?;
    files::write(&folder.join("default"))?;
    let parts = STAGES.len() + 1;
    let mut times = Vec::with_capacity(STAGES.len());
    for (i, stage) in STAGES.iter().enumerate() {
        tracing::info!("{}/{parts} {}, into `{}`", i + 1, stage.about, folder.join(stage.name).display());
        times.push(stage.train(folder)?);
    }
    tracing::info!("{parts}/{parts} measuring all models on what they were not trained on");
    let findings = measure::measure(folder)?;
    let results = Results { findings, times, total: begin.elapsed() };
    let runs = page::runs(folder)?;
    write_bytes(&folder.join(REPORT), page::page(&results, &runs)?.as_bytes())?;
    record(folder, &results.json())?;
    results.print(folder, &page::parting(&results, &runs))?;
    tracing::info!("the demo took {:.0} s", begin.elapsed().as_secs_f64());
    Ok(())
}

/// Takes a new or empty folder, or one that an earlier demo made
fn claim(folder: &Path) -> Result<()> {
    let taken = match std::fs::read_dir(folder) {
        Ok(mut entries) => entries.next().is_some(),
        Err(cause) if cause.kind() == std::io::ErrorKind::NotFound => false,
        Err(cause) => return Err(Error::read(folder, cause)),
    };
    if taken && !folder.join(RECORD).is_file() {
        return Err(Error::usage(format!("`{}` holds files that no demo made", folder.display()))
            .hint("name another folder with `--output_dir`"));
    }
    record(folder, &json!({"finished": false}))
}

fn record(folder: &Path, figures: &Json) -> Result<()> {
    write_bytes(&folder.join(RECORD), format!("{figures:#}\n").as_bytes())
}
