//! Gradients of one optimiser step, summed over its micro-batches.

use candle_core::backprop::GradStore;
use candle_core::{Result, Storage, Var, bail};
use rayon::prelude::*;

use crate::ops::kernels::vector;

/// Elements handled by one task
const BLOCK: usize = 1 << 16;

/// One flat gradient for each parameter, in the optimiser's order
#[derive(Default)]
pub struct Gradients {
    sums: Vec<Option<Vec<f32>>>,
}

impl Gradients {
    /// For `parameters` parameters, all absent
    pub fn new(parameters: usize) -> Self {
        Self { sums: (0..parameters).map(|_| None).collect() }
    }

    /// Adds the gradients of one backward pass in place
    pub fn accumulate<'a>(&mut self, store: &mut GradStore, vars: impl IntoIterator<Item = &'a Var>) -> Result<()> {
        for (sum, var) in self.sums.iter_mut().zip(vars) {
            let Some(gradient) = store.remove(var.as_tensor()) else { continue };
            let gradient = gradient.contiguous()?;
            let (storage, layout) = gradient.storage_and_layout();
            let Storage::Cpu(cpu) = &*storage else { bail!("gradients: expected tensors on the CPU") };
            let (start, end) = layout.contiguous_offsets().unwrap_or((0, 0));
            let values = &cpu.as_slice::<f32>()?[start..end];
            match sum {
                None => *sum = Some(values.to_vec()),
                Some(sum) => {
                    sum.par_chunks_mut(BLOCK).zip(values.par_chunks(BLOCK)).for_each(|(s, v)| vector::add(s, v));
                }
            }
        }
        Ok(())
    }

    /// The gradient of parameter `i`, if any pass gave one
    pub fn get(&self, i: usize) -> Option<&[f32]> {
        self.sums.get(i)?.as_deref()
    }

    /// Indices of parameters that no pass gave a gradient
    pub fn missing(&self) -> impl Iterator<Item = usize> {
        self.sums.iter().enumerate().filter(|(_, sum)| sum.is_none()).map(|(i, _)| i)
    }

    /// √Σ g², in f64 over blocks in order, so that it does not depend on threads
    pub fn norm(&self) -> f64 {
        let squares = |sum: &Vec<f32>| -> f64 {
            let blocks: Vec<f64> = sum.par_chunks(BLOCK).map(vector::sum_squares).collect();
            blocks.iter().sum()
        };
        self.sums.iter().flatten().map(squares).sum::<f64>().sqrt()
    }
}

/// Factor that brings a gradient of this norm down to `max_norm`; 1 where it is below, or where `max_norm` is 0
///
/// The 1e-6 in the denominator is PyTorch's.
pub fn clip_factor(norm: f64, max_norm: f64) -> f64 {
    if max_norm > 0.0 { (max_norm / (norm + 1e-6)).min(1.0) } else { 1.0 }
}
