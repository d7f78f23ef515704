//! Keys and values of one layer for sequences that grow token by token, and attention over them.
//!
//! Each sequence has a slot, each head a part of it. Keys lie in blocks of 32 positions, (D, 32) each, so that the scores
//! of a block are one vector loop without a sum across lanes, and values as (positions, D): both are read from front to
//! back and no further than the sequence goes. With many sequences they are as much to read as the weights, so they are
//! bfloat16 where these are; sums are f32.

use std::cell::Cell;

use super::attention::Heads;
use super::matmul::{Mat, Precision, Product, matmul_serial};
use super::pages::Pages;
use super::share::Shared;
use super::team::Team;
use super::{simd, vector};

/// Query rows handled at a time
const BLOCK: usize = 64;
/// Positions of a block of keys
const LANES: usize = 32;

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
    /// Of keys and values
    precision: Precision,
    /// Words of a slot's keys, and of its values
    slot: usize,
    keys: Pages,
    values: Pages,
}

impl KvCache {
    /// Room for `capacity` positions in each of `slots` slots
    pub fn new(heads: Heads, slots: usize, capacity: usize, precision: Precision) -> Self {
        let capacity = capacity.next_multiple_of(LANES);
        let numbers = capacity * heads.width();
        let slot = if precision == Precision::Bf16 { numbers / 2 } else { numbers };
        Self { heads, capacity, precision, slot, keys: Pages::new(slots * slot), values: Pages::new(slots * slot) }
    }

    /// Gives slot `to` what slot `from` holds
    pub fn copy(&mut self, from: usize, to: usize) {
        let slot = self.slot;
        for part in [&mut self.keys, &mut self.values] {
            part.copy_within(from * slot..(from + 1) * slot, to * slot);
        }
    }

    /// Takes in keys and values of new rows and lets them attend to what their slots hold then: qkv (N, 3C) → out (N, C)
    pub fn attend(&mut self, team: &Team, qkv: &[f32], sequences: &[NewRows], out: &mut [f32]) {
        match self.precision {
            Precision::F32 => self.attend_as::<f32>(team, qkv, sequences, out),
            Precision::Bf16 => self.attend_as::<Narrow>(team, qkv, sequences, out),
        }
    }

    fn attend_as<T: Number>(&mut self, team: &Team, qkv: &[f32], sequences: &[NewRows], out: &mut [f32]) {
        let (heads, capacity) = (self.heads, self.capacity);
        let mut slots: Vec<usize> = sequences.iter().map(|sequence| sequence.slot).collect();
        slots.sort_unstable();
        assert!(slots.windows(2).all(|pair| pair[0] < pair[1]), "a slot has one sequence");
        for sequence in sequences {
            assert!(sequence.past + sequence.rows <= capacity, "a slot holds {capacity} positions");
        }
        let part = capacity * heads.dim;
        let keys = Shared::new(bytemuck::cast_slice_mut::<u32, T>(&mut self.keys));
        let values = Shared::new(bytemuck::cast_slice_mut::<u32, T>(&mut self.values));
        let out = Shared::new(out);
        // A head of a sequence is one task from its new keys to its output: its part of the cache stays where it is read
        let unit = |i: usize| {
            let mut scratch = SCRATCH.take();
            let (sequence, head) = (&sequences[i / heads.count], i % heads.count);
            let at = (sequence.slot * heads.count + head) * part;
            // SAFETY: slots differ, so that no two tasks have the same part
            let (keys, values) = unsafe { (keys.range(at, part), values.range(at, part)) };
            let mut part = Part { heads, head, qkv, keys, values };
            part.append(sequence);
            if sequence.rows == 1 {
                part.attend_row(sequence, &mut scratch, &out);
            } else {
                part.attend_block(sequence, &mut scratch, &out);
            }
            SCRATCH.set(scratch);
        };
        team.each(sequences.len() * heads.count, |units| units.for_each(unit));
    }
}

/// Memory that a thread uses again
#[derive(Default)]
struct Scratch {
    scores: Vec<f32>,
    keys: Vec<f32>,
    values: Vec<f32>,
}

thread_local! {
    static SCRATCH: Cell<Scratch> = Cell::default();
}

/// What a slot holds of one head
struct Part<'a, T> {
    heads: Heads,
    head: usize,
    qkv: &'a [f32],
    keys: &'a mut [T],
    values: &'a mut [T],
}

impl<T: Number> Part<'_, T> {
    /// Takes in keys and values of the new rows
    fn append(&mut self, sequence: &NewRows) {
        let (c, d) = (self.heads.width(), self.heads.dim);
        for i in 0..sequence.rows {
            let (row, position) = (&self.qkv[(sequence.row + i) * 3 * c + self.head * d..], sequence.past + i);
            let values = self.values[position * d..][..d].iter_mut();
            values.zip(&row[2 * c..]).for_each(|(to, value)| *to = T::rounded(*value));
            let places = self.keys[position / LANES * LANES * d + position % LANES..].iter_mut().step_by(LANES);
            places.zip(&row[c..][..d]).for_each(|(to, key)| *to = T::rounded(*key));
        }
    }

    fn attend_row(&self, sequence: &NewRows, scratch: &mut Scratch, out: &Shared) {
        let scores = &mut scratch.scores;
        let (c, d) = (self.heads.width(), self.heads.dim);
        let n = sequence.past + 1;
        scores.resize(n.next_multiple_of(LANES), 0.0);
        prefetch(self.values.as_ptr(), n * d);
        let query = &self.qkv[sequence.row * 3 * c + self.head * d..][..d];
        T::row_scores(query, self.keys, self.heads.scale, scores);
        // The next head's keys
        prefetch(self.keys.as_ptr().wrapping_add(self.keys.len()), scores.len() * d);
        let weights = &mut scores[..n];
        let sum = vector::exp_shifted(weights, vector::max(weights));
        // SAFETY: one call owns this head's columns of its row
        let to = unsafe { out.range(sequence.row * c + self.head * d, d) };
        T::weighted_rows(weights, self.values, 1.0 / sum, to);
    }

    fn attend_block(&self, sequence: &NewRows, scratch: &mut Scratch, out: &Shared) {
        let (c, d) = (self.heads.width(), self.heads.dim);
        let held = (sequence.past + sequence.rows).next_multiple_of(LANES) * d;
        let keys = T::floats(&self.keys[..held], &mut scratch.keys);
        let values = T::floats(&self.values[..held], &mut scratch.values);
        let scores = &mut scratch.scores;
        for i0 in (0..sequence.rows).step_by(BLOCK) {
            let rows = BLOCK.min(sequence.rows - i0);
            let n = sequence.past + i0 + rows;
            let first = sequence.row + i0;
            scores.resize(rows * n, 0.0);
            let queries = Mat::strided(&self.qkv[first * 3 * c + self.head * d..], 3 * c);
            for (block, keys) in keys.chunks(LANES * d).take(n.div_ceil(LANES)).enumerate() {
                let (first, width) = (block * LANES, LANES.min(n - block * LANES));
                let (keys, to) = (Mat::rows(keys, LANES), &mut scores[first..]);
                assert!(to.len() >= (rows - 1) * n + width);
                // SAFETY: `scores` is ours and holds the block's places
                unsafe {
                    let product = Product::new([rows, width, d], queries, keys).times(self.heads.scale);
                    matmul_serial(product, to.as_mut_ptr(), n, false);
                }
            }
            for r in 0..rows {
                let (seen, hidden) = scores[r * n..(r + 1) * n].split_at_mut(sequence.past + i0 + r + 1);
                hidden.fill(0.0);
                let sum = vector::exp_shifted(seen, vector::max(seen));
                vector::scale(seen, 1.0 / sum);
            }
            let to = out.pointer(first * c + self.head * d, (rows - 1) * c + d);
            let values = Mat::rows(values, d);
            // SAFETY: one call owns this head's columns of its rows
            unsafe { matmul_serial(Product::new([rows, d, n], Mat::strided(scores, n), values), to, c, false) };
        }
    }
}

/// Asks for `n` numbers that are needed soon, which need not exist; each head's part is too short for the processor to see
/// a stream
fn prefetch<T>(data: *const T, n: usize) {
    #[cfg(target_arch = "x86_64")]
    for i in (0..n).step_by(64 / size_of::<T>()) {
        use std::arch::x86_64::{_MM_HINT_T1, _mm_prefetch};
        // SAFETY: every x86-64 processor has the instruction; it changes no data, and a place that does not exist is left out
        unsafe { _mm_prefetch::<_MM_HINT_T1>(data.wrapping_add(i).cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = (data, n);
}

/// How a number lies in the cache
trait Number: bytemuck::Pod + Send + Sync {
    fn rounded(x: f32) -> Self;

    fn float(self) -> f32;

    /// All of them as f32, in `scratch` where they are not
    fn floats<'a>(numbers: &'a [Self], scratch: &'a mut Vec<f32>) -> &'a [f32];

    /// `scores[t] = scale·Σ q_d·keys[d][t]`, for whole blocks of keys (D, 32)
    fn row_scores(q: &[f32], keys: &[Self], scale: f32, scores: &mut [f32]);

    /// `out = scale·Σ weights[t]·values[t]`, values (T, D)
    fn weighted_rows(weights: &[f32], values: &[Self], scale: f32, out: &mut [f32]);
}

impl Number for f32 {
    fn rounded(x: f32) -> Self {
        x
    }

    #[inline(always)]
    fn float(self) -> f32 {
        self
    }

    fn floats<'a>(numbers: &'a [Self], _scratch: &'a mut Vec<f32>) -> &'a [f32] {
        numbers
    }

    fn row_scores(q: &[f32], keys: &[Self], scale: f32, scores: &mut [f32]) {
        row_scores_f32(q, keys, scale, scores);
    }

    fn weighted_rows(weights: &[f32], values: &[Self], scale: f32, out: &mut [f32]) {
        weighted_rows_f32(weights, values, scale, out);
    }
}

/// Bits of a bfloat16
type Narrow = u16;

impl Number for Narrow {
    fn rounded(x: f32) -> Self {
        half::bf16::from_f32(x).to_bits()
    }

    #[inline(always)]
    fn float(self) -> f32 {
        f32::from_bits(u32::from(self) << 16)
    }

    fn floats<'a>(numbers: &'a [Self], scratch: &'a mut Vec<f32>) -> &'a [f32] {
        scratch.clear();
        scratch.extend(numbers.iter().map(|x| x.float()));
        scratch
    }

    fn row_scores(q: &[f32], keys: &[Self], scale: f32, scores: &mut [f32]) {
        row_scores_bf16(q, keys, scale, scores);
    }

    fn weighted_rows(weights: &[f32], values: &[Self], scale: f32, out: &mut [f32]) {
        weighted_rows_bf16(weights, values, scale, out);
    }
}

simd! {
    /// `row_scores` of f32
    pub fn row_scores_f32(q: &[f32], keys: &[f32], scale: f32, scores: &mut [f32]) {
        row_scores(q, keys, scale, scores);
    }

    /// `row_scores` of bfloat16
    pub fn row_scores_bf16(q: &[f32], keys: &[Narrow], scale: f32, scores: &mut [f32]) {
        row_scores(q, keys, scale, scores);
    }

    /// `weighted_rows` of f32
    pub fn weighted_rows_f32(weights: &[f32], values: &[f32], scale: f32, out: &mut [f32]) {
        weighted_rows(weights, values, scale, out);
    }

    /// `weighted_rows` of bfloat16
    pub fn weighted_rows_bf16(weights: &[f32], values: &[Narrow], scale: f32, out: &mut [f32]) {
        weighted_rows(weights, values, scale, out);
    }
}

#[inline(always)]
fn row_scores<T: Number>(q: &[f32], keys: &[T], scale: f32, scores: &mut [f32]) {
    let blocks = keys.chunks_exact(LANES * q.len());
    for (scores, keys) in scores.as_chunks_mut::<LANES>().0.iter_mut().zip(blocks) {
        let mut sums = [0.0_f32; LANES];
        for (q, keys) in q.iter().zip(keys.as_chunks::<LANES>().0) {
            for (sum, key) in sums.iter_mut().zip(keys) {
                *sum += q * key.float();
            }
        }
        for (score, sum) in scores.iter_mut().zip(sums) {
            *score = scale * sum;
        }
    }
}

#[inline(always)]
fn weighted_rows<T: Number>(weights: &[f32], values: &[T], scale: f32, out: &mut [f32]) {
    let d = out.len();
    // A head is 64 wide more often than not: its values are read once
    let (wide, rest) = out.as_chunks_mut::<64>();
    let (narrow, rest) = rest.as_chunks_mut::<LANES>();
    let mut first = 0;
    for out in wide {
        weighted_columns(weights, values, d, first, scale, out);
        first += out.len();
    }
    for out in narrow {
        weighted_columns(weights, values, d, first, scale, out);
        first += out.len();
    }
    for (i, out) in rest.iter_mut().enumerate() {
        let terms = weights.iter().enumerate().map(|(t, weight)| weight * values[t * d + first + i].float());
        *out = scale * terms.sum::<f32>();
    }
}

/// Columns `first..first + W` of [`weighted_rows`]
#[inline(always)]
fn weighted_columns<T: Number, const W: usize>(
    weights: &[f32],
    values: &[T],
    d: usize,
    first: usize,
    scale: f32,
    out: &mut [f32; W],
) {
    let mut sums = [0.0_f32; W];
    for (t, weight) in weights.iter().enumerate() {
        let values: &[T] = &values[t * d + first..][..W];
        for (sum, value) in sums.iter_mut().zip(values) {
            *sum += weight * value.float();
        }
    }
    for (out, sum) in out.iter_mut().zip(sums) {
        *out = scale * sum;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_one_by_one_and_in_blocks_equal_plain_attention() {
        let f32s = [(2, 5), (3, 64), (1, 40)].map(|sizes| (sizes, Precision::F32));
        for ((count, dim), precision) in f32s.into_iter().chain([((2, 6), Precision::Bf16), ((2, 96), Precision::Bf16)])
        {
            let heads = Heads { count, dim, scale: 0.3, dropout: None };
            let (c, total) = (count * dim, 90);
            let qkv: Vec<f32> = (0..total * 3 * c).map(|i| ((i * 7919) % 1013) as f32 / 400.0 - 1.25).collect();
            let narrow = |x: f32| if precision == Precision::Bf16 { half::bf16::from_f32(x).to_f32() } else { x };
            let at = |row: usize, part: usize, head: usize| {
                let numbers = &qkv[(row * 3 + part) * c + head * dim..][..dim];
                numbers.iter().map(|x| if part == 0 { *x } else { narrow(*x) }).collect::<Vec<f32>>()
            };
            let mut cache = KvCache::new(heads, 3, total, precision);
            let mut past = 0;
            for rows in [70, 1, 1, 3, 1, 14] {
                let new = [NewRows { row: past, rows, slot: 1, past }];
                let mut out = vec![0.0; total * c];
                cache.attend(&Team::alone(), &qkv, &new, &mut out);
                if past == 70 {
                    cache.copy(1, 2);
                }
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
            cache.attend(&Team::alone(), &qkv, &new(1), &mut one);
            cache.attend(&Team::alone(), &qkv, &new(2), &mut two);
            assert_eq!(one, two);
        }
    }
}
