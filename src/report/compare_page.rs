//! A comparison as figures, tables and one HTML page that carries everything, asks no network and runs no script.

use minijinja::context;
use serde::Serialize;

use super::chart::{Band, Curve, PALETTE, Plot, number};
use super::comparison::{Comparison, ENOUGH_RUNS, Measured, Outcome, Pair};
use super::intervals::{self, Interval};
use super::statistics::Estimate;
use super::template::{fill, jinja};
use crate::error::{Error, Result};

/// A figure in both forms
#[derive(Debug, Clone, Serialize)]
pub struct Figure {
    /// Name of its file, without the ending
    pub name: &'static str,
    /// What it shows
    pub title: String,
    /// How to read it
    pub note: String,
    /// For a page
    pub svg: String,
    /// As a file of its own
    #[serde(skip)]
    pub file: String,
}

/// The figures of a comparison, the most telling one first
pub fn figures(found: &Comparison) -> Result<Vec<Figure>> {
    let mut figures = Vec::new();
    let score = score_name(found);
    let with_bands = |estimates: &dyn Fn(&Outcome) -> &Vec<Estimate>, x: &[f64]| {
        let algorithms = found.algorithms.iter().enumerate();
        let zip = |estimates: &Vec<Estimate>| x.iter().copied().zip(estimates.iter().copied()).collect::<Vec<_>>();
        let curve = |(colour, outcome): (usize, &Outcome)| {
            let points = zip(estimates(outcome));
            let middle = points.iter().map(|(x, estimate)| (*x, estimate.point)).collect();
            let band = points.iter().map(|(x, estimate)| (*x, estimate.low, estimate.high)).collect();
            (Curve { colour, points: middle, marked: false }, Band { colour, points: band })
        };
        algorithms.map(curve).unzip::<_, _, Vec<_>, Vec<_>>()
    };
    let legend: Vec<(usize, &str)> =
        found.algorithms.iter().enumerate().map(|(colour, outcome)| (colour, outcome.name.as_str())).collect();

    let (curves, bands) = with_bands(&|outcome| &outcome.curve, &found.grid);
    let plot =
        Plot { curves: &curves, bands: &bands, x_label: &found.x_label, y_label: &score, level: found.threshold };
    if let (Some(svg), Some(file)) = (plot.inline()?, plot.file(&legend)?) {
        let note = found.threshold.map_or_else(String::new, |threshold| format!("dashed: {}", number(threshold)));
        let title = format!("{score} against {}", found.x_label);
        figures.push(Figure { name: "sample_efficiency", title, note, svg, file });
    }
    let mut add = |name, title: String, note: &str, rows: Vec<Interval>, label: &str, level| -> Result<()> {
        if let (Some(svg), Some(file)) =
            (intervals::draw(&rows, label, level, true)?, intervals::draw(&rows, label, level, false)?)
        {
            figures.push(Figure { name, title, note: note.to_owned(), svg, file });
        }
        Ok(())
    };
    let of = |estimate: &dyn Fn(&Outcome) -> Option<Estimate>| -> Vec<Interval> {
        let row = |(colour, outcome): (usize, &Outcome)| {
            Some(Interval { name: outcome.name.clone(), colour, estimate: estimate(outcome)? })
        };
        found.algorithms.iter().enumerate().filter_map(row).collect()
    };
    add("final", "At the end".to_owned(), "mean over the last tenth", of(&|o| Some(o.iqm)), &score, None)?;
    if found.threshold.is_some() {
        let label = format!("{} until the threshold", found.x_label);
        let rows = of(&|outcome| outcome.reached.map(|reached| reached.spent));
        add("to_threshold", "To the threshold".to_owned(), "less is better", rows, &label, Some(found.span.1))?;
    }
    let place = |name: &str| found.algorithms.iter().position(|outcome| outcome.name == name).unwrap_or(0);
    let row = |pair: &Pair| Interval {
        name: format!("{} > {}", pair.first, pair.second),
        colour: place(&pair.first),
        estimate: pair.probability,
    };
    // One row a pair: the better one first
    let shown = |pair: &&Pair| match pair.probability.point {
        0.5 => place(&pair.first) < place(&pair.second),
        probability => probability > 0.5,
    };
    let rows = found.pairs.iter().filter(shown).map(row).collect();
    add(
        "probability_of_improvement",
        "Probability of improvement".to_owned(),
        "a run of the one ends higher than a run of the other",
        rows,
        "P(first > second)",
        Some(0.5),
    )?;
    let (curves, bands) = with_bands(&|outcome| &outcome.profile, &found.profile_scores);
    let plot = Plot { curves: &curves, bands: &bands, x_label: &score, y_label: "share of runs above", level: None };
    if let (Some(svg), Some(file)) = (plot.inline()?, plot.file(&legend)?) {
        let title = "Performance profile".to_owned();
        figures.push(Figure { name: "performance_profile", title, note: String::new(), svg, file });
    }
    Ok(figures)
}

fn score_name(found: &Comparison) -> String {
    if found.normalised { format!("{} (normalised)", found.metric) } else { found.metric.clone() }
}

/// A figure with its interval, as people read it
fn words(estimate: Estimate) -> String {
    format!("{} [{}, {}]", number(estimate.point), number(estimate.low), number(estimate.high))
}

/// Heads of the table of algorithms
pub fn columns(found: &Comparison) -> Vec<String> {
    let mut columns = vec![
        "algorithm".to_owned(),
        "runs".to_owned(),
        format!("{} spent", found.x_label),
        format!("{}, IQM", score_name(found)),
        "mean".to_owned(),
        "mean height of the curve".to_owned(),
    ];
    if let Some(threshold) = found.threshold {
        columns.push(format!("reach {}", number(threshold)));
        columns.push(format!("{} until then", found.x_label));
    }
    columns
}

/// Cells of the table of algorithms, a row each
pub fn rows(found: &Comparison) -> Vec<Vec<String>> {
    let row = |outcome: &Outcome| {
        let runs = match outcome.failed {
            0 => outcome.runs.to_string(),
            failed => format!("{} ({failed} failed)", outcome.runs),
        };
        let mut row = vec![
            outcome.name.clone(),
            runs,
            number(outcome.spent),
            words(outcome.iqm),
            words(outcome.mean),
            words(outcome.area),
        ];
        if let Some(reached) = outcome.reached {
            let bound = if reached.runs < outcome.runs { "at least " } else { "" };
            row.push(format!("{}/{}", reached.runs, outcome.runs));
            row.push(format!("{bound}{}", words(reached.spent)));
        }
        row
    };
    found.algorithms.iter().map(row).collect()
}

/// P(row > column) for every pair
pub fn pairwise(found: &Comparison) -> Vec<(String, Vec<String>)> {
    let names = || found.algorithms.iter().map(|outcome| &outcome.name);
    let cell = |first: &String, second: &String| found.probability(first, second).map_or_else(String::new, words);
    names().map(|first| (first.clone(), names().map(|second| cell(first, second)).collect())).collect()
}

/// What a reader must know before believing a figure
pub fn warnings(found: &Comparison) -> Vec<String> {
    let mut warnings = Vec::new();
    if found.fewest_runs < ENOUGH_RUNS {
        warnings.push(format!(
            "{} of an algorithm {} few: the true coverage of these 95 % intervals is about 75 % for 3 runs, 82–89 % for 5, \
             90–93 % for {ENOUGH_RUNS}",
            if found.fewest_runs == 1 { "1 run".to_owned() } else { format!("{} runs", found.fewest_runs) },
            if found.fewest_runs == 1 { "is" } else { "are" }
        ));
    }
    for outcome in found.algorithms.iter().filter(|outcome| outcome.failed > 0) {
        let mut text = format!("`{}`: {} runs did not finish", outcome.name, outcome.failed);
        if outcome.cells.iter().any(|run| run.cell.failure.is_some() && run.score.is_none()) {
            text.push_str(" and are left out, which flatters it (`failed_score` counts them)");
        }
        warnings.push(text);
    }
    let spent = || found.algorithms.iter().map(|outcome| outcome.spent);
    let (least, most) = (spent().fold(f64::INFINITY, f64::min), spent().fold(0.0, f64::max));
    if most > 1.02 * least {
        warnings.push(format!(
            "budgets differ: {} to {} {}; curves and scores are taken up to {}",
            number(least),
            number(most),
            found.x_label,
            number(found.span.1)
        ));
    }
    warnings
}

#[derive(Serialize)]
struct Shown<'f> {
    algorithm: &'f str,
    colour: usize,
    task: &'f str,
    label: &'f str,
    folder: String,
    numbers: Vec<String>,
    failure: Option<&'f str>,
}

/// The page
pub fn render(found: &Comparison, title: &str) -> Result<String> {
    let figures = figures(found)?;
    let or_dash = |value: Option<f64>| value.map_or_else(|| "–".to_owned(), number);
    let cells: Vec<Shown<'_>> = found
        .algorithms
        .iter()
        .enumerate()
        .flat_map(|(colour, outcome)| {
            outcome.cells.iter().map(move |run| Shown {
                algorithm: &outcome.name,
                colour: colour % PALETTE.len(),
                task: &run.cell.task,
                label: &run.cell.label,
                folder: run.cell.folder.display().to_string(),
                numbers: vec![or_dash(run.score), or_dash(run.area), or_dash(run.reached)],
                failure: run.cell.failure.as_deref(),
            })
        })
        .collect();
    let facts = [
        ("metric", found.metric.clone()),
        ("compared from", format!("{} to {} {}", number(found.span.0), number(found.span.1), found.x_label)),
        ("runs of an algorithm", runs_of(found)),
        (
            "intervals",
            format!(
                "95 %, stratified percentile bootstrap over runs and tasks, {} resamples ({} for curves)",
                found.resamples.0, found.resamples.1
            ),
        ),
    ];
    let names: Vec<(usize, &str)> =
        found.algorithms.iter().enumerate().map(|(i, outcome)| (i % PALETTE.len(), outcome.name.as_str())).collect();
    let shown = context! {
        title => title,
        version => env!("CARGO_PKG_VERSION"),
        palette => jinja(PALETTE),
        facts => jinja(facts),
        names => jinja(names),
        warnings => jinja(warnings(found)),
        figures => jinja(figures),
        columns => jinja(columns(found)),
        rows => jinja(rows(found)),
        pairwise => jinja(pairwise(found)),
        cells => jinja(cells),
        tasks => found.tasks.len() > 1,
        threshold => found.threshold.is_some(),
    };
    fill(include_str!("compare.html"), shown)
}

fn runs_of(found: &Comparison) -> String {
    let even = found.algorithms.iter().all(|outcome| outcome.runs == found.fewest_runs * found.tasks.len());
    let at_least = if even { "" } else { "at least " };
    let tasks = if found.tasks.len() > 1 { format!(" in each of {} tasks", found.tasks.len()) } else { String::new() };
    format!("{at_least}{}{tasks}", found.fewest_runs)
}

/// One row an algorithm
pub fn algorithms_csv(found: &Comparison) -> Result<String> {
    let figures = ["iqm", "mean", "median", "area", "to_threshold"];
    let ends = figures.iter().flat_map(|name| [(*name).to_owned(), format!("{name}_low"), format!("{name}_high")]);
    let head = ["algorithm", "runs", "failed", "spent"].map(str::to_owned).into_iter().chain(ends);
    let head = head.chain(["reached".to_owned()]).collect();
    let row = |outcome: &Outcome| {
        let reached = outcome.reached.map(|reached| reached.spent);
        let estimates = [Some(outcome.iqm), Some(outcome.mean), Some(outcome.median), Some(outcome.area), reached];
        let numbers = estimates.into_iter().flat_map(|estimate| {
            [estimate.map(|e| e.point), estimate.map(|e| e.low), estimate.map(|e| e.high)].map(or_empty)
        });
        let counts = [outcome.runs.to_string(), outcome.failed.to_string(), outcome.spent.to_string()];
        let reached = outcome.reached.map_or_else(String::new, |reached| reached.runs.to_string());
        [outcome.name.clone()].into_iter().chain(counts).chain(numbers).chain([reached]).collect()
    };
    table([head].into_iter().chain(found.algorithms.iter().map(row)))
}

/// One row an algorithm and place
pub fn curves_csv(found: &Comparison) -> Result<String> {
    let head = ["algorithm", &found.x, "iqm", "low", "high"].map(str::to_owned).to_vec();
    let rows = found.algorithms.iter().flat_map(|outcome| {
        found.grid.iter().zip(&outcome.curve).map(|(x, estimate)| {
            let numbers = [*x, estimate.point, estimate.low, estimate.high].map(|number| number.to_string());
            [outcome.name.clone()].into_iter().chain(numbers).collect()
        })
    });
    table([head].into_iter().chain(rows))
}

/// One row a run
pub fn runs_csv(found: &Comparison) -> Result<String> {
    let head = ["algorithm", "task", "run", "folder", "score", "area", "to_threshold", "failure"];
    let row = |algorithm: &str, run: &Measured| {
        let cell = &run.cell;
        let failure = cell.failure.clone().unwrap_or_default();
        let texts = [algorithm.to_owned(), cell.task.clone(), cell.label.clone(), cell.folder.display().to_string()];
        let numbers = [run.score, run.area, run.reached].map(or_empty);
        texts.into_iter().chain(numbers).chain([failure]).collect()
    };
    let rows = found.algorithms.iter().flat_map(|outcome| outcome.cells.iter().map(|run| row(&outcome.name, run)));
    table([head.map(str::to_owned).to_vec()].into_iter().chain(rows))
}

fn or_empty(value: Option<f64>) -> String {
    value.map_or_else(String::new, |value| value.to_string())
}

fn table(rows: impl IntoIterator<Item = Vec<String>>) -> Result<String> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    let failed = |cause: String| Error::run(format!("cannot write a table: {cause}"));
    for row in rows {
        writer.write_record(row).map_err(|cause| failed(cause.to_string()))?;
    }
    let bytes = writer.into_inner().map_err(|cause| failed(cause.to_string()))?;
    String::from_utf8(bytes).map_err(|cause| failed(cause.to_string()))
}
