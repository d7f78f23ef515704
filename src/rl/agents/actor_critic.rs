//! Policy and value networks of on-policy agents, and what flows through them in a minibatch.

use std::ops::Range;

use crate::algo::distribution;
use crate::algo::value::{ValueLoss, value_loss};
use crate::rl::env::rng::Pcg64;
use crate::rl::mlp::{Activation, Mlp, MlpCache};
use crate::rl::observer::{ActionSpace, Observer};
use crate::rl::rollout::Rollout;

/// Policy and value network, their parameters in one vector: policy, log σ, value
#[derive(Debug, Clone)]
pub(super) struct Networks {
    pub(super) policy: Mlp,
    pub(super) log_std: Range<usize>,
    pub(super) value: Mlp,
    pub(super) params: Vec<f32>,
}

/// Buffers of one minibatch
#[derive(Debug)]
pub(super) struct Batch {
    pub(super) features: Vec<f32>,
    pub(super) discrete: Vec<usize>,
    pub(super) continuous: Vec<f32>,
    pub(super) log_std: Vec<f32>,
    pub(super) old_log_probs: Vec<f32>,
    pub(super) old_values: Vec<f32>,
    pub(super) advantages: Vec<f32>,
    pub(super) returns: Vec<f32>,
    pub(super) log_probs: Vec<f32>,
    pub(super) entropies: Vec<f32>,
    pub(super) grad_log_probs: Vec<f32>,
    pub(super) grad_entropies: Vec<f32>,
    pub(super) grad_outputs: Vec<f32>,
    pub(super) grad_log_std: Vec<f32>,
    pub(super) grad_values: Vec<f32>,
    pub(super) policy: MlpCache,
    pub(super) value: MlpCache,
}

impl Batch {
    pub(super) fn new(rows: usize, networks: &Networks) -> Self {
        let column = || vec![0.0; rows];
        let outputs = || vec![0.0; rows * networks.policy.outputs()];
        Self {
            features: vec![0.0; rows * networks.policy.inputs()],
            discrete: vec![0; rows],
            continuous: outputs(),
            log_std: outputs(),
            old_log_probs: column(),
            old_values: column(),
            advantages: column(),
            returns: column(),
            log_probs: column(),
            entropies: column(),
            grad_log_probs: column(),
            grad_entropies: column(),
            grad_outputs: outputs(),
            grad_log_std: outputs(),
            grad_values: column(),
            policy: networks.policy.cache(rows),
            value: networks.value.cache(rows),
        }
    }

    /// Mean entropy of the first rows
    pub(super) fn mean_entropy(&self, rows: usize) -> f64 {
        self.entropies[..rows].iter().map(|h| f64::from(*h)).sum::<f64>() / rows as f64
    }

    /// Copies these samples of a rollout together
    pub(super) fn gather(&mut self, rollout: &Rollout, rows: &[u32]) {
        let features = rollout.features.len() / rollout.len();
        let width = rollout.continuous.len() / rollout.len();
        for (to, from) in rows.iter().enumerate() {
            let from = *from as usize;
            self.features[to * features..(to + 1) * features]
                .copy_from_slice(&rollout.features[from * features..(from + 1) * features]);
            if width == 0 {
                self.discrete[to] = rollout.discrete[from];
            } else {
                self.continuous[to * width..(to + 1) * width]
                    .copy_from_slice(&rollout.continuous[from * width..(from + 1) * width]);
            }
            self.old_log_probs[to] = rollout.log_probs[from];
            self.old_values[to] = rollout.values[from];
            self.advantages[to] = rollout.advantages[from];
            self.returns[to] = rollout.returns[from];
        }
    }
}

impl Networks {
    pub(super) fn new(
        observer: &Observer,
        actions: &ActionSpace,
        hidden: &[usize],
        log_std_init: f64,
        rng: &mut Pcg64,
    ) -> Self {
        let widths = |outputs: usize| {
            let ends = (std::iter::once(observer.width()), std::iter::once(outputs));
            ends.0.chain(hidden.iter().copied()).chain(ends.1).collect::<Vec<_>>()
        };
        let policy = Mlp::new(&widths(actions.outputs()), Activation::Tanh, 0);
        let log_std = match actions {
            ActionSpace::Discrete(_) => policy.end()..policy.end(),
            ActionSpace::Continuous { low, .. } => policy.end()..policy.end() + low.len(),
        };
        let value = Mlp::new(&widths(1), Activation::Tanh, log_std.end);
        let mut params = vec![log_std_init as f32; value.end()];
        policy.init_orthogonal(&mut params, 0.01, rng);
        value.init_orthogonal(&mut params, 1.0, rng);
        Self { policy, log_std, value, params }
    }

    /// V of the batch's features, into its cache
    pub(super) fn value(&self, rows: usize, batch: &mut Batch) {
        self.value.forward(&self.params, rows, &batch.features, &mut batch.value);
    }

    /// Mean squared error of V against the batch's returns, times `factor`, and its gradients in the value network
    pub(super) fn value_gradients(&self, rows: usize, batch: &mut Batch, factor: f64, grads: &mut [f32]) -> f64 {
        self.value(rows, batch);
        let Batch { features, returns, value, grad_values, .. } = batch;
        let by_value = &mut grad_values[..rows];
        let returns = &returns[..rows];
        let loss = value_loss(ValueLoss::Squared, value.outputs(), &[], returns, None, factor, rows as f64, by_value);
        self.value.backward(&self.params, rows, features, by_value, value, grads);
        loss.loss
    }

    /// log π and entropies of the batch's actions under the policy's last outputs
    pub(super) fn log_probs(&self, rows: usize, actions: &ActionSpace, batch: &mut Batch) {
        let outputs = batch.policy.outputs();
        let (log_probs, entropies) = (&mut batch.log_probs[..rows], &mut batch.entropies[..rows]);
        match actions {
            ActionSpace::Discrete(_) => {
                distribution::categorical(outputs, &batch.discrete[..rows], log_probs, entropies);
            }
            ActionSpace::Continuous { low, .. } => {
                let numbers = rows * low.len();
                for row in batch.log_std[..numbers].chunks_exact_mut(low.len()) {
                    row.copy_from_slice(&self.params[self.log_std.clone()]);
                }
                let (log_std, drawn) = (&batch.log_std[..numbers], &batch.continuous[..numbers]);
                distribution::gaussian(outputs, log_std, drawn, log_probs, entropies);
            }
        }
    }

    /// Outputs, log π, entropies and V of the batch
    pub(super) fn forward(&self, rows: usize, actions: &ActionSpace, batch: &mut Batch) {
        self.policy.forward(&self.params, rows, &batch.features, &mut batch.policy);
        self.log_probs(rows, actions, batch);
        self.value(rows, batch);
    }

    /// From the gradients in log-probabilities, entropies and values to those of all parameters
    pub(super) fn backward(&self, rows: usize, actions: &ActionSpace, batch: &mut Batch, grads: &mut [f32]) {
        let numbers = rows * self.policy.outputs();
        let (by_log_probs, by_entropies) = (&batch.grad_log_probs[..rows], &batch.grad_entropies[..rows]);
        let grad_outputs = &mut batch.grad_outputs[..numbers];
        match actions {
            ActionSpace::Discrete(_) => distribution::categorical_backward(
                batch.policy.outputs(),
                &batch.discrete[..rows],
                by_log_probs,
                by_entropies,
                grad_outputs,
            ),
            ActionSpace::Continuous { low, .. } => {
                distribution::gaussian_backward(
                    batch.policy.outputs(),
                    &batch.log_std[..numbers],
                    &batch.continuous[..numbers],
                    by_log_probs,
                    by_entropies,
                    grad_outputs,
                    &mut batch.grad_log_std[..numbers],
                );
                for (d, grad) in grads[self.log_std.clone()].iter_mut().enumerate() {
                    *grad = batch.grad_log_std[d..numbers].iter().step_by(low.len()).sum();
                }
            }
        }
        self.policy.backward(&self.params, rows, &batch.features, grad_outputs, &mut batch.policy, grads);
        self.value.backward(&self.params, rows, &batch.features, &batch.grad_values[..rows], &mut batch.value, grads);
    }
}
