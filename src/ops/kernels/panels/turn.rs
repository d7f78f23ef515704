//! A batch in panels turned round: panels of 32 features, row after row.

use super::LANES;
use crate::ops::kernels::{Simd, simd_level};

/// x (rows, width) in panels to panels of features: number (row, feature) of one at 32 · row + feature
///
/// Features that are missing in the last panel stay as they are.
pub fn turn(rows: usize, width: usize, x: &[f32], turned: &mut [f32]) {
    let rows = rows.next_multiple_of(LANES);
    assert!(x.len() >= rows * width && turned.len() >= rows * width.next_multiple_of(LANES));
    let panel = rows * LANES;
    for (p, x) in x.chunks_exact(LANES * width).enumerate() {
        // Blocks of 16 features by the panel's rows
        for (block, x) in x.chunks(16 * LANES).enumerate() {
            let to = block / 2 * panel + p * LANES * LANES + block % 2 * 16;
            let turned = &mut turned[to..][..(LANES - 1) * LANES + 16];
            #[cfg(target_arch = "x86_64")]
            if x.len() == 16 * LANES && simd_level() == Simd::V4 {
                for first in [0, 16] {
                    // SAFETY: sixteen rows of sixteen, 32 apart, lie behind both places; the processor has AVX-512
                    unsafe { avx512::block(x.as_ptr().add(first), turned.as_mut_ptr().add(first * LANES)) }
                }
                continue;
            }
            for (feature, lanes) in x.chunks_exact(LANES).enumerate() {
                for (row, lane) in lanes.iter().enumerate() {
                    turned[row * LANES + feature] = *lane;
                }
            }
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod avx512 {
    use std::arch::x86_64::{
        _mm512_castpd_ps, _mm512_castps_pd, _mm512_loadu_ps, _mm512_setzero_ps, _mm512_shuffle_f32x4, _mm512_storeu_ps,
        _mm512_unpackhi_pd, _mm512_unpackhi_ps, _mm512_unpacklo_pd, _mm512_unpacklo_ps,
    };

    use super::LANES;

    /// Turns a block of 16 × 16 numbers round
    ///
    /// # Safety
    /// Both must have sixteen rows of sixteen numbers, 32 apart; the processor must have AVX-512.
    #[target_feature(enable = "avx512f")]
    pub unsafe fn block(from: *const f32, to: *mut f32) {
        let mut x = [_mm512_setzero_ps(); 16];
        for (i, x) in x.iter_mut().enumerate() {
            // SAFETY: the caller's promise
            *x = unsafe { _mm512_loadu_ps(from.add(i * LANES)) };
        }
        // Rows in fours: quarter q of result 4 · four + j holds number 4 q + j of rows 4 · four to 4 · four + 3
        let mut fours = [_mm512_setzero_ps(); 16];
        for four in 0..4 {
            let [a, b, c, d] = [x[4 * four], x[4 * four + 1], x[4 * four + 2], x[4 * four + 3]];
            let [low_ab, high_ab] = [_mm512_unpacklo_ps(a, b), _mm512_unpackhi_ps(a, b)].map(|x| _mm512_castps_pd(x));
            let [low_cd, high_cd] = [_mm512_unpacklo_ps(c, d), _mm512_unpackhi_ps(c, d)].map(|x| _mm512_castps_pd(x));
            fours[4 * four] = _mm512_castpd_ps(_mm512_unpacklo_pd(low_ab, low_cd));
            fours[4 * four + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(low_ab, low_cd));
            fours[4 * four + 2] = _mm512_castpd_ps(_mm512_unpacklo_pd(high_ab, high_cd));
            fours[4 * four + 3] = _mm512_castpd_ps(_mm512_unpackhi_pd(high_ab, high_cd));
        }
        for j in 0..4 {
            let [a, b, c, d] = [fours[j], fours[4 + j], fours[8 + j], fours[12 + j]];
            // Quarters 0 and 2, then 1 and 3, of two fours each
            let [even_ab, odd_ab] = [_mm512_shuffle_f32x4::<0x88>(a, b), _mm512_shuffle_f32x4::<0xdd>(a, b)];
            let [even_cd, odd_cd] = [_mm512_shuffle_f32x4::<0x88>(c, d), _mm512_shuffle_f32x4::<0xdd>(c, d)];
            let turned = [
                _mm512_shuffle_f32x4::<0x88>(even_ab, even_cd),
                _mm512_shuffle_f32x4::<0x88>(odd_ab, odd_cd),
                _mm512_shuffle_f32x4::<0xdd>(even_ab, even_cd),
                _mm512_shuffle_f32x4::<0xdd>(odd_ab, odd_cd),
            ];
            for (q, turned) in turned.into_iter().enumerate() {
                // SAFETY: the caller's promise
                unsafe { _mm512_storeu_ps(to.add((4 * q + j) * LANES), turned) }
            }
        }
    }
}
