//! A field over hidden states that steers the decoder of a model whose weights stay as they are.

use sha2::{Digest, Sha256};

use super::features::Features;
use crate::config::{FieldTokens, GrlKeys};
use crate::files::hex;
use crate::grl::arrays::Owner;
use crate::grl::features::FeatureMap;
use crate::grl::kernel::{Kernel, squared_distance};
use crate::grl::memory::TokenMemory;
use crate::grl::token_field::{TokenField, TokenKernel, steer};
use crate::model::gpt2::Gpt2;
use crate::rollout::{Bend, Moment};
use crate::{Error, Result};

/// States whose distances the length-scale is taken from
const FOR_MEDIAN: usize = 256;

/// Directions of the token embeddings that make two tokens alike
const TOKEN_DIM: usize = 32;

/// How states become features, and the field over them. The particles lie elsewhere
#[derive(Clone)]
pub struct Steering {
    states: FeatureMap,
    /// Of the prompt's features beside those of the state
    prompt_weight: f64,
    field: TokenField,
    length: f64,
    /// Model and feature maps, which the particles belong to
    owner: Owner,
}

impl Steering {
    /// Fits the features of states to `hidden`, states (n, C) at which tokens were chosen, each with its prompt's features
    pub fn fit(
        model: &Gpt2,
        features: &Features,
        hidden: &[f32],
        prompts: &[Vec<f32>],
        keys: &GrlKeys,
    ) -> Result<Self> {
        let width = model.config().n_embd;
        let mut dim = keys.field_dim.min(width);
        let states = loop {
            match FeatureMap::fit(hidden, width, dim, true) {
                Ok(map) => break map,
                Err(cause) if dim == 1 => return Err(cause.context("features for the token field")),
                Err(_) => dim /= 2,
            }
        };
        if dim < keys.field_dim {
            tracing::warn!("the model's states vary in few directions: {dim} features in place of {}", keys.field_dim);
        }
        let weight = keys.field_prompt_weight;
        let stride = prompts.len().div_ceil(FOR_MEDIAN).max(1);
        let rows = hidden.chunks_exact(width).zip(prompts).step_by(stride);
        let sample: Vec<Vec<f32>> =
            rows.map(|(state, prompt)| joined(&states, weight, prompt, state)).collect::<Result<_>>()?;
        let length = keys.field_length * median_distance(&sample);
        Self::new(model, features, states, weight, (length, keys.field_top_k), keys.field_tokens)
    }

    /// With features that were fitted before
    pub fn new(
        model: &Gpt2,
        features: &Features,
        states: FeatureMap,
        prompt_weight: f64,
        (length, top): (f64, usize),
        tokens: FieldTokens,
    ) -> Result<Self> {
        let tokens = match tokens {
            FieldTokens::Identity => TokenKernel::Identity,
            FieldTokens::Embedding => embedding_kernel(model)?,
        };
        let kernel = Kernel::Rbf { variance: 1.0, length };
        let field = TokenField::new(kernel, tokens, model.config().vocab_size, top)?;
        let map_owner = features.map_owner();
        let mut hasher = Sha256::new().chain_update(states.to_arrays(&map_owner).to_bytes()?);
        if prompt_weight > 0.0 {
            hasher.update(&features.owner().feature_map);
        }
        let owner = Owner { feature_map: hex(&hasher.finalize()), ..map_owner };
        Ok(Self { states, prompt_weight, field, length, owner })
    }

    /// The field over features
    pub fn field(&self) -> &TokenField {
        &self.field
    }

    /// The map of states
    pub fn states(&self) -> &FeatureMap {
        &self.states
    }

    /// Length-scale of its kernel
    pub fn length(&self) -> f64 {
        self.length
    }

    /// Whose particles it reads
    pub fn owner(&self) -> &Owner {
        &self.owner
    }

    /// Numbers of a state's features beside those of a prompt with `of_prompt` ones
    pub fn dim(&self, of_prompt: usize) -> usize {
        self.states.dim() + if self.prompt_weight > 0.0 { of_prompt } else { 0 }
    }

    /// Whether prompts need features
    pub fn asks_prompts(&self) -> bool {
        self.prompt_weight > 0.0
    }

    /// Features of a state, given those of its prompt
    pub fn features(&self, prompt: &[f32], hidden: &[f32]) -> Result<Vec<f32>> {
        joined(&self.states, self.prompt_weight, prompt, hidden)
    }
}

/// The weighted features of the prompt, and those of the state
fn joined(states: &FeatureMap, weight: f64, prompt: &[f32], hidden: &[f32]) -> Result<Vec<f32>> {
    let own = states.apply(hidden)?;
    if weight == 0.0 {
        return Ok(own);
    }
    Ok(prompt.iter().map(|x| (f64::from(*x) * weight) as f32).chain(own).collect())
}

/// Over all pairs at different places; 1 where there is none
fn median_distance(points: &[Vec<f32>]) -> f64 {
    let pairs = (0..points.len()).flat_map(|i| (0..i).map(move |j| (i, j)));
    let mut squares: Vec<f64> =
        pairs.map(|(i, j)| squared_distance(&points[i], &points[j])).filter(|square| *square > 1e-6).collect();
    if squares.is_empty() {
        return 1.0;
    }
    squares.sort_unstable_by(f64::total_cmp);
    squares[squares.len() / 2].sqrt()
}

/// Token embeddings, whitened on their leading directions and set on the unit sphere
fn embedding_kernel(model: &Gpt2) -> Result<TokenKernel> {
    let Some((_, wte)) = model.weights().first() else { return Err(Error::run("the model has no token embeddings")) };
    let (vocabulary, width) = wte.dims2()?;
    let rows = wte.flatten_all()?.to_vec1::<f32>()?;
    let dim = TOKEN_DIM.min(width).min(vocabulary - 1);
    let map = FeatureMap::fit(&rows, width, dim, true)?;
    let features = rows.chunks_exact(width).map(|row| map.apply(row)).collect::<Result<Vec<_>>>()?.concat();
    Ok(TokenKernel::LowRank { features, width: dim })
}

/// The field as it is now, for completions of some prompts
pub struct FieldBend {
    /// How it is read
    pub steering: Steering,
    /// Its particles
    pub particles: TokenMemory,
    /// Features of each prompt; empty ones where they are not asked for
    pub prompts: Vec<Vec<f32>>,
    /// η
    pub eta: f64,
    /// τ
    pub tau: f64,
}

impl Bend for FieldBend {
    fn bend(&self, at: &Moment<'_>, logits: &mut [f32]) -> Result<()> {
        let state = self.steering.features(&self.prompts[at.prompt], at.hidden)?;
        let q = self.steering.field.query(&self.particles, &state)?;
        steer(logits, &q, self.eta, self.tau);
        Ok(())
    }
}
