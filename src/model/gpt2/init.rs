//! Random weights as transformers draws them.

use std::f64::consts::TAU;

use candle_core::{Device, Tensor};
use rand::rngs::Xoshiro256PlusPlus;
use rand::{Rng, SeedableRng};

use super::tensors;
use crate::Result;
use crate::model::config::Gpt2Config;

/// N(0, σ²) for matrices, with σ = `initializer_range`, divided by √(2·layers) where a block writes to the residual
/// stream; zeros for biases, ones for layer-norm weights
pub fn weights(config: &Gpt2Config, seed: u64) -> Result<Vec<(String, Tensor)>> {
    let mut rng = Xoshiro256PlusPlus::seed_from_u64(seed);
    let residual = 1.0 / (2.0 * config.n_layer as f64).sqrt();
    tensors(config)
        .into_iter()
        .map(|(name, shape)| {
            let n = shape.iter().product();
            let values = if name.ends_with("bias") {
                vec![0.0; n]
            } else if name.contains("ln_") {
                vec![1.0; n]
            } else {
                let scale = if name.ends_with("c_proj.weight") { residual } else { 1.0 };
                normal(&mut rng, n, config.initializer_range * scale)
            };
            Ok((name, Tensor::from_vec(values, shape, &Device::Cpu)?))
        })
        .collect()
}

/// N(0, σ²) for a head of its own
pub fn normal_values(seed: u64, n: usize, sigma: f64) -> Vec<f32> {
    normal(&mut Xoshiro256PlusPlus::seed_from_u64(seed), n, sigma)
}

/// Box–Muller
fn normal(rng: &mut impl Rng, n: usize, sigma: f64) -> Vec<f32> {
    let mut uniform = || ((rng.next_u64() >> 11) as f64 + 0.5) * (1.0 / (1_u64 << 53) as f64);
    let mut values = Vec::with_capacity(n + 1);
    while values.len() < n {
        let (radius, angle) = ((-2.0 * uniform().ln()).sqrt() * sigma, TAU * uniform());
        values.push((radius * angle.cos()) as f32);
        values.push((radius * angle.sin()) as f32);
    }
    values.truncate(n);
    values
}
