//! Log-probabilities of chosen tokens, on just the positions that a loss needs.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use candle_core::{CpuStorage, CustomOp1, CustomOp2, Layout, Result, Shape, Tensor, bail};
use rayon::prelude::*;

use super::kernels::matmul::{Addend, Mat, Precision, Product};
use super::kernels::{layers, vector};
use super::{Weight, composed, view};

/// Logits of one chunk where they are not kept: 16 Mi numbers, 64 MiB
const CHUNK: usize = 1 << 24;
/// Most logits that are kept for the backward pass instead of being computed again: 1 GiB, 5341 positions of GPT-2, whose
/// activations take nearly twice as much
const KEPT: usize = 1 << 28;

/// What the LM head says of M chosen (position, token) pairs
pub struct TokenLogProbs {
    /// log p(target | prefix), natural log, (M,), differentiable
    pub log_probs: Tensor,
    /// Entropy of the whole distribution in nats, (M,), differentiable
    pub entropy: Tensor,
    /// Whether the target has the largest logit (the first one, among equals)
    pub top1: Vec<bool>,
    /// Mean of the logits over the vocabulary
    pub mean_logits: Vec<f32>,
}

/// The t-th entry of log softmax(h_r·Wᵀ/T) for each pair (r, t) of `rows` and `targets`
///
/// The head runs on the listed rows only (a row may be listed more than once). Up to 1 GiB of logits are kept for the
/// backward pass; beyond that they come in chunks and are computed again.
///
/// # Shapes
/// h (N, C), w (V, C), rows and targets (M,) → (M,) each
///
/// # Errors
/// A row not below N, a target not below V, a temperature that is not positive
pub fn token_log_probs(
    h: &Tensor,
    w: &Weight,
    rows: &[u32],
    targets: &[u32],
    temperature: f64,
) -> Result<TokenLogProbs> {
    let ((n, c), (v, wc)) = (h.dims2()?, w.values.dims2()?);
    if c != wc || rows.len() != targets.len() {
        bail!(
            "token_log_probs: expected head (V, {c}) and as many targets as rows, got ({v}, {wc}) and {}",
            targets.len()
        );
    }
    if let Some(row) = rows.iter().find(|&&row| row as usize >= n) {
        bail!("token_log_probs: row {row} lies outside the {n} hidden states");
    }
    if let Some(target) = targets.iter().find(|&&target| target as usize >= v) {
        bail!("token id {target} lies outside the model's vocabulary of {v}");
    }
    if temperature <= 0.0 || !temperature.is_finite() {
        bail!("token_log_probs: the temperature must be positive, got {temperature}");
    }
    if !view::has_kernel(h) {
        return composed::token_log_probs(h, &w.values, rows, targets, temperature);
    }
    let keep = (h.track_op() || w.values.track_op()) && rows.len() * v <= KEPT;
    let saved = Arc::new(Mutex::new(Saved::default()));
    let head = Head {
        rows: rows.to_vec(),
        targets: targets.to_vec(),
        inverse_temperature: (1.0 / temperature) as f32,
        precision: w.precision,
        chunk: if keep { rows.len() } else { CHUNK / v }.max(1),
        keep,
        saved: saved.clone(),
    };
    let h = h.contiguous()?;
    let both = match w.sum {
        Some(_) => h.apply_op1(Summed { head, w: w.clone() })?,
        None => h.apply_op2(&w.values.contiguous()?, head)?,
    }; // (2, M)
    let mut saved = saved.lock().unwrap_or_else(PoisonError::into_inner);
    let (top1, mean_logits) = (std::mem::take(&mut saved.top1), std::mem::take(&mut saved.mean));
    Ok(TokenLogProbs { log_probs: both.get(0)?, entropy: both.get(1)?, top1, mean_logits })
}

/// What the forward pass leaves behind
#[derive(Default)]
struct Saved {
    /// Log-sum-exp and entropy of every pair
    lse: Vec<(f32, f32)>,
    /// All logits, (M, V), where they are kept
    logits: Vec<f32>,
    top1: Vec<bool>,
    mean: Vec<f32>,
}

struct Head {
    rows: Vec<u32>,
    targets: Vec<u32>,
    inverse_temperature: f32,
    precision: Precision,
    /// Pairs whose logits are in memory at a time
    chunk: usize,
    /// Whether the backward pass finds them there; then one chunk has them all
    keep: bool,
    saved: Arc<Mutex<Saved>>,
}

/// Of one row of logits
struct RowSums {
    log_prob: f32,
    lse: f32,
    entropy: f32,
    top1: bool,
    mean: f32,
}

fn row_sums(logits: &[f32], target: usize) -> RowSums {
    let max = vector::max(logits);
    let (sum, weighted, plain) = vector::exp_sums(logits, max);
    let log_sum = sum.ln();
    let z = logits[target];
    RowSums {
        // Relative to the maximum first: log-probabilities near 0 keep their digits
        log_prob: (z - max) - log_sum,
        lse: max + log_sum,
        entropy: log_sum - weighted / sum,
        top1: z >= max && logits[..target].iter().all(|&earlier| earlier < max),
        mean: plain / logits.len() as f32,
    }
}

impl Head {
    fn saved(&self) -> MutexGuard<'_, Saved> {
        self.saved.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Hidden states of some rows, (m, C)
    fn gather(h: &[f32], rows: &[u32], c: usize) -> Vec<f32> {
        let mut hidden = Vec::with_capacity(rows.len() * c);
        for &row in rows {
            hidden.extend_from_slice(&h[row as usize * c..][..c]);
        }
        hidden
    }

    /// (m, V) from hidden states (m, C)
    fn logits(&self, hidden: &[f32], w: &[f32], c: usize) -> Vec<f32> {
        let (m, v) = (hidden.len() / c, w.len() / c);
        let product = Product::new([m, v, c], Mat::rows(hidden, c), Mat::rows(w, c).t());
        self.precision.matmul(product.times(self.inverse_temperature), None)
    }

    /// (2, M): log-probabilities, entropies
    fn forward(&self, h: &[f32], w: &[f32], c: usize) -> Vec<f32> {
        let v = w.len() / c;
        let mut sums = Vec::with_capacity(self.rows.len());
        let mut logits = Vec::new();
        for (rows, targets) in self.rows.chunks(self.chunk).zip(self.targets.chunks(self.chunk)) {
            drop(logits); // before the next ones take as much
            logits = self.logits(&Self::gather(h, rows, c), w, c);
            sums.par_extend(logits.par_chunks(v).zip(targets).map(|(row, &target)| row_sums(row, target as usize)));
        }
        let mut out = Vec::with_capacity(2 * sums.len());
        out.extend(sums.iter().map(|s: &RowSums| s.log_prob));
        out.extend(sums.iter().map(|s| s.entropy));
        *self.saved() = Saved {
            lse: sums.iter().map(|s| (s.lse, s.entropy)).collect(),
            logits: if self.keep { logits } else { Vec::new() },
            top1: sums.iter().map(|s| s.top1).collect(),
            mean: sums.iter().map(|s| s.mean).collect(),
        };
        out
    }

    /// dh (N, C); dW goes to `dw` (V, C), added to what is there where `accumulate`
    fn backward(&self, h: &[f32], w: &[f32], g: &[f32], c: usize, dw: &mut [f32], accumulate: bool) -> Vec<f32> {
        let (v, m) = (w.len() / c, self.rows.len());
        let (mut kept, lse) = {
            let mut saved = self.saved();
            (std::mem::take(&mut saved.logits), saved.lse.clone())
        };
        let mut dh = vec![0.0; h.len()];
        if m == 0 && !accumulate {
            dw.fill(0.0);
        }
        let mut first = 0;
        for rows in self.rows.chunks(self.chunk) {
            let hidden = Self::gather(h, rows, c);
            if kept.len() != rows.len() * v {
                kept = self.logits(&hidden, w, c);
            }
            kept.par_chunks_mut(v).enumerate().for_each(|(i, row)| {
                let i = first + i;
                let (lse, entropy) = lse[i];
                vector::log_prob_backward(row, lse, entropy, g[i], g[m + i]);
                row[self.targets[i] as usize] += g[i];
            });
            let (d, t, n) = (Mat::rows(&kept, v), self.inverse_temperature, rows.len());
            let dx = self.precision.matmul(Product::new([n, c, v], d, Mat::rows(w, c)).times(t), None);
            let addend = if accumulate || first > 0 { Addend::Result } else { Addend::None };
            self.precision.matmul_to(Product::new([v, c, n], d.t(), Mat::rows(&hidden, c)).times(t), dw, addend);
            layers::scatter_rows(&dx, rows, c, &mut dh);
            first += n;
            kept = Vec::new();
        }
        dh
    }
}

impl CustomOp2 for Head {
    fn name(&self) -> &'static str {
        "token_log_probs"
    }

    fn cpu_fwd(&self, h: &CpuStorage, lh: &Layout, w: &CpuStorage, lw: &Layout) -> Result<(CpuStorage, Shape)> {
        let (h, w) = (view::slice("token_log_probs", h, lh)?, view::slice("token_log_probs", w, lw)?);
        let out = self.forward(h, w, lw.shape().dims2()?.1);
        Ok((CpuStorage::F32(out), (2, self.rows.len()).into()))
    }

    fn bwd(&self, h: &Tensor, w: &Tensor, _y: &Tensor, grad: &Tensor) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let grad = grad.contiguous()?;
        let (hs, ws, gs) = (view::Values::new(h)?, view::Values::new(w)?, view::Values::new(&grad)?);
        let mut dw = vec![0.0; ws.len()];
        let dh = self.backward(&hs, &ws, &gs, h.dim(1)?, &mut dw, false);
        Ok((Some(Tensor::from_vec(dh, h.shape(), h.device())?), Some(Tensor::from_vec(dw, w.shape(), w.device())?)))
    }
}

/// The head with its matrix outside candle's graph: dW is summed in place
struct Summed {
    head: Head,
    w: Weight,
}

impl CustomOp1 for Summed {
    fn name(&self) -> &'static str {
        "token_log_probs"
    }

    fn cpu_fwd(&self, h: &CpuStorage, lh: &Layout) -> Result<(CpuStorage, Shape)> {
        let w = view::Values::new(&self.w.values)?;
        let out = self.head.forward(view::slice("token_log_probs", h, lh)?, &w, lh.shape().dims2()?.1);
        Ok((CpuStorage::F32(out), (2, self.head.rows.len()).into()))
    }

    fn bwd(&self, h: &Tensor, _y: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        let grad = grad.contiguous()?;
        let (hs, ws, gs) = (view::Values::new(h)?, view::Values::new(&self.w.values)?, view::Values::new(&grad)?);
        let Some((sums, i)) = &self.w.sum else { bail!("token_log_probs: no place for the gradient") };
        let (c, mut dh) = (h.dim(1)?, Vec::new());
        sums.add(*i, ws.len(), |dw, accumulate| dh = self.head.backward(&hs, &ws, &gs, c, dw, accumulate));
        Ok(Some(Tensor::from_vec(dh, h.shape(), h.device())?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_pairs_leave_a_gradient_of_zero() {
        let (rows, targets, saved) = (Vec::new(), Vec::new(), Arc::default());
        let head =
            Head { rows, targets, inverse_temperature: 1.0, precision: Precision::F32, chunk: 1, keep: true, saved };
        let mut dw = [3.0; 4];
        assert!(head.forward(&[1.0, 2.0], &[1.0; 4], 2).is_empty());
        assert_eq!(head.backward(&[1.0, 2.0], &[1.0; 4], &[], 2, &mut dw, true), [0.0; 2]);
        assert_eq!(dw, [3.0; 4]);
        head.backward(&[1.0, 2.0], &[1.0; 4], &[], 2, &mut dw, false);
        assert_eq!(dw, [0.0; 4]);
    }

    #[test]
    fn chunks_that_are_computed_again_give_what_kept_logits_give() {
        let (rows, v, c) = (7, 11, 5);
        let numbers = |n: usize, seed: f32| (0..n).map(|i| (seed + i as f32 * 0.7).sin()).collect::<Vec<_>>();
        // More hidden states than pairs, one of them in two pairs
        let (h, w, g) = (numbers(9 * c, 0.1), numbers(v * c, 0.2), numbers(2 * rows, 0.3));
        let passes = |chunk: usize, keep: bool, precision: Precision| {
            let head = Head {
                rows: vec![8, 0, 3, 3, 5, 1, 7],
                targets: vec![0, 10, 4, 2, 9, 9, 1],
                inverse_temperature: 0.8,
                precision,
                chunk,
                keep,
                saved: Arc::default(),
            };
            let mut out = head.forward(&h, &w, c);
            let mut dw = vec![1.0; v * c];
            out.extend(head.backward(&h, &w, &g, c, &mut dw, true));
            let mut fresh = vec![f32::NAN; v * c];
            head.backward(&h, &w, &g, c, &mut fresh, false);
            out.into_iter().chain(dw).chain(fresh).collect::<Vec<_>>()
        };
        for (precision, bound) in [(Precision::F32, 1e-6), (Precision::Bf16, 1e-2)] {
            if precision == Precision::Bf16 && !super::super::kernels::bf16_supported() {
                continue;
            }
            let kept = passes(rows, true, precision);
            for chunk in [1, 2, 3, 6, 7, 20] {
                for (at, (again, kept)) in passes(chunk, false, precision).iter().zip(&kept).enumerate() {
                    assert!(
                        (again - kept).abs() <= bound,
                        "{precision:?}, chunks of {chunk}, {at}: {again}, not {kept}"
                    );
                }
            }
        }
    }
}
