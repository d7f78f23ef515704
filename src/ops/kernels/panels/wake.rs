//! Which units have a gradient at all.

use super::LANES;
use crate::ops::kernels::{Simd, simd_level};

/// Whether any of a unit's 32 numbers is not 0, unit after unit
pub fn wake(g: &[f32], awake: &mut [bool]) {
    let units = g.as_chunks::<LANES>().0;
    #[cfg(target_arch = "x86_64")]
    if simd_level() == Simd::V4 {
        // SAFETY: the processor has AVX-512
        return unsafe { avx512::wake(units, awake) };
    }
    for (awake, lanes) in awake.iter_mut().zip(units) {
        // Twice the bits: -0 is 0 too
        *awake = lanes.iter().fold(0, |any, lane| any | (lane.to_bits() << 1)) != 0;
    }
}

#[cfg(target_arch = "x86_64")]
mod avx512 {
    use std::arch::x86_64::{_mm512_loadu_si512, _mm512_or_si512, _mm512_set1_epi32, _mm512_test_epi32_mask};

    use super::LANES;

    /// Written out, as the compiler would gather one lane of sixteen units at a time
    #[target_feature(enable = "avx512f")]
    pub fn wake(units: &[[f32; LANES]], awake: &mut [bool]) {
        let all_but_signs = _mm512_set1_epi32(i32::MAX);
        for (awake, lanes) in awake.iter_mut().zip(units) {
            let [low, high] = [&lanes[..16], &lanes[16..]];
            // SAFETY: sixteen numbers lie at each
            let any = unsafe {
                _mm512_or_si512(_mm512_loadu_si512(low.as_ptr().cast()), _mm512_loadu_si512(high.as_ptr().cast()))
            };
            *awake = _mm512_test_epi32_mask(any, all_but_signs) != 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_number_in_any_lane_wakes_a_unit() {
        for lane in 0..LANES {
            let mut g = [0.0_f32; 3 * LANES];
            g[LANES + lane] = f32::MIN_POSITIVE / 2.0;
            g[2 * LANES + lane] = -0.0;
            let mut awake = [true; 3];
            wake(&g, &mut awake);
            assert_eq!(awake, [false, true, false], "lane {lane}");
        }
    }
}
