//! Optimisers on flat parameter vectors, one at a time.

use super::state::State;
use crate::Result;
use crate::ops::kernels::vector;

/// Adam on a flat parameter vector (Kingma & Ba 2015), gradients scaled down to a largest norm
#[derive(Debug, Clone)]
pub struct Adam {
    first: Vec<f32>,
    second: Vec<f32>,
    steps: i32,
    epsilon: f64,
}

impl Adam {
    const BETAS: (f64, f64) = (0.9, 0.999);

    /// For so many parameters
    pub fn new(params: usize, epsilon: f64) -> Self {
        Self { first: vec![0.0; params], second: vec![0.0; params], steps: 0, epsilon }
    }

    /// Takes its state out, or puts it back
    ///
    /// # Errors
    /// A state of another size
    pub fn persist(&mut self, state: &mut State) -> Result<()> {
        state.tensor("adam.first", &mut self.first)?;
        state.tensor("adam.second", &mut self.second)?;
        state.value("adam.steps", &mut self.steps)
    }

    /// One step; returns the norm of the gradients before they were scaled
    pub fn step(&mut self, params: &mut [f32], grads: &[f32], learning_rate: f64, max_norm: f64) -> f64 {
        let norm = vector::sum_squares(grads).sqrt();
        let constants = self.constants(learning_rate, (max_norm / (norm + 1e-6)).min(1.0));
        vector::adamw(params, &mut self.first, &mut self.second, grads, &constants);
        norm
    }

    /// One step along the sum of two gradients, however long it is; returns its norm
    pub fn step_along_sum(&mut self, params: &mut [f32], grads: [&[f32]; 2], learning_rate: f64) -> f64 {
        // What one pass works on stays in the nearest cache
        const BLOCK: usize = 2048;
        let constants = self.constants(learning_rate, 1.0);
        let mut sum = [0.0; BLOCK];
        let mut squares = 0.0;
        let moments = self.first.chunks_mut(BLOCK).zip(self.second.chunks_mut(BLOCK));
        let grads = grads[0].chunks(BLOCK).zip(grads[1].chunks(BLOCK));
        for ((params, moments), grads) in params.chunks_mut(BLOCK).zip(moments).zip(grads) {
            let sum = &mut sum[..params.len()];
            sum.copy_from_slice(grads.0);
            vector::add(sum, grads.1);
            squares += vector::sum_squares(sum);
            vector::adamw(params, moments.0, moments.1, sum, &constants);
        }
        squares.sqrt()
    }

    /// Of the next step, whose gradient is scaled by `clip`
    fn constants(&mut self, learning_rate: f64, clip: f64) -> vector::AdamwConstants {
        self.steps += 1;
        let (beta1, beta2) = Self::BETAS;
        vector::AdamwConstants {
            beta1: beta1 as f32,
            beta2: beta2 as f32,
            epsilon: self.epsilon as f32,
            step_size: (learning_rate / (1.0 - beta1.powi(self.steps))) as f32,
            root_correction: (1.0 - beta2.powi(self.steps)).sqrt() as f32,
            decay: 1.0,
            clip: clip as f32,
        }
    }
}

/// RMSprop as PyTorch has it: v ← α v + (1 - α) g², θ ← θ - η g / (√v + ε)
///
/// Hinton 2012, lecture 6e; α = 0.99 and no momentum, as Stable-Baselines3's A2C has it. TensorFlow's, with which A3C's
/// results were reached, has ε under the root and starts v at 1.
#[derive(Debug, Clone)]
pub struct RmsProp {
    squares: Vec<f32>,
    epsilon: f64,
}

impl RmsProp {
    const ALPHA: f32 = 0.99;

    /// For so many parameters
    pub fn new(params: usize, epsilon: f64) -> Self {
        Self { squares: vec![0.0; params], epsilon }
    }

    /// One step; returns the norm of the gradients before they were scaled
    pub fn step(&mut self, params: &mut [f32], grads: &[f32], learning_rate: f64, max_norm: f64) -> f64 {
        let norm = vector::sum_squares(grads).sqrt();
        let clip = (max_norm / (norm + 1e-6)).min(1.0) as f32;
        let (rate, epsilon) = (learning_rate as f32, self.epsilon as f32);
        for ((param, square), grad) in params.iter_mut().zip(&mut self.squares).zip(grads) {
            let grad = grad * clip;
            *square = Self::ALPHA * *square + (1.0 - Self::ALPHA) * grad * grad;
            *param -= rate * grad / (square.sqrt() + epsilon);
        }
        norm
    }
}

/// Either of them
#[derive(Debug, Clone)]
pub enum Optimizer {
    /// Kingma & Ba 2015
    Adam(Adam),
    /// Hinton 2012
    RmsProp(RmsProp),
}

impl Optimizer {
    /// Takes its state out, or puts it back
    ///
    /// # Errors
    /// A state of another size
    pub fn persist(&mut self, state: &mut State) -> Result<()> {
        match self {
            Self::Adam(adam) => adam.persist(state),
            Self::RmsProp(rms) => state.tensor("rms_prop.squares", &mut rms.squares),
        }
    }

    /// One step; returns the norm of the gradients before they were scaled
    pub fn step(&mut self, params: &mut [f32], grads: &[f32], learning_rate: f64, max_norm: f64) -> f64 {
        match self {
            Self::Adam(adam) => adam.step(params, grads, learning_rate, max_norm),
            Self::RmsProp(rms) => rms.step(params, grads, learning_rate, max_norm),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rmsprop_takes_the_steps_of_pytorch() {
        let mut rms = RmsProp::new(2, 1e-5);
        let mut params = [1.0, -2.0];
        assert_eq!(rms.step(&mut params, &[0.3, -0.4], 0.1, 10.0), 0.5);
        rms.step(&mut params, &[0.1, 0.0], 0.1, 10.0);
        // torch.optim.RMSprop(lr=.1, alpha=.99, eps=1e-5): v = (.0009, .0016), then (.000991, .001584)
        let first = 1.0 - 0.1 * 0.3 / (0.03 + 1e-5) - 0.1 * 0.1 / (0.000_991_f64.sqrt() + 1e-5);
        assert!((f64::from(params[0]) - first).abs() < 1e-5, "{params:?}");
        assert!((f64::from(params[1]) - (-2.0 + 0.1 * 0.4 / (0.04 + 1e-5))).abs() < 1e-5, "{params:?}");
    }

    #[test]
    fn gradients_beyond_the_largest_norm_are_scaled_down() {
        let (mut bounded, mut scaled) = ([0.0, 0.0], [0.0, 0.0]);
        RmsProp::new(2, 0.1).step(&mut bounded, &[3.0, 4.0], 0.1, 0.5);
        RmsProp::new(2, 0.1).step(&mut scaled, &[0.3, 0.4], 0.1, 0.5);
        for (a, b) in bounded.iter().zip(scaled) {
            assert!((a - b).abs() < 1e-6, "{a} {b}");
        }
    }

    #[test]
    fn a_step_along_a_sum_is_a_step() {
        let numbers = |by: usize| (0..5000).map(|i| ((i * by) % 17) as f32 * 0.1 - 0.8).collect::<Vec<f32>>();
        let (first, second) = (numbers(3), numbers(5));
        let sum: Vec<f32> = first.iter().zip(&second).map(|(a, b)| a + b).collect();
        let (mut one, mut other) = (Adam::new(5000, 1e-8), Adam::new(5000, 1e-8));
        let (mut params, mut expected) = (numbers(7), numbers(7));
        for _ in 0..3 {
            let norm = one.step_along_sum(&mut params, [&first, &second], 0.1);
            assert!((norm - other.step(&mut expected, &sum, 0.1, f64::INFINITY)).abs() < 1e-4);
        }
        assert_eq!(params, expected);
    }

    #[test]
    fn the_first_step_of_adam_is_the_learning_rate() {
        let (mut params, grads) = (vec![1.0, 1.0], [3.0, -4.0]);
        let norm = Adam::new(2, 1e-8).step(&mut params, &grads, 0.1, 0.5);
        assert_eq!(norm, 5.0);
        assert!((params[0] - 0.9).abs() < 1e-6 && (params[1] - 1.1).abs() < 1e-6, "{params:?}");
    }
}
