//! Layer normalisation with a backward pass (candle's own has none).

use candle_core::{CpuStorage, CustomOp3, Layout, Result, Shape, Tensor, bail};
use rayon::prelude::*;

use super::kernels::{buffer, vector};
use super::{composed, view};

/// y = (x − E[x])/√(Var[x] + ε) · w + b over the last dimension, biased variance
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

/// Rows handled by one task
const ROWS: usize = 32;

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
        let (x, w, b) =
            (view::slice("layer_norm", x, lx)?, view::slice("layer_norm", w, lw)?, view::slice("layer_norm", b, lb)?);
        let c = w.len();
        let mut y = buffer(x.len());
        y.par_chunks_mut(c * ROWS).zip(x.par_chunks(c * ROWS)).for_each(|(y, x)| {
            for (y, x) in y.chunks_mut(c).zip(x.chunks(c)) {
                vector::layer_norm(x, w, b, self.eps, y);
            }
        });
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
        let (dx, dw, db) = view::with("layer_norm", x, |x| {
            view::with("layer_norm", w, |w| {
                view::with("layer_norm", grad, |g| {
                    let mut dx = buffer(x.len());
                    // One partial sum per block of rows, added in block order: the same bytes for any thread count
                    let partial: Vec<(Vec<f32>, Vec<f32>)> = dx
                        .par_chunks_mut(c * ROWS)
                        .zip(x.par_chunks(c * ROWS))
                        .zip(g.par_chunks(c * ROWS))
                        .map(|((dx, x), g)| {
                            let (mut dw, mut db) = (vec![0.0; c], vec![0.0; c]);
                            for ((dx, x), g) in dx.chunks_mut(c).zip(x.chunks(c)).zip(g.chunks(c)) {
                                vector::layer_norm_backward(x, w, g, self.eps, dx, &mut dw, &mut db);
                            }
                            (dw, db)
                        })
                        .collect();
                    let (mut dw, mut db) = (vec![0.0; c], vec![0.0; c]);
                    for (w, b) in &partial {
                        vector::add(&mut dw, w);
                        vector::add(&mut db, b);
                    }
                    Ok((dx, dw, db))
                })
            })
        })?;
        let device = x.device();
        Ok((
            Some(Tensor::from_vec(dx, x.shape(), device)?),
            Some(Tensor::from_vec(dw, c, device)?),
            Some(Tensor::from_vec(db, c, device)?),
        ))
    }
}
