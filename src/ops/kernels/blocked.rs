//! Large products: both operands packed, block by block, and multiplied by tiles whose sums stay in registers
//! (Goto & van de Geijn 2008, "Anatomy of High-Performance Matrix Multiplication").
//!
//! Few rows of A stay in the first-level cache while the panels of B of a task pass by from the second-level one. Threads
//! take tasks as they come, but a sum runs over k in one order: neither threads nor the rows beside it change a byte of it.

use std::cell::Cell;
use std::ops::Range;

use rayon::prelude::*;

use super::matmul::{Addend, Mat, Product, SERIAL_BELOW};
use super::pack::pack;
use super::pages::Pages;
use super::share::Shared;
use super::tiles::{Loop, Target, WIDTH};

/// How far a product is cut up
#[derive(Clone, Copy, Debug)]
pub struct Blocks {
    /// Words of k at a time: 12 rows of them are 18 KiB
    words: usize,
    /// Groups of rows of one task
    groups: usize,
    /// Panels of 32 columns of one task: 384 KiB, which the second-level cache holds
    panels: usize,
    /// Words of either operand that are packed at a time
    packed: usize,
}

impl Default for Blocks {
    fn default() -> Self {
        Self { words: 384, groups: 20, panels: 8, packed: 1 << 21 }
    }
}

thread_local! {
    /// Where operands are packed: kept, so that it need not be zeroed for every product
    static MEMORY: Cell<Option<Pages>> = const { Cell::new(None) };
}

/// Size of the parts, all but the last the same and none above `most`, that `count` things are cut into
fn part(count: usize, most: usize) -> usize {
    count.div_ceil(count.div_ceil(most.max(1)).max(1))
}

/// C (m, n) ← product + addend, nothing of it empty
///
/// # Panics
/// Where neither side of an operand is contiguous
pub fn matmul(kernel: Loop, blocks: Blocks, product: Product, c: &mut [f32], addend: Addend) {
    product.check();
    let [m, n, k] = product.shape;
    let tasks = Tasks { kernel, height: part(m, kernel.most_rows()), of: product, c: Shared::new(c) };
    let depth = part(k, blocks.words * kernel.depth()).next_multiple_of(kernel.depth());
    let words = kernel.words(depth);
    let (groups, panels) = (m.div_ceil(tasks.height), n.div_ceil(WIDTH));
    let most_groups = part(groups, blocks.packed / (tasks.height * words));
    let most_panels = part(panels, blocks.packed / (WIDTH * words));
    // Panels first, so that they begin where a cache line does
    let (panel_words, group_words) = (most_panels * WIDTH * words, most_groups * tasks.height * words);
    let kept = MEMORY.take().filter(|memory| memory.len() >= panel_words + group_words);
    let mut memory = kept.unwrap_or_else(|| Pages::new(panel_words + group_words));
    let (packed_b, packed_a) = memory.split_at_mut(panel_words);
    let parallel = product.multiply_adds() >= SERIAL_BELOW && rayon::current_num_threads() > 1;
    let each = |count: usize, work: &(dyn Fn(usize) + Sync)| {
        if parallel {
            // One by one: a thread that was held up leaves no more than one task to wait for
            (0..count).into_par_iter().with_max_len(1).for_each(work);
        } else {
            (0..count).for_each(work);
        }
    };

    for k0 in (0..k).step_by(depth) {
        let steps = k0..(k0 + depth).min(k);
        let words = kernel.words(steps.len());
        let addend = if k0 == 0 { addend } else { Addend::Result };
        for p0 in (0..panels).step_by(most_panels) {
            let panels = p0..(p0 + most_panels).min(panels);
            for g0 in (0..groups).step_by(most_groups) {
                let groups = g0..(g0 + most_groups).min(groups);
                {
                    let (to_a, to_b) = (Shared::new(packed_a), Shared::new(packed_b));
                    let bands_b = if g0 == 0 { panels.len().div_ceil(BAND) } else { 0 };
                    each(bands_b + groups.len().div_ceil(BAND), &|band| {
                        // SAFETY: a band's part of the memory is nobody else's
                        unsafe {
                            if band < bands_b {
                                let (at, panels) = sub(&panels, band, BAND);
                                let to = to_b.range(at * WIDTH * words, panels.len() * WIDTH * words);
                                tasks.pack_panels(panels, &steps, to);
                            } else {
                                let (at, groups) = sub(&groups, band - bands_b, BAND);
                                let rows = tasks.rows(&groups).len();
                                let to = to_a.range(at * tasks.height * words, rows * words);
                                tasks.pack_groups(groups, &steps, to);
                            }
                        }
                    });
                }
                let (packed_a, packed_b) = (&*packed_a, &*packed_b);
                let (down, across) = (part(groups.len(), blocks.groups), part(panels.len(), blocks.panels));
                let tasks_down = groups.len().div_ceil(down);
                // Tasks that follow each other share their panels
                each(tasks_down * panels.len().div_ceil(across), &|task| {
                    let (first_group, groups) = sub(&groups, task % tasks_down, down);
                    let (first_panel, panels) = sub(&panels, task / tasks_down, across);
                    let (a, b) = (first_group * tasks.height * words, first_panel * WIDTH * words);
                    tasks.multiply(groups, panels, words, &packed_a[a..], &packed_b[b..], addend);
                });
            }
        }
    }
    MEMORY.set(Some(memory));
}

/// Panels, or groups of rows, that are packed by one task: neighbours, since they share lines of the caches
const BAND: usize = 4;

/// The part of a range that `i` numbers, and where it begins in it
fn sub(range: &Range<usize>, i: usize, size: usize) -> (usize, Range<usize>) {
    (i * size, range.start + i * size..range.end.min(range.start + (i + 1) * size))
}

/// What all tasks of a product know
struct Tasks<'a> {
    kernel: Loop,
    /// Rows of a group; the last may have fewer
    height: usize,
    of: Product<'a>,
    c: Shared<'a>,
}

impl Tasks<'_> {
    fn rows(&self, groups: &Range<usize>) -> Range<usize> {
        groups.start * self.height..self.of.shape[0].min(groups.end * self.height)
    }

    fn columns(&self, panels: &Range<usize>) -> Range<usize> {
        panels.start * WIDTH..self.of.shape[1].min(panels.end * WIDTH)
    }

    fn pack_panels(&self, panels: Range<usize>, steps: &Range<usize>, to: &mut [u32]) {
        let columns = self.columns(&panels);
        let b = self.of.b;
        let from = Mat { data: &b.data[columns.start * b.col + steps.start * b.row..], ..b };
        pack(self.kernel, from.t(), columns.len(), WIDTH, steps.len(), to);
    }

    /// Groups of rows; the last of all is as narrow as it is, so that its tile has its height
    fn pack_groups(&self, groups: Range<usize>, steps: &Range<usize>, to: &mut [u32]) {
        let rows = self.rows(&groups);
        let last = rows.len() % self.height;
        let (full, narrow) = to.split_at_mut(to.len() / rows.len() * (rows.len() - last));
        let a = self.of.a;
        let from = |row: usize| Mat { data: &a.data[row * a.row + steps.start * a.col..], ..a };
        if !full.is_empty() {
            pack(self.kernel, from(rows.start), rows.len() - last, self.height, steps.len(), full);
        }
        if last > 0 {
            pack(self.kernel, from(rows.end - last), last, last, steps.len(), narrow);
        }
    }

    /// Every group times every panel; `a` and `b` begin with the first of them
    fn multiply(&self, groups: Range<usize>, panels: Range<usize>, words: usize, a: &[u32], b: &[u32], addend: Addend) {
        let n = self.of.shape[1];
        for (a, group) in a.chunks(self.height * words).zip(groups) {
            let rows = self.rows(&(group..group + 1));
            let a = &a[..rows.len() * words];
            for (b, panel) in b.chunks_exact(WIDTH * words).zip(panels.clone()) {
                let columns = self.columns(&(panel..panel + 1));
                let target = Target {
                    y: self.c.pointer(rows.start * n + columns.start, (rows.len() - 1) * n + columns.len()),
                    stride: n,
                    width: columns.len(),
                    alpha: self.of.alpha,
                    addend: addend.columns(columns.start, columns.len()),
                };
                target.fetch(rows.len());
                // SAFETY: tiles are disjoint and in bounds; the loop was chosen for this processor
                unsafe { self.kernel.tile(rows.len(), a, b, b.as_ptr_range().end, 128, &target) }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use half::bf16;

    use super::*;
    use crate::ops::kernels::testing::{loops, numbers};

    fn transposed(x: &[f32], columns: usize) -> Vec<f32> {
        let rows = x.len() / columns;
        (0..x.len()).map(|i| x[i % rows * columns + i / rows]).collect()
    }

    #[test]
    fn products_equal_plain_sums_however_they_are_cut_up() {
        // So small that every loop over blocks, and every last block that is smaller, is there
        let tiny = Blocks { words: 8, groups: 2, panels: 1, packed: 300 };
        let sizes = [(1, 1, 1), (12, 32, 2), (13, 33, 3), (5, 70, 385), (25, 31, 768), (64, 96, 770), (170, 100, 20)];
        for kernel in loops() {
            let round = |x: f32| f64::from(if kernel == Loop::Avx512Bf16 { bf16::from_f32(x).to_f32() } else { x });
            for (m, n, k) in sizes {
                let (a, b, bias) = (numbers(m * k, 1), numbers(k * n, 2), numbers(n, 3));
                let (at, bt) = (transposed(&a, k), transposed(&b, n));
                let lefts = [Mat::rows(&a, k), Mat::rows(&at, m).t()];
                let rights = [Mat::rows(&b, n), Mat::rows(&bt, k).t()];
                let start = numbers(m * n, 4);
                for (left, right, addend, blocks) in [
                    (0, 0, Addend::None, tiny),
                    (0, 1, Addend::Result, tiny),
                    (1, 0, Addend::Bias(&bias), tiny),
                    (1, 1, Addend::Result, Blocks::default()),
                ] {
                    let mut c = start.clone();
                    let product = Product::new([m, n, k], lefts[left], rights[right]).times(0.5);
                    matmul(kernel, blocks, product, &mut c, addend);
                    for (at, got) in c.iter().enumerate() {
                        let (i, j) = (at / n, at % n);
                        let sum: f64 = (0..k).map(|q| round(a[i * k + q]) * round(b[q * n + j])).sum();
                        let want = 0.5 * sum
                            + match addend {
                                Addend::None => 0.0,
                                Addend::Bias(bias) => f64::from(bias[j]),
                                Addend::Result => f64::from(start[at]),
                            };
                        let bound = 1e-6 * (1.0 + (k as f64).sqrt());
                        let error = (f64::from(*got) - want).abs();
                        assert!(error < bound, "{kernel:?} ({m},{n},{k}) at ({i},{j}): {got}, not {want}");
                    }
                }
            }
        }
    }

    #[test]
    fn a_row_does_not_depend_on_the_rows_beside_it_nor_on_threads() {
        let (m, n, k) = (130, 200, 900);
        let (a, b) = (numbers(m * k, 5), numbers(k * n, 6));
        for kernel in loops() {
            let product = |first: usize, m: usize, threads: usize| {
                let mut c = vec![f32::NAN; m * n];
                let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("a pool");
                let product = Product::new([m, n, k], Mat::rows(&a[first * k..], k), Mat::rows(&b, n));
                let blocks = Blocks { groups: 3, panels: 2, ..Blocks::default() };
                pool.install(|| matmul(kernel, blocks, product, &mut c, Addend::None));
                c
            };
            let all = product(0, m, 2);
            assert_eq!(product(0, m, 1), all);
            assert_eq!(product(0, m, 3), all);
            assert_eq!(product(17, 40, 2), all[17 * n..57 * n], "{kernel:?}");
        }
    }

    #[test]
    fn what_is_not_a_number_stays_so() {
        for kernel in loops() {
            for bad in [f32::NAN, f32::INFINITY, f32::from_bits(0x7fff_ffff)] {
                let mut c = [0.0; 4];
                let (a, b) = ([bad, 1.0, 1.0, 1.0], [1.0; 4]);
                let product = Product::new([2, 2, 2], Mat::rows(&a, 2), Mat::rows(&b, 2));
                matmul(kernel, Blocks::default(), product, &mut c, Addend::None);
                assert!(!c[0].is_finite() && !c[1].is_finite() && c[2] == 2.0 && c[3] == 2.0, "{kernel:?} {c:?}");
            }
        }
    }
}
