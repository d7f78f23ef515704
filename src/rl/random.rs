//! Draws that agents need beyond those of the environments.

use std::f64::consts::PI;

use super::env::rng::Pcg64;

/// From the standard normal (Box & Muller 1958)
pub fn standard_normal(rng: &mut Pcg64) -> f64 {
    // 1 - u lies in (0, 1], where the logarithm is finite
    let radius = (-2.0 * (1.0 - rng.random()).ln()).sqrt();
    radius * (2.0 * PI * rng.random()).cos()
}

/// Puts the elements into a random order (Fisher & Yates)
pub fn shuffle(rng: &mut Pcg64, items: &mut [u32]) {
    for last in (1..items.len()).rev() {
        items.swap(last, rng.integers(0, last as i64 + 1) as usize);
    }
}

/// An index drawn by the softmax of logits
pub fn categorical(rng: &mut Pcg64, logits: &[f32]) -> usize {
    let top = f64::from(logits.iter().copied().fold(f32::NEG_INFINITY, f32::max));
    let weight = |z: &f32| (f64::from(*z) - top).exp();
    let mut left = rng.random() * logits.iter().map(weight).sum::<f64>();
    for (at, z) in logits.iter().enumerate() {
        left -= weight(z);
        if left < 0.0 {
            return at;
        }
    }
    logits.len() - 1
}
