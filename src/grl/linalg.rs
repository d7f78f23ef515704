//! Cholesky factors that grow and change by one row or one rank, and products in a fixed order.
//!
//! Plain f64 loops in one thread: the same numbers on every machine, and at a few hundred particles fast enough that a
//! library would not show.

use crate::error::{Error, Result};

/// Σ a_i b_i in eight interleaved partial sums, which the compiler can keep in vector registers
pub(crate) fn dot(a: &[f64], b: &[f64]) -> f64 {
    const LANES: usize = 8;
    let mut sums = [0.0; LANES];
    let (heads_a, tail_a) = a.as_chunks::<LANES>();
    let (heads_b, tail_b) = b.as_chunks::<LANES>();
    for (a, b) in heads_a.iter().zip(heads_b) {
        for lane in 0..LANES {
            sums[lane] += a[lane] * b[lane];
        }
    }
    let tail: f64 = tail_a.iter().zip(tail_b).map(|(a, b)| a * b).sum();
    sums.iter().sum::<f64>() + tail
}

/// y ← y + c x
fn add_scaled(y: &mut [f64], c: f64, x: &[f64]) {
    for (y, x) in y.iter_mut().zip(x) {
        *y += c * x;
    }
}

/// Where row `i` of a packed lower triangle starts
const fn row_start(i: usize) -> usize {
    i * (i + 1) / 2
}

/// A symmetric matrix as its packed lower triangle, row after row
#[derive(Debug, Clone, PartialEq)]
pub struct Symmetric {
    order: usize,
    packed: Vec<f64>,
}

impl Symmetric {
    /// The matrix of `entry(row, column)`, which is asked for `column <= row` only
    pub fn from_fn(order: usize, mut entry: impl FnMut(usize, usize) -> f64) -> Self {
        let mut packed = Vec::with_capacity(row_start(order));
        for i in 0..order {
            packed.extend((0..=i).map(|j| entry(i, j)));
        }
        Self { order, packed }
    }

    /// Rows
    pub fn order(&self) -> usize {
        self.order
    }

    /// Entry (i, j)
    pub fn at(&self, i: usize, j: usize) -> f64 {
        self.packed[row_start(i.max(j)) + i.min(j)]
    }

    /// A x
    pub fn times(&self, x: &[f64]) -> Vec<f64> {
        let mut y = vec![0.0; self.order];
        for i in 0..self.order {
            let row = &self.packed[row_start(i)..row_start(i + 1)];
            y[i] += dot(row, &x[..=i]);
            let (above, _) = y.split_at_mut(i);
            add_scaled(above, x[i], &row[..i]);
        }
        y
    }

    /// xᵀ A x
    pub fn quadratic(&self, x: &[f64]) -> f64 {
        dot(x, &self.times(x))
    }

    /// Adds to the diagonal
    pub fn add_diagonal(&mut self, mut entry: impl FnMut(usize) -> f64) {
        for i in 0..self.order {
            self.packed[row_start(i) + i] += entry(i);
        }
    }

    fn mean_diagonal(&self) -> f64 {
        (0..self.order).map(|i| self.at(i, i)).sum::<f64>() / self.order.max(1) as f64
    }
}

/// A = L Lᵀ, with L packed row after row
#[derive(Debug, Clone, PartialEq)]
pub struct Cholesky {
    order: usize,
    lower: Vec<f64>,
    jitter: f64,
}

/// Multiples of the mean diagonal that are tried in turn where a matrix is singular in f64
const JITTERS: [f64; 5] = [0.0, 1e-12, 1e-10, 1e-8, 1e-6];

impl Cholesky {
    /// Factors `matrix`; where it is singular to working precision, adds the least multiple of 1e-12 to 1e-6 of the mean
    /// diagonal with which it works ([`Cholesky::jitter`] says how much)
    pub fn new(matrix: &Symmetric) -> Result<Self> {
        let scale = matrix.mean_diagonal();
        if !matrix.packed.iter().all(|entry| entry.is_finite()) {
            return Err(Error::run("the kernel matrix holds values that are not finite"));
        }
        for factor in JITTERS {
            let jitter = factor * scale;
            if let Some(lower) = factor_packed(matrix, jitter) {
                return Ok(Self { order: matrix.order, lower, jitter });
            }
        }
        let message = format!(
            "the kernel matrix of {} particles is singular, also with {:.0e} of its mean diagonal {scale:.3e} added",
            matrix.order,
            JITTERS[JITTERS.len() - 1]
        );
        Err(Error::run(message).hint("give the noise a positive variance, or merge particles that lie on one point"))
    }

    /// The factor of a matrix without rows
    pub fn empty() -> Self {
        Self { order: 0, lower: Vec::new(), jitter: 0.0 }
    }

    /// Rows
    pub fn order(&self) -> usize {
        self.order
    }

    /// What was added to the diagonal so that the factor exists
    pub fn jitter(&self) -> f64 {
        self.jitter
    }

    fn row(&self, i: usize) -> &[f64] {
        &self.lower[row_start(i)..row_start(i + 1)]
    }

    /// log |A|
    pub fn log_determinant(&self) -> f64 {
        2.0 * (0..self.order).map(|i| self.row(i)[i].ln()).sum::<f64>()
    }

    /// L⁻¹ b
    pub fn solve_lower(&self, b: &[f64]) -> Vec<f64> {
        let mut x = b.to_vec();
        for i in 0..self.order {
            let row = self.row(i);
            x[i] = (x[i] - dot(&row[..i], &x[..i])) / row[i];
        }
        x
    }

    /// A⁻¹ b
    pub fn solve(&self, b: &[f64]) -> Vec<f64> {
        let mut x = self.solve_lower(b);
        for i in (0..self.order).rev() {
            let row = self.row(i);
            x[i] /= row[i];
            let (above, at) = x.split_at_mut(i);
            add_scaled(above, -at[0], &row[..i]);
        }
        x
    }

    /// The factor of A with one more row and column: `column` against the rows so far, `corner` on the diagonal. `false`,
    /// with nothing changed, where the larger matrix is singular
    pub fn append(&mut self, column: &[f64], corner: f64) -> bool {
        let row = self.solve_lower(column);
        let pivot = corner + self.jitter - dot(&row, &row);
        if !is_pivot(pivot, corner) {
            return false;
        }
        self.lower.extend_from_slice(&row);
        self.lower.push(pivot.sqrt());
        self.order += 1;
        true
    }

    /// The factor of A without row and column `i`
    pub fn remove(&mut self, i: usize) {
        let column: Vec<f64> = (i + 1..self.order).map(|row| self.row(row)[i]).collect();
        let mut lower = self.lower[..row_start(i)].to_vec();
        for row in i + 1..self.order {
            let row = self.row(row);
            lower.extend_from_slice(&row[..i]);
            lower.extend_from_slice(&row[i + 1..]);
        }
        self.lower = lower;
        self.order -= 1;
        self.rank_one(i, column);
    }

    /// The factor of A with `by` added to entry (i, i). `false`, with nothing changed, where that matrix is singular
    pub fn add_to_diagonal(&mut self, i: usize, by: f64) -> bool {
        let mut vector = vec![0.0; self.order - i];
        vector[0] = by.abs().sqrt();
        if by >= 0.0 {
            self.rank_one(i, vector);
            return true;
        }
        let before = self.lower.clone();
        let positive = self.rank_one_down(i, vector);
        if !positive {
            self.lower = before;
        }
        positive
    }

    /// A + v vᵀ for a v whose entries before `first` are 0 and which holds the others
    fn rank_one(&mut self, first: usize, mut v: Vec<f64>) {
        for k in first..self.order {
            let (at, pivot) = (row_start(k) + k, v[k - first]);
            let diagonal = self.lower[at].hypot(pivot);
            let (c, s) = (diagonal / self.lower[at], pivot / self.lower[at]);
            self.lower[at] = diagonal;
            for i in k + 1..self.order {
                let entry = &mut self.lower[row_start(i) + k];
                *entry = (*entry + s * v[i - first]) / c;
                v[i - first] = c * v[i - first] - s * *entry;
            }
        }
    }

    /// A − v vᵀ by hyperbolic rotations; `false` where a pivot is lost
    fn rank_one_down(&mut self, first: usize, mut v: Vec<f64>) -> bool {
        for k in first..self.order {
            let (at, pivot) = (row_start(k) + k, v[k - first]);
            let old = self.lower[at];
            let square = (old - pivot) * (old + pivot);
            if !is_pivot(square, old * old) {
                return false;
            }
            let diagonal = square.sqrt();
            let (c, s) = (diagonal / old, pivot / old);
            self.lower[at] = diagonal;
            for i in k + 1..self.order {
                let entry = &mut self.lower[row_start(i) + k];
                *entry = (*entry - s * v[i - first]) / c;
                v[i - first] = c * v[i - first] - s * *entry;
            }
        }
        true
    }
}

/// What is left of a diagonal entry must stand out of the rounding error of the entry
fn is_pivot(left: f64, of: f64) -> bool {
    left > of.abs() * f64::EPSILON * 4.0
}

fn factor_packed(matrix: &Symmetric, jitter: f64) -> Option<Vec<f64>> {
    let mut lower = matrix.packed.clone();
    for i in 0..matrix.order {
        let (above, rest) = lower.split_at_mut(row_start(i));
        let row = &mut rest[..=i];
        for j in 0..i {
            let other = &above[row_start(j)..row_start(j + 1)];
            row[j] = (row[j] - dot(&row[..j], &other[..j])) / other[j];
        }
        let corner = row[i] + jitter;
        let pivot = corner - dot(&row[..i], &row[..i]);
        if !is_pivot(pivot, corner) {
            return None;
        }
        row[i] = pivot.sqrt();
    }
    Some(lower)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// B Bᵀ + I/4
    fn positive(values: &[f64], order: usize) -> Symmetric {
        Symmetric::from_fn(order, |i, j| {
            let row = |i: usize| &values[i * order..(i + 1) * order];
            dot(row(i), row(j)) + if i == j { 0.25 } else { 0.0 }
        })
    }

    fn assert_factor(factor: &Cholesky, of: &Symmetric) {
        assert_eq!(factor.order(), of.order());
        for i in 0..of.order() {
            for j in 0..=i {
                let product = dot(&factor.row(i)[..=j], factor.row(j));
                assert!((product - of.at(i, j)).abs() < 1e-11, "({i}, {j}): {product}, expected {}", of.at(i, j));
            }
        }
    }

    proptest! {
        #[test]
        fn factors_follow_every_change_of_the_matrix(
            values in prop::collection::vec(-1.0_f64..1.0, 100), order in 2_usize..10, at in 0_usize..10, by in 0.01_f64..2.0,
        ) {
            let at = at % order;
            let matrix = positive(&values[..order * order], order);
            let factor = Cholesky::new(&matrix).unwrap();
            prop_assert_eq!(factor.jitter(), 0.0);
            assert_factor(&factor, &matrix);

            let b: Vec<f64> = values[..order].to_vec();
            let back = matrix.times(&factor.solve(&b));
            prop_assert!(back.iter().zip(&b).all(|(back, b)| (back - b).abs() < 1e-9));

            let mut changed = factor.clone();
            prop_assert!(changed.add_to_diagonal(at, by));
            let mut raised = matrix.clone();
            raised.add_diagonal(|i| if i == at { by } else { 0.0 });
            assert_factor(&changed, &raised);
            prop_assert!(changed.add_to_diagonal(at, -by));
            assert_factor(&changed, &matrix);

            let without: Vec<usize> = (0..order).filter(|&i| i != at).collect();
            let mut smaller = factor.clone();
            smaller.remove(at);
            let kept = Symmetric::from_fn(order - 1, |i, j| matrix.at(without[i], without[j]));
            assert_factor(&smaller, &kept);

            let column: Vec<f64> = without.iter().map(|&i| matrix.at(i, at)).collect();
            prop_assert!(smaller.append(&column, matrix.at(at, at)));
            let moved: Vec<usize> = without.iter().copied().chain([at]).collect();
            assert_factor(&smaller, &Symmetric::from_fn(order, |i, j| matrix.at(moved[i], moved[j])));
        }
    }

    #[test]
    fn a_singular_matrix_gets_the_least_jitter_or_a_reason() {
        let ones = Symmetric::from_fn(3, |_, _| 1.0);
        let factor = Cholesky::new(&ones).unwrap();
        assert!(factor.jitter() > 0.0 && factor.jitter() <= 1e-10, "{}", factor.jitter());
        let mean = factor.solve(&[3.0, 3.0, 3.0]);
        assert!((mean.iter().sum::<f64>() - 3.0).abs() < 1e-3, "{mean:?}");

        let indefinite = Symmetric::from_fn(2, |i, j| if i == j { 1.0 } else { 2.0 });
        let refused = Cholesky::new(&indefinite).unwrap_err();
        assert!(refused.message().contains("2 particles is singular"), "{refused}");
        assert!(Cholesky::new(&Symmetric::from_fn(1, |_, _| f64::NAN)).unwrap_err().message().contains("not finite"));
    }

    #[test]
    fn changes_that_would_make_it_singular_are_refused_and_leave_the_factor() {
        let mut factor = Cholesky::new(&Symmetric::from_fn(2, |i, j| if i == j { 2.0 } else { 1.0 })).unwrap();
        let before = factor.clone();
        assert!(!factor.add_to_diagonal(1, -1.5));
        assert!(!factor.append(&[2.0, 1.0], 2.0));
        assert_eq!(factor, before);
    }
}
