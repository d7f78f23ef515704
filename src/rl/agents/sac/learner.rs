//! One update of SAC, in two halves of the batch.

use std::ops::Range;

use super::super::twin::{Learned, Twin, TwinPass, Which, halves};
use super::{SacOptions, Temperature};
use crate::Result;
use crate::algo::distribution::{tanh_gaussian, tanh_gaussian_backward};
use crate::algo::q::targets;
use crate::algo::soft::{actor_loss, soft_values, temperature_loss};
use crate::rl::env::rng::Pcg64;
use crate::rl::mlp::{Activation, Mlp, MlpCache};
use crate::rl::optimizer::Adam;
use crate::rl::policy::LOG_STD;
use crate::rl::random::standard_normal;
use crate::rl::replay::Sample;
use crate::rl::state::State;

/// All that learns
#[derive(Debug)]
pub(super) struct Learner {
    pub(super) models: Models,
    log_alpha: Vec<f32>,
    temperature: Adam,
    target_entropy: f64,
    updates: usize,
    halves: [Half; 2],
    log_probs: Vec<f32>,
    /// Of the actions now and next
    noise: [Vec<f32>; 2],
}

/// The actor, whose outputs are means and log σ, and its critics
#[derive(Debug)]
pub(super) struct Models {
    pub(super) network: Mlp,
    pub(super) actor: Learned,
    twin: Twin,
}

/// Actions drawn for some states
#[derive(Debug)]
pub(super) struct Draw {
    cache: MlpCache,
    mean: Vec<f32>,
    log_std: Vec<f32>,
    pub(super) actions: Vec<f32>,
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
    /// Buffers for so many states
    pub(super) fn new(network: &Mlp, rows: usize) -> Self {
        let numbers = || vec![0.0; rows * network.outputs() / 2];
        Self {
            cache: network.cache(rows),
            mean: numbers(),
            log_std: numbers(),
            actions: numbers(),
            log_probs: vec![0.0; rows],
        }
    }

    /// tanh(μ + σ noise) and its log-probability
    pub(super) fn draw(&mut self, network: &Mlp, params: &[f32], features: &[f32], noise: &[f32]) {
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

impl Learner {
    pub(super) fn new(width: usize, size: usize, rows: usize, options: &SacOptions, rng: &mut Pcg64) -> Result<Self> {
        let hidden = &options.hidden;
        let widths: Vec<_> = [width].into_iter().chain(hidden.iter().copied()).chain([2 * size]).collect();
        let network = Mlp::new(&widths, Activation::Relu, 0);
        let actor = Learned::of(&network, rng);
        let twin = Twin::new(width, size, hidden, rng);
        let models = Models { network, actor, twin };
        let initial = match options.ent_coef {
            Temperature::Fixed(alpha) | Temperature::Auto { initial: alpha } => alpha,
        };
        Ok(Self {
            halves: halves(rows)?.map(|rows| Half::new(&models, rows)),
            log_alpha: vec![initial.ln() as f32],
            temperature: Adam::new(1, 1e-8),
            target_entropy: options.target_entropy.unwrap_or(-(size as f64)),
            updates: 0,
            log_probs: vec![0.0; rows],
            noise: [vec![0.0; rows * size], vec![0.0; rows * size]],
            models,
        })
    }

    /// Takes all that learns out, or puts it back
    pub(super) fn persist(&mut self, state: &mut State) -> Result<()> {
        state.part("actor", |state| self.models.actor.persist(state))?;
        self.models.twin.persist(state)?;
        state.part("temperature", |state| {
            state.tensor("log_alpha", &mut self.log_alpha)?;
            self.temperature.persist(state)
        })?;
        state.value("updates", &mut self.updates)
    }

    /// One update; returns the losses of critics, actor and temperature, α, mean Q, entropy, and the critics' gradient norm
    pub(super) fn update(
        &mut self,
        sample: &Sample<f32>,
        options: &SacOptions,
        learning_rate: f64,
        rng: &mut Pcg64,
    ) -> [f64; 7] {
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
            || {
                if follows {
                    twin.follow(options.tau);
                }
            },
        );
        let entropy = -self.log_probs.iter().map(|log_prob| f64::from(*log_prob)).sum::<f64>() / rows;
        [left[0] + right[0], actor.0 + actor.1, temperature, alpha, (left[1] + right[1]) / rows, entropy, norm]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROWS: usize = 6;

    /// A learner of 3 features and 2 numbers of an action, and a batch for it
    fn learner(options: &SacOptions) -> (Learner, Sample<f32>, Pcg64) {
        let mut rng = Pcg64::new(7);
        let learner = Learner::new(3, 2, ROWS, options, &mut rng).unwrap();
        let mut sample = Sample::new(ROWS, 3, 2);
        sample.features.fill_with(|| standard_normal(&mut rng) as f32);
        sample.next_features.fill_with(|| standard_normal(&mut rng) as f32);
        sample.actions.fill_with(|| rng.uniform(-1.0, 1.0) as f32);
        sample.rewards.fill_with(|| standard_normal(&mut rng) as f32);
        sample.discounts.fill(0.9);
        (learner, sample, rng)
    }

    fn options(ent_coef: Temperature, target_entropy: f64) -> SacOptions {
        SacOptions { ent_coef, target_entropy: Some(target_entropy), hidden: vec![16, 16], ..SacOptions::default() }
    }

    /// Losses of critics and actor for given parameters of the actor
    fn losses(learner: &mut Learner, sample: &Sample<f32>, alpha: f64) -> [f64; 2] {
        let Learner { models, halves, noise, .. } = learner;
        let batch = Batch { sample, noise, alpha };
        let mut sums = [0.0; 2];
        for half in halves {
            sums[0] += half.learn_critics(models, &batch)[0];
            sums[1] += half.learn_actor(models, &batch);
        }
        sums
    }

    /// The gradient of α log π(a|s) - min Q(s, a), a = tanh(μ + σ noise), through both critics into the actor
    #[test]
    fn the_actor_s_gradient_is_the_difference_of_its_loss() {
        let (mut learner, sample, mut rng) = learner(&options(Temperature::Fixed(0.3), -2.0));
        for noise in &mut learner.noise {
            noise.fill_with(|| standard_normal(&mut rng) as f32);
        }
        // Steeper critics, so that gradients stand out of the rounding
        let critics = &mut learner.models.twin.critics;
        critics.iter_mut().flat_map(|critic| &mut critic.params).for_each(|param| *param *= 3.0);
        losses(&mut learner, &sample, 0.3);
        let params = learner.models.actor.params.clone();
        let sum = |at: usize| learner.halves[0].grads[at] + learner.halves[1].grads[at];
        let grads: Vec<f32> = (0..params.len()).map(sum).collect();
        let (mut error, mut length) = (0.0, 0.0);
        for (at, grad) in grads.iter().enumerate() {
            let mut at_step = |step: f32| {
                learner.models.actor.params.copy_from_slice(&params);
                learner.models.actor.params[at] += step;
                losses(&mut learner, &sample, 0.3)[1]
            };
            let numeric = (at_step(2e-3) - at_step(-2e-3)) / 4e-3;
            error += (f64::from(*grad) - numeric).powi(2);
            length += numeric.powi(2);
        }
        let (error, length) = (error.sqrt(), length.sqrt());
        // Kinks of relu, and of the smaller critic, within the differences leave a little
        assert!(length > 0.05 && error < 0.05 * length, "{error} of {length}");
    }

    #[test]
    fn log_probabilities_integrate_to_one() {
        let mut rng = Pcg64::new(1);
        let network = Mlp::new(&[2, 8, 2], Activation::Relu, 0);
        let mut params = vec![0.0; network.end()];
        network.init_uniform(&mut params, &mut rng);
        let mut draw = Draw::new(&network, 1);
        let (mut area, mut last) = (0.0, None);
        for step in -4000..=4000 {
            draw.draw(&network, &params, &[0.5, -1.0], &[step as f32 / 500.0]);
            let now = (f64::from(draw.actions[0]), f64::from(draw.log_probs[0]).exp());
            if let Some((action, density)) = last {
                area += (now.0 - action) * (now.1 + density) / 2.0;
            }
            last = Some(now);
        }
        assert!((area - 1.0_f64).abs() < 1e-4, "{area}");
    }

    #[test]
    fn the_temperature_goes_where_the_entropy_is_missing() {
        for (target, rises) in [(5.0, true), (-50.0, false)] {
            let options = options(Temperature::Auto { initial: 0.5 }, target);
            let (mut learner, sample, mut rng) = learner(&options);
            let found: Vec<_> = (0..5).map(|_| learner.update(&sample, &options, 1e-2, &mut rng)[3]).collect();
            assert!((found[0] - 0.5).abs() < 1e-6);
            assert!(found.windows(2).all(|pair| (pair[1] > pair[0]) == rises), "{target}: {found:?}");
        }
        let fixed = options(Temperature::Fixed(0.5), 5.0);
        let (mut learner, sample, mut rng) = learner(&fixed);
        for _ in 0..3 {
            assert!((learner.update(&sample, &fixed, 1e-2, &mut rng)[3] - 0.5).abs() < 1e-6);
        }
    }

    /// The targets are r + γ (min Q' - α log π), and the critics come to them where everything else is held
    #[test]
    fn critics_come_to_soft_targets() {
        let options = options(Temperature::Fixed(0.2), -2.0);
        let (mut learner, sample, mut rng) = learner(&options);
        let first = learner.update(&sample, &options, 1e-2, &mut rng)[0];
        let half = &learner.halves[0];
        for (row, target) in half.targets.iter().enumerate() {
            let value = f64::from(half.values[row]);
            let expected = f64::from(sample.rewards[row]) + f64::from(sample.discounts[row]) * value;
            assert!((f64::from(*target) - expected).abs() < 1e-6);
        }
        let last = (0..300).map(|_| learner.update(&sample, &options, 1e-2, &mut rng)[0]).last();
        assert!(last.is_some_and(|last| last < 0.1 * first), "{first} {last:?}");
    }
}
