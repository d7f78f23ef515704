//! Sizes of a round of generation, and how its completions fall into passes and steps.
//!
//! A round completes `prompts` prompts `generations` times each. Its completions fall into `chunks` passes, in order,
//! and are gone through `iterations` times:
//!
//! ```text
//! pass      0   1   2   3 | 0   1   2   3 | 4 …       chunks = 4, iterations = 2
//! round     0 ─────────────────────────── | 1 …
//! step      0 ─── | 1 ─── | 2 ─── | 3 ─── | 4 …       gradient_accumulation_steps = 2
//! ```

use crate::config::TrainKeys;
use crate::{Error, Result};

/// Sizes of a round of generation
#[derive(Clone, Copy, Debug)]
pub struct Geometry {
    /// Prompts of a round
    pub prompts: usize,
    /// Completions of each
    pub generations: usize,
    /// Completions of a pass
    pub batch: usize,
    /// Passes that a round's completions make
    pub chunks: usize,
    /// How often they are gone through
    pub iterations: usize,
    /// Passes of a step
    pub accumulation: usize,
}

impl Geometry {
    /// From the keys, where they fit together
    pub fn new(train: &TrainKeys, generations: usize, sizes: RoundSizes) -> Result<Self> {
        let batch = train.per_device_train_batch_size;
        let accumulation = train.gradient_accumulation_steps;
        let total = match (sizes.steps_per_generation, sizes.generation_batch_size) {
            (None, None) => batch * accumulation,
            (Some(steps), _) => batch * steps,
            (None, Some(total)) => total,
        };
        let what = "of one round of generation (`generation_batch_size`, else `per_device_train_batch_size` times \
                    `steps_per_generation`)";
        if !total.is_multiple_of(batch) {
            return Err(Error::usage(format!(
                "the {total} completions {what} must be a multiple of `per_device_train_batch_size`, {batch}"
            )));
        }
        if generations < 2 {
            return Err(Error::usage(format!(
                "`num_generations` must be at least 2, got {generations}: completions are judged against each other"
            )));
        }
        if !total.is_multiple_of(generations) {
            return Err(Error::usage(format!(
                "the {total} completions {what} must be a multiple of `num_generations`, {generations}"
            ))
            .hint(format!("set `per_device_train_batch_size: {generations}`, or another multiple")));
        }
        Ok(Self {
            prompts: total / generations,
            generations,
            batch,
            chunks: total / batch,
            iterations: sizes.num_iterations,
            accumulation,
        })
    }

    /// Passes between two rounds of generation
    pub fn passes_per_round(&self) -> u64 {
        (self.chunks * self.iterations) as u64
    }

    /// Whether every step generates all of its completions anew, so that the policy has not moved when it sees them
    pub fn aligned(&self) -> bool {
        (self.accumulation as u64).is_multiple_of(self.passes_per_round())
    }
}

/// Keys that say how large a round is
#[derive(Clone, Copy, Debug)]
pub struct RoundSizes {
    /// Passes over a round's completions
    pub num_iterations: usize,
    /// Passes that a round's completions make
    pub steps_per_generation: Option<usize>,
    /// Completions of a round
    pub generation_batch_size: Option<usize>,
}
