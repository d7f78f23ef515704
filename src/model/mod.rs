//! Language and reward models: their configuration, their weights in and out, and the Hub they come from.

pub mod config;
pub mod gpt2;
pub mod hub;
pub mod reward;
pub mod weights;

mod trainable;

pub use trainable::Trainable;
