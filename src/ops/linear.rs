//! Affine maps in GPT-2's Conv1D layout.

use candle_core::{CpuStorage, CustomOp3, Layout, Result, Shape, Tensor, bail};
use rayon::prelude::*;

use super::kernels::matmul::{Mat, matmul};
use super::kernels::{buffer, vector};
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
        let ((n, i), (_, o)) = (lx.shape().dims2()?, lw.shape().dims2()?);
        let (x, w, b) = (view::slice("linear", x, lx)?, view::slice("linear", w, lw)?, view::slice("linear", b, lb)?);
        let mut y = buffer(n * o);
        y.chunks_mut(o).for_each(|row| row.copy_from_slice(b));
        matmul(n, o, i, 1.0, Mat::rows(x, i), Mat::rows(w, o), &mut y, o, true);
        Ok((CpuStorage::F32(y), (n, o).into()))
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
        let (dx, dw, db) = view::with("linear", x, |x| {
            view::with("linear", w, |w| {
                view::with("linear", grad, |g| {
                    let (mut dx, mut dw) = (buffer(n * i), buffer(i * o));
                    matmul(n, i, o, 1.0, Mat::rows(g, o), Mat::rows(w, o).t(), &mut dx, i, false);
                    matmul(i, o, n, 1.0, Mat::rows(x, i).t(), Mat::rows(g, o), &mut dw, o, false);
                    Ok((dx, dw, column_sums(g, o)))
                })
            })
        })?;
        let device = x.device();
        Ok((
            Some(Tensor::from_vec(dx, (n, i), device)?),
            Some(Tensor::from_vec(dw, (i, o), device)?),
            Some(Tensor::from_vec(db, b.shape(), device)?),
        ))
    }
}

/// Σ over rows of an (N, `cols`) matrix; parallel over blocks of columns, so each sum has one order
pub(super) fn column_sums(g: &[f32], cols: usize) -> Vec<f32> {
    const BLOCK: usize = 256;
    let mut sums = vec![0.0; cols];
    let work = |(block, sums): (usize, &mut [f32])| {
        for row in g.chunks(cols) {
            vector::add(sums, &row[block * BLOCK..block * BLOCK + sums.len()]);
        }
    };
    if g.len() < 1 << 16 {
        sums.chunks_mut(BLOCK).enumerate().for_each(work);
    } else {
        sums.par_chunks_mut(BLOCK).enumerate().for_each(work);
    }
    sums
}
