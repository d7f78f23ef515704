//! Whole layers on slices, forward and backward: what the operations of `ops` and the fused model share.
//!
//! Backward functions write gradients of weights into buffers of the caller, adding to what is there where `accumulate`
//! says so. Work is cut by size into blocks that are summed in order: threads do not change a byte.

use std::f64::consts::FRAC_1_SQRT_2;

use candle_core::cpu::erf::erf_f64 as erf;
use rayon::prelude::*;

use super::matmul::{Addend, Mat, Precision, Product};
use super::{buffer, vector};

/// Rows of one task
const ROWS: usize = 32;
/// Elements of one task of an elementwise loop
const BLOCK: usize = 1 << 14;
/// Below this many elements a loop stays on the calling thread
const SERIAL_BELOW: usize = 1 << 14;

/// 1/√(2π)
const INV_SQRT_2PI: f64 = 0.398_942_280_401_432_7;

/// Runs `work(block index, block)` over blocks of `len` elements
fn for_blocks(out: &mut [f32], len: usize, work: impl Fn(usize, &mut [f32]) + Sync) {
    if out.len() < SERIAL_BELOW {
        out.chunks_mut(len).enumerate().for_each(|(i, out)| work(i, out));
    } else {
        out.par_chunks_mut(len).enumerate().for_each(|(i, out)| work(i, out));
    }
}

/// The part of `x` that belongs to block `i` of `out`
fn part<'a>(x: &'a [f32], i: usize, len: usize, out: &[f32]) -> &'a [f32] {
    &x[i * len..][..out.len()]
}

/// y = xW + b: x (N, I), w (I, O), b (O,) → (N, O)
pub fn linear(x: &[f32], w: &[f32], b: &[f32], precision: Precision) -> Vec<f32> {
    let (i, o) = (w.len() / b.len(), b.len());
    let n = x.len() / i;
    precision.matmul(Product::new([n, o, i], Mat::rows(x, i), Mat::rows(w, o)), Some(b))
}

/// dx = gWᵀ: g (N, O), w (I, O) → (N, I)
pub fn linear_backward_input(w: &[f32], g: &[f32], o: usize, precision: Precision) -> Vec<f32> {
    let (i, n) = (w.len() / o, g.len() / o);
    // The `gemm` crate packs a transposed operand by walking down its columns; where rows lie whole pages apart they fall
    // into the same cache sets, and a copy that lies the other way round is a third faster, the copy included
    if precision == Precision::F32 && o >= 1024 && o.is_multiple_of(256) && n > 64 {
        let flipped = transpose(w, o);
        precision.matmul(Product::new([n, i, o], Mat::rows(g, o), Mat::rows(&flipped, i)), None)
    } else {
        precision.matmul(Product::new([n, i, o], Mat::rows(g, o), Mat::rows(w, o).t()), None)
    }
}

/// Wᵀ: w (I, O) → (O, I), in tiles that stay in the cache
fn transpose(w: &[f32], o: usize) -> Vec<f32> {
    const TILE: usize = 32;
    let i = w.len() / o;
    // SAFETY: the tiles cover it
    let mut flipped = unsafe { buffer(i * o) };
    for_blocks(&mut flipped, TILE * i, |block, out| {
        let (first, columns) = (block * TILE, out.len() / i);
        for r0 in (0..i).step_by(TILE) {
            let rows = TILE.min(i - r0);
            let mut tile = [[0.0; TILE]; TILE];
            for r in 0..rows {
                for (c, x) in w[(r0 + r) * o + first..][..columns].iter().enumerate() {
                    tile[c][r] = *x;
                }
            }
            for (c, column) in tile.iter().enumerate().take(columns) {
                out[c * i + r0..][..rows].copy_from_slice(&column[..rows]);
            }
        }
    });
    flipped
}

/// dW = xᵀg: x (N, I), g (N, O) → dw (I, O)
pub fn linear_backward_weight(x: &[f32], g: &[f32], dw: &mut [f32], o: usize, accumulate: bool, precision: Precision) {
    let (i, n) = (dw.len() / o, g.len() / o);
    let addend = if accumulate { Addend::Result } else { Addend::None };
    precision.matmul_to(Product::new([i, o, n], Mat::rows(x, i).t(), Mat::rows(g, o)), dw, addend);
}

/// db = Σ rows of g: g (N, O) → db (O,)
pub fn column_sums(g: &[f32], db: &mut [f32], accumulate: bool) {
    const COLUMNS: usize = 256;
    let cols = db.len();
    if !accumulate {
        db.fill(0.0);
    }
    let work = |(block, sums): (usize, &mut [f32])| {
        for row in g.chunks(cols) {
            vector::add(sums, &row[block * COLUMNS..][..sums.len()]);
        }
    };
    if g.len() < SERIAL_BELOW {
        db.chunks_mut(COLUMNS).enumerate().for_each(work);
    } else {
        db.par_chunks_mut(COLUMNS).enumerate().for_each(work);
    }
}

/// Layer norm of each row: x (N, C) → (N, C)
pub fn layer_norm(x: &[f32], w: &[f32], b: &[f32], eps: f32) -> Vec<f32> {
    let c = w.len();
    // SAFETY: every row is written
    let mut y = unsafe { buffer(x.len()) };
    for_blocks(&mut y, ROWS * c, |i, y| {
        let x = part(x, i, ROWS * c, y);
        for (y, x) in y.chunks_mut(c).zip(x.chunks(c)) {
            vector::layer_norm(x, w, b, eps, y);
        }
    });
    y
}

/// Gradients of [`layer_norm`]: dx (N, C), dw and db (C,)
pub fn layer_norm_backward(
    x: &[f32],
    w: &[f32],
    g: &[f32],
    eps: f32,
    dw: &mut [f32],
    db: &mut [f32],
    accumulate: bool,
) -> Vec<f32> {
    let c = w.len();
    assert_eq!(x.len(), g.len());
    // SAFETY: every row is written, since there are as many in g
    let mut dx = unsafe { buffer(x.len()) };
    let work = |((dx, x), g): ((&mut [f32], &[f32]), &[f32])| {
        let (mut dw, mut db) = (vec![0.0; c], vec![0.0; c]);
        for ((dx, x), g) in dx.chunks_mut(c).zip(x.chunks(c)).zip(g.chunks(c)) {
            vector::layer_norm_backward(x, w, g, eps, dx, &mut dw, &mut db);
        }
        (dw, db)
    };
    let len = ROWS * c;
    let partial: Vec<(Vec<f32>, Vec<f32>)> = if x.len() < SERIAL_BELOW {
        dx.chunks_mut(len).zip(x.chunks(len)).zip(g.chunks(len)).map(work).collect()
    } else {
        dx.par_chunks_mut(len).zip(x.par_chunks(len)).zip(g.par_chunks(len)).map(work).collect()
    };
    if !accumulate {
        dw.fill(0.0);
        db.fill(0.0);
    }
    for (w, b) in &partial {
        vector::add(dw, w);
        vector::add(db, b);
    }
    dx
}

/// y ← y + x
pub fn add(y: &mut [f32], x: &[f32]) {
    for_blocks(y, BLOCK, |i, y| vector::add(y, part(x, i, BLOCK, y)));
}

/// The elementwise function of a feed-forward block
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    /// GELU by the tanh approximation (`gelu_new`, `gelu_fast`, `gelu_pytorch_tanh`: one formula, three names)
    GeluTanh,
    /// GELU by the error function (`gelu`)
    Gelu,
    /// max(0, x)
    Relu,
    /// x · sigmoid(x) (`silu`, `swish`)
    Silu,
    /// tanh
    Tanh,
}

/// f(x), elementwise
pub fn activation(kind: Activation, x: &[f32]) -> Vec<f32> {
    // SAFETY: every block is written
    let mut y = unsafe { buffer(x.len()) };
    for_blocks(&mut y, BLOCK, |i, y| activate(kind, part(x, i, BLOCK, y), y));
    y
}

/// [`activation`] on the calling thread: x (N,) → y (N,)
pub fn activate(kind: Activation, x: &[f32], y: &mut [f32]) {
    let map = |y: &mut [f32], f: fn(f32) -> f32| y.iter_mut().zip(x).for_each(|(y, x)| *y = f(*x));
    match kind {
        Activation::GeluTanh => vector::gelu_tanh(x, y),
        Activation::Gelu => map(y, |x| (0.5 * f64::from(x) * (1.0 + erf(f64::from(x) * FRAC_1_SQRT_2))) as f32),
        Activation::Relu => map(y, |x| x.max(0.0)),
        Activation::Silu => map(y, |x| x / (1.0 + (-x).exp())),
        Activation::Tanh => map(y, f32::tanh),
    }
}

/// g ← g·f′(x)
pub fn activation_backward(kind: Activation, x: &[f32], g: &mut [f32]) {
    for_blocks(g, BLOCK, |i, g| {
        let x = part(x, i, BLOCK, g);
        let map = |g: &mut [f32], slope: fn(f32) -> f32| g.iter_mut().zip(x).for_each(|(g, x)| *g *= slope(*x));
        match kind {
            Activation::GeluTanh => vector::gelu_tanh_backward(x, g),
            Activation::Gelu => map(g, |x| {
                let x = f64::from(x);
                (0.5 * (1.0 + erf(x * FRAC_1_SQRT_2)) + x * INV_SQRT_2PI * (-0.5 * x * x).exp()) as f32
            }),
            Activation::Relu => map(g, |x| f32::from(u8::from(x > 0.0))),
            Activation::Silu => map(g, |x| {
                let s = 1.0 / (1.0 + (-x).exp());
                s * (1.0 + x * (1.0 - s))
            }),
            Activation::Tanh => map(g, |x| 1.0 - x.tanh().powi(2)),
        }
    });
}

/// Token plus position embeddings: wte (V, C), wpe (P, C), ids and positions (N,) → (N, C)
pub fn embedding(wte: &[f32], wpe: &[f32], c: usize, ids: &[u32], positions: &[u32]) -> Vec<f32> {
    // SAFETY: every row is written
    let mut h = unsafe { buffer(ids.len() * c) };
    for_blocks(&mut h, ROWS * c, |block, h| {
        for (i, h) in h.chunks_mut(c).enumerate() {
            let n = block * ROWS + i;
            h.copy_from_slice(&wte[ids[n] as usize * c..][..c]);
            vector::add(h, &wpe[positions[n] as usize * c..][..c]);
        }
    });
    h
}

/// Adds row n of g (N, C) to row `rows[n]` of d
pub fn scatter_rows(g: &[f32], rows: &[u32], c: usize, d: &mut [f32]) {
    for (g, &row) in g.chunks(c).zip(rows) {
        vector::add(&mut d[row as usize * c..][..c], g);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flipped_weight_gives_the_same_gradient() {
        let (n, i, o) = (70, 37, 1280);
        let numbers = |n: usize, step: usize| (0..n).map(|k| (k * step % 101) as f32 / 50.0 - 1.0).collect::<Vec<_>>();
        let (w, g) = (numbers(i * o, 7), numbers(n * o, 13));
        let flipped = transpose(&w, o);
        for (k, x) in flipped.iter().enumerate() {
            assert_eq!(*x, w[(k % i) * o + k / i]);
        }
        let want = Precision::F32.matmul(Product::new([n, i, o], Mat::rows(&g, o), Mat::rows(&w, o).t()), None);
        for (got, want) in linear_backward_input(&w, &g, o, Precision::F32).iter().zip(&want) {
            assert!((got - want).abs() <= 1e-4 * want.abs().max(1.0), "{got} {want}");
        }
    }
}
