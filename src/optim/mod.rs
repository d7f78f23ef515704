//! AdamW with a state that can be saved, gradient accumulation and clipping, learning-rate schedules.

mod adamw;
pub mod gradients;
mod schedule;

pub use adamw::{AdamW, AdamWConfig, Moments};
pub use schedule::Schedule;
