//! AdamW with a state that can be saved, gradient accumulation and clipping, learning-rate schedules.

mod adamw;
mod gradients;
mod schedule;

pub use adamw::{AdamW, AdamWConfig, Moments};
pub use gradients::{Gradients, clip_factor};
pub use schedule::Schedule;
