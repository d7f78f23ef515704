//! The functions of this room written with plain candle operations: slow, any float type, any device.

use candle_core::{D, DType, Result, Tensor};

use super::kernels::attention::Heads;
use super::kernels::layers::Activation;
use super::log_prob::TokenLogProbs;
use super::ragged::Ragged;

/// See [`super::linear()`]
pub fn linear(x: &Tensor, w: &Tensor, b: &Tensor) -> Result<Tensor> {
    x.matmul(w)?.broadcast_add(b)
}

/// See [`super::layer_norm`]
pub fn layer_norm(x: &Tensor, w: &Tensor, b: &Tensor, eps: f64) -> Result<Tensor> {
    let centred = x.broadcast_sub(&x.mean_keepdim(D::Minus1)?)?;
    let variance = centred.sqr()?.mean_keepdim(D::Minus1)?;
    centred.broadcast_div(&(variance + eps)?.sqrt()?)?.broadcast_mul(w)?.broadcast_add(b)
}

/// See [`super::activation()`]
pub fn activation(kind: Activation, x: &Tensor) -> Result<Tensor> {
    match kind {
        Activation::GeluTanh => gelu_tanh(x),
        // candle's own `gelu_erf` has a gradient with six digits
        Activation::Gelu => (x * 0.5)? * ((x / std::f64::consts::SQRT_2)?.erf()? + 1.0)?,
        Activation::Relu => x.relu(),
        Activation::Silu => x.silu(),
        Activation::Tanh => x.tanh(),
    }
}

fn gelu_tanh(x: &Tensor) -> Result<Tensor> {
    let inner = ((x + (x.mul(x)?.mul(x)? * 0.044_715)?)? * (2.0 / std::f64::consts::PI).sqrt())?;
    (x * 0.5)? * (inner.tanh()? + 1.0)?
}

/// See [`super::log_sigmoid()`]; log-sum-exp over (x, 0) has the right gradient at 0, where min and |x| have not
pub fn log_sigmoid(x: &Tensor) -> Result<Tensor> {
    let both = Tensor::stack(&[x, &x.zeros_like()?], D::Minus1)?;
    x - both.log_sum_exp(D::Minus1)?
}

/// See [`super::embedding()`]
pub fn embedding(wte: &Tensor, wpe: &Tensor, ids: &[u32], positions: &[u32]) -> Result<Tensor> {
    let ids = Tensor::new(ids, wte.device())?;
    let positions = Tensor::new(positions, wpe.device())?;
    wte.index_select(&ids, 0)? + wpe.index_select(&positions, 0)?
}

/// See [`super::causal_attention`]; dropout takes the same masks from the same keys
pub fn causal_attention(qkv: &Tensor, layout: &Ragged, heads: Heads) -> Result<Tensor> {
    let (_, c3) = qkv.dims2()?;
    let (h, d) = (heads.count, heads.dim);
    let rows = |segment: usize, part: usize| -> Result<Tensor> {
        let s = layout.segments()[segment];
        // (len, C) → (H, len, D)
        qkv.narrow(0, s.start, s.len)?
            .narrow(1, part * c3 / 3, c3 / 3)?
            .reshape((s.len, h, d))?
            .transpose(0, 1)?
            .contiguous()
    };
    let mut out = Vec::new();
    for (i, segment) in layout.segments().iter().enumerate() {
        let prefix = layout.prefix_len(segment);
        let with_prefix = |part: usize| -> Result<Tensor> {
            match segment.prefix {
                Some(p) => Tensor::cat(&[rows(p, part)?, rows(i, part)?], 1),
                None => rows(i, part),
            }
        };
        let (q, k, v) = (rows(i, 0)?, with_prefix(1)?, with_prefix(2)?);
        let keys = prefix + segment.len;
        let mask: Vec<f32> = (0..segment.len)
            .flat_map(|r| (0..keys).map(move |key| if key <= prefix + r { 0.0 } else { -1e9 }))
            .collect();
        let mask = Tensor::from_vec(mask, (1, segment.len, keys), qkv.device())?.to_dtype(qkv.dtype())?;
        let scores = (q.matmul(&k.t()?)? * f64::from(heads.scale))?.broadcast_add(&mask)?;
        let mut p = candle_nn::ops::softmax(&scores, D::Minus1)?; // (H, len, keys)
        if let Some(dropout) = heads.dropout {
            let factors: Vec<f32> = (0..h)
                .flat_map(|head| (0..segment.len).map(move |r| (head, r)))
                .flat_map(|(head, r)| {
                    let first = ((((segment.start + r) * h + head) as u64) << 24) + (1 << 60);
                    (0..keys as u64).map(move |key| dropout.factor(first + key))
                })
                .collect();
            p = p.mul(&Tensor::from_vec(factors, p.shape(), p.device())?.to_dtype(p.dtype())?)?;
        }
        out.push(p.matmul(&v)?.transpose(0, 1)?.reshape((segment.len, h * d))?);
    }
    Tensor::cat(&out, 0)
}

/// See [`super::token_log_probs`]
pub fn token_log_probs(
    h: &Tensor,
    w: &Tensor,
    rows: &[u32],
    targets: &[u32],
    temperature: f64,
) -> Result<TokenLogProbs> {
    let hidden = h.index_select(&Tensor::new(rows, h.device())?, 0)?;
    let logits = (hidden.matmul(&w.t()?)? / temperature)?; // (M, V)
    let log_p = candle_nn::ops::log_softmax(&logits, D::Minus1)?;
    let index = Tensor::new(targets, h.device())?.unsqueeze(1)?;
    let log_probs = log_p.gather(&index, 1)?.squeeze(1)?;
    let entropy = log_p.exp()?.mul(&log_p)?.sum(D::Minus1)?.neg()?;
    let argmax = logits.argmax(D::Minus1)?.to_vec1::<u32>()?;
    let top1 = argmax.iter().zip(targets).map(|(a, t)| a == t).collect();
    let mean_logits = logits.mean(D::Minus1)?.to_dtype(DType::F32)?.to_vec1()?;
    Ok(TokenLogProbs { log_probs, entropy, top1, mean_logits })
}
