//! Running normalisation of observations and rewards.
//!
//! Observations are centred and scaled by what was seen so far; rewards are scaled, not centred, by the spread of the
//! discounted returns, because their level means something. Both are then cut off at ±10.

use serde::{Deserialize, Serialize};

/// Beyond so many standard deviations everything is the same
const CLIP: f64 = 10.0;
const EPSILON: f64 = 1e-8;

/// Mean and variance of rows that come batch by batch (Chan, Golub & LeVeque 1979)
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Moments {
    mean: Vec<f64>,
    variance: Vec<f64>,
    count: f64,
}

impl Moments {
    /// Nothing seen: mean 0, variance 1, and the weight of almost no row
    pub fn new(width: usize) -> Self {
        Self { mean: vec![0.0; width], variance: vec![1.0; width], count: 1e-4 }
    }

    /// Mean and variance of each column
    pub fn columns(&self) -> impl Iterator<Item = (f64, f64)> {
        self.mean.iter().copied().zip(self.variance.iter().copied())
    }

    /// Takes in rows
    pub fn update(&mut self, rows: &[f32]) {
        let width = self.mean.len();
        let n = (rows.len() / width) as f64;
        let total = self.count + n;
        for column in 0..width {
            let values = || rows[column..].iter().step_by(width).map(|x| f64::from(*x));
            let mean = values().sum::<f64>() / n;
            let squares: f64 = values().map(|x| (x - mean).powi(2)).sum();
            let apart = mean - self.mean[column];
            let sum = self.variance[column] * self.count + squares + apart * apart * self.count * n / total;
            self.mean[column] += apart * n / total;
            self.variance[column] = sum / total;
        }
        self.count = total;
    }

    /// (x - mean) / √(variance + ε), cut off
    pub fn normalize(&self, rows: &mut [f32]) {
        for row in rows.chunks_exact_mut(self.mean.len()) {
            for (x, (mean, variance)) in row.iter_mut().zip(self.columns()) {
                *x = ((f64::from(*x) - mean) / (variance + EPSILON).sqrt()).clamp(-CLIP, CLIP) as f32;
            }
        }
    }
}

/// Scales rewards by the spread of the discounted returns so far
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RewardScale {
    gamma: f64,
    returns: Vec<f32>,
    moments: Moments,
}

impl RewardScale {
    /// For so many environments
    pub fn new(num_envs: usize, gamma: f64) -> Self {
        Self { gamma, returns: vec![0.0; num_envs], moments: Moments::new(1) }
    }

    /// Takes in the rewards of a step
    pub fn update(&mut self, rewards: &[f64]) {
        for (sum, reward) in self.returns.iter_mut().zip(rewards) {
            *sum = (f64::from(*sum) * self.gamma + reward) as f32;
        }
        self.moments.update(&self.returns);
    }

    /// A reward, scaled and cut off
    pub fn scale(&self, reward: f64) -> f64 {
        (reward / (self.moments.variance[0] + EPSILON).sqrt()).clamp(-CLIP, CLIP)
    }

    /// The episode of an environment has ended
    pub fn forget(&mut self, env: usize) {
        self.returns[env] = 0.0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_give_the_moments_of_all_rows() {
        let rows: Vec<f32> = (0..40).map(|i| ((i * 13) % 17) as f32).collect();
        let mut moments = Moments::new(2);
        rows.chunks(6).for_each(|batch| moments.update(batch));
        for (column, (mean, variance)) in moments.columns().enumerate() {
            let values: Vec<f64> = rows[column..].iter().step_by(2).map(|x| f64::from(*x)).collect();
            let expected = values.iter().sum::<f64>() / 20.0;
            let spread = values.iter().map(|x| (x - expected).powi(2)).sum::<f64>() / 20.0;
            assert!((mean - expected).abs() < 1e-3 && (variance - spread).abs() < 1e-2, "{mean} {variance}");
        }
    }

    #[test]
    fn what_is_far_out_is_cut_off() {
        let mut row = [1e6, -0.5];
        Moments::new(2).normalize(&mut row);
        assert_eq!(row[0], 10.0);
        assert!((row[1] + 0.5).abs() < 1e-6);
    }

    #[test]
    fn rewards_are_scaled_by_the_spread_of_returns_and_keep_their_sign() {
        let mut scale = RewardScale::new(1, 0.5);
        for step in 0..2000 {
            scale.update(&[if step % 2 == 0 { -100.0 } else { -50.0 }]);
        }
        let scaled = scale.scale(-100.0);
        // Returns swing between -166.7 and -133.3 (a = b/2 - 100, b = a/2 - 50): a standard deviation of 16.7
        assert!((-6.01..-5.95).contains(&scaled), "{scaled}");
        assert!((scale.scale(-10.0) - scaled / 10.0).abs() < 1e-9);
        assert_eq!(scale.scale(-1e6), -10.0, "far out it is cut off");
    }
}
