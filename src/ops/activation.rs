//! The activations of feed-forward blocks, with fast backward passes.

use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor};

use super::kernels::layers::{self, Activation};
use super::{composed, view};

/// f(x), elementwise; for GELU Hendrycks and Gimpel 2016, <https://arxiv.org/abs/1606.08415>
///
/// # Shapes
/// any → the same
pub fn activation(kind: Activation, x: &Tensor) -> Result<Tensor> {
    if view::has_kernel(x) { x.contiguous()?.apply_op1(Op(kind)) } else { composed::activation(kind, x) }
}

struct Op(Activation);

impl CustomOp1 for Op {
    fn name(&self) -> &'static str {
        "activation"
    }

    fn cpu_fwd(&self, x: &CpuStorage, l: &Layout) -> Result<(CpuStorage, Shape)> {
        let y = layers::activation(self.0, view::slice("activation", x, l)?);
        Ok((CpuStorage::F32(y), l.shape().clone()))
    }

    fn bwd(&self, x: &Tensor, _y: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        let grad = grad.contiguous()?;
        let mut dx = view::Values::new(&grad)?.to_vec();
        layers::activation_backward(self.0, &view::Values::new(x)?, &mut dx);
        Ok(Some(Tensor::from_vec(dx, x.shape(), x.device())?))
    }
}
