//! Replay: the last transitions, drawn from uniformly.

use super::env::rng::Pcg64;

/// A ring of transitions (Lin 1992)
#[derive(Debug, Clone)]
pub struct Replay {
    width: usize,
    capacity: usize,
    next: usize,
    len: usize,
    features: Vec<f32>,
    next_features: Vec<f32>,
    actions: Vec<u32>,
    rewards: Vec<f32>,
    terminated: Vec<bool>,
}

/// Transitions drawn together
#[derive(Debug, Clone)]
pub struct Sample {
    /// What was seen, (N · width,)
    pub features: Vec<f32>,
    /// What came of it, (N · width,)
    pub next_features: Vec<f32>,
    /// What was done
    pub actions: Vec<usize>,
    /// What it brought
    pub rewards: Vec<f32>,
    /// γ, or 0 where the task was over
    pub discounts: Vec<f32>,
}

impl Sample {
    /// Room for so many
    pub fn new(size: usize, width: usize) -> Self {
        Self {
            features: vec![0.0; size * width],
            next_features: vec![0.0; size * width],
            actions: vec![0; size],
            rewards: vec![0.0; size],
            discounts: vec![0.0; size],
        }
    }
}

impl Replay {
    /// Room for `capacity` transitions; memory is taken as they come
    pub fn new(capacity: usize, width: usize) -> Self {
        Self {
            width,
            capacity,
            next: 0,
            len: 0,
            features: Vec::new(),
            next_features: Vec::new(),
            actions: Vec::new(),
            rewards: Vec::new(),
            terminated: Vec::new(),
        }
    }

    /// How many there are
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Adds one, in place of the oldest where there is no room. Truncation is no end: what came of it has a value
    pub fn push(&mut self, features: &[f32], action: u32, reward: f32, next_features: &[f32], terminated: bool) {
        if self.len < self.capacity {
            self.features.extend_from_slice(features);
            self.next_features.extend_from_slice(next_features);
            self.actions.push(action);
            self.rewards.push(reward);
            self.terminated.push(terminated);
            self.len += 1;
        } else {
            let row = self.next * self.width..(self.next + 1) * self.width;
            self.features[row.clone()].copy_from_slice(features);
            self.next_features[row].copy_from_slice(next_features);
            self.actions[self.next] = action;
            self.rewards[self.next] = reward;
            self.terminated[self.next] = terminated;
        }
        self.next = (self.next + 1) % self.capacity;
    }

    /// Draws with replacement
    ///
    /// # Panics
    /// If there is nothing to draw from
    pub fn sample(&self, gamma: f64, rng: &mut Pcg64, sample: &mut Sample) {
        let width = self.width;
        for to in 0..sample.actions.len() {
            let from = rng.integers(0, self.len as i64) as usize;
            let (rows, row) = (to * width..(to + 1) * width, from * width..(from + 1) * width);
            sample.features[rows.clone()].copy_from_slice(&self.features[row.clone()]);
            sample.next_features[rows].copy_from_slice(&self.next_features[row]);
            sample.actions[to] = self.actions[from] as usize;
            sample.rewards[to] = self.rewards[from];
            sample.discounts[to] = if self.terminated[from] { 0.0 } else { gamma as f32 };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_make_room_and_ends_have_no_discount() {
        let mut replay = Replay::new(3, 1);
        for i in 0..5 {
            replay.push(&[i as f32], i, i as f32, &[i as f32 + 1.0], i == 4);
        }
        let mut sample = Sample::new(200, 1);
        replay.sample(0.9, &mut Pcg64::new(0), &mut sample);
        assert_eq!(replay.len(), 3);
        for at in 0..200 {
            let action = sample.actions[at];
            assert!((2..5).contains(&action));
            assert_eq!((sample.features[at], sample.next_features[at]), (action as f32, action as f32 + 1.0));
            assert_eq!(sample.discounts[at], if action == 4 { 0.0 } else { 0.9 });
        }
    }
}
