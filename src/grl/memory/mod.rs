//! Particle memories: what has been seen, where, and with which value.

mod keep;
mod prompt;
mod token;

pub use keep::Eviction;
pub use prompt::{Origin, Particle, PromptMemory, Upsert, soft_mean};
pub use token::{TokenMemory, TokenParticle};
