//! Alignment of small language models on a plain processor.
//!
//! The rooms, ground floor first; arrows point down only (`tests/architecture.rs` keeps them true):
//!
//! | room | holds |
//! |---|---|
//! | [`ops`] | differentiable numerics on candle, with their own backward passes |
//! | [`config`] | typed configs, YAML and flags |
//! | [`optim`] | AdamW, clipping, schedules |
//! | [`algo`] | pure functions: losses, advantages, KL estimators |
//! | [`grl`] | reinforcement fields: kernels, particle memory, value estimators, their losses |
//! | [`model`] | GPT-2, heads, weights in and out, the Hub |
//! | [`data`] | rows, formats, chat templates, tokens and masks, samplers |
//! | [`rollout`] | batched generation |
//! | [`reward`] | what judges a finished text |
//! | [`run`] | what every run shares: run folder, manifest, checkpoints, metrics, signals, progress |
//! | [`train`] | one file per recipe, and their step loop |
//! | [`rl`] | classical reinforcement learning |
//! | [`report`] | statistics over runs and tasks, curves, one HTML page |
//! | [`cli`] | clap and printing |

pub mod error;
pub mod files;
mod process;

pub mod algo;
pub mod cli;
pub mod config;
pub mod data;
pub mod grl;
pub mod model;
pub mod ops;
pub mod optim;
pub mod report;
pub mod reward;
pub mod rl;
pub mod rollout;
pub mod run;
pub mod train;

pub use error::{Error, Result};
