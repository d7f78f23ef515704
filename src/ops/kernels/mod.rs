//! Slice-level numerics: matrix products, vector loops, attention. The only room with `unsafe`.
//!
//! Every function here takes plain slices and checks their sizes, so that callers need no `unsafe` of their own.
//! Sums run over a fixed number of lanes and work is split by size, never by who comes first: the same input gives
//! the same bytes on every run.

#![allow(unsafe_code)]
// Loops are compiled once per instruction set: what they call must be inlined into each version
#![allow(clippy::inline_always)]

pub mod aligned;
pub mod attention;
mod blocked;
pub mod cache;
pub mod layers;
pub mod matmul;
pub mod mlp;
pub mod noise;
mod pack;
pub mod packed;
pub mod pages;
pub mod panels;
mod share;
pub mod team;
mod tiles;
pub mod vector;

/// Widest vector instructions of this processor that the loops below are compiled for
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Simd {
    /// AVX-512 (F, VL, DQ, BW)
    V4,
    /// AVX2 and FMA
    V3,
    /// What the target guarantees
    Baseline,
}

/// Detected once per process
pub fn simd_level() -> Simd {
    use std::sync::OnceLock;
    static LEVEL: OnceLock<Simd> = OnceLock::new();
    *LEVEL.get_or_init(|| {
        #[cfg(target_arch = "x86_64")]
        {
            if is_x86_feature_detected!("avx512f")
                && is_x86_feature_detected!("avx512vl")
                && is_x86_feature_detected!("avx512dq")
                && is_x86_feature_detected!("avx512bw")
            {
                return Simd::V4;
            }
            if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
                return Simd::V3;
            }
        }
        Simd::Baseline
    })
}

/// Whether this processor multiplies bfloat16
pub fn bf16_supported() -> bool {
    #[cfg(target_arch = "x86_64")]
    {
        simd_level() == Simd::V4 && is_x86_feature_detected!("avx512bf16")
    }
    #[cfg(not(target_arch = "x86_64"))]
    false
}

/// Compiles a plain loop once per instruction set and picks one at run time, so that one binary is fast everywhere.
///
/// The arithmetic is the same in every version (no contraction, fixed lanes): results do not depend on the choice.
macro_rules! simd {
    ($($(#[$meta:meta])* pub fn $name:ident($($arg:ident : $ty:ty),* $(,)?) $(-> $ret:ty)? $body:block)*) => {$(
        $(#[$meta])*
        pub fn $name($($arg: $ty),*) $(-> $ret)? {
            #[inline(always)]
            fn body($($arg: $ty),*) $(-> $ret)? $body
            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx512f,avx512vl,avx512dq,avx512bw,avx2,fma")]
                fn v4($($arg: $ty),*) $(-> $ret)? { body($($arg),*) }
                #[target_feature(enable = "avx2,fma")]
                fn v3($($arg: $ty),*) $(-> $ret)? { body($($arg),*) }
                match $crate::ops::kernels::simd_level() {
                    // SAFETY: the features were detected on this processor
                    $crate::ops::kernels::Simd::V4 => return unsafe { v4($($arg),*) },
                    // SAFETY: as above
                    $crate::ops::kernels::Simd::V3 => return unsafe { v3($($arg),*) },
                    $crate::ops::kernels::Simd::Baseline => {}
                }
            }
            body($($arg),*)
        }
    )*};
}
pub(crate) use simd;

/// A vector of `n` numbers that are still to be written: zeroing all of a training step would be 6 % of it
///
/// # Safety
/// Every number must be written before it is read.
unsafe fn buffer(n: usize) -> Vec<f32> {
    let mut numbers = Vec::with_capacity(n);
    if cfg!(test) {
        // Tests see what was not written
        numbers.resize(n, f32::NAN);
    }
    // SAFETY: there is room for `n`, and the caller writes them
    unsafe { numbers.set_len(n) };
    numbers
}

/// What the kernels' tests share
#[cfg(test)]
mod testing {
    use super::tiles::Loop;
    use super::{Simd, bf16_supported, simd_level};

    /// Loops that this processor has
    pub(super) fn loops() -> Vec<Loop> {
        let mut loops = vec![Loop::Plain];
        if simd_level() != Simd::Baseline {
            loops.push(Loop::Avx2);
        }
        if simd_level() == Simd::V4 {
            loops.push(Loop::Avx512);
        }
        if bf16_supported() {
            loops.push(Loop::Avx512Bf16);
        }
        loops
    }

    /// Numbers from -1 to 1 that look random
    pub(super) fn numbers(n: usize, seed: u32) -> Vec<f32> {
        let next = |state: &mut u32| {
            *state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (*state >> 8) as f32 / 8_388_608.0 - 1.0
        };
        (0..n).scan(seed, |state, _| Some(next(state))).collect()
    }
}
