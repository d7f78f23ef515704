//! Soft actor-critic with a temperature that finds itself.
//!
//! Haarnoja et al. 2018, <https://arxiv.org/abs/1812.05905>. Defaults and the order of an update are
//! Stable-Baselines3's: both critics, the temperature, the actor against the critics that have just learned.

use std::ops::Range;

use super::collector::{Collector, ReplayOptions};
use super::twin::{Learner, Twin, TwinPass, Which, halves};
use super::{Agent, Figures, Schedule};
use crate::Result;
use crate::algo::distribution::{tanh_gaussian, tanh_gaussian_backward};
use crate::algo::q::targets;
use crate::algo::soft::{actor_loss, soft_values, temperature_loss};
use crate::rl::env::rng::Pcg64;
use crate::rl::env::{Actions, Episode, VectorEnv};
use crate::rl::mlp::{Activation, Adam, Mlp, MlpCache};
use crate::rl::observer::ActionSpace;
use crate::rl::policy::{Head, LOG_STD, Policy};
use crate::rl::random::standard_normal;
use crate::rl::replay::Sample;

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
    core: Core,
    sample: Sample<f32>,
    /// For one step of all environments
    acting: Draw,
    noise: Vec<f32>,
    env_actions: Vec<f32>,
}

/// All that learns
#[derive(Debug)]
struct Core {
    models: Models,
    log_alpha: Vec<f32>,
    temperature: Adam,
    target_entropy: f64,
    updates: usize,
    halves: [Half; 2],
    log_probs: Vec<f32>,
    /// Of the actions now and next
    noise: [Vec<f32>; 2],
}

#[derive(Debug)]
struct Models {
    network: Mlp,
    actor: Learner,
    twin: Twin,
}

/// Actions drawn for some states
#[derive(Debug)]
struct Draw {
    cache: MlpCache,
    mean: Vec<f32>,
    log_std: Vec<f32>,
    actions: Vec<f32>,
    log_probs: Vec<f32>,
}

/// What one thread does of an update
#[derive(Debug)]
struct Half {
    rows: Range<usize>,
    now: Draw,
    next: Draw,
    critics: TwinPass,
    values: Vec<f32>,
    targets: Vec<f32>,
    grad_actions: Vec<f32>,
    grad_log_probs: Vec<f32>,
    grad_mean: Vec<f32>,
    grad_log_std: Vec<f32>,
    grad_outputs: Vec<f32>,
    grads: Vec<f32>,
}

/// What both threads read of an update
#[derive(Debug, Clone, Copy)]
struct Batch<'b> {
    sample: &'b Sample<f32>,
    noise: &'b [Vec<f32>; 2],
    alpha: f64,
}

impl Draw {
    fn new(network: &Mlp, rows: usize) -> Self {
        let numbers = || vec![0.0; rows * network.outputs() / 2];
        Self {
            cache: network.cache(rows),
            mean: numbers(),
            log_std: numbers(),
            actions: numbers(),
            log_probs: vec![0.0; rows],
        }
    }

    fn draw(&mut self, network: &Mlp, params: &[f32], features: &[f32], noise: &[f32]) {
        let rows = self.log_probs.len();
        let size = self.mean.len() / rows;
        let outputs = network.forward(params, rows, features, &mut self.cache);
        let parts = self.mean.chunks_exact_mut(size).zip(self.log_std.chunks_exact_mut(size));
        for ((mean, log_std), row) in parts.zip(outputs.chunks_exact(2 * size)) {
            mean.copy_from_slice(&row[..size]);
            for (log_std, raw) in log_std.iter_mut().zip(&row[size..]) {
                *log_std = raw.clamp(LOG_STD.0, LOG_STD.1);
            }
        }
        tanh_gaussian(&self.mean, &self.log_std, noise, &mut self.actions, &mut self.log_probs);
    }
}

impl Half {
    fn new(models: &Models, rows: Range<usize>) -> Self {
        let n = rows.len();
        let numbers = || vec![0.0; n * models.network.outputs() / 2];
        Self {
            rows,
            now: Draw::new(&models.network, n),
            next: Draw::new(&models.network, n),
            critics: models.twin.pass(n),
            values: vec![0.0; n],
            targets: vec![0.0; n],
            grad_actions: numbers(),
            grad_log_probs: vec![0.0; n],
            grad_mean: numbers(),
            grad_log_std: numbers(),
            grad_outputs: vec![0.0; n * models.network.outputs()],
            grads: vec![0.0; models.network.end()],
        }
    }

    /// This half of rows of `width` numbers
    fn part<'s>(&self, rows: &'s [f32], width: usize) -> &'s [f32] {
        &rows[self.rows.start * width..self.rows.end * width]
    }

    /// The critics' gradients; returns their loss and the sum of the first one's values
    fn learn_critics(&mut self, models: &Models, batch: &Batch<'_>) -> [f64; 2] {
        let Batch { sample, noise, alpha } = *batch;
        let Models { network, actor, twin } = models;
        let (width, size) = (network.inputs(), network.outputs() / 2);
        let [features, next_features] = [&sample.features, &sample.next_features].map(|x| self.part(x, width));
        let [noise, next_noise] = noise.each_ref().map(|x| self.part(x, size));
        self.next.draw(network, &actor.params, next_features, next_noise);
        self.now.draw(network, &actor.params, features, noise);
        self.critics.forward(twin, Which::Target, next_features, &self.next.actions);
        let [q1, q2] = &self.critics.values;
        soft_values(q1, q2, &self.next.log_probs, alpha, &mut self.values);
        let [rewards, discounts] = [&sample.rewards, &sample.discounts].map(|x| self.part(x, 1));
        targets(rewards, discounts, &self.values, &mut self.targets);
        self.critics.forward(twin, Which::Online, features, self.part(&sample.actions, size));
        let loss = self.critics.regress(twin, &self.targets, sample.len() as f64);
        [loss, self.critics.values[0].iter().map(|q| f64::from(*q)).sum()]
    }

    /// The actor's gradients after [`Half::learn_critics`]; returns its loss
    fn learn_actor(&mut self, models: &Models, batch: &Batch<'_>) -> f64 {
        let Models { network, actor, twin } = models;
        let features = self.part(&batch.sample.features, network.inputs());
        let noise = self.part(&batch.noise[0], network.outputs() / 2);
        self.critics.forward(twin, Which::Online, features, &self.now.actions);
        let TwinPass { values: [q1, q2], grad_values: [grad_q1, grad_q2], .. } = &mut self.critics;
        let (log_probs, rows) = (&self.now.log_probs, batch.sample.len() as f64);
        let loss = actor_loss(q1, q2, log_probs, batch.alpha, rows, grad_q1, grad_q2, &mut self.grad_log_probs);
        self.critics.action_gradients(twin, 2, &mut self.grad_actions);
        tanh_gaussian_backward(
            &self.now.mean,
            &self.now.log_std,
            noise,
            &self.grad_actions,
            &self.grad_log_probs,
            &mut self.grad_mean,
            &mut self.grad_log_std,
        );
        let size = network.outputs() / 2;
        let outputs = self.now.cache.outputs().chunks_exact(2 * size);
        let parts = self.grad_mean.chunks_exact(size).zip(self.grad_log_std.chunks_exact(size));
        for ((grad, row), (mean, log_std)) in self.grad_outputs.chunks_exact_mut(2 * size).zip(outputs).zip(parts) {
            grad[..size].copy_from_slice(mean);
            for (d, by_log_std) in log_std.iter().enumerate() {
                // What is cut off does not move
                let is_within = (LOG_STD.0..=LOG_STD.1).contains(&row[size + d]);
                grad[size + d] = if is_within { *by_log_std } else { 0.0 };
            }
        }
        let cache = &mut self.now.cache;
        network.backward(&actor.params, self.rows.len(), features, &self.grad_outputs, cache, &mut self.grads);
        loss
    }
}

impl Core {
    /// One update; returns the losses of critics, actor and temperature, α, mean Q, entropy, and the critics' gradient norm
    fn update(&mut self, sample: &Sample<f32>, options: &SacOptions, learning_rate: f64, rng: &mut Pcg64) -> [f64; 7] {
        let rows = sample.len() as f64;
        for noise in &mut self.noise {
            noise.fill_with(|| standard_normal(rng) as f32);
        }
        let alpha = f64::from(self.log_alpha[0]).exp();
        let batch = Batch { sample, noise: &self.noise, alpha };
        let [first, second] = &mut self.halves;
        let models = &mut self.models;
        let (left, right) =
            rayon::join(|| first.learn_critics(models, &batch), || second.learn_critics(models, &batch));
        for half in [&*first, &*second] {
            self.log_probs[half.rows.clone()].copy_from_slice(&half.now.log_probs);
        }
        let temperature = if matches!(options.ent_coef, Temperature::Auto { .. }) {
            let log_alpha = f64::from(self.log_alpha[0]);
            let (loss, slope) = temperature_loss(log_alpha, &self.log_probs, self.target_entropy);
            self.temperature.step(&mut self.log_alpha, &[slope as f32], learning_rate, f64::INFINITY);
            loss
        } else {
            0.0
        };
        let norm = models.twin.step([&first.critics, &second.critics], learning_rate);
        let actor = rayon::join(|| first.learn_actor(models, &batch), || second.learn_actor(models, &batch));
        self.updates += 1;
        let follows = self.updates.is_multiple_of(options.target_update_interval);
        let Models { actor: learner, twin, .. } = models;
        rayon::join(
            || learner.step([&first.grads, &second.grads], learning_rate),
            || if follows { twin.follow(options.tau) },
        );
        let entropy = -self.log_probs.iter().map(|log_prob| f64::from(*log_prob)).sum::<f64>() / rows;
        [left[0] + right[0], actor.0 + actor.1, temperature, alpha, (left[1] + right[1]) / rows, entropy, norm]
    }
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
        let widths: Vec<_> = [width].into_iter().chain(options.hidden.iter().copied()).chain([2 * size]).collect();
        let network = Mlp::new(&widths, Activation::Relu, 0);
        let actor = Learner::of(&network, &mut rng);
        let twin = Twin::new(width, size, &options.hidden, &mut rng);
        let models = Models { network, actor, twin };
        let initial = match options.ent_coef {
            Temperature::Fixed(alpha) | Temperature::Auto { initial: alpha } => alpha,
        };
        Ok(Self {
            collector,
            rng,
            sample: Sample::new(rows, width, size),
            acting: Draw::new(&models.network, n),
            noise: vec![0.0; n * size],
            env_actions: vec![0.0; n * size],
            core: Core {
                halves: halves(rows)?.map(|rows| Half::new(&models, rows)),
                log_alpha: vec![initial.ln() as f32],
                temperature: Adam::new(1, 1e-8),
                target_entropy: options.target_entropy.unwrap_or(-(size as f64)),
                updates: 0,
                log_probs: vec![0.0; rows],
                noise: [vec![0.0; rows * size], vec![0.0; rows * size]],
                models,
            },
            space,
            options,
        })
    }

    fn act(&mut self) -> Result<()> {
        let is_warming_up = self.collector.is_warming_up();
        let (Models { network, actor, .. }, size) = (&self.core.models, self.space.outputs());
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
        let Self { collector, core, sample, options, rng, .. } = self;
        let replay = &collector.replay;
        // Within the pool, so that its threads wait for each other without going to sleep
        rayon::scope(|_| {
            for _ in 0..due {
                replay.sample(progress, rng, sample);
                last = Some(core.update(sample, options, learning_rate, rng));
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

    fn policy(&self) -> Policy {
        Policy {
            observer: self.collector.observer.clone(),
            actions: self.space.clone(),
            network: self.core.models.network.clone(),
            params: self.core.models.actor.params.clone(),
            head: Head::Squashed,
        }
    }
}
