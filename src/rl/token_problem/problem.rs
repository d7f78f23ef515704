//! The problem and its exact solution.

use rand::{Rng, SeedableRng, rngs::Xoshiro256PlusPlus};

use super::{log_softmax, normal, uniform};
use crate::grl::target::soft_value;

/// Tokens
pub(super) const TOKENS: usize = 8;
/// Steps of a response
pub(super) const STEPS: usize = 6;
/// Features of a prompt
pub(super) const DIM: usize = 4;
/// What stands before the first token
pub(super) const START: usize = TOKENS;
/// KL weight
pub(super) const TAU: f64 = 0.5;
const NOISE: f64 = 0.5;
const OFFSET: f64 = 2.0;

/// One instance
#[derive(Debug, Clone)]
pub struct Problem {
    /// Unit vectors, a row for each prompt
    pub(super) prompts: Vec<[f64; DIM]>,
    /// log π_ref(a | step, previous token)
    pub(super) reference: Vec<[[f64; TOKENS]; TOKENS + 1]>,
    general: Vec<[[f64; TOKENS]; TOKENS + 1]>,
    by_prompt: Vec<[[f64; DIM]; TOKENS]>,
    offsets: Vec<f64>,
    optimum: f64,
    start: f64,
}

impl Problem {
    /// The instance of a seed. In a structured one, a prompt's offset is a smooth function of its features
    pub fn new(seed: u64, prompts: usize, structured: bool) -> Self {
        let mut rng = Xoshiro256PlusPlus::seed_from_u64(seed);
        let rng = &mut rng;
        let prompts: Vec<[f64; DIM]> = (0..prompts).map(|_| unit(rng)).collect();
        let reference = (0..STEPS).map(|_| table(rng, 1.0, true)).collect();
        let general = (0..STEPS).map(|_| table(rng, 0.5, false)).collect();
        let by_prompt = (0..STEPS).map(|_| [(); TOKENS].map(|()| [(); DIM].map(|()| 0.7 * normal(rng)))).collect();
        let mut offsets: Vec<f64> = if structured {
            let waves: Vec<([f64; DIM], f64, f64)> = (0..16)
                .map(|_| ([(); DIM].map(|()| normal(rng)), 2.0 * std::f64::consts::PI * uniform(rng), normal(rng)))
                .collect();
            let wave = |x: &[f64; DIM]| waves.iter().map(|(w, phase, a)| a * (2.0 * inner(x, w) + phase).cos()).sum();
            prompts.iter().map(wave).collect()
        } else {
            prompts.iter().map(|_| normal(rng)).collect()
        };
        let n = offsets.len() as f64;
        let mean = offsets.iter().sum::<f64>() / n;
        let deviation = (offsets.iter().map(|o| (o - mean).powi(2)).sum::<f64>() / n).sqrt();
        for offset in &mut offsets {
            *offset = OFFSET * (*offset - mean) / deviation;
        }
        let mut problem = Self { prompts, reference, general, by_prompt, offsets, optimum: 0.0, start: 0.0 };
        problem.optimum = (0..problem.len()).map(|x| problem.optimal_value(x)).sum::<f64>() / n;
        problem.start = problem.objective(|_, step, previous| problem.reference[step][previous]).0;
        problem
    }

    /// Prompts
    pub fn len(&self) -> usize {
        self.prompts.len()
    }

    /// Whether there is none
    pub fn is_empty(&self) -> bool {
        self.prompts.is_empty()
    }

    fn step_reward(&self, x: usize, step: usize, previous: usize, token: usize) -> f64 {
        self.general[step][previous][token] + inner(&self.prompts[x], &self.by_prompt[step][token])
    }

    /// R of a response, with noise
    pub(super) fn reward(&self, x: usize, response: &[usize], rng: &mut impl Rng) -> f64 {
        let mut previous = START;
        let mut reward = self.offsets[x] + NOISE * normal(rng);
        for (step, token) in response.iter().enumerate() {
            reward += self.step_reward(x, step, previous, *token);
            previous = *token;
        }
        reward
    }

    /// V*(x), by soft dynamic programming
    pub fn optimal_value(&self, x: usize) -> f64 {
        let mut next = [0.0; TOKENS + 1];
        for step in (0..STEPS).rev() {
            let mut values = [0.0; TOKENS + 1];
            for (previous, value) in values.iter_mut().enumerate() {
                let q: [f64; TOKENS] = std::array::from_fn(|a| self.step_reward(x, step, previous, a) + next[a]);
                *value = soft_value(&q, &self.reference[step][previous], TAU);
            }
            next = values;
        }
        next[START] + self.offsets[x]
    }

    /// J = E r − τ KL and KL of a policy, exact means over the prompts
    pub(super) fn objective(&self, log_policy: impl Fn(usize, usize, usize) -> [f64; TOKENS]) -> (f64, f64) {
        let n = self.len() as f64;
        let (mut total, mut kl) = (0.0, 0.0);
        for x in 0..self.len() {
            let (reward, divergence) = self.of_prompt(x, |step, previous| log_policy(x, step, previous));
            total += reward;
            kl += divergence;
        }
        (total / n - TAU * kl / n, kl / n)
    }

    /// V^π(x): the exact mean of b = R − τL
    pub(super) fn value(&self, x: usize, log_policy: impl Fn(usize, usize) -> [f64; TOKENS]) -> f64 {
        let (reward, kl) = self.of_prompt(x, log_policy);
        reward - TAU * kl
    }

    /// E r and KL of a policy for one prompt
    fn of_prompt(&self, x: usize, log_policy: impl Fn(usize, usize) -> [f64; TOKENS]) -> (f64, f64) {
        let (mut total, mut kl) = (self.offsets[x], 0.0);
        let mut reached = [0.0; TOKENS + 1];
        reached[START] = 1.0;
        for step in 0..STEPS {
            let mut next = [0.0; TOKENS + 1];
            for (previous, mass) in reached.iter().enumerate().filter(|(_, mass)| **mass > 0.0) {
                let log = log_policy(step, previous);
                for token in 0..TOKENS {
                    let joint = mass * log[token].exp();
                    next[token] += joint;
                    total += joint * self.step_reward(x, step, previous, token);
                    kl += joint * (log[token] - self.reference[step][previous][token]);
                }
            }
            reached = next;
        }
        (total, kl)
    }

    /// J, so that the reference has 0 and the optimum 1
    pub(super) fn normalised(&self, objective: f64) -> f64 {
        (objective - self.start) / (self.optimum - self.start)
    }
}

pub(super) fn inner(a: &[f64; DIM], b: &[f64; DIM]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

fn unit(rng: &mut impl Rng) -> [f64; DIM] {
    let x = [(); DIM].map(|()| normal(rng));
    let norm = inner(&x, &x).sqrt();
    x.map(|x| x / norm)
}

fn table(rng: &mut impl Rng, scale: f64, probabilities: bool) -> [[f64; TOKENS]; TOKENS + 1] {
    [(); TOKENS + 1].map(|()| {
        let mut row = [(); TOKENS].map(|()| scale * normal(rng));
        if probabilities {
            log_softmax(&mut row);
        }
        row
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_policy_of_the_soft_optimum_reaches_it_and_the_reference_starts_at_nothing() {
        let problem = Problem::new(3, 5, true);
        // π*(a) = π_ref e^{(Q − V)/τ}, worked out backwards for each prompt
        let best = |x: usize, step: usize, previous: usize| {
            let mut next = [0.0; TOKENS + 1];
            for at in (step..STEPS).rev() {
                let q = |previous: usize| -> [f64; TOKENS] {
                    std::array::from_fn(|a| problem.step_reward(x, at, previous, a) + next[a])
                };
                if at == step {
                    let policy = crate::grl::target::boltzmann(&q(previous), &problem.reference[at][previous], TAU);
                    return std::array::from_fn(|a| policy[a]);
                }
                next = std::array::from_fn(|p| soft_value(&q(p), &problem.reference[at][p], TAU));
            }
            unreachable!("the loop returns at `step`")
        };
        let (objective, kl) = problem.objective(best);
        assert!((problem.normalised(objective) - 1.0).abs() < 1e-12 && kl > 0.1, "{objective} {kl}");
        let (objective, kl) = problem.objective(|_, step, previous| problem.reference[step][previous]);
        assert_eq!((problem.normalised(objective), kl), (0.0, 0.0));
    }
}
