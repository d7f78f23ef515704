//! Soft actor-critic with a temperature that finds itself.
//!
//! Haarnoja et al. 2018, <https://arxiv.org/abs/1812.05905>. Defaults and the order of an update are
//! Stable-Baselines3's: both critics, the temperature, the actor against the critics that have just learned.

mod learner;

use learner::{Draw, Learner, Models};

use super::collector::{Collector, ReplayOptions};
use super::{Agent, Figures, Schedule};
use crate::Result;
use crate::rl::env::rng::Pcg64;
use crate::rl::env::{Actions, Episode, VectorEnv};
use crate::rl::observer::ActionSpace;
use crate::rl::policy::{Head, Policy};
use crate::rl::random::standard_normal;
use crate::rl::replay::Sample;
use crate::rl::state::State;

/// Weight α of the entropy
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Temperature {
    /// This
    Fixed(f64),
    /// Learned, so that the entropy comes to `target_entropy`
    Auto {
        /// α at the start
        initial: f64,
    },
}

/// Settings of SAC; defaults are Stable-Baselines3's
#[derive(Debug, Clone, PartialEq)]
pub struct SacOptions {
    /// Learning rate of actor, critics and temperature
    pub learning_rate: Schedule,
    /// The replay
    pub replay: ReplayOptions,
    /// τ, by which share the targets follow
    pub tau: f64,
    /// Updates between two moves of the targets
    pub target_update_interval: usize,
    /// α
    pub ent_coef: Temperature,
    /// Entropy that a learned α aims at; minus the numbers of an action where not set
    pub target_entropy: Option<f64>,
    /// Widths of the hidden layers, of actor and critics each
    pub hidden: Vec<usize>,
}

impl Default for SacOptions {
    fn default() -> Self {
        Self {
            learning_rate: Schedule::constant(3e-4),
            replay: ReplayOptions::default(),
            tau: 0.005,
            target_update_interval: 1,
            ent_coef: Temperature::Auto { initial: 1.0 },
            target_entropy: None,
            hidden: vec![256, 256],
        }
    }
}

/// The agent with its environments
pub struct Sac {
    options: SacOptions,
    collector: Collector<f32>,
    space: ActionSpace,
    rng: Pcg64,
    learner: Learner,
    sample: Sample<f32>,
    /// For one step of all environments
    acting: Draw,
    noise: Vec<f32>,
    env_actions: Vec<f32>,
}

impl Sac {
    /// Networks are drawn from `seed`, and the environments are reset with it
    ///
    /// # Errors
    /// Actions that are not vectors within finite bounds
    pub fn new(env: Box<dyn VectorEnv>, options: SacOptions, seed: u64) -> Result<Self> {
        let space = ActionSpace::of(env.spec());
        let size = space.bounded("sac", &env.spec().id)?;
        let collector = Collector::new(env, options.replay.clone(), size, seed)?;
        let (n, width, rows) = (collector.num_envs(), collector.observer.width(), options.replay.batch_size);
        let mut rng = Pcg64::new(u128::from(seed));
        let learner = Learner::new(width, size, rows, &options, &mut rng)?;
        Ok(Self {
            collector,
            rng,
            sample: Sample::new(rows, width, size),
            acting: Draw::new(&learner.models.network, n),
            noise: vec![0.0; n * size],
            env_actions: vec![0.0; n * size],
            learner,
            space,
            options,
        })
    }

    fn act(&mut self) -> Result<()> {
        let is_warming_up = self.collector.is_warming_up();
        let (Models { network, actor, .. }, size) = (&self.learner.models, self.space.outputs());
        if is_warming_up {
            self.collector.look();
            self.acting.actions.fill_with(|| self.rng.uniform(-1.0, 1.0) as f32);
        } else {
            self.noise.fill_with(|| standard_normal(&mut self.rng) as f32);
            self.acting.draw(network, &actor.params, self.collector.look(), &self.noise);
        }
        for (at, (scaled, unit)) in self.env_actions.iter_mut().zip(&self.acting.actions).enumerate() {
            *scaled = self.space.scale(at % size, *unit);
        }
        self.collector.advance(Actions::Continuous(&self.env_actions), &self.acting.actions, &mut self.rng)
    }
}

impl Agent for Sac {
    fn iterate(&mut self, total: u64) -> Result<Figures> {
        for _ in 0..self.options.replay.train_freq {
            self.act()?;
        }
        let progress = (self.collector.timesteps as f64 / total as f64).min(1.0);
        let learning_rate = self.options.learning_rate.at(progress);
        let due = self.collector.updates_due();
        let mut last = None;
        let Self { collector, learner, sample, options, rng, .. } = self;
        let replay = &collector.replay;
        // Within the pool, so that its threads wait for each other without going to sleep
        rayon::scope(|_| {
            for _ in 0..due {
                replay.sample(progress, rng, sample);
                last = Some(learner.update(sample, options, learning_rate, rng));
            }
        });
        let names = ["critic_loss", "actor_loss", "ent_coef_loss", "ent_coef", "q_value", "entropy", "grad_norm"];
        let figures = last.map_or_else(Vec::new, |last| names.into_iter().zip(last).collect());
        Ok([("learning_rate", learning_rate)].into_iter().chain(figures).collect())
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
        self.collector.persist(state)
    }

    fn policy(&self) -> Policy {
        Policy {
            observer: self.collector.observer.clone(),
            actions: self.space.clone(),
            network: self.learner.models.network.clone(),
            params: self.learner.models.actor.params.clone(),
            head: Head::Squashed,
        }
    }
}
