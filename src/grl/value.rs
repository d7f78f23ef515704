//! V(x): the value of a prompt as its particles and those like it tell it.
//!
//! The default is the value under the current policy, V^π (the mean of b). The soft optimum V* = τ log E e^{b/τ} makes
//! nearly all residuals negative early on; the memory's κ goes part of the way.

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::grl::kernel::{Kernel, Point};
use crate::grl::linalg::{Cholesky, Symmetric, dot};
use crate::grl::memory::{PromptMemory, soft_mean};

/// How values are read off the particles
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Estimator {
    /// Σ n b̄ k: the field of the original paper. Unnormalised: it grows with every visit and falls to 0 away from them
    Sum {
        /// Kernel over prompts
        kernel: Kernel,
    },
    /// Σ n b̄ k / Σ n k (Nadaraya–Watson)
    NadarayaWatson {
        /// Kernel over prompts
        kernel: Kernel,
    },
    /// μ₀ + kᵀ(K + D)⁻¹(b̄ − μ₀) with D = σ_n²/n, the mean of a Gaussian process
    GaussianProcess {
        /// Kernel over prompts
        kernel: Kernel,
        /// σ_n²: variance of one soft return around its prompt's value
        noise: f64,
    },
}

/// What the field says of one prompt
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Prediction {
    /// V(x)
    pub mean: f64,
    /// Variance of V(x), the Gaussian process's alone: it depends on where particles lie, not on what they hold
    pub variance: Option<f64>,
    /// k(x, x), to which the variance returns where there is no evidence
    pub prior_variance: f64,
    /// Spread of single soft returns around their prompts' means, weighted by likeness; `None` without a repeated prompt
    pub spread: Option<f64>,
    /// Σ n ρ over particles, ρ the kernel correlation: evidence in units of soft returns
    pub mass: f64,
    /// (Σ n ρ)² / Σ n ρ²: over how many soft returns the evidence is spread; 0 without evidence
    pub effective_count: f64,
}

/// A particle near a prompt
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Neighbour {
    /// Its prompt
    pub key: u64,
    /// k(x, x_i)
    pub weight: f64,
    /// Kernel correlation
    pub correlation: f64,
    /// Its value
    pub level: f64,
    /// Soft returns behind it
    pub count: f64,
}

/// A fitted field over prompts. It holds its own copy of the particles, so the memory may change meanwhile
#[derive(Debug, Clone)]
pub struct ValueField {
    estimator: Estimator,
    memory: PromptMemory,
    prior: f64,
    process: Option<Process>,
}

#[derive(Debug, Clone)]
struct Process {
    factor: Cholesky,
    /// (K + D)⁻¹(b̄ − μ₀)
    alpha: Vec<f64>,
    noise: f64,
}

/// Below this kernel mass there is no evidence, and the answer is the prior mean
const NO_EVIDENCE: f64 = 1e-300;

impl Estimator {
    /// The kernel over prompts
    pub fn kernel(&self) -> &Kernel {
        match self {
            Self::Sum { kernel } | Self::NadarayaWatson { kernel } | Self::GaussianProcess { kernel, .. } => kernel,
        }
    }

    /// The field of these particles
    pub fn fit(&self, memory: &PromptMemory) -> Result<ValueField> {
        let prior = memory.mean().unwrap_or(0.0);
        let process = match self {
            Self::GaussianProcess { kernel, noise } => Some(Process::new(memory, kernel, *noise, prior)?),
            Self::Sum { .. } | Self::NadarayaWatson { .. } => None,
        };
        Ok(ValueField { estimator: self.clone(), memory: memory.clone(), prior, process })
    }
}

impl Process {
    fn new(memory: &PromptMemory, kernel: &Kernel, noise: f64, prior: f64) -> Result<Self> {
        if !(noise.is_finite() && noise >= 0.0) {
            return Err(Error::usage(format!("the noise variance is {noise}, expected a number from 0")));
        }
        let particles: Vec<_> = memory.iter().collect();
        let mut matrix =
            Symmetric::from_fn(particles.len(), |i, j| kernel.value(particles[i].point, particles[j].point));
        matrix.add_diagonal(|i| noise / particles[i].count);
        let factor = Cholesky::new(&matrix)?;
        let centred: Vec<f64> = particles.iter().map(|particle| particle.level - prior).collect();
        let alpha = factor.solve(&centred);
        Ok(Self { factor, alpha, noise })
    }

    /// Entry (i, i) of (K + D)⁻¹
    fn precision(&self, i: usize) -> f64 {
        let mut unit = vec![0.0; self.alpha.len()];
        unit[i] = 1.0;
        let column = self.factor.solve_lower(&unit);
        dot(&column, &column)
    }
}

impl ValueField {
    /// The estimator it was fitted by
    pub fn estimator(&self) -> &Estimator {
        &self.estimator
    }

    /// The particles it was fitted to
    pub fn memory(&self) -> &PromptMemory {
        &self.memory
    }

    /// μ₀: the mean of all soft returns, which is the answer without evidence
    pub fn prior_mean(&self) -> f64 {
        self.prior
    }

    /// What was added to the diagonal because the kernel matrix was singular
    pub fn jitter(&self) -> f64 {
        self.process.as_ref().map_or(0.0, |process| process.factor.jitter())
    }

    /// w of V = μ₀ + Σ wᵢ k(·, xᵢ), where the estimator is of that form with μ₀ the prior mean: the Gaussian process
    pub fn coefficients(&self) -> Option<&[f64]> {
        self.process.as_ref().map(|process| process.alpha.as_slice())
    }

    fn weights(&self, x: Point<'_>) -> Vec<f64> {
        let x = self.as_stored(x);
        self.memory.iter().map(|particle| self.estimator.kernel().value(x, particle.point)).collect()
    }

    /// A prompt that was merged into another shares its identity
    fn as_stored<'a>(&self, x: Point<'a>) -> Point<'a> {
        let key = self.memory.position(x.key).map_or(x.key, |i| self.memory.particle(i).point.key);
        Point { key, ..x }
    }

    /// V(x)
    pub fn value(&self, x: Point<'_>) -> f64 {
        self.value_by(&self.weights(x))
    }

    fn value_by(&self, weights: &[f64]) -> f64 {
        match (&self.estimator, &self.process) {
            (_, Some(process)) => self.prior + dot(weights, &process.alpha),
            (Estimator::Sum { .. }, None) => {
                self.memory.iter().zip(weights).map(|(particle, k)| particle.count * particle.mean * k).sum()
            }
            (_, None) => {
                let weighted =
                    self.memory.iter().zip(weights).map(|(particle, k)| (particle.count * k, particle.level));
                self.average(weighted).unwrap_or(self.prior)
            }
        }
    }

    fn average(&self, weighted: impl Iterator<Item = (f64, f64)> + Clone) -> Option<f64> {
        let mass: f64 = weighted.clone().map(|(w, _)| w).sum();
        (mass > NO_EVIDENCE).then(|| soft_mean(weighted, self.memory.kappa()))
    }

    /// V(x), its variance and the evidence behind it
    pub fn predict(&self, x: Point<'_>) -> Prediction {
        let kernel = self.estimator.kernel();
        let x = self.as_stored(x);
        let weights = self.weights(x);
        let prior_variance = kernel.value(x, x);
        let variance = self.process.as_ref().map(|process| {
            let explained = process.factor.solve_lower(&weights);
            (prior_variance - dot(&explained, &explained)).max(0.0)
        });
        let (mut mass, mut squares, mut within, mut repeats) = (0.0, 0.0, 0.0, 0.0);
        for particle in self.memory.iter() {
            let rho = kernel.correlation(x, particle.point);
            mass += particle.count * rho;
            squares += particle.count * rho * rho;
            within += rho * particle.m2;
            repeats += rho * (particle.count - 1.0);
        }
        Prediction {
            mean: self.value_by(&weights),
            variance,
            prior_variance,
            spread: (repeats > 0.0).then(|| within / repeats),
            mass,
            effective_count: if squares > 0.0 { mass * mass / squares } else { 0.0 },
        }
    }

    /// V(x) without one soft return `b` of prompt x: the baseline that has not seen the sample it is subtracted from.
    /// V(x) itself where x has no particle
    ///
    /// μ₀ stays as it is for the Gaussian process; where Nadaraya–Watson is left without evidence, it is the mean of the
    /// other soft returns (0 where there is none).
    pub fn leave_one_out(&self, x: Point<'_>, b: f64) -> f64 {
        let Some(own) = self.memory.position(x.key) else { return self.value(x) };
        let particle = self.memory.particle(own);
        let (n, level) = (particle.count, particle.level);
        if let Some(process) = &self.process {
            // (b − V)/(1 − h), with the noise cancelled where the particle holds nothing but b
            let precision = process.precision(own);
            let residual = process.noise / n * process.alpha[own];
            return if n > 1.0 {
                b - (b - level + residual) / ((n - 1.0) / n + process.noise * precision / (n * n))
            } else {
                b - process.alpha[own] / precision
            };
        }
        let weights = self.weights(x);
        if matches!(self.estimator, Estimator::Sum { .. }) {
            return self.value_by(&weights) - weights[own] * b;
        }
        let without = (n > 1.0).then(|| (n - 1.0, soft_mean([(n, level), (-1.0, b)], self.memory.kappa())));
        let weighted = self.memory.iter().zip(&weights).enumerate().filter_map(|(i, (particle, k))| {
            let (count, level) = if i == own { without? } else { (particle.count, particle.level) };
            Some((count * k, level))
        });
        self.average(weighted).unwrap_or_else(|| {
            let total = self.memory.total_count();
            if total > 1.0 { (total * self.prior - b) / (total - 1.0) } else { 0.0 }
        })
    }

    /// Mean over all soft returns of (b − V₋ᵦ)², by which feature dimensions and kernels are compared; `None` for
    /// estimators other than the Gaussian process
    pub fn leave_one_out_error(&self) -> Option<f64> {
        let process = self.process.as_ref()?;
        let errors = self.memory.iter().enumerate().map(|(i, particle)| {
            let (n, precision) = (particle.count, process.precision(i));
            if n > 1.0 {
                let left = (n - 1.0) / n + process.noise * precision / (n * n);
                let off = process.noise / n * process.alpha[i];
                (particle.m2 + n * off * off) / (left * left)
            } else {
                (process.alpha[i] / precision).powi(2)
            }
        });
        let total = self.memory.total_count();
        (total > 0.0).then(|| errors.sum::<f64>() / total)
    }

    /// The `most` particles with the largest kernel weight at x, largest first: what explains V(x). It does not explain a
    /// policy's choice of tokens
    pub fn neighbours(&self, x: Point<'_>, most: usize) -> Vec<Neighbour> {
        let kernel = self.estimator.kernel();
        let x = self.as_stored(x);
        let neighbour = |particle: crate::grl::memory::Particle<'_>| Neighbour {
            key: particle.point.key,
            weight: kernel.value(x, particle.point),
            correlation: kernel.correlation(x, particle.point),
            level: particle.level,
            count: particle.count,
        };
        let mut all: Vec<Neighbour> = self.memory.iter().map(neighbour).collect();
        all.sort_by(|a, b| b.weight.total_cmp(&a.weight));
        all.truncate(most);
        all
    }
}
