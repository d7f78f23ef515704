//! Decoding with a key-value cache, outside autograd: new tokens of many sequences at once.

use super::packed::PackedGpt2;
use crate::ops::kernels::cache::{KvCache, NewRows};
use crate::ops::kernels::team::Team;
use crate::ops::kernels::{layers, vector};
use crate::ops::view::Values;
use crate::{Error, Result};

/// Elements of a loop over them that one thread takes at a time
const BLOCK: usize = 1 << 11;

/// New tokens of the sequence in one slot
#[derive(Clone, Debug)]
pub struct NewTokens {
    /// Which slot of the cache
    pub slot: usize,
    /// Its next tokens, at least one
    pub ids: Vec<u32>,
}

/// What a model says after the last token of each of some sequences
#[derive(Clone, Debug, Default)]
pub struct Ends {
    /// States after `ln_f`, (sequences, C)
    pub hidden: Vec<f32>,
    /// (sequences, V)
    pub logits: Vec<f32>,
}

/// A model with a key-value cache for a fixed number of sequences of bounded length
pub struct Decoder<'a> {
    model: &'a PackedGpt2,
    /// One for each block
    caches: Vec<KvCache>,
    capacity: usize,
    lengths: Vec<usize>,
}

impl<'a> Decoder<'a> {
    /// `slots` sequences of at most `capacity` tokens each
    pub fn new(model: &'a PackedGpt2, slots: usize, capacity: usize) -> Self {
        let cache = |heads| KvCache::new(heads, slots, capacity, model.precision);
        let caches = model.blocks.iter().map(|block| cache(block.heads)).collect();
        Self { model, caches, capacity, lengths: vec![0; slots] }
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
        self.caches.iter_mut().for_each(|cache| cache.copy(from, to));
        self.lengths[to] = self.lengths[from];
    }

    /// Runs the new tokens and returns logits after the last one of each sequence, (sequences, V)
    ///
    /// What a sequence gives does not depend on what shares the batch, to the byte.
    ///
    /// # Errors
    /// A token outside the vocabulary, a sequence longer than the capacity or than the model's positions
    pub fn forward(&mut self, new: &[NewTokens]) -> Result<Vec<f32>> {
        Ok(self.forward_ends(new)?.logits)
    }

    /// [`Self::forward`], with the states that the logits are computed from
    pub fn forward_ends(&mut self, new: &[NewTokens]) -> Result<Ends> {
        let sequences = self.place(new)?;
        let mut x = self.embed(new)?; // (N, C)
        let (model, caches) = (self.model, &mut self.caches);
        let config = &model.config;
        let c = config.n_embd;
        let largest = (x.len() * config.inner_size()).max(sequences.len() * c * config.vocab_size);
        let ends = Team::gather(largest, |team| {
            run_blocks(model, team, caches, &sequences, &mut x);
            let ends = sequences.iter().map(|sequence| sequence.row + sequence.rows - 1);
            let last: Vec<f32> = ends.flat_map(|row| &x[row * c..][..c]).copied().collect();
            let mut hidden = vec![0.0; last.len()];
            model.ln_f.forward(team, &last, &mut hidden);
            let logits = model.head.product(team, sequences.len(), &hidden);
            Ends { hidden, logits }
        });
        for sequence in &sequences {
            self.lengths[sequence.slot] += sequence.rows;
        }
        Ok(ends)
    }

    /// Where the rows of each sequence lie
    fn place(&self, new: &[NewTokens]) -> Result<Vec<NewRows>> {
        let positions = self.model.config.n_positions;
        let mut row = 0;
        let mut sequences = Vec::with_capacity(new.len());
        for tokens in new {
            let (past, rows) = (self.lengths[tokens.slot], tokens.ids.len());
            let len = past + rows;
            if rows == 0 || len > self.capacity || len > positions {
                return Err(Error::run(format!(
                    "a sequence of {len} tokens does not fit: the cache holds {}, the model has {positions} positions",
                    self.capacity
                )));
            }
            sequences.push(NewRows { row, rows, slot: tokens.slot, past });
            row += rows;
        }
        Ok(sequences)
    }

    /// Token plus position embeddings
    fn embed(&self, new: &[NewTokens]) -> Result<Vec<f32>> {
        let c = self.model.config.n_embd;
        let (wte, wpe) = (Values::new(&self.model.wte)?, Values::new(&self.model.wpe)?);
        let mut x = Vec::new();
        for tokens in new {
            let past = self.lengths[tokens.slot];
            for (i, &id) in tokens.ids.iter().enumerate() {
                let Some(token) = wte.get(id as usize * c..(id as usize + 1) * c) else {
                    return Err(Error::run(format!("token id {id} lies outside the model's vocabulary")));
                };
                x.extend(token.iter().zip(&wpe[(past + i) * c..][..c]).map(|(t, p)| t + p));
            }
        }
        Ok(x)
    }
}

/// The residual stream x (N, C) through all blocks
fn run_blocks(model: &PackedGpt2, team: &Team, caches: &mut [KvCache], sequences: &[NewRows], x: &mut [f32]) {
    let (c, f) = (model.config.n_embd, model.config.inner_size());
    let n = x.len() / c;
    // Each block overwrites what the one before it left here: zeroing new ones would be 3 % of a step of 16 rows
    let [mut normed, mut attended, mut added] = [(); 3].map(|()| vec![0.0; n * c]);
    let (mut qkv, mut inner, mut active) = (vec![0.0; n * 3 * c], vec![0.0; n * f], vec![0.0; n * f]);
    for (block, cache) in model.blocks.iter().zip(caches) {
        block.ln_1.forward(team, x, &mut normed);
        block.c_attn.forward(team, n, &normed, &mut qkv);
        cache.attend(team, &qkv, sequences, &mut attended);
        block.attn_proj.forward(team, n, &attended, &mut added);
        add(team, x, &added);
        block.ln_2.forward(team, x, &mut normed);
        block.c_fc.forward(team, n, &normed, &mut inner);
        team.each_block(&mut active, BLOCK, |i, active| {
            layers::activate(model.config.activation_function, &inner[i * BLOCK..][..active.len()], active);
        });
        block.mlp_proj.forward(team, n, &active, &mut added);
        add(team, x, &added);
    }
}

/// y ← y + x
fn add(team: &Team, y: &mut [f32], x: &[f32]) {
    team.each_block(y, BLOCK, |i, y| vector::add(y, &x[i * BLOCK..][..y.len()]));
}
