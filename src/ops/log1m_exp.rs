//! log(1 − eˣ) with its digits at both ends.

use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor};

use super::view;

/// log(1 − eˣ) for x below 0, with gradient −1/(e^{−x} − 1)
///
/// Plain operations lose the digits of 1 − eˣ near 0, where eˣ rounds to 1.
///
/// # Shapes
/// any → the same
pub fn log1m_exp(x: &Tensor) -> Result<Tensor> {
    if view::has_kernel(x) { x.contiguous()?.apply_op1(Log1mExp) } else { x.exp()?.affine(-1.0, 1.0)?.log() }
}

struct Log1mExp;

impl CustomOp1 for Log1mExp {
    fn name(&self) -> &'static str {
        "log1m_exp"
    }

    fn cpu_fwd(&self, x: &CpuStorage, l: &Layout) -> Result<(CpuStorage, Shape)> {
        let x = view::slice("log1m_exp", x, l)?;
        let value = |&x: &f32| if x < -std::f32::consts::LN_2 { (-x.exp()).ln_1p() } else { (-x.exp_m1()).ln() };
        Ok((CpuStorage::F32(x.iter().map(value).collect()), l.shape().clone()))
    }

    fn bwd(&self, x: &Tensor, _y: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        let grad = grad.contiguous()?;
        let (x_values, g) = (view::Values::new(x)?, view::Values::new(&grad)?);
        let dx: Vec<f32> = x_values.iter().zip(g.iter()).map(|(&x, g)| -g / (-x).exp_m1()).collect();
        Ok(Some(Tensor::from_vec(dx, x.shape(), x.device())?))
    }
}
