//! Draws that agents need beyond those of the environments.

use std::f64::consts::PI;

use super::env::rng::Pcg64;

/// From the standard normal (Box & Muller 1958)
pub fn standard_normal(rng: &mut Pcg64) -> f64 {
    // 1 - u lies in (0, 1], where the logarithm is finite
    let radius = (-2.0 * (1.0 - rng.random()).ln()).sqrt();
    radius * (2.0 * PI * rng.random()).cos()
}

/// Puts the elements into a random order (Fisher & Yates)
pub fn shuffle(rng: &mut Pcg64, items: &mut [u32]) {
    for last in (1..items.len()).rev() {
        items.swap(last, rng.integers(0, last as i64 + 1) as usize);
    }
}

/// An index drawn by the softmax of logits
pub fn categorical(rng: &mut Pcg64, logits: &[f32]) -> usize {
    let top = f64::from(logits.iter().copied().fold(f32::NEG_INFINITY, f32::max));
    let weight = |z: &f32| (f64::from(*z) - top).exp();
    let mut left = rng.random() * logits.iter().map(weight).sum::<f64>();
    for (at, z) in logits.iter().enumerate() {
        left -= weight(z);
        if left < 0.0 {
            return at;
        }
    }
    logits.len() - 1
}

/// A random matrix with orthonormal rows or columns, whichever are fewer, times `gain`
///
/// Saxe et al. 2014, <https://arxiv.org/abs/1312.6120>: Gram and Schmidt's process on Gaussian vectors.
pub fn orthogonal(rows: usize, columns: usize, gain: f64, rng: &mut Pcg64, out: &mut [f32]) {
    let (count, length) = (rows.min(columns), rows.max(columns));
    let mut basis: Vec<Vec<f64>> = Vec::with_capacity(count);
    for _ in 0..count {
        let mut vector: Vec<f64> = (0..length).map(|_| standard_normal(rng)).collect();
        // Twice, as one pass leaves rounding behind
        for _ in 0..2 {
            for other in &basis {
                let along: f64 = vector.iter().zip(other).map(|(a, b)| a * b).sum();
                vector.iter_mut().zip(other).for_each(|(a, b)| *a -= along * b);
            }
        }
        let norm = vector.iter().map(|a| a * a).sum::<f64>().sqrt();
        for entry in &mut vector {
            *entry /= norm;
        }
        basis.push(vector);
    }
    for i in 0..rows {
        for j in 0..columns {
            let entry = if rows <= columns { basis[i][j] } else { basis[j][i] };
            out[i * columns + j] = (gain * entry) as f32;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orthogonal_rows_or_columns() {
        for (rows, columns) in [(3, 7), (7, 3)] {
            let mut w = vec![0.0; 21];
            orthogonal(rows, columns, 2.0, &mut Pcg64::new(0), &mut w);
            let vector = |v: usize, at: usize| if rows < columns { w[v * columns + at] } else { w[at * columns + v] };
            for a in 0..3 {
                for b in 0..3 {
                    let product: f32 = (0..7).map(|at| vector(a, at) * vector(b, at)).sum();
                    assert!((product - if a == b { 4.0 } else { 0.0 }).abs() < 1e-5);
                }
            }
        }
    }
}
