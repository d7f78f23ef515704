//! Keys and values of one layer for sequences that grow token by token, and attention over them.
//!
//! Each sequence has a slot, each head a part of it. Keys lie in blocks of 32 positions, (D, 32) each, so that the scores
//! of a block are one vector loop without a sum across lanes, and values as (positions, D): both are read from front to
//! back and no further than the sequence goes.

use rayon::prelude::*;

use super::attention::Heads;
use super::matmul::{Mat, matmul_serial};
use super::pages::Pages;
use super::share::Shared;
use super::{simd, vector};

/// Query rows handled at a time
const BLOCK: usize = 64;
/// Positions of a block of keys
const LANES: usize = 32;
/// Below this many multiply-adds attention stays on the calling thread
const SERIAL_BELOW: usize = 1 << 17;

/// New rows of one sequence
#[derive(Clone, Copy, Debug)]
pub struct NewRows {
    /// First of its rows in `qkv`
    pub row: usize,
    /// How many
    pub rows: usize,
    /// Its slot
    pub slot: usize,
    /// Positions that the slot held before
    pub past: usize,
}

/// Keys and values of one layer
pub struct KvCache {
    heads: Heads,
    /// Positions of a slot, a multiple of [`LANES`]
    capacity: usize,
    keys: Pages,
    values: Pages,
}

impl KvCache {
    /// Room for `capacity` positions in each of `slots` slots
    pub fn new(heads: Heads, slots: usize, capacity: usize) -> Self {
        let capacity = capacity.next_multiple_of(LANES);
        let n = slots * capacity * heads.width();
        Self { heads, capacity, keys: Pages::new(n), values: Pages::new(n) }
    }

    /// Gives slot `to` what slot `from` holds
    pub fn copy(&mut self, from: usize, to: usize) {
        let slot = self.capacity * self.heads.width();
        for part in [&mut self.keys, &mut self.values] {
            part.copy_within(from * slot..(from + 1) * slot, to * slot);
        }
    }

    /// Where a head's part of a slot begins
    fn at(&self, slot: usize, head: usize) -> usize {
        (slot * self.heads.count + head) * self.capacity * self.heads.dim
    }

    /// Takes in keys and values of the new rows: qkv (N, 3C)
    pub fn append(&mut self, qkv: &[f32], sequences: &[NewRows]) {
        let (c, d, capacity) = (self.heads.width(), self.heads.dim, self.capacity);
        for sequence in sequences {
            assert!(sequence.past + sequence.rows <= capacity, "a slot holds {capacity} positions");
            for head in 0..self.heads.count {
                let at = self.at(sequence.slot, head);
                let (keys, values) = (&mut self.keys.floats_mut()[at..], &mut self.values.floats_mut()[at..]);
                for i in 0..sequence.rows {
                    let (row, position) = (&qkv[(sequence.row + i) * 3 * c + head * d..], sequence.past + i);
                    values[position * d..][..d].copy_from_slice(&row[2 * c..][..d]);
                    let places = keys[position / LANES * LANES * d + position % LANES..].iter_mut().step_by(LANES);
                    places.zip(&row[c..][..d]).for_each(|(to, key)| *to = *key);
                }
            }
        }
    }

    /// Attention of new rows, appended before, over their slots: queries in qkv (N, 3C) → out (N, C)
    pub fn attend(&self, qkv: &[f32], sequences: &[NewRows], out: &mut [f32]) {
        let count = self.heads.count;
        let out = Shared::new(out);
        let unit = |scores: &mut Vec<f32>, i: usize| {
            let (sequence, head) = (&sequences[i / count], i % count);
            if sequence.rows == 1 {
                self.attend_row(qkv, sequence, head, scores, &out);
            } else {
                self.attend_block(qkv, sequence, head, scores, &out);
            }
        };
        let units = sequences.len() * count;
        let work: usize = sequences.iter().map(|s| s.rows * (s.past + s.rows)).sum::<usize>() * 2 * self.heads.width();
        if work < SERIAL_BELOW {
            let mut scores = Vec::new();
            (0..units).for_each(|i| unit(&mut scores, i));
        } else {
            (0..units).into_par_iter().for_each_init(Vec::new, unit);
        }
    }

    fn attend_row(&self, qkv: &[f32], sequence: &NewRows, head: usize, scores: &mut Vec<f32>, out: &Shared) {
        let (c, d) = (self.heads.width(), self.heads.dim);
        let (at, n) = (self.at(sequence.slot, head), sequence.past + 1);
        let (keys, values) = (&self.keys.floats()[at..], &self.values.floats()[at..]);
        scores.resize(n.next_multiple_of(LANES), 0.0);
        prefetch(&values[..n * d]);
        row_scores(&qkv[sequence.row * 3 * c + head * d..][..d], keys, self.heads.scale, scores);
        let next = keys.len().min(self.capacity * d);
        prefetch(&keys[next..keys.len().min(next + scores.len() * d)]);
        let weights = &mut scores[..n];
        let sum = vector::exp_shifted(weights, vector::max(weights));
        // SAFETY: one call owns this head's columns of its row
        let to = unsafe { out.range(sequence.row * c + head * d, d) };
        weighted_rows(weights, values, 1.0 / sum, to);
    }

    fn attend_block(&self, qkv: &[f32], sequence: &NewRows, head: usize, scores: &mut Vec<f32>, out: &Shared) {
        let (c, d) = (self.heads.width(), self.heads.dim);
        let at = self.at(sequence.slot, head);
        let (keys, values) = (&self.keys.floats()[at..], &self.values.floats()[at..]);
        for i0 in (0..sequence.rows).step_by(BLOCK) {
            let rows = BLOCK.min(sequence.rows - i0);
            let n = sequence.past + i0 + rows;
            let first = sequence.row + i0;
            scores.resize(rows * n, 0.0);
            let queries = Mat::strided(&qkv[first * 3 * c + head * d..], 3 * c);
            for (block, keys) in keys.chunks(LANES * d).take(n.div_ceil(LANES)).enumerate() {
                let (first, width) = (block * LANES, LANES.min(n - block * LANES));
                let (keys, to) = (Mat::rows(keys, LANES), &mut scores[first..]);
                assert!(to.len() >= (rows - 1) * n + width);
                // SAFETY: `scores` is ours and holds the block's places
                unsafe { matmul_serial(rows, width, d, self.heads.scale, queries, keys, to.as_mut_ptr(), n, false) };
            }
            for r in 0..rows {
                let (seen, hidden) = scores[r * n..(r + 1) * n].split_at_mut(sequence.past + i0 + r + 1);
                hidden.fill(0.0);
                let sum = vector::exp_shifted(seen, vector::max(seen));
                vector::scale(seen, 1.0 / sum);
            }
            let to = out.pointer(first * c + head * d, (rows - 1) * c + d);
            // SAFETY: one call owns this head's columns of its rows
            unsafe { matmul_serial(rows, d, n, 1.0, Mat::strided(scores, n), Mat::rows(values, d), to, c, false) };
        }
    }
}

/// Asks for data that is needed soon; each head's part is too short for the processor to see a stream
fn prefetch(data: &[f32]) {
    #[cfg(target_arch = "x86_64")]
    for line in data.chunks(16) {
        use std::arch::x86_64::{_MM_HINT_T1, _mm_prefetch};
        // SAFETY: every x86-64 processor has the instruction, which changes no data
        unsafe { _mm_prefetch::<_MM_HINT_T1>(line.as_ptr().cast()) };
    }
}

simd! {
    /// `scores[t] = scale·Σ q_d·keys[d][t]`, for whole blocks of keys (D, 32)
    pub fn row_scores(q: &[f32], keys: &[f32], scale: f32, scores: &mut [f32]) {
        let blocks = keys.chunks_exact(LANES * q.len());
        for (scores, keys) in scores.as_chunks_mut::<LANES>().0.iter_mut().zip(blocks) {
            let mut sums = [0.0_f32; LANES];
            for (q, keys) in q.iter().zip(keys.as_chunks::<LANES>().0) {
                for (sum, key) in sums.iter_mut().zip(keys) {
                    *sum += q * key;
                }
            }
            for (score, sum) in scores.iter_mut().zip(sums) {
                *score = scale * sum;
            }
        }
    }

    /// `out = scale·Σ weights[t]·values[t]`, values (T, D)
    pub fn weighted_rows(weights: &[f32], values: &[f32], scale: f32, out: &mut [f32]) {
        let d = out.len();
        let (blocks, rest) = out.as_chunks_mut::<LANES>();
        for (block, out) in blocks.iter_mut().enumerate() {
            let mut sums = [0.0_f32; LANES];
            for (t, weight) in weights.iter().enumerate() {
                let values: &[f32] = &values[t * d + block * LANES..][..LANES];
                for (sum, value) in sums.iter_mut().zip(values) {
                    *sum += weight * value;
                }
            }
            for (out, sum) in out.iter_mut().zip(sums) {
                *out = scale * sum;
            }
        }
        let first = d - rest.len();
        for (i, out) in rest.iter_mut().enumerate() {
            *out = scale * weights.iter().enumerate().map(|(t, weight)| weight * values[t * d + first + i]).sum::<f32>();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_one_by_one_and_in_blocks_equal_plain_attention() {
        for (count, dim) in [(2, 5), (3, 64), (1, 40)] {
            let heads = Heads { count, dim, scale: 0.3, dropout: None };
            let (c, total) = (count * dim, 90);
            let qkv: Vec<f32> = (0..total * 3 * c).map(|i| ((i * 7919) % 1013) as f32 / 400.0 - 1.25).collect();
            let at = |row: usize, part: usize, head: usize| &qkv[(row * 3 + part) * c + head * dim..][..dim];
            let mut cache = KvCache::new(heads, 3, total);
            let mut past = 0;
            for rows in [70, 1, 1, 3, 1, 14] {
                let new = [NewRows { row: past, rows, slot: 1, past }];
                cache.append(&qkv, &new);
                if past == 70 {
                    cache.copy(1, 2);
                }
                let mut out = vec![0.0; total * c];
                cache.attend(&qkv, &new, &mut out);
                for i in past..past + rows {
                    for head in 0..count {
                        let dot =
                            |t: usize| at(i, 0, head).iter().zip(at(t, 1, head)).map(|(q, k)| f64::from(q * k)).sum();
                        let scores: Vec<f64> = (0..=i)
                            .map(|t| {
                                let dot: f64 = dot(t);
                                (0.3 * dot).exp()
                            })
                            .collect();
                        let total: f64 = scores.iter().sum();
                        for j in 0..dim {
                            let want: f64 =
                                (0..=i).map(|t| scores[t] * f64::from(at(t, 2, head)[j])).sum::<f64>() / total;
                            let got = f64::from(out[i * c + head * dim + j]);
                            assert!((got - want).abs() < 1e-5, "row {i} of {rows}, head {head}: {got}, not {want}");
                        }
                    }
                }
                past += rows;
            }
            // The copy went on from 71 positions
            let new = |slot| [NewRows { row: 71, rows: 1, slot, past: 71 }];
            let (mut one, mut two) = (vec![0.0; total * c], vec![0.0; total * c]);
            cache.append(&qkv, &new(2));
            cache.attend(&qkv, &new(1), &mut one);
            cache.attend(&qkv, &new(2), &mut two);
            assert_eq!(one, two);
        }
    }
}
