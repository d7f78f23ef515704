//! One transformer block: pre-norm attention and feed-forward, each added to the residual stream.

use std::sync::Arc;

use candle_core::Tensor;

use crate::Result;
use crate::model::config::Gpt2Config;
use crate::ops::{self, Activation, Dropout, Heads, Ragged};

/// Layer norm with its weights
pub(super) struct Norm {
    pub weight: Tensor,
    pub bias: Tensor,
    pub eps: f64,
}

impl Norm {
    pub fn forward(&self, x: &Tensor) -> candle_core::Result<Tensor> {
        ops::layer_norm(x, &self.weight, &self.bias, self.eps)
    }
}

/// y = xW + b, W stored (in, out) as in GPT-2's Conv1D
pub(super) struct Conv1d {
    pub weight: Tensor,
    pub bias: Tensor,
}

impl Conv1d {
    pub fn forward(&self, x: &Tensor) -> candle_core::Result<Tensor> {
        ops::linear(x, &self.weight, &self.bias)
    }
}

/// Sizes and scaling of the attention of block `index`
pub(super) fn heads(config: &Gpt2Config, index: usize) -> Heads {
    let dim = config.head_size();
    let mut scale = if config.scale_attn_weights { 1.0 / (dim as f64).sqrt() } else { 1.0 };
    if config.scale_attn_by_inverse_layer_idx {
        scale /= (index + 1) as f64;
    }
    Heads { count: config.n_head, dim, scale: scale as f32, dropout: None }
}

pub(super) struct Block {
    pub ln_1: Norm,
    pub c_attn: Conv1d,
    pub attn_proj: Conv1d,
    pub ln_2: Norm,
    pub c_fc: Conv1d,
    pub mlp_proj: Conv1d,
    pub heads: Heads,
    pub activation: Activation,
}

impl Block {
    pub fn new(
        config: &Gpt2Config,
        index: usize,
        prefix: &str,
        get: &dyn Fn(&str) -> Result<Tensor>,
        norm: &dyn Fn(&str) -> Result<Norm>,
    ) -> Result<Self> {
        let conv = |name: &str| -> Result<Conv1d> {
            Ok(Conv1d {
                weight: get(&format!("{prefix}.{name}.weight"))?,
                bias: get(&format!("{prefix}.{name}.bias"))?,
            })
        };
        Ok(Self {
            ln_1: norm(&format!("{prefix}.ln_1"))?,
            c_attn: conv("attn.c_attn")?,
            attn_proj: conv("attn.c_proj")?,
            ln_2: norm(&format!("{prefix}.ln_2"))?,
            c_fc: conv("mlp.c_fc")?,
            mlp_proj: conv("mlp.c_proj")?,
            heads: heads(config, index),
            activation: config.activation_function,
        })
    }

    /// x (N, C) → (N, C); dropouts: on attention weights, on the attention's output, on the feed-forward's output
    pub fn forward(
        &self,
        x: &Tensor,
        layout: &Arc<Ragged>,
        [on_weights, on_attention, on_mlp]: [Option<Dropout>; 3],
    ) -> candle_core::Result<Tensor> {
        let drop = |y: Tensor, dropout: Option<Dropout>| match dropout {
            Some(dropout) => ops::dropout(&y, dropout),
            None => Ok(y),
        };
        let qkv = self.c_attn.forward(&self.ln_1.forward(x)?)?; // (N, 3C)
        let attended = ops::causal_attention(&qkv, layout, Heads { dropout: on_weights, ..self.heads })?; // (N, C)
        let x = (x + drop(self.attn_proj.forward(&attended)?, on_attention)?)?;
        let inner = ops::activation(self.activation, &self.c_fc.forward(&self.ln_2.forward(&x)?)?)?; // (N, 4C)
        x + drop(self.mlp_proj.forward(&inner)?, on_mlp)?
    }
}
