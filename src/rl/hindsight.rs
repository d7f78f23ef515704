//! Hindsight experience replay: what was achieved is taken for what was wanted.
//!
//! Andrychowicz et al. 2017, <https://arxiv.org/abs/1707.01495>, algorithm 1 with the strategy `future`.

use serde::{Deserialize, Serialize};

use super::env::Goals;
use super::env::rng::Pcg64;
use super::n_step::Seen;
use super::replay::{ActionNumber, Transition};
use super::state::State;
use crate::Result;

/// A step of the running episode
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Step<A> {
    features: Vec<f32>,
    action: Vec<A>,
    reward: f64,
    next_features: Vec<f32>,
    terminated: bool,
}

/// Keeps running episodes, and when one ends hands over its transitions, each also with goals that were achieved at or
/// after it
#[derive(Debug, Clone)]
pub struct Hindsight<A> {
    goals_each: usize,
    gamma: f64,
    episodes: Vec<Vec<Step<A>>>,
    /// A pair of relabelled observations
    relabelled: [Vec<f32>; 2],
}

impl<A: ActionNumber> Hindsight<A> {
    /// `goals_each` further goals for every transition of `num_envs` environments
    pub fn new(goals_each: usize, gamma: f64, num_envs: usize) -> Self {
        Self { goals_each, gamma, episodes: vec![Vec::new(); num_envs], relabelled: [Vec::new(), Vec::new()] }
    }

    /// Takes the running episodes out, or puts them back
    pub(super) fn persist(&mut self, state: &mut State) -> Result<()> {
        state.value("running", &mut self.episodes)
    }

    /// Takes a step of an environment in; hands over its episode where it ended
    pub fn record(
        &mut self,
        env: usize,
        seen: &Seen<'_, A>,
        goals: &dyn Goals,
        rng: &mut Pcg64,
        mut push: impl FnMut(&Transition<'_, A>),
    ) {
        let episode = &mut self.episodes[env];
        episode.push(Step {
            features: seen.features.to_vec(),
            action: seen.action.to_vec(),
            reward: seen.reward,
            next_features: seen.next_features.to_vec(),
            terminated: seen.terminated,
        });
        if !seen.ended {
            return;
        }
        let discount = |terminated: bool| if terminated { 0.0 } else { self.gamma as f32 };
        let [features, next_features] = &mut self.relabelled;
        for (at, step) in episode.iter().enumerate() {
            push(&Transition {
                features: &step.features,
                action: &step.action,
                reward: step.reward as f32,
                next_features: &step.next_features,
                discount: discount(step.terminated),
            });
            for _ in 0..self.goals_each {
                let later = rng.integers(at as i64, episode.len() as i64) as usize;
                let goal = &episode[later].next_features[goals.achieved()];
                features.clone_from(&step.features);
                next_features.clone_from(&step.next_features);
                features[goals.desired()].copy_from_slice(goal);
                next_features[goals.desired()].copy_from_slice(goal);
                let (reward, terminated) = goals.judge(&step.next_features[goals.achieved()], goal);
                push(&Transition {
                    features,
                    action: &step.action,
                    reward: reward as f32,
                    next_features,
                    discount: discount(terminated),
                });
            }
        }
        episode.clear();
    }
}

#[cfg(test)]
mod tests {
    use std::ops::Range;

    use super::*;

    /// One number that should become another
    struct Number;

    impl Goals for Number {
        fn achieved(&self) -> Range<usize> {
            0..1
        }

        fn desired(&self) -> Range<usize> {
            1..2
        }

        fn judge(&self, achieved: &[f32], desired: &[f32]) -> (f64, bool) {
            if achieved == desired { (0.0, true) } else { (-1.0, false) }
        }
    }

    #[test]
    fn goals_are_what_was_achieved_later() {
        let mut hindsight = Hindsight::new(50, 0.9, 1);
        let mut rng = Pcg64::new(0);
        let mut found = Vec::new();
        for at in 0..3 {
            let (features, next_features) = ([at as f32, 9.0], [at as f32 + 1.0, 9.0]);
            let (features, next_features) = (&features[..], &next_features[..]);
            let seen = Seen { features, action: &[at], reward: -1.0, next_features, terminated: false, ended: at == 2 };
            hindsight.record(0, &seen, &Number, &mut rng, |t| {
                found.push((t.features.to_vec(), t.action[0], t.reward, t.next_features.to_vec(), t.discount));
            });
            assert_eq!(found.len(), if at == 2 { 3 * 51 } else { 0 });
        }
        for (features, at, reward, next, discount) in &found {
            let goal = features[1];
            assert_eq!((features[0], next[0], next[1]), (*at as f32, *at as f32 + 1.0, goal));
            // The goal of the run, or what this step or one after it reached
            assert!(goal == 9.0 || (goal > features[0] && goal <= 3.0));
            let reached = next[0] == goal;
            assert_eq!((*reward, *discount), if reached { (0.0, 0.0) } else { (-1.0, 0.9) });
        }
        // The goals of the first step are the three later achievements, about equally often
        let of_first = |goal: f32| found.iter().filter(|t| t.1 == 0 && t.0[1] == goal).count();
        assert!([1.0, 2.0, 3.0].iter().all(|goal| of_first(*goal) >= 8), "{} {}", of_first(1.0), of_first(3.0));
    }
}
