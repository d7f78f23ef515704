//! Completions of prompts: sampling, and batched generation over a key-value cache.

mod bend;
mod generate;
#[expect(clippy::module_inception, reason = "the room is named after what it makes")]
mod rollout;
mod sampling;

pub use bend::{Bend, Moment, Policy, Source};
pub use generate::{
    Completion, Finish, OnToken, Options, Output, Times, generate, generate_packed, stream, stream_from,
};
pub use rollout::Rollout;
pub use sampling::{Choice, Sampling};
