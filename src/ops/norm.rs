//! Layer normalisation with a backward pass (candle's own has none).

use candle_core::{CpuStorage, CustomOp3, Layout, Result, Shape, Tensor, bail};

use super::kernels::layers;
use super::{composed, view};

/// `y = (x − E[x])/√(Var[x] + ε) · w + b` over the last dimension, biased variance
///
/// Ba et al. 2016, <https://arxiv.org/abs/1607.06450>
///
/// # Shapes
/// x (N, C), w (C,), b (C,) → (N, C)
pub fn layer_norm(x: &Tensor, w: &Tensor, b: &Tensor, eps: f64) -> Result<Tensor> {
    let (_, c) = x.dims2()?;
    if w.dims1()? != c || b.dims1()? != c {
        bail!("layer_norm: expected w and b ({c},), got {:?} and {:?}", w.dims(), b.dims());
    }
    if view::has_kernel(x) {
        x.contiguous()?.apply_op3(&w.contiguous()?, &b.contiguous()?, LayerNorm { eps: eps as f32 })
    } else {
        composed::layer_norm(x, w, b, eps)
    }
}

struct LayerNorm {
    eps: f32,
}

impl CustomOp3 for LayerNorm {
    fn name(&self) -> &'static str {
        "layer_norm"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        lx: &Layout,
        w: &CpuStorage,
        lw: &Layout,
        b: &CpuStorage,
        lb: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let slice = |storage, layout| view::slice("layer_norm", storage, layout);
        let y = layers::layer_norm(slice(x, lx)?, slice(w, lw)?, slice(b, lb)?, self.eps);
        Ok((CpuStorage::F32(y), lx.shape().clone()))
    }

    fn bwd(
        &self,
        x: &Tensor,
        w: &Tensor,
        _b: &Tensor,
        _y: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let c = w.elem_count();
        let grad = grad.contiguous()?;
        let (xs, ws, gs) = (view::Values::new(x)?, view::Values::new(w)?, view::Values::new(&grad)?);
        let (mut dw, mut db) = (vec![0.0; c], vec![0.0; c]);
        let dx = layers::layer_norm_backward(&xs, &ws, &gs, self.eps, &mut dw, &mut db, false);
        let device = x.device();
        Ok((
            Some(Tensor::from_vec(dx, x.shape(), device)?),
            Some(Tensor::from_vec(dw, c, device)?),
            Some(Tensor::from_vec(db, c, device)?),
        ))
    }
}
