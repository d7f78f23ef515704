//! n-step returns: transitions that span several steps of an episode.
//!
//! Sutton 1988; in deep Q-networks Hessel et al. 2018, <https://arxiv.org/abs/1710.02298>.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use super::replay::{ActionNumber, Transition};
use super::state::State;
use crate::Result;

/// What one step of one environment gave
#[derive(Debug, Clone, Copy)]
pub struct Seen<'s, A> {
    /// What was seen
    pub features: &'s [f32],
    /// What was done
    pub action: &'s [A],
    /// What it brought
    pub reward: f64,
    /// What was seen then
    pub next_features: &'s [f32],
    /// Whether the task was over
    pub terminated: bool,
    /// Whether the episode ended, for whichever reason
    pub ended: bool,
}

/// A transition whose end is not known yet
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Begun<A> {
    features: Vec<f32>,
    action: Vec<A>,
    reward: f64,
    /// γᵏ after k steps
    discount: f64,
}

/// Turns steps into transitions R = Σ_{k<n} γᵏ r_k with discount γⁿ; shorter ones where an episode ends before
#[derive(Debug, Clone)]
pub struct NStep<A> {
    n: usize,
    gamma: f64,
    /// One for each environment
    windows: Vec<VecDeque<Begun<A>>>,
    /// Finished ones, whose memory is used again
    spare: Vec<Begun<A>>,
}

impl<A: ActionNumber> NStep<A> {
    /// For so many environments
    pub fn new(n: usize, gamma: f64, num_envs: usize) -> Self {
        Self { n, gamma, windows: (0..num_envs).map(|_| VecDeque::with_capacity(n)).collect(), spare: Vec::new() }
    }

    /// Takes what has begun out, or puts it back
    pub(super) fn persist(&mut self, state: &mut State) -> Result<()> {
        state.value("begun", &mut self.windows)
    }

    /// Takes a step of an environment in, and hands over the transitions that it completes
    pub fn record(&mut self, env: usize, seen: &Seen<'_, A>, mut push: impl FnMut(&Transition<'_, A>)) {
        let window = &mut self.windows[env];
        let mut begun = self.spare.pop().unwrap_or_else(|| Begun {
            features: Vec::new(),
            action: Vec::new(),
            reward: 0.0,
            discount: 0.0,
        });
        begun.features.clear();
        begun.features.extend_from_slice(seen.features);
        begun.action.clear();
        begun.action.extend_from_slice(seen.action);
        (begun.reward, begun.discount) = (0.0, 1.0);
        window.push_back(begun);
        for begun in window.iter_mut() {
            begun.reward += begun.discount * seen.reward;
            begun.discount *= self.gamma;
        }
        while window.len() == self.n || (seen.ended && !window.is_empty()) {
            let Some(done) = window.pop_front() else { break };
            push(&Transition {
                features: &done.features,
                action: &done.action,
                reward: done.reward as f32,
                next_features: seen.next_features,
                discount: if seen.terminated { 0.0 } else { done.discount as f32 },
            });
            self.spare.push(done);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// (first feature, reward, next feature, discount) of what three steps of reward 1, 2, 4 complete at γ = ½
    fn record(n: usize, terminated: bool) -> Vec<(f32, f32, f32, f32)> {
        let mut steps = NStep::new(n, 0.5, 1);
        let mut found = Vec::new();
        for (at, reward) in [1.0, 2.0, 4.0].into_iter().enumerate() {
            let ended = at == 2;
            let (features, next_features) = (&[at as f32], &[at as f32 + 1.0]);
            let terminated = ended && terminated;
            let seen = Seen { features, action: &[at], reward, next_features, terminated, ended };
            steps.record(0, &seen, |t| {
                assert_eq!(t.action, [t.features[0] as usize]);
                found.push((t.features[0], t.reward, t.next_features[0], t.discount));
            });
        }
        found
    }

    #[test]
    fn rewards_are_summed_until_n_steps_or_the_end() {
        assert_eq!(record(1, true), [(0.0, 1.0, 1.0, 0.5), (1.0, 2.0, 2.0, 0.5), (2.0, 4.0, 3.0, 0.0)]);
        let expected = [(0.0, 2.0, 2.0, 0.25), (1.0, 4.0, 3.0, 0.0), (2.0, 4.0, 3.0, 0.0)];
        assert_eq!(record(2, true), expected);
        // Time was up: what follows counts, by the steps that lie before it
        let expected = [(0.0, 2.0, 2.0, 0.25), (1.0, 4.0, 3.0, 0.25), (2.0, 4.0, 3.0, 0.5)];
        assert_eq!(record(2, false), expected);
        // Longer than the episode: Monte Carlo
        assert_eq!(record(9, true), [(0.0, 3.0, 3.0, 0.0), (1.0, 4.0, 3.0, 0.0), (2.0, 4.0, 3.0, 0.0)]);
    }
}
