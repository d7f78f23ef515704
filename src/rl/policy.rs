//! A trained policy: what `rl train` saves and `rl eval` plays.

use super::env::rng::Pcg64;
use super::env::{Actions, EnvSpec};
use super::mlp::{Activation, Mlp, MlpCache};
use super::observer::{ActionSpace, Observer};
use super::random;

/// How outputs of the network become actions
#[derive(Debug, Clone, PartialEq)]
pub enum Head {
    /// Logits of a categorical
    Categorical,
    /// Means of a Gaussian with these log standard deviations
    Gaussian(Vec<f32>),
    /// Action values; at random with this probability where the policy is not deterministic
    Values(f64),
    /// Means and log standard deviations of a Gaussian, which tanh squashes into the bounds
    Squashed,
    /// Actions, which tanh squashes into the bounds
    Deterministic,
}

/// log σ of a squashed Gaussian stays within these, as in Stable-Baselines3
pub const LOG_STD: (f32, f32) = (-20.0, 2.0);

/// A network with what stands before and behind it
#[derive(Debug, Clone)]
pub struct Policy {
    /// What it sees
    pub observer: Observer,
    /// What it can do
    pub actions: ActionSpace,
    /// The network, whose parameters begin at 0
    pub network: Mlp,
    /// Its parameters
    pub params: Vec<f32>,
    /// How its outputs are read
    pub head: Head,
}

/// Chooses actions for N environments at once
#[derive(Debug)]
pub struct Actor<'p> {
    policy: &'p Policy,
    deterministic: bool,
    rng: Pcg64,
    features: Vec<f32>,
    cache: MlpCache,
    discrete: Vec<u32>,
    continuous: Vec<f32>,
}

impl Policy {
    /// Action values of numbered states, as a network without hidden layers: of a one among zeros it gives the row of
    /// the table
    ///
    /// # Shapes
    /// values (S · A,), state after state
    pub fn table(spec: &EnvSpec, values: &[f32], epsilon: f64) -> Self {
        let (observer, actions) = (Observer::new(&spec.observation_space, false), ActionSpace::of(spec));
        let (states, count) = (observer.width(), actions.outputs());
        let network = Mlp::new(&[states, count], Activation::Relu, 0);
        let mut params = vec![0.0; network.end()];
        for (at, value) in values.iter().enumerate() {
            params[at % count * states + at / count] = *value;
        }
        Self { observer, actions, network, params, head: Head::Values(epsilon) }
    }

    /// Whether it fits an environment
    pub fn fits(&self, spec: &EnvSpec) -> bool {
        self.actions == ActionSpace::of(spec)
            && self.observer.width() == Observer::new(&spec.observation_space, false).width()
    }

    /// Plays so many environments
    pub fn actor(&self, num_envs: usize, deterministic: bool, seed: u64) -> Actor<'_> {
        Actor {
            policy: self,
            deterministic,
            rng: Pcg64::new(u128::from(seed)),
            features: vec![0.0; num_envs * self.observer.width()],
            cache: self.network.cache(num_envs),
            discrete: vec![0; num_envs],
            continuous: vec![0.0; num_envs * self.actions.outputs()],
        }
    }
}

impl Actor<'_> {
    /// The actions for these observations
    pub fn act(&mut self, observations: &[f32]) -> Actions<'_> {
        let policy = self.policy;
        policy.observer.features(observations, &mut self.features);
        let rows = self.discrete.len();
        let outputs = policy.network.forward(&policy.params, rows, &self.features, &mut self.cache);
        let width = policy.network.outputs();
        match (&policy.actions, &policy.head) {
            (space @ ActionSpace::Continuous { low, .. }, Head::Squashed | Head::Deterministic) => {
                let size = low.len();
                for (actions, row) in self.continuous.chunks_exact_mut(size).zip(outputs.chunks_exact(width)) {
                    for (d, action) in actions.iter_mut().enumerate() {
                        let mut u = f64::from(row[d]);
                        if policy.head == Head::Squashed && !self.deterministic {
                            let log_std = row[size + d].clamp(LOG_STD.0, LOG_STD.1);
                            u += f64::from(log_std).exp() * random::standard_normal(&mut self.rng);
                        }
                        *action = space.scale(d, u.tanh() as f32);
                    }
                }
                Actions::Continuous(&self.continuous)
            }
            (ActionSpace::Continuous { low, high }, head) => {
                for (at, (action, mean)) in self.continuous.iter_mut().zip(outputs).enumerate() {
                    *action = *mean;
                    if let (Head::Gaussian(log_std), false) = (head, self.deterministic) {
                        let std = f64::from(log_std[at % width]).exp();
                        *action += (std * random::standard_normal(&mut self.rng)) as f32;
                    }
                    *action = action.clamp(low[at % width], high[at % width]);
                }
                Actions::Continuous(&self.continuous)
            }
            (ActionSpace::Discrete(n), head) => {
                for (action, row) in self.discrete.iter_mut().zip(outputs.chunks_exact(width)) {
                    *action = match head {
                        Head::Categorical if !self.deterministic => random::categorical(&mut self.rng, row) as u32,
                        Head::Values(epsilon) if !self.deterministic && self.rng.random() < *epsilon => {
                            self.rng.integers(0, *n as i64) as u32
                        }
                        _ => crate::algo::q::greedy(row) as u32,
                    };
                }
                Actions::Discrete(&self.discrete)
            }
        }
    }
}
