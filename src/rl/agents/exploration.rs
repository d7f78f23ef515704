//! How an agent with action values picks what to try.

/// A rule that turns the action values of a state into probabilities
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Exploration {
    /// With probability ε any action, otherwise a best one
    EpsilonGreedy {
        /// ε
        epsilon: f64,
    },
    /// π(a) ∝ e^{Q(a)/τ}
    Boltzmann {
        /// τ; towards 0 it becomes greedy
        temperature: f64,
    },
    /// The largest Q(a) + c √(ln n / n_a); untried actions come first. Auer et al. 2002
    Ucb {
        /// c
        coefficient: f64,
    },
}

impl Exploration {
    /// Probabilities of the actions of one state. Equally good actions share what the best one gets
    ///
    /// # Shapes
    /// q, counts (how often each action was tried in this state), probabilities (A,)
    pub fn probabilities(&self, q: &[f32], counts: &[u32], probabilities: &mut [f32]) {
        match *self {
            Self::EpsilonGreedy { epsilon } => {
                spread_over_best(q.iter().map(|q| f64::from(*q)), probabilities);
                let each = epsilon / q.len() as f64;
                for p in probabilities {
                    *p = (each + (1.0 - epsilon) * f64::from(*p)) as f32;
                }
            }
            Self::Boltzmann { temperature } => {
                let top = f64::from(q.iter().copied().fold(f32::NEG_INFINITY, f32::max));
                let weight = |q: f32| ((f64::from(q) - top) / temperature).exp();
                let sum: f64 = q.iter().map(|q| weight(*q)).sum();
                for (p, q) in probabilities.iter_mut().zip(q) {
                    *p = (weight(*q) / sum) as f32;
                }
            }
            Self::Ucb { coefficient } => {
                let log = f64::from(counts.iter().sum::<u32>()).max(1.0).ln();
                let bound = |(q, n): (&f32, &u32)| match n {
                    0 => f64::INFINITY,
                    n => f64::from(*q) + coefficient * (log / f64::from(*n)).sqrt(),
                };
                spread_over_best(q.iter().zip(counts).map(bound), probabilities);
            }
        }
    }
}

/// Shares 1 evenly among the largest
fn spread_over_best(scores: impl Iterator<Item = f64> + Clone, probabilities: &mut [f32]) {
    let top = scores.clone().fold(f64::NEG_INFINITY, f64::max);
    let ties = scores.clone().filter(|score| *score == top).count();
    for (p, score) in probabilities.iter_mut().zip(scores) {
        *p = if score == top { 1.0 / ties as f32 } else { 0.0 };
    }
}

/// ε that falls in a straight line over the first `fraction` of a run, and stays then
pub(super) fn falling_epsilon(initial: f64, last: f64, fraction: f64, progress: f64) -> f64 {
    if progress < fraction { initial + progress / fraction * (last - initial) } else { last }
}

/// The action at `drawn`, from [0, 1), of the cumulated probabilities
pub(super) fn pick(probabilities: &[f32], drawn: f64) -> usize {
    let mut left = drawn;
    for (action, p) in probabilities.iter().enumerate() {
        left -= f64::from(*p);
        if left < 0.0 {
            return action;
        }
    }
    // Rounding may leave a rest, which belongs to the last that can happen at all
    probabilities.iter().rposition(|p| *p > 0.0).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rl::env::rng::Pcg64;

    fn probabilities(rule: Exploration, q: &[f32], counts: &[u32]) -> Vec<f32> {
        let mut p = vec![0.0; q.len()];
        rule.probabilities(q, counts, &mut p);
        p
    }

    #[test]
    fn equals_share_the_greedy_part() {
        let rule = Exploration::EpsilonGreedy { epsilon: 0.1 };
        assert_eq!(probabilities(rule, &[1.0, 0.0, 1.0, 0.0], &[0; 4]), [0.475, 0.025, 0.475, 0.025]);
    }

    #[test]
    fn boltzmann_is_softmax_and_cools_to_greedy() {
        let p = probabilities(Exploration::Boltzmann { temperature: 2.0 }, &[2.0, 0.0], &[0; 2]);
        assert!((f64::from(p[0]) - 1.0 / (1.0 + (-1.0_f64).exp())).abs() < 1e-7);
        assert_eq!(probabilities(Exploration::Boltzmann { temperature: 1e-3 }, &[2.0, 0.0], &[0; 2]), [1.0, 0.0]);
    }

    #[test]
    fn ucb_tries_everything_then_weighs_doubt() {
        let rule = Exploration::Ucb { coefficient: 1.0 };
        assert_eq!(probabilities(rule, &[5.0, 0.0, 0.0], &[3, 0, 0]), [0.0, 0.5, 0.5]);
        // √(ln 101 / 1) = 2.15 makes up for a value that is 2 behind, √(ln 101 / 100) = 0.21 does not count
        assert_eq!(probabilities(rule, &[1.0, -0.9], &[100, 1]), [0.0, 1.0]);
        assert_eq!(probabilities(rule, &[1.0, -1.0], &[100, 1]), [1.0, 0.0]);
    }

    #[test]
    fn actions_come_as_often_as_they_should() {
        let p = probabilities(Exploration::Boltzmann { temperature: 1.0 }, &[0.0, 1.0, 2.0], &[0; 3]);
        let mut rng = Pcg64::new(1);
        let mut counts = [0_u32; 3];
        for _ in 0..20_000 {
            counts[pick(&p, rng.random())] += 1;
        }
        for (count, p) in counts.iter().zip(&p) {
            assert!((f64::from(*count) / 20_000.0 - f64::from(*p)).abs() < 0.012, "{counts:?} for {p:?}");
        }
    }
}
