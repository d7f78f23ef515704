//! Environments, stepped many at a time.
//!
//! [`VectorEnv`] is what an agent sees, whether the environments are native or live in another process ([`bridge`]);
//! [`make_vec`] makes both kinds. The native ones follow Gymnasium 1.4.0 step by step, random numbers included: the same
//! id, seed and actions give the same observations, rewards and ends.
//!
//! An environment whose episode ends is reset within the same step (Gymnasium's SAME_STEP), so that
//! [`VecStep::observations`] always holds what the next action answers to, while [`VecStep::final_obs`] holds what the
//! last one led to. Termination (the task is over) and truncation (time is up) stay apart: only the first means that
//! nothing follows.

mod bit_flip;
pub mod bridge;
mod classic_control;
mod history;
mod kwargs;
#[cfg(feature = "box2d")]
mod lunar_lander;
mod native;
mod registry;
pub mod rng;
mod space;
mod statistics;
pub mod tabular;
mod toy_text;

pub use bridge::GymOptions;
pub use history::History;
pub use kwargs::Kwargs;
pub use registry::{Listing, MakeOptions, listing, make_vec};
pub use space::{BoxSpace, Space};
pub use statistics::{Episode, EpisodeStatistics};
pub use tabular::Tabular;

use std::ops::Range;

use crate::error::{Error, Result};

/// What is known of an environment without stepping it
#[derive(Debug, Clone, PartialEq)]
pub struct EnvSpec {
    /// Gymnasium's id
    pub id: String,
    /// What is seen of a state
    pub observation_space: Space,
    /// What can be done
    pub action_space: Space,
    /// Steps after which an episode is truncated; `None` where it goes on until it terminates
    pub max_episode_steps: Option<u32>,
    /// Mean return from which the task counts as solved
    pub reward_threshold: Option<f64>,
}

/// One action for each of N environments
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Actions<'a> {
    /// N numbers below the `n` of a discrete space
    Discrete(&'a [u32]),
    /// N rows of numbers; they may lie outside the bounds of the space, as Gymnasium allows
    Continuous(&'a [f32]),
}

/// What one step of N environments gave; the buffers are reused from step to step
#[derive(Debug, Clone, PartialEq)]
pub struct VecStep {
    /// (N, D): what the next actions answer to. Where an episode ended, the first observation of the next one
    pub observations: Vec<f32>,
    /// (N, D): what the actions led to, in every environment. Differs from `observations` only where an episode ended
    pub final_obs: Vec<f32>,
    /// (N,)
    pub rewards: Vec<f64>,
    /// (N,): the task is over, and nothing follows
    pub terminated: Vec<bool>,
    /// (N,): time is up, although more would follow. Both may be true
    pub truncated: Vec<bool>,
}

impl VecStep {
    /// Buffers for the environments of `env`
    pub fn of(env: &(impl VectorEnv + ?Sized)) -> Self {
        let n = env.num_envs();
        let numbers = n * env.spec().observation_space.len();
        Self {
            observations: vec![0.0; numbers],
            final_obs: vec![0.0; numbers],
            rewards: vec![0.0; n],
            terminated: vec![false; n],
            truncated: vec![false; n],
        }
    }

    /// Whether the episode of environment `i` ended, for whichever reason
    pub fn ended(&self, i: usize) -> bool {
        self.terminated[i] || self.truncated[i]
    }

    fn check(&self, num_envs: usize, width: usize) -> Result<()> {
        let fits = self.observations.len() == num_envs * width
            && self.final_obs.len() == num_envs * width
            && [self.rewards.len(), self.terminated.len(), self.truncated.len()] == [num_envs; 3];
        if fits {
            return Ok(());
        }
        let found = self.observations.len();
        Err(Error::run(format!(
            "the buffers of a step must hold {num_envs} observations of {width} numbers, found {found} numbers"
        )))
    }
}

/// N environments of one kind that are stepped together
pub trait VectorEnv {
    /// Spaces, limit and threshold of each of them
    fn spec(&self) -> &EnvSpec;

    /// N
    fn num_envs(&self) -> usize;

    /// Starts an episode in each environment and writes the first observations, (N, D).
    ///
    /// With a seed, environment `i` gets `seed + i`; without, its random numbers go on where they were.
    fn reset(&mut self, seed: Option<u64>, observations: &mut [f32]) -> Result<()>;

    /// Takes one action in each environment; where that ends an episode, the next one begins at once
    fn step(&mut self, actions: Actions<'_>, out: &mut VecStep) -> Result<()>;

    /// Remembers from the next reset on how each environment came where it is
    ///
    /// # Errors
    /// Environments that cannot be led to the same place again
    fn keep_history(&mut self) -> Result<()> {
        Err(Error::usage(format!("a run in `{}` cannot be resumed", self.spec().id)).hint("leave out `save_steps`"))
    }

    /// How each environment came where it is, where that is remembered
    ///
    /// # Errors
    /// A process that should know it and does not answer
    fn histories(&mut self) -> Result<Option<Vec<History>>> {
        Ok(None)
    }

    /// Leads each environment where another one was
    ///
    /// # Errors
    /// As with [`VectorEnv::keep_history`]; another number of environments; one that does not come there again
    fn replay(&mut self, _histories: &[History]) -> Result<()> {
        self.keep_history()
    }

    /// The model of a finite environment, for planning
    fn tabular(&self) -> Option<&Tabular> {
        None
    }

    /// Where a goal is part of the observations, how it is read and judged
    fn goals(&self) -> Option<&dyn Goals> {
        None
    }
}

/// How a goal stands in an observation, and what is right for another one
pub trait Goals {
    /// The numbers of an observation that say what is achieved
    fn achieved(&self) -> Range<usize>;

    /// The numbers that say what is desired, as many
    fn desired(&self) -> Range<usize>;

    /// Reward of achieving this where that is desired, and whether the task is over then
    fn judge(&self, achieved: &[f32], desired: &[f32]) -> (f64, bool);
}
