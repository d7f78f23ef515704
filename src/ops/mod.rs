//! Differentiable numerics on candle, each with its own backward pass where that is faster or where candle has none.
//!
//! candle's own `LayerNorm`, `softmax_last_dim`, `rms_norm` and `sdpa` cut gradients silently; everything that is
//! trained goes through this room instead. [`composed`] holds the same functions written with plain candle operations:
//! the oracle of the tests, and the fallback for devices and types without a kernel.

pub mod composed;
pub mod kernels;
pub mod ragged;

mod activation;
mod attention;
mod dropout;
mod embedding;
mod gradients;
mod linear;
mod log1m_exp;
mod log_prob;
mod log_sigmoid;
mod norm;
pub mod view;

pub use activation::activation;
pub use attention::causal_attention;
pub use dropout::dropout;
pub use embedding::{check_embedding, embedding};
pub use gradients::{GradientSums, Weight};
pub use kernels::attention::Heads;
pub use kernels::layers::Activation;
pub use kernels::matmul::Precision;
pub use kernels::noise::Dropout;
pub use linear::linear;
pub use log_prob::{TokenLogProbs, token_log_probs};
pub use log_sigmoid::log_sigmoid;
pub use log1m_exp::log1m_exp;
pub use norm::layer_norm;
pub use ragged::{Ragged, Segment};
