//! Priorities of transitions: a tree of sums, and draws in proportion to it.
//!
//! Schaul et al. 2016, "Prioritized Experience Replay", <https://arxiv.org/abs/1511.05952>.

use super::env::rng::Pcg64;
use super::state::State;
use crate::Result;

/// Weights of numbered leaves, each inner node the sum of its two children: a change and a draw take log₂ n steps
#[derive(Debug, Clone)]
pub struct SumTree {
    /// A power of two
    leaves: usize,
    /// The root stands at 1, the children of `i` at 2i and 2i + 1
    nodes: Vec<f64>,
}

impl SumTree {
    /// So many leaves, all of weight 0
    pub fn new(leaves: usize) -> Self {
        let leaves = leaves.next_power_of_two();
        Self { leaves, nodes: vec![0.0; 2 * leaves] }
    }

    /// Sum of all weights
    pub fn total(&self) -> f64 {
        self.nodes[1]
    }

    /// Weight of a leaf
    pub fn weight(&self, leaf: usize) -> f64 {
        self.nodes[self.leaves + leaf]
    }

    /// Changes the weight of a leaf. Sums are added up anew, so that rounding does not pile up
    pub fn set(&mut self, leaf: usize, weight: f64) {
        let mut at = self.leaves + leaf;
        self.nodes[at] = weight;
        while at > 1 {
            at /= 2;
            self.nodes[at] = self.nodes[2 * at] + self.nodes[2 * at + 1];
        }
    }

    /// The leaf within which a mass from `[0, total)` falls when the weights are laid side by side
    pub fn find(&self, mass: f64) -> usize {
        let (mut at, mut mass) = (1, mass);
        while at < self.leaves {
            at *= 2;
            // Rounding may leave a mass just beyond the left side where the right one is empty
            if mass >= self.nodes[at] && self.nodes[at + 1] > 0.0 {
                mass -= self.nodes[at];
                at += 1;
            }
        }
        at - self.leaves
    }
}

/// Settings of prioritised replay
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PriorityOptions {
    /// α: 0 draws uniformly, 1 in proportion to the errors
    pub alpha: f64,
    /// β at the start of the run, 1 at its end: how far the weights undo the bias of the draws
    pub beta0: f64,
    /// Added to every error, so that nothing is never drawn again
    pub epsilon: f64,
}

impl Default for PriorityOptions {
    fn default() -> Self {
        Self { alpha: 0.6, beta0: 0.4, epsilon: 1e-6 }
    }
}

/// Priorities (|error| + ε)^α of the slots of a replay
#[derive(Debug, Clone)]
pub struct Priorities {
    options: PriorityOptions,
    tree: SumTree,
    /// That of new transitions: they are drawn at least about as often as the most surprising one
    largest: f64,
}

impl Priorities {
    /// For so many slots
    pub fn new(slots: usize, options: PriorityOptions) -> Self {
        Self { options, tree: SumTree::new(slots), largest: 1.0 }
    }

    /// A slot was filled anew
    pub fn added(&mut self, slot: usize) {
        self.tree.set(slot, self.largest);
    }

    /// Draws one slot from each of as many equal shares of the sum, with importance weights (n P)^{-β}, the largest 1
    pub fn sample(&self, filled: usize, progress: f64, rng: &mut Pcg64, slots: &mut [usize], weights: &mut [f32]) {
        let beta = self.options.beta0 + (1.0 - self.options.beta0) * progress.min(1.0);
        let total = self.tree.total();
        let share = total / slots.len() as f64;
        let mut largest = 0.0_f32;
        for (at, (slot, weight)) in slots.iter_mut().zip(weights.iter_mut()).enumerate() {
            *slot = self.tree.find((at as f64 + rng.random()) * share);
            *weight = (filled as f64 * self.tree.weight(*slot) / total).powf(-beta) as f32;
            largest = largest.max(*weight);
        }
        for weight in weights {
            *weight /= largest;
        }
    }

    /// Takes the priorities of the filled slots out, or puts them back
    pub(super) fn persist(&mut self, filled: usize, state: &mut State) -> Result<()> {
        let mut weights: Vec<f64> = (0..filled).map(|slot| self.tree.weight(slot)).collect();
        state.value("priorities", &mut weights)?;
        state.value("largest_priority", &mut self.largest)?;
        weights.iter().take(filled).enumerate().for_each(|(slot, weight)| self.tree.set(slot, *weight));
        Ok(())
    }

    /// Takes in the errors of what was drawn
    pub fn update(&mut self, slots: &[usize], errors: &[f32]) {
        for (slot, error) in slots.iter().zip(errors) {
            let priority = (f64::from(error.abs()) + self.options.epsilon).powf(self.options.alpha);
            self.largest = self.largest.max(priority);
            self.tree.set(*slot, priority);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leaves_are_found_where_their_weights_lie() {
        let mut tree = SumTree::new(5);
        for (leaf, weight) in [(0, 1.0), (1, 0.0), (2, 2.0), (4, 0.5)] {
            tree.set(leaf, weight);
        }
        assert_eq!(tree.total(), 3.5);
        for (mass, leaf) in [(0.0, 0), (0.99, 0), (1.0, 2), (2.99, 2), (3.0, 4), (3.49, 4)] {
            assert_eq!(tree.find(mass), leaf, "{mass}");
        }
        // Rounding beyond the end still finds a leaf that has weight
        assert_eq!(tree.find(3.5), 4);
        tree.set(2, 0.0);
        assert_eq!((tree.total(), tree.find(1.2)), (1.5, 4));
    }

    #[test]
    fn draws_follow_the_priorities_and_weights_undo_them() {
        let options = PriorityOptions { alpha: 0.5, beta0: 1.0, epsilon: 0.0 };
        let mut priorities = Priorities::new(4, options);
        (0..4).for_each(|slot| priorities.added(slot));
        priorities.update(&[0, 1, 2, 3], &[1.0, -4.0, 9.0, 16.0]);
        // √1, √4, √9, √16 of 10
        let probability = |slot: usize| (slot as f64 + 1.0) / 10.0;
        let (mut rng, mut counts) = (Pcg64::new(0), [0.0; 4]);
        let (mut slots, mut weights) = ([0; 5], [0.0; 5]);
        for _ in 0..20_000 {
            priorities.sample(4, 0.0, &mut rng, &mut slots, &mut weights);
            assert_eq!(weights.iter().copied().fold(0.0, f32::max), 1.0);
            for (slot, weight) in slots.iter().zip(weights) {
                counts[*slot] += 1.0;
                // β = 1: draws and weights together count every slot the same
                let (product, first) = (f64::from(weight) * probability(*slot), f64::from(weights[0]));
                assert!((product - first * probability(slots[0])).abs() < 1e-6, "{slots:?} {weights:?}");
            }
        }
        for (slot, count) in counts.iter().enumerate() {
            assert!((count / 100_000.0 - probability(slot)).abs() < 5e-3, "{counts:?}");
        }
    }
}
