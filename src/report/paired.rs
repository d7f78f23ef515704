//! Two algorithms on one task, run by run with the same seeds.

use rand::rngs::Xoshiro256PlusPlus;
use rand::{Rng, RngExt, SeedableRng};

use super::statistics::{Bootstrap, Estimate, Scores, iqm};
use crate::error::{Error, Result};

/// Up to so many pairs, all ways to swap them are gone through
const EXACT_PAIRS: usize = 16;

/// Swaps that are drawn where there are more pairs
const DRAWN: usize = 50_000;

impl Bootstrap {
    /// IQM of `x` minus IQM of `y` with its interval. Pairs are resampled, not runs: what a seed does to both sides
    /// cancels
    pub fn paired_difference(&self, x: &[f64], y: &[f64]) -> Result<Estimate> {
        check(x, y)?;
        let difference = |x: &[f64], y: &[f64]| -> f64 {
            let of = |runs: &[f64]| Scores::new(vec![runs.to_vec()]).map_or(f64::NAN, |scores| iqm(&scores));
            of(x) - of(y)
        };
        let (mut new_x, mut new_y) = (x.to_vec(), y.to_vec());
        let estimates = self.intervals(vec![difference(x, y)], |rng| {
            for i in 0..x.len() {
                let drawn = rng.random_range(0..x.len());
                (new_x[i], new_y[i]) = (x[drawn], y[drawn]);
            }
            vec![difference(&new_x, &new_y)]
        });
        Ok(estimates[0])
    }
}

/// How often swapping the sides of some pairs makes the mean difference at least as large, either way round: exact up to 16
/// pairs, by 50 000 drawn swaps beyond
pub fn permutation_test(x: &[f64], y: &[f64], seed: u64) -> Result<f64> {
    check(x, y)?;
    let differences: Vec<f64> = x.iter().zip(y).map(|(x, y)| x - y).collect();
    let sum = |swapped: u64| -> f64 {
        differences.iter().enumerate().map(|(i, d)| if swapped >> i & 1 == 1 { -d } else { *d }).sum()
    };
    let observed = differences.iter().sum::<f64>().abs();
    // Sums in another order differ by rounding
    let as_large = |total: f64| total.abs() >= observed * (1.0 - 1e-12);
    if differences.len() <= EXACT_PAIRS {
        let all = 1_u64 << differences.len();
        let hits = (0..all).filter(|swapped| as_large(sum(*swapped))).count();
        return Ok(hits as f64 / all as f64);
    }
    let mut rng = Xoshiro256PlusPlus::seed_from_u64(seed);
    let mut hits = 1;
    for _ in 0..DRAWN {
        let mut total = 0.0;
        for chunk in differences.chunks(64) {
            let bits = rng.next_u64();
            total += chunk.iter().enumerate().map(|(i, d)| if bits >> i & 1 == 1 { -d } else { *d }).sum::<f64>();
        }
        hits += usize::from(as_large(total));
    }
    Ok(hits as f64 / (DRAWN + 1) as f64)
}

/// p-values adjusted for their number (Holm 1979), in the order given
pub fn holm(p: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..p.len()).collect();
    order.sort_by(|a, b| p[*a].total_cmp(&p[*b]));
    let mut adjusted = vec![0.0; p.len()];
    let mut largest = 0.0_f64;
    for (rank, &i) in order.iter().enumerate() {
        largest = largest.max((p.len() - rank) as f64 * p[i]).min(1.0);
        adjusted[i] = largest;
    }
    adjusted
}

fn check(x: &[f64], y: &[f64]) -> Result<()> {
    if x.is_empty() || x.len() != y.len() {
        return Err(Error::usage(format!("expected runs in pairs, found {} and {}", x.len(), y.len())));
    }
    match x.iter().chain(y).find(|score| !score.is_finite()) {
        None => Ok(()),
        Some(score) => Err(Error::usage(format!("expected a finite score, found {score}"))
            .hint("give a failed run the score that it deserves: leaving it out would flatter the algorithm")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUICK: Bootstrap = Bootstrap { resamples: 2000, level: 0.95, seed: 1 };

    #[test]
    fn what_a_seed_does_to_both_sides_cancels() {
        let x: Vec<f64> = (0..12).map(|seed| f64::from(seed) + 0.5).collect();
        let y: Vec<f64> = (0..12).map(f64::from).collect();
        let difference = QUICK.paired_difference(&x, &y).unwrap();
        for found in [difference.point, difference.low, difference.high] {
            assert!((found - 0.5).abs() < 1e-12, "{difference:?}");
        }
        // Apart, the runs' own spread would hide it
        let scores = |runs: &[f64]| Scores::new(vec![runs.to_vec()]).unwrap();
        assert!(QUICK.estimate(&scores(&x), iqm).low < QUICK.estimate(&scores(&y), iqm).point);
    }

    #[test]
    fn swaps_are_counted_exactly_where_they_can_be() {
        // Of eight ways to swap, all three and none are as extreme
        assert_eq!(permutation_test(&[1.0, 2.0, 3.0], &[0.0, 0.0, 0.0], 0).unwrap(), 0.25);
        assert_eq!(permutation_test(&[1.0, -1.0], &[0.0, 0.0], 0).unwrap(), 1.0);
        assert_eq!(permutation_test(&[2.0; 5], &[2.0; 5], 0).unwrap(), 1.0);
        let many: Vec<f64> = (0..70).map(|i| f64::from(i % 7) - 3.0).collect();
        assert!(permutation_test(&many, &[0.0; 70], 3).unwrap() > 0.9);
        let shifted: Vec<f64> = many.iter().map(|x| x + 1.0).collect();
        assert!(permutation_test(&shifted, &[0.0; 70], 3).unwrap() < 1e-3);
    }

    #[test]
    fn holms_p_values_rise_with_their_number() {
        assert_eq!(holm(&[0.04, 0.01, 0.02]), [0.04, 0.03, 0.04]);
        assert_eq!(holm(&[0.6, 0.7]), [1.0, 1.0]);
    }

    #[test]
    fn runs_without_a_partner_are_refused() {
        assert!(permutation_test(&[1.0], &[], 0).is_err() && QUICK.paired_difference(&[], &[]).is_err());
        assert!(permutation_test(&[f64::NAN], &[1.0], 0).is_err());
    }
}
