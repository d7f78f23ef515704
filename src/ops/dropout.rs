//! Dropout whose mask is a function of a key and the element's index.

use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor};

use super::kernels::noise::Dropout;
use super::view;

/// y = m∘x/(1 − p), with m the mask that `dropout`'s key names
///
/// Srivastava et al. 2014, <https://jmlr.org/papers/v15/srivastava14a.html>
///
/// # Shapes
/// any → the same
pub fn dropout(x: &Tensor, dropout: Dropout) -> Result<Tensor> {
    if dropout.p == 0.0 {
        return Ok(x.clone());
    }
    if view::has_kernel(x) {
        x.contiguous()?.apply_op1(Mask(dropout))
    } else {
        let mask: Vec<f32> = (0..x.elem_count() as u64).map(|i| dropout.factor(i)).collect();
        x.mul(&Tensor::from_vec(mask, x.shape(), x.device())?.to_dtype(x.dtype())?)
    }
}

struct Mask(Dropout);

impl CustomOp1 for Mask {
    fn name(&self) -> &'static str {
        "dropout"
    }

    fn cpu_fwd(&self, x: &CpuStorage, l: &Layout) -> Result<(CpuStorage, Shape)> {
        let mut y = view::slice("dropout", x, l)?.to_vec();
        self.0.apply(&mut y, 0);
        Ok((CpuStorage::F32(y), l.shape().clone()))
    }

    fn bwd(&self, _x: &Tensor, _y: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        Ok(Some(grad.contiguous()?.apply_op1_no_bwd(&Self(self.0))?))
    }
}
