//! Log-probabilities of chosen tokens, on just the positions that a loss needs.

use std::sync::{Arc, Mutex, OnceLock};

use candle_core::{CpuStorage, CustomOp2, Layout, Result, Shape, Tensor, bail};
use rayon::prelude::*;

use super::kernels::matmul::{Mat, matmul};
use super::kernels::{buffer, vector};
use super::{composed, view};

/// Logits that exist at one time: 16 Mi numbers, 64 MiB
const LOGITS: usize = 1 << 24;

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

/// log softmax(h_r·Wᵀ/T)[t] for each pair (r, t) of `rows` and `targets`
///
/// The head runs on the listed rows only (a row may be listed more than once), in chunks whose logits are recomputed in
/// the backward pass: the full (N, V) matrix never exists.
///
/// # Shapes
/// h (N, C), w (V, C), rows and targets (M,) → (M,) each
///
/// # Errors
/// A row not below N, a target not below V, a temperature that is not positive
pub fn token_log_probs(
    h: &Tensor,
    w: &Tensor,
    rows: &[u32],
    targets: &[u32],
    temperature: f64,
) -> Result<TokenLogProbs> {
    let ((n, c), (v, wc)) = (h.dims2()?, w.dims2()?);
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
        return composed::token_log_probs(h, w, rows, targets, temperature);
    }
    let side = Arc::new(Mutex::new((Vec::new(), Vec::new())));
    let op = LogProb {
        rows: rows.to_vec(),
        targets: targets.to_vec(),
        inverse_temperature: (1.0 / temperature) as f32,
        lse: OnceLock::new(),
        side: side.clone(),
    };
    let both = h.contiguous()?.apply_op2(&w.contiguous()?, op)?; // (2, M)
    let (top1, mean_logits) = std::mem::take(&mut *side.lock().unwrap_or_else(std::sync::PoisonError::into_inner));
    Ok(TokenLogProbs { log_probs: both.get(0)?, entropy: both.get(1)?, top1, mean_logits })
}

struct LogProb {
    rows: Vec<u32>,
    targets: Vec<u32>,
    inverse_temperature: f32,
    /// Log-sum-exp and entropy of every pair, for the backward pass
    lse: OnceLock<Vec<(f32, f32)>>,
    side: Arc<Mutex<(Vec<bool>, Vec<f32>)>>,
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

impl LogProb {
    /// Calls `f(first pair, hidden rows, logits)` for chunks of pairs; `f` may overwrite the logits
    fn for_each_chunk(&self, h: &[f32], w: &[f32], c: usize, mut f: impl FnMut(usize, &[f32], &mut [f32])) {
        let v = w.len() / c;
        let chunk = (LOGITS / v).clamp(1, self.rows.len().max(1));
        let (mut hidden, mut logits) = (buffer(chunk * c), buffer(chunk * v));
        for (i, rows) in self.rows.chunks(chunk).enumerate() {
            let m = rows.len();
            for (to, &row) in hidden.chunks_mut(c).zip(rows) {
                to.copy_from_slice(&h[row as usize * c..][..c]);
            }
            let (hidden, logits) = (&hidden[..m * c], &mut logits[..m * v]);
            matmul(m, v, c, self.inverse_temperature, Mat::rows(hidden, c), Mat::rows(w, c).t(), logits, v, false);
            f(i * chunk, hidden, logits);
        }
    }
}

impl CustomOp2 for LogProb {
    fn name(&self) -> &'static str {
        "token_log_probs"
    }

    fn cpu_fwd(&self, h: &CpuStorage, lh: &Layout, w: &CpuStorage, lw: &Layout) -> Result<(CpuStorage, Shape)> {
        let (v, c) = lw.shape().dims2()?;
        let (h, w) = (view::slice("token_log_probs", h, lh)?, view::slice("token_log_probs", w, lw)?);
        let m = self.rows.len();
        let mut sums = Vec::with_capacity(m);
        self.for_each_chunk(h, w, c, |_, _, logits| {
            let first = sums.len();
            let targets = &self.targets[first..first + logits.len() / v];
            sums.par_extend(logits.par_chunks(v).zip(targets).map(|(row, &target)| row_sums(row, target as usize)));
        });
        let mut out = Vec::with_capacity(2 * m);
        out.extend(sums.iter().map(|s| s.log_prob));
        out.extend(sums.iter().map(|s| s.entropy));
        let _ = self.lse.set(sums.iter().map(|s| (s.lse, s.entropy)).collect());
        *self.side.lock().unwrap_or_else(std::sync::PoisonError::into_inner) =
            (sums.iter().map(|s| s.top1).collect(), sums.iter().map(|s| s.mean).collect());
        Ok((CpuStorage::F32(out), (2, m).into()))
    }

    fn bwd(&self, h: &Tensor, w: &Tensor, _y: &Tensor, grad: &Tensor) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let ((n, c), (v, _)) = (h.dims2()?, w.dims2()?);
        let Some(lse) = self.lse.get() else { bail!("token_log_probs: backward before forward") };
        let m = self.rows.len();
        let (dh, dw) = view::with("token_log_probs", h, |h| {
            view::with("token_log_probs", w, |w| {
                view::with("token_log_probs", grad, |g| {
                    let (mut dh, mut dw) = (buffer(n * c), buffer(v * c));
                    let mut dx = Vec::new();
                    self.for_each_chunk(h, w, c, |first, hidden, logits| {
                        logits.par_chunks_mut(v).enumerate().for_each(|(i, row)| {
                            let i = first + i;
                            let (lse, entropy) = lse[i];
                            vector::log_prob_backward(row, lse, entropy, g[i], g[m + i]);
                            row[self.targets[i] as usize] += g[i];
                        });
                        let rows = logits.len() / v;
                        let (d, t) = (Mat::rows(logits, v), self.inverse_temperature);
                        dx.resize(rows * c, 0.0);
                        matmul(rows, c, v, t, d, Mat::rows(w, c), &mut dx, c, false);
                        matmul(v, c, rows, t, d.t(), Mat::rows(hidden, c), &mut dw, c, true);
                        for (from, &row) in dx.chunks(c).zip(&self.rows[first..first + rows]) {
                            vector::add(&mut dh[row as usize * c..][..c], from);
                        }
                    });
                    Ok((dh, dw))
                })
            })
        })?;
        Ok((Some(Tensor::from_vec(dh, (n, c), h.device())?), Some(Tensor::from_vec(dw, (v, c), w.device())?)))
    }
}
