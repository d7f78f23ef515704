//! The learnt values of PPO and DRO here: a small network on the prompt's features, by plain gradient descent.

use rand::Rng;

use super::normal;
use super::problem::{DIM, inner};

const HIDDEN: usize = 32;
const RATE: f64 = 0.3;

/// v · tanh(W x + c) + b
#[derive(Debug, Clone)]
pub(super) struct Critic {
    weights: Vec<[f64; DIM]>,
    shifts: Vec<f64>,
    out: Vec<f64>,
    bias: f64,
}

impl Critic {
    pub(super) fn new(rng: &mut impl Rng) -> Self {
        let weights = (0..HIDDEN).map(|_| [(); DIM].map(|()| 0.7 * normal(rng))).collect();
        Self { weights, shifts: vec![0.0; HIDDEN], out: vec![0.0; HIDDEN], bias: 0.0 }
    }

    /// The hidden layer and a 1 for the bias, as features
    pub(super) fn layer(&self, x: &[f64; DIM]) -> Vec<f32> {
        self.hidden(x).into_iter().chain([1.0]).map(|h| h as f32).collect()
    }

    fn hidden(&self, x: &[f64; DIM]) -> Vec<f64> {
        self.weights.iter().zip(&self.shifts).map(|(w, c)| (inner(w, x) + c).tanh()).collect()
    }

    pub(super) fn value(&self, x: &[f64; DIM]) -> f64 {
        self.bias + self.hidden(x).iter().zip(&self.out).map(|(h, v)| h * v).sum::<f64>()
    }

    /// One step down mean ½ (V − b)²
    pub(super) fn descend(&mut self, prompts: &[[f64; DIM]], targets: &[f64]) {
        let before = self.clone();
        for (x, target) in prompts.iter().zip(targets) {
            let slope = RATE * (before.value(x) - target) / prompts.len() as f64;
            self.bias -= slope;
            for (unit, h) in before.hidden(x).into_iter().enumerate() {
                self.out[unit] -= slope * h;
                let inside = slope * before.out[unit] * (1.0 - h * h);
                self.shifts[unit] -= inside;
                for (w, x) in self.weights[unit].iter_mut().zip(x) {
                    *w -= inside * x;
                }
            }
        }
    }
}
