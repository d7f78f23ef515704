//! Layers of small multi-layer perceptrons, forward and back, on one thread.
//!
//! The networks of classical control are so small that a thread hand-over costs more than the product itself.

use super::matmul::{Mat, Product, matmul_serial};
use super::vector::exp;
use super::{simd, vector};

/// y = x Wᵀ + b
///
/// # Shapes
/// x (rows, inputs), w (outputs, inputs), b (outputs,) → y (rows, outputs)
pub fn linear(rows: usize, x: &[f32], w: &[f32], b: &[f32], y: &mut [f32]) {
    let (outputs, inputs) = (b.len(), w.len() / b.len());
    assert!(x.len() >= rows * inputs && y.len() >= rows * outputs, "{rows} rows of {inputs} or {outputs} do not fit");
    for row in y.chunks_exact_mut(outputs).take(rows) {
        row.copy_from_slice(b);
    }
    product(rows, outputs, inputs, Mat::rows(x, inputs), Mat::rows(w, inputs).t(), y, true);
}

/// The way back of [`linear`]: dW = gᵀx and db = Σ g, overwritten; dx = g W where it is asked for
///
/// # Shapes
/// g (rows, outputs); the rest as in [`linear`]
pub fn linear_backward(
    rows: usize,
    x: &[f32],
    w: &[f32],
    g: &[f32],
    dw: &mut [f32],
    db: &mut [f32],
    dx: Option<&mut [f32]>,
) {
    let (outputs, inputs) = (db.len(), dw.len() / db.len());
    assert!(x.len() >= rows * inputs && g.len() >= rows * outputs, "{rows} rows of {inputs} or {outputs} do not fit");
    db.fill(0.0);
    for row in g.chunks_exact(outputs).take(rows) {
        vector::add(db, row);
    }
    product(outputs, inputs, rows, Mat::rows(g, outputs).t(), Mat::rows(x, inputs), dw, false);
    if let Some(dx) = dx {
        linear_backward_input(rows, inputs, w, g, dx);
    }
}

/// dx = g W alone, where the weights are held
///
/// # Shapes
/// as in [`linear_backward`]
pub fn linear_backward_input(rows: usize, inputs: usize, w: &[f32], g: &[f32], dx: &mut [f32]) {
    let outputs = w.len() / inputs;
    product(rows, inputs, outputs, Mat::rows(g, outputs), Mat::rows(w, inputs), dx, false);
}

/// C ← A B (+ C where `accumulate`), with C (m, n) row-major
fn product(m: usize, n: usize, k: usize, a: Mat, b: Mat, c: &mut [f32], accumulate: bool) {
    assert!(m * n <= c.len(), "result ({m}, {n}) outside its slice of {}", c.len());
    // SAFETY: the result is in bounds and exclusively borrowed
    unsafe { matmul_serial(Product::new([m, n, k], a, b), c.as_mut_ptr(), n, accumulate) }
}

/// (1 - e^{-2|x|}) / (1 + e^{-2|x|}) with the sign of x; a polynomial near 0, where the difference would cancel
#[inline(always)]
fn tanh_of(x: f32) -> f32 {
    let e = exp(-2.0 * x.abs());
    let far = ((1.0 - e) / (1.0 + e)).copysign(x);
    let s = x * x;
    // Taylor's series: below 0.25 the next term is less than 3e-8 of x
    let near = x * (1.0 - s * (1.0 / 3.0 - s * (2.0 / 15.0 - s * (17.0 / 315.0 - s * (62.0 / 2835.0)))));
    if x.abs() < 0.25 { near } else { far }
}

simd! {
    /// x ← tanh x
    pub fn tanh(x: &mut [f32]) {
        for value in x.iter_mut() {
            *value = tanh_of(*value);
        }
    }

    /// g ← g (1 - y²), y = tanh x
    pub fn tanh_backward(y: &[f32], g: &mut [f32]) {
        for (g, y) in g.iter_mut().zip(y) {
            *g *= 1.0 - y * y;
        }
    }

    /// y ← y + τ (x - y): a target network follows by a small share (Polyak averaging)
    pub fn follow(y: &mut [f32], x: &[f32], tau: f32) {
        for (y, x) in y.iter_mut().zip(x) {
            *y += tau * (x - *y);
        }
    }

    /// x ← max(x, 0)
    pub fn relu(x: &mut [f32]) {
        for value in x.iter_mut() {
            *value = if *value > 0.0 { *value } else { 0.0 };
        }
    }

    /// g ← g where y > 0, else 0
    pub fn relu_backward(y: &[f32], g: &mut [f32]) {
        for (g, y) in g.iter_mut().zip(y) {
            *g = if *y > 0.0 { *g } else { 0.0 };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tanh_is_close_to_the_library_everywhere() {
        let points = (-4000..4000).map(|i| i as f32 * 0.0031).chain([f32::INFINITY, f32::NEG_INFINITY, 1e-20]);
        for x in points {
            let mut y = [x];
            tanh(&mut y);
            let want = f64::from(x).tanh();
            assert!((f64::from(y[0]) - want).abs() <= 4e-7 * want.abs(), "tanh({x}) = {}, not {want}", y[0]);
        }
    }

    #[test]
    fn a_layer_and_its_gradients_are_the_written_out_sums() {
        let (rows, inputs, outputs) = (3, 4, 2);
        let numbers = |n: usize, by: usize| (0..n).map(|i| ((i * by) % 11) as f32 * 0.1 - 0.5).collect::<Vec<f32>>();
        let (x, w, b) = (numbers(rows * inputs, 3), numbers(outputs * inputs, 5), numbers(outputs, 7));
        let g = numbers(rows * outputs, 4);
        let (mut y, mut dw, mut db, mut dx) = (vec![9.0; 6], vec![9.0; 8], vec![9.0; 2], vec![9.0; 12]);
        linear(rows, &x, &w, &b, &mut y);
        linear_backward(rows, &x, &w, &g, &mut dw, &mut db, Some(&mut dx));
        let near = |found: f32, expected: f32| assert!((found - expected).abs() < 1e-6, "{found} for {expected}");
        for r in 0..rows {
            for o in 0..outputs {
                let sum: f32 = (0..inputs).map(|i| x[r * inputs + i] * w[o * inputs + i]).sum();
                near(y[r * outputs + o], b[o] + sum);
            }
            for i in 0..inputs {
                near(dx[r * inputs + i], (0..outputs).map(|o| g[r * outputs + o] * w[o * inputs + i]).sum());
            }
        }
        for o in 0..outputs {
            near(db[o], (0..rows).map(|r| g[r * outputs + o]).sum());
            for i in 0..inputs {
                near(dw[o * inputs + i], (0..rows).map(|r| g[r * outputs + o] * x[r * inputs + i]).sum());
            }
        }
    }
}
