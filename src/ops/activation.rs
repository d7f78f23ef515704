//! GELU in the tanh form with a fast backward pass.

use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor};
use rayon::prelude::*;

use super::kernels::{buffer, vector};
use super::{composed, view};

/// Elements handled by one task
const BLOCK: usize = 1 << 14;

/// gelu(x) = ½x(1 + tanh(√(2/π)(x + 0.044715x³))), GPT-2's `gelu_new`
///
/// Hendrycks and Gimpel 2016, <https://arxiv.org/abs/1606.08415>
///
/// # Shapes
/// any → the same
pub fn gelu_tanh(x: &Tensor) -> Result<Tensor> {
    if view::has_kernel(x) { x.contiguous()?.apply_op1(GeluTanh) } else { composed::gelu_tanh(x) }
}

struct GeluTanh;

impl CustomOp1 for GeluTanh {
    fn name(&self) -> &'static str {
        "gelu_tanh"
    }

    fn cpu_fwd(&self, x: &CpuStorage, lx: &Layout) -> Result<(CpuStorage, Shape)> {
        let x = view::slice("gelu_tanh", x, lx)?;
        let mut y = buffer(x.len());
        y.par_chunks_mut(BLOCK).zip(x.par_chunks(BLOCK)).for_each(|(y, x)| vector::gelu_tanh(x, y));
        Ok((CpuStorage::F32(y), lx.shape().clone()))
    }

    fn bwd(&self, x: &Tensor, _y: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        let dx = view::with("gelu_tanh", x, |x| {
            view::with("gelu_tanh", grad, |g| {
                let mut dx = buffer(x.len());
                dx.par_chunks_mut(BLOCK)
                    .zip(x.par_chunks(BLOCK))
                    .zip(g.par_chunks(BLOCK))
                    .for_each(|((dx, x), g)| vector::gelu_tanh_backward(x, g, dx));
                Ok(dx)
            })
        })?;
        Ok(Some(Tensor::from_vec(dx, x.shape(), x.device())?))
    }
}
