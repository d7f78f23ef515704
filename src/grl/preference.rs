//! A Gaussian process over responses where only preferences are known (Bradley–Terry), by Laplace's approximation.
//!
//! Chu and Ghahramani 2005. Its variance is that of a *difference* of two responses, which is what says whether asking for
//! one more preference tells anything.

use crate::error::{Error, Result};
use crate::grl::kernel::{Kernel, Point};
use crate::grl::linalg::{Cholesky, Symmetric, dot};
use crate::grl::loss::{sigmoid, softplus};

const MOST_STEPS: usize = 100;

/// Responses with features, and the posterior of their rewards
#[derive(Debug, Clone)]
pub struct PreferenceProcess {
    kernel: Kernel,
    keys: Vec<u64>,
    phi: Vec<Vec<f32>>,
    pairs: Vec<(usize, usize)>,
    /// K⁻¹f at the mode, which is the slope of the log-likelihood there
    slope: Vec<f64>,
    /// σ(f_w − f_l)(1 − σ(f_w − f_l)) of each pair
    curvature: Vec<f64>,
    /// Of I + S^½ A K Aᵀ S^½
    factor: Cholesky,
}

impl PreferenceProcess {
    /// Maximises Σ log σ(f_w − f_l) − ½ fᵀK⁻¹f over the rewards f of `points`; pairs are (preferred, other)
    pub fn fit(kernel: &Kernel, points: &[Point<'_>], pairs: &[(usize, usize)]) -> Result<Self> {
        let n = points.len();
        if pairs.is_empty() || pairs.iter().any(|(w, l)| w.max(l) >= &n || w == l) {
            let message =
                format!("{} preferences over {n} responses, some of none or of one and the same", pairs.len());
            return Err(Error::usage(message));
        }
        let gram = Symmetric::from_fn(n, |i, j| kernel.value(points[i], points[j]));
        // A K Aᵀ: covariances of the differences
        let between = |(a, b): (usize, usize), (c, d): (usize, usize)| {
            gram.at(a, c) - gram.at(a, d) - gram.at(b, c) + gram.at(b, d)
        };
        let differences = Symmetric::from_fn(pairs.len(), |i, j| between(pairs[i], pairs[j]));
        let objective = |f: &[f64], slope: &[f64]| {
            -pairs.iter().map(|(w, l)| softplus(f[*l] - f[*w])).sum::<f64>() - 0.5 * dot(f, slope)
        };
        // f = K a throughout, so that K is never inverted
        let (mut a, mut f) = (vec![0.0; n], vec![0.0; n]);
        let mut reached = objective(&f, &a);
        for _ in 0..MOST_STEPS {
            let (curvature, gradient) = derivatives(&f, pairs);
            let factor = Cholesky::new(&scaled(&differences, &curvature))?;
            // Newton: a ← c − Aᵀ S^½ B⁻¹ S^½ A K c with c = W f + gradient
            let curved: Vec<f64> = pairs.iter().zip(&curvature).map(|((w, l), s)| s * (f[*w] - f[*l])).collect();
            let c: Vec<f64> = gradient.iter().zip(&spread(&curved, pairs, n)).map(|(g, w)| g + w).collect();
            let kc = gram.times(&c);
            let right: Vec<f64> =
                pairs.iter().zip(&curvature).map(|((w, l), s)| s.sqrt() * (kc[*w] - kc[*l])).collect();
            let solved: Vec<f64> = factor.solve(&right).iter().zip(&curvature).map(|(x, s)| x * s.sqrt()).collect();
            let newton: Vec<f64> = c.iter().zip(&spread(&solved, pairs, n)).map(|(c, x)| c - x).collect();
            let (next, value) = shorten(&a, &newton, reached, |a| objective(&gram.times(a), a));
            let moved = next.iter().zip(&a).map(|(x, y)| (x - y).abs()).fold(0.0, f64::max);
            a = next;
            f = gram.times(&a);
            reached = value;
            if moved < 1e-13 * (1.0 + a.iter().fold(0.0_f64, |most, x| most.max(x.abs()))) {
                break;
            }
        }
        let (curvature, slope) = derivatives(&f, pairs);
        let factor = Cholesky::new(&scaled(&differences, &curvature))?;
        Ok(Self {
            kernel: kernel.clone(),
            keys: points.iter().map(|point| point.key).collect(),
            phi: points.iter().map(|point| point.phi.to_vec()).collect(),
            pairs: pairs.to_vec(),
            slope,
            curvature,
            factor,
        })
    }

    fn row(&self, x: Point<'_>) -> Vec<f64> {
        self.keys.iter().zip(&self.phi).map(|(key, phi)| self.kernel.value(x, Point::new(*key, phi))).collect()
    }

    /// Mean reward of a response, up to a constant that is the same for all
    pub fn mean(&self, x: Point<'_>) -> f64 {
        dot(&self.row(x), &self.slope)
    }

    /// Mean and variance of the difference of two responses' rewards
    pub fn difference(&self, x: Point<'_>, y: Point<'_>) -> (f64, f64) {
        let row: Vec<f64> = self.row(x).iter().zip(&self.row(y)).map(|(a, b)| a - b).collect();
        let prior = self.kernel.value(x, x) + self.kernel.value(y, y) - 2.0 * self.kernel.value(x, y);
        let against: Vec<f64> =
            self.pairs.iter().zip(&self.curvature).map(|((w, l), s)| s.sqrt() * (row[*w] - row[*l])).collect();
        let explained = self.factor.solve_lower(&against);
        (dot(&row, &self.slope), (prior - dot(&explained, &explained)).max(0.0))
    }
}

/// Curvature of each pair's log-likelihood and the slope with respect to every reward
fn derivatives(f: &[f64], pairs: &[(usize, usize)]) -> (Vec<f64>, Vec<f64>) {
    let missing: Vec<f64> = pairs.iter().map(|(w, l)| sigmoid(f[*l] - f[*w])).collect();
    let curvature = missing.iter().map(|p| (p * (1.0 - p)).max(f64::MIN_POSITIVE)).collect();
    (curvature, spread(&missing, pairs, f.len()))
}

/// Aᵀ x
fn spread(x: &[f64], pairs: &[(usize, usize)], n: usize) -> Vec<f64> {
    let mut sum = vec![0.0; n];
    for ((w, l), x) in pairs.iter().zip(x) {
        sum[*w] += x;
        sum[*l] -= x;
    }
    sum
}

/// I + S^½ M S^½
fn scaled(differences: &Symmetric, curvature: &[f64]) -> Symmetric {
    let entry = |i: usize, j: usize| (curvature[i] * curvature[j]).sqrt() * differences.at(i, j);
    let mut matrix = Symmetric::from_fn(curvature.len(), entry);
    matrix.add_diagonal(|_| 1.0);
    matrix
}

/// The Newton step, halved until it does not lose; the objective is concave, so that some step gains or the mode is reached
fn shorten(from: &[f64], to: &[f64], reached: f64, objective: impl Fn(&[f64]) -> f64) -> (Vec<f64>, f64) {
    let mut share = 1.0;
    for _ in 0..30 {
        let at: Vec<f64> = from.iter().zip(to).map(|(from, to)| from + share * (to - from)).collect();
        let value = objective(&at);
        if value >= reached - 1e-15 * reached.abs() {
            return (at, value);
        }
        share *= 0.5;
    }
    (from.to_vec(), reached)
}
