//! Completions of prompts: sampling, and batched generation over a key-value cache.

mod generate;
#[expect(clippy::module_inception, reason = "the room is named after what it makes")]
mod rollout;
mod sampling;

pub use generate::{Completion, Finish, OnToken, Options, Output, Times, generate, generate_packed, stream};
pub use rollout::Rollout;
pub use sampling::{Choice, Sampling};
