//! Deep Q-networks, with double targets and dueling heads as options.
//!
//! Mnih et al. 2015; van Hasselt et al. 2016, <https://arxiv.org/abs/1509.06461>; Wang et al. 2016,
//! <https://arxiv.org/abs/1511.06581>. A dueling network ends in one value and an advantage for each action, which are
//! combined linearly: Q = V + A - mean A.

use super::exploration::falling_epsilon;
use super::{Agent, Figures, Schedule};
use crate::Result;
use crate::algo::q;
use crate::algo::value::ValueLoss;
use crate::rl::env::rng::Pcg64;
use crate::rl::env::{Actions, Episode, EpisodeStatistics, VecStep, VectorEnv};
use crate::rl::mlp::{Activation, Adam, Mlp, MlpCache};
use crate::rl::observer::{ActionSpace, Observer};
use crate::rl::policy::{Head, Policy};
use crate::rl::replay::{Replay, Sample};

/// Settings of DQN; defaults are Stable-Baselines3's
#[derive(Debug, Clone, PartialEq)]
pub struct DqnOptions {
    /// Learning rate
    pub learning_rate: Schedule,
    /// Transitions kept
    pub buffer_size: usize,
    /// Random steps before the first update
    pub learning_starts: u64,
    /// Transitions of an update
    pub batch_size: usize,
    /// γ
    pub gamma: f64,
    /// Steps of each environment before updates
    pub train_freq: usize,
    /// Updates then; as many as there were steps where not set
    pub gradient_steps: Option<usize>,
    /// Steps of each environment before the target network follows
    pub target_update_interval: usize,
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
            buffer_size: 1_000_000,
            learning_starts: 100,
            batch_size: 32,
            gamma: 0.99,
            train_freq: 4,
            gradient_steps: Some(1),
            target_update_interval: 10_000,
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
    env: Box<dyn VectorEnv>,
    actions: usize,
    observer: Observer,
    network: Mlp,
    params: Vec<f32>,
    target: Vec<f32>,
    grads: Vec<f32>,
    adam: Adam,
    rng: Pcg64,
    step: VecStep,
    statistics: EpisodeStatistics,
    episodes: Vec<Episode>,
    timesteps: u64,
    calls: usize,
    replay: Replay,
    sample: Sample,
    learning: Learning,
    features: Vec<f32>,
    next_features: Vec<f32>,
    chosen: Vec<u32>,
    acting: MlpCache,
    acting_values: Vec<f32>,
}

/// Buffers of one update
struct Learning {
    cache: MlpCache,
    target_cache: MlpCache,
    values: Vec<f32>,
    next_online: Vec<f32>,
    next_target: Vec<f32>,
    next_values: Vec<f32>,
    targets: Vec<f32>,
    errors: Vec<f32>,
    grad_values: Vec<f32>,
    grad_outputs: Vec<f32>,
}

impl Dqn {
    /// The network is drawn from `seed`, and the environments are reset with it
    ///
    /// # Errors
    /// Continuous actions
    pub fn new(mut env: Box<dyn VectorEnv>, options: DqnOptions, seed: u64) -> Result<Self> {
        let actions = ActionSpace::of(env.spec()).count("dqn", &env.spec().id)?;
        let observer = Observer::new(&env.spec().observation_space, false);
        let (n, rows, width) = (env.num_envs(), options.batch_size, observer.width());
        let outputs = actions + usize::from(options.dueling);
        let widths: Vec<_> = [width].into_iter().chain(options.hidden.iter().copied()).chain([outputs]).collect();
        let network = Mlp::new(&widths, Activation::Relu, 0);
        let mut rng = Pcg64::new(u128::from(seed));
        let mut params = vec![0.0; network.end()];
        network.init_uniform(&mut params, &mut rng);
        let mut step = VecStep::of(&*env);
        env.reset(Some(seed), &mut step.observations)?;
        let values = || vec![0.0; rows * actions];
        let column = || vec![0.0; rows];
        Ok(Self {
            target: params.clone(),
            grads: vec![0.0; params.len()],
            adam: Adam::new(params.len(), 1e-8),
            params,
            rng,
            step,
            statistics: EpisodeStatistics::new(n),
            episodes: Vec::new(),
            timesteps: 0,
            calls: 0,
            replay: Replay::new(options.buffer_size, width),
            sample: Sample::new(rows, width),
            learning: Learning {
                cache: network.cache(rows),
                target_cache: network.cache(rows),
                values: values(),
                next_online: values(),
                next_target: values(),
                next_values: column(),
                targets: column(),
                errors: column(),
                grad_values: values(),
                grad_outputs: vec![0.0; rows * outputs],
            },
            features: vec![0.0; n * width],
            next_features: vec![0.0; n * width],
            chosen: vec![0; n],
            acting: network.cache(n),
            acting_values: vec![0.0; n * actions],
            network,
            options,
            env,
            actions,
            observer,
        })
    }

    /// ε when this share of the run is over
    fn epsilon(&self, progress: f64) -> f64 {
        let DqnOptions { exploration_initial_eps, exploration_final_eps, exploration_fraction, .. } = self.options;
        falling_epsilon(exploration_initial_eps, exploration_final_eps, exploration_fraction, progress)
    }

    fn collect(&mut self, total: u64) -> Result<()> {
        let width = self.observer.width();
        for _ in 0..self.options.train_freq {
            self.observer.features(&self.step.observations, &mut self.features);
            let epsilon = if self.timesteps < self.options.learning_starts {
                1.0
            } else {
                self.epsilon(self.timesteps as f64 / total as f64)
            };
            let rows = self.chosen.len();
            let outputs = self.network.forward(&self.params, rows, &self.features, &mut self.acting);
            combine(self.options.dueling, outputs, &mut self.acting_values, self.actions);
            for (action, values) in self.chosen.iter_mut().zip(self.acting_values.chunks_exact(self.actions)) {
                *action = if self.rng.random() < epsilon {
                    self.rng.integers(0, self.actions as i64) as u32
                } else {
                    q::greedy(values) as u32
                };
            }
            self.env.step(Actions::Discrete(&self.chosen), &mut self.step)?;
            self.observer.features(&self.step.final_obs, &mut self.next_features);
            for env in 0..rows {
                let row = env * width..(env + 1) * width;
                let (reward, terminated) = (self.step.rewards[env] as f32, self.step.terminated[env]);
                let (seen, next) = (&self.features[row.clone()], &self.next_features[row]);
                self.replay.push(seen, self.chosen[env], reward, next, terminated);
            }
            let episodes = &mut self.episodes;
            self.statistics.record(&self.step, |episode| episodes.push(episode));
            self.timesteps += rows as u64;
            self.calls += 1;
            if self.calls.is_multiple_of(self.options.target_update_interval) {
                self.target.copy_from_slice(&self.params);
            }
        }
        Ok(())
    }

    /// One update; returns loss, mean value of the actions taken, and the gradients' norm
    fn learn(&mut self, learning_rate: f64) -> [f64; 3] {
        let (options, network, sample, work) = (&self.options, &self.network, &mut self.sample, &mut self.learning);
        let (rows, actions, dueling) = (options.batch_size, self.actions, options.dueling);
        self.replay.sample(options.gamma, &mut self.rng, sample);
        let outputs = network.forward(&self.target, rows, &sample.next_features, &mut work.target_cache);
        combine(dueling, outputs, &mut work.next_target, actions);
        if options.double {
            let outputs = network.forward(&self.params, rows, &sample.next_features, &mut work.cache);
            combine(dueling, outputs, &mut work.next_online, actions);
            q::double_values(&work.next_online, &work.next_target, &mut work.next_values);
        } else {
            q::max_values(&work.next_target, &mut work.next_values);
        }
        q::targets(&sample.rewards, &sample.discounts, &work.next_values, &mut work.targets);
        let outputs = network.forward(&self.params, rows, &sample.features, &mut work.cache);
        combine(dueling, outputs, &mut work.values, actions);
        let loss = q::q_loss(
            ValueLoss::Huber { delta: 1.0 },
            &work.values,
            &sample.actions,
            &work.targets,
            None,
            rows as f64,
            &mut work.errors,
            &mut work.grad_values,
        );
        combine_backward(dueling, &work.grad_values, &mut work.grad_outputs, actions);
        network.backward(&self.params, rows, &sample.features, &work.grad_outputs, &mut work.cache, &mut self.grads);
        let norm = self.adam.step(&mut self.params, &self.grads, learning_rate, options.max_grad_norm);
        let taken =
            sample.actions.iter().enumerate().map(|(row, action)| f64::from(work.values[row * actions + action]));
        [loss, taken.sum::<f64>() / rows as f64, norm]
    }
}

/// Q of the network's outputs
fn combine(dueling: bool, outputs: &[f32], values: &mut [f32], actions: usize) {
    if !dueling {
        values.copy_from_slice(outputs);
        return;
    }
    for (q, row) in values.chunks_exact_mut(actions).zip(outputs.chunks_exact(actions + 1)) {
        let mean = row[1..].iter().sum::<f32>() / actions as f32;
        for (q, advantage) in q.iter_mut().zip(&row[1..]) {
            *q = row[0] + advantage - mean;
        }
    }
}

/// The way back of [`combine`]
fn combine_backward(dueling: bool, grad: &[f32], grad_outputs: &mut [f32], actions: usize) {
    if !dueling {
        grad_outputs.copy_from_slice(grad);
        return;
    }
    for (g, row) in grad.chunks_exact(actions).zip(grad_outputs.chunks_exact_mut(actions + 1)) {
        row[0] = g.iter().sum();
        let mean = row[0] / actions as f32;
        for (by_advantage, g) in row[1..].iter_mut().zip(g) {
            *by_advantage = g - mean;
        }
    }
}

impl Agent for Dqn {
    fn iterate(&mut self, total: u64) -> Result<Figures> {
        self.collect(total)?;
        let progress = (self.timesteps as f64 / total as f64).min(1.0);
        let learning_rate = self.options.learning_rate.at(progress);
        let mut figures = vec![("epsilon", self.epsilon(progress)), ("learning_rate", learning_rate)];
        if self.timesteps > self.options.learning_starts {
            let updates = self.options.gradient_steps.unwrap_or(self.options.train_freq * self.chosen.len());
            let mut sums = [0.0; 3];
            for _ in 0..updates {
                let last = self.learn(learning_rate);
                sums.iter_mut().zip(last).for_each(|(sum, figure)| *sum += figure);
            }
            let names = ["loss", "q_value", "grad_norm"];
            figures.extend(names.into_iter().zip(sums.map(|sum| sum / updates as f64)));
        }
        Ok(figures)
    }

    fn timesteps(&self) -> u64 {
        self.timesteps
    }

    fn take_episodes(&mut self) -> Vec<Episode> {
        std::mem::take(&mut self.episodes)
    }

    fn policy(&self) -> Policy {
        let hidden = self.options.hidden.iter().copied();
        let widths: Vec<_> = [self.observer.width()].into_iter().chain(hidden).chain([self.actions]).collect();
        let network = Mlp::new(&widths, Activation::Relu, 0);
        let mut params = self.params.clone();
        if self.options.dueling {
            // The combination is linear, so that it can be part of the last layer: rows of [W, b] are combined
            let (from, to) = (&self.network.layers()[self.options.hidden.len()], network.layers());
            let to = &to[self.options.hidden.len()];
            params.truncate(network.end());
            for (from, to, columns) in [(&from.weight, &to.weight, from.inputs), (&from.bias, &to.bias, 1)] {
                let rows = &self.params[from.clone()];
                for column in 0..columns {
                    let outputs: Vec<f32> = rows[column..].iter().step_by(columns).copied().collect();
                    let mut combined = vec![0.0; self.actions];
                    combine(true, &outputs, &mut combined, self.actions);
                    for (action, entry) in combined.into_iter().enumerate() {
                        params[to.start + action * columns + column] = entry;
                    }
                }
            }
        }
        Policy {
            observer: self.observer.clone(),
            actions: ActionSpace::Discrete(self.actions),
            network,
            params,
            head: Head::Values(self.options.exploration_final_eps),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rl::env::{MakeOptions, make_vec};

    #[test]
    fn advantages_have_no_mean_and_gradients_follow() {
        let outputs = [2.0, 1.0, 4.0, -2.0];
        let mut values = [0.0; 3];
        combine(true, &outputs, &mut values, 3);
        assert_eq!(values, [2.0, 5.0, -1.0]);
        let mut back = [0.0; 4];
        combine_backward(true, &[1.0, 2.0, 6.0], &mut back, 3);
        assert_eq!(back, [9.0, -2.0, -1.0, 3.0]);
    }

    #[test]
    fn a_dueling_network_is_saved_as_a_plain_one_of_the_same_values() {
        let env = make_vec("CartPole-v1", 1, &MakeOptions::default()).unwrap();
        let options = DqnOptions { dueling: true, hidden: vec![8], ..DqnOptions::default() };
        let agent = Dqn::new(env, options, 3).unwrap();
        let policy = agent.policy();
        let x = [0.3, -0.2, 0.1, 0.7];
        let mut values = [0.0; 2];
        let mut cache = agent.network.cache(1);
        combine(true, agent.network.forward(&agent.params, 1, &x, &mut cache), &mut values, 2);
        let mut plain = policy.network.cache(1);
        for (found, expected) in policy.network.forward(&policy.params, 1, &x, &mut plain).iter().zip(values) {
            assert!((found - expected).abs() < 1e-6, "{found} for {expected}");
        }
    }
}
