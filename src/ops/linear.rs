//! Affine maps in GPT-2's Conv1D layout.

use candle_core::{CpuStorage, CustomOp3, Layout, Result, Shape, Tensor, bail};

use super::kernels::layers;
use super::kernels::matmul::Precision::F32;
use super::{composed, view};

/// y = xW + b
///
/// # Shapes
/// x (N, I), w (I, O), b (O,) → (N, O)
pub fn linear(x: &Tensor, w: &Tensor, b: &Tensor) -> Result<Tensor> {
    let ((_, i), (wi, o), bo) = (x.dims2()?, w.dims2()?, b.dims1()?);
    if i != wi || o != bo {
        bail!("linear: expected x (N, {wi}) and b ({o},), got x {:?} and b {:?}", x.dims(), b.dims());
    }
    if view::has_kernel(x) {
        x.contiguous()?.apply_op3(&w.contiguous()?, &b.contiguous()?, Linear)
    } else {
        composed::linear(x, w, b)
    }
}

struct Linear;

impl CustomOp3 for Linear {
    fn name(&self) -> &'static str {
        "linear"
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
        let ((n, _), (_, o)) = (lx.shape().dims2()?, lw.shape().dims2()?);
        let (x, w, b) = (view::slice("linear", x, lx)?, view::slice("linear", w, lw)?, view::slice("linear", b, lb)?);
        Ok((CpuStorage::F32(layers::linear(x, w, b, F32)), (n, o).into()))
    }

    fn bwd(
        &self,
        x: &Tensor,
        w: &Tensor,
        b: &Tensor,
        _y: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let ((n, i), (_, o)) = (x.dims2()?, w.dims2()?);
        let grad = grad.contiguous()?;
        let (xs, ws, gs) = (view::Values::new(x)?, view::Values::new(w)?, view::Values::new(&grad)?);
        let (mut dw, mut db) = (vec![0.0; i * o], vec![0.0; o]);
        let dx = layers::linear_backward_input(&ws, &gs, o, F32);
        layers::linear_backward_weight(&xs, &gs, &mut dw, o, false, F32);
        layers::column_sums(&gs, &mut db, false);
        let device = x.device();
        Ok((
            Some(Tensor::from_vec(dx, (n, i), device)?),
            Some(Tensor::from_vec(dw, (i, o), device)?),
            Some(Tensor::from_vec(db, b.shape(), device)?),
        ))
    }
}
