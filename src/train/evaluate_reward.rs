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

#[cfg(test)]
mod tests {
    use super::*;

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
