//! Kernel hyperparameters by marginal likelihood (type II) on a grid.
//!
//! The grid holds a pure identity kernel and pure noise besides smooth ones, so that a geometry that says nothing about
//! values is found out and not believed.

use serde::{Deserialize, Serialize};

use crate::error::Result;
use crate::grl::kernel::{Kernel, squared_distance};
use crate::grl::linalg::{Cholesky, Symmetric, dot};
use crate::grl::memory::PromptMemory;
use crate::grl::value::Estimator;

/// The candidates
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Grid {
    /// Length-scales in units of the median distance between particles
    pub lengths: Vec<f64>,
    /// (s_f, s_d) as fractions of the variance of b; the noise is what is left
    pub fractions: Vec<(f64, f64)>,
    /// The least noise, as such a fraction
    pub least_noise: f64,
}

impl Default for Grid {
    fn default() -> Self {
        Self {
            lengths: vec![0.3, 0.6, 1.2],
            fractions: vec![(0.6, 0.0), (0.0, 0.6), (0.3, 0.3), (0.55, 0.05), (0.05, 0.05)],
            least_noise: 0.05,
        }
    }
}

/// The candidate with the largest likelihood
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Fitted {
    /// s_f: variance that the geometry explains
    pub smooth: f64,
    /// ℓ
    pub length: f64,
    /// s_d: variance that is particular to each prompt
    pub delta: f64,
    /// σ_n²: variance of one soft return
    pub noise: f64,
    /// log p(b) of all soft returns; `None` where they do not vary and nothing could be fitted
    pub log_likelihood: Option<f64>,
}

impl Fitted {
    /// The composite kernel with these hyperparameters
    pub fn kernel(&self) -> Kernel {
        Kernel::Composite { smooth: self.smooth, length: self.length, delta: self.delta }
    }

    /// The Gaussian process with these hyperparameters
    pub fn estimator(&self) -> Estimator {
        Estimator::GaussianProcess { kernel: self.kernel(), noise: self.noise }
    }
}

/// The best point of the grid for the soft returns in `memory`; ties go to the earlier one
///
/// Soft returns that do not vary (one prompt seen once, or equal rewards) give unit noise and no signal, under which V is
/// the mean everywhere.
pub fn fit_marginal_likelihood(memory: &PromptMemory, grid: &Grid) -> Result<Fitted> {
    let variance = memory.variance().unwrap_or(0.0);
    let distances = distances(memory);
    let scale = median(&distances).filter(|median| *median > 0.0).unwrap_or(1.0);
    let nothing = Fitted { smooth: 0.0, length: scale, delta: 0.0, noise: 1.0, log_likelihood: None };
    let mean = memory.iter().map(|p| p.count * p.mean).sum::<f64>() / memory.total_count();
    // Soft returns that differ by rounding alone do not vary
    if !(variance > (f64::EPSILON * mean.abs()).powi(2) * 16.0 && variance.is_normal()) {
        return Ok(nothing);
    }
    let centred: Vec<f64> = memory.iter().map(|particle| particle.mean - mean).collect();
    let mut best = nothing;
    for factor in &grid.lengths {
        let length = factor * scale;
        for (smooth, delta) in &grid.fractions {
            let noise = variance * (1.0 - smooth - delta).max(grid.least_noise);
            let candidate =
                Fitted { smooth: variance * smooth, length, delta: variance * delta, noise, log_likelihood: None };
            let value = log_likelihood(memory, &distances, &centred, &candidate)?;
            if best.log_likelihood.is_none_or(|likelihood| value > likelihood) {
                best = Fitted { log_likelihood: Some(value), ..candidate };
            }
        }
    }
    Ok(best)
}

/// log p of all soft returns under the process with mean μ₀, from their sums for each prompt
///
/// With n_i returns of mean b̄_i for prompt i, the exponent splits into that of the means, with noise σ_n²/n_i, and that of
/// the distances from the means.
fn log_likelihood(memory: &PromptMemory, distances: &Symmetric, centred: &[f64], with: &Fitted) -> Result<f64> {
    let particles: Vec<_> = memory.iter().collect();
    let scale = -0.5 / (with.length * with.length);
    let mut matrix = Symmetric::from_fn(particles.len(), |i, j| {
        if with.smooth == 0.0 { 0.0 } else { with.smooth * (scale * distances.at(i, j)).exp() }
    });
    matrix.add_diagonal(|i| with.delta + with.noise / particles[i].count);
    let factor = Cholesky::new(&matrix)?;
    let white = factor.solve_lower(centred);
    let total = memory.total_count();
    let within: f64 = particles.iter().map(|particle| particle.m2).sum();
    let counts: f64 = particles.iter().map(|particle| particle.count.ln()).sum();
    let free = total - particles.len() as f64;
    Ok(-0.5
        * (dot(&white, &white)
            + factor.log_determinant()
            + within / with.noise
            + free * with.noise.ln()
            + counts
            + total * (2.0 * std::f64::consts::PI).ln()))
}

/// Squared distances between all particles
fn distances(memory: &PromptMemory) -> Symmetric {
    let points: Vec<_> = memory.iter().map(|particle| particle.point.phi).collect();
    Symmetric::from_fn(points.len(), |i, j| squared_distance(points[i], points[j]))
}

/// The median distance between different particles
fn median(squared: &Symmetric) -> Option<f64> {
    let n = squared.order();
    let mut values: Vec<f64> =
        (1..n).flat_map(|i| (0..i).map(move |j| (i, j))).map(|(i, j)| squared.at(i, j)).collect();
    if values.is_empty() {
        return None;
    }
    let middle = values.len() / 2;
    let (_, median, _) = values.select_nth_unstable_by(middle, f64::total_cmp);
    Some(median.sqrt())
}
