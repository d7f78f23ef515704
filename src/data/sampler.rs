//! The order in which an epoch visits the examples: a pure function of seed and epoch, so that a resumed run needs only
//! its position.
//!
//! The order for `random` is this program's own and cannot equal torch's. It comes from xoshiro256++ (whose output is
//! fixed by its definition, not by the version of a crate), seeded with SHA-256 of seed and epoch, through a
//! Fisher–Yates shuffle with unbiased indices written here for the same reason.

use rand::rngs::Xoshiro256PlusPlus;
use rand::{Rng, SeedableRng};
use sha2::{Digest, Sha256};

/// `train_sampling_strategy`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Strategy {
    /// A new permutation each epoch
    Random,
    /// The order of the rows
    Sequential,
    /// Random, with examples of like length near each other (transformers' rule: megabatches sorted by falling length)
    GroupByLength,
}

/// Orders of epochs for a fixed set of examples
#[derive(Debug, Clone)]
pub struct Sampler {
    strategy: Strategy,
    lengths: Vec<usize>,
    seed: u64,
    batch: usize,
}

impl Sampler {
    /// `lengths` has one entry for each example (only `GroupByLength` looks at the values); `batch` is the batch size
    pub fn new(strategy: Strategy, lengths: &[usize], seed: u64, batch: usize) -> Self {
        Self { strategy, lengths: lengths.to_vec(), seed, batch: batch.max(1) }
    }

    /// Number of examples in an epoch
    pub fn len(&self) -> usize {
        self.lengths.len()
    }

    /// Whether there is no example
    pub fn is_empty(&self) -> bool {
        self.lengths.is_empty()
    }

    /// The indices of epoch `epoch` in their order
    pub fn epoch(&self, epoch: u64) -> Vec<usize> {
        let mut order: Vec<usize> = (0..self.lengths.len()).collect();
        if self.strategy != Strategy::Sequential {
            shuffle(&mut order, &mut generator(self.seed, epoch));
        }
        if self.strategy == Strategy::GroupByLength {
            self.group(&mut order);
        }
        order
    }

    fn group(&self, order: &mut [usize]) {
        const MAX_BATCHES: usize = 50;
        let batches = (order.len() / (self.batch * 4)).clamp(1, MAX_BATCHES);
        let chunk = batches * self.batch;
        for megabatch in order.chunks_mut(chunk) {
            megabatch.sort_by_key(|&index| std::cmp::Reverse(self.lengths[index]));
        }
        // The longest example first, so that a run that does not fit in memory fails at once
        let heads = (0..order.len()).step_by(chunk);
        let longest = heads.rev().max_by_key(|&head| self.lengths[order[head]]);
        if let Some(longest) = longest {
            order.swap(0, longest);
        }
    }
}

fn generator(seed: u64, epoch: u64) -> Xoshiro256PlusPlus {
    let hash = Sha256::new().chain_update("sampler").chain_update(seed.to_le_bytes()).chain_update(epoch.to_le_bytes());
    Xoshiro256PlusPlus::from_seed(hash.finalize().into())
}

fn shuffle(order: &mut [usize], rng: &mut Xoshiro256PlusPlus) {
    for last in (1..order.len()).rev() {
        order.swap(last, below(rng, last as u64 + 1) as usize);
    }
}

/// Uniform in `0..bound` without bias (Lemire 2019)
fn below(rng: &mut Xoshiro256PlusPlus, bound: u64) -> u64 {
    let reject_below = bound.wrapping_neg() % bound;
    loop {
        let product = u128::from(rng.next_u64()) * u128::from(bound);
        if product as u64 >= reject_below {
            return (product >> 64) as u64;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sorted(mut order: Vec<usize>) -> Vec<usize> {
        order.sort_unstable();
        order
    }

    #[test]
    fn orders_are_fixed_permutations_of_seed_and_epoch() {
        let sampler = Sampler::new(Strategy::Random, &[1; 10], 42, 2);
        // The values are part of the promise that a run repeats across versions
        assert_eq!(sampler.epoch(0), [1, 0, 5, 3, 6, 2, 8, 7, 4, 9]);
        assert_eq!(sampler.epoch(3), sampler.epoch(3));
        assert_ne!(sampler.epoch(0), sampler.epoch(1));
        assert_ne!(sampler.epoch(0), Sampler::new(Strategy::Random, &[1; 10], 43, 2).epoch(0));
        assert_eq!(sorted(sampler.epoch(7)), (0..10).collect::<Vec<_>>());
        assert_eq!(Sampler::new(Strategy::Sequential, &[1; 4], 1, 2).epoch(5), [0, 1, 2, 3]);
    }

    #[test]
    fn every_position_is_reached_evenly() {
        let sampler = Sampler::new(Strategy::Random, &[1; 4], 7, 1);
        let mut counts = [[0_usize; 4]; 4];
        for epoch in 0..4000 {
            for (position, index) in sampler.epoch(epoch).into_iter().enumerate() {
                counts[position][index] += 1;
            }
        }
        assert!(counts.iter().flatten().all(|count| (900..1100).contains(count)), "{counts:?}");
    }

    #[test]
    fn grouping_sorts_within_megabatches_and_leads_with_the_longest() {
        let lengths: Vec<usize> = (0..64).map(|index| (index * 37) % 61).collect();
        let sampler = Sampler::new(Strategy::GroupByLength, &lengths, 0, 2);
        let order = sampler.epoch(0);
        assert_eq!(lengths[order[0]], *lengths.iter().max().unwrap());
        // 64 / (2 · 4) = 8 batches of 2 to a megabatch; the heads may have been swapped, the rest falls
        for megabatch in order.chunks(16) {
            assert!(megabatch[1..].is_sorted_by_key(|&index| std::cmp::Reverse(lengths[index])));
        }
        assert_eq!(sorted(order), (0..64).collect::<Vec<_>>());
    }

    #[test]
    fn an_epoch_of_nothing_is_empty() {
        assert!(Sampler::new(Strategy::GroupByLength, &[], 0, 4).epoch(0).is_empty());
    }
}
