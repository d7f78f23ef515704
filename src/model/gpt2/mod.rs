//! GPT-2: trainable forward pass on ragged batches.
//!
//! Radford et al. 2019. Numerically equal to transformers' `GPT2LMHeadModel`, which is what its weights are trained for.
//! Sequences never see each other: a token's hidden state does not depend on what shares the batch.

mod block;
pub mod cached;
mod fused;
pub(super) mod init;
pub mod packed;

use std::path::Path;
use std::sync::Arc;

use candle_core::{Tensor, Var};

use self::block::{Block, Norm};
use self::fused::Fused;
use super::config::{Architecture, Gpt2Config};
use super::{Trainable, weights};
use crate::ops::kernels::noise::mix;
use crate::ops::{self, Dropout, GradientSums, Precision, Ragged, TokenLogProbs, Weight};
use crate::{Error, Result};

/// Names and shapes of all tensors of a GPT-2 backbone and, where it is not tied, its head, in transformers' order
pub fn tensors(config: &Gpt2Config) -> Vec<(String, Vec<usize>)> {
    let (c, inner) = (config.n_embd, config.inner_size());
    let mut list = vec![
        ("transformer.wte.weight".to_owned(), vec![config.vocab_size, c]),
        ("transformer.wpe.weight".to_owned(), vec![config.n_positions, c]),
    ];
    for i in 0..config.n_layer {
        let mut layer = |name: &str, shape: &[usize]| list.push((format!("transformer.h.{i}.{name}"), shape.to_vec()));
        layer("ln_1.weight", &[c]);
        layer("ln_1.bias", &[c]);
        layer("attn.c_attn.weight", &[c, 3 * c]);
        layer("attn.c_attn.bias", &[3 * c]);
        layer("attn.c_proj.weight", &[c, c]);
        layer("attn.c_proj.bias", &[c]);
        layer("ln_2.weight", &[c]);
        layer("ln_2.bias", &[c]);
        layer("mlp.c_fc.weight", &[c, inner]);
        layer("mlp.c_fc.bias", &[inner]);
        layer("mlp.c_proj.weight", &[inner, c]);
        layer("mlp.c_proj.bias", &[c]);
    }
    list.push(("transformer.ln_f.weight".to_owned(), vec![c]));
    list.push(("transformer.ln_f.bias".to_owned(), vec![c]));
    if !config.tie_word_embeddings {
        list.push(("lm_head.weight".to_owned(), vec![config.vocab_size, c]));
    }
    list
}

/// A GPT-2 with a language-model head
pub struct Gpt2 {
    config: Gpt2Config,
    /// Every weight under its transformers name, in the order of [`tensors`]
    weights: Vec<(String, Tensor)>,
    /// The same weights as variables; empty for a frozen model
    vars: Vec<(String, Var)>,
    wte: Tensor,
    wpe: Tensor,
    blocks: Vec<Block>,
    ln_f: Norm,
    lm_head: Weight,
    /// The hand-written passes; None in the oracle of single operations
    fused: Option<Fused>,
    sums: Arc<GradientSums>,
    precision: Precision,
}

impl Gpt2 {
    /// A trainable model from a folder in Hugging Face layout
    pub fn load(folder: &Path) -> Result<Self> {
        let config = Gpt2Config::load(folder)?;
        let wanted = tensors(&config);
        let mut found = weights::load(folder, &wanted, &[])?;
        let mut list = Vec::with_capacity(wanted.len());
        for (name, _) in wanted {
            let tensor =
                found.remove(&name).ok_or_else(|| Error::usage(format!("the model has no tensor `{name}`")))?;
            list.push((name, tensor));
        }
        Self::trainable(config, list)
    }

    /// A trainable model with random weights, as transformers initialises it, drawn from `seed`
    pub fn from_scratch(config: Gpt2Config, seed: u64) -> Result<Self> {
        config.validate()?;
        let list = init::weights(&config, seed)?;
        Self::trainable(config, list)
    }

    /// A trainable model of these tensors, named and ordered as [`tensors`] says
    pub(super) fn trainable(config: Gpt2Config, list: Vec<(String, Tensor)>) -> Result<Self> {
        let mut vars = Vec::with_capacity(list.len());
        for (name, tensor) in list {
            vars.push((name, Var::from_tensor(&tensor)?));
        }
        let weights = vars.iter().map(|(name, var)| (name.clone(), var.as_tensor().clone())).collect();
        let sums = Arc::new(GradientSums::new(vars.len()));
        Ok(Self { vars, ..Self::assemble(config, weights, sums, Precision::F32)? })
    }

    fn assemble(
        config: Gpt2Config,
        weights: Vec<(String, Tensor)>,
        sums: Arc<GradientSums>,
        precision: Precision,
    ) -> Result<Self> {
        let get = |name: &str| -> Result<Tensor> {
            weights
                .iter()
                .find(|(known, _)| known == name)
                .map(|(_, tensor)| tensor.clone())
                .ok_or_else(|| Error::run(format!("the model has no tensor `{name}`")))
        };
        let wte = get("transformer.wte.weight")?;
        let wpe = get("transformer.wpe.weight")?;
        let eps = config.layer_norm_epsilon;
        let norm = |name: &str| -> Result<Norm> {
            Ok(Norm { weight: get(&format!("{name}.weight"))?, bias: get(&format!("{name}.bias"))?, eps })
        };
        let blocks = (0..config.n_layer)
            .map(|i| Block::new(&config, i, &format!("transformer.h.{i}"), &get, &norm))
            .collect::<Result<Vec<_>>>()?;
        let ln_f = norm("transformer.ln_f")?;
        let lm_head = if config.tie_word_embeddings { wte.clone() } else { get("lm_head.weight")? };
        let fused = Some(Fused::new(&wte, &wpe, &blocks, &ln_f, &sums, precision)?);
        // The head is the token embedding, weight 0, or the last weight
        let place = if config.tie_word_embeddings { 0 } else { weights.len() - 1 };
        let sum = (!sums.is_empty()).then(|| (sums.clone(), place));
        let lm_head = Weight { values: lm_head.detach(), sum, precision };
        Ok(Self { config, weights, vars: Vec::new(), wte, wpe, blocks, ln_f, lm_head, fused, sums, precision })
    }

    /// The same model, whose matrix products round their operands as `precision` says; weights stay f32
    pub fn with_precision(self, precision: Precision) -> Result<Self> {
        Ok(Self { vars: self.vars, ..Self::assemble(self.config, self.weights, self.sums, precision)? })
    }

    /// The same weights in the same memory, without gradients: for evaluation, generation, a reference at the start
    pub fn detached(&self) -> Result<Self> {
        let weights = self.weights.iter().map(|(name, tensor)| (name.clone(), tensor.detach())).collect();
        Self::assemble(self.config.clone(), weights, Arc::default(), self.precision)
    }

    /// A copy of the weights as they are now, without gradients: a reference that training does not move
    pub fn frozen_copy(&self) -> Result<Self> {
        self.with_weights(|_, tensor| Ok(tensor.copy()?))
    }

    /// A frozen model of the same shape whose weights `change` makes of these, name by name in the order of
    /// [`Self::weights`]
    pub fn with_weights(&self, mut change: impl FnMut(&str, &Tensor) -> Result<Tensor>) -> Result<Self> {
        let weights = self
            .weights
            .iter()
            .map(|(name, tensor)| Ok((name.clone(), change(name, tensor)?.detach())))
            .collect::<Result<Vec<_>>>()?;
        Self::assemble(self.config.clone(), weights, Arc::default(), self.precision)
    }

    /// How operands of matrix products are rounded
    pub fn precision(&self) -> Precision {
        self.precision
    }

    /// Shape and constants
    pub fn config(&self) -> &Gpt2Config {
        &self.config
    }

    /// All weights by name
    pub fn weights(&self) -> &[(String, Tensor)] {
        &self.weights
    }

    /// The LM head's matrix, (V, C)
    pub fn lm_head(&self) -> &Tensor {
        &self.lm_head.values
    }

    /// A model of the same variables whose passes are made of single operations of candle's graph: the oracle of the
    /// hand-written ones
    pub fn composed(&self) -> Result<Self> {
        let mut model = Self::assemble(self.config.clone(), self.weights.clone(), Arc::default(), Precision::F32)?;
        model.fused = None;
        let head = if model.config.tie_word_embeddings { &self.weights.first() } else { &self.weights.last() };
        if let Some((_, values)) = head {
            model.lm_head.values = values.clone();
        }
        model.vars.clone_from(&self.vars);
        Ok(model)
    }

    /// Number of parameters, shared ones counted once
    pub fn parameter_count(&self) -> usize {
        self.weights.iter().map(|(_, tensor)| tensor.elem_count()).sum()
    }

    /// Final hidden states after `ln_f`, one row a token
    ///
    /// `dropout_key` turns the config's dropouts on, with masks drawn from that key; None is evaluation.
    ///
    /// # Shapes
    /// ids (N,) laid out by `layout` → (N, C)
    pub fn hidden(&self, ids: &[u32], layout: &Arc<Ragged>, dropout_key: Option<u64>) -> candle_core::Result<Tensor> {
        self.hidden_watched(ids, layout, dropout_key, |_, _| ())
    }

    /// Hidden states after the first block and after `ln_f`: what the features of a prompt are made of
    ///
    /// # Shapes
    /// ids (N,) laid out by `layout` → two of (N, C)
    pub fn first_and_last(&self, ids: &[u32], layout: &Arc<Ragged>) -> candle_core::Result<(Tensor, Tensor)> {
        let mut first = None;
        let last = self.hidden_watched(ids, layout, None, |i, x| {
            if i == 0 {
                first = Some(x.clone());
            }
        })?;
        Ok((first.unwrap_or_else(|| last.clone()), last))
    }

    /// `watch` sees the number and result of each block
    fn hidden_watched(
        &self,
        ids: &[u32],
        layout: &Arc<Ragged>,
        dropout_key: Option<u64>,
        mut watch: impl FnMut(usize, &Tensor),
    ) -> candle_core::Result<Tensor> {
        let site = |site: u64, p: f64| {
            dropout_key.filter(|_| p > 0.0).map(|key| Dropout { p: p as f32, key: mix(key ^ mix(site)) })
        };
        let mut x = match &self.fused {
            Some(fused) => fused.embed(ids, &layout.positions())?,
            None => ops::embedding(&self.wte, &self.wpe, ids, &layout.positions())?,
        }; // (N, C)
        if let Some(dropout) = site(0, self.config.embd_pdrop) {
            x = ops::dropout(&x, dropout)?;
        }
        for (i, block) in self.blocks.iter().enumerate() {
            let at = |k: u64, p: f64| site(1 + 3 * i as u64 + k, p);
            let (attention, residual) = (self.config.attn_pdrop, self.config.resid_pdrop);
            let dropouts = [at(0, attention), at(1, residual), at(2, residual)];
            x = match &self.fused {
                Some(fused) => fused.block(i, &x, layout, dropouts)?,
                None => block.forward(&x, layout, dropouts)?,
            };
            watch(i, &x);
        }
        match &self.fused {
            Some(fused) => fused.final_norm(&x),
            None => self.ln_f.forward(&x),
        }
    }

    /// log p of `targets[i]` after the token at `rows[i]`, with entropy and side figures; see [`ops::token_log_probs`]
    pub fn token_log_probs(
        &self,
        hidden: &Tensor,
        rows: &[u32],
        targets: &[u32],
        temperature: f64,
    ) -> candle_core::Result<TokenLogProbs> {
        ops::token_log_probs(hidden, &self.lm_head, rows, targets, temperature)
    }
}

impl Trainable for Gpt2 {
    /// Empty for a frozen model
    fn vars(&self) -> &[(String, Var)] {
        &self.vars
    }

    fn gradients(&self) -> &Arc<GradientSums> {
        &self.sums
    }

    fn save(&self, folder: &Path) -> Result<()> {
        self.config.save(folder, Architecture::LmHead)?;
        weights::save(folder, &self.weights)
    }

    fn restore(&self, folder: &Path) -> Result<()> {
        let found = weights::load(folder, &tensors(&self.config), &[])?;
        for (name, var) in &self.vars {
            if let Some(tensor) = found.get(name) {
                var.set(tensor)?;
            }
        }
        Ok(())
    }
}
