//! Implicit Q-learning on a data set, with discrete or continuous actions.
//!
//! Kostrikov et al. 2022, <https://arxiv.org/abs/2110.06169>: V is a high expectile of Q over the data's actions, so that
//! no action is ever valued that the data does not show; the policy repeats the data's actions, the better ones more.
//! Discrete actions stand as rows of zeros and a one before the critics.

use std::ops::Range;

use super::cql::UPDATES_AT_ONCE;
use super::twin::{Learned, Twin, TwinPass, Which, halves};
use super::{Agent, Figures, Schedule};
use crate::Result;
use crate::algo::distribution::{categorical, categorical_backward, gaussian, gaussian_backward};
use crate::algo::offline::{advantage_weights, expectile_loss};
use crate::algo::policy::reinforce;
use crate::algo::q::targets;
use crate::algo::soft::soft_values;
use crate::rl::dataset::{Dataset, RecordedActions};
use crate::rl::env::rng::Pcg64;
use crate::rl::env::{EnvSpec, Episode};
use crate::rl::mlp::{Activation, Mlp, MlpCache};
use crate::rl::observer::{ActionSpace, Observer};
use crate::rl::policy::{Head, Policy};
use crate::rl::replay::{Replay, Sample};
use crate::rl::state::State;

/// log σ of the policy stays within these, as in the authors' program
const LOG_STD: (f32, f32) = (-5.0, 2.0);

/// Settings of IQL
#[derive(Debug, Clone, PartialEq)]
pub struct IqlOptions {
    /// Learning rate of all networks
    pub learning_rate: Schedule,
    /// Transitions of an update
    pub batch_size: usize,
    /// γ
    pub gamma: f64,
    /// By which share the critics' targets follow after every update
    pub tau: f64,
    /// Which expectile of Q the value is
    pub expectile: f64,
    /// β, how much an advantage counts in the policy
    pub weight_temp: f64,
    /// Largest weight of an action in the policy
    pub max_weight: f64,
    /// Widths of the hidden layers
    pub hidden: Vec<usize>,
}

impl Default for IqlOptions {
    fn default() -> Self {
        Self {
            learning_rate: Schedule::constant(3e-4),
            batch_size: 256,
            gamma: 0.99,
            tau: 0.005,
            expectile: 0.7,
            weight_temp: 3.0,
            max_weight: 100.0,
            hidden: vec![256, 256],
        }
    }
}

/// The agent with its data; its time steps are updates
#[derive(Debug)]
pub struct Iql {
    options: IqlOptions,
    observer: Observer,
    replay: Replay<f32>,
    models: Models,
    halves: [Half; 2],
    sample: Sample<f32>,
    rng: Pcg64,
    updates: u64,
}

#[derive(Debug)]
struct Models {
    space: ActionSpace,
    twin: Twin,
    value_network: Mlp,
    value: Learned,
    policy_network: Mlp,
    /// The network's parameters, then log σ of continuous actions
    policy: Learned,
}

/// What one thread does of an update
#[derive(Debug)]
struct Half {
    rows: Range<usize>,
    critics: TwinPass,
    value: MlpCache,
    next_value: MlpCache,
    policy: MlpCache,
    zeros: Vec<f32>,
    q: Vec<f32>,
    targets: Vec<f32>,
    weights: Vec<f32>,
    chosen: Vec<usize>,
    log_std: Vec<f32>,
    log_probs: Vec<f32>,
    entropies: Vec<f32>,
    grad_values: Vec<f32>,
    grad_log_probs: Vec<f32>,
    grad_outputs: Vec<f32>,
    grad_log_std: Vec<f32>,
    value_grads: Vec<f32>,
    policy_grads: Vec<f32>,
}

impl Half {
    fn new(models: &Models, rows: Range<usize>) -> Self {
        let n = rows.len();
        let column = || vec![0.0; n];
        let numbers = || vec![0.0; n * models.policy_network.outputs()];
        Self {
            rows,
            critics: models.twin.pass(n),
            value: models.value_network.cache(n),
            next_value: models.value_network.cache(n),
            policy: models.policy_network.cache(n),
            zeros: column(),
            q: column(),
            targets: column(),
            weights: column(),
            chosen: vec![0; n],
            log_std: numbers(),
            log_probs: column(),
            entropies: column(),
            grad_values: column(),
            grad_log_probs: column(),
            grad_outputs: numbers(),
            grad_log_std: numbers(),
            value_grads: vec![0.0; models.value.params.len()],
            policy_grads: vec![0.0; models.policy.params.len()],
        }
    }

    /// This half of rows of `width` numbers
    fn part<'s>(&self, rows: &'s [f32], width: usize) -> &'s [f32] {
        &rows[self.rows.start * width..self.rows.end * width]
    }

    /// All gradients; returns the losses of critics, value and policy, and the sum of values
    fn learn(&mut self, models: &Models, sample: &Sample<f32>, options: &IqlOptions) -> [f64; 4] {
        let Models { twin, value_network, value, .. } = models;
        let (n, total) = (self.rows.len(), sample.len() as f64);
        let width = value_network.inputs();
        let [features, next_features] = [&sample.features, &sample.next_features].map(|x| self.part(x, width));
        let actions = self.part(&sample.actions, models.policy_network.outputs());
        let [rewards, discounts] = [&sample.rewards, &sample.discounts].map(|x| self.part(x, 1));
        self.critics.forward(twin, Which::Target, features, actions);
        let [q1, q2] = &self.critics.values;
        soft_values(q1, q2, &self.zeros, 0.0, &mut self.q);
        let values = value_network.forward(&value.params, n, features, &mut self.value);
        let sum = values.iter().map(|value| f64::from(*value)).sum();
        let value_loss = expectile_loss(values, &self.q, options.expectile, total, &mut self.grad_values);
        advantage_weights(&self.q, values, options.weight_temp, options.max_weight, &mut self.weights);
        let (cache, grads) = (&mut self.value, &mut self.value_grads);
        value_network.backward(&value.params, n, features, &self.grad_values, cache, grads);
        let policy_loss = self.learn_policy(models, features, actions, total);
        let next_values = value_network.forward(&value.params, n, next_features, &mut self.next_value);
        targets(rewards, discounts, next_values, &mut self.targets);
        self.critics.forward(twin, Which::Online, features, actions);
        [self.critics.regress(twin, &self.targets, total), value_loss, policy_loss, sum]
    }

    /// The policy's gradients: weighted likelihood of the data's actions
    fn learn_policy(&mut self, models: &Models, features: &[f32], actions: &[f32], total: f64) -> f64 {
        let Models { space, policy_network: network, policy, .. } = models;
        let size = network.outputs();
        let outputs = network.forward(&policy.params, self.rows.len(), features, &mut self.policy);
        let (log_probs, entropies) = (&mut self.log_probs, &mut self.entropies);
        let is_discrete = matches!(space, ActionSpace::Discrete(_));
        if is_discrete {
            for (chosen, action) in self.chosen.iter_mut().zip(actions.chunks_exact(size)) {
                *chosen = crate::algo::q::greedy(action);
            }
            categorical(outputs, &self.chosen, log_probs, entropies);
        } else {
            for row in self.log_std.chunks_exact_mut(size) {
                row.copy_from_slice(&policy.params[network.end()..]);
            }
            gaussian(outputs, &self.log_std, actions, log_probs, entropies);
        }
        let loss = reinforce(log_probs, &self.weights, None, total, &mut self.grad_log_probs);
        let (by_log_prob, by_entropy) = (&self.grad_log_probs, &self.zeros);
        if is_discrete {
            categorical_backward(outputs, &self.chosen, by_log_prob, by_entropy, &mut self.grad_outputs);
        } else {
            let grads = (&mut self.grad_outputs, &mut self.grad_log_std);
            gaussian_backward(outputs, &self.log_std, actions, by_log_prob, by_entropy, grads.0, grads.1);
            for (d, grad) in self.policy_grads[network.end()..].iter_mut().enumerate() {
                *grad = self.grad_log_std[d..].iter().step_by(size).sum();
            }
        }
        let (cache, grads) = (&mut self.policy, &mut self.policy_grads);
        network.backward(&policy.params, self.rows.len(), features, &self.grad_outputs, cache, grads);
        loss
    }
}

impl Iql {
    /// Networks are drawn from `seed`
    ///
    /// # Errors
    /// A batch of one
    pub fn new(spec: &EnvSpec, data: &Dataset, options: IqlOptions, seed: u64) -> Result<Self> {
        let space = ActionSpace::of(spec);
        let observer = Observer::new(&spec.observation_space, false);
        let (width, size) = (observer.width(), space.outputs());
        let mut rng = Pcg64::new(u128::from(seed));
        let network = |outputs: usize| {
            let hidden = options.hidden.iter().copied();
            Mlp::new(&[width].into_iter().chain(hidden).chain([outputs]).collect::<Vec<_>>(), Activation::Relu, 0)
        };
        let (value_network, policy_network) = (network(1), network(size));
        let twin = Twin::new(width, size, &options.hidden, &mut rng);
        let value = Learned::of(&value_network, &mut rng);
        let log_stds = if matches!(space, ActionSpace::Discrete(_)) { 0 } else { size };
        let mut policy = vec![0.0; policy_network.end() + log_stds];
        policy_network.init_uniform(&mut policy, &mut rng);
        let policy = Learned::new(policy);
        let models = Models { space, twin, value_network, value, policy_network, policy };
        let halves = halves(options.batch_size)?.map(|rows| Half::new(&models, rows));
        let replay = data.replay(&observer, options.gamma, size, |row, action| match &data.actions {
            RecordedActions::Discrete(done) => {
                action.fill(0.0);
                action[done[row] as usize] = 1.0;
            }
            RecordedActions::Continuous(done) => action.copy_from_slice(&done[row * size..(row + 1) * size]),
        });
        let sample = Sample::new(options.batch_size, width, size);
        Ok(Self { options, observer, replay, models, halves, sample, rng, updates: 0 })
    }

    /// One update; returns the losses of critics, value and policy, the mean value, and the critics' gradient norm
    fn update(&mut self, learning_rate: f64) -> [f64; 5] {
        self.replay.sample(0.0, &mut self.rng, &mut self.sample);
        let Self { models, halves: [first, second], sample, options, .. } = self;
        let (left, right) =
            rayon::join(|| first.learn(models, sample, options), || second.learn(models, sample, options));
        let norm = models.twin.step([&first.critics, &second.critics], learning_rate);
        let Models { value, policy, twin, policy_network, .. } = models;
        rayon::join(
            || value.step([&first.value_grads, &second.value_grads], learning_rate),
            || policy.step([&first.policy_grads, &second.policy_grads], learning_rate),
        );
        for log_std in &mut policy.params[policy_network.end()..] {
            *log_std = log_std.clamp(LOG_STD.0, LOG_STD.1);
        }
        twin.follow(options.tau);
        let sum = |at: usize| left[at] + right[at];
        [sum(0), sum(1), sum(2), sum(3) / sample.len() as f64, norm]
    }
}

impl Agent for Iql {
    fn iterate(&mut self, total: u64) -> Result<Figures> {
        let learning_rate = self.options.learning_rate.at((self.updates as f64 / total as f64).min(1.0));
        let updates = UPDATES_AT_ONCE.min(total.saturating_sub(self.updates)).max(1);
        let mut sums = [0.0; 5];
        // Within the pool, so that its threads wait for each other without going to sleep
        rayon::scope(|_| {
            for _ in 0..updates {
                let last = self.update(learning_rate);
                sums.iter_mut().zip(last).for_each(|(sum, figure)| *sum += figure);
            }
        });
        self.updates += updates;
        let names = ["critic_loss", "value_loss", "policy_loss", "value", "grad_norm"];
        let figures = names.into_iter().zip(sums.map(|sum| sum / updates as f64));
        Ok([("learning_rate", learning_rate)].into_iter().chain(figures).collect())
    }

    fn timesteps(&self) -> u64 {
        self.updates
    }

    fn take_episodes(&mut self) -> Vec<Episode> {
        Vec::new()
    }

    fn persist(&mut self, state: &mut State) -> Result<()> {
        let Models { twin, value, policy, .. } = &mut self.models;
        twin.persist(state)?;
        state.part("value", |state| value.persist(state))?;
        state.part("policy", |state| policy.persist(state))?;
        state.value("rng", &mut self.rng)?;
        state.value("updates", &mut self.updates)
    }

    fn policy(&self) -> Policy {
        let Models { space, policy_network: network, policy, .. } = &self.models;
        let (params, log_std) = policy.params.split_at(network.end());
        let head = match space {
            ActionSpace::Discrete(_) => Head::Categorical,
            ActionSpace::Continuous { .. } => Head::Gaussian(log_std.to_vec()),
        };
        Policy {
            observer: self.observer.clone(),
            actions: space.clone(),
            network: network.clone(),
            params: params.to_vec(),
            head,
        }
    }
}
