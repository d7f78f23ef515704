//! Twin delayed deep deterministic policy gradient.
//!
//! Fujimoto et al. 2018, <https://arxiv.org/abs/1802.09477>: the smaller of two critics, noise on the target's actions,
//! and an actor that learns once in `policy_delay` updates. Defaults are Stable-Baselines3's, except for the noise of
//! the actions, which is the paper's (0.1) where Stable-Baselines3 has none.

use std::ops::Range;

use super::collector::{Collector, ReplayOptions};
use super::twin::{Learned, Twin, TwinPass, Which, halves};
use super::{Agent, Figures, Schedule};
use crate::Result;
use crate::algo::q::targets;
use crate::algo::soft::soft_values;
use crate::ops::kernels::mlp;
use crate::rl::env::rng::Pcg64;
use crate::rl::env::{Actions, Episode, VectorEnv};
use crate::rl::mlp::{Activation, Mlp, MlpCache};
use crate::rl::observer::ActionSpace;
use crate::rl::policy::{Head, Policy};
use crate::rl::random::standard_normal;
use crate::rl::replay::Sample;
use crate::rl::state::State;

/// Settings of TD3; lengths of actions are relative to bounds of ±1
#[derive(Debug, Clone, PartialEq)]
pub struct Td3Options {
    /// Learning rate of actor and critics
    pub learning_rate: Schedule,
    /// The replay
    pub replay: ReplayOptions,
    /// τ, by which share the targets follow
    pub tau: f64,
    /// Updates of the critics between two of the actor and of the targets
    pub policy_delay: usize,
    /// σ of the noise on the target's actions
    pub target_policy_noise: f64,
    /// How far that noise goes at most
    pub target_noise_clip: f64,
    /// σ of the noise on actions that are taken
    pub noise_std: f64,
    /// Widths of the hidden layers, of actor and critics each
    pub hidden: Vec<usize>,
}

impl Default for Td3Options {
    fn default() -> Self {
        Self {
            learning_rate: Schedule::constant(1e-3),
            replay: ReplayOptions::default(),
            tau: 0.005,
            policy_delay: 2,
            target_policy_noise: 0.2,
            target_noise_clip: 0.5,
            noise_std: 0.1,
            hidden: vec![400, 300],
        }
    }
}

/// The agent with its environments
pub struct Td3 {
    options: Td3Options,
    collector: Collector<f32>,
    space: ActionSpace,
    rng: Pcg64,
    core: Core,
    sample: Sample<f32>,
    acting: MlpCache,
    unit_actions: Vec<f32>,
    env_actions: Vec<f32>,
}

/// All that learns
#[derive(Debug)]
struct Core {
    models: Models,
    updates: usize,
    halves: [Half; 2],
    noise: Vec<f32>,
}

#[derive(Debug)]
struct Models {
    network: Mlp,
    actor: Learned,
    actor_target: Vec<f32>,
    twin: Twin,
}

/// What one thread does of an update
#[derive(Debug)]
struct Half {
    rows: Range<usize>,
    cache: MlpCache,
    actions: Vec<f32>,
    critics: TwinPass,
    /// TD3 has no entropy: log-probabilities of 0
    zeros: Vec<f32>,
    values: Vec<f32>,
    targets: Vec<f32>,
    grad_actions: Vec<f32>,
    grads: Vec<f32>,
}

impl Half {
    fn new(models: &Models, rows: Range<usize>) -> Self {
        let n = rows.len();
        let numbers = || vec![0.0; n * models.network.outputs()];
        let column = || vec![0.0; n];
        Self {
            rows,
            cache: models.network.cache(n),
            actions: numbers(),
            critics: models.twin.pass(n),
            zeros: column(),
            values: column(),
            targets: column(),
            grad_actions: numbers(),
            grads: vec![0.0; models.network.end()],
        }
    }

    /// This half of rows of `width` numbers
    fn part<'s>(&self, rows: &'s [f32], width: usize) -> &'s [f32] {
        &rows[self.rows.start * width..self.rows.end * width]
    }

    /// tanh of the actor's outputs
    fn act(&mut self, network: &Mlp, params: &[f32], features: &[f32]) {
        self.actions.copy_from_slice(network.forward(params, self.rows.len(), features, &mut self.cache));
        mlp::tanh(&mut self.actions);
    }

    /// The critics' gradients; returns their loss and the sum of the first one's values
    fn learn_critics(&mut self, models: &Models, sample: &Sample<f32>, noise: &[f32]) -> [f64; 2] {
        let Models { network, actor_target, twin, .. } = models;
        let (width, size) = (network.inputs(), network.outputs());
        let [features, next_features] = [&sample.features, &sample.next_features].map(|x| self.part(x, width));
        self.act(network, actor_target, next_features);
        let noise = self.part(noise, size);
        for (action, noise) in self.actions.iter_mut().zip(noise) {
            *action = (*action + noise).clamp(-1.0, 1.0);
        }
        self.critics.forward(twin, Which::Target, next_features, &self.actions);
        let [q1, q2] = &self.critics.values;
        soft_values(q1, q2, &self.zeros, 0.0, &mut self.values);
        let [rewards, discounts] = [&sample.rewards, &sample.discounts].map(|x| self.part(x, 1));
        targets(rewards, discounts, &self.values, &mut self.targets);
        self.critics.forward(twin, Which::Online, features, self.part(&sample.actions, size));
        let loss = self.critics.regress(twin, &self.targets, sample.len() as f64);
        [loss, self.critics.values[0].iter().map(|q| f64::from(*q)).sum()]
    }

    /// The actor's gradients: up the first critic (Silver et al. 2014); returns its loss, minus the mean value
    fn learn_actor(&mut self, models: &Models, sample: &Sample<f32>) -> f64 {
        let Models { network, actor, twin, .. } = models;
        let features = self.part(&sample.features, network.inputs());
        self.act(network, &actor.params, features);
        self.critics.forward(twin, Which::Online, features, &self.actions);
        let share = 1.0 / sample.len() as f64;
        self.critics.grad_values[0].fill(-share as f32);
        self.critics.action_gradients(twin, 1, &mut self.grad_actions);
        mlp::tanh_backward(&self.actions, &mut self.grad_actions);
        let (rows, grads) = (self.rows.len(), &mut self.grads);
        network.backward(&actor.params, rows, features, &self.grad_actions, &mut self.cache, grads);
        -share * self.critics.values[0].iter().map(|q| f64::from(*q)).sum::<f64>()
    }
}

impl Core {
    /// One update; returns the losses of critics and actor, mean Q, and the critics' gradient norm
    fn update(
        &mut self,
        sample: &Sample<f32>,
        options: &Td3Options,
        learning_rate: f64,
        rng: &mut Pcg64,
    ) -> ([f64; 3], Option<f64>) {
        let clip = options.target_noise_clip;
        self.noise.fill_with(|| (options.target_policy_noise * standard_normal(rng)).clamp(-clip, clip) as f32);
        let [first, second] = &mut self.halves;
        let (models, noise) = (&mut self.models, &self.noise);
        let (left, right) =
            rayon::join(|| first.learn_critics(models, sample, noise), || second.learn_critics(models, sample, noise));
        let norm = models.twin.step([&first.critics, &second.critics], learning_rate);
        let figures = [left[0] + right[0], (left[1] + right[1]) / sample.len() as f64, norm];
        self.updates += 1;
        if !self.updates.is_multiple_of(options.policy_delay) {
            return (figures, None);
        }
        let loss = rayon::join(|| first.learn_actor(models, sample), || second.learn_actor(models, sample));
        models.actor.step([&first.grads, &second.grads], learning_rate);
        mlp::follow(&mut models.actor_target, &models.actor.params, options.tau as f32);
        models.twin.follow(options.tau);
        (figures, Some(loss.0 + loss.1))
    }
}

impl Td3 {
    /// Networks are drawn from `seed`, and the environments are reset with it
    ///
    /// # Errors
    /// Actions that are not vectors within finite bounds
    pub fn new(env: Box<dyn VectorEnv>, options: Td3Options, seed: u64) -> Result<Self> {
        let space = ActionSpace::of(env.spec());
        let size = space.bounded("td3", &env.spec().id)?;
        let collector = Collector::new(env, options.replay.clone(), size, seed)?;
        let (n, width, rows) = (collector.num_envs(), collector.observer.width(), options.replay.batch_size);
        let mut rng = Pcg64::new(u128::from(seed));
        let widths: Vec<_> = [width].into_iter().chain(options.hidden.iter().copied()).chain([size]).collect();
        let network = Mlp::new(&widths, Activation::Relu, 0);
        let actor = Learned::of(&network, &mut rng);
        let twin = Twin::new(width, size, &options.hidden, &mut rng);
        let models = Models { actor_target: actor.params.clone(), network, actor, twin };
        Ok(Self {
            collector,
            rng,
            sample: Sample::new(rows, width, size),
            acting: models.network.cache(n),
            unit_actions: vec![0.0; n * size],
            env_actions: vec![0.0; n * size],
            core: Core {
                halves: halves(rows)?.map(|rows| Half::new(&models, rows)),
                updates: 0,
                noise: vec![0.0; rows * size],
                models,
            },
            space,
            options,
        })
    }

    fn act(&mut self) -> Result<()> {
        let is_warming_up = self.collector.is_warming_up();
        let (n, size) = (self.collector.num_envs(), self.space.outputs());
        let features = self.collector.look();
        if is_warming_up {
            self.unit_actions.fill_with(|| self.rng.uniform(-1.0, 1.0) as f32);
        } else {
            let Models { network, actor, .. } = &self.core.models;
            self.unit_actions.copy_from_slice(network.forward(&actor.params, n, features, &mut self.acting));
            mlp::tanh(&mut self.unit_actions);
        }
        for (at, (scaled, unit)) in self.env_actions.iter_mut().zip(&mut self.unit_actions).enumerate() {
            let noise = self.options.noise_std * standard_normal(&mut self.rng);
            *unit = (*unit + noise as f32).clamp(-1.0, 1.0);
            *scaled = self.space.scale(at % size, *unit);
        }
        self.collector.advance(Actions::Continuous(&self.env_actions), &self.unit_actions, &mut self.rng)
    }
}

impl Agent for Td3 {
    fn iterate(&mut self, total: u64) -> Result<Figures> {
        for _ in 0..self.options.replay.train_freq {
            self.act()?;
        }
        let progress = (self.collector.timesteps as f64 / total as f64).min(1.0);
        let learning_rate = self.options.learning_rate.at(progress);
        let due = self.collector.updates_due();
        let mut figures = vec![("learning_rate", learning_rate)];
        let (mut last, mut actor_loss) = (None, None);
        let Self { collector, core, sample, options, rng, .. } = self;
        let replay = &collector.replay;
        // Within the pool, so that its threads wait for each other without going to sleep
        rayon::scope(|_| {
            for _ in 0..due {
                replay.sample(progress, rng, sample);
                let (figures, loss) = core.update(sample, options, learning_rate, rng);
                last = Some(figures);
                actor_loss = loss.or(actor_loss);
            }
        });
        figures.extend(["critic_loss", "q_value", "grad_norm"].into_iter().zip(last.into_iter().flatten()));
        figures.extend(actor_loss.map(|loss| ("actor_loss", loss)));
        Ok(figures)
    }

    fn timesteps(&self) -> u64 {
        self.collector.timesteps
    }

    fn take_episodes(&mut self) -> Vec<Episode> {
        std::mem::take(&mut self.collector.episodes)
    }

    fn persist(&mut self, state: &mut State) -> Result<()> {
        let Core { models, updates, .. } = &mut self.core;
        state.part("actor", |state| {
            models.actor.persist(state)?;
            state.tensor("target", &mut models.actor_target)
        })?;
        models.twin.persist(state)?;
        state.value("updates", updates)?;
        state.value("rng", &mut self.rng)?;
        self.collector.persist(state)
    }

    fn policy(&self) -> Policy {
        Policy {
            observer: self.collector.observer.clone(),
            actions: self.space.clone(),
            network: self.core.models.network.clone(),
            params: self.core.models.actor.params.clone(),
            head: Head::Deterministic,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rl::env::{MakeOptions, make_vec};

    /// An agent with a batch of random numbers in hand
    fn agent() -> Td3 {
        let env = make_vec("Pendulum-v1", 1, &MakeOptions::default()).unwrap();
        let replay = ReplayOptions { batch_size: 6, ..ReplayOptions::default() };
        let options = Td3Options { replay, hidden: vec![16, 16], ..Td3Options::default() };
        let mut agent = Td3::new(env, options, 7).unwrap();
        let Td3 { sample, rng, .. } = &mut agent;
        sample.features.fill_with(|| standard_normal(rng) as f32);
        sample.next_features.fill_with(|| standard_normal(rng) as f32);
        sample.actions.fill_with(|| rng.uniform(-1.0, 1.0) as f32);
        sample.rewards.fill_with(|| standard_normal(rng) as f32);
        sample.discounts.fill(0.9);
        agent
    }

    /// The deterministic policy gradient: of -Q₁(s, tanh μ(s)), through the critic into the actor
    #[test]
    fn the_actor_s_gradient_is_the_difference_of_its_loss() {
        let mut agent = agent();
        let Core { models, halves, .. } = &mut agent.core;
        let sample = &agent.sample;
        // Steeper critics, so that gradients stand out of the rounding
        models.twin.critics.iter_mut().flat_map(|critic| &mut critic.params).for_each(|param| *param *= 3.0);
        let mut loss = |models: &Models| halves.iter_mut().map(|half| half.learn_actor(models, sample)).sum::<f64>();
        loss(models);
        let params = models.actor.params.clone();
        let mut numeric = Vec::new();
        for at in 0..params.len() {
            let mut at_step = |step: f32| {
                models.actor.params.copy_from_slice(&params);
                models.actor.params[at] += step;
                loss(models)
            };
            numeric.push((at_step(2e-3) - at_step(-2e-3)) / 4e-3);
        }
        models.actor.params.copy_from_slice(&params);
        loss(models);
        let grads: Vec<_> = (0..params.len()).map(|at| halves[0].grads[at] + halves[1].grads[at]).collect();
        assert!(grads.iter().filter(|grad| grad.abs() > 2e-2).count() > params.len() / 4);
        let differs = |(grad, numeric): &(&f32, &f64)| (f64::from(**grad) - **numeric).abs() > 2e-3;
        let wrong = grads.iter().zip(&numeric).filter(differs).count();
        assert!(wrong <= 8, "{wrong} of {} gradients differ", params.len());
    }

    #[test]
    fn targets_take_the_smaller_critic_and_the_actor_waits() {
        let mut agent = agent();
        let Td3 { core, sample, options, rng, .. } = &mut agent;
        let actor = core.models.actor.params.clone();
        let (_, loss) = core.update(sample, options, 1e-3, rng);
        assert_eq!((loss, &core.models.actor.params), (None, &actor));
        for (row, value) in core.halves[0].values.iter().enumerate() {
            let next = &sample.next_features[3 * row..3 * (row + 1)];
            let half = &core.halves[0];
            let mut pass = core.models.twin.pass(1);
            // The targets have not moved yet; the action with its noise is what the half still holds
            pass.forward(&core.models.twin, Which::Target, next, &half.actions[row..=row]);
            let [q1, q2] = [pass.values[0][0], pass.values[1][0]];
            assert!((value - q1.min(q2)).abs() < 1e-6, "{value} of {q1} and {q2}");
        }
        let (_, loss) = core.update(sample, options, 1e-3, rng);
        assert!(loss.is_some());
        assert_ne!(core.models.actor.params, actor);
    }
}
