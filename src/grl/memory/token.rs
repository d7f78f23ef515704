//! Token particles: at a hidden state like this one, this token was worth so much.
//!
//! Used by the token field, which steers a decoder without touching its model. States of a language model almost never
//! recur, so a particle is keyed by its features, and the field is a smooth one.

use serde_json::json;

use crate::error::{Error, Result};
use crate::grl::arrays::{Arrays, Header, Owner};
use crate::grl::kernel::{Kernel, Point};

const KIND: &str = "token memory";

/// One token particle, as it is read
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TokenParticle<'a> {
    /// Features of the state
    pub phi: &'a [f32],
    /// The token
    pub token: u32,
    /// Its weight in the field
    pub alpha: f32,
    /// How often it was updated
    pub count: u32,
    /// When it was last touched
    pub stamp: u32,
}

/// A bounded set of token particles; the one not touched for longest makes room
#[derive(Debug, Clone, PartialEq)]
pub struct TokenMemory {
    dim: usize,
    capacity: usize,
    phi: Vec<f32>,
    tokens: Vec<u32>,
    alphas: Vec<f32>,
    counts: Vec<u32>,
    stamps: Vec<u32>,
}

/// Kernel correlation from which two states with the same token are one particle
const SAME: f64 = 1.0 - 1e-6;

impl TokenMemory {
    /// An empty memory for states of `dim` features
    pub fn new(dim: usize, capacity: usize) -> Result<Self> {
        if capacity == 0 {
            return Err(Error::usage("a particle memory needs room for at least one particle"));
        }
        let empty = (Vec::new(), Vec::new(), Vec::new(), Vec::new(), Vec::new());
        let (phi, tokens, alphas, counts, stamps) = empty;
        Ok(Self { dim, capacity, phi, tokens, alphas, counts, stamps })
    }

    /// Particles
    pub fn len(&self) -> usize {
        self.tokens.len()
    }

    /// Whether there is none
    pub fn is_empty(&self) -> bool {
        self.tokens.is_empty()
    }

    /// Particles that it has room for
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Features of a state
    pub fn dim(&self) -> usize {
        self.dim
    }

    /// Particle `i`
    pub fn particle(&self, i: usize) -> TokenParticle<'_> {
        TokenParticle {
            phi: self.state(i),
            token: self.tokens[i],
            alpha: self.alphas[i],
            count: self.counts[i],
            stamp: self.stamps[i],
        }
    }

    pub(in crate::grl) fn state(&self, i: usize) -> &[f32] {
        &self.phi[i * self.dim..(i + 1) * self.dim]
    }

    /// Kernel TD: adds `by` (the step size times the TD error) to the weight of this state and token, in a new particle
    /// where there is none
    pub fn add(&mut self, kernel: &Kernel, phi: &[f32], token: u32, by: f64, now: u32) -> Result<()> {
        self.add_near(kernel, phi, token, by, SAME, now)
    }

    /// The same where states with a kernel correlation of at least `same` are one: the nearest particle of the token learns
    /// for all of them (quantised kernel LMS, Chen et al. 2012), which keeps the memory small and its weights bounded
    pub fn add_near(&mut self, kernel: &Kernel, phi: &[f32], token: u32, by: f64, same: f64, now: u32) -> Result<()> {
        if phi.len() != self.dim {
            let message = format!("a state has {} features, and the memory holds {}", phi.len(), self.dim);
            return Err(Error::usage(message));
        }
        if !by.is_finite() || !phi.iter().all(|x| x.is_finite()) {
            return Err(Error::run(format!(
                "a token particle for token {token} with weight {by} or features not finite"
            )));
        }
        let own = self.likenesses(kernel, phi, token);
        let nearest = own.reduce(|best, other| if other.1 > best.1 { other } else { best });
        let found = nearest.filter(|(_, likeness)| *likeness >= same.min(SAME)).map(|(i, _)| i);
        if let Some(i) = found {
            self.alphas[i] = (f64::from(self.alphas[i]) + by) as f32;
            self.counts[i] = self.counts[i].saturating_add(1);
            self.stamps[i] = now;
            return Ok(());
        }
        let at = if self.len() < self.capacity { self.len() } else { self.oldest() };
        if at == self.len() {
            self.phi.extend_from_slice(phi);
            self.tokens.push(token);
            self.alphas.push(by as f32);
            self.counts.push(1);
            self.stamps.push(now);
        } else {
            self.phi[at * self.dim..(at + 1) * self.dim].copy_from_slice(phi);
            (self.tokens[at], self.alphas[at]) = (token, by as f32);
            (self.counts[at], self.stamps[at]) = (1, now);
        }
        Ok(())
    }

    /// Σ k/√(kk) over the token's particles beside the one that would learn at this state: how much of what is learnt here they
    /// say already. A step divided by 1 + this keeps kernel TD from overshooting where particles lie close
    pub fn crowd(&self, kernel: &Kernel, phi: &[f32], token: u32, same: f64) -> f64 {
        let (mut sum, mut nearest) = (0.0, 0.0_f64);
        for (_, likeness) in self.likenesses(kernel, phi, token) {
            sum += likeness.max(0.0);
            nearest = nearest.max(likeness);
        }
        if nearest >= same.min(SAME) { sum - nearest } else { sum }
    }

    /// Kernel correlation of this state with that of each particle of the token
    fn likenesses(&self, kernel: &Kernel, phi: &[f32], token: u32) -> impl Iterator<Item = (usize, f64)> {
        let own = (0..self.len()).filter(move |&i| self.tokens[i] == token);
        own.map(move |i| {
            if phi == self.state(i) {
                return (i, 1.0);
            }
            // Only kernels that fall with distance have a correlation of 1 at one place alone
            let falls = kernel.falls_with_distance();
            let state = (Point::new(0, phi), Point::new(1, self.state(i)));
            (i, if falls { kernel.correlation(state.0, state.1) } else { f64::NEG_INFINITY })
        })
    }

    fn oldest(&self) -> usize {
        (0..self.len()).min_by_key(|&i| self.stamps[i]).unwrap_or_default()
    }

    /// The memory as flat arrays
    pub fn to_arrays(&self, owner: &Owner) -> Arrays {
        let extra = json!({ "dim": self.dim, "capacity": self.capacity, "particles": self.len() });
        Arrays::new(Header::new(KIND, owner, extra))
            .with_rows("phi", self.dim, self.phi.clone())
            .with("tokens", self.tokens.clone())
            .with("alphas", self.alphas.clone())
            .with("counts", self.counts.clone())
            .with("stamps", self.stamps.clone())
    }

    /// The memory in the bytes of a file, which must belong to `owner`
    pub fn from_bytes(bytes: &[u8], owner: &Owner) -> Result<Self> {
        let mut arrays = Arrays::from_bytes(bytes, KIND, owner)?;
        let [dim, capacity, particles] = ["dim", "capacity", "particles"].map(|name| arrays.size(name));
        let (dim, capacity, particles) = (dim?, capacity?, particles?);
        if particles > capacity {
            return Err(Error::usage(format!(
                "the {KIND} is damaged: {particles} particles in a memory for {capacity}"
            )));
        }
        let mut memory = Self::new(dim, capacity)?;
        memory.phi = arrays.take("phi", particles.saturating_mul(dim))?;
        memory.tokens = arrays.take("tokens", particles)?;
        memory.alphas = arrays.take("alphas", particles)?;
        memory.counts = arrays.take("counts", particles)?;
        memory.stamps = arrays.take("stamps", particles)?;
        if !memory.phi.iter().chain(&memory.alphas).all(|x| x.is_finite()) {
            return Err(Error::usage(format!("the {KIND} is damaged: a feature or weight is not finite")));
        }
        Ok(memory)
    }
}
