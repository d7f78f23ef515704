//! Algorithms side by side at what they spent: curves, final scores, thresholds, and who beats whom.
//!
//! After Agarwal et al. 2021 (arXiv:2108.13264): interquartile means over runs and tasks with stratified bootstrap
//! intervals. Every figure is of curves cut to the stretch that all runs have in common.

use std::path::PathBuf;

use serde::Serialize;

use super::curve::LearningCurve;
use super::statistics::{Bootstrap, Estimate, Scores, iqm, mean, median, performance_profile};
use crate::error::{Error, Result};

/// Places on the x axis at which curves are compared
const GRID: usize = 101;
/// Thresholds of the performance profile
const THRESHOLDS: usize = 101;
/// The last part of the budget, over which a final score is the mean
const FINAL: f64 = 0.1;
/// Resamples of each place of a curve and of a profile: a screen shows no more
const CURVE_RESAMPLES: usize = 2_000;
/// Fewer runs than this make intervals that are too narrow
pub const ENOUGH_RUNS: usize = 10;

/// One run of an algorithm
#[derive(Debug, Clone, Serialize)]
pub struct Cell {
    /// The task, where there are several; else empty
    pub task: String,
    /// What tells the run from its siblings
    pub label: String,
    /// Its run folder
    pub folder: PathBuf,
    /// Why it did not finish
    pub failure: Option<String>,
    /// Its learning curve, whose scores all tasks have on one scale
    #[serde(skip)]
    pub curve: LearningCurve,
}

/// The runs of an algorithm
#[derive(Debug, Clone)]
pub struct Algorithm {
    /// Its name
    pub name: String,
    /// Its runs, those that failed among them
    pub cells: Vec<Cell>,
}

/// What is compared, and how
#[derive(Debug, Clone)]
pub struct Question {
    /// Column of `metrics.jsonl`; more is better
    pub metric: String,
    /// Column that counts what was spent
    pub x: String,
    /// What it counts, in words
    pub x_label: String,
    /// The score to reach
    pub threshold: Option<f64>,
    /// Whether scores are shares of a given range
    pub normalised: bool,
    /// The score of a run that failed; without it such a run is left out
    pub failed_score: Option<f64>,
    /// What was granted, where it is known: nothing counts beyond
    pub budget: Option<f64>,
}

/// The answer
#[derive(Debug, Clone, Serialize)]
pub struct Comparison {
    /// Column of `metrics.jsonl`
    pub metric: String,
    /// Column that counts what was spent
    pub x: String,
    /// What it counts, in words
    pub x_label: String,
    /// Whether scores are shares of a given range
    pub normalised: bool,
    /// The score to reach
    pub threshold: Option<f64>,
    /// Names of the tasks; one empty name where there is only one
    pub tasks: Vec<String>,
    /// Where all curves begin and end
    pub span: (f64, f64),
    /// Places between them
    pub grid: Vec<f64>,
    /// Scores at which the profiles are taken
    pub profile_scores: Vec<f64>,
    /// Fewest runs of an algorithm in a task
    pub fewest_runs: usize,
    /// Resamples of the bootstrap, for single figures and for curves
    pub resamples: (usize, usize),
    /// The algorithms, in the order given
    pub algorithms: Vec<Outcome>,
    /// Every ordered pair
    pub pairs: Vec<Pair>,
}

/// What is found of an algorithm
#[derive(Debug, Clone, Serialize)]
pub struct Outcome {
    /// Its name
    pub name: String,
    /// Runs that count
    pub runs: usize,
    /// Runs that did not finish
    pub failed: usize,
    /// What its runs spent, on average
    pub spent: f64,
    /// Interquartile mean at each place of the grid
    pub curve: Vec<Estimate>,
    /// Interquartile mean of the final scores
    pub iqm: Estimate,
    /// Their mean
    pub mean: Estimate,
    /// Their median over tasks
    pub median: Estimate,
    /// Interquartile mean of the mean heights of the curves
    pub area: Estimate,
    /// When the threshold was reached
    pub reached: Option<Reached>,
    /// Share of runs above each score of the profile
    pub profile: Vec<Estimate>,
    /// Its runs
    pub cells: Vec<Measured>,
}

/// When runs reach the threshold
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Reached {
    /// How many of the runs did
    pub runs: usize,
    /// Interquartile mean of what they had spent; a run that never does counts as all that was granted, so that it is a
    /// lower bound where some do not
    pub spent: Estimate,
}

/// A run and its figures
#[derive(Debug, Clone, Serialize)]
pub struct Measured {
    /// The run
    #[serde(flatten)]
    pub cell: Cell,
    /// Mean over the last tenth
    pub score: Option<f64>,
    /// Mean height of the curve
    pub area: Option<f64>,
    /// What it had spent when it reached the threshold
    pub reached: Option<f64>,
}

/// How probable it is that a run of one algorithm ends higher than a run of another
#[derive(Debug, Clone, Serialize)]
pub struct Pair {
    /// The one
    pub first: String,
    /// The other
    pub second: String,
    /// P(first > second), ties counted half
    pub probability: Estimate,
}

impl Comparison {
    /// Measures all runs on the stretch that they have in common
    ///
    /// # Errors
    /// An algorithm without a finished run in some task; runs without the metric
    pub fn new(mut algorithms: Vec<Algorithm>, question: &Question) -> Result<Self> {
        let span = span(&algorithms, question)?;
        for cell in algorithms.iter_mut().flat_map(|algorithm| &mut algorithm.cells) {
            if let (Some(_), Some(score)) = (&cell.failure, question.failed_score) {
                cell.curve = LearningCurve::new([(span.0, score), (span.1, score)]);
            }
        }
        let tasks = tasks(&algorithms);
        let grid = steps(span, GRID);
        let measured: Vec<Vec<Measured>> =
            algorithms.iter().map(|algorithm| measure(algorithm, question, span, &grid)).collect();
        let finals = measured.iter().flatten().filter_map(|run| run.score);
        let (low, high) = finals.fold((f64::INFINITY, f64::NEG_INFINITY), |(l, h), x| (l.min(x), h.max(x)));
        let room = 0.05 * (high - low).max(1e-9);
        let profile_scores = steps((low - room, high + room), THRESHOLDS);
        let mut outcomes = Vec::with_capacity(algorithms.len());
        let mut scores = Vec::with_capacity(algorithms.len());
        let mut fewest_runs = usize::MAX;
        for (algorithm, runs) in algorithms.iter().zip(measured) {
            let of = Of { name: &algorithm.name, runs: &runs, tasks: &tasks };
            let finals = of.scores(|run| run.score)?;
            fewest_runs = finals.tasks().iter().map(Vec::len).fold(fewest_runs, usize::min);
            let outcome = of.outcome(&finals, &grid, &profile_scores, question, span)?;
            outcomes.push(Outcome { cells: runs, ..outcome });
            scores.push(finals);
        }
        let mut pairs = Vec::new();
        for (i, first) in outcomes.iter().enumerate() {
            for (j, second) in outcomes.iter().enumerate().filter(|(j, _)| *j != i) {
                let probability = Bootstrap::default().improvement(&scores[i], &scores[j])?;
                pairs.push(Pair { first: first.name.clone(), second: second.name.clone(), probability });
            }
        }
        Ok(Self {
            metric: question.metric.clone(),
            x: question.x.clone(),
            x_label: question.x_label.clone(),
            normalised: question.normalised,
            threshold: question.threshold,
            tasks,
            span,
            grid,
            profile_scores,
            fewest_runs,
            resamples: (Bootstrap::default().resamples, CURVE_RESAMPLES),
            algorithms: outcomes,
            pairs,
        })
    }

    /// P(first > second)
    pub fn probability(&self, first: &str, second: &str) -> Option<Estimate> {
        self.pairs.iter().find(|pair| pair.first == first && pair.second == second).map(|pair| pair.probability)
    }
}

/// The stretch that all finished runs have in common, cut at the budget
fn span(algorithms: &[Algorithm], question: &Question) -> Result<(f64, f64)> {
    let mut common = (f64::NEG_INFINITY, question.budget.unwrap_or(f64::INFINITY));
    for algorithm in algorithms {
        for cell in algorithm.cells.iter().filter(|cell| cell.failure.is_none()) {
            let Some((begin, end)) = cell.curve.span() else {
                return Err(Error::usage(format!(
                    "`{}` has no `{}` against `{}` in its `metrics.jsonl`",
                    cell.folder.display(),
                    question.metric,
                    question.x
                ))
                .hint("set `metric` to a column that every run logs"));
            };
            common = (common.0.max(begin), common.1.min(end));
        }
    }
    if common.0.is_infinite() || common.1.is_infinite() {
        return Err(Error::run("no run has finished: there is nothing to compare"));
    }
    if common.0 > common.1 {
        return Err(Error::usage(format!(
            "the runs have no stretch in common: one begins at {} {}, another ends at {}",
            common.0, question.x_label, common.1
        ))
        .hint("compare runs of like budgets, or log more often (`logging_steps`)"));
    }
    Ok(common)
}

fn tasks(algorithms: &[Algorithm]) -> Vec<String> {
    let mut tasks: Vec<String> = Vec::new();
    for cell in algorithms.iter().flat_map(|algorithm| &algorithm.cells) {
        if !tasks.contains(&cell.task) {
            tasks.push(cell.task.clone());
        }
    }
    tasks
}

/// Places at equal distances, both ends included
fn steps((low, high): (f64, f64), count: usize) -> Vec<f64> {
    if low == high {
        return vec![low];
    }
    (0..count).map(|i| low + (high - low) * i as f64 / (count - 1) as f64).collect()
}

fn measure(algorithm: &Algorithm, question: &Question, span: (f64, f64), grid: &[f64]) -> Vec<Measured> {
    let late = span.1 - FINAL * (span.1 - span.0);
    let counts = |cell: &Cell| cell.failure.is_none() || question.failed_score.is_some();
    let measure = |cell: &Cell| {
        let values: Vec<f64> =
            if counts(cell) { grid.iter().filter_map(|x| cell.curve.at(*x)).collect() } else { Vec::new() };
        let last: Vec<f64> = grid.iter().zip(&values).filter(|(x, _)| **x >= late).map(|(_, y)| *y).collect();
        let reached = question.threshold.and_then(|threshold| cell.curve.reaches(threshold));
        Measured {
            score: average(&last),
            area: area(&values),
            reached: reached.filter(|at| *at <= span.1 && !values.is_empty()),
            cell: cell.clone(),
        }
    };
    algorithm.cells.iter().map(measure).collect()
}

fn average(values: &[f64]) -> Option<f64> {
    (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
}

/// Area under equally spaced values by the trapezoid rule, over its width
fn area(values: &[f64]) -> Option<f64> {
    match values {
        [] => None,
        [only] => Some(*only),
        [first, .., last] => Some((values.iter().sum::<f64>() - 0.5 * (first + last)) / (values.len() - 1) as f64),
    }
}

/// The runs of an algorithm with what figures of them need
struct Of<'a> {
    name: &'a str,
    runs: &'a [Measured],
    tasks: &'a [String],
}

impl Of<'_> {
    /// Some figure of every run that counts, by task
    fn scores(&self, figure: impl Fn(&Measured) -> Option<f64>) -> Result<Scores> {
        let of_task = |task: &String| {
            let scores: Vec<f64> = self.runs.iter().filter(|run| run.cell.task == *task).filter_map(&figure).collect();
            if scores.is_empty() {
                let task = if task.is_empty() { String::new() } else { format!(" in task `{task}`") };
                return Err(Error::run(format!("`{}` has no finished run{task}", self.name))
                    .hint("leave it out, or set `failed_score` to what a failed run deserves"));
            }
            Ok(scores)
        };
        Scores::new(self.tasks.iter().map(of_task).collect::<Result<_>>()?)
    }

    /// Everything but the list of runs
    fn outcome(
        &self,
        finals: &Scores,
        grid: &[f64],
        profile_scores: &[f64],
        question: &Question,
        span: (f64, f64),
    ) -> Result<Outcome> {
        let counts = |run: &&Measured| run.score.is_some();
        let single = Bootstrap::default();
        let curves = Bootstrap { resamples: CURVE_RESAMPLES, ..single };
        let curve = grid.iter().map(|x| {
            let scores = self.scores(|run| run.score.and_then(|_| run.cell.curve.at(*x)))?;
            // One seed for all places: the same runs are drawn at each
            Ok(curves.estimate(&scores, iqm))
        });
        let finals_of = single.estimates(finals, |scores| vec![iqm(scores), mean(scores), median(scores)]);
        let reached = if question.threshold.is_some() {
            let spent = self.scores(|run| run.score.map(|_| run.reached.unwrap_or(span.1)))?;
            let runs = self.runs.iter().filter(|run| run.reached.is_some()).count();
            Some(Reached { runs, spent: single.estimate(&spent, iqm) })
        } else {
            None
        };
        let ends: Vec<f64> =
            self.runs.iter().filter(counts).filter_map(|run| run.cell.curve.span()).map(|span| span.1).collect();
        Ok(Outcome {
            name: self.name.to_owned(),
            runs: self.runs.iter().filter(counts).count(),
            failed: self.runs.iter().filter(|run| run.cell.failure.is_some()).count(),
            spent: average(&ends).unwrap_or(f64::NAN),
            curve: curve.collect::<Result<_>>()?,
            iqm: finals_of[0],
            mean: finals_of[1],
            median: finals_of[2],
            area: single.estimate(&self.scores(|run| run.area)?, iqm),
            reached,
            profile: curves.estimates(finals, |scores| performance_profile(scores, profile_scores)),
            cells: Vec::new(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn algorithm(name: &str, curves: &[&[(f64, f64)]]) -> Algorithm {
        let cell = |(i, points): (usize, &&[(f64, f64)])| Cell {
            task: String::new(),
            label: format!("seed {i}"),
            folder: PathBuf::from(format!("{name}/seed-{i}")),
            failure: None,
            curve: LearningCurve::new(points.iter().copied()),
        };
        Algorithm { name: name.to_owned(), cells: curves.iter().enumerate().map(cell).collect() }
    }

    fn question() -> Question {
        Question {
            metric: "reward".to_owned(),
            x: "reward_queries".to_owned(),
            x_label: "reward queries".to_owned(),
            threshold: Some(0.5),
            normalised: false,
            failed_score: None,
            budget: Some(100.0),
        }
    }

    #[test]
    fn figures_of_straight_curves_are_known() {
        let rises: &[(f64, f64)] = &[(0.0, 0.0), (120.0, 1.2)];
        let stays: &[(f64, f64)] = &[(0.0, 0.25), (100.0, 0.25)];
        let found =
            Comparison::new(vec![algorithm("rises", &[rises, rises]), algorithm("stays", &[stays])], &question());
        let found = found.unwrap();
        assert_eq!((found.span, found.grid.len(), found.fewest_runs), ((0.0, 100.0), 101, 1));
        let [rises, stays] = &found.algorithms[..] else { panic!("two algorithms") };
        let close = |found: f64, expected: f64| assert!((found - expected).abs() < 1e-9, "{found} {expected}");
        // Of a line from 0 to 1 the last tenth has the mean 0.95, the whole 0.5
        close(rises.iqm.point, 0.95);
        close(rises.area.point, 0.5);
        close(rises.curve[30].point, 0.3);
        let reached = rises.reached.unwrap();
        assert_eq!(reached.runs, 2);
        close(reached.spent.point, 50.0);
        close(stays.iqm.low, 0.25);
        // Never reached counts as the whole budget
        assert_eq!((stays.reached.unwrap().runs, stays.reached.unwrap().spent.point), (0, 100.0));
        assert_eq!(found.probability("rises", "stays").unwrap().point, 1.0);
        assert_eq!(found.probability("stays", "rises").unwrap().point, 0.0);
        assert_eq!((rises.profile[0].point, rises.profile[100].point), (1.0, 0.0));
    }

    #[test]
    fn a_failed_run_counts_as_it_is_told_to() {
        let points: &[(f64, f64)] = &[(0.0, 1.0), (100.0, 1.0)];
        let mut failing = algorithm("a", &[points, points]);
        failing.cells[1].failure = Some("the loss is NaN".to_owned());
        failing.cells[1].curve = LearningCurve::default();
        let other = algorithm("b", &[points]);
        let left_out = Comparison::new(vec![failing.clone(), other.clone()], &question()).unwrap();
        assert_eq!((left_out.algorithms[0].runs, left_out.algorithms[0].failed), (1, 1));
        assert_eq!(left_out.algorithms[0].mean.point, 1.0);
        let counted = Question { failed_score: Some(0.0), ..question() };
        let counted = Comparison::new(vec![failing.clone(), other.clone()], &counted).unwrap();
        assert_eq!((counted.algorithms[0].runs, counted.algorithms[0].mean.point), (2, 0.5));
        failing.cells[0].failure = Some("disk full".to_owned());
        let error = Comparison::new(vec![failing, other], &question()).unwrap_err();
        assert!(error.message().contains("`a` has no finished run"), "{error}");
    }

    #[test]
    fn runs_without_a_common_stretch_are_refused() {
        let (early, late): (&[(f64, f64)], &[(f64, f64)]) = (&[(0.0, 1.0), (10.0, 1.0)], &[(20.0, 1.0), (90.0, 1.0)]);
        let error = Comparison::new(vec![algorithm("a", &[early]), algorithm("b", &[late])], &question()).unwrap_err();
        assert!(error.message().contains("no stretch in common"), "{error}");
        let error = Comparison::new(vec![algorithm("a", &[&[]])], &question()).unwrap_err();
        assert!(error.message().contains("has no `reward` against `reward_queries`"), "{error}");
    }
}
