//! Deep Q-networks. Options: double targets, dueling heads, prioritised replay, n-step returns, goals in hindsight.
//!
//! Mnih et al. 2015; the options' papers stand where they are built, in `q_learner`, [`crate::rl::priority`],
//! [`crate::rl::n_step`] and [`crate::rl::hindsight`].

use super::collector::{Collector, ReplayOptions};
use super::exploration::falling_epsilon;
use super::q_learner::{QLearner, QOptions};
use super::{Agent, Figures, Schedule};
use crate::Result;
use crate::algo::q::greedy;
use crate::rl::env::rng::Pcg64;
use crate::rl::env::{Actions, Episode, VectorEnv};
use crate::rl::mlp::MlpCache;
use crate::rl::observer::ActionSpace;
use crate::rl::policy::Policy;
use crate::rl::priority::PriorityOptions;
use crate::rl::replay::Sample;
use crate::rl::state::State;

/// Settings of DQN; defaults are Stable-Baselines3's
#[derive(Debug, Clone, PartialEq)]
pub struct DqnOptions {
    /// Learning rate
    pub learning_rate: Schedule,
    /// The replay
    pub replay: ReplayOptions,
    /// Draws by priority
    pub prioritized: Option<PriorityOptions>,
    /// Steps of each environment before the target network follows
    pub target_update_interval: usize,
    /// By which share it follows then
    pub tau: f64,
    /// Share of the run over which ε falls
    pub exploration_fraction: f64,
    /// ε at first
    pub exploration_initial_eps: f64,
    /// ε then
    pub exploration_final_eps: f64,
    /// Largest norm of the gradients
    pub max_grad_norm: f64,
    /// Choose the next action by the online network
    pub double: bool,
    /// Value and advantages apart
    pub dueling: bool,
    /// Widths of the hidden layers
    pub hidden: Vec<usize>,
}

impl Default for DqnOptions {
    fn default() -> Self {
        Self {
            learning_rate: Schedule::constant(1e-4),
            replay: ReplayOptions { batch_size: 32, train_freq: 4, ..ReplayOptions::default() },
            prioritized: None,
            target_update_interval: 10_000,
            tau: 1.0,
            exploration_fraction: 0.1,
            exploration_initial_eps: 1.0,
            exploration_final_eps: 0.05,
            max_grad_norm: 10.0,
            double: false,
            dueling: false,
            hidden: vec![64, 64],
        }
    }
}

/// The agent with its environments
pub struct Dqn {
    options: DqnOptions,
    collector: Collector<usize>,
    learner: QLearner,
    actions: usize,
    rng: Pcg64,
    calls: usize,
    sample: Sample<usize>,
    acting: MlpCache,
    values: Vec<f32>,
    chosen: Vec<usize>,
    env_actions: Vec<u32>,
}

impl Dqn {
    /// The network is drawn from `seed`, and the environments are reset with it
    ///
    /// # Errors
    /// Continuous actions; goals in hindsight where there are none
    pub fn new(env: Box<dyn VectorEnv>, options: DqnOptions, seed: u64) -> Result<Self> {
        let actions = ActionSpace::of(env.spec()).count("dqn", &env.spec().id)?;
        let mut collector = Collector::new(env, options.replay.clone(), 1, seed)?;
        if let Some(priorities) = options.prioritized {
            collector.replay = collector.replay.prioritized(priorities);
        }
        let (n, width, rows) = (collector.num_envs(), collector.observer.width(), options.replay.batch_size);
        let network = QOptions {
            hidden: options.hidden.clone(),
            max_grad_norm: options.max_grad_norm,
            double: options.double,
            dueling: options.dueling,
            conservative: 0.0,
        };
        let mut rng = Pcg64::new(u128::from(seed));
        let learner = QLearner::new(width, actions, rows, network, &mut rng);
        Ok(Self {
            collector,
            actions,
            rng,
            calls: 0,
            sample: Sample::new(rows, width, 1),
            acting: learner.cache(n),
            values: vec![0.0; n * actions],
            chosen: vec![0; n],
            env_actions: vec![0; n],
            learner,
            options,
        })
    }

    /// ε when this share of the run is over
    fn epsilon(&self, progress: f64) -> f64 {
        let DqnOptions { exploration_initial_eps, exploration_final_eps, exploration_fraction, .. } = self.options;
        falling_epsilon(exploration_initial_eps, exploration_final_eps, exploration_fraction, progress)
    }

    fn act(&mut self, total: u64) -> Result<()> {
        let epsilon = if self.collector.is_warming_up() {
            1.0
        } else {
            self.epsilon(self.collector.timesteps as f64 / total as f64)
        };
        self.learner.values(self.collector.look(), &mut self.acting, &mut self.values);
        for (action, values) in self.chosen.iter_mut().zip(self.values.chunks_exact(self.actions)) {
            *action = if self.rng.random() < epsilon {
                self.rng.integers(0, self.actions as i64) as usize
            } else {
                greedy(values)
            };
        }
        for (to, action) in self.env_actions.iter_mut().zip(&self.chosen) {
            *to = *action as u32;
        }
        self.collector.advance(Actions::Discrete(&self.env_actions), &self.chosen, &mut self.rng)
    }
}

impl Agent for Dqn {
    fn iterate(&mut self, total: u64) -> Result<Figures> {
        for _ in 0..self.options.replay.train_freq {
            self.act(total)?;
            self.calls += 1;
            if self.calls.is_multiple_of(self.options.target_update_interval) {
                self.learner.follow(self.options.tau);
            }
        }
        let progress = (self.collector.timesteps as f64 / total as f64).min(1.0);
        let learning_rate = self.options.learning_rate.at(progress);
        let mut figures = vec![("epsilon", self.epsilon(progress)), ("learning_rate", learning_rate)];
        let updates = self.collector.updates_due();
        let mut sums = [0.0; 3];
        for _ in 0..updates {
            self.collector.replay.sample(progress, &mut self.rng, &mut self.sample);
            let last = self.learner.update(&self.sample, learning_rate);
            self.collector.replay.learned(&self.sample, self.learner.errors());
            sums.iter_mut().zip(last).for_each(|(sum, figure)| *sum += figure);
        }
        if updates > 0 {
            let names = ["loss", "q_value", "grad_norm"];
            figures.extend(names.into_iter().zip(sums.map(|sum| sum / updates as f64)));
        }
        Ok(figures)
    }

    fn timesteps(&self) -> u64 {
        self.collector.timesteps
    }

    fn take_episodes(&mut self) -> Vec<Episode> {
        std::mem::take(&mut self.collector.episodes)
    }

    fn persist(&mut self, state: &mut State) -> Result<()> {
        self.learner.persist(state)?;
        state.value("rng", &mut self.rng)?;
        state.value("calls", &mut self.calls)?;
        self.collector.persist(state)
    }

    fn policy(&self) -> Policy {
        self.learner.policy(self.collector.observer.clone(), self.options.exploration_final_eps)
    }
}
