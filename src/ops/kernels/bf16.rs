//! Matrix products with bfloat16 operands and f32 accumulation (`avx512_bf16`), from and to f32 matrices.
//!
//! Operands are rounded to nearest-even while they are packed into panels: 12 rows of A and 32 columns of B, two
//! neighbouring k in one 32-bit word, which is what `vdpbf16ps` multiplies. A tile of 12 × 32 sums stays in registers.
//! Each sum runs over k in one order, whatever the threads.

use super::matmul::Mat;

/// Whether this processor multiplies bfloat16
pub fn supported() -> bool {
    #[cfg(target_arch = "x86_64")]
    {
        is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512vl")
            && is_x86_feature_detected!("avx512bf16")
    }
    #[cfg(not(target_arch = "x86_64"))]
    false
}

/// As [`super::matmul::matmul`] with both operands rounded to bfloat16
///
/// # Panics
/// Where [`supported`] says no
pub fn matmul(m: usize, n: usize, k: usize, alpha: f32, a: Mat, b: Mat, c: &mut [f32], c_row: usize, accumulate: bool) {
    assert!(supported(), "this processor has no bfloat16 products");
    #[cfg(target_arch = "x86_64")]
    if m > 0 && n > 0 {
        assert!((m - 1) * c_row + n <= c.len(), "result ({m}, {n}) outside its slice of {}", c.len());
        a.check(m, k);
        b.check(k, n);
        x86::product(m, n, k, alpha, a, b, c, c_row, accumulate);
    }
}

/// Rounds the first `lanes` rows of a matrix into pairs of columns, `to[pair][lane]` with `width` lanes to a pair, the rest
/// 0: what the inner loops multiply. `width` is at most 12 (rows of a tile) or 32 (columns of a panel)
///
/// # Panics
/// Where [`supported`] says no
#[cfg_attr(not(target_arch = "x86_64"), allow(unused_variables))]
pub(super) fn pack(from: Mat, lanes: usize, width: usize, columns: usize, to: &mut [u32]) {
    assert!(supported(), "this processor has no bfloat16 products");
    #[cfg(target_arch = "x86_64")]
    {
        from.check(lanes, columns);
        assert!(lanes <= width && to.len() == columns.div_ceil(2) * width);
        let strip = x86::Strip { data: from.data, lane: from.row, step: from.col };
        macro_rules! call {
            ($($width:literal)*) => {
                match width {
                    // SAFETY: the features were checked, and so were the sizes
                    $($width => unsafe { x86::pack::<$width>(strip, lanes, columns, to.as_mut_ptr()) },)*
                    _ => unreachable!("no tile is {width} wide"),
                }
            };
        }
        call!(1 2 3 4 5 6 7 8 9 10 11 12 32);
    }
}

/// The first `n` of 16 lanes
#[cfg(target_arch = "x86_64")]
pub(super) fn lane_mask(n: usize) -> u16 {
    if n >= 16 { u16::MAX } else { (1_u16 << n) - 1 }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::{
        __m256bh, __m256i, __m512, __m512bh, __m512i, _mm_cvtsi128_si32, _mm256_castsi256_si128, _mm512_add_ps,
        _mm512_cvtepu16_epi32, _mm512_cvtne2ps_pbh, _mm512_cvtneps_pbh, _mm512_dpbf16_ps, _mm512_fmadd_ps,
        _mm512_loadu_ps, _mm512_loadu_si512, _mm512_mask_storeu_epi32, _mm512_mask_storeu_ps, _mm512_maskz_loadu_ps,
        _mm512_mul_ps, _mm512_or_si512, _mm512_set1_epi32, _mm512_set1_ps, _mm512_setzero_ps, _mm512_slli_epi32,
        _mm512_storeu_ps, _mm512_storeu_si512,
    };

    use rayon::prelude::*;

    use super::lane_mask;
    use crate::ops::kernels::matmul::Mat;
    use crate::ops::kernels::share::Shared;

    /// Rows of a tile
    const MR: usize = 12;
    /// Columns of a tile: two vectors
    const NR: usize = 32;
    /// Length of k that a panel covers: a panel of B is 24 KiB and stays in the first-level cache
    const KC: usize = 512;
    /// Row panels of one task: 240 rows of A, 180 KiB, stay in the second-level cache
    const ROW_PANELS: usize = 20;
    /// Column panels of one task
    const COLUMN_PANELS: usize = 8;

    pub fn product(
        m: usize,
        n: usize,
        k: usize,
        alpha: f32,
        a: Mat,
        b: Mat,
        c: &mut [f32],
        c_row: usize,
        accumulate: bool,
    ) {
        let (rows, columns) = (m.div_ceil(MR), n.div_ceil(NR));
        if k == 0 {
            if !accumulate {
                (0..m).for_each(|i| c[i * c_row..i * c_row + n].fill(0.0));
            }
            return;
        }
        let parallel = m * n * k >= 1 << 18 && rayon::current_num_threads() > 1;
        let each = |count: usize, work: &(dyn Fn(usize) + Sync)| {
            if parallel { (0..count).into_par_iter().for_each(work) } else { (0..count).for_each(work) }
        };
        let c = Shared::new(c);
        let (mut packed_a, mut packed_b) = (vec![0_u32; rows * MR * KC / 2], vec![0_u32; columns * NR * KC / 2]);
        for k0 in (0..k).step_by(KC) {
            let kc = KC.min(k - k0);
            let words = kc.div_ceil(2);
            {
                let (to_a, to_b) = (SharedWords(packed_a.as_mut_ptr()), SharedWords(packed_b.as_mut_ptr()));
                each(columns, &|p| {
                    let source = Strip { data: &b.data[k0 * b.row + p * NR * b.col..], lane: b.col, step: b.row };
                    // SAFETY: panel p alone is written; the features were checked
                    unsafe { pack::<NR>(source, NR.min(n - p * NR), kc, to_b.at(p * NR * words)) }
                });
                each(rows, &|p| {
                    let source = Strip { data: &a.data[p * MR * a.row + k0 * a.col..], lane: a.row, step: a.col };
                    // SAFETY: as above
                    unsafe { pack::<MR>(source, MR.min(m - p * MR), kc, to_a.at(p * MR * words)) }
                });
            }
            let (row_blocks, column_blocks) = (rows.div_ceil(ROW_PANELS), columns.div_ceil(COLUMN_PANELS));
            let (packed_a, packed_b) = (&packed_a, &packed_b);
            each(row_blocks * column_blocks, &|task| {
                let (row_block, column_block) = (task / column_blocks, task % column_blocks);
                for q in column_block * COLUMN_PANELS..((column_block + 1) * COLUMN_PANELS).min(columns) {
                    for p in row_block * ROW_PANELS..((row_block + 1) * ROW_PANELS).min(rows) {
                        let (height, width) = (MR.min(m - p * MR), NR.min(n - q * NR));
                        let at = p * MR * c_row + q * NR;
                        let tile = Tile {
                            c: c.pointer(at, (height - 1) * c_row + width),
                            c_row,
                            height,
                            width,
                            alpha,
                            accumulate: accumulate || k0 > 0,
                        };
                        let (a, b) =
                            (&packed_a[p * MR * words..][..MR * words], &packed_b[q * NR * words..][..NR * words]);
                        // SAFETY: tiles are disjoint and in bounds; the features were checked
                        unsafe { multiply(a, b, &tile) }
                    }
                }
            });
        }
    }

    /// Packed words that several threads write at panels of their own
    #[derive(Clone, Copy)]
    struct SharedWords(*mut u32);

    // SAFETY: panels do not overlap
    unsafe impl Send for SharedWords {}
    // SAFETY: as above
    unsafe impl Sync for SharedWords {}

    impl SharedWords {
        /// # Safety
        /// `offset` must lie inside the buffer
        unsafe fn at(self, offset: usize) -> *mut u32 {
            // SAFETY: the caller's promise
            unsafe { self.0.add(offset) }
        }
    }

    /// A strip of a matrix: element (lane i, step j) lies at `i·lane + j·step`
    #[derive(Clone, Copy)]
    pub struct Strip<'a> {
        pub data: &'a [f32],
        pub lane: usize,
        pub step: usize,
    }

    /// Rounds a strip of `lanes` ≤ W lanes and `steps` steps into words of two steps, W words together; the rest is 0
    ///
    /// # Safety
    /// The processor must have the features; the strip must be in bounds; `to` must hold W·⌈steps/2⌉ words
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
    pub unsafe fn pack<const W: usize>(from: Strip, lanes: usize, steps: usize, to: *mut u32) {
        let words = steps.div_ceil(2);
        let data = from.data.as_ptr();
        // SAFETY: all offsets below stay inside the strip, masked lanes are not touched
        unsafe {
            if from.lane == 1 {
                for q in 0..words {
                    for v in (0..W).step_by(16) {
                        let mask = lane_mask(lanes.saturating_sub(v));
                        let row = |step: usize| {
                            let mask = if step < steps { mask } else { 0 };
                            let x = _mm512_maskz_loadu_ps(mask, data.wrapping_add(step * from.step + v));
                            _mm512_cvtepu16_epi32(std::mem::transmute::<__m256bh, __m256i>(_mm512_cvtneps_pbh(x)))
                        };
                        let pair = _mm512_or_si512(row(2 * q), _mm512_slli_epi32(row(2 * q + 1), 16));
                        _mm512_mask_storeu_epi32(to.add(q * W + v).cast(), lane_mask(W - v), pair);
                    }
                }
                return;
            }
            // Steps are contiguous (or, on the slow path, nothing is): 32 steps of every lane, then transposed
            for q0 in (0..words).step_by(16) {
                let mut block = [[0_u32; 16]; W];
                for (i, lane) in block.iter_mut().enumerate().take(lanes) {
                    let base = i * from.lane + 2 * q0 * from.step;
                    let left = steps - 2 * q0;
                    if from.step == 1 {
                        let low = _mm512_maskz_loadu_ps(lane_mask(left), data.wrapping_add(base));
                        let high =
                            _mm512_maskz_loadu_ps(lane_mask(left.saturating_sub(16)), data.wrapping_add(base + 16));
                        let both: __m512bh = _mm512_cvtne2ps_pbh(high, low);
                        _mm512_storeu_si512(lane.as_mut_ptr().cast(), std::mem::transmute::<__m512bh, __m512i>(both));
                    } else {
                        for (q, word) in lane.iter_mut().enumerate().take(left.div_ceil(2)) {
                            let at =
                                |step: usize| if step < left { round(*data.add(base + step * from.step)) } else { 0 };
                            *word = at(2 * q) | (at(2 * q + 1) << 16);
                        }
                    }
                }
                for q in 0..16.min(words - q0) {
                    for (i, lane) in block.iter().enumerate() {
                        *to.add((q0 + q) * W + i) = lane[q];
                    }
                }
            }
        }
    }

    /// One number as bfloat16 bits, by the same instruction as the vectors
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
    fn round(x: f32) -> u32 {
        // SAFETY: both are 256 plain bits
        let half = unsafe { std::mem::transmute::<__m256bh, __m256i>(_mm512_cvtneps_pbh(_mm512_set1_ps(x))) };
        (_mm_cvtsi128_si32(_mm256_castsi256_si128(half)) & 0xffff) as u32
    }

    /// Where a tile's sums go
    struct Tile {
        c: *mut f32,
        c_row: usize,
        height: usize,
        width: usize,
        alpha: f32,
        accumulate: bool,
    }

    /// One tile: 12 × 32 sums over a panel of A and one of B
    ///
    /// # Safety
    /// The processor must have the features; the tile's `height` × `width` places must be in bounds and nobody else's
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
    unsafe fn multiply(a: &[u32], b: &[u32], tile: &Tile) {
        // SAFETY: panels hold MR and NR words for each step; the tile is in bounds by the caller's promise
        unsafe {
            let mut sums = [[_mm512_setzero_ps(); 2]; MR];
            for (a, b) in a.chunks_exact(MR).zip(b.chunks_exact(NR)) {
                let b0: __m512bh = std::mem::transmute(_mm512_loadu_si512(b.as_ptr().cast()));
                let b1: __m512bh = std::mem::transmute(_mm512_loadu_si512(b.as_ptr().add(16).cast()));
                for i in 0..MR {
                    let x: __m512bh = std::mem::transmute(_mm512_set1_epi32(a[i] as i32));
                    sums[i][0] = _mm512_dpbf16_ps(sums[i][0], x, b0);
                    sums[i][1] = _mm512_dpbf16_ps(sums[i][1], x, b1);
                }
            }
            let alpha = _mm512_set1_ps(tile.alpha);
            for (i, sums) in sums.iter().enumerate().take(tile.height) {
                for (v, &sum) in sums.iter().enumerate() {
                    let at = tile.c.wrapping_add(i * tile.c_row + 16 * v);
                    let left = tile.width.saturating_sub(16 * v);
                    if left >= 16 {
                        let y: __m512 = if tile.accumulate {
                            _mm512_fmadd_ps(sum, alpha, _mm512_loadu_ps(at))
                        } else {
                            _mm512_mul_ps(sum, alpha)
                        };
                        _mm512_storeu_ps(at, y);
                    } else if left > 0 {
                        let mask = lane_mask(left);
                        let mut y = _mm512_mul_ps(sum, alpha);
                        if tile.accumulate {
                            y = _mm512_add_ps(y, _mm512_maskz_loadu_ps(mask, at));
                        }
                        _mm512_mask_storeu_ps(at, mask, y);
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use half::bf16;

    use super::*;
    use crate::ops::kernels::testing::numbers;

    #[test]
    fn products_are_those_of_rounded_operands() {
        if !supported() {
            println!("skipped: no avx512_bf16 on this processor");
            return;
        }
        let round = |x: f32| f64::from(bf16::from_f32(x).to_f32());
        for (m, n, k) in [(1, 1, 1), (12, 32, 2), (13, 33, 3), (5, 70, 385), (25, 31, 768), (64, 96, 770), (37, 5, 0)] {
            let (a, b) = (numbers(m * k, 1), numbers(k * n, 2));
            // Each operand as it lies and transposed
            let at: Vec<f32> = (0..k * m).map(|i| a[(i % m) * k + i / m]).collect();
            let bt: Vec<f32> = (0..n * k).map(|i| b[(i % k) * n + i / k]).collect();
            let lefts = [Mat::rows(&a, k), Mat::rows(&at, m).t()];
            let rights = [Mat::rows(&b, n), Mat::rows(&bt, k).t()];
            for (left, right, accumulate) in [(0, 0, false), (0, 1, true), (1, 0, false), (1, 1, true)] {
                let start = numbers(m * n, 3);
                let mut c = start.clone();
                matmul(m, n, k, 0.5, lefts[left], rights[right], &mut c, n, accumulate);
                for i in 0..m {
                    for j in 0..n {
                        let sum: f64 = (0..k).map(|q| round(a[i * k + q]) * round(b[q * n + j])).sum();
                        let want = 0.5 * sum + if accumulate { f64::from(start[i * n + j]) } else { 0.0 };
                        let got = f64::from(c[i * n + j]);
                        let bound = 1e-6 * (1.0 + (k as f64).sqrt());
                        assert!((got - want).abs() < bound, "({m},{n},{k}) at ({i},{j}): {got}, not {want}");
                    }
                }
            }
        }
    }

    #[test]
    fn what_is_not_a_number_stays_so() {
        if !supported() {
            println!("skipped: no avx512_bf16 on this processor");
            return;
        }
        for bad in [f32::NAN, f32::INFINITY, f32::from_bits(0x7fff_ffff)] {
            let mut c = [0.0; 4];
            matmul(2, 2, 2, 1.0, Mat::rows(&[bad, 1.0, 1.0, 1.0], 2), Mat::rows(&[1.0; 4], 2), &mut c, 2, false);
            assert!(!c[0].is_finite() && !c[1].is_finite() && c[2] == 2.0 && c[3] == 2.0, "{c:?}");
        }
    }
}
