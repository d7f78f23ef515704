//! A log-linear policy: the reference's logits, plus a table, plus a part that is linear in the prompt's features.

use rand::Rng;

use super::problem::{DIM, Problem, START, STEPS, TOKENS, inner};
use super::{log_softmax, uniform};

const TABLE: usize = STEPS * (TOKENS + 1) * TOKENS;
const PARAMETERS: usize = TABLE + STEPS * TOKENS * DIM;

/// Parameters and Adam's moments
#[derive(Debug, Clone)]
pub struct Policy<'p> {
    problem: &'p Problem,
    theta: Vec<f64>,
    first: Vec<f64>,
    second: Vec<f64>,
    steps: i32,
}

impl<'p> Policy<'p> {
    /// The reference itself
    pub fn new(problem: &'p Problem) -> Self {
        let zeros = || vec![0.0; PARAMETERS];
        Self { problem, theta: zeros(), first: zeros(), second: zeros(), steps: 0 }
    }

    fn table(step: usize, previous: usize) -> usize {
        (step * (TOKENS + 1) + previous) * TOKENS
    }

    fn linear(step: usize, token: usize) -> usize {
        TABLE + (step * TOKENS + token) * DIM
    }

    /// log π(· | x, step, previous)
    pub(super) fn row(&self, x: usize, step: usize, previous: usize) -> [f64; TOKENS] {
        let at = Self::table(step, previous);
        let mut row: [f64; TOKENS] = std::array::from_fn(|token| {
            let linear = Self::linear(step, token);
            let weights: [f64; DIM] = std::array::from_fn(|d| self.theta[linear + d]);
            self.problem.reference[step][previous][token]
                + self.theta[at + token]
                + inner(&self.problem.prompts[x], &weights)
        });
        log_softmax(&mut row);
        row
    }

    /// A response to prompt x
    pub(super) fn sample(&self, x: usize, rng: &mut impl Rng) -> Vec<usize> {
        let mut previous = START;
        let step = |step| {
            let row = self.row(x, step, previous);
            let mut left = uniform(rng);
            let token = row.iter().position(|log| {
                left -= log.exp();
                left <= 0.0
            });
            previous = token.unwrap_or(TOKENS - 1);
            previous
        };
        (0..STEPS).map(step).collect()
    }

    /// log π of every token
    pub(super) fn log_probs(&self, x: usize, response: &[usize]) -> Vec<f64> {
        let at = |(step, token): (usize, &usize)| {
            let previous = if step == 0 { START } else { response[step - 1] };
            self.row(x, step, previous)[*token]
        };
        response.iter().enumerate().map(at).collect()
    }

    /// log π_ref of every token
    pub(super) fn reference(problem: &Problem, response: &[usize]) -> Vec<f64> {
        let at = |(step, token): (usize, &usize)| {
            let previous = if step == 0 { START } else { response[step - 1] };
            problem.reference[step][previous][*token]
        };
        response.iter().enumerate().map(at).collect()
    }

    /// One step of Adam (β 0.9, 0.99) down ∂loss/∂log π of all tokens of these responses
    pub(super) fn descend(&mut self, batch: &[(usize, &[usize])], grad_log_probs: &[f64], rate: f64) {
        let mut grad = vec![0.0; PARAMETERS];
        let mut tokens = grad_log_probs.iter();
        for (x, response) in batch {
            let mut previous = START;
            for (step, (token, slope)) in response.iter().zip(&mut tokens).enumerate() {
                let row = self.row(*x, step, previous);
                for (a, log) in row.iter().enumerate() {
                    let d = slope * (f64::from(u8::from(a == *token)) - log.exp());
                    grad[Self::table(step, previous) + a] += d;
                    for (k, feature) in self.problem.prompts[*x].iter().enumerate() {
                        grad[Self::linear(step, a) + k] += d * feature;
                    }
                }
                previous = *token;
            }
        }
        self.steps += 1;
        let (bias_first, bias_second) = (1.0 - 0.9_f64.powi(self.steps), 1.0 - 0.99_f64.powi(self.steps));
        for (i, g) in grad.into_iter().enumerate() {
            self.first[i] = 0.9 * self.first[i] + 0.1 * g;
            self.second[i] = 0.99 * self.second[i] + 0.01 * g * g;
            self.theta[i] -= rate * (self.first[i] / bias_first) / ((self.second[i] / bias_second).sqrt() + 1e-8);
        }
    }
}
