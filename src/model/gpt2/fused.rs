//! The trainable forward pass with a backward pass written by hand: one node of candle's graph for the embeddings, one
//! for each block, one for the final norm.
//!
//! A block keeps what its backward pass cannot rebuild cheaply (inputs of the matrix products, log-sum-exps) and rebuilds
//! the rest (norms, activations, attention weights). Gradients of weights are summed in place, see [`GradientSums`].
//! [`Block::forward`](super::block::Block::forward), made of single operations, is the oracle.

use std::sync::{Arc, Mutex, PoisonError};

use candle_core::{CpuStorage, CustomOp1, DType, Layout, Result, Shape, Tensor, Var, bail};

use super::block::{Block, Conv1d, Norm};
use crate::ops::kernels::attention::{self, Heads};
use crate::ops::kernels::layers;
use crate::ops::view::{Values, slice};
use crate::ops::{Activation, Dropout, GradientSums, Precision, Ragged};

/// A layer's weight and bias, and where their gradients go
#[derive(Clone)]
struct Layer {
    weight: Tensor,
    bias: Tensor,
    sums: Arc<GradientSums>,
    index: [usize; 2],
    precision: Precision,
}

impl Layer {
    fn values(&self) -> Result<(Values<'_>, Values<'_>)> {
        Ok((Values::new(&self.weight)?, Values::new(&self.bias)?))
    }

    fn sizes(&self) -> [usize; 2] {
        [self.weight.elem_count(), self.bias.elem_count()]
    }

    fn linear(&self, x: &[f32]) -> Result<Vec<f32>> {
        let (w, b) = self.values()?;
        Ok(layers::linear(x, &w, &b, self.precision))
    }

    /// dx; dW and db go to the sums
    fn linear_backward(&self, x: &[f32], g: &[f32]) -> Result<Vec<f32>> {
        let (w, b) = self.values()?;
        let o = b.len();
        self.sums.add_pair(self.index, self.sizes(), |dw, db, accumulate| {
            layers::linear_backward_weight(x, g, dw, o, accumulate, self.precision);
            layers::column_sums(g, db, accumulate);
        });
        Ok(layers::linear_backward_input(&w, g, o, self.precision))
    }

    fn norm(&self, x: &[f32], eps: f32) -> Result<Vec<f32>> {
        let (w, b) = self.values()?;
        Ok(layers::layer_norm(x, &w, &b, eps))
    }

    fn norm_backward(&self, x: &[f32], g: &[f32], eps: f32) -> Result<Vec<f32>> {
        let (w, _) = self.values()?;
        let mut dx = Vec::new();
        self.sums.add_pair(self.index, self.sizes(), |dw, db, accumulate| {
            dx = layers::layer_norm_backward(x, &w, g, eps, dw, db, accumulate);
        });
        Ok(dx)
    }
}

/// The fused passes of a model; weights are named by their place in [`super::tensors`]
pub(super) struct Fused {
    sums: Arc<GradientSums>,
    /// One element that gives the graph of a trainable model its root (weights are not part of it); a frozen model has a
    /// plain tensor here, and no graph
    root: Tensor,
    wte: Tensor,
    wpe: Tensor,
    blocks: Vec<FusedBlock>,
    ln_f: Layer,
    eps: f32,
}

/// Weights of one block, in the order of [`super::tensors`]
#[derive(Clone)]
struct FusedBlock {
    ln_1: Layer,
    c_attn: Layer,
    attn_proj: Layer,
    ln_2: Layer,
    c_fc: Layer,
    mlp_proj: Layer,
    heads: Heads,
    activation: Activation,
    eps: f32,
}

impl Fused {
    /// `sums` has one place for each weight of a trainable model, and none for a frozen one
    pub fn new(
        wte: &Tensor,
        wpe: &Tensor,
        blocks: &[Block],
        ln_f: &Norm,
        sums: &Arc<GradientSums>,
        precision: Precision,
    ) -> Result<Self> {
        let root = Tensor::zeros(1, DType::F32, wte.device())?;
        let root = if sums.is_empty() { root } else { Var::from_tensor(&root)?.into_inner() };
        let layer = |weight: &Tensor, bias: &Tensor, at: usize| Layer {
            weight: weight.detach(),
            bias: bias.detach(),
            sums: sums.clone(),
            index: [at, at + 1],
            precision,
        };
        let norm = |norm: &Norm, at: usize| layer(&norm.weight, &norm.bias, at);
        let conv = |conv: &Conv1d, at: usize| layer(&conv.weight, &conv.bias, at);
        let fused = blocks.iter().enumerate().map(|(i, block)| {
            // wte and wpe come first, then twelve weights a block
            let at = 2 + 12 * i;
            FusedBlock {
                ln_1: norm(&block.ln_1, at),
                c_attn: conv(&block.c_attn, at + 2),
                attn_proj: conv(&block.attn_proj, at + 4),
                ln_2: norm(&block.ln_2, at + 6),
                c_fc: conv(&block.c_fc, at + 8),
                mlp_proj: conv(&block.mlp_proj, at + 10),
                heads: block.heads,
                activation: block.activation,
                eps: block.ln_1.eps as f32,
            }
        });
        Ok(Self {
            root,
            wte: wte.detach(),
            wpe: wpe.detach(),
            blocks: fused.collect(),
            ln_f: norm(ln_f, 2 + 12 * blocks.len()),
            eps: ln_f.eps as f32,
            sums: sums.clone(),
        })
    }

    /// Token plus position embeddings, (N, C)
    pub fn embed(&self, ids: &[u32], positions: &[u32]) -> Result<Tensor> {
        let c = crate::ops::check_embedding(&self.wte, &self.wpe, ids, positions)?;
        let (wte, wpe, sums) = (self.wte.clone(), self.wpe.clone(), self.sums.clone());
        self.root.apply_op1(Embed { wte, wpe, sums, c, ids: ids.to_vec(), positions: positions.to_vec() })
    }

    /// Block `i`: x (N, C) → (N, C)
    pub fn block(&self, i: usize, x: &Tensor, layout: &Arc<Ragged>, dropouts: [Option<Dropout>; 3]) -> Result<Tensor> {
        let [on_weights, on_attention, on_mlp] = dropouts;
        let mut block = self.blocks[i].clone();
        block.heads.dropout = on_weights;
        x.apply_op1(BlockOp { block, layout: layout.clone(), on_attention, on_mlp, saved: Mutex::new(None) })
    }

    /// The final norm
    pub fn final_norm(&self, x: &Tensor) -> Result<Tensor> {
        x.apply_op1(NormOp { layer: self.ln_f.clone(), eps: self.eps })
    }
}

struct Embed {
    wte: Tensor,
    wpe: Tensor,
    sums: Arc<GradientSums>,
    c: usize,
    ids: Vec<u32>,
    positions: Vec<u32>,
}

impl CustomOp1 for Embed {
    fn name(&self) -> &'static str {
        "embed"
    }

    fn cpu_fwd(&self, _root: &CpuStorage, _l: &Layout) -> Result<(CpuStorage, Shape)> {
        let (wte, wpe) = (Values::new(&self.wte)?, Values::new(&self.wpe)?);
        let h = layers::embedding(&wte, &wpe, self.c, &self.ids, &self.positions);
        Ok((CpuStorage::F32(h), (self.ids.len(), self.c).into()))
    }

    fn bwd(&self, _root: &Tensor, _h: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        let grad = grad.contiguous()?;
        let g = Values::new(&grad)?;
        for (i, table, rows) in [(0, &self.wte, &self.ids), (1, &self.wpe, &self.positions)] {
            self.sums.add(i, table.elem_count(), |d, accumulate| {
                if !accumulate {
                    d.fill(0.0);
                }
                layers::scatter_rows(&g, rows, self.c, d);
            });
        }
        Ok(None)
    }
}

struct NormOp {
    layer: Layer,
    eps: f32,
}

impl CustomOp1 for NormOp {
    fn name(&self) -> &'static str {
        "final_norm"
    }

    fn cpu_fwd(&self, x: &CpuStorage, l: &Layout) -> Result<(CpuStorage, Shape)> {
        let y = self.layer.norm(slice("final_norm", x, l)?, self.eps)?;
        Ok((CpuStorage::F32(y), l.shape().clone()))
    }

    fn bwd(&self, x: &Tensor, _y: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        let grad = grad.contiguous()?;
        let dx = self.layer.norm_backward(&Values::new(x)?, &Values::new(&grad)?, self.eps)?;
        Ok(Some(Tensor::from_vec(dx, x.shape(), x.device())?))
    }
}

/// What the backward pass of a block needs besides its input, N rows each
struct Saved {
    /// (N, 3C)
    qkv: Vec<f32>,
    /// (N, C)
    attended: Vec<f32>,
    /// (N, H)
    lse: Vec<f32>,
    /// The residual stream between attention and feed-forward, (N, C)
    middle: Vec<f32>,
    /// Input of the activation, (N, inner)
    inner: Vec<f32>,
}

struct BlockOp {
    block: FusedBlock,
    layout: Arc<Ragged>,
    on_attention: Option<Dropout>,
    on_mlp: Option<Dropout>,
    saved: Mutex<Option<Saved>>,
}

impl CustomOp1 for BlockOp {
    fn name(&self) -> &'static str {
        "gpt2_block"
    }

    fn cpu_fwd(&self, x: &CpuStorage, l: &Layout) -> Result<(CpuStorage, Shape)> {
        let x = slice("gpt2_block", x, l)?;
        let b = &self.block;
        let qkv = b.c_attn.linear(&b.ln_1.norm(x, b.eps)?)?;
        let (attended, lse) = attention::forward(&qkv, &self.layout, b.heads);
        let mut middle = b.attn_proj.linear(&attended)?;
        if let Some(dropout) = self.on_attention {
            dropout.apply(&mut middle, 0);
        }
        layers::add(&mut middle, x);
        let inner = b.c_fc.linear(&b.ln_2.norm(&middle, b.eps)?)?;
        let mut y = b.mlp_proj.linear(&layers::activation(b.activation, &inner))?;
        if let Some(dropout) = self.on_mlp {
            dropout.apply(&mut y, 0);
        }
        layers::add(&mut y, &middle);
        let saved = Saved { qkv, attended, lse, middle, inner };
        *self.saved.lock().unwrap_or_else(PoisonError::into_inner) = Some(saved);
        Ok((CpuStorage::F32(y), l.shape().clone()))
    }

    fn bwd(&self, x: &Tensor, _y: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        let Some(saved) = self.saved.lock().unwrap_or_else(PoisonError::into_inner).take() else {
            bail!("gpt2_block: a second backward pass");
        };
        let Saved { qkv, attended, lse, middle, inner } = saved;
        let grad = grad.contiguous()?;
        let (x_values, g) = (Values::new(x)?, Values::new(&grad)?);
        let b = &self.block;

        let dropped = masked(&g, self.on_mlp);
        let mut d_inner =
            b.mlp_proj.linear_backward(&layers::activation(b.activation, &inner), dropped.as_deref().unwrap_or(&g))?;
        layers::activation_backward(b.activation, &inner, &mut d_inner);
        let d_norm = b.c_fc.linear_backward(&b.ln_2.norm(&middle, b.eps)?, &d_inner)?;
        let mut d_middle = b.ln_2.norm_backward(&middle, &d_norm, b.eps)?;
        layers::add(&mut d_middle, &g);

        let dropped = masked(&d_middle, self.on_attention);
        let d_attended = b.attn_proj.linear_backward(&attended, dropped.as_deref().unwrap_or(&d_middle))?;
        let d_qkv = attention::backward(&qkv, &self.layout, b.heads, &attended, &lse, &d_attended);
        let d_norm = b.c_attn.linear_backward(&b.ln_1.norm(&x_values, b.eps)?, &d_qkv)?;
        let mut dx = b.ln_1.norm_backward(&x_values, &d_norm, b.eps)?;
        layers::add(&mut dx, &d_middle);
        Ok(Some(Tensor::from_vec(dx, x.shape(), x.device())?))
    }
}

/// The gradient behind a dropout, where there is one
fn masked(g: &[f32], dropout: Option<Dropout>) -> Option<Vec<f32>> {
    dropout.map(|dropout| {
        let mut g = g.to_vec();
        dropout.apply(&mut g, 0);
        g
    })
}
