//! How well a reward model ranks answers, beside what their lengths alone would say.

use super::evaluate::Evaluation;
use crate::Result;
use crate::data::PairExample;
use crate::model::reward::{RewardModel, Statistics};
use crate::run::Metrics;

/// Answers whose lengths differ by at most this share of the longer one count as equally long
const EQUAL_LENGTH: f64 = 0.1;
/// Two-sided 95 % of a standard normal
const Z: f64 = 1.959_963_985;

/// Share of pairs that are told right, and of how many
#[derive(Default)]
struct Share {
    right: f64,
    pairs: f64,
}

impl Share {
    fn add(&mut self, right: f64) {
        self.right += right;
        self.pairs += 1.0;
    }

    fn value(&self) -> f64 {
        self.right / self.pairs
    }

    fn interval(&self) -> [f64; 2] {
        wilson(self.value(), self.pairs)
    }

    /// NAME, NAME_low, NAME_high and NAME_pairs; nothing where there is no pair
    fn report(&self, name: &str, metrics: &mut Metrics) {
        if self.pairs > 0.0 {
            let [low, high] = self.interval();
            metrics.set(name, self.value());
            metrics.set(format!("{name}_low"), low);
            metrics.set(format!("{name}_high"), high);
            metrics.set(format!("{name}_pairs"), self.pairs);
        }
    }
}

/// Wilson's 95 % interval of a share `p` of `n` trials, which stays inside 0 and 1 and holds for few trials too
pub(super) fn wilson(p: f64, n: f64) -> [f64; 2] {
    let z2 = Z * Z;
    let centre = (p + z2 / (2.0 * n)) / (1.0 + z2 / n);
    let half = Z / (1.0 + z2 / n) * (p * (1.0 - p) / n + z2 / (4.0 * n * n)).sqrt();
    [centre - half, centre + half]
}

/// Accuracy and rewards of a reward model on pairs
///
/// `accuracy` is the share of pairs whose chosen answer has the higher score, with a 95 % interval (Wilson).
/// `longer_wins` is what the rule "the longer answer is the better one" gets, a tie counting one half;
/// `accuracy_equal_length` is the model's accuracy where the lengths differ by at most a tenth and the rule says next to
/// nothing, `accuracy_chosen_longer` and `accuracy_chosen_shorter` where the rule is right and where it is wrong.
/// Lengths are tokens after the beginning that both answers share.
pub fn evaluate_rewards(model: &RewardModel, pairs: &[PairExample]) -> Result<Evaluation> {
    let sequences: Vec<&[u32]> = pairs.iter().flat_map(|pair| [&pair.chosen[..], &pair.rejected[..]]).collect();
    let scores = model.scores(&sequences)?;
    let [mut all, mut longer_wins, mut equal, mut longer, mut shorter] = [(); 5].map(|()| Share::default());
    let mut margin = 0.0;
    for (pair, scores) in pairs.iter().zip(scores.chunks_exact(2)) {
        let right = f64::from(u8::from(scores[0] > scores[1]));
        all.add(right);
        margin += f64::from(scores[0]) - f64::from(scores[1]);
        let shared = pair.chosen.iter().zip(&pair.rejected).take_while(|(a, b)| a == b).count();
        let (chosen, rejected) = (pair.chosen.len() - shared, pair.rejected.len() - shared);
        longer_wins.add(match chosen.cmp(&rejected) {
            std::cmp::Ordering::Greater => 1.0,
            std::cmp::Ordering::Equal => 0.5,
            std::cmp::Ordering::Less => 0.0,
        });
        if chosen.abs_diff(rejected) as f64 <= EQUAL_LENGTH * chosen.max(rejected) as f64 {
            equal.add(right);
        } else if chosen > rejected {
            longer.add(right);
        } else {
            shorter.add(right);
        }
    }
    let mut metrics = Metrics::new();
    all.report("accuracy", &mut metrics);
    longer_wins.report("longer_wins", &mut metrics);
    equal.report("accuracy_equal_length", &mut metrics);
    longer.report("accuracy_chosen_longer", &mut metrics);
    shorter.report("accuracy_chosen_shorter", &mut metrics);
    metrics.set("margin", margin / pairs.len() as f64);
    if let Some(Statistics { mean, std, .. }) = Statistics::of(&scores) {
        metrics.extend([("mean_reward", mean), ("std_reward", std)]);
    }
    metrics.set("min_reward", scores.iter().copied().fold(f64::INFINITY, |low, score| low.min(score.into())));
    metrics.set("max_reward", scores.iter().copied().fold(f64::NEG_INFINITY, |high, score| high.max(score.into())));
    Ok(Evaluation { rows: pairs.len(), tokens: sequences.iter().map(|ids| ids.len()).sum(), metrics })
}

/// Pairs that a reward model tells apart with about the same confidence
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct CalibrationBin {
    /// Mean of σ(|Δ|): how often the model would have the answer with the higher score chosen
    pub predicted: f64,
    /// How often it was
    pub observed: f64,
    /// Wilson's 95 % interval of that share
    pub interval: [f64; 2],
    /// Pairs
    pub pairs: usize,
}

/// What a Bradley–Terry model promises, P(chosen) = σ(Δ), beside what came of it
///
/// `margins` are Δ = score of the chosen answer − score of the rejected one. Pairs are sorted by |Δ| and cut into
/// `bins` of equal size (the last may be smaller); a tie counts as a miss. One bin gives the accuracy, and in
/// `predicted` the accuracy that the model expects of itself.
pub fn calibration(margins: &[f64], bins: usize) -> Vec<CalibrationBin> {
    let mut sorted = margins.to_vec();
    sorted.sort_by(|a, b| a.abs().total_cmp(&b.abs()));
    let bin = |margins: &[f64]| {
        let mut share = Share::default();
        for margin in margins {
            share.add(f64::from(u8::from(*margin > 0.0)));
        }
        let predicted = margins.iter().map(|margin| 1.0 / (1.0 + (-margin.abs()).exp())).sum::<f64>();
        CalibrationBin {
            predicted: predicted / margins.len() as f64,
            observed: share.value(),
            interval: share.interval(),
            pairs: margins.len(),
        }
    };
    sorted.chunks(margins.len().div_ceil(bins.max(1)).max(1)).map(bin).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calibration_sorts_by_confidence() {
        let bins = calibration(&[3.0, -0.1, 2.0, 0.2, 0.0, -4.0], 2);
        let predicted = |margins: [f64; 3]| margins.iter().map(|m| 1.0 / (1.0 + (-m).exp())).sum::<f64>() / 3.0;
        assert_eq!((bins[0].observed, bins[1].observed), (1.0 / 3.0, 2.0 / 3.0));
        assert!((bins[0].predicted - predicted([0.0, 0.1, 0.2])).abs() < 1e-12);
        assert!((bins[1].predicted - predicted([2.0, 3.0, 4.0])).abs() < 1e-12);
        assert_eq!(calibration(&[3.0, -0.1, 2.0, 0.2, 0.0, -4.0], 1)[0].observed, 0.5);
        assert!(calibration(&[], 8).is_empty());
    }

    #[test]
    fn the_interval_has_wilson_s_closed_forms() {
        // Half of n: ½ ± z / (2√(n + z²)); none of n: from 0 to z² / (n + z²)
        let [low, high] = Share { right: 50.0, pairs: 100.0 }.interval();
        let half = 1.959_964 / (2.0 * (100.0 + 3.841_459_f64).sqrt());
        assert!((low - (0.5 - half)).abs() < 1e-6 && (high - (0.5 + half)).abs() < 1e-6, "{low} {high}");
        let [low, high] = Share { right: 0.0, pairs: 3.0 }.interval();
        assert!(low.abs() < 1e-9 && (high - 3.841_459 / 6.841_459).abs() < 1e-6, "{low} {high}");
    }
}
