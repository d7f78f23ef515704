//! The flags of environments that the real Gymnasium steps, and the keys.

use crate::cli::args::{count, positive};
use crate::config::GymKeys;
use crate::rl::env::GymOptions;

/// Flags of commands that have no config; they mean what the keys of `rl train` mean
#[derive(Debug, Clone, clap::Args)]
#[command(rename_all = "snake_case", next_help_heading = "Gymnasium")]
#[expect(clippy::struct_field_names, reason = "the flags are called so")]
pub struct GymArgs {
    /// Python in which Gymnasium is installed, for environments named `gym:ID` [default: python3]
    #[arg(long, value_name = "PROGRAM")]
    gym_python: Option<String>,
    /// Processes that share the environments [default: 1]
    #[arg(long, value_name = "N", value_parser = count)]
    gym_workers: Option<usize>,
    /// Longest wait for one answer of a process, in seconds [default: 60]
    #[arg(long, value_name = "X", value_parser = positive)]
    gym_timeout: Option<f64>,
    /// Wrappers around each environment, innermost first
    #[arg(long, value_name = "NAME[:KEY=VALUE,...]", num_args = 1..)]
    gym_wrappers: Vec<String>,
    /// Steps for which an action is repeated [default: 1]
    #[arg(long, value_name = "N", value_parser = count)]
    gym_frame_skip: Option<usize>,
    /// Images in grey
    #[arg(long, value_name = "true|false", num_args = 0..=1, default_missing_value = "true")]
    gym_grayscale: Option<bool>,
    /// Images of so many points each way
    #[arg(long, value_name = "N", value_parser = count)]
    gym_resize: Option<usize>,
    /// Observations that are seen together [default: 1]
    #[arg(long, value_name = "N", value_parser = count)]
    gym_frame_stack: Option<usize>,
}

impl GymArgs {
    /// What was typed beats what a policy was trained with
    pub(super) fn over(&self, saved: &GymOptions) -> GymOptions {
        let saved = saved.clone();
        GymOptions {
            python: self.gym_python.clone().unwrap_or(saved.python),
            workers: self.gym_workers.unwrap_or(saved.workers),
            timeout: self.gym_timeout.unwrap_or(saved.timeout),
            wrappers: if self.gym_wrappers.is_empty() { saved.wrappers } else { self.gym_wrappers.clone() },
            frame_skip: self.gym_frame_skip.unwrap_or(saved.frame_skip),
            grayscale: self.gym_grayscale.unwrap_or(saved.grayscale),
            resize: self.gym_resize.or(saved.resize),
            frame_stack: self.gym_frame_stack.unwrap_or(saved.frame_stack),
        }
    }
}

/// The keys of `rl train`
pub(super) fn options(keys: &GymKeys) -> GymOptions {
    GymOptions {
        python: keys.gym_python.clone(),
        workers: keys.gym_workers,
        timeout: keys.gym_timeout,
        wrappers: keys.gym_wrappers.clone(),
        frame_skip: keys.gym_frame_skip,
        grayscale: keys.gym_grayscale,
        resize: keys.gym_resize,
        frame_stack: keys.gym_frame_stack,
    }
}
