//! `collimate rl tokens`: methods on the enumerable token problem at equal reward queries.
//!
//! Each method gets the same learning rates to choose from, on instances that it is not compared on. Figures are
//! interquartile means with bootstrap intervals; what they allow to be said is decided by `report::verdict`.

use std::collections::BTreeMap;
use std::path::Path;

use rayon::prelude::*;
use serde::Serialize;
use serde_json::json;

use crate::cli::keyed::Keyed;
use crate::cli::output::Output;
use crate::config::{CommandSpec, Context, TokenProblemKeys, Values, nearest, to_yaml};
use crate::grl::calibration::{Calibration, Forecast, LEVELS, calibration, discrimination};
use crate::report::statistics::{Bootstrap, Estimate, Scores, iqm};
use crate::report::verdict::{Stratum, Verdict, Verdicts, area_over_log, judge};
use crate::report::verdict_doubt::{DoubtStratum, Doubter, judge_doubt};
use crate::rl::token_problem::{ARMS, Arm, DOUBTERS, Doubts, Point, Problem, doubts, run};
use crate::run::{Manifest, OpenMode, RunFolder, Start, names};
use crate::{Error, Result};

/// What `rl tokens` is called with
pub(in crate::cli) const TOKENS: CommandSpec = CommandSpec {
    name: "rl tokens",
    about: "Compare methods on a token problem whose optimum is known exactly",
    groups: &[TokenProblemKeys::KEYS],
    defaults: &[],
    run: run_values,
};

/// `collimate rl tokens`
#[derive(Debug)]
pub struct Tokens;

impl Keyed for Tokens {
    const SPEC: CommandSpec = TOKENS;
}

/// Where the area under the curve begins
const FIRST: f64 = 256.0;

/// Seeds without which an instance family supports no claim
const NEEDED_SEEDS: usize = 20;

/// Added to the number of an instance on which rates are tried
const TUNING: u64 = 1_000_000;

const KINDS: [(&str, bool); 2] = [("structured", true), ("unstructured", false)];

/// A method on one kind of prompts
#[derive(Serialize)]
struct Cell {
    method: &'static str,
    prompts: &'static str,
    /// The rates that were tried, each with its mean score
    tried: Vec<(f64, f64)>,
    learning_rate: f64,
    /// Interquartile means over the runs
    early: Estimate,
    last: Estimate,
    area: Estimate,
    kl: Estimate,
    runs: Vec<OneRun>,
}

#[derive(Serialize)]
struct OneRun {
    seed: u64,
    area: f64,
    points: Vec<Point>,
}

fn run_values(values: &Values, context: &Context) -> Result<()> {
    let keys = TokenProblemKeys::from_values(values)?;
    let arms = chosen(&keys)?;
    let mode = OpenMode { overwrite: keys.overwrite_output_dir, resume: None };
    let (folder, _) = RunFolder::open(Path::new(&keys.output_dir), &mode)?.begin()?;
    let threads = rayon::current_num_threads();
    let start = Start { command: context.command_line.clone(), seed: keys.first_seed, threads, ..Start::default() };
    let mut manifest = Manifest::start(folder.join(names::MANIFEST), start)?;
    let outcome = folder.write(names::CONFIG, to_yaml(keys.to_values())?.as_bytes()).and_then(|()| {
        let page = compare(&keys, &arms, &folder)?;
        let mut output = Output::open();
        output.line(page.trim_end())?;
        output.flush()
    });
    manifest.finish(outcome.as_ref().copied())?;
    outcome
}

fn chosen(keys: &TokenProblemKeys) -> Result<Vec<&'static Arm>> {
    let Some(wanted) = &keys.methods else { return Ok(ARMS.iter().collect()) };
    let find = |name: &String| {
        ARMS.iter().find(|arm| arm.name == name).ok_or_else(|| {
            let names: Vec<&str> = ARMS.iter().map(|arm| arm.name).collect();
            let error = Error::usage(format!("`methods` must be of `{}`, got `{name}`", names.join("`, `")));
            match nearest(name, names) {
                Some(near) => error.hint(format!("did you mean `{near}`?")),
                None => error,
            }
        })
    };
    wanted.iter().map(find).collect()
}

fn compare(keys: &TokenProblemKeys, arms: &[&'static Arm], folder: &RunFolder) -> Result<String> {
    let mut cells = Vec::new();
    for (prompts, structured) in KINDS {
        for arm in arms {
            let cell = cell(keys, arm, prompts, structured)?;
            let Estimate { point, low, high } = cell.area;
            tracing::info!("{prompts}, {}: area {point:.3} [{low:.3}, {high:.3}]", arm.name);
            cells.push(cell);
        }
    }
    let strata: Vec<Stratum> = KINDS.iter().map(|(prompts, _)| stratum(&cells, prompts)).collect();
    let verdicts = judge(&strata, &Bootstrap::default())?;
    let (doubt, rows) = judge_field(keys, &cells)?;
    let results = json!({
        "cells": cells, "contrasts": verdicts.contrasts, "verdicts": verdicts.verdicts, "findings": verdicts.findings,
        "uncertainty": { "verdict": doubt, "rows": rows },
    });
    let mut bytes = serde_json::to_vec_pretty(&results).map_err(|cause| Error::run(cause.to_string()))?;
    bytes.push(b'\n');
    folder.write("results.json", &bytes)?;
    let page = page(keys, &cells, &verdicts, doubt.as_ref(), &rows);
    folder.write("results.md", page.as_bytes())?;
    let summary = json!({ "verdicts": verdicts.verdicts, "uncertainty": doubt });
    folder.write(names::SUMMARY, format!("{summary:#}\n").as_bytes())?;
    Ok(page)
}

/// Runs of an arm on the instances from `first`
fn runs(
    keys: &TokenProblemKeys,
    arm: &Arm,
    structured: bool,
    first: u64,
    count: usize,
    queries: usize,
    rate: f64,
) -> Result<Vec<OneRun>> {
    let one = |i: usize| {
        let seed = first + i as u64;
        let problem = Problem::new(seed, keys.prompts, structured);
        let points = run(&problem, arm.method, arm.settings(queries, rate), seed)?;
        let curve: Vec<(f64, f64)> = points.iter().map(|point| (point.queries as f64, point.score)).collect();
        let area = area_over_log(&curve, FIRST).unwrap_or(f64::NAN);
        Ok(OneRun { seed, area, points })
    };
    (0..count).into_par_iter().map(one).collect()
}

fn cell(keys: &TokenProblemKeys, arm: &Arm, prompts: &'static str, structured: bool) -> Result<Cell> {
    let mut tried = Vec::new();
    for &rate in &keys.learning_rates {
        let first = keys.first_seed + TUNING;
        let runs = runs(keys, arm, structured, first, keys.tuning_seeds, keys.tuning_queries, rate)?;
        let scores = runs.iter().map(|run| last(run).score);
        tried.push((rate, scores.sum::<f64>() / keys.tuning_seeds as f64));
    }
    // A run that diverged has no score, and its rate no mean
    let best = tried.iter().filter(|(_, score)| score.is_finite()).max_by(|a, b| a.1.total_cmp(&b.1));
    let learning_rate = best.map_or(keys.learning_rates[0], |(rate, _)| *rate);
    let runs = runs(keys, arm, structured, keys.first_seed, keys.seeds, keys.queries, learning_rate)?;
    let figure = |of: &dyn Fn(&OneRun) -> f64| -> Result<Estimate> {
        let scores = Scores::new(vec![runs.iter().map(of).collect()])?;
        Ok(Bootstrap::default().estimate(&scores, iqm))
    };
    Ok(Cell {
        method: arm.name,
        prompts,
        tried,
        learning_rate,
        early: figure(&|run| at(run, EARLY))?,
        last: figure(&|run| last(run).score)?,
        area: figure(&|run| run.area)?,
        kl: figure(&|run| last(run).kl)?,
        runs,
    })
}

/// Queries of the first column of scores
const EARLY: usize = 1024;

fn at(run: &OneRun, queries: usize) -> f64 {
    let known = run.points.iter().rfind(|point| point.queries <= queries);
    known.map_or(0.0, |point| point.score)
}

fn last(run: &OneRun) -> Point {
    run.points[run.points.len() - 1]
}

fn stratum(cells: &[Cell], prompts: &str) -> Stratum {
    let own = cells.iter().filter(|cell| cell.prompts == prompts);
    let scores = own.map(|cell| {
        (cell.method.to_owned(), cell.runs.iter().map(|run| (run.seed, run.area)).collect::<BTreeMap<u64, f64>>())
    });
    Stratum {
        name: format!("token problem, {prompts}"),
        needed_seeds: NEEDED_SEEDS,
        scores: scores.collect(),
        // Equal queries, one τ for all that is priced in J, four gradient steps a batch for each arm that claims compare
        objections: Vec::new(),
    }
}

/// Figures of one doubter on one set of prompts, means over runs
#[derive(Serialize)]
struct DoubtRow {
    prompts: &'static str,
    doubter: &'static str,
    /// Of prompts like those that were trained on, and of foreign ones
    familiar: Calibration,
    foreign: Calibration,
    /// P(a foreign prompt is doubted more than a familiar one)
    discrimination: f64,
}

/// Asks the field of `grl` about prompts it has not seen
fn judge_field(keys: &TokenProblemKeys, cells: &[Cell]) -> Result<(Option<Verdict>, Vec<DoubtRow>)> {
    let mut rows = Vec::new();
    let mut strata = Vec::new();
    for (prompts, structured) in KINDS {
        let found = cells.iter().find(|cell| cell.method == "grl" && cell.prompts == prompts);
        let arm = ARMS.iter().find(|arm| arm.name == "grl");
        let (Some(cell), Some(arm), true) = (found, arm, keys.calibration_seeds > 0) else { continue };
        let one = |i: usize| {
            let seed = keys.first_seed + i as u64;
            let problem = Problem::new(seed, keys.prompts, structured);
            doubts(&problem, arm, keys.calibration_queries, cell.learning_rate, seed)
        };
        let all: Vec<Doubts> = (0..keys.calibration_seeds).into_par_iter().map(one).collect::<Result<_>>()?;
        let mut doubters = Vec::new();
        for (d, doubter) in DOUBTERS.into_iter().enumerate() {
            let figures = |familiar: bool| -> Result<Vec<Calibration>> {
                let of = |run: &Doubts| calibration(&select(run, d, familiar));
                all.iter().map(of).collect()
            };
            let (familiar, foreign) = (figures(true)?, figures(false)?);
            let told_apart = all.iter().map(|run| {
                let doubt: Vec<f64> = run.forecasts[d].iter().map(|one| one.variance).collect();
                let positive: Vec<bool> = run.familiar.iter().map(|familiar| !familiar).collect();
                discrimination(&doubt, &positive)
            });
            let discrimination = told_apart.sum::<f64>() / all.len() as f64;
            doubters.push(Doubter {
                name: doubter.to_owned(),
                negative_log_likelihood: foreign.iter().map(|figures| figures.negative_log_likelihood).collect(),
                risk_coverage: foreign.iter().map(|figures| figures.risk_coverage).collect(),
            });
            let (familiar, foreign) = (mean(&familiar), mean(&foreign));
            rows.push(DoubtRow { prompts, doubter, familiar, foreign, discrimination });
        }
        let field = &rows[rows.len() - DOUBTERS.len()];
        let coverage = [&field.familiar, &field.foreign].map(|figures| LEVELS.into_iter().zip(figures.coverage));
        strata.push(DoubtStratum {
            name: format!("token problem, {prompts}"),
            needed_seeds: NEEDED_SEEDS,
            doubters,
            coverage: coverage.into_iter().flatten().collect(),
        });
    }
    let verdict = if strata.is_empty() { None } else { Some(judge_doubt(&strata, &Bootstrap::default())?) };
    Ok((verdict, rows))
}

fn select(run: &Doubts, doubter: usize, familiar: bool) -> Vec<Forecast> {
    let pairs = run.forecasts[doubter].iter().zip(&run.familiar);
    pairs.filter(|(_, of)| **of == familiar).map(|(forecast, _)| *forecast).collect()
}

fn mean(all: &[Calibration]) -> Calibration {
    let mean = |of: &dyn Fn(&Calibration) -> f64| all.iter().map(of).sum::<f64>() / all.len() as f64;
    Calibration {
        negative_log_likelihood: mean(&|one| one.negative_log_likelihood),
        crps: mean(&|one| one.crps),
        coverage: [0, 1, 2].map(|level| mean(&|one| one.coverage[level])),
        z_scale: mean(&|one| one.z_scale),
        rank_correlation: mean(&|one| one.rank_correlation),
        risk_coverage: mean(&|one| one.risk_coverage),
    }
}

fn page(
    keys: &TokenProblemKeys,
    cells: &[Cell],
    verdicts: &Verdicts,
    doubt: Option<&Verdict>,
    rows: &[DoubtRow],
) -> String {
    let mut lines = vec![format!(
        "Score: (J − J_ref)/(J* − J_ref), J = E r − τ KL, exact. Interquartile mean of {} runs [95 % stratified bootstrap]. \
         Rates chosen at {} queries on {} other instances.",
        keys.seeds, keys.tuning_queries, keys.tuning_seeds
    )];
    for (prompts, _) in KINDS {
        lines.push(format!(
            "\n### {prompts} prompts\n\n| method | rate | score at {EARLY} | score at {} | area {FIRST} to {} | KL |\n\
             |---|---|---|---|---|---|",
            keys.queries, keys.queries
        ));
        for cell in cells.iter().filter(|cell| cell.prompts == prompts) {
            let about = ARMS.iter().find(|arm| arm.name == cell.method).map_or("", |arm| arm.about);
            let interval = |Estimate { point, low, high }: Estimate| format!("{point:.3} [{low:.3}, {high:.3}]");
            lines.push(format!(
                "| `{}`: {about} | {} | {} | {} | {} | {:.2} |",
                cell.method,
                cell.learning_rate,
                interval(cell.early),
                interval(cell.last),
                interval(cell.area),
                cell.kl.point
            ));
        }
    }
    lines.push("\n### What may be said\n".to_owned());
    lines.push(verdicts.markdown());
    if let Some(Verdict { claim, answer, reasons }) = doubt {
        lines.push(format!(
            "\n### Uncertainty\n\nForecasts of V^π(x) for prompts that were not trained on, after {} queries; means over {} \
             runs. Familiar prompts / foreign ones.\n\n- **{claim}: {answer}.**",
            keys.calibration_queries, keys.calibration_seeds
        ));
        lines.extend(reasons.iter().map(|reason| format!("  - {reason}")));
        let head = "\n| prompts | doubter | −log-likelihood | CRPS | coverage of 50 / 80 / 95 % | rms z | rank correlation | \
                 risk-coverage area | foreign told apart |\n|---|---|---|---|---|---|---|---|---|";
        lines.push(head.to_owned());
        for row in rows {
            let both = |of: &dyn Fn(&Calibration) -> String| format!("{} / {}", of(&row.familiar), of(&row.foreign));
            let coverage = |one: &Calibration| one.coverage.map(|share| format!("{:.0}", 100.0 * share)).join(" ");
            lines.push(format!(
                "| {} | {} | {} | {} | {} | {} | {} | {} | {:.2} |",
                row.prompts,
                row.doubter,
                both(&|one| format!("{:.2}", one.negative_log_likelihood)),
                both(&|one| format!("{:.2}", one.crps)),
                both(&coverage),
                both(&|one| format!("{:.2}", one.z_scale)),
                both(&|one| format!("{:.2}", one.rank_correlation)),
                both(&|one| format!("{:.2}", one.risk_coverage)),
                row.discrimination
            ));
        }
    }
    lines.join("\n") + "\n"
}
