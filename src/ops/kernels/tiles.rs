//! Inner loops of [`super::packed`] and [`super::blocked`]: a few rows times one panel of 32 columns, all sums in registers.
//!
//! Every sum runs over k in one order with one accumulator, so that a row's result does not depend on the rows beside it.

use super::matmul::{Addend, Precision};
use super::{Simd, bf16_supported};

/// Columns of a panel: two vectors
pub const WIDTH: usize = 32;

/// The first `n` of 16 lanes
#[cfg(target_arch = "x86_64")]
pub fn lane_mask(n: usize) -> u16 {
    if n >= 16 { u16::MAX } else { (1_u16 << n) - 1 }
}

/// Where the sums of a tile go, and how: y ← alpha·sums + addend
#[derive(Clone, Copy)]
pub struct Target<'a> {
    /// First row, first column
    pub y: *mut f32,
    /// Distance between rows
    pub stride: usize,
    /// Columns that there are, at most [`WIDTH`]
    pub width: usize,
    /// Factor on the sums
    pub alpha: f32,
    /// Of these columns
    pub addend: Addend<'a>,
}

impl Target<'_> {
    /// Asks for the places of `rows` rows, so that they are there when the sums are done
    pub fn fetch(&self, rows: usize) {
        #[cfg(target_arch = "x86_64")]
        for r in 0..rows {
            for at in [0, WIDTH / 2] {
                // SAFETY: a prefetch may point anywhere
                unsafe {
                    std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_ET0 }>(
                        self.y.wrapping_add(r * self.stride + at).cast(),
                    );
                }
            }
        }
    }
}

/// Which inner loop multiplies, by what the processor has
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loop {
    /// f32 in vectors of 16
    Avx512,
    /// bfloat16 pairs in vectors of 16
    Avx512Bf16,
    /// f32 in vectors of 8
    Avx2,
    /// f32 as the compiler likes
    Plain,
}

impl Loop {
    /// The fastest one for a precision
    ///
    /// # Panics
    /// For bfloat16 where [`bf16_supported`] says no
    pub fn best(precision: Precision) -> Self {
        match (precision, super::simd_level()) {
            (Precision::Bf16, _) => {
                assert!(bf16_supported(), "this processor has no bfloat16 products");
                Self::Avx512Bf16
            }
            (Precision::F32, Simd::V4) => Self::Avx512,
            (Precision::F32, Simd::V3) => Self::Avx2,
            (Precision::F32, Simd::Baseline) => Self::Plain,
        }
    }

    /// Numbers in a word, along the sum
    pub fn depth(self) -> usize {
        if self == Self::Avx512Bf16 { 2 } else { 1 }
    }

    /// Words of a sum over k numbers
    pub fn words(self, k: usize) -> usize {
        k.div_ceil(self.depth())
    }

    /// Most rows of a tile: 12 × 32 sums are 24 of 32 registers, 2 × 32 sums are 8 of 16
    pub fn most_rows(self) -> usize {
        match self {
            Self::Avx512 | Self::Avx512Bf16 => 12,
            Self::Avx2 | Self::Plain => 2,
        }
    }

    /// y (rows, width) ← alpha·x·w + addend, with x (steps, rows) and w (steps, 32) in words: an f32, or two bfloat16
    ///
    /// `ahead` is read soon: it is fetched into the cache meanwhile, `pace` bytes a step.
    ///
    /// # Safety
    /// The processor must have this loop; `target` must be in bounds and nobody else's.
    pub unsafe fn tile(self, rows: usize, x: &[u32], w: &[u32], ahead: *const u32, pace: usize, target: &Target) {
        assert!(rows <= self.most_rows() && x.len() / rows == w.len() / WIDTH);
        assert!(target.width <= WIDTH && target.addend.fits(target.width));
        macro_rules! call {
            ($name:path, $($rows:literal)*) => {
                match rows {
                    $($rows => $name(x.as_chunks::<$rows>().0, w.as_chunks().0, ahead.cast(), pace, target),)*
                    _ => unreachable!("the caller splits rows"),
                }
            };
        }
        // SAFETY: the processor has the features and the target is in bounds by the caller's promise
        unsafe {
            match self {
                #[cfg(target_arch = "x86_64")]
                Self::Avx512 => call!(avx512::f32, 1 2 3 4 5 6 7 8 9 10 11 12),
                #[cfg(target_arch = "x86_64")]
                Self::Avx512Bf16 => call!(avx512::bf16, 1 2 3 4 5 6 7 8 9 10 11 12),
                #[cfg(target_arch = "x86_64")]
                Self::Avx2 => call!(avx2, 1 2),
                _ => call!(plain, 1 2),
            }
        }
    }
}

/// # Safety
/// `target` must be in bounds and nobody else's
#[inline(always)]
unsafe fn plain<const R: usize>(x: &[[u32; R]], w: &[[u32; WIDTH]], _ahead: *const i8, _pace: usize, target: &Target) {
    let mut sums = [[0.0_f32; WIDTH]; R];
    for (x, w) in x.iter().zip(w) {
        for r in 0..R {
            let x = f32::from_bits(x[r]);
            for c in 0..WIDTH {
                sums[r][c] += x * f32::from_bits(w[c]);
            }
        }
    }
    for (r, sums) in sums.iter().enumerate() {
        for (c, sum) in sums.iter().enumerate().take(target.width) {
            // SAFETY: inside the target by the caller's promise
            let y = unsafe { &mut *target.y.add(r * target.stride + c) };
            *y = match target.addend {
                Addend::None => target.alpha * sum,
                Addend::Bias(bias) => target.alpha * sum + bias[c],
                Addend::Result => target.alpha * sum + *y,
            };
        }
    }
}

/// [`plain`] in vectors of 8
///
/// # Safety
/// As for [`plain`]; the processor must have AVX2
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
unsafe fn avx2<const R: usize>(x: &[[u32; R]], w: &[[u32; WIDTH]], ahead: *const i8, pace: usize, target: &Target) {
    // SAFETY: the caller's promise
    unsafe { plain(x, w, ahead, pace, target) }
}

#[cfg(target_arch = "x86_64")]
mod avx512 {
    use std::arch::x86_64::{
        __m512, __m512bh, __m512i, _MM_HINT_T1, _mm_prefetch, _mm512_castsi512_ps, _mm512_dpbf16_ps, _mm512_fmadd_ps,
        _mm512_loadu_si512, _mm512_mask_storeu_ps, _mm512_maskz_loadu_ps, _mm512_set1_epi32, _mm512_set1_ps,
        _mm512_setzero_ps,
    };

    use super::{Addend, Target, WIDTH, lane_mask};

    macro_rules! tile {
        ($name:ident, $features:literal, $multiply:ident) => {
            /// # Safety
            /// As for [`super::plain`]; the processor must have the features
            #[target_feature(enable = $features)]
            pub unsafe fn $name<const R: usize>(
                x: &[[u32; R]],
                w: &[[u32; WIDTH]],
                ahead: *const i8,
                pace: usize,
                target: &Target,
            ) {
                let mut sums = [[_mm512_setzero_ps(); 2]; R];
                let mut ahead = ahead;
                for (x, w) in x.iter().zip(w) {
                    // SAFETY: 32 words; a prefetch may point anywhere
                    let [w0, w1] = unsafe {
                        _mm_prefetch::<_MM_HINT_T1>(ahead);
                        _mm_prefetch::<_MM_HINT_T1>(ahead.wrapping_add(64));
                        [_mm512_loadu_si512(w.as_ptr().cast()), _mm512_loadu_si512(w.as_ptr().add(16).cast())]
                    };
                    ahead = ahead.wrapping_add(pace);
                    for r in 0..R {
                        let x = _mm512_set1_epi32(x[r] as i32);
                        sums[r][0] = $multiply(sums[r][0], x, w0);
                        sums[r][1] = $multiply(sums[r][1], x, w1);
                    }
                }
                let alpha = _mm512_set1_ps(target.alpha);
                for half in 0..2 {
                    let mask = lane_mask(target.width.saturating_sub(16 * half));
                    // SAFETY: masked lanes are not touched, the others are inside the bias and the target
                    unsafe {
                        let bias = match target.addend {
                            Addend::Bias(bias) => _mm512_maskz_loadu_ps(mask, bias.as_ptr().wrapping_add(16 * half)),
                            _ => _mm512_setzero_ps(),
                        };
                        for (r, sums) in sums.iter().enumerate() {
                            let to = target.y.wrapping_add(r * target.stride + 16 * half);
                            let addend = match target.addend {
                                Addend::Result => _mm512_maskz_loadu_ps(mask, to),
                                _ => bias,
                            };
                            _mm512_mask_storeu_ps(to, mask, _mm512_fmadd_ps(sums[half], alpha, addend));
                        }
                    }
                }
            }
        };
    }

    tile!(f32, "avx512f", multiply_f32);
    tile!(bf16, "avx512f,avx512bf16", multiply_bf16);

    #[inline]
    #[target_feature(enable = "avx512f")]
    fn multiply_f32(sum: __m512, x: __m512i, w: __m512i) -> __m512 {
        _mm512_fmadd_ps(_mm512_castsi512_ps(x), _mm512_castsi512_ps(w), sum)
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bf16")]
    fn multiply_bf16(sum: __m512, x: __m512i, w: __m512i) -> __m512 {
        // SAFETY: both types are 512 plain bits
        let [x, w] = unsafe { std::mem::transmute::<[__m512i; 2], [__m512bh; 2]>([x, w]) };
        _mm512_dpbf16_ps(sum, x, w)
    }
}
