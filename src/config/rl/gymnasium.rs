//! Keys of environments that the real Gymnasium steps.

use crate::Result;
use crate::config::{Range, config_keys};

config_keys! {
    /// Keys of environments that the real Gymnasium steps
    pub struct GymKeys {
        "Gymnasium" {
            /// Python in which Gymnasium is installed, for environments named `gym:ID`
            gym_python: String = "python3".to_owned();
            /// Processes that share the environments
            gym_workers: usize = 1, Range::at_least(1.0);
            /// Longest wait for one answer of a process, in seconds
            gym_timeout: f64 = 60.0, Range::above(0.0);
            /// Wrappers around each environment, innermost first: `Name` or `Name:key=value,...` of Gymnasium's, `module:Name` of others
            gym_wrappers: Vec<String> = Vec::new();
            /// Steps for which an action is repeated
            gym_frame_skip: usize = 1, Range::at_least(1.0);
            /// Images in grey
            gym_grayscale: bool = false;
            /// Images of so many points each way
            gym_resize: Option<usize> = None, Range::at_least(1.0);
            /// Observations that are seen together
            gym_frame_stack: usize = 1, Range::at_least(1.0);
        }
    }
}

impl GymKeys {
    #[expect(clippy::unused_self, clippy::unnecessary_wraps, reason = "every group of keys has this method")]
    fn check(&self) -> Result<()> {
        Ok(())
    }
}
