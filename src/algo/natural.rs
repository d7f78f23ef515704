//! Natural gradients without the Fisher matrix: conjugate gradients over its product with a vector.
//!
//! Kakade 2001; TRPO, Schulman et al. 2015, <https://arxiv.org/abs/1502.05477>. In `f64`: rounding spoils the directions'
//! conjugacy within a few steps.

use super::same_length;

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// How conjugate gradients ended
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Solved {
    /// Products taken
    pub iterations: usize,
    /// |b - Fx|² by the recursion
    pub residual: f64,
}

/// Solves F x = b for a symmetric positive definite F, given as `product(v, out)`, out = F v
///
/// Stops at |b - Fx|² < `tolerance` or after `iterations` products (TRPO: 10 to 15, 1e-10), or where F shows a direction
/// without curvature. Damping, F + cI, belongs into `product`.
///
/// # Shapes
/// b, x (P,); x is overwritten
pub fn conjugate_gradient(
    mut product: impl FnMut(&[f64], &mut [f64]),
    b: &[f64],
    iterations: usize,
    tolerance: f64,
    x: &mut [f64],
) -> Solved {
    same_length("x", x.len(), b.len());
    x.fill(0.0);
    let mut residual = b.to_vec();
    let mut direction = b.to_vec();
    let mut image = vec![0.0; b.len()];
    let mut square = dot(b, b);
    for done in 0..iterations {
        if square < tolerance {
            return Solved { iterations: done, residual: square };
        }
        product(&direction, &mut image);
        let curvature = dot(&direction, &image);
        if curvature <= 0.0 {
            return Solved { iterations: done + 1, residual: square };
        }
        let step = square / curvature;
        for at in 0..x.len() {
            x[at] += step * direction[at];
            residual[at] -= step * image[at];
        }
        let next = dot(&residual, &residual);
        for (direction, residual) in direction.iter_mut().zip(&residual) {
            *direction = residual + next / square * *direction;
        }
        square = next;
    }
    Solved { iterations, residual: square }
}

/// Longest step along x with ½ (sx)ᵀ F (sx) ≤ δ: s = √(2δ / xᵀFx)
///
/// # Errors
/// None where xᵀFx is not positive: x is no step
///
/// # Shapes
/// x, its image F x (P,)
pub fn trust_region_step(x: &[f64], image: &[f64], max_kl: f64) -> Option<f64> {
    same_length("image", image.len(), x.len());
    let curvature = dot(x, image);
    (curvature > 0.0).then(|| (2.0 * max_kl / curvature).sqrt())
}

/// Fisher matrix of a categorical in its logits, times a vector: F v = π ∘ (v - π·v)
///
/// # Shapes
/// probabilities, v, out (K,), one state
pub fn categorical_fisher(probabilities: &[f64], v: &[f64], out: &mut [f64]) {
    same_length("v", v.len(), probabilities.len());
    same_length("out", out.len(), probabilities.len());
    let mean = dot(probabilities, v);
    for (k, out) in out.iter_mut().enumerate() {
        *out = probabilities[k] * (v[k] - mean);
    }
}

/// Fisher matrix of a diagonal Gaussian in (μ, log σ), times a vector: (v_μ / σ², 2 v_σ)
///
/// # Shapes
/// log_std (D,); v, out (2 · D,), means first; one state
pub fn gaussian_fisher(log_std: &[f64], v: &[f64], out: &mut [f64]) {
    let size = log_std.len();
    same_length("v", v.len(), 2 * size);
    same_length("out", out.len(), 2 * size);
    for d in 0..size {
        out[d] = v[d] * (-2.0 * log_std[d]).exp();
        out[size + d] = 2.0 * v[size + d];
    }
}
