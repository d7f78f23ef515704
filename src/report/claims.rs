//! The rules of [`verdict`](super::verdict) on a comparison of training runs.

use std::collections::BTreeMap;

use super::comparison::Comparison;
use super::statistics::Bootstrap;
use super::verdict::{Stratum, Verdicts, area_over_log, judge};
use crate::error::Result;

/// Reward queries from which the area under a curve is taken
const FIRST: f64 = 256.0;

/// Seeds without which a task supports no claim
const NEEDED_SEEDS: usize = 10;

/// What the comparison allows to be said of GRL; None where no arm has its name or none that it is to be held against, or where
/// something else than reward queries was equal
pub fn of(found: &Comparison) -> Result<Option<Verdicts>> {
    if found.x != "reward_queries" || !found.algorithms.iter().any(|outcome| outcome.name == "grl") {
        return Ok(None);
    }
    let verdicts = judge(&strata(found), &Bootstrap::default())?;
    Ok(Some(verdicts).filter(|verdicts| !verdicts.contrasts.is_empty()))
}

/// A stratum for each task
fn strata(found: &Comparison) -> Vec<Stratum> {
    let prices_kl = found.metric.ends_with("objective");
    let stratum = |task: &String| {
        let mut scores: BTreeMap<String, BTreeMap<u64, f64>> = BTreeMap::new();
        for outcome in &found.algorithms {
            for run in outcome.cells.iter().filter(|run| run.cell.task == *task) {
                let seed = run.cell.label.strip_prefix("seed ").and_then(|seed| seed.parse().ok());
                let area = run.score.and_then(|_| area_over_log(run.cell.curve.points(), FIRST));
                if let (Some(seed), Some(area)) = (seed, area) {
                    scores.entry(outcome.name.clone()).or_default().insert(seed, area);
                }
            }
        }
        let against = scores.keys().cloned().collect::<Vec<String>>();
        let pairs = against.iter().flat_map(|arm| against.iter().map(move |other| (arm.clone(), other.clone())));
        let why = format!("`{}` does not count the KL that was spent", found.metric);
        let objections = pairs.filter(|_| !prices_kl).map(|(arm, other)| (arm, other, why.clone())).collect();
        let name = if task.is_empty() { "all runs".to_owned() } else { task.clone() };
        Stratum { name, needed_seeds: NEEDED_SEEDS, scores, objections }
    };
    found.tasks.iter().map(stratum).collect()
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::report::comparison::{Algorithm, Cell, Question};
    use crate::report::curve::LearningCurve;
    use crate::report::verdict::Answer;

    fn found(metric: &str, seeds: u64) -> Comparison {
        let algorithm = |name: &str, height: f64| {
            let cells = ["a", "b"].iter().flat_map(|task| (0..seeds).map(move |seed| (task, seed)));
            let cell = |(task, seed): (&&str, u64)| {
                let level = height + 0.01 * (seed % 3) as f64;
                Cell {
                    task: (*task).to_owned(),
                    label: format!("seed {seed}"),
                    folder: PathBuf::new(),
                    failure: None,
                    curve: LearningCurve::new([(0.0, 0.0), (256.0, level), (1024.0, level)]),
                }
            };
            Algorithm { name: name.to_owned(), cells: cells.map(cell).collect() }
        };
        let question = Question {
            metric: metric.to_owned(),
            x: "reward_queries".to_owned(),
            x_label: "reward queries".to_owned(),
            threshold: None,
            normalised: false,
            failed_score: None,
            budget: Some(1024.0),
        };
        Comparison::new(vec![algorithm("ppo", 0.4), algorithm("grl", 0.6)], &question).unwrap()
    }

    fn efficient(found: &Comparison) -> Answer {
        of(found).unwrap().unwrap().verdicts[0].answer
    }

    #[test]
    fn every_task_is_a_stratum_and_needs_its_seeds() {
        assert_eq!(efficient(&found("eval_objective", 10)), Answer::Established);
        assert_eq!(efficient(&found("eval_objective", 9)), Answer::NotEstablished);
    }

    #[test]
    fn a_reward_alone_supports_nothing() {
        let judged = of(&found("eval_reward", 10)).unwrap().unwrap();
        assert_eq!(judged.verdicts[0].answer, Answer::NotEstablished);
        assert!(judged.verdicts[0].reasons[0].contains("does not count the KL"), "{:?}", judged.verdicts[0]);
    }

    #[test]
    fn without_grl_there_is_nothing_to_judge() {
        let mut other = found("eval_objective", 10);
        other.algorithms[1].name = "another".to_owned();
        assert!(of(&other).unwrap().is_none());
        // Nor where nothing stands beside it that it is to be held against
        let mut alone = found("eval_objective", 10);
        alone.algorithms[0].name = "another".to_owned();
        assert!(of(&alone).unwrap().is_none());
    }
}
