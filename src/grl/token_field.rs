//! A field over hidden states that steers the decoder of a model whose weights stay as they are.
//!
//! logits = log π + (η/τ)(q − E_π q), where q(a) is what the token particles near this state say of token a. η = 0 leaves
//! the logits untouched to the last bit. What is sampled with η > 0 has another log μ than the model's own.

use crate::error::{Error, Result};
use crate::grl::kernel::{Kernel, Point, squared_distance};
use crate::grl::memory::TokenMemory;

/// How tokens are alike
#[derive(Debug, Clone, PartialEq)]
pub enum TokenKernel {
    /// Each token by itself
    Identity,
    /// φ(a)ᵀφ(a′) on `width` numbers for each token of the vocabulary, whitened embeddings for example
    LowRank {
        /// V rows
        features: Vec<f32>,
        /// m
        width: usize,
    },
    /// Experimental: tokens as clouds in the space of their embeddings
    Cloud(Cloud),
}

/// Tokens as clouds N(e_a, s²) in the space of their embeddings, and a kernel that falls with distance there
#[derive(Debug, Clone, PartialEq)]
pub struct Cloud {
    /// e_a, V rows
    pub features: Vec<f32>,
    /// Numbers of an embedding
    pub width: usize,
    /// Length-scale of the kernel over embeddings
    pub length: f64,
    /// s
    pub scale: f64,
    /// Standard normal draws, rows of `width`, the same for all tokens
    pub draws: Vec<f32>,
    /// Tokens that are read as clouds, those with the largest logits; the others by identity
    pub candidates: usize,
}

/// How the field is read at a state
#[derive(Debug, Clone, PartialEq)]
pub struct TokenField {
    states: Kernel,
    tokens: TokenKernel,
    vocabulary: usize,
    top: usize,
}

impl TokenField {
    /// A field over a vocabulary that looks at the `top` particles nearest to a state by its kernel (all of them, and then
    /// exactly, where there are no more)
    pub fn new(states: Kernel, tokens: TokenKernel, vocabulary: usize, top: usize) -> Result<Self> {
        if vocabulary == 0 || top == 0 {
            return Err(Error::usage(format!("a token field over {vocabulary} tokens that looks at {top} particles")));
        }
        if let TokenKernel::LowRank { features, width } = &tokens
            && (*width == 0 || features.len() != vocabulary * width)
        {
            let message = format!("{} numbers are no {vocabulary} token features of width {width}", features.len());
            return Err(Error::usage(message));
        }
        if let TokenKernel::Cloud(cloud) = &tokens {
            cloud.check(vocabulary)?;
        }
        Ok(Self { states, tokens, vocabulary, top })
    }

    /// The kernel over states
    pub fn states(&self) -> &Kernel {
        &self.states
    }

    /// q(a) for every token a of the vocabulary at the state with these features: Σ_i α_i k_s(s, s_i) k_a(a, a_i). Clouds are
    /// read at their centres
    ///
    /// # Shapes
    /// state (D,), the width of the memory's states → q (V,)
    ///
    /// # Errors
    /// Another width, a particle whose token is not below V
    pub fn query(&self, memory: &TokenMemory, state: &[f32]) -> Result<Vec<f32>> {
        self.read(memory, state, &[], f64::INFINITY)
    }

    /// [`Self::query`], with τ log E e^{Q⁺(u)/τ} over its cloud for each of the tokens that lead in `logits`
    pub fn read(&self, memory: &TokenMemory, state: &[f32], logits: &[f32], tau: f64) -> Result<Vec<f32>> {
        if state.len() != memory.dim() {
            let message = format!("a state has {} features, and the memory holds {}", state.len(), memory.dim());
            return Err(Error::usage(message));
        }
        let nearest = self.nearest(memory, state);
        if let Some((i, _)) = nearest.iter().find(|(i, _)| memory.particle(*i).token as usize >= self.vocabulary) {
            let token = memory.particle(*i).token;
            return Err(Error::usage(format!("a particle holds token {token} of a vocabulary of {}", self.vocabulary)));
        }
        let weighted = nearest.into_iter().map(|(i, k)| {
            let particle = memory.particle(i);
            (particle.token as usize, f64::from(particle.alpha) * k)
        });
        Ok(match &self.tokens {
            TokenKernel::Identity => by_identity(self.vocabulary, weighted),
            TokenKernel::LowRank { features, width } => {
                let mut sum = vec![0.0_f64; *width];
                for (token, weight) in weighted {
                    let row = &features[token * width..(token + 1) * width];
                    sum.iter_mut().zip(row).for_each(|(sum, x)| *sum += weight * f64::from(*x));
                }
                let row = |row: &[f32]| row.iter().zip(&sum).map(|(x, sum)| f64::from(*x) * sum).sum::<f64>() as f32;
                features.chunks_exact(*width).map(row).collect()
            }
            TokenKernel::Cloud(cloud) => {
                let weighted: Vec<(usize, f64)> = weighted.collect();
                let mut q = by_identity(self.vocabulary, weighted.iter().copied());
                for token in cloud.leading(self.vocabulary, logits) {
                    q[token] = cloud.value(token, &weighted, tau) as f32;
                }
                q
            }
        })
    }

    /// The particles with the largest state kernel and their kernel values, in the memory's order
    fn nearest(&self, memory: &TokenMemory, state: &[f32]) -> Vec<(usize, f64)> {
        let x = Point::new(0, state);
        let value = |i: usize| self.states.value(x, Point::new(1, memory.state(i)));
        let mut all: Vec<(usize, f64)> = (0..memory.len()).map(|i| (i, value(i))).collect();
        if all.len() > self.top {
            all.select_nth_unstable_by(self.top - 1, |a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
            all.truncate(self.top);
            all.sort_unstable_by_key(|(i, _)| *i);
        }
        all
    }
}

/// Σ of the weights of each token's own particles
fn by_identity(vocabulary: usize, weighted: impl Iterator<Item = (usize, f64)>) -> Vec<f32> {
    let mut q = vec![0.0_f64; vocabulary];
    weighted.for_each(|(token, weight)| q[token] += weight);
    q.into_iter().map(|q| q as f32).collect()
}

impl Cloud {
    fn check(&self, vocabulary: usize) -> Result<()> {
        let whole = self.width > 0
            && self.features.len() == vocabulary * self.width
            && !self.draws.is_empty()
            && self.draws.len().is_multiple_of(self.width);
        if whole && self.length > 0.0 && self.scale >= 0.0 {
            return Ok(());
        }
        Err(Error::usage(format!(
            "clouds of {vocabulary} tokens with {} embedding numbers and {} drawn ones of width {}, length {} and scale {}",
            self.features.len(),
            self.draws.len(),
            self.width,
            self.length,
            self.scale
        )))
    }

    /// The tokens that are read as clouds; all of them where nothing is known of the logits
    fn leading(&self, vocabulary: usize, logits: &[f32]) -> Vec<usize> {
        let mut all: Vec<usize> = (0..vocabulary).collect();
        if !logits.is_empty() && self.candidates < vocabulary {
            let larger = |a: &usize, b: &usize| logits[*b].total_cmp(&logits[*a]).then(a.cmp(b));
            all.select_nth_unstable_by(self.candidates, larger);
            all.truncate(self.candidates);
        }
        all
    }

    /// τ log E e^{Q⁺(u)/τ} over u ~ N(e_a, s²), with particles (token, weight); Q⁺(e_a) without clouds or temperature
    fn value(&self, token: usize, weighted: &[(usize, f64)], tau: f64) -> f64 {
        let centre = &self.features[token * self.width..(token + 1) * self.width];
        let field = |u: &[f32]| {
            let near = weighted.iter().map(|(other, weight)| {
                let other = &self.features[other * self.width..(other + 1) * self.width];
                weight * (-0.5 * squared_distance(u, other) / (self.length * self.length)).exp()
            });
            near.sum::<f64>()
        };
        if self.scale == 0.0 || tau.is_infinite() {
            return field(centre);
        }
        tau * log_mean_exp(centre, &self.draws, self.scale, |u| field(u) / tau)
    }
}

/// log E e^{f(u)} over u = centre + s·z, with the given draws z
fn log_mean_exp(centre: &[f32], draws: &[f32], scale: f64, f: impl Fn(&[f32]) -> f64) -> f64 {
    let at = |draw: &[f32]| {
        let shifted = centre.iter().zip(draw).map(|(e, z)| (f64::from(*e) + scale * f64::from(*z)) as f32);
        f(&shifted.collect::<Vec<f32>>())
    };
    let values: Vec<f64> = draws.chunks_exact(centre.len()).map(at).collect();
    log_sum_exp(&values) - (values.len() as f64).ln()
}

/// Adds (η/τ)(q − E_π q) to `logits`. The centring changes no probability; it keeps the logits near those of the model
///
/// # Shapes
/// logits and q (V,)
pub fn steer(logits: &mut [f32], q: &[f32], eta: f64, tau: f64) {
    if eta == 0.0 {
        return;
    }
    let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let weight = |logit: f32| f64::from(logit - largest).exp();
    let (mut mean, mut total) = (0.0, 0.0);
    for (logit, q) in logits.iter().zip(q) {
        mean += weight(*logit) * f64::from(*q);
        total += weight(*logit);
    }
    mean /= total;
    for (logit, q) in logits.iter_mut().zip(q) {
        *logit = (f64::from(*logit) + eta / tau * (f64::from(*q) - mean)) as f32;
    }
}

/// Experimental: log p(a) ∝ log π_ref(a) + log E_{u ~ N(e_a, s²)} e^{Q⁺(u)/τ}, tokens as clouds around their embeddings
///
/// The expectation is over the given standard normal `draws` (rows of `width`), the same for all tokens. s = 0 is the
/// discrete field read at the embeddings. Meant for the few leading tokens of the reference.
pub fn continuous_log_probs(
    log_probs_ref: &[f64],
    embeddings: &[f32],
    width: usize,
    draws: &[f32],
    (scale, tau): (f64, f64),
    field: impl Fn(&[f32]) -> f64,
) -> Result<Vec<f64>> {
    let is_rows = |values: &[f32]| width > 0 && values.len().is_multiple_of(width);
    if !is_rows(draws) || draws.is_empty() || !is_rows(embeddings) || embeddings.len() / width != log_probs_ref.len() {
        let message = format!(
            "{} tokens with {} embedding numbers and {} drawn ones of width {width}",
            log_probs_ref.len(),
            embeddings.len(),
            draws.len()
        );
        return Err(Error::run(message));
    }
    let score = |embedding: &[f32]| log_mean_exp(embedding, draws, scale, |u| field(u) / tau);
    let scores: Vec<f64> =
        log_probs_ref.iter().zip(embeddings.chunks_exact(width)).map(|(log, e)| log + score(e)).collect();
    let total = log_sum_exp(&scores);
    Ok(scores.into_iter().map(|score| score - total).collect())
}

fn log_sum_exp(values: &[f64]) -> f64 {
    let largest = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    if largest == f64::NEG_INFINITY {
        return largest;
    }
    largest + values.iter().map(|x| (x - largest).exp()).sum::<f64>().ln()
}
