//! Whether a field's doubt is worth anything: forecasts with a variance against what turned out to be true.
//!
//! The truth of a value forecast is V^π(x), a mean over many responses, not the reward of one.

use std::f64::consts::{FRAC_1_SQRT_2, PI};

use candle_core::cpu::erf::erf_f64 as erf;

use crate::error::{Error, Result};

/// A normal forecast and the truth
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Forecast {
    /// Its mean
    pub mean: f64,
    /// Its variance
    pub variance: f64,
    /// What turned out to be true
    pub truth: f64,
}

impl Forecast {
    /// How many standard deviations the truth is above the mean
    pub fn z(&self) -> f64 {
        (self.truth - self.mean) / self.variance.sqrt()
    }

    /// −log density of the truth
    pub fn negative_log_likelihood(&self) -> f64 {
        0.5 * ((2.0 * PI * self.variance).ln() + self.z().powi(2))
    }

    /// Continuous ranked probability score: σ [z (2Φ(z) − 1) + 2φ(z) − 1/√π] (Gneiting and Raftery 2007)
    pub fn crps(&self) -> f64 {
        let z = self.z();
        let density = (-0.5 * z * z).exp() / (2.0 * PI).sqrt();
        self.variance.sqrt() * (z * erf(z * FRAC_1_SQRT_2) + 2.0 * density - 1.0 / PI.sqrt())
    }

    /// Whether the truth lies in the central interval with this share of the probability: one of [`LEVELS`]
    pub fn covers(&self, level: usize) -> bool {
        self.z().abs() <= HALF_WIDTHS[level]
    }
}

/// Shares of the probability for which coverage is counted
pub const LEVELS: [f64; 3] = [0.5, 0.8, 0.95];

/// Φ⁻¹((1 + level)/2)
const HALF_WIDTHS: [f64; 3] = [0.674_489_750_196_081_7, 1.281_551_565_544_600_4, 1.959_963_984_540_054];

/// Figures over many forecasts
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize)]
pub struct Calibration {
    /// Mean −log density of the truth
    pub negative_log_likelihood: f64,
    /// Mean CRPS
    pub crps: f64,
    /// Share of truths inside the intervals of [`LEVELS`]
    pub coverage: [f64; 3],
    /// Root mean square of z: 1 where the doubt has the right size, above where it is too small
    pub z_scale: f64,
    /// Rank correlation of σ and |error|; 0 where σ does not vary
    pub rank_correlation: f64,
    /// Area under the curve of mean |error| over coverage, the surest forecasts first
    pub risk_coverage: f64,
}

/// The figures of these forecasts
///
/// # Errors
/// where there is none, or a number is not finite, or a variance not positive
pub fn calibration(forecasts: &[Forecast]) -> Result<Calibration> {
    let sound = |f: &Forecast| f.mean.is_finite() && f.truth.is_finite() && f.variance > 0.0 && f.variance.is_finite();
    if let Some(at) = forecasts.iter().position(|forecast| !sound(forecast)) {
        return Err(Error::run(format!("forecast {at} cannot be judged: {:?}", forecasts[at])));
    }
    if forecasts.is_empty() {
        return Err(Error::run("there is no forecast to judge"));
    }
    let n = forecasts.len() as f64;
    let mean = |of: &dyn Fn(&Forecast) -> f64| forecasts.iter().map(of).sum::<f64>() / n;
    let doubts: Vec<f64> = forecasts.iter().map(|forecast| forecast.variance.sqrt()).collect();
    let errors: Vec<f64> = forecasts.iter().map(|forecast| (forecast.truth - forecast.mean).abs()).collect();
    Ok(Calibration {
        negative_log_likelihood: mean(&Forecast::negative_log_likelihood),
        crps: mean(&Forecast::crps),
        coverage: [0, 1, 2].map(|level| mean(&|forecast| f64::from(u8::from(forecast.covers(level))))),
        z_scale: mean(&|forecast| forecast.z().powi(2)).sqrt(),
        rank_correlation: rank_correlation(&doubts, &errors),
        risk_coverage: risk_coverage(&doubts, &errors),
    })
}

/// Spearman's ρ, Σ (r_x − r̄)(r_y − r̄) / √(Σ (r_x − r̄)² Σ (r_y − r̄)²), ranks of equal numbers averaged; 0 where one side does not vary
pub fn rank_correlation(x: &[f64], y: &[f64]) -> f64 {
    let (x, y) = (ranks(x), ranks(y));
    let middle = (x.len() as f64 - 1.0) / 2.0;
    let product = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| (a - middle) * (b - middle)).sum::<f64>();
    let scale = (product(&x, &x) * product(&y, &y)).sqrt();
    if scale > 0.0 { product(&x, &y) / scale } else { 0.0 }
}

/// Mean over all coverages k/n of the mean error of the k least doubtful. Among equal doubts any order may come, and the
/// mean over all orders counts
pub fn risk_coverage(doubts: &[f64], errors: &[f64]) -> f64 {
    let mut order: Vec<usize> = (0..doubts.len()).collect();
    order.sort_by(|a, b| doubts[*a].total_cmp(&doubts[*b]));
    let (mut taken, mut sum, mut area) = (0.0, 0.0, 0.0);
    for group in order.chunk_by(|a, b| doubts[*a] == doubts[*b]) {
        let level = group.iter().map(|i| errors[*i]).sum::<f64>() / group.len() as f64;
        for _ in group {
            taken += 1.0;
            sum += level;
            area += sum / taken;
        }
    }
    area / taken
}

/// P(a doubt of `positive` exceeds one of the others), ties counted half
pub fn discrimination(doubts: &[f64], positive: &[bool]) -> f64 {
    let ranks = ranks(doubts);
    let count = positive.iter().filter(|yes| **yes).count() as f64;
    let others = positive.len() as f64 - count;
    let sum: f64 = ranks.iter().zip(positive).filter(|(_, yes)| **yes).map(|(rank, _)| rank).sum();
    (sum - count * (count - 1.0) / 2.0) / (count * others)
}

/// From 0, equal numbers averaged
fn ranks(values: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|a, b| values[*a].total_cmp(&values[*b]));
    let mut ranks = vec![0.0; values.len()];
    let mut below = 0;
    for group in order.chunk_by(|a, b| values[*a] == values[*b]) {
        let rank = below as f64 + (group.len() as f64 - 1.0) / 2.0;
        for i in group {
            ranks[*i] = rank;
        }
        below += group.len();
    }
    ranks
}

#[cfg(test)]
mod tests {
    use super::*;

    fn forecast(mean: f64, variance: f64, truth: f64) -> Forecast {
        Forecast { mean, variance, truth }
    }

    #[test]
    fn one_forecast_by_hand() {
        let exact = forecast(1.0, 4.0, 1.0);
        assert!((exact.negative_log_likelihood() - 0.5 * (8.0 * PI).ln()).abs() < 1e-15);
        // σ (√2 − 1)/√π at z = 0
        assert!((exact.crps() - 2.0 * (2.0_f64.sqrt() - 1.0) / PI.sqrt()).abs() < 1e-15);
        // Far off, the CRPS is the distance less σ/√π
        let far = forecast(0.0, 1.0, 50.0);
        assert!((far.crps() - (50.0 - 1.0 / PI.sqrt())).abs() < 1e-12);
        let at_one = forecast(0.0, 1.0, 1.0);
        assert!((at_one.crps() - 0.602_441_357_627_680_3).abs() < 1e-9, "{}", at_one.crps());
        assert_eq!([0, 1, 2].map(|level| at_one.covers(level)), [false, true, true]);
    }

    #[test]
    fn normal_truths_are_covered_as_often_as_claimed() {
        // The quantiles of the normal distribution, from the CRPS-free side: z of (i + ½)/n by bisection of Φ
        let quantile = |p: f64| {
            let (mut low, mut high) = (-10.0, 10.0);
            for _ in 0..80 {
                let middle = f64::midpoint(low, high);
                if 0.5 * (1.0 + erf(middle * FRAC_1_SQRT_2)) < p { low = middle } else { high = middle }
            }
            low
        };
        let n = 1000;
        let truths = (0..n).map(|i| quantile((f64::from(i) + 0.5) / f64::from(n)));
        let forecasts: Vec<Forecast> = truths.map(|z| forecast(3.0, 0.25, 3.0 + 0.5 * z)).collect();
        let figures = calibration(&forecasts).unwrap();
        for (found, level) in figures.coverage.iter().zip(LEVELS) {
            assert!((found - level).abs() < 2e-3, "{found} of {level}");
        }
        assert!((figures.z_scale - 1.0).abs() < 2e-2 && figures.rank_correlation == 0.0);
        let timid: Vec<Forecast> = forecasts.iter().map(|f| Forecast { variance: 4.0 * f.variance, ..*f }).collect();
        let timid = calibration(&timid).unwrap();
        assert!(timid.negative_log_likelihood > figures.negative_log_likelihood && timid.crps > figures.crps);
    }

    #[test]
    fn the_surest_come_first() {
        let errors = [1.0, 2.0, 3.0, 6.0];
        // (1 + 1.5 + 2 + 3)/4 in the best order, (6 + 4.5 + 11/3 + 3)/4 in the worst
        assert_eq!(risk_coverage(&errors, &errors), 1.875);
        assert!((risk_coverage(&[4.0, 3.0, 2.0, 1.0], &errors) - (6.0 + 4.5 + 11.0 / 3.0 + 3.0) / 4.0).abs() < 1e-12);
        assert_eq!(risk_coverage(&[1.0; 4], &errors), 3.0, "a constant doubt tells nothing");
        assert_eq!(rank_correlation(&errors, &[0.1, 0.2, 0.5, 0.4]), 0.8);
        assert_eq!(discrimination(&[1.0, 2.0, 3.0, 3.0], &[false, false, true, false]), 2.5 / 3.0);
    }

    #[test]
    fn forecasts_without_a_variance_are_refused() {
        assert!(calibration(&[]).is_err());
        assert!(
            calibration(&[forecast(0.0, 0.0, 1.0)]).is_err() && calibration(&[forecast(0.0, 1.0, f64::NAN)]).is_err()
        );
    }
}
