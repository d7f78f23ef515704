//! Decoding with a key-value cache, outside autograd: new tokens of many sequences at once.

use super::Gpt2;
use super::block::{Block, Conv1d, Norm};
use crate::ops::kernels::attention::{self, CachedRows};
use crate::ops::kernels::matmul::{Mat, matmul};
use crate::ops::kernels::{buffer, layers, vector};
use crate::ops::view::Values;
use crate::{Error, Result};

struct Affine<'a> {
    weight: Values<'a>,
    bias: Values<'a>,
}

impl<'a> Affine<'a> {
    fn of(conv: &'a Conv1d) -> Result<Self> {
        Ok(Self { weight: Values::new(&conv.weight)?, bias: Values::new(&conv.bias)? })
    }

    fn of_norm(norm: &'a Norm) -> Result<Self> {
        Ok(Self { weight: Values::new(&norm.weight)?, bias: Values::new(&norm.bias)? })
    }

    /// (N, I) → (N, O)
    fn linear(&self, x: &[f32]) -> Vec<f32> {
        layers::linear(x, &self.weight, &self.bias)
    }

    fn norm(&self, x: &[f32], eps: f64) -> Vec<f32> {
        layers::layer_norm(x, &self.weight, &self.bias, eps as f32)
    }
}

struct Layer<'a> {
    block: &'a Block,
    ln_1: Affine<'a>,
    c_attn: Affine<'a>,
    attn_proj: Affine<'a>,
    ln_2: Affine<'a>,
    c_fc: Affine<'a>,
    mlp_proj: Affine<'a>,
    /// Keys and values of all slots, (slots·capacity, C)
    keys: Vec<f32>,
    values: Vec<f32>,
}

/// New tokens of the sequence in one slot
#[derive(Clone, Debug)]
pub struct NewTokens {
    /// Which slot of the cache
    pub slot: usize,
    /// Its next tokens, at least one
    pub ids: Vec<u32>,
}

/// A model with a key-value cache for a fixed number of sequences of bounded length
pub struct Decoder<'a> {
    model: &'a Gpt2,
    wte: Values<'a>,
    wpe: Values<'a>,
    layers: Vec<Layer<'a>>,
    ln_f: Affine<'a>,
    lm_head: Values<'a>,
    capacity: usize,
    lengths: Vec<usize>,
}

impl<'a> Decoder<'a> {
    /// `slots` sequences of at most `capacity` tokens each
    pub fn new(model: &'a Gpt2, slots: usize, capacity: usize) -> Result<Self> {
        let cache = slots * capacity * model.config.n_embd;
        let layers = model.blocks.iter().map(|block| {
            Ok(Layer {
                block,
                ln_1: Affine::of_norm(&block.ln_1)?,
                c_attn: Affine::of(&block.c_attn)?,
                attn_proj: Affine::of(&block.attn_proj)?,
                ln_2: Affine::of_norm(&block.ln_2)?,
                c_fc: Affine::of(&block.c_fc)?,
                mlp_proj: Affine::of(&block.mlp_proj)?,
                keys: buffer(cache),
                values: buffer(cache),
            })
        });
        Ok(Self {
            layers: layers.collect::<Result<_>>()?,
            wte: Values::new(&model.wte)?,
            wpe: Values::new(&model.wpe)?,
            ln_f: Affine::of_norm(&model.ln_f)?,
            lm_head: Values::new(&model.lm_head.values)?,
            capacity,
            lengths: vec![0; slots],
            model,
        })
    }

    /// Tokens in a slot
    pub fn len(&self, slot: usize) -> usize {
        self.lengths[slot]
    }

    /// Empties a slot
    pub fn clear(&mut self, slot: usize) {
        self.lengths[slot] = 0;
    }

    /// Gives slot `to` the tokens of slot `from`
    pub fn copy(&mut self, from: usize, to: usize) {
        let c = self.model.config.n_embd;
        let (start, len) = (from * self.capacity * c, self.lengths[from] * c);
        for layer in &mut self.layers {
            for cache in [&mut layer.keys, &mut layer.values] {
                cache.copy_within(start..start + len, to * self.capacity * c);
            }
        }
        self.lengths[to] = self.lengths[from];
    }

    /// Runs the new tokens and returns logits after the last one of each sequence, (sequences, V)
    ///
    /// # Errors
    /// A token outside the vocabulary, a sequence longer than the capacity or than the model's positions
    pub fn forward(&mut self, new: &[NewTokens]) -> Result<Vec<f32>> {
        let config = &self.model.config;
        let c = config.n_embd;
        let mut sequences = Vec::with_capacity(new.len());
        let mut x = Vec::new(); // (N, C)
        for tokens in new {
            let past = self.lengths[tokens.slot];
            let len = past + tokens.ids.len();
            if tokens.ids.is_empty() || len > self.capacity || len > config.n_positions {
                return Err(Error::run(format!(
                    "a sequence of {len} tokens does not fit: the cache holds {}, the model has {} positions",
                    self.capacity, config.n_positions
                )));
            }
            sequences.push(CachedRows {
                row: x.len() / c,
                rows: tokens.ids.len(),
                cache: tokens.slot * self.capacity,
                past,
            });
            for (i, &id) in tokens.ids.iter().enumerate() {
                let Some(token) = self.wte.get(id as usize * c..(id as usize + 1) * c) else {
                    return Err(Error::run(format!("token id {id} lies outside the model's vocabulary")));
                };
                let position = &self.wpe[(past + i) * c..][..c];
                x.extend(token.iter().zip(position).map(|(t, p)| t + p));
            }
        }
        let n = x.len() / c;
        let eps = config.layer_norm_epsilon;
        for layer in &mut self.layers {
            let qkv = layer.c_attn.linear(&layer.ln_1.norm(&x, eps)); // (N, 3C)
            for sequence in &sequences {
                for i in 0..sequence.rows {
                    let row = &qkv[(sequence.row + i) * 3 * c..][..3 * c];
                    let at = (sequence.cache + sequence.past + i) * c;
                    layer.keys[at..at + c].copy_from_slice(&row[c..2 * c]);
                    layer.values[at..at + c].copy_from_slice(&row[2 * c..]);
                }
            }
            let mut attended = buffer(n * c);
            attention::cached(&qkv, &layer.keys, &layer.values, &sequences, layer.block.heads, &mut attended);
            vector::add(&mut x, &layer.attn_proj.linear(&attended));
            let inner = layer.c_fc.linear(&layer.ln_2.norm(&x, eps)); // (N, 4C)
            let inner = layers::activation(layer.block.activation, &inner);
            vector::add(&mut x, &layer.mlp_proj.linear(&inner));
        }
        let mut last = Vec::with_capacity(new.len() * c);
        for (sequence, tokens) in sequences.iter().zip(new) {
            last.extend_from_slice(&x[(sequence.row + sequence.rows - 1) * c..][..c]);
            self.lengths[tokens.slot] += sequence.rows;
        }
        let hidden = self.ln_f.norm(&last, eps);
        let v = config.vocab_size;
        let mut logits = buffer(new.len() * v);
        matmul(new.len(), v, c, 1.0, Mat::rows(&hidden, c), Mat::rows(&self.lm_head, c).t(), &mut logits, v, false);
        Ok(logits)
    }
}
