//! A network of action values that learns from transitions, whether they come from a replay or from a data set.
//!
//! Mnih et al. 2015; double targets, van Hasselt et al. 2016, <https://arxiv.org/abs/1509.06461>; dueling heads, Wang et
//! al. 2016, <https://arxiv.org/abs/1511.06581>: a dueling network ends in one value and an advantage for each action,
//! which are combined linearly, Q = V + A - mean A.

use crate::Result;
use crate::algo::offline::conservative_term;
use crate::algo::q;
use crate::algo::value::ValueLoss;
use crate::ops::kernels::mlp;
use crate::rl::env::rng::Pcg64;
use crate::rl::mlp::{Activation, Mlp, MlpCache};
use crate::rl::observer::{ActionSpace, Observer};
use crate::rl::optimizer::Adam;
use crate::rl::policy::{Head, Policy};
use crate::rl::replay::Sample;
use crate::rl::state::State;

/// Settings of the network and of its loss
#[derive(Debug, Clone, PartialEq)]
pub(super) struct QOptions {
    pub(super) hidden: Vec<usize>,
    pub(super) max_grad_norm: f64,
    pub(super) double: bool,
    pub(super) dueling: bool,
    /// Weight of the conservative term; 0 for none
    pub(super) conservative: f64,
}

/// The online network and its target
#[derive(Debug)]
pub(super) struct QLearner {
    options: QOptions,
    actions: usize,
    network: Mlp,
    params: Vec<f32>,
    target: Vec<f32>,
    grads: Vec<f32>,
    adam: Adam,
    work: Work,
}

/// Buffers of one update
#[derive(Debug)]
struct Work {
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

impl QLearner {
    /// For so many features and actions, and updates of `rows` transitions
    pub(super) fn new(width: usize, actions: usize, rows: usize, options: QOptions, rng: &mut Pcg64) -> Self {
        let outputs = actions + usize::from(options.dueling);
        let widths: Vec<_> = [width].into_iter().chain(options.hidden.iter().copied()).chain([outputs]).collect();
        let network = Mlp::new(&widths, Activation::Relu, 0);
        let mut params = vec![0.0; network.end()];
        network.init_uniform(&mut params, rng);
        let values = || vec![0.0; rows * actions];
        let column = || vec![0.0; rows];
        Self {
            target: params.clone(),
            grads: vec![0.0; params.len()],
            adam: Adam::new(params.len(), 1e-8),
            params,
            work: Work {
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
            network,
            options,
            actions,
        }
    }

    /// Buffers for the values of `rows` states
    pub(super) fn cache(&self, rows: usize) -> MlpCache {
        self.network.cache(rows)
    }

    /// Q of all actions in these states
    pub(super) fn values(&self, features: &[f32], cache: &mut MlpCache, values: &mut [f32]) {
        let rows = values.len() / self.actions;
        let outputs = self.network.forward(&self.params, rows, features, cache);
        combine(self.options.dueling, outputs, values, self.actions);
    }

    /// The target follows by a share of τ; 1 makes it what the online network is
    pub(super) fn follow(&mut self, tau: f64) {
        if tau == 1.0 {
            self.target.copy_from_slice(&self.params);
        } else {
            mlp::follow(&mut self.target, &self.params, tau as f32);
        }
    }

    /// Takes both networks and the optimiser's state out, or puts them back
    pub(super) fn persist(&mut self, state: &mut State) -> Result<()> {
        state.tensor("params", &mut self.params)?;
        state.tensor("target", &mut self.target)?;
        self.adam.persist(state)
    }

    /// One update; returns loss, mean value of the actions taken, and the gradients' norm
    pub(super) fn update(&mut self, sample: &Sample<usize>, learning_rate: f64) -> [f64; 3] {
        let (options, network, work) = (&self.options, &self.network, &mut self.work);
        let (rows, actions, dueling) = (sample.len(), self.actions, options.dueling);
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
        let mut loss = q::q_loss(
            ValueLoss::Huber { delta: 1.0 },
            &work.values,
            &sample.actions,
            &work.targets,
            Some(&sample.weights),
            rows as f64,
            &mut work.errors,
            &mut work.grad_values,
        );
        if options.conservative > 0.0 {
            let (values, grad) = (&work.values, &mut work.grad_values);
            loss += conservative_term(values, &sample.actions, options.conservative, rows as f64, grad);
        }
        combine_backward(dueling, &work.grad_values, &mut work.grad_outputs, actions);
        network.backward(&self.params, rows, &sample.features, &work.grad_outputs, &mut work.cache, &mut self.grads);
        let norm = self.adam.step(&mut self.params, &self.grads, learning_rate, options.max_grad_norm);
        let taken =
            sample.actions.iter().enumerate().map(|(row, action)| f64::from(work.values[row * actions + action]));
        [loss, taken.sum::<f64>() / rows as f64, norm]
    }

    /// y - Q of the last update's transitions
    pub(super) fn errors(&self) -> &[f32] {
        &self.work.errors
    }

    /// The greedy policy; `epsilon` is for those who play it as in training
    pub(super) fn policy(&self, observer: Observer, epsilon: f64) -> Policy {
        let hidden = self.options.hidden.iter().copied();
        let widths: Vec<_> = [observer.width()].into_iter().chain(hidden).chain([self.actions]).collect();
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
        Policy { observer, actions: ActionSpace::Discrete(self.actions), network, params, head: Head::Values(epsilon) }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rl::env::Space;

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

    fn learner(dueling: bool) -> (QLearner, Observer) {
        let options = QOptions { hidden: vec![8], max_grad_norm: 10.0, double: false, dueling, conservative: 0.0 };
        let learner = QLearner::new(4, 2, 2, options, &mut Pcg64::new(3));
        (learner, Observer::new(&Space::Discrete { n: 4 }, false))
    }

    #[test]
    fn a_dueling_network_is_saved_as_a_plain_one_of_the_same_values() {
        let (learner, observer) = learner(true);
        let policy = learner.policy(observer, 0.1);
        let x = [0.3, -0.2, 0.1, 0.7];
        let mut values = [0.0; 2];
        learner.values(&x, &mut learner.cache(1), &mut values);
        let mut plain = policy.network.cache(1);
        for (found, expected) in policy.network.forward(&policy.params, 1, &x, &mut plain).iter().zip(values) {
            assert!((found - expected).abs() < 1e-6, "{found} for {expected}");
        }
    }

    /// Schaul et al. 2016: a transition of weight 0 teaches nothing, and errors are reported unweighted
    #[test]
    fn importance_weights_weigh_the_gradient() {
        let update = |weights: [f32; 2]| {
            let (mut learner, _) = learner(false);
            let mut sample = Sample::new(2, 4, 1);
            sample.features.copy_from_slice(&[1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0]);
            (sample.actions, sample.rewards, sample.weights) = (vec![0, 1], vec![0.5, 0.7], weights.to_vec());
            learner.update(&sample, 1e-3);
            (learner.grads, learner.work.errors)
        };
        let ((both, errors), (first, _), (second, of_second)) =
            (update([1.0, 1.0]), update([1.0, 0.0]), update([0.0, 1.0]));
        assert_eq!(errors, of_second);
        for (both, (first, second)) in both.iter().zip(first.iter().zip(&second)) {
            assert!((both - first - second).abs() < 1e-7);
        }
        assert!(first.iter().zip(&second).any(|(first, second)| (first - second).abs() > 1e-3));
    }
}
