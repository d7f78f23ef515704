//! A field over hidden states that steers the decoder of a model whose weights stay as they are.

use rand::SeedableRng;
use rand::rngs::Xoshiro256PlusPlus;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::features::Features;
use crate::config::{FieldTokens, GrlKeys};
use crate::files::hex;
use crate::grl::arrays::Owner;
use crate::grl::features::FeatureMap;
use crate::grl::kernel::{Kernel, squared_distance};
use crate::grl::memory::TokenMemory;
use crate::grl::token_field::{Cloud, TokenField, TokenKernel, steer};
use crate::grl::uncertainty::standard_normal;
use crate::model::gpt2::Gpt2;
use crate::rollout::{Bend, Moment};
use crate::{Error, Result};

/// States whose distances the length-scale is taken from
const FOR_MEDIAN: usize = 256;

/// Directions of the token embeddings that make two tokens alike
const TOKEN_DIM: usize = 32;

/// Draws from a token's cloud, always the same
const CLOUD_DRAWS: usize = 16;

/// How the field is read: what a saved one needs beside its files
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Reading {
    /// Length-scale of the kernel over states
    pub length: f64,
    /// Particles that a state looks at
    pub top_k: usize,
    /// Weight of the prompt's features beside those of the state
    pub prompt_weight: f64,
    /// When two tokens are alike
    pub tokens: Tokens,
}

/// When two tokens are alike
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Tokens {
    /// Where they are the same
    Identity,
    /// By their embeddings' directions
    Embedding,
    /// As clouds around their embeddings
    Cloud {
        /// Length-scale of the kernel over embeddings
        length: f64,
        /// Width of a cloud
        scale: f64,
        /// Tokens that are read as clouds
        candidates: usize,
    },
}

/// How states become features, and the field over them. The particles lie elsewhere
#[derive(Clone)]
pub struct Steering {
    states: FeatureMap,
    field: TokenField,
    reading: Reading,
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
        let tokens = match keys.field_tokens {
            FieldTokens::Identity => Tokens::Identity,
            FieldTokens::Embedding => Tokens::Embedding,
            FieldTokens::Cloud => {
                let (embeddings, width) = embeddings(model)?;
                let stride = (embeddings.len() / width).div_ceil(FOR_MEDIAN);
                let sample: Vec<Vec<f32>> =
                    embeddings.chunks_exact(width).step_by(stride).map(<[f32]>::to_vec).collect();
                let length = keys.field_length * median_distance(&sample);
                Tokens::Cloud { length, scale: keys.field_cloud, candidates: keys.field_candidates }
            }
        };
        let length = keys.field_length * median_distance(&sample);
        let reading = Reading { length, top_k: keys.field_top_k, prompt_weight: weight, tokens };
        Self::new(model, features, states, reading)
    }

    /// With features that were fitted before
    pub fn new(model: &Gpt2, features: &Features, states: FeatureMap, reading: Reading) -> Result<Self> {
        let tokens = match reading.tokens {
            Tokens::Identity => TokenKernel::Identity,
            Tokens::Embedding => {
                let (features, width) = embeddings(model)?;
                TokenKernel::LowRank { features, width }
            }
            Tokens::Cloud { length, scale, candidates } => {
                let (features, width) = embeddings(model)?;
                let mut rng = Xoshiro256PlusPlus::seed_from_u64(0);
                let draws = (0..CLOUD_DRAWS * width).map(|_| standard_normal(&mut rng) as f32).collect();
                TokenKernel::Cloud(Cloud { features, width, length, scale, draws, candidates })
            }
        };
        let kernel = Kernel::Rbf { variance: 1.0, length: reading.length };
        let field = TokenField::new(kernel, tokens, model.config().vocab_size, reading.top_k)?;
        let map_owner = features.map_owner();
        let mut hasher = Sha256::new().chain_update(states.to_arrays(&map_owner).to_bytes()?);
        if reading.prompt_weight > 0.0 {
            hasher.update(&features.owner().feature_map);
        }
        let owner = Owner { feature_map: hex(&hasher.finalize()), ..map_owner };
        Ok(Self { states, field, reading, owner })
    }

    /// The field over features
    pub fn field(&self) -> &TokenField {
        &self.field
    }

    /// The map of states
    pub fn states(&self) -> &FeatureMap {
        &self.states
    }

    /// How it is read
    pub fn reading(&self) -> &Reading {
        &self.reading
    }

    /// Whose particles it reads
    pub fn owner(&self) -> &Owner {
        &self.owner
    }

    /// Numbers of a state's features beside those of a prompt with `of_prompt` ones
    pub fn dim(&self, of_prompt: usize) -> usize {
        self.states.dim() + if self.asks_prompts() { of_prompt } else { 0 }
    }

    /// Whether prompts need features
    pub fn asks_prompts(&self) -> bool {
        self.reading.prompt_weight > 0.0
    }

    /// Features of a state, given those of its prompt
    pub fn features(&self, prompt: &[f32], hidden: &[f32]) -> Result<Vec<f32>> {
        joined(&self.states, self.reading.prompt_weight, prompt, hidden)
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

/// Token embeddings, whitened on their leading directions and set on the unit sphere, and how many numbers each has
fn embeddings(model: &Gpt2) -> Result<(Vec<f32>, usize)> {
    let Some((_, wte)) = model.weights().first() else { return Err(Error::run("the model has no token embeddings")) };
    let (vocabulary, width) = wte.dims2()?;
    let rows = wte.flatten_all()?.to_vec1::<f32>()?;
    let dim = TOKEN_DIM.min(width).min(vocabulary.saturating_sub(1));
    let map = FeatureMap::fit(&rows, width, dim, true)?;
    Ok((rows.chunks_exact(width).map(|row| map.apply(row)).collect::<Result<Vec<_>>>()?.concat(), dim))
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
        let q = self.steering.field.read(&self.particles, &state, logits, self.tau / self.eta)?;
        steer(logits, &q, self.eta, self.tau);
        Ok(())
    }
}
