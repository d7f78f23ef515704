//! Token plus position embeddings.

use candle_core::{CpuStorage, CustomOp2, Layout, Result, Shape, Tensor, bail};

use super::kernels::layers;
use super::{composed, view};

/// `h_n = wte[ids_n] + wpe[positions_n]`
///
/// # Shapes
/// wte (V, C), wpe (P, C), ids and positions (N,) → (N, C)
///
/// # Errors
/// An id not below V or a position not below P
pub fn embedding(wte: &Tensor, wpe: &Tensor, ids: &[u32], positions: &[u32]) -> Result<Tensor> {
    check_embedding(wte, wpe, ids, positions)?;
    if view::has_kernel(wte) {
        let op = Embedding { ids: ids.to_vec(), positions: positions.to_vec() };
        wte.contiguous()?.apply_op2(&wpe.contiguous()?, op)
    } else {
        composed::embedding(wte, wpe, ids, positions)
    }
}

/// Refuses ids and positions that the tables do not have; returns the width C
pub fn check_embedding(wte: &Tensor, wpe: &Tensor, ids: &[u32], positions: &[u32]) -> Result<usize> {
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
    Ok(c)
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
        let h = layers::embedding(wte, wpe, c, &self.ids, &self.positions);
        Ok((CpuStorage::F32(h), (self.ids.len(), c).into()))
    }

    fn bwd(&self, wte: &Tensor, wpe: &Tensor, _h: &Tensor, grad: &Tensor) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let c = wte.dim(1)?;
        let grad = grad.contiguous()?;
        let g = view::Values::new(&grad)?;
        let (mut dt, mut dp) = (vec![0.0; wte.elem_count()], vec![0.0; wpe.elem_count()]);
        layers::scatter_rows(&g, &self.ids, c, &mut dt);
        layers::scatter_rows(&g, &self.positions, c, &mut dp);
        Ok((
            Some(Tensor::from_vec(dt, wte.shape(), wte.device())?),
            Some(Tensor::from_vec(dp, wpe.shape(), wpe.device())?),
        ))
    }
}
