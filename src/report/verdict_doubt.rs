//! Whether it may be said that a field knows what it does not know.
//!
//! For prompts unlike those it was trained on, its forecasts must have less −log-likelihood and less area under the
//! risk-coverage curve than a constant doubt, one by counts and an ensemble, each by the whole 95 % interval of the paired
//! difference; and everywhere as many truths must lie in its intervals as these promise, give or take 0.05.

use serde::Serialize;

use super::statistics::Bootstrap;
use super::verdict::{Answer, Verdict};
use crate::error::Result;

/// Doubters that must be beaten
const RIVALS: [&str; 3] = ["constant", "count", "ensemble"];

/// How far coverage may be off
const TOLERANCE: f64 = 0.05;

/// The figures of one doubter on unfamiliar prompts, by run
#[derive(Debug, Clone, Serialize)]
pub struct Doubter {
    /// Its name; the field's is `field`
    pub name: String,
    /// Mean −log density of the truth
    pub negative_log_likelihood: Vec<f64>,
    /// Area under the risk-coverage curve
    pub risk_coverage: Vec<f64>,
}

/// A task on which doubt was judged
#[derive(Debug, Clone, Serialize)]
pub struct DoubtStratum {
    /// Its name
    pub name: String,
    /// Runs without which it supports no claim
    pub needed_seeds: usize,
    /// All doubters
    pub doubters: Vec<Doubter>,
    /// Promised and found coverage of the field, for each level and set of prompts
    pub coverage: Vec<(f64, f64)>,
}

/// Applies the rule, which must hold in every stratum
pub fn judge_doubt(strata: &[DoubtStratum], bootstrap: &Bootstrap) -> Result<Verdict> {
    let claim = "the field knows what it does not know".to_owned();
    let mut answer = if strata.is_empty() { Answer::NotTested } else { Answer::Established };
    let mut reasons = Vec::new();
    for stratum in strata {
        let found = |name: &str| stratum.doubters.iter().find(|doubter| doubter.name == name);
        let Some(field) = found("field") else { continue };
        let seeds = field.risk_coverage.len();
        if seeds < stratum.needed_seeds {
            answer = Answer::NotEstablished;
            reasons.push(format!("{}: {seeds} seeds of {} needed", stratum.name, stratum.needed_seeds));
        }
        for rival in RIVALS.iter().filter_map(|name| found(name)) {
            let figures = [
                ("−log-likelihood", &rival.negative_log_likelihood, &field.negative_log_likelihood),
                ("risk-coverage area", &rival.risk_coverage, &field.risk_coverage),
            ];
            for (figure, theirs, own) in figures {
                let less = bootstrap.paired_difference(theirs, own)?;
                if less.low <= 0.0 {
                    answer = Answer::NotEstablished;
                    let name = &rival.name;
                    reasons.push(format!(
                        "{}: {figure} of `{name}` less that of the field is {:+.3} [{:+.3}, {:+.3}]",
                        stratum.name, less.point, less.low, less.high
                    ));
                }
            }
        }
        let off = |(promised, found): &&(f64, f64)| (promised - found).abs() > TOLERANCE;
        for (promised, found) in stratum.coverage.iter().filter(off) {
            answer = Answer::NotEstablished;
            reasons.push(format!(
                "{}: {:.0} % intervals hold {:.1} % of the truths",
                stratum.name,
                100.0 * promised,
                100.0 * found
            ));
        }
    }
    Ok(Verdict { claim, answer, reasons })
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUICK: Bootstrap = Bootstrap { resamples: 1000, level: 0.95, seed: 1 };

    fn stratum(seeds: usize, better: f64, coverage: f64) -> DoubtStratum {
        let doubter = |name: &str, level: f64| Doubter {
            name: name.to_owned(),
            negative_log_likelihood: (0..seeds).map(|seed| level + 0.01 * (seed % 3) as f64).collect(),
            risk_coverage: (0..seeds).map(|seed| level + 0.01 * (seed % 4) as f64).collect(),
        };
        let rivals = RIVALS.iter().map(|name| doubter(name, 1.0));
        DoubtStratum {
            name: "t".to_owned(),
            needed_seeds: 10,
            doubters: rivals.chain([doubter("field", 1.0 - better)]).collect(),
            coverage: vec![(0.8, coverage)],
        }
    }

    fn answer(strata: &[DoubtStratum]) -> Answer {
        judge_doubt(strata, &QUICK).unwrap().answer
    }

    #[test]
    fn every_condition_counts() {
        assert_eq!(answer(&[stratum(12, 0.1, 0.82)]), Answer::Established);
        assert_eq!(answer(&[stratum(12, 0.1, 0.82), stratum(12, 0.0, 0.82)]), Answer::NotEstablished);
        assert_eq!(answer(&[stratum(12, 0.1, 0.7)]), Answer::NotEstablished, "coverage");
        assert_eq!(answer(&[stratum(9, 0.1, 0.8)]), Answer::NotEstablished, "seeds");
        assert_eq!(answer(&[]), Answer::NotTested);
    }
}
