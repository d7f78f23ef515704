//! How environments of Gymnasium are made, and where they run.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// What a user may say of them besides id, arguments and limit
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct GymOptions {
    /// The Python in which Gymnasium is installed
    pub python: String,
    /// Processes that share the environments
    pub workers: usize,
    /// Longest wait for one answer, in seconds
    pub timeout: f64,
    /// Wrappers around each environment, innermost first: `Name:key=value,...`, or `module:Name...`
    pub wrappers: Vec<String>,
    /// Steps for which an action is repeated; what is seen is the brighter of the last two
    pub frame_skip: usize,
    /// Images in grey
    pub grayscale: bool,
    /// Images of so many points each way
    pub resize: Option<usize>,
    /// Observations that are seen together
    pub frame_stack: usize,
}

impl Default for GymOptions {
    fn default() -> Self {
        Self {
            python: "python3".to_owned(),
            workers: 1,
            timeout: 60.0,
            wrappers: Vec::new(),
            frame_skip: 1,
            grayscale: false,
            resize: None,
            frame_stack: 1,
        }
    }
}

impl GymOptions {
    /// Whether environments made so are the same, wherever they run
    pub fn same_environments(&self, other: &Self) -> bool {
        let Self { wrappers, frame_skip, grayscale, resize, frame_stack, .. } = self;
        (wrappers, frame_skip, grayscale, resize, frame_stack)
            == (&other.wrappers, &other.frame_skip, &other.grayscale, &other.resize, &other.frame_stack)
    }

    /// Longest wait for one answer
    ///
    /// # Errors
    /// No time at all, or more than a clock can tell
    pub(super) fn patience(&self) -> Result<Duration> {
        let patience = Duration::try_from_secs_f64(self.timeout).ok().filter(|patience| !patience.is_zero());
        patience.filter(|patience| patience.as_secs() < 1 << 32).ok_or_else(|| {
            Error::usage(format!("`gym_timeout` must be above 0 and below 2³² seconds, got {}", self.timeout))
        })
    }
}
