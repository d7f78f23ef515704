//! `collimate compare`

mod budget;
mod existing;
mod spec;
mod workers;

use std::path::{Path, PathBuf};

use super::args::count;
use super::output::Output;
use crate::config::nearest;
use crate::files::write_bytes;
use crate::report::comparison::{self, Algorithm, Comparison, Question};
use crate::report::curve::LearningCurve;
use crate::report::verdict::Verdicts;
use crate::report::{Run, claims, compare_page};
use crate::run::names;
use crate::{Error, Result};

use self::spec::{Cell, Spec};
use self::workers::{Outcome, Share};

/// Folder of the figures in the folder of a comparison
const FIGURES: &str = "figures";

/// Several algorithms × seeds at equal budgets: curves, scores with intervals, who beats whom
///
/// Each cell is an ordinary run in OUTPUT_DIR/cells, made by this program as a child process. A second start keeps the
/// finished ones and goes on with the others. The result is `compare.html`, `compare.json`, tables and figures.
#[derive(Debug, clap::Args)]
#[command(rename_all = "snake_case", group(clap::ArgGroup::new("what").required(true)))]
pub struct Args {
    /// YAML file of the comparison
    #[arg(long, value_name = "FILE.yaml", group = "what")]
    pub config: Option<PathBuf>,
    /// Compare runs that exist: run folders, folders of them, or NAME=FOLDER
    #[arg(long, value_name = "FOLDER", num_args = 1.., group = "what")]
    pub runs: Vec<String>,
    /// Folder for cells and results; for `runs` only results, `compare` where not set
    #[arg(long, value_name = "FOLDER")]
    pub output_dir: Option<PathBuf>,
    /// Runs side by side; 1 for language models, as many as threads for classical runs where not set
    #[arg(long, value_name = "N", value_parser = count)]
    pub jobs: Option<usize>,
    /// Column of metrics.jsonl, of which more is better
    #[arg(long, value_name = "COLUMN")]
    pub metric: Option<String>,
    /// Column that counts what was spent, for `runs`: reward_queries where all have it, else step
    #[arg(long, value_name = "COLUMN", requires = "runs")]
    pub x: Option<String>,
    /// The score to reach
    #[arg(long, value_name = "X", allow_negative_numbers = true)]
    pub threshold: Option<f64>,
}

/// Runs the command
pub fn run(args: Args) -> Result<()> {
    if let Some(config) = &args.config {
        return run_cells(config, &args);
    }
    let (algorithms, question) = existing::read(&args)?;
    write(args.output_dir.as_deref().unwrap_or(Path::new("compare")), algorithms, &question)
}

fn run_cells(config: &Path, args: &Args) -> Result<()> {
    let spec = Spec::read(config, args.output_dir.as_deref())?;
    let metric = args.metric.clone().or_else(|| spec.metric.clone()).or(spec.budget.metric().map(str::to_owned));
    let Some(metric) = metric else {
        return Err(Error::usage("`metric` is not set").hint("a column of `metrics.jsonl` of which more is better"));
    };
    let classical = spec.cells.iter().all(Cell::is_classical);
    let share = Share::new(args.jobs, rayon::current_num_threads(), classical, spec.cells.len());
    tracing::info!("{} runs, {} at a time with {} threads each", spec.cells.len(), share.jobs, share.threads);
    let outcomes = workers::run(&spec.cells, share)?;
    let x = spec.budget.column();
    let mut algorithms: Vec<Algorithm> = Vec::new();
    for (cell, outcome) in spec.cells.iter().zip(&outcomes) {
        let measured = measured(cell, outcome, &metric, x)?;
        match algorithms.last_mut().filter(|last| last.name == cell.algorithm) {
            Some(last) => last.cells.push(measured),
            None => algorithms.push(Algorithm { name: cell.algorithm.clone(), cells: vec![measured] }),
        }
    }
    let question = Question {
        metric,
        x: x.to_owned(),
        x_label: spec.budget.label().to_owned(),
        threshold: args.threshold.or(spec.threshold),
        normalised: spec.cells.iter().any(|cell| cell.range.is_some()),
        failed_score: spec.failed_score,
        budget: Some(spec.budget.amount()),
    };
    let failed: Vec<String> = spec.cells.iter().zip(&outcomes).filter_map(failure).collect();
    let written = write(&spec.output_dir, algorithms, &question);
    if failed.is_empty() {
        return written;
    }
    if let Err(error) = written {
        tracing::warn!("{}", error.message());
    }
    Err(Error::run(format!("{} of {} runs failed: {}", failed.len(), spec.cells.len(), failed.join("; ")))
        .hint("each run's own words are in the `.log` beside its folder; the same command tries the failed ones again"))
}

fn failure((cell, outcome): (&Cell, &Outcome)) -> Option<String> {
    outcome.as_ref().map(|said| format!("{} ({said})", cell.name()))
}

/// A cell as the comparison takes it
fn measured(cell: &Cell, outcome: &Outcome, metric: &str, x: &str) -> Result<comparison::Cell> {
    let mut curve = LearningCurve::default();
    if outcome.is_none() {
        curve = curve_of(&Run::read(&cell.folder)?, metric, x)?;
    }
    if let Some(range) = cell.range {
        curve = curve.normalised(range);
    }
    Ok(comparison::Cell {
        task: cell.task.clone(),
        label: format!("seed {}", cell.seed),
        folder: cell.folder.clone(),
        failure: outcome.clone(),
        curve,
    })
}

/// The curve of a run, which must have the metric
fn curve_of(run: &Run, metric: &str, x: &str) -> Result<LearningCurve> {
    for (key, column) in [("metric", metric), ("x", x)] {
        if column != "step" && !run.metrics.contains_key(column) {
            let path = run.folder.join(names::METRICS);
            let error = Error::usage(format!("`{key}`: `{}` has no column `{column}`", path.display()));
            let columns = run.metrics.keys().map(String::as_str);
            return Err(match nearest(column, columns.clone()) {
                Some(near) => error.hint(format!("did you mean `{near}`?")),
                None => error.hint(format!("it has `{}`", columns.collect::<Vec<_>>().join("`, `"))),
            });
        }
    }
    Ok(LearningCurve::of_run(run, metric, x))
}

/// Compares, writes everything into `folder` and prints the tables
fn write(folder: &Path, algorithms: Vec<Algorithm>, question: &Question) -> Result<()> {
    let found = Comparison::new(algorithms, question)?;
    let names: Vec<&str> = found.algorithms.iter().map(|outcome| outcome.name.as_str()).collect();
    let title = names.join(", ");
    let json = serde_json::to_string_pretty(&found).map_err(|cause| Error::run(cause.to_string()))?;
    let page = folder.join("compare.html");
    write_bytes(&folder.join("compare.json"), format!("{json}\n").as_bytes())?;
    write_bytes(&folder.join("compare.csv"), compare_page::algorithms_csv(&found)?.as_bytes())?;
    write_bytes(&folder.join("curves.csv"), compare_page::curves_csv(&found)?.as_bytes())?;
    write_bytes(&folder.join("runs.csv"), compare_page::runs_csv(&found)?.as_bytes())?;
    for figure in compare_page::figures(&found)? {
        write_bytes(&folder.join(FIGURES).join(format!("{}.svg", figure.name)), figure.file.as_bytes())?;
    }
    write_bytes(&page, compare_page::render(&found, &title)?.as_bytes())?;
    let judged = claims::of(&found)?;
    if let Some(judged) = &judged {
        let json = serde_json::to_string_pretty(judged).map_err(|cause| Error::run(cause.to_string()))?;
        write_bytes(&folder.join("claims.json"), format!("{json}\n").as_bytes())?;
        write_bytes(&folder.join("claims.md"), judged.markdown().as_bytes())?;
    }
    print(&found, &page, judged.as_ref())
}

fn print(found: &Comparison, page: &Path, judged: Option<&Verdicts>) -> Result<()> {
    for warning in compare_page::warnings(found) {
        tracing::warn!("{warning}");
    }
    let mut output = Output::open();
    let mut rows = vec![compare_page::columns(found)];
    rows.extend(compare_page::rows(found));
    lines(&mut output, &rows)?;
    if found.algorithms.len() > 1 {
        output.line("")?;
        let mut head = vec!["P(row > column)".to_owned()];
        head.extend(found.algorithms.iter().map(|outcome| outcome.name.clone()));
        let mut rows = vec![head];
        rows.extend(compare_page::pairwise(found).into_iter().map(|(name, cells)| {
            let mut row = vec![name];
            row.extend(cells);
            row
        }));
        lines(&mut output, &rows)?;
    }
    if let Some(judged) = judged {
        output.line("")?;
        output.line(judged.markdown().trim_end())?;
    }
    output.line("")?;
    output.line(&page.display().to_string())?;
    output.flush()
}

/// Rows with their columns below each other
fn lines(output: &mut Output, rows: &[Vec<String>]) -> Result<()> {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| rows.iter().filter_map(|row| row.get(column)).map(|c| c.chars().count()).max();
    let widths: Vec<usize> = (0..columns).map(|column| width(column).unwrap_or(0)).collect();
    rows.iter().try_for_each(|row| {
        let cells: Vec<String> = row.iter().zip(&widths).map(|(cell, &width)| format!("{cell:width$}")).collect();
        output.line(cells.join("  ").trim_end())
    })
}
