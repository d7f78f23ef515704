//! Dynamic programming: exact values and policies of a finite environment whose model is known.
//!
//! Bellman 1957; Howard 1960. Everything is `f64`, as optima are compared to ten digits. An environment's time limit is
//! not part of its model; [`finite_horizon`] brings it in.

use crate::rl::env::Tabular;
use crate::{Error, Result};

/// What planning found
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// Value of each state
    pub values: Vec<f64>,
    /// Best action of each state, the first of equals
    pub policy: Vec<usize>,
    /// Sweeps of value iteration, or rounds of policy iteration
    pub rounds: usize,
}

impl Plan {
    /// Mean value over the start states
    pub fn start_value(&self, model: &Tabular) -> f64 {
        start_value(model, &self.values)
    }
}

/// Mean of the values over the start states
pub fn start_value(model: &Tabular, values: &[f64]) -> f64 {
    model.initial_distribution().iter().zip(values).map(|(p, v)| p * v).sum()
}

/// Q(s, a) = Σ p (r + γ V(s')), with no V(s') behind a terminal step
pub fn action_value(model: &Tabular, values: &[f64], gamma: f64, state: usize, action: usize) -> f64 {
    let worth = |next: u32, terminated: bool| if terminated { 0.0 } else { gamma * values[next as usize] };
    let outcomes = model.outcomes(state, action).iter();
    outcomes.map(|o| o.probability * (o.reward + worth(o.next_state, o.terminated))).sum()
}

/// The best action by one look ahead, and its value. Values that differ by rounding alone count as equal
fn best(model: &Tabular, values: &[f64], gamma: f64, state: usize) -> (usize, f64) {
    let mut best = (0, f64::NEG_INFINITY);
    for action in 0..model.num_actions() {
        let value = action_value(model, values, gamma, state, action);
        if value > best.1 + ROUNDING * best.1.abs().max(1.0) || action == 0 {
            best = (action, value);
        }
    }
    best
}

/// Below this relative difference two action values are one
const ROUNDING: f64 = 1e-12;

/// The greedy policy of values
pub fn greedy_policy(model: &Tabular, values: &[f64], gamma: f64) -> Vec<usize> {
    (0..model.num_states()).map(|state| best(model, values, gamma, state).0).collect()
}

/// One Bellman optimality backup of all states; returns the largest change
pub fn sweep(model: &Tabular, gamma: f64, values: &[f64], next: &mut [f64]) -> f64 {
    let mut change = 0.0_f64;
    for (state, next) in next.iter_mut().enumerate() {
        let backups = (0..model.num_actions()).map(|action| action_value(model, values, gamma, state, action));
        *next = backups.fold(f64::NEG_INFINITY, f64::max);
        change = change.max((*next - values[state]).abs());
    }
    change
}

/// Value iteration from 0, sweep by sweep, until no value can be further than `tolerance` from the optimum
///
/// With γ < 1 a change of c in one sweep leaves an error of at most cγ/(1-γ). With γ = 1 there is no such bound, and the
/// ratio of the last two changes stands in for γ.
#[derive(Debug, Clone)]
pub struct ValueIteration {
    gamma: f64,
    tolerance: f64,
    values: Vec<f64>,
    next: Vec<f64>,
    before: f64,
    sweeps: usize,
}

impl ValueIteration {
    /// All values 0
    pub fn new(model: &Tabular, gamma: f64, tolerance: f64) -> Self {
        let values = vec![0.0; model.num_states()];
        Self { gamma, tolerance, next: values.clone(), values, before: 0.0, sweeps: 0 }
    }

    /// One sweep: the largest change, and whether it was the last one that is needed
    pub fn advance(&mut self, model: &Tabular) -> (f64, bool) {
        let change = sweep(model, self.gamma, &self.values, &mut self.next);
        std::mem::swap(&mut self.values, &mut self.next);
        self.sweeps += 1;
        // The first sweep has no ratio yet
        let ratio = if self.gamma < 1.0 { self.gamma } else { change / self.before };
        self.before = change;
        (change, change == 0.0 || (ratio < 1.0 && change * ratio <= self.tolerance * (1.0 - ratio)))
    }

    /// The values of all states by now
    pub fn values(&self) -> &[f64] {
        &self.values
    }

    /// What is known by now
    pub fn plan(&self, model: &Tabular) -> Plan {
        let policy = greedy_policy(model, &self.values, self.gamma);
        Plan { policy, values: self.values.clone(), rounds: self.sweeps }
    }
}

/// [`ValueIteration`] to its end
///
/// # Errors
/// No convergence within `max_sweeps`: with γ = 1 some state may never reach an end
pub fn value_iteration(model: &Tabular, gamma: f64, tolerance: f64, max_sweeps: usize) -> Result<Plan> {
    let mut sweeps = ValueIteration::new(model, gamma, tolerance);
    for _ in 0..max_sweeps {
        if sweeps.advance(model).1 {
            return Ok(sweeps.plan(model));
        }
    }
    Err(not_converged("value iteration", max_sweeps))
}

pub(super) fn not_converged(method: &str, rounds: usize) -> Error {
    Error::run(format!("{method} has not converged after {rounds} sweeps"))
        .hint("take a discount below 1, a larger tolerance, or more sweeps")
}

/// The exact values of a policy: the solution of V = r + γPV
///
/// # Errors
/// No unique solution: with γ = 1 under a policy that never reaches an end from somewhere
pub fn policy_evaluation(model: &Tabular, policy: &[usize], gamma: f64) -> Result<Vec<f64>> {
    let states = model.num_states();
    let (mut matrix, mut rewards) = (vec![0.0; states * states], vec![0.0; states]);
    for state in 0..states {
        matrix[state * states + state] = 1.0;
        for outcome in model.outcomes(state, policy[state]) {
            rewards[state] += outcome.probability * outcome.reward;
            if !outcome.terminated {
                matrix[state * states + outcome.next_state as usize] -= gamma * outcome.probability;
            }
        }
    }
    solve(&mut matrix, &mut rewards).ok_or_else(|| {
        Error::run("the policy has no finite value: some state never reaches an end").hint("take a discount below 1")
    })?;
    Ok(rewards)
}

/// Gaussian elimination with row pivoting; `b` becomes the solution. `None` where the matrix is singular
fn solve(matrix: &mut [f64], b: &mut [f64]) -> Option<()> {
    let n = b.len();
    for column in 0..n {
        let pivot = (column..n)
            .max_by(|i, j| matrix[i * n + column].abs().total_cmp(&matrix[j * n + column].abs()).then(j.cmp(i)))?;
        if matrix[pivot * n + column].abs() < 1e-13 {
            return None;
        }
        if pivot != column {
            for k in column..n {
                matrix.swap(pivot * n + k, column * n + k);
            }
            b.swap(pivot, column);
        }
        let (above, below) = matrix.split_at_mut((column + 1) * n);
        let row = &above[column * n..];
        for (i, other) in below.chunks_exact_mut(n).enumerate() {
            let factor = other[column] / row[column];
            if factor != 0.0 {
                for k in column..n {
                    other[k] -= factor * row[k];
                }
                b[column + 1 + i] -= factor * b[column];
            }
        }
    }
    for i in (0..n).rev() {
        let known: f64 = (i + 1..n).map(|k| matrix[i * n + k] * b[k]).sum();
        b[i] = (b[i] - known) / matrix[i * n + i];
    }
    Some(())
}

/// Policy iteration from the policy that always takes action 0: evaluate exactly, improve, until nothing improves
///
/// An action is changed only for one that is better by more than rounding, so that equals cannot alternate for ever.
#[derive(Debug, Clone)]
pub struct PolicyIteration {
    gamma: f64,
    policy: Vec<usize>,
    values: Vec<f64>,
    rounds: usize,
}

impl PolicyIteration {
    /// Action 0 everywhere
    pub fn new(model: &Tabular, gamma: f64) -> Self {
        let states = model.num_states();
        Self { gamma, policy: vec![0; states], values: vec![0.0; states], rounds: 0 }
    }

    /// One evaluation and improvement: how many states have a better action now. The last round finds none
    ///
    /// # Errors
    /// With γ = 1, a policy that never reaches an end from somewhere
    pub fn advance(&mut self, model: &Tabular) -> Result<usize> {
        self.values = policy_evaluation(model, &self.policy, self.gamma)?;
        self.rounds += 1;
        let mut improved = 0;
        for (state, action) in self.policy.iter_mut().enumerate() {
            let (better, value) = best(model, &self.values, self.gamma, state);
            if value > self.values[state] + 1e-10 * self.values[state].abs().max(1.0) && better != *action {
                *action = better;
                improved += 1;
            }
        }
        Ok(improved)
    }

    /// The values of all states by now
    pub fn values(&self) -> &[f64] {
        &self.values
    }

    /// What is known by now
    pub fn plan(&self, model: &Tabular) -> Plan {
        let policy = greedy_policy(model, &self.values, self.gamma);
        Plan { policy, values: self.values.clone(), rounds: self.rounds }
    }
}

/// [`PolicyIteration`] to its end; `rounds` counts the last evaluation too, the one that improves nothing
///
/// # Errors
/// With γ = 1, a policy that never reaches an end from somewhere
pub fn policy_iteration(model: &Tabular, gamma: f64) -> Result<Plan> {
    let mut rounds = PolicyIteration::new(model, gamma);
    // There are finitely many policies, and each is better than the one before
    while rounds.advance(model)? > 0 {}
    Ok(rounds.plan(model))
}

/// The optimum within a time limit: values of all states with `horizon` steps to go, acting by the time that is left
pub fn finite_horizon(model: &Tabular, gamma: f64, horizon: usize) -> Vec<f64> {
    let mut values = vec![0.0; model.num_states()];
    let mut next = values.clone();
    for _ in 0..horizon {
        sweep(model, gamma, &values, &mut next);
        std::mem::swap(&mut values, &mut next);
    }
    values
}

/// The values that a stationary policy reaches with `horizon` steps to go
pub fn finite_horizon_evaluation(model: &Tabular, policy: &[usize], gamma: f64, horizon: usize) -> Vec<f64> {
    let mut values = vec![0.0; model.num_states()];
    for _ in 0..horizon {
        values = (0..values.len()).map(|state| action_value(model, &values, gamma, state, policy[state])).collect();
    }
    values
}
