//! Finite environments: the table of what can follow each action, and stepping by it.

use super::native::{Dynamics, discrete};
use super::rng::Pcg64;
use super::{Actions, Space, VecStep};

/// One thing that an action in a state may lead to
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Outcome {
    /// How likely it is
    pub probability: f64,
    /// The state that follows
    pub next_state: u32,
    /// The reward on the way
    pub reward: f64,
    /// Whether the episode is over then, so that nothing after it counts
    pub terminated: bool,
}

/// A Markov decision process as a table: Gymnasium's `P` and `initial_state_distrib`
#[derive(Debug, Clone, PartialEq)]
pub struct Tabular {
    num_states: usize,
    num_actions: usize,
    outcomes: Vec<Outcome>,
    /// For each outcome, the probability of it and of those before it for the same state and action
    cumulative: Vec<f64>,
    /// Where the outcomes of each (state, action) start, row by row, and where the last ones end
    starts: Vec<usize>,
    initial: Vec<f64>,
    initial_cumulative: Vec<f64>,
}

impl Tabular {
    /// From the weights of the start states and what follows each action in each state
    pub fn new<O>(initial_weights: &[f64], num_actions: usize, mut follow: impl FnMut(u32, u32) -> O) -> Self
    where
        O: IntoIterator<Item = Outcome>,
    {
        let num_states = initial_weights.len();
        let (mut outcomes, mut cumulative, mut starts) = (Vec::new(), Vec::new(), vec![0]);
        for state in 0..num_states as u32 {
            for action in 0..num_actions as u32 {
                let start = outcomes.len();
                outcomes.extend(follow(state, action));
                cumulative.extend(sums(outcomes[start..].iter().map(|outcome: &Outcome| outcome.probability)));
                starts.push(outcomes.len());
            }
        }
        let total: f64 = initial_weights.iter().sum();
        let initial: Vec<_> = initial_weights.iter().map(|weight| weight / total).collect();
        let initial_cumulative = sums(initial.iter().copied()).collect();
        Self { num_states, num_actions, outcomes, cumulative, starts, initial, initial_cumulative }
    }

    /// How many states there are
    pub fn num_states(&self) -> usize {
        self.num_states
    }

    /// How many actions each of them allows
    pub fn num_actions(&self) -> usize {
        self.num_actions
    }

    /// What an action in a state may lead to; one state may stand there more than once
    pub fn outcomes(&self, state: usize, action: usize) -> &[Outcome] {
        &self.outcomes[self.range(state, action)]
    }

    /// The probability of each state at the start of an episode
    pub fn initial_distribution(&self) -> &[f64] {
        &self.initial
    }

    fn range(&self, state: usize, action: usize) -> std::ops::Range<usize> {
        let at = state * self.num_actions + action;
        self.starts[at]..self.starts[at + 1]
    }

    fn sample_start(&self, rng: &mut Pcg64) -> u32 {
        sample(&self.initial_cumulative, rng) as u32
    }

    fn sample_outcome(&self, state: u32, action: u32, rng: &mut Pcg64) -> Outcome {
        let range = self.range(state as usize, action as usize);
        self.outcomes[range.start + sample(&self.cumulative[range], rng)]
    }
}

fn sums(probabilities: impl Iterator<Item = f64>) -> impl Iterator<Item = f64> {
    probabilities.scan(0.0, |sum, probability| {
        *sum += probability;
        Some(*sum)
    })
}

/// The first whose cumulative probability lies above a draw. Sums that end below 1 leave a gap, which is the first's
fn sample(cumulative: &[f64], rng: &mut Pcg64) -> usize {
    let drawn = rng.random();
    cumulative.iter().position(|sum| *sum > drawn).unwrap_or(0)
}

/// Steps by a table
pub(super) struct TabularDynamics {
    model: Tabular,
    states: Vec<u32>,
    /// The table of a seed, where there is not one for all
    of_seed: Option<fn(u64) -> Tabular>,
}

impl TabularDynamics {
    pub(super) fn new(num_envs: usize, model: Tabular) -> Self {
        Self { model, states: vec![0; num_envs], of_seed: None }
    }

    /// With another table for each seed; seed 0's until one is known
    pub(super) fn seeded(num_envs: usize, of_seed: fn(u64) -> Tabular) -> Self {
        Self { of_seed: Some(of_seed), ..Self::new(num_envs, of_seed(0)) }
    }
}

impl Dynamics for TabularDynamics {
    fn observation_space(&self) -> Space {
        Space::Discrete { n: self.model.num_states as u32 }
    }

    fn action_space(&self) -> Space {
        Space::Discrete { n: self.model.num_actions as u32 }
    }

    fn seed(&mut self, seed: u64) {
        if let Some(of_seed) = self.of_seed {
            self.model = of_seed(seed);
        }
    }

    fn reset(&mut self, i: usize, rng: &mut Pcg64, observation: &mut [f32]) {
        self.states[i] = self.model.sample_start(rng);
        observation[0] = self.states[i] as f32;
    }

    fn step(&mut self, actions: Actions<'_>, rngs: &mut [Pcg64], out: &mut VecStep) {
        for (i, (state, action)) in self.states.iter_mut().zip(discrete(actions)).enumerate() {
            let outcome = self.model.sample_outcome(*state, *action, &mut rngs[i]);
            *state = outcome.next_state;
            out.final_obs[i] = *state as f32;
            out.rewards[i] = outcome.reward;
            out.terminated[i] = outcome.terminated;
        }
    }

    fn tabular(&self) -> Option<&Tabular> {
        Some(&self.model)
    }
}
