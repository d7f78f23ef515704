//! Twin critics: two estimates of Q(s, a), each with a target that follows it, of which the smaller one counts.
//!
//! Fujimoto et al. 2018, section 4, <https://arxiv.org/abs/1802.09477>. A batch is learned in two halves, so that two
//! threads share every product of it; the halves are the same on any number of threads, and so are the sums.

use std::ops::Range;

use crate::algo::value::{ValueLoss, value_loss};
use crate::ops::kernels::{mlp, vector};
use crate::rl::env::rng::Pcg64;
use crate::rl::mlp::{Activation, Mlp, MlpCache};
use crate::rl::optimizer::Adam;
use crate::rl::state::State;
use crate::{Error, Result};

/// The critics; both have one layout
#[derive(Debug, Clone)]
pub(super) struct Twin {
    pub(super) network: Mlp,
    pub(super) critics: [Learned; 2],
    pub(super) targets: [Vec<f32>; 2],
}

/// Parameters that learn from a batch in two halves
#[derive(Debug, Clone)]
pub(super) struct Learned {
    pub(super) params: Vec<f32>,
    adam: Adam,
}

impl Learned {
    /// Starts from these
    pub(super) fn new(params: Vec<f32>) -> Self {
        Self { adam: Adam::new(params.len(), 1e-8), params }
    }

    /// For a network whose parameters begin at 0, drawn as PyTorch draws them
    pub(super) fn of(network: &Mlp, rng: &mut Pcg64) -> Self {
        let mut params = vec![0.0; network.end()];
        network.init_uniform(&mut params, rng);
        Self::new(params)
    }

    /// Takes parameters and the optimiser's state out, or puts them back
    pub(super) fn persist(&mut self, state: &mut State) -> Result<()> {
        state.tensor("params", &mut self.params)?;
        self.adam.persist(state)
    }

    /// One step of Adam along the sum of the halves' gradients; returns its norm
    pub(super) fn step(&mut self, halves: [&[f32]; 2], learning_rate: f64) -> f64 {
        self.adam.step_along_sum(&mut self.params, halves, learning_rate)
    }
}

/// What flows through the critics for one half of a batch
#[derive(Debug)]
pub(super) struct TwinPass {
    /// (rows, features + action)
    inputs: Vec<f32>,
    caches: [MlpCache; 2],
    pub(super) values: [Vec<f32>; 2],
    /// The gradient in the values, which the user of [`TwinPass::action_gradients`] sets
    pub(super) grad_values: [Vec<f32>; 2],
    pub(super) grads: [Vec<f32>; 2],
}

/// Which parameters of the critics
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Which {
    Online,
    Target,
}

impl Twin {
    /// For so many features and numbers of an action
    pub(super) fn new(features: usize, actions: usize, hidden: &[usize], rng: &mut Pcg64) -> Self {
        let widths: Vec<_> = [features + actions].into_iter().chain(hidden.iter().copied()).chain([1]).collect();
        let network = Mlp::new(&widths, Activation::Relu, 0);
        let critics = [(); 2].map(|()| Learned::of(&network, rng));
        let targets = [0, 1].map(|at: usize| critics[at].params.clone());
        Self { network, critics, targets }
    }

    /// Buffers for a half of so many rows
    pub(super) fn pass(&self, rows: usize) -> TwinPass {
        let column = || [vec![0.0; rows], vec![0.0; rows]];
        TwinPass {
            inputs: vec![0.0; rows * self.network.inputs()],
            caches: [self.network.cache(rows), self.network.cache(rows)],
            values: column(),
            grad_values: column(),
            grads: [vec![0.0; self.network.end()], vec![0.0; self.network.end()]],
        }
    }

    /// Both learn from the gradients of both halves; returns the norms' mean
    pub(super) fn step(&mut self, halves: [&TwinPass; 2], learning_rate: f64) -> f64 {
        let [first, second] = &mut self.critics;
        let grads = |critic: usize| halves.map(|half| half.grads[critic].as_slice());
        let norms = rayon::join(|| first.step(grads(0), learning_rate), || second.step(grads(1), learning_rate));
        f64::midpoint(norms.0, norms.1)
    }

    /// Takes critics and targets out, or puts them back
    pub(super) fn persist(&mut self, state: &mut State) -> Result<()> {
        for (at, (critic, target)) in self.critics.iter_mut().zip(&mut self.targets).enumerate() {
            state.part(&format!("critic{at}"), |state| {
                critic.persist(state)?;
                state.tensor("target", target)
            })?;
        }
        Ok(())
    }

    /// Both targets follow by a share of τ
    pub(super) fn follow(&mut self, tau: f64) {
        for (target, critic) in self.targets.iter_mut().zip(&self.critics) {
            mlp::follow(target, &critic.params, tau as f32);
        }
    }
}

impl TwinPass {
    /// Q of actions in states, into `values`
    pub(super) fn forward(&mut self, twin: &Twin, which: Which, features: &[f32], actions: &[f32]) {
        let rows = self.values[0].len();
        let (width, action_width) = (features.len() / rows, actions.len() / rows);
        let parts = features.chunks_exact(width).zip(actions.chunks_exact(action_width));
        for (input, (seen, action)) in self.inputs.chunks_exact_mut(width + action_width).zip(parts) {
            input[..width].copy_from_slice(seen);
            input[width..].copy_from_slice(action);
        }
        for at in 0..2 {
            let params = if which == Which::Target { &twin.targets[at] } else { &twin.critics[at].params };
            let values = twin.network.forward(params, rows, &self.inputs, &mut self.caches[at]);
            self.values[at].copy_from_slice(values);
        }
    }

    /// Gradients of Σ (Q - y)² / `normalizer` after [`TwinPass::forward`]; returns the critics' mean loss
    pub(super) fn regress(&mut self, twin: &Twin, targets: &[f32], normalizer: f64) -> f64 {
        let mut sum = 0.0;
        for (at, critic) in twin.critics.iter().enumerate() {
            let grad = &mut self.grad_values[at];
            // The halved square: Adam does not see the factor, and the gradient is the plain error
            sum += value_loss(ValueLoss::Squared, &self.values[at], &[], targets, None, 0.5, normalizer, grad).loss;
            let (cache, grads) = (&mut self.caches[at], &mut self.grads[at]);
            twin.network.backward(&critic.params, grad.len(), &self.inputs, grad, cache, grads);
        }
        sum
    }

    /// The gradient in the actions, given `grad_values`, through the first `critics` of the two
    pub(super) fn action_gradients(&mut self, twin: &Twin, critics: usize, grad_actions: &mut [f32]) {
        let rows = self.values[0].len();
        let action_width = grad_actions.len() / rows;
        grad_actions.fill(0.0);
        for (at, critic) in twin.critics.iter().enumerate().take(critics) {
            let cache = &mut self.caches[at];
            let by_inputs = twin.network.backward_inputs(&critic.params, rows, &self.grad_values[at], cache);
            let rows = by_inputs.chunks_exact(twin.network.inputs());
            for (grad, row) in grad_actions.chunks_exact_mut(action_width).zip(rows) {
                vector::add(grad, &row[row.len() - action_width..]);
            }
        }
    }
}

/// Two halves of `rows`, of nearly one size
///
/// # Errors
/// A batch of one
pub(super) fn halves(rows: usize) -> Result<[Range<usize>; 2]> {
    if rows < 2 {
        return Err(Error::usage(format!("`batch_size` must be at least 2, got {rows}")));
    }
    Ok([0..rows / 2, rows / 2..rows])
}
