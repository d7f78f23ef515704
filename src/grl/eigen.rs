//! Eigenvalues and eigenvectors of a symmetric matrix: Householder's tridiagonal form, then implicit QL steps.
//!
//! The pair of algorithms of EISPACK (`tred2`, `tql2`; Wilkinson and Reinsch 1971, contributions II/2 and II/3). Signs are
//! fixed (the entry of largest size is positive), so that a projection fitted twice is the same projection.

use crate::error::{Error, Result};
use crate::grl::linalg::Symmetric;

/// A = Σ λ_j u_j u_jᵀ, eigenvalues falling
#[derive(Debug, Clone, PartialEq)]
pub struct Eigen {
    /// λ_j, largest first
    pub values: Vec<f64>,
    /// u_j, in the order of the values, each of length 1
    pub vectors: Vec<Vec<f64>>,
}

/// QL steps for one eigenvalue; a handful is usual
const MOST_STEPS: usize = 64;

impl Eigen {
    /// All eigenvalues and eigenvectors
    pub fn new(matrix: &Symmetric) -> Result<Self> {
        let n = matrix.order();
        if n == 0 {
            return Ok(Self { values: Vec::new(), vectors: Vec::new() });
        }
        // Row i of `basis` becomes the i-th eigenvector: rotations then touch whole rows
        let (mut diagonal, mut off, mut basis) = tridiagonal(matrix);
        ql(&mut diagonal, &mut off, &mut basis)?;
        let mut order: Vec<usize> = (0..n).collect();
        order.sort_by(|&i, &j| diagonal[j].total_cmp(&diagonal[i]));
        let values = order.iter().map(|&i| diagonal[i]).collect();
        let vectors = order.iter().map(|&i| with_fixed_sign(std::mem::take(&mut basis[i]))).collect();
        Ok(Self { values, vectors })
    }
}

fn with_fixed_sign(mut vector: Vec<f64>) -> Vec<f64> {
    let largest =
        vector.iter().fold(0.0_f64, |largest, &x| if x.abs() > largest.abs() * (1.0 + 1e-9) { x } else { largest });
    if largest < 0.0 {
        for x in &mut vector {
            *x = -*x;
        }
    }
    vector
}

/// Qᵀ A Q = T by n − 2 reflections: T's diagonal, its off-diagonal (entry i links i − 1 and i) and Qᵀ
fn tridiagonal(matrix: &Symmetric) -> (Vec<f64>, Vec<f64>, Vec<Vec<f64>>) {
    let n = matrix.order();
    let mut a: Vec<Vec<f64>> = (0..n).map(|i| (0..n).map(|j| matrix.at(i, j)).collect()).collect();
    let mut off = vec![0.0; n];
    let mut reflections: Vec<(usize, Vec<f64>)> = Vec::with_capacity(n);
    for last in (1..n).rev() {
        // The last row's part before the diagonal is turned onto its last entry
        let row = a[last][..last].to_vec();
        let length = row.iter().fold(0.0_f64, |sum, x| sum.hypot(*x));
        let rest = row[..last - 1].iter().fold(0.0_f64, |sum, x| sum.hypot(*x));
        if rest == 0.0 {
            off[last] = row[last - 1];
            continue;
        }
        let target = if row[last - 1] > 0.0 { -length } else { length };
        let mut v = row;
        v[last - 1] -= target;
        let norm = v.iter().fold(0.0_f64, |sum, x| sum.hypot(*x));
        for x in &mut v {
            *x /= norm;
        }
        off[last] = target;
        // A ← H A H for H = I − 2 v vᵀ on the leading block: A − v qᵀ − q vᵀ with q = 2(p − (vᵀp) v), p = A v
        let p: Vec<f64> = a[..last].iter().map(|row| super::linalg::dot(&row[..last], &v)).collect();
        let vp = super::linalg::dot(&v, &p);
        let q: Vec<f64> = p.iter().zip(&v).map(|(p, v)| 2.0 * (p - vp * v)).collect();
        for i in 0..last {
            let (vi, qi) = (v[i], q[i]);
            for ((entry, v), q) in a[i][..last].iter_mut().zip(&v).zip(&q) {
                *entry -= vi * q + qi * v;
            }
        }
        reflections.push((last, v));
    }
    let diagonal = (0..n).map(|i| a[i][i]).collect();
    (diagonal, off, transposed_basis(n, &reflections))
}

/// Qᵀ of Q = H_1 H_2 …, the reflections in the order in which they were applied
fn transposed_basis(n: usize, reflections: &[(usize, Vec<f64>)]) -> Vec<Vec<f64>> {
    let mut basis: Vec<Vec<f64>> = (0..n).map(|i| (0..n).map(|j| f64::from(u8::from(i == j))).collect()).collect();
    for (size, v) in reflections.iter().rev() {
        // Qᵀ ← Qᵀ H, whose columns beyond `size` stay
        for row in &mut basis {
            let along = 2.0 * super::linalg::dot(&row[..*size], v);
            for (entry, v) in row[..*size].iter_mut().zip(v) {
                *entry -= along * v;
            }
        }
    }
    basis
}

/// Turns T into a diagonal matrix and the rows of `basis` into its eigenvectors
fn ql(diagonal: &mut [f64], off: &mut [f64], basis: &mut [Vec<f64>]) -> Result<()> {
    let n = diagonal.len();
    off.rotate_left(1);
    off[n - 1] = 0.0;
    for l in 0..n {
        for step in 0.. {
            let is_small = |m: usize| off[m].abs() <= f64::EPSILON * (diagonal[m].abs() + diagonal[m + 1].abs());
            let m = (l..n - 1).find(|&m| is_small(m)).unwrap_or(n - 1);
            if m == l {
                break;
            }
            if step == MOST_STEPS {
                return Err(Error::run(format!("no eigenvalue {l} of a {n} × {n} matrix after {MOST_STEPS} QL steps")));
            }
            let mut g = (diagonal[l + 1] - diagonal[l]) / (2.0 * off[l]);
            let r = g.hypot(1.0);
            g = diagonal[m] - diagonal[l] + off[l] / (g + r.copysign(g));
            let (mut s, mut c, mut p) = (1.0, 1.0, 0.0);
            let mut deflated = false;
            for i in (l..m).rev() {
                let (f, b) = (s * off[i], c * off[i]);
                let r = f.hypot(g);
                off[i + 1] = r;
                if r == 0.0 {
                    diagonal[i + 1] -= p;
                    off[m] = 0.0;
                    deflated = true;
                    break;
                }
                s = f / r;
                c = g / r;
                g = diagonal[i + 1] - p;
                let turned = (diagonal[i] - g) * s + 2.0 * c * b;
                p = s * turned;
                diagonal[i + 1] = g + p;
                g = c * turned - b;
                rotate(basis, i, s, c);
            }
            if !deflated {
                diagonal[l] -= p;
                off[l] = g;
                off[m] = 0.0;
            }
        }
    }
    Ok(())
}

fn rotate(basis: &mut [Vec<f64>], i: usize, s: f64, c: f64) {
    let (head, tail) = basis.split_at_mut(i + 1);
    for (low, high) in head[i].iter_mut().zip(&mut tail[0]) {
        let f = *high;
        *high = s * *low + c * f;
        *low = c * *low - s * f;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::grl::linalg::dot;
    use proptest::prelude::*;

    fn assert_decomposes(matrix: &Symmetric) {
        let eigen = Eigen::new(matrix).unwrap();
        let n = matrix.order();
        assert!(eigen.values.windows(2).all(|pair| pair[0] >= pair[1]));
        for i in 0..n {
            for j in 0..=i {
                let inner = dot(&eigen.vectors[i], &eigen.vectors[j]);
                assert!((inner - f64::from(u8::from(i == j))).abs() < 1e-12, "u{i}ᵀu{j} = {inner}");
                let sum: f64 = (0..n).map(|k| eigen.values[k] * eigen.vectors[k][i] * eigen.vectors[k][j]).sum();
                assert!((sum - matrix.at(i, j)).abs() < 1e-11, "({i}, {j}): {sum}, expected {}", matrix.at(i, j));
            }
        }
    }

    proptest! {
        #[test]
        fn eigenvectors_are_orthonormal_and_rebuild_the_matrix(values in prop::collection::vec(-1.0_f64..1.0, 78), n in 1_usize..13) {
            assert_decomposes(&Symmetric::from_fn(n, |i, j| values[i * (i + 1) / 2 + j]));
        }
    }

    #[test]
    fn repeated_zero_and_diagonal_matrices_decompose() {
        assert_decomposes(&Symmetric::from_fn(5, |_, _| 1.0));
        assert_decomposes(&Symmetric::from_fn(4, |_, _| 0.0));
        assert_decomposes(&Symmetric::from_fn(4, |i, j| if i == j { (i as f64) - 2.0 } else { 0.0 }));
        assert_eq!(Eigen::new(&Symmetric::from_fn(0, |_, _| 0.0)).unwrap().values, Vec::<f64>::new());
        let pair = Eigen::new(&Symmetric::from_fn(2, |i, j| if i == j { 2.0 } else { 1.0 })).unwrap();
        assert!((pair.values[0] - 3.0).abs() < 1e-14 && (pair.values[1] - 1.0).abs() < 1e-14);
        assert!(pair.vectors[0].iter().all(|x| (x - 0.5_f64.sqrt()).abs() < 1e-14));
    }
}
