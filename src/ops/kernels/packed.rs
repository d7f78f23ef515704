//! Products with a matrix that is packed once and multiplied often: decoding, where weights meet a few rows at a time.
//!
//! A product of few rows reads every weight for little arithmetic, so what counts is to read them at the pace of the
//! memory: 32 columns lie together as a panel, k after k, and panels one after another, in large pages. While one panel
//! is multiplied the next is fetched. Panels are split over threads; a sum is never split, so threads, the number of rows
//! and what the other rows hold do not change a byte of a row's result.

use std::cell::Cell;

use rayon::prelude::*;

use super::buffer;
use super::matmul::{Addend, Mat, Precision};
use super::pack::pack;
use super::pages::Pages;
use super::share::Shared;
use super::team::Team;
use super::tiles::{Loop, Target, WIDTH};

/// A (k, n) matrix in panels
pub struct Packed {
    k: usize,
    n: usize,
    kernel: Loop,
    panels: Pages,
}

impl Packed {
    /// Packs B (k, n), rounded as `precision` says
    ///
    /// # Panics
    /// For bfloat16 where [`super::bf16_supported`] says no
    pub fn new(b: Mat, k: usize, n: usize, precision: Precision) -> Self {
        Self::with_loop(b, k, n, Loop::best(precision))
    }

    fn with_loop(b: Mat, k: usize, n: usize, kernel: Loop) -> Self {
        b.check(k, n);
        let steps = kernel.words(k);
        let mut packed = Self { k, n, kernel, panels: Pages::new(steps * n.next_multiple_of(WIDTH)) };
        let panel = (steps * WIDTH).max(1);
        packed.panels.par_chunks_mut(panel).enumerate().for_each(|(p, to)| {
            let from = Mat { data: &b.data[p * WIDTH * b.col..], ..b };
            pack(kernel, from.t(), WIDTH.min(n - p * WIDTH), WIDTH, k, to);
        });
        packed
    }

    /// xB: x (m, k) → (m, n)
    pub fn product(&self, team: &Team, m: usize, x: &[f32]) -> Vec<f32> {
        // SAFETY: the product writes all of it
        let mut y = unsafe { buffer(m * self.n) };
        self.multiply(team, m, x, None, &mut y);
        y
    }

    /// y = xB (+ bias): x (m, k), bias (n,) → y (m, n)
    pub fn multiply(&self, team: &Team, m: usize, x: &[f32], bias: Option<&[f32]>, y: &mut [f32]) {
        let (k, n, kernel) = (self.k, self.n, self.kernel);
        let steps = kernel.words(k);
        assert_eq!((x.len(), y.len()), (m * k, m * n), "({m}, {k}) by ({k}, {n})");
        assert!(bias.is_none_or(|bias| bias.len() == n));
        if m == 0 || n == 0 {
            return;
        }
        // Rows in groups of nearly one size, each packed as x[step][row]
        let groups = m.div_ceil(kernel.most_rows());
        let height = m.div_ceil(groups);
        let mut memory = WORDS.take();
        if memory.len() < m * steps {
            memory.resize(m * steps, 0);
        }
        let words = &mut memory[..m * steps];
        team.each_block(words, (height * steps).max(1), |g, to| {
            let rows = height.min(m - g * height);
            pack(kernel, Mat::rows(&x[g * height * k..], k), rows, rows, k, to);
        });
        let words = &*words;

        let y = Shared::new(y);
        let panel = |p: usize| {
            let w = &self.panels[p * steps * WIDTH..][..steps * WIDTH];
            let width = WIDTH.min(n - p * WIDTH);
            for g in 0..m.div_ceil(height) {
                let rows = height.min(m - g * height);
                let target = Target {
                    y: y.pointer(g * height * n + p * WIDTH, (rows - 1) * n + width),
                    stride: n,
                    width,
                    alpha: 1.0,
                    addend: bias.map_or(Addend::None, Addend::Bias).columns(p * WIDTH, width),
                };
                // Few rows are as fast as the memory: the processor's own prefetching needs a small lead. With more of
                // them each group fetches its share of the next panel while it computes
                let ahead = if height <= 4 { 512 } else { w.len() + g * w.len() / groups };
                let ahead = w.as_ptr().wrapping_add(ahead);
                let words = &words[g * height * steps..][..rows * steps];
                // SAFETY: tiles are disjoint and in bounds; the loop was chosen for this processor
                unsafe { kernel.tile(rows, words, w, ahead, 128 / groups, &target) }
            }
        };
        // Parts that follow each other are one thread's: memory is read in long runs
        team.each(n.div_ceil(WIDTH), |panels| panels.for_each(panel));
        if memory.len() <= KEPT {
            WORDS.set(memory);
        }
    }
}

/// Most words that a thread keeps: what 64 rows of 4096 need, not the thousands of rows of a batch's prompts
const KEPT: usize = 1 << 18;

thread_local! {
    /// What a product packs its rows into: kept, so that it need not be zeroed for every token
    static WORDS: Cell<Vec<u32>> = const { Cell::new(Vec::new()) };
}

#[cfg(test)]
mod tests {
    use half::bf16;

    use super::*;
    use crate::ops::kernels::testing::{loops, numbers};

    #[test]
    fn products_equal_plain_sums_at_every_size() {
        let sizes = [(1, 1), (2, 31), (3, 33), (7, 64), (64, 100), (65, 129), (130, 70), (257, 320)];
        for kernel in loops() {
            let round = |x: f32| f64::from(if kernel == Loop::Avx512Bf16 { bf16::from_f32(x).to_f32() } else { x });
            for (k, n) in sizes {
                let (b, bias) = (numbers(k * n, 1), numbers(n, 2));
                let flipped: Vec<f32> = (0..n * k).map(|i| b[(i % k) * n + i / k]).collect();
                let packed = Packed::with_loop(Mat::rows(&b, n), k, n, kernel);
                let again = Packed::with_loop(Mat::rows(&flipped, k).t(), k, n, kernel);
                assert_eq!(*packed.panels, *again.panels, "{kernel:?} ({k},{n}): packed from either layout");
                for m in (1..=14).chain([23, 24, 25, 37, 48, 69, 70]) {
                    let x = numbers(m * k, 3);
                    let mut y = vec![f32::NAN; m * n];
                    packed.multiply(&Team::alone(), m, &x, Some(&bias), &mut y);
                    for i in 0..m {
                        for j in 0..n {
                            let sum: f64 = (0..k).map(|q| round(x[i * k + q]) * round(b[q * n + j])).sum();
                            let (got, want) = (f64::from(y[i * n + j]), sum + f64::from(bias[j]));
                            let bound = 2e-6 * (1.0 + (k as f64).sqrt());
                            assert!(
                                (got - want).abs() < bound,
                                "{kernel:?} ({m},{n},{k}) at ({i},{j}): {got}, not {want}"
                            );
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn a_row_does_not_depend_on_the_rows_beside_it_nor_on_threads() {
        let (k, n, m) = (300, 1000, 41);
        let (b, x) = (numbers(k * n, 4), numbers(m * k, 5));
        for kernel in loops() {
            let packed = Packed::with_loop(Mat::rows(&b, n), k, n, kernel);
            let product = |m: usize, x: &[f32], threads: usize| {
                let mut y = vec![0.0; m * n];
                let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("a pool");
                pool.install(|| Team::gather(usize::MAX, |team| packed.multiply(team, m, x, None, &mut y)));
                y
            };
            let all = product(m, &x, 2);
            assert_eq!(product(m, &x, 1), all);
            assert_eq!(product(m, &x, 3), all);
            for i in [0, 11, 40] {
                assert_eq!(product(1, &x[i * k..(i + 1) * k], 2), all[i * n..(i + 1) * n], "{kernel:?} row {i}");
            }
        }
    }

    #[test]
    fn empty_sides_are_fine() {
        let packed = Packed::with_loop(Mat::rows(&[], 3), 0, 3, Loop::Plain);
        let mut y = [1.0; 6];
        packed.multiply(&Team::alone(), 2, &[], Some(&[1.0, 2.0, 3.0]), &mut y);
        assert_eq!(y, [1.0, 2.0, 3.0, 1.0, 2.0, 3.0]);
        packed.multiply(&Team::alone(), 0, &[], None, &mut []);
    }
}
