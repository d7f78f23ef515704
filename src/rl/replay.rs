//! Replay: the last transitions, drawn from uniformly or by priority.

use std::fmt::Debug;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::env::rng::Pcg64;
use super::priority::{Priorities, PriorityOptions};
use super::state::State;
use crate::{Error, Result};

/// A number of an action: an index, or one of a vector's
pub trait ActionNumber: Copy + Default + Debug + Serialize + DeserializeOwned {
    /// As it stands in a checkpoint
    fn to_f32(self) -> f32;

    /// From there
    fn from_f32(number: f32) -> Self;
}

impl ActionNumber for f32 {
    fn to_f32(self) -> f32 {
        self
    }

    fn from_f32(number: f32) -> Self {
        number
    }
}

impl ActionNumber for usize {
    fn to_f32(self) -> f32 {
        self as f32
    }

    fn from_f32(number: f32) -> Self {
        number as Self
    }
}

/// One transition: what was seen and done, and what came of it
#[derive(Debug, Clone, Copy)]
pub struct Transition<'t, A> {
    /// What was seen
    pub features: &'t [f32],
    /// What was done: an index, or the numbers of a vector
    pub action: &'t [A],
    /// What it brought, over one step or several
    pub reward: f32,
    /// What was seen then
    pub next_features: &'t [f32],
    /// How much what follows counts: γⁿ after n steps, 0 where the task was over. Truncation is no end
    pub discount: f32,
}

/// A ring of transitions (Lin 1992)
#[derive(Debug, Clone)]
pub struct Replay<A> {
    width: usize,
    action_width: usize,
    capacity: usize,
    next: usize,
    len: usize,
    features: Vec<f32>,
    next_features: Vec<f32>,
    actions: Vec<A>,
    rewards: Vec<f32>,
    discounts: Vec<f32>,
    priorities: Option<Priorities>,
}

/// Transitions drawn together
#[derive(Debug, Clone)]
pub struct Sample<A> {
    /// What was seen, (N · width,)
    pub features: Vec<f32>,
    /// What came of it, (N · width,)
    pub next_features: Vec<f32>,
    /// What was done, (N · action width,)
    pub actions: Vec<A>,
    /// What it brought
    pub rewards: Vec<f32>,
    /// How much what follows counts
    pub discounts: Vec<f32>,
    /// Importance weights; 1 where nothing has priority
    pub weights: Vec<f32>,
    slots: Vec<usize>,
}

impl<A: ActionNumber> Sample<A> {
    /// Room for so many
    pub fn new(size: usize, width: usize, action_width: usize) -> Self {
        Self {
            features: vec![0.0; size * width],
            next_features: vec![0.0; size * width],
            actions: vec![A::default(); size * action_width],
            rewards: vec![0.0; size],
            discounts: vec![0.0; size],
            weights: vec![1.0; size],
            slots: vec![0; size],
        }
    }

    /// How many there are
    pub fn len(&self) -> usize {
        self.rewards.len()
    }

    /// Whether there are none
    pub fn is_empty(&self) -> bool {
        self.rewards.is_empty()
    }
}

/// Copies row `from` of a matrix to row `to` of another
fn copy_row<T: Copy>(width: usize, source: &[T], from: usize, target: &mut [T], to: usize) {
    target[to * width..(to + 1) * width].copy_from_slice(&source[from * width..(from + 1) * width]);
}

impl<A: ActionNumber> Replay<A> {
    /// Room for `capacity` transitions; memory is taken as they come
    pub fn new(capacity: usize, width: usize, action_width: usize) -> Self {
        Self {
            width,
            action_width,
            capacity,
            next: 0,
            len: 0,
            features: Vec::new(),
            next_features: Vec::new(),
            actions: Vec::new(),
            rewards: Vec::new(),
            discounts: Vec::new(),
            priorities: None,
        }
    }

    /// The same, drawn from by priority
    #[must_use]
    pub fn prioritized(self, options: PriorityOptions) -> Self {
        Self { priorities: Some(Priorities::new(self.capacity, options)), ..self }
    }

    /// How many there are
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Adds one, in place of the oldest where there is no room
    pub fn push(&mut self, transition: &Transition<'_, A>) {
        let slot = self.next;
        if self.len < self.capacity {
            self.features.extend_from_slice(transition.features);
            self.next_features.extend_from_slice(transition.next_features);
            self.actions.extend_from_slice(transition.action);
            self.rewards.push(transition.reward);
            self.discounts.push(transition.discount);
            self.len += 1;
        } else {
            copy_row(self.width, transition.features, 0, &mut self.features, slot);
            copy_row(self.width, transition.next_features, 0, &mut self.next_features, slot);
            copy_row(self.action_width, transition.action, 0, &mut self.actions, slot);
            self.rewards[slot] = transition.reward;
            self.discounts[slot] = transition.discount;
        }
        self.next = (slot + 1) % self.capacity;
        if let Some(priorities) = &mut self.priorities {
            priorities.added(slot);
        }
    }

    /// Draws with replacement; `progress` is the share of the run that is over, with which importance weights grow
    ///
    /// # Panics
    /// If there is nothing to draw from
    pub fn sample(&self, progress: f64, rng: &mut Pcg64, sample: &mut Sample<A>) {
        match &self.priorities {
            Some(priorities) => {
                priorities.sample(self.len, progress, rng, &mut sample.slots, &mut sample.weights);
            }
            None => sample.slots.fill_with(|| rng.integers(0, self.len as i64) as usize),
        }
        for to in 0..sample.len() {
            let from = sample.slots[to];
            copy_row(self.width, &self.features, from, &mut sample.features, to);
            copy_row(self.width, &self.next_features, from, &mut sample.next_features, to);
            copy_row(self.action_width, &self.actions, from, &mut sample.actions, to);
            sample.rewards[to] = self.rewards[from];
            sample.discounts[to] = self.discounts[from];
        }
    }

    /// Takes all transitions out, or puts them back
    pub(super) fn persist(&mut self, state: &mut State) -> Result<()> {
        state.value("len", &mut self.len)?;
        state.value("next", &mut self.next)?;
        if self.len > self.capacity || self.next >= self.capacity {
            let message = format!("`replay` has {} transitions, and `buffer_size` is {}", self.len, self.capacity);
            return Err(Error::usage(message).hint("resume with the config of the run"));
        }
        self.features.resize(self.len * self.width, 0.0);
        self.next_features.resize(self.len * self.width, 0.0);
        self.rewards.resize(self.len, 0.0);
        self.discounts.resize(self.len, 0.0);
        self.actions.resize(self.len * self.action_width, A::default());
        state.tensor("features", &mut self.features)?;
        state.tensor("next_features", &mut self.next_features)?;
        state.tensor("rewards", &mut self.rewards)?;
        state.tensor("discounts", &mut self.discounts)?;
        let mut actions: Vec<f32> = self.actions.iter().map(|action| action.to_f32()).collect();
        state.tensor("actions", &mut actions)?;
        self.actions.iter_mut().zip(actions).for_each(|(action, number)| *action = A::from_f32(number));
        self.priorities.as_mut().map_or(Ok(()), |priorities| priorities.persist(self.len, state))
    }

    /// Takes in the errors of what was drawn, for the next priorities
    pub fn learned(&mut self, sample: &Sample<A>, errors: &[f32]) {
        if let Some(priorities) = &mut self.priorities {
            priorities.update(&sample.slots, errors);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn push(replay: &mut Replay<usize>, i: usize, discount: f32) {
        let (features, next_features) = (&[i as f32], &[i as f32 + 1.0]);
        replay.push(&Transition { features, action: &[i], reward: i as f32, next_features, discount });
    }

    #[test]
    fn the_oldest_make_room() {
        let mut replay = Replay::new(3, 1, 1);
        (0..5).for_each(|i| push(&mut replay, i, if i == 4 { 0.0 } else { 0.9 }));
        let mut sample = Sample::new(200, 1, 1);
        replay.sample(0.0, &mut Pcg64::new(0), &mut sample);
        assert_eq!(replay.len(), 3);
        for at in 0..200 {
            let action = sample.actions[at];
            assert!((2..5).contains(&action));
            assert_eq!((sample.features[at], sample.next_features[at]), (action as f32, action as f32 + 1.0));
            assert_eq!(sample.discounts[at], if action == 4 { 0.0 } else { 0.9 });
            assert_eq!(sample.weights[at], 1.0);
        }
    }

    #[test]
    fn what_was_surprising_is_drawn_more_often() {
        let mut replay = Replay::new(8, 1, 1).prioritized(PriorityOptions { alpha: 1.0, ..PriorityOptions::default() });
        (0..8).for_each(|i| push(&mut replay, i, 0.9));
        let mut sample = Sample::new(800, 1, 1);
        let mut rng = Pcg64::new(0);
        replay.sample(0.0, &mut rng, &mut sample);
        // One is 100 times as surprising as each of the seven others: 1 of 1.07
        let errors: Vec<_> = sample.actions.iter().map(|i| if *i == 5 { 1.0 } else { 0.01 }).collect();
        replay.learned(&sample, &errors);
        replay.sample(0.0, &mut rng, &mut sample);
        let fives = sample.actions.iter().filter(|i| **i == 5).count();
        assert!((740..=755).contains(&fives), "{fives} of 800");
        let heavy = sample.actions.iter().zip(&sample.weights).filter(|(i, weight)| (**i == 5) == (**weight < 1.0));
        assert_eq!(heavy.count(), 800);
    }
}
