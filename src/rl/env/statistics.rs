//! Returns and lengths of finished episodes, over any vector of environments.

use serde::{Deserialize, Serialize};

use super::VecStep;

/// A finished episode
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Episode {
    /// In which of the environments
    pub env: usize,
    /// The undiscounted sum of its rewards
    pub episode_return: f64,
    /// Its steps
    pub length: u32,
    /// Whether the task was over; otherwise time was up
    pub terminated: bool,
}

/// Sums up the running episode of each environment
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EpisodeStatistics {
    running: Vec<(f64, u32)>,
}

impl EpisodeStatistics {
    /// For environments that were just reset
    pub fn new(num_envs: usize) -> Self {
        Self { running: vec![(0.0, 0); num_envs] }
    }

    /// Adds a step, and hands over each episode that ended with it
    pub fn record(&mut self, step: &VecStep, mut ended: impl FnMut(Episode)) {
        for (env, (episode_return, length)) in self.running.iter_mut().enumerate() {
            *episode_return += step.rewards[env];
            *length += 1;
            if step.ended(env) {
                let terminated = step.terminated[env];
                ended(Episode { env, episode_return: *episode_return, length: *length, terminated });
                (*episode_return, *length) = (0.0, 0);
            }
        }
    }
}
