//! Token plus position embeddings.

use candle_core::{CpuStorage, CustomOp2, Layout, Result, Shape, Tensor, bail};

use super::kernels::{buffer, vector};
use super::{composed, view};

/// h_n = wte[ids_n] + wpe[positions_n]
///
/// # Shapes
/// wte (V, C), wpe (P, C), ids and positions (N,) → (N, C)
///
/// # Errors
/// An id not below V or a position not below P
pub fn embedding(wte: &Tensor, wpe: &Tensor, ids: &[u32], positions: &[u32]) -> Result<Tensor> {
    let ((v, c), (p, c2)) = (wte.dims2()?, wpe.dims2()?);
    if c != c2 || ids.len() != positions.len() {
        bail!(
            "embedding: expected wpe ({p}, {c}) and as many positions as ids, got ({p}, {c2}) and {}",
            positions.len()
        );
    }
    if let Some(id) = ids.iter().find(|&&id| id as usize >= v) {
        bail!("token id {id} lies outside the model's vocabulary of {v}");
    }
    if let Some(position) = positions.iter().find(|&&position| position as usize >= p) {
        bail!("position {position} lies outside the model's {p} positions");
    }
    if view::has_kernel(wte) {
        let op = Embedding { ids: ids.to_vec(), positions: positions.to_vec() };
        wte.contiguous()?.apply_op2(&wpe.contiguous()?, op)
    } else {
        composed::embedding(wte, wpe, ids, positions)
    }
}

struct Embedding {
    ids: Vec<u32>,
    positions: Vec<u32>,
}

impl CustomOp2 for Embedding {
    fn name(&self) -> &'static str {
        "embedding"
    }

    fn cpu_fwd(&self, wte: &CpuStorage, lt: &Layout, wpe: &CpuStorage, lp: &Layout) -> Result<(CpuStorage, Shape)> {
        let (_, c) = lt.shape().dims2()?;
        let (wte, wpe) = (view::slice("embedding", wte, lt)?, view::slice("embedding", wpe, lp)?);
        let mut h = buffer(self.ids.len() * c);
        for ((h, &id), &position) in h.chunks_mut(c).zip(&self.ids).zip(&self.positions) {
            h.copy_from_slice(&wte[id as usize * c..][..c]);
            vector::add(h, &wpe[position as usize * c..][..c]);
        }
        Ok((CpuStorage::F32(h), (self.ids.len(), c).into()))
    }

    fn bwd(&self, wte: &Tensor, wpe: &Tensor, _h: &Tensor, grad: &Tensor) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let c = wte.dim(1)?;
        let scatter = |rows: &[u32], size: usize| {
            view::with("embedding", grad, |g| {
                let mut d = buffer(size);
                for (g, &row) in g.chunks(c).zip(rows) {
                    vector::add(&mut d[row as usize * c..][..c], g);
                }
                Ok(d)
            })
        };
        let (dt, dp) = (scatter(&self.ids, wte.elem_count())?, scatter(&self.positions, wpe.elem_count())?);
        Ok((
            Some(Tensor::from_vec(dt, wte.shape(), wte.device())?),
            Some(Tensor::from_vec(dp, wpe.shape(), wpe.device())?),
        ))
    }
}
