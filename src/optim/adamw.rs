//! AdamW in one fused pass, with its state in the open for checkpoints.

use std::sync::Mutex;

use candle_core::{CpuStorage, InplaceOp1, Layout, Result, Var, bail};
use rayon::prelude::*;

use crate::ops::GradientSums;
use crate::ops::kernels::vector::{self, AdamwConstants};

/// Elements updated by one task
const BLOCK: usize = 1 << 16;

/// Hyperparameters that do not change during a run
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdamWConfig {
    /// β₁, decay of the first moment
    pub beta1: f64,
    /// β₂, decay of the second moment
    pub beta2: f64,
    /// ε, added to the root of the second moment
    pub epsilon: f64,
    /// λ, decoupled weight decay
    pub weight_decay: f64,
}

/// First and second moment of one parameter
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Moments {
    /// Exponential mean of gradients
    pub first: Vec<f32>,
    /// Exponential mean of squared gradients
    pub second: Vec<f32>,
}

struct Slot {
    name: String,
    var: Var,
    decays: bool,
    moments: Moments,
}

/// Adam with decoupled weight decay
///
/// ```text
/// m ← β₁m + (1−β₁)g      v ← β₂v + (1−β₂)g²
/// p ← p(1 − lr·λ) − lr/(1−β₁ᵗ) · m / (√v/√(1−β₂ᵗ) + ε)
/// ```
///
/// Loshchilov and Hutter 2019, <https://arxiv.org/abs/1711.05101>; order of operations as in PyTorch's `AdamW`.
/// Biases and layer-norm weights do not decay, as in the Hugging Face Trainer.
pub struct AdamW {
    config: AdamWConfig,
    slots: Vec<Slot>,
    step: u64,
}

/// Whether weight decay applies to the parameter of this name
fn decays(name: &str) -> bool {
    let mut parts = name.rsplit('.');
    let leaf = parts.next().unwrap_or_default();
    let module = parts.next().unwrap_or_default();
    leaf != "bias" && !module.starts_with("ln_")
}

impl AdamW {
    /// Zero moments for each named parameter; their order is the order of gradients
    pub fn new<'a>(params: impl IntoIterator<Item = (&'a String, &'a Var)>, config: AdamWConfig) -> Self {
        let params: Vec<_> = params.into_iter().collect();
        // In parallel: memory that was used before has to be cleared. New memory is only when the first step writes it
        let slots = params
            .into_par_iter()
            .map(|(name, var)| {
                let n = var.elem_count();
                let moments = Moments { first: vec![0.0; n], second: vec![0.0; n] };
                Slot { decays: decays(name), name: name.clone(), var: var.clone(), moments }
            })
            .collect();
        Self { config, slots, step: 0 }
    }

    /// One update with learning rate `lr`; gradients are multiplied by `clip` on the way
    pub fn step(&mut self, gradients: &GradientSums, lr: f64, clip: f64) -> Result<()> {
        self.step += 1;
        let AdamWConfig { beta1, beta2, epsilon, weight_decay } = self.config;
        let t = self.step as i32;
        let constants = AdamwConstants {
            beta1: beta1 as f32,
            beta2: beta2 as f32,
            epsilon: epsilon as f32,
            step_size: (lr / (1.0 - beta1.powi(t))) as f32,
            root_correction: (1.0 - beta2.powi(t)).sqrt() as f32,
            decay: (1.0 - lr * weight_decay) as f32,
            clip: clip as f32,
        };
        for (i, slot) in self.slots.iter_mut().enumerate() {
            let constants = AdamwConstants { decay: if slot.decays { constants.decay } else { 1.0 }, ..constants };
            let (var, moments) = (&slot.var, &mut slot.moments);
            let updated = gradients
                .read(i, |gradient| var.inplace_op1(&Update { moments: Mutex::new(moments), gradient, constants }));
            let Some(updated) = updated else { bail!("parameter `{}` got no gradient", slot.name) };
            updated?;
        }
        Ok(())
    }

    /// Updates done so far
    pub fn steps(&self) -> u64 {
        self.step
    }

    /// Name and moments of each parameter, in order
    pub fn state(&self) -> impl Iterator<Item = (&str, &Moments)> {
        self.slots.iter().map(|slot| (slot.name.as_str(), &slot.moments))
    }

    /// Puts a saved state back
    ///
    /// # Errors
    /// A parameter that the saved state lacks, or moments of another size
    pub fn restore(&mut self, step: u64, mut moments: impl FnMut(&str) -> Option<Moments>) -> Result<()> {
        for slot in &mut self.slots {
            let Some(saved) = moments(&slot.name) else { bail!("no moments for parameter `{}`", slot.name) };
            let n = slot.var.elem_count();
            if saved.first.len() != n || saved.second.len() != n {
                bail!("moments of `{}` have {} elements, expected {n}", slot.name, saved.first.len());
            }
            slot.moments = saved;
        }
        self.step = step;
        Ok(())
    }
}

struct Update<'a> {
    moments: Mutex<&'a mut Moments>,
    gradient: &'a [f32],
    constants: AdamwConstants,
}

impl InplaceOp1 for Update<'_> {
    fn name(&self) -> &'static str {
        "adamw"
    }

    fn cpu_fwd(&self, storage: &mut CpuStorage, layout: &Layout) -> Result<()> {
        let (CpuStorage::F32(p), Some((start, end))) = (storage, layout.contiguous_offsets()) else {
            bail!("adamw: expected contiguous f32 parameters on the CPU");
        };
        let mut moments = self.moments.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let Moments { first, second } = &mut **moments;
        p[start..end]
            .par_chunks_mut(BLOCK)
            .zip(first.par_chunks_mut(BLOCK))
            .zip(second.par_chunks_mut(BLOCK))
            .zip(self.gradient.par_chunks(BLOCK))
            .for_each(|(((p, m), v), g)| vector::adamw(p, m, v, g, &self.constants));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::decays;

    #[test]
    fn biases_and_layer_norms_do_not_decay() {
        for name in ["transformer.h.0.attn.c_attn.weight", "transformer.wte.weight", "lm_head.weight", "score.weight"] {
            assert!(decays(name), "{name}");
        }
        for name in ["transformer.h.0.attn.c_attn.bias", "transformer.h.0.ln_1.weight", "transformer.ln_f.weight"] {
            assert!(!decays(name), "{name}");
        }
    }
}
