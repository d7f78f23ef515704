//! Completions of prompts: sampling, and batched generation over a key-value cache.

mod generate;
mod sampling;

pub use generate::{Completion, Finish, Options, Output, Times, generate, generate_packed};
pub use sampling::{Choice, Sampling};
