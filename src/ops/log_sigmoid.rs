//! log σ(x) with the right gradient everywhere.

use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor};

use super::{composed, view};

/// log σ(x) = min(x, 0) − log(1 + e^{−|x|}), with gradient σ(−x)
///
/// The formula in plain candle operations has gradient 1 instead of ½ at exactly 0, where DPO starts, because |x| and
/// min are given the slope of their right branch there.
///
/// # Shapes
/// any → the same
pub fn log_sigmoid(x: &Tensor) -> Result<Tensor> {
    if view::has_kernel(x) { x.contiguous()?.apply_op1(LogSigmoid) } else { composed::log_sigmoid(x) }
}

struct LogSigmoid;

impl CustomOp1 for LogSigmoid {
    fn name(&self) -> &'static str {
        "log_sigmoid"
    }

    fn cpu_fwd(&self, x: &CpuStorage, l: &Layout) -> Result<(CpuStorage, Shape)> {
        let x = view::slice("log_sigmoid", x, l)?;
        let y = x.iter().map(|&x| x.min(0.0) - (-x.abs()).exp().ln_1p()).collect();
        Ok((CpuStorage::F32(y), l.shape().clone()))
    }

    fn bwd(&self, x: &Tensor, _y: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        let grad = grad.contiguous()?;
        let (x_values, g) = (view::Values::new(x)?, view::Values::new(&grad)?);
        // σ(−x) without overflow on either side
        let slope = |x: f32| if x > 0.0 { (-x).exp() / (1.0 + (-x).exp()) } else { 1.0 / (1.0 + x.exp()) };
        let dx: Vec<f32> = x_values.iter().zip(g.iter()).map(|(&x, g)| g * slope(x)).collect();
        Ok(Some(Tensor::from_vec(dx, x.shape(), x.device())?))
    }
}
