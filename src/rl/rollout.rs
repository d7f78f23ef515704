//! Steps of N environments over T time steps, time-major, as on-policy agents learn from them.

use super::env::VecStep;
use crate::algo::advantage::{add_values, gae_strided, step_streams};

/// A rollout; every column is (T · N,) or (T · N · width,)
#[derive(Debug, Clone)]
pub struct Rollout {
    /// N
    pub num_envs: usize,
    /// What the policy saw
    pub features: Vec<f32>,
    /// Chosen actions, where they are discrete
    pub discrete: Vec<usize>,
    /// Chosen actions as they were drawn, where they are continuous
    pub continuous: Vec<f32>,
    /// log π of them
    pub log_probs: Vec<f32>,
    /// V of what was seen
    pub values: Vec<f32>,
    /// V of what the action led to, in the same episode
    pub next_values: Vec<f32>,
    /// Rewards, scaled where that is wanted
    pub rewards: Vec<f32>,
    /// The task was over
    pub terminated: Vec<bool>,
    /// Time was up
    pub truncated: Vec<bool>,
    /// Advantages
    pub advantages: Vec<f32>,
    /// Value targets
    pub returns: Vec<f32>,
    discounts: Vec<f32>,
    traces: Vec<f32>,
}

impl Rollout {
    /// Room for T steps of N environments
    pub fn new(num_envs: usize, steps: usize, features: usize, action_width: Option<usize>) -> Self {
        let n = num_envs * steps;
        let column = || vec![0.0; n];
        Self {
            num_envs,
            features: vec![0.0; n * features],
            discrete: vec![0; if action_width.is_none() { n } else { 0 }],
            continuous: vec![0.0; n * action_width.unwrap_or(0)],
            log_probs: column(),
            values: column(),
            next_values: column(),
            rewards: column(),
            terminated: vec![false; n],
            truncated: vec![false; n],
            advantages: column(),
            returns: column(),
            discounts: column(),
            traces: column(),
        }
    }

    /// T · N
    pub fn len(&self) -> usize {
        self.values.len()
    }

    /// Whether it has no room
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// The ends of time step `t`
    pub fn record_ends(&mut self, t: usize, step: &VecStep) {
        let row = t * self.num_envs..(t + 1) * self.num_envs;
        self.terminated[row.clone()].copy_from_slice(&step.terminated);
        self.truncated[row].copy_from_slice(&step.truncated);
    }

    /// Advantages and value targets of the whole rollout, which cuts every running episode off at its end
    pub fn finish(&mut self, gamma: f64, lambda: f64) {
        let last = self.len() - self.num_envs;
        self.truncated[last..].fill(true);
        step_streams(&self.terminated, &self.truncated, gamma, lambda, &mut self.discounts, &mut self.traces);
        gae_strided(
            &self.rewards,
            &self.values,
            &self.next_values,
            &self.discounts,
            &self.traces,
            self.num_envs,
            &mut self.advantages,
        );
        add_values(&self.advantages, &self.values, &mut self.returns);
    }
}
