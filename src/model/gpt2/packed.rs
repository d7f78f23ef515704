//! A GPT-2 for decoding: the weights of its products in panels, packed once for many tokens.

use std::collections::HashMap;
use std::path::Path;

use candle_core::Tensor;

use super::block::heads;
use super::{Gpt2, tensors};
use crate::model::config::Gpt2Config;
use crate::model::weights;
use crate::ops::kernels::matmul::Mat;
use crate::ops::kernels::packed::Packed;
use crate::ops::kernels::team::Team;
use crate::ops::kernels::vector;
use crate::ops::view::Values;
use crate::ops::{Heads, Precision};
use crate::{Error, Result};

/// Layer norm
pub(super) struct Norm {
    weight: Vec<f32>,
    bias: Vec<f32>,
    eps: f32,
}

impl Norm {
    fn take(weights: &mut Weights, name: &str, eps: f32) -> Result<Self> {
        Ok(Self {
            weight: weights.vector(&format!("{name}.weight"))?,
            bias: weights.vector(&format!("{name}.bias"))?,
            eps,
        })
    }

    /// x (N, C) → y (N, C)
    pub fn forward(&self, team: &Team, x: &[f32], y: &mut [f32]) {
        let c = self.weight.len();
        team.each_block(y, c, |row, y| vector::layer_norm(&x[row * c..][..c], &self.weight, &self.bias, self.eps, y));
    }
}

/// y = xW + b
pub(super) struct Linear {
    weight: Packed,
    bias: Vec<f32>,
}

impl Linear {
    fn take(weights: &mut Weights, name: &str) -> Result<Self> {
        Ok(Self { weight: weights.packed(&format!("{name}.weight"))?, bias: weights.vector(&format!("{name}.bias"))? })
    }

    /// x (n, I) → y (n, O)
    pub fn forward(&self, team: &Team, n: usize, x: &[f32], y: &mut [f32]) {
        self.weight.multiply(team, n, x, Some(&self.bias), y);
    }
}

/// Weights of one block
pub(super) struct Block {
    pub ln_1: Norm,
    pub c_attn: Linear,
    pub attn_proj: Linear,
    pub ln_2: Norm,
    pub c_fc: Linear,
    pub mlp_proj: Linear,
    pub heads: Heads,
}

/// A frozen GPT-2 whose weights are packed, and rounded to bfloat16 where asked for: they do not follow the model that
/// they were taken from
pub struct PackedGpt2 {
    pub(super) config: Gpt2Config,
    /// Of the products, and of keys and values in a cache
    pub(super) precision: Precision,
    /// Token embeddings (V, C), in f32
    pub(super) wte: Tensor,
    /// Position embeddings (P, C), in f32
    pub(super) wpe: Tensor,
    pub(super) blocks: Vec<Block>,
    pub(super) ln_f: Norm,
    /// (C, V)
    pub(super) head: Packed,
}

/// A weight on its way into the model
struct Prepared {
    /// Where it is read row by row
    plain: Option<Tensor>,
    /// Where it is multiplied with
    packed: Option<Packed>,
}

impl Prepared {
    fn new(config: &Gpt2Config, precision: Precision, name: &str, tensor: &Tensor) -> Result<Self> {
        let embedding = name == "transformer.wte.weight";
        let head = name == "lm_head.weight" || (embedding && config.tie_word_embeddings);
        let conv = tensor.rank() == 2 && name.starts_with("transformer.h.");
        let packed = if head || conv {
            let (rows, columns) = tensor.dims2()?;
            let values = Values::new(tensor)?;
            let matrix = Mat::rows(&values, columns);
            // The head is stored (out, in), the others (in, out)
            Some(if head {
                Packed::new(matrix.t(), columns, rows, precision)
            } else {
                Packed::new(matrix, rows, columns, precision)
            })
        } else {
            None
        };
        Ok(Self { plain: (embedding || packed.is_none()).then(|| tensor.detach()), packed })
    }
}

/// Prepared weights by name; each form is taken once
struct Weights(HashMap<String, Prepared>);

impl Weights {
    fn plain(&mut self, name: &str) -> Result<Tensor> {
        self.0.get_mut(name).and_then(|weight| weight.plain.take()).ok_or_else(|| missing(name))
    }

    fn packed(&mut self, name: &str) -> Result<Packed> {
        self.0.get_mut(name).and_then(|weight| weight.packed.take()).ok_or_else(|| missing(name))
    }

    fn vector(&mut self, name: &str) -> Result<Vec<f32>> {
        Ok(self.plain(name)?.to_vec1()?)
    }
}

fn missing(name: &str) -> Error {
    Error::run(format!("the model has no tensor `{name}`"))
}

impl PackedGpt2 {
    /// Packs the weights of a model as they are now, in its precision
    pub fn new(model: &Gpt2) -> Result<Self> {
        let config = model.config();
        let prepare = |(name, tensor): &(String, Tensor)| {
            Ok((name.clone(), Prepared::new(config, model.precision(), name, tensor)?))
        };
        Self::assemble(
            config.clone(),
            model.precision(),
            Weights(model.weights().iter().map(prepare).collect::<Result<_>>()?),
        )
    }

    /// Packs the weights in a folder while they are read, so that they are in memory once
    pub fn load(folder: &Path, precision: Precision) -> Result<Self> {
        let config = Gpt2Config::load(folder)?;
        let prepared = weights::load_as(folder, &tensors(&config), &[], |name, tensor| {
            Prepared::new(&config, precision, name, &tensor)
        })?;
        Self::assemble(config, precision, Weights(prepared))
    }

    fn assemble(config: Gpt2Config, precision: Precision, mut prepared: Weights) -> Result<Self> {
        let eps = config.layer_norm_epsilon as f32;
        let blocks = (0..config.n_layer).map(|i| {
            let prefix = format!("transformer.h.{i}");
            Ok(Block {
                ln_1: Norm::take(&mut prepared, &format!("{prefix}.ln_1"), eps)?,
                c_attn: Linear::take(&mut prepared, &format!("{prefix}.attn.c_attn"))?,
                attn_proj: Linear::take(&mut prepared, &format!("{prefix}.attn.c_proj"))?,
                ln_2: Norm::take(&mut prepared, &format!("{prefix}.ln_2"), eps)?,
                c_fc: Linear::take(&mut prepared, &format!("{prefix}.mlp.c_fc"))?,
                mlp_proj: Linear::take(&mut prepared, &format!("{prefix}.mlp.c_proj"))?,
                heads: heads(&config, i),
            })
        });
        let blocks = blocks.collect::<Result<_>>()?;
        let ln_f = Norm::take(&mut prepared, "transformer.ln_f", eps)?;
        let head = if config.tie_word_embeddings { "transformer.wte.weight" } else { "lm_head.weight" };
        let head = prepared.packed(head)?;
        let (wte, wpe) = (prepared.plain("transformer.wte.weight")?, prepared.plain("transformer.wpe.weight")?);
        Ok(Self { config, precision, wte, wpe, blocks, ln_f, head })
    }

    /// Shape and constants
    pub fn config(&self) -> &Gpt2Config {
        &self.config
    }
}
