//! Causal attention over ragged sequences, blocked by query rows; nothing of size (T, T) outlives a block.

use rayon::prelude::*;

use super::matmul::{Mat, Product, matmul_serial};
use super::noise::Dropout;
use super::share::Shared;
use super::{buffer, vector};
use crate::ops::ragged::{Ragged, Segment};

/// Query rows handled at a time
const BLOCK: usize = 64;

/// Sizes and scaling of one attention layer
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Heads {
    /// Number of heads H
    pub count: usize,
    /// Width of a head D
    pub dim: usize,
    /// Factor on the scores, usually 1/√D
    pub scale: f32,
    /// Dropout on the probabilities
    pub dropout: Option<Dropout>,
}

impl Heads {
    pub(super) fn width(&self) -> usize {
        self.count * self.dim
    }
}

/// What one unit of work sees of a segment: its own rows and its prefix's, for one head
struct View<'a> {
    qkv: &'a [f32],
    heads: Heads,
    head: usize,
    own: Segment,
    prefix: Option<Segment>,
}

impl View<'_> {
    fn prefix_len(&self) -> usize {
        self.prefix.map_or(0, |p| p.len)
    }

    /// Rows from `row` on of part 0 (queries), 1 (keys) or 2 (values), this head's columns
    fn part(&self, part: usize, row: usize) -> Mat<'_> {
        let width = self.heads.width();
        Mat::strided(&self.qkv[row * 3 * width + part * width + self.head * self.heads.dim..], 3 * width)
    }

    /// Scores of query rows `i0..i0 + rows` against all keys they may see, row-major with the returned stride
    fn scores(&self, part: usize, query: Mat, i0: usize, rows: usize, scale: f32, out: &mut Vec<f32>) -> usize {
        let prefix = self.prefix_len();
        let keys = i0 + rows;
        let stride = prefix + keys;
        out.resize(rows * stride, 0.0);
        let d = self.heads.dim;
        // SAFETY: `out` holds rows·stride elements and is ours
        unsafe {
            if let Some(p) = self.prefix {
                let product = Product::new([rows, prefix, d], query, self.part(part, p.start).t());
                matmul_serial(product.times(scale), out.as_mut_ptr(), stride, false);
            }
            let product = Product::new([rows, keys, d], query, self.part(part, self.own.start).t());
            matmul_serial(product.times(scale), out.as_mut_ptr().add(prefix), stride, false);
        }
        stride
    }

    /// Counter of the first key of a row, for dropout
    fn counter(&self, row: usize) -> u64 {
        ((((self.own.start + row) * self.heads.count + self.head) as u64) << 24) + (1 << 60)
    }
}

fn views<'a>(qkv: &'a [f32], layout: &Ragged, heads: Heads, family: &[usize], head: usize) -> Vec<View<'a>> {
    family
        .iter()
        .map(|&i| {
            let own = layout.segments()[i];
            View { qkv, heads, head, own, prefix: own.prefix.map(|p| layout.segments()[p]) }
        })
        .collect()
}

/// out (N, C) and lse (N, H) from qkv (N, 3C): softmax(scale·QKᵀ)V inside each sequence, causal
pub fn forward(qkv: &[f32], layout: &Ragged, heads: Heads) -> (Vec<f32>, Vec<f32>) {
    let (n, c) = (layout.rows(), heads.width());
    assert_eq!(qkv.len(), n * 3 * c);
    // SAFETY: every head of every row is written
    let (mut attended, mut log_sums) = unsafe { (buffer(n * c), buffer(n * heads.count)) };
    let (out, lse) = (Shared::new(&mut attended), Shared::new(&mut log_sums));
    for_each_unit(layout, heads, |family, head| {
        let mut p = Vec::new();
        for view in views(qkv, layout, heads, family, head) {
            for i0 in (0..view.own.len).step_by(BLOCK) {
                let rows = BLOCK.min(view.own.len - i0);
                let first = view.own.start + i0;
                let stride = view.scores(1, view.part(0, first), i0, rows, heads.scale, &mut p);
                let prefix = view.prefix_len();
                for r in 0..rows {
                    let (seen, hidden) = p[r * stride..(r + 1) * stride].split_at_mut(prefix + i0 + r + 1);
                    hidden.fill(0.0);
                    let max = vector::max(seen);
                    let sum = vector::exp_shifted(seen, max);
                    vector::scale(seen, 1.0 / sum);
                    if let Some(dropout) = heads.dropout {
                        dropout.apply(seen, view.counter(i0 + r));
                    }
                    // SAFETY: one unit owns column `head` of its rows
                    unsafe { lse.range((first + r) * heads.count + head, 1)[0] = max + sum.ln() };
                }
                let d = heads.dim;
                let to = out.pointer(first * c + head * d, (rows - 1) * c + d);
                // SAFETY: `to` spans rows·C minus the other heads' columns, which this unit alone writes
                unsafe {
                    let weights = Mat::strided(&p[prefix..], stride);
                    let own = Product::new([rows, d, i0 + rows], weights, view.part(2, view.own.start));
                    matmul_serial(own, to, c, false);
                    if let Some(shared) = view.prefix {
                        let weights = Mat::strided(&p, stride);
                        let shared = Product::new([rows, d, prefix], weights, view.part(2, shared.start));
                        matmul_serial(shared, to, c, true);
                    }
                }
            }
        }
    });
    (attended, log_sums)
}

/// Gradient of [`forward`] with respect to qkv, (N, 3C); probabilities are recomputed block by block
pub fn backward(qkv: &[f32], layout: &Ragged, heads: Heads, out: &[f32], lse: &[f32], grad: &[f32]) -> Vec<f32> {
    let (n, c, d) = (layout.rows(), heads.width(), heads.dim);
    assert_eq!((qkv.len(), out.len(), grad.len(), lse.len()), (n * 3 * c, n * c, n * c, n * heads.count));
    let mut result = vec![0.0; n * 3 * c];
    let dqkv = Shared::new(&mut result);
    for_each_unit(layout, heads, |family, head| {
        let (mut p, mut dp, mut masked) = (Vec::new(), Vec::new(), Vec::new());
        for view in views(qkv, layout, heads, family, head) {
            let prefix = view.prefix_len();
            // Where this head's gradient of part q/k/v of `rows` rows from `row` begins
            let to = |part: usize, row: usize, rows: usize| {
                dqkv.pointer(row * 3 * c + part * c + head * d, (rows - 1) * 3 * c + d)
            };
            for i0 in (0..view.own.len).step_by(BLOCK) {
                let rows = BLOCK.min(view.own.len - i0);
                let first = view.own.start + i0;
                let g = Mat::strided(&grad[first * c + head * d..], c);
                let stride = view.scores(1, view.part(0, first), i0, rows, heads.scale, &mut p);
                view.scores(2, g, i0, rows, 1.0, &mut dp);
                masked.clear();
                for r in 0..rows {
                    let seen = prefix + i0 + r + 1;
                    let row = r * stride..(r + 1) * stride;
                    let (p_seen, p_hidden) = p[row.clone()].split_at_mut(seen);
                    let (dp_seen, dp_hidden) = dp[row].split_at_mut(seen);
                    p_hidden.fill(0.0);
                    dp_hidden.fill(0.0);
                    vector::exp_scaled(p_seen, lse[(first + r) * heads.count + head], 1.0);
                    if let Some(dropout) = heads.dropout {
                        let counter = view.counter(i0 + r);
                        dropout.apply(dp_seen, counter);
                        // Values saw the masked probabilities, scores the unmasked
                        masked.extend_from_slice(p_seen);
                        let from = masked.len() - seen;
                        dropout.apply(&mut masked[from..], counter);
                        masked.resize(from + stride, 0.0);
                    }
                    let at = (first + r) * c + head * d;
                    let delta = vector::dot(&grad[at..at + d], &out[at..at + d]);
                    vector::softmax_backward(p_seen, dp_seen, delta, heads.scale);
                }
                let weights = if heads.dropout.is_some() { &masked } else { &p };
                let keys = i0 + rows;
                let own = view.own.start;
                // SAFETY: one unit owns this head's columns of all rows of its family
                unsafe {
                    let add = |product, to| matmul_serial(product, to, 3 * c, true);
                    let query = view.part(0, first);
                    let (ds, w) = (Mat::strided(&dp[prefix..], stride), Mat::strided(&weights[prefix..], stride));
                    add(Product::new([rows, d, keys], ds, view.part(1, own)), to(0, first, rows));
                    add(Product::new([keys, d, rows], ds.t(), query), to(1, own, keys));
                    add(Product::new([keys, d, rows], w.t(), g), to(2, own, keys));
                    if let Some(shared) = view.prefix {
                        let (ds, w) = (Mat::strided(&dp, stride), Mat::strided(weights, stride));
                        let at = shared.start;
                        add(Product::new([rows, d, prefix], ds, view.part(1, at)), to(0, first, rows));
                        add(Product::new([prefix, d, rows], ds.t(), query), to(1, at, prefix));
                        add(Product::new([prefix, d, rows], w.t(), g), to(2, at, prefix));
                    }
                }
            }
        }
    });
    result
}

/// Runs `work` for every (family, head): units write disjoint places, so their order does not matter
fn for_each_unit(layout: &Ragged, heads: Heads, work: impl Fn(&[usize], usize) + Sync) {
    let families = layout.families();
    let units = families.len() * heads.count;
    if units == 1 || layout.rows() * heads.width() < 1 << 12 {
        for family in &families {
            (0..heads.count).for_each(|head| work(family, head));
        }
    } else {
        (0..units).into_par_iter().for_each(|unit| work(&families[unit / heads.count], unit % heads.count));
    }
}
