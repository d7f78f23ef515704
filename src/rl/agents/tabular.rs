//! Learning a table of action values step by step: Q-learning, SARSA, expected SARSA.
//!
//! The three differ in one thing alone, the value of the state that follows, and take it from [`algo::q`](crate::algo::q),
//! where DQN takes its own.

use super::exploration::{Exploration, pick};
use crate::algo::q;
use crate::rl::env::rng::Pcg64;
use crate::rl::env::{Actions, Episode, EpisodeStatistics, VecStep, VectorEnv};
use crate::{Error, Result};

/// What follows is worth …
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TabularMethod {
    /// … the best action's value. Watkins 1989
    QLearning,
    /// … the value of the action that is taken. Rummery & Niranjan 1994
    Sarsa,
    /// … the mean over the actions that might be taken. van Seijen et al. 2009
    ExpectedSarsa,
}

/// How a table is learned
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TabularOptions {
    /// The bootstrap
    pub method: TabularMethod,
    /// How actions are chosen
    pub exploration: Exploration,
    /// α
    pub learning_rate: f64,
    /// γ
    pub gamma: f64,
}

/// A table of action values that learns
#[derive(Debug, Clone)]
pub struct TabularAgent {
    options: TabularOptions,
    actions: usize,
    values: Vec<f32>,
    counts: Vec<u32>,
    probabilities: Vec<f32>,
    rng: Pcg64,
}

impl TabularAgent {
    /// An agent for `env`, all values 0
    ///
    /// # Errors
    /// An environment whose states or actions cannot be counted
    pub fn new(env: &dyn VectorEnv, options: TabularOptions, seed: u64) -> Result<Self> {
        let spec = env.spec();
        let (Some(states), Some(actions)) = (spec.observation_space.discrete(), spec.action_space.discrete()) else {
            return Err(Error::usage(format!("`{}` has no table: its states and actions must be discrete", spec.id)));
        };
        let (states, actions) = (states as usize, actions as usize);
        Ok(Self {
            options,
            actions,
            values: vec![0.0; states * actions],
            counts: vec![0; states * actions],
            probabilities: vec![0.0; actions],
            rng: Pcg64::new(u128::from(seed)),
        })
    }

    /// Action values, state after state
    pub fn values(&self) -> &[f32] {
        &self.values
    }

    /// The best action of each state, the first of equals
    pub fn greedy_policy(&self) -> Vec<usize> {
        self.values.chunks(self.actions).map(q::greedy).collect()
    }

    /// Plays and learns for so many episodes in the only environment of `env`
    ///
    /// # Errors
    /// More than one environment; what the environment itself reports
    pub fn train(&mut self, env: &mut dyn VectorEnv, episodes: usize, seed: u64) -> Result<Vec<Episode>> {
        if env.num_envs() != 1 {
            return Err(Error::usage(format!("a table learns from one environment, got {}", env.num_envs())));
        }
        let mut step = VecStep::of(env);
        let mut statistics = EpisodeStatistics::new(1);
        let mut finished = Vec::with_capacity(episodes);
        env.reset(Some(seed), &mut step.observations)?;
        let mut state = step.observations[0] as usize;
        let mut action = self.act(state);
        while finished.len() < episodes {
            env.step(Actions::Discrete(&[action as u32]), &mut step)?;
            let next = step.final_obs[0] as usize;
            // SARSA learns from the very action that it then takes; behind an end there is none
            let ended = step.ended(0);
            let following = self.act(next);
            let worth = if step.terminated[0] { 0.0 } else { self.worth(next, following) };
            self.learn(state, action, step.rewards[0], worth);
            (state, action) = (next, following);
            if ended {
                state = step.observations[0] as usize;
                action = self.act(state);
            } else if self.options.method != TabularMethod::Sarsa {
                // Off-policy and expected methods choose with what they have just learned
                action = self.act(state);
            }
            statistics.record(&step, |episode| finished.push(episode));
        }
        Ok(finished)
    }

    fn row(&self, state: usize) -> std::ops::Range<usize> {
        state * self.actions..(state + 1) * self.actions
    }

    fn explore(&mut self, state: usize) {
        let row = self.row(state);
        self.options.exploration.probabilities(&self.values[row.clone()], &self.counts[row], &mut self.probabilities);
    }

    fn act(&mut self, state: usize) -> usize {
        self.explore(state);
        pick(&self.probabilities, self.rng.random())
    }

    fn worth(&mut self, state: usize, following: usize) -> f32 {
        let row = self.row(state);
        let mut worth = [0.0];
        match self.options.method {
            TabularMethod::QLearning => q::max_values(&self.values[row], &mut worth),
            TabularMethod::Sarsa => worth[0] = self.values[row.start + following],
            TabularMethod::ExpectedSarsa => {
                self.explore(state);
                q::expected_values(&self.values[row], &self.probabilities, &mut worth);
            }
        }
        worth[0]
    }

    fn learn(&mut self, state: usize, action: usize, reward: f64, worth: f32) {
        let at = state * self.actions + action;
        let mut target = [0.0];
        q::targets(&[reward as f32], &[self.options.gamma as f32], &[worth], &mut target);
        self.counts[at] += 1;
        self.values[at] += self.options.learning_rate as f32 * (target[0] - self.values[at]);
    }
}
