//! Learning a table of action values step by step: Q-learning, SARSA, expected SARSA.
//!
//! The three differ in one thing alone, the value of the state that follows, and take it from [`algo::q`](crate::algo::q),
//! where DQN takes its own.

use super::exploration::{Exploration, falling_epsilon, pick};
use super::{Agent, Figures, Schedule};
use crate::algo::q;
use crate::rl::env::rng::Pcg64;
use crate::rl::env::{Actions, Episode, EpisodeStatistics, VecStep, VectorEnv};
use crate::rl::policy::Policy;
use crate::rl::state::State;
use crate::{Error, Result};

/// Steps between two rows of figures
const STEPS: u64 = 1000;

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
        let mut play = Play::begin(self, env, seed)?;
        let mut finished = Vec::with_capacity(episodes);
        while finished.len() < episodes {
            finished.extend(play.advance(self, env)?);
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

/// Where a table stands in its environment: a state, and the action that comes next
#[derive(Debug, Clone)]
struct Play {
    step: VecStep,
    statistics: EpisodeStatistics,
    state: usize,
    action: usize,
}

impl Play {
    fn begin(table: &mut TabularAgent, env: &mut dyn VectorEnv, seed: u64) -> Result<Self> {
        if env.num_envs() != 1 {
            return Err(Error::usage(format!("a table learns from one environment, got {}", env.num_envs())));
        }
        let mut step = VecStep::of(env);
        env.reset(Some(seed), &mut step.observations)?;
        let state = step.observations[0] as usize;
        let action = table.act(state);
        Ok(Self { step, statistics: EpisodeStatistics::new(1), state, action })
    }

    /// One step, and what is learned of it; the episode where it ends with this step
    fn advance(&mut self, table: &mut TabularAgent, env: &mut dyn VectorEnv) -> Result<Option<Episode>> {
        let step = &mut self.step;
        env.step(Actions::Discrete(&[self.action as u32]), step)?;
        let next = step.final_obs[0] as usize;
        // SARSA learns from the very action that it then takes; behind an end there is none
        let following = table.act(next);
        let worth = if step.terminated[0] { 0.0 } else { table.worth(next, following) };
        table.learn(self.state, self.action, step.rewards[0], worth);
        (self.state, self.action) = (next, following);
        if step.ended(0) {
            self.state = step.observations[0] as usize;
            self.action = table.act(self.state);
        } else if table.options.method != TabularMethod::Sarsa {
            // Off-policy and expected methods choose with what they have just learned
            self.action = table.act(self.state);
        }
        let mut finished = None;
        self.statistics.record(step, |episode| finished = Some(episode));
        Ok(finished)
    }
}

/// How exploration and step size of a run change with its share that is over
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TabularSchedule {
    /// ε at first, where that is how it explores
    pub initial_epsilon: f64,
    /// Share of the run over which ε falls to the one of [`TabularOptions::exploration`]
    pub epsilon_fraction: f64,
    /// α
    pub learning_rate: Schedule,
}

/// A table with its environment
pub struct TabularLearner {
    env: Box<dyn VectorEnv>,
    table: TabularAgent,
    final_exploration: Exploration,
    schedule: TabularSchedule,
    play: Play,
    episodes: Vec<Episode>,
    timesteps: u64,
}

impl TabularLearner {
    /// The environment is reset with `seed`, and actions are drawn from it
    ///
    /// # Errors
    /// An environment whose states or actions cannot be counted, or more than one
    pub fn new(
        mut env: Box<dyn VectorEnv>,
        options: TabularOptions,
        schedule: TabularSchedule,
        seed: u64,
    ) -> Result<Self> {
        let mut table = TabularAgent::new(&*env, options, seed)?;
        let final_exploration = options.exploration;
        table.options.exploration = schedule.exploration(final_exploration, 0.0);
        let play = Play::begin(&mut table, &mut *env, seed)?;
        Ok(Self { env, table, final_exploration, schedule, play, episodes: Vec::new(), timesteps: 0 })
    }

    /// Its table
    pub fn table(&self) -> &TabularAgent {
        &self.table
    }
}

impl TabularSchedule {
    fn exploration(&self, last: Exploration, progress: f64) -> Exploration {
        match last {
            Exploration::EpsilonGreedy { epsilon } => Exploration::EpsilonGreedy {
                epsilon: falling_epsilon(self.initial_epsilon, epsilon, self.epsilon_fraction, progress),
            },
            other => other,
        }
    }
}

impl Agent for TabularLearner {
    fn iterate(&mut self, total: u64) -> Result<Figures> {
        let steps = STEPS.min(total.saturating_sub(self.timesteps)).max(1);
        for _ in 0..steps {
            let progress = self.timesteps as f64 / total as f64;
            self.table.options.exploration = self.schedule.exploration(self.final_exploration, progress);
            self.table.options.learning_rate = self.schedule.learning_rate.at(progress);
            self.episodes.extend(self.play.advance(&mut self.table, &mut *self.env)?);
            self.timesteps += 1;
        }
        let values = self.table.values();
        let tried = self.table.counts.iter().filter(|count| **count > 0).count();
        let mut figures = vec![
            ("tried_share", tried as f64 / values.len() as f64),
            ("largest_value", values.iter().copied().fold(f32::NEG_INFINITY, f32::max).into()),
        ];
        if let Exploration::EpsilonGreedy { epsilon } = self.table.options.exploration {
            figures.push(("epsilon", epsilon));
        }
        figures.push(("learning_rate", self.table.options.learning_rate));
        Ok(figures)
    }

    fn timesteps(&self) -> u64 {
        self.timesteps
    }

    fn take_episodes(&mut self) -> Vec<Episode> {
        std::mem::take(&mut self.episodes)
    }

    fn policy(&self) -> Policy {
        let epsilon = match self.final_exploration {
            Exploration::EpsilonGreedy { epsilon } => epsilon,
            Exploration::Boltzmann { .. } | Exploration::Ucb { .. } => 0.0,
        };
        Policy::table(self.env.spec(), self.table.values(), epsilon)
    }

    fn persist(&mut self, state: &mut State) -> Result<()> {
        let Self { table, play, .. } = self;
        state.tensor("values", &mut table.values)?;
        state.tensor("observations", &mut play.step.observations)?;
        state.value("counts", &mut table.counts)?;
        state.value("rng", &mut table.rng)?;
        state.value("state", &mut play.state)?;
        state.value("action", &mut play.action)?;
        state.value("running_episode", &mut play.statistics)?;
        state.value("timesteps", &mut self.timesteps)?;
        state.environments(&mut *self.env)
    }
}
