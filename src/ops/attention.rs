//! Causal attention over ragged batches.

use std::sync::{Arc, OnceLock};

use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor, bail};

use super::kernels::attention::{self as kernel, Heads};
use super::ragged::Ragged;
use super::{composed, view};

/// softmax(scale·QKᵀ + causal mask)V inside each sequence and head
///
/// Vaswani et al. 2017, eq. 1, <https://arxiv.org/abs/1706.03762>; probabilities are recomputed in the backward pass
/// from the stored log-sum-exp (Dao et al. 2022, <https://arxiv.org/abs/2205.14135>).
///
/// # Shapes
/// qkv (N, 3C) with C = heads·dim, rows laid out by `layout` → (N, C)
pub fn causal_attention(qkv: &Tensor, layout: &Arc<Ragged>, heads: Heads) -> Result<Tensor> {
    let (n, c3) = qkv.dims2()?;
    if n != layout.rows() || c3 != 3 * heads.count * heads.dim {
        bail!("causal_attention: expected qkv ({}, {}), got ({n}, {c3})", layout.rows(), 3 * heads.count * heads.dim);
    }
    if view::has_kernel(qkv) {
        qkv.contiguous()?.apply_op1(CausalAttention { layout: layout.clone(), heads, lse: OnceLock::new() })
    } else {
        composed::causal_attention(qkv, layout, heads)
    }
}

struct CausalAttention {
    layout: Arc<Ragged>,
    heads: Heads,
    /// Log-sum-exp of every row's scores, (N, H), written by the forward pass
    lse: OnceLock<Vec<f32>>,
}

impl CustomOp1 for CausalAttention {
    fn name(&self) -> &'static str {
        "causal_attention"
    }

    fn cpu_fwd(&self, qkv: &CpuStorage, l: &Layout) -> Result<(CpuStorage, Shape)> {
        let (n, c3) = l.shape().dims2()?;
        let qkv = view::slice("causal_attention", qkv, l)?;
        let (out, lse) = kernel::forward(qkv, &self.layout, self.heads);
        // A second forward pass through the same op would compute the same numbers
        let _ = self.lse.set(lse);
        Ok((CpuStorage::F32(out), (n, c3 / 3).into()))
    }

    fn bwd(&self, qkv: &Tensor, out: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        let Some(lse) = self.lse.get() else { bail!("causal_attention: backward before forward") };
        let grad = grad.contiguous()?;
        let (q, o, g) = (view::Values::new(qkv)?, view::Values::new(out)?, view::Values::new(&grad)?);
        let dqkv = kernel::backward(&q, &self.layout, self.heads, &o, lse, &g);
        Ok(Some(Tensor::from_vec(dqkv, qkv.shape(), qkv.device())?))
    }
}
