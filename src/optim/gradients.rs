//! Norm and clipping of summed gradients.

use candle_core::backprop::GradStore;
use candle_core::{Result, Var};
use rayon::prelude::*;

use crate::ops::GradientSums;
use crate::ops::kernels::vector;
use crate::ops::view::Values;

/// Elements handled by one task
const BLOCK: usize = 1 << 16;

/// Adds gradients that candle's graph holds to the sums: those of weights that no operation sums in place
pub fn collect<'a>(sums: &GradientSums, store: &GradStore, vars: impl IntoIterator<Item = &'a Var>) -> Result<()> {
    for (i, var) in vars.into_iter().enumerate() {
        let Some(gradient) = store.get(var.as_tensor()) else { continue };
        let gradient = gradient.contiguous()?;
        let values = Values::new(&gradient)?;
        sums.add(i, values.len(), |sum, accumulate| {
            if accumulate {
                sum.par_chunks_mut(BLOCK).zip(values.par_chunks(BLOCK)).for_each(|(s, v)| vector::add(s, v));
            } else {
                sum.copy_from_slice(&values);
            }
        });
    }
    Ok(())
}

/// √Σ g², in f64 over blocks in order, so that it does not depend on threads
pub fn norm(sums: &GradientSums) -> f64 {
    let squares = |gradient: &[f32]| -> f64 {
        let blocks: Vec<f64> = gradient.par_chunks(BLOCK).map(vector::sum_squares).collect();
        blocks.iter().sum()
    };
    (0..sums.len()).filter_map(|i| sums.read(i, squares)).sum::<f64>().sqrt()
}

/// Factor that brings a gradient of this norm down to `max_norm`; 1 where it is below, or where `max_norm` is 0
///
/// The 1e-6 in the denominator is PyTorch's.
pub fn clip_factor(norm: f64, max_norm: f64) -> f64 {
    if max_norm > 0.0 { (max_norm / (norm + 1e-6)).min(1.0) } else { 1.0 }
}
