//! Optimisers on flat parameter vectors, one at a time.

use super::mlp::Adam;
use super::state::State;
use crate::Result;
use crate::ops::kernels::vector;

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
}
