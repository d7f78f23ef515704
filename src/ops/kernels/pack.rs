//! Operands as the inner loops of [`super::tiles`] read them: `to[word][lane]`, where a lane is a row of A or a column of B
//! and a word is one f32, or two bfloat16 that follow each other along the sum.

use super::matmul::Mat;
use super::tiles::Loop;

/// Writes the first `lanes` rows of a matrix of `columns` columns as parts of `width` lanes each, one part after the other;
/// what is missing in the last one is 0. bfloat16 is rounded to nearest-even
///
/// # Panics
/// Where neither the rows nor the columns of `from` lie side by side
pub fn pack(kernel: Loop, from: Mat, lanes: usize, width: usize, columns: usize, to: &mut [u32]) {
    from.check(lanes, columns);
    let words = kernel.words(columns);
    assert!(to.len() == lanes.div_ceil(width) * words * width);
    assert!(from.row == 1 || from.col == 1, "an operand lies in rows or in columns");
    match kernel {
        // SAFETY: the sizes were checked; who has the loop has the processor for it
        #[cfg(target_arch = "x86_64")]
        Loop::Avx512 => unsafe { avx512::f32(from, lanes, width, columns, to) },
        // SAFETY: as above
        #[cfg(target_arch = "x86_64")]
        Loop::Avx512Bf16 => unsafe { avx512::bf16(from, lanes, width, columns, to) },
        _ => {
            for (i, to) in to.iter_mut().enumerate() {
                let (column, lane) = (i / width % words, i / (words * width) * width + i % width);
                *to = if lane < lanes { from.data[lane * from.row + column * from.col].to_bits() } else { 0 };
            }
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod avx512 {
    use std::arch::x86_64::{
        __m256bh, __m256i, __m512bh, __m512i, _mm512_castpd_ps, _mm512_castps_pd, _mm512_castps_si512,
        _mm512_castsi512_ps, _mm512_cvtepu16_epi32, _mm512_cvtne2ps_pbh, _mm512_cvtneps_pbh, _mm512_mask_storeu_epi32,
        _mm512_maskz_loadu_ps, _mm512_or_si512, _mm512_setzero_ps, _mm512_setzero_si512, _mm512_shuffle_f32x4,
        _mm512_slli_epi32, _mm512_unpackhi_pd, _mm512_unpackhi_ps, _mm512_unpacklo_pd, _mm512_unpacklo_ps,
    };

    use super::Mat;
    use crate::ops::kernels::tiles::lane_mask;

    /// Words of a lane that are read in one run, so that the memory is not asked for many runs at once
    const RUN: usize = 192;

    macro_rules! packer {
        ($name:ident, $features:literal, $depth:literal, $side_by_side:ident, $along:ident) => {
            /// # Safety
            /// The processor must have the features, the matrix be in bounds with one side contiguous, and `to` hold all parts
            #[target_feature(enable = $features)]
            pub unsafe fn $name(from: Mat, lanes: usize, width: usize, columns: usize, to: &mut [u32]) {
                let (words, data) = (columns.div_ceil($depth), from.data.as_ptr());
                let parts = lanes.div_ceil(width);
                // SAFETY: masked lanes are not touched, all others lie inside the matrix and the target
                unsafe {
                    if from.row == 1 {
                        for q in 0..words {
                            for part in 0..parts {
                                for v in (0..width).step_by(16) {
                                    let lane = part * width + v;
                                    let at = data.wrapping_add($depth * q * from.col + lane);
                                    let filled = lane_mask(lanes.saturating_sub(lane).min(width - v));
                                    let word = $side_by_side(at, from.col, columns - $depth * q, filled);
                                    let to = to.as_mut_ptr().add((part * words + q) * width + v);
                                    _mm512_mask_storeu_epi32(to.cast(), lane_mask(width - v), word);
                                }
                            }
                        }
                        return;
                    }
                    let mut rows = [[_mm512_setzero_si512(); RUN / 16]; 16];
                    for part in 0..parts {
                        for v in (0..width).step_by(16) {
                            let kept = lane_mask(width - v);
                            let filled = lanes.saturating_sub(part * width + v).min(width - v).min(16);
                            for q0 in (0..words).step_by(RUN) {
                                let run = (words - q0).min(RUN);
                                for (lane, row) in rows.iter_mut().enumerate().take(filled) {
                                    let at = data.wrapping_add((part * width + v + lane) * from.row);
                                    for (q, word) in row.iter_mut().enumerate().take(run.div_ceil(16)) {
                                        let first = $depth * (q0 + 16 * q);
                                        *word = $along(at.wrapping_add(first), columns - first);
                                    }
                                }
                                for q in 0..run.div_ceil(16) {
                                    let mut block = [_mm512_setzero_si512(); 16];
                                    for (block, row) in block.iter_mut().zip(&rows).take(filled) {
                                        *block = row[q];
                                    }
                                    transpose(&mut block);
                                    let first = q0 + 16 * q;
                                    for (i, word) in block.iter().enumerate().take(words - first) {
                                        let to = to.as_mut_ptr().add((part * words + first + i) * width + v);
                                        _mm512_mask_storeu_epi32(to.cast(), kept, *word);
                                    }
                                }
                            }
                        }
                    }
                }
            }
        };
    }

    packer!(f32, "avx512f,avx512bw,avx512vl,avx512dq", 1, side_by_side_f32, along_f32);
    packer!(bf16, "avx512f,avx512bw,avx512vl,avx512dq,avx512bf16", 2, side_by_side_bf16, along_bf16);

    /// One word of each of 16 neighbouring lanes
    #[inline]
    #[target_feature(enable = "avx512f")]
    unsafe fn side_by_side_f32(at: *const f32, _column: usize, _left: usize, lanes: u16) -> __m512i {
        // SAFETY: the caller's promise
        _mm512_castps_si512(unsafe { _mm512_maskz_loadu_ps(lanes, at) })
    }

    /// [`side_by_side_f32`] from two columns, of which the second may be missing
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
    unsafe fn side_by_side_bf16(at: *const f32, column: usize, left: usize, lanes: u16) -> __m512i {
        let half = |at: *const f32, lanes: u16| {
            // SAFETY: masked lanes are not touched, the others are in bounds by the caller's promise; both types are 256 plain bits
            let rounded: __m256i = unsafe {
                std::mem::transmute::<__m256bh, __m256i>(_mm512_cvtneps_pbh(_mm512_maskz_loadu_ps(lanes, at)))
            };
            _mm512_cvtepu16_epi32(rounded)
        };
        let second = if left > 1 { lanes } else { 0 };
        _mm512_or_si512(half(at, lanes), _mm512_slli_epi32(half(at.wrapping_add(column), second), 16))
    }

    /// The next 16 words of one lane, 0 beyond the `left` numbers that there are
    #[inline]
    #[target_feature(enable = "avx512f")]
    unsafe fn along_f32(at: *const f32, left: usize) -> __m512i {
        // SAFETY: the caller's promise
        _mm512_castps_si512(unsafe { _mm512_maskz_loadu_ps(lane_mask(left), at) })
    }

    /// [`along_f32`] with two numbers to a word
    #[inline]
    #[target_feature(enable = "avx512f,avx512bf16")]
    unsafe fn along_bf16(at: *const f32, left: usize) -> __m512i {
        // SAFETY: the caller's promise; both types are 512 plain bits
        unsafe {
            let low = _mm512_maskz_loadu_ps(lane_mask(left), at);
            let high = _mm512_maskz_loadu_ps(lane_mask(left.saturating_sub(16)), at.wrapping_add(16));
            std::mem::transmute::<__m512bh, __m512i>(_mm512_cvtne2ps_pbh(high, low))
        }
    }

    /// Transposes 16 × 16 words: pairs, then pairs of pairs, inside 128 bits; then the 128-bit parts, twice
    #[inline]
    #[target_feature(enable = "avx512f")]
    fn transpose(block: &mut [__m512i; 16]) {
        let mut x = [_mm512_setzero_ps(); 16];
        for (x, row) in x.iter_mut().zip(block.iter()) {
            *x = _mm512_castsi512_ps(*row);
        }
        let mut pairs = x;
        for i in 0..8 {
            pairs[2 * i] = _mm512_unpacklo_ps(x[2 * i], x[2 * i + 1]);
            pairs[2 * i + 1] = _mm512_unpackhi_ps(x[2 * i], x[2 * i + 1]);
        }
        // fours[4i + j]: words 4p + j of rows 4i to 4i + 3, for the 128-bit parts p = 0 to 3
        let mut fours = x;
        for i in 0..4 {
            for half in 0..2 {
                let [a, b] = [_mm512_castps_pd(pairs[4 * i + half]), _mm512_castps_pd(pairs[4 * i + 2 + half])];
                fours[4 * i + 2 * half] = _mm512_castpd_ps(_mm512_unpacklo_pd(a, b));
                fours[4 * i + 2 * half + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(a, b));
            }
        }
        for j in 0..4 {
            let [a, b, c, d] = [fours[j], fours[4 + j], fours[8 + j], fours[12 + j]];
            // Parts 0 and 2, 1 and 3, of two groups of rows
            let even = [_mm512_shuffle_f32x4::<0b10_00_10_00>(a, b), _mm512_shuffle_f32x4::<0b10_00_10_00>(c, d)];
            let odd = [_mm512_shuffle_f32x4::<0b11_01_11_01>(a, b), _mm512_shuffle_f32x4::<0b11_01_11_01>(c, d)];
            for (first, [x, y]) in [(0, even), (1, odd)] {
                block[4 * first + j] = _mm512_castps_si512(_mm512_shuffle_f32x4::<0b10_00_10_00>(x, y));
                block[4 * (first + 2) + j] = _mm512_castps_si512(_mm512_shuffle_f32x4::<0b11_01_11_01>(x, y));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use half::bf16;

    use super::*;
    use crate::ops::kernels::testing::{loops, numbers};

    #[test]
    fn words_stand_where_they_belong_from_either_layout() {
        let word = |kernel: Loop, x: &[f32]| match kernel {
            Loop::Avx512Bf16 => x.iter().rev().fold(0, |word, x| word << 16 | u32::from(bf16::from_f32(*x).to_bits())),
            _ => x[0].to_bits(),
        };
        for kernel in loops() {
            let depth = kernel.depth();
            for (lanes, width) in [(1, 1), (5, 7), (12, 12), (16, 16), (17, 32), (32, 32), (3, 32), (31, 12), (70, 32)]
            {
                for columns in [1, 2, 15, 16, 33, 100, 800] {
                    let x = numbers(lanes * columns, 1);
                    let flipped: Vec<f32> = (0..x.len()).map(|i| x[i % lanes * columns + i / lanes]).collect();
                    for from in [Mat::rows(&x, columns), Mat::rows(&flipped, lanes).t()] {
                        let words = columns.div_ceil(depth);
                        let mut to = vec![u32::MAX; lanes.div_ceil(width) * words * width];
                        pack(kernel, from, lanes, width, columns, &mut to);
                        for (i, got) in to.iter().enumerate() {
                            let (q, lane) = (i / width % words, i / (words * width) * width + i % width);
                            let row = if lane < lanes { &x[lane * columns..][..columns] } else { &[] };
                            let chosen: Vec<f32> = row.iter().skip(q * depth).take(depth).copied().collect();
                            let want = if chosen.is_empty() { 0 } else { word(kernel, &chosen) };
                            assert_eq!(*got, want, "{kernel:?} {lanes}/{width} × {columns}: word {q} of lane {lane}");
                        }
                    }
                }
            }
        }
    }
}
