//! Which rows make up which optimiser step: pure arithmetic, so that a resumed run needs only its step.

use crate::config::SamplingStrategy;
use crate::config::TrainKeys;
use crate::data::{Sampler, Strategy};

/// Steps, epochs and micro-batches of a run, by the Hugging Face Trainer's rules
#[derive(Debug)]
pub struct Plan {
    sampler: Sampler,
    batch: usize,
    accumulation: usize,
    /// Optimiser steps of the run
    pub total_steps: u64,
    /// The order of the epoch asked for last
    order: Option<(u64, Vec<usize>)>,
}

/// The rows of one optimiser step
#[derive(Debug, Clone, PartialEq)]
pub struct StepRows {
    /// Row indices, one list for each forward pass
    pub micro_batches: Vec<Vec<usize>>,
    /// Epochs done after this step, as a fraction
    pub epoch_after: f64,
    /// Whether this step is the last one of its epoch
    pub ends_epoch: bool,
}

impl Plan {
    /// For training rows of these lengths
    pub fn new(lengths: &[usize], keys: &TrainKeys) -> Self {
        let strategy = match keys.train_sampling_strategy {
            SamplingStrategy::Random => Strategy::Random,
            SamplingStrategy::Sequential => Strategy::Sequential,
            SamplingStrategy::GroupByLength => Strategy::GroupByLength,
        };
        let batch = keys.per_device_train_batch_size;
        let accumulation = keys.gradient_accumulation_steps;
        let sampler = Sampler::new(strategy, lengths, keys.seed, batch * accumulation);
        let mut plan = Self { sampler, batch, accumulation, total_steps: 0, order: None };
        plan.total_steps = match keys.step_limit() {
            Some(steps) => steps as u64,
            None => (keys.num_train_epochs * plan.steps_per_epoch() as f64).ceil() as u64,
        };
        plan
    }

    /// For passes that are numbered through an epoch and made up by the recipe: each row is one pass, in order
    pub fn of_passes(per_epoch: usize, keys: &TrainKeys) -> Self {
        let keys = TrainKeys {
            train_sampling_strategy: SamplingStrategy::Sequential,
            per_device_train_batch_size: 1,
            ..keys.clone()
        };
        Self::new(&vec![1; per_epoch], &keys)
    }

    fn micro_batches_per_epoch(&self) -> usize {
        self.sampler.len().div_ceil(self.batch)
    }

    /// Optimiser steps of one pass over the rows; the last one may have fewer micro-batches
    pub fn steps_per_epoch(&self) -> usize {
        self.micro_batches_per_epoch().div_ceil(self.accumulation)
    }

    /// The rows of optimiser step `step`, counted from 0
    pub fn step(&mut self, step: u64) -> StepRows {
        let per_epoch = self.steps_per_epoch() as u64;
        let (epoch, within) = (step / per_epoch, (step % per_epoch) as usize);
        if self.order.as_ref().is_none_or(|(known, _)| *known != epoch) {
            self.order = Some((epoch, self.sampler.epoch(epoch)));
        }
        let order = self.order.as_ref().map_or(&[][..], |(_, order)| order);
        let micro_batches: Vec<Vec<usize>> = order
            .chunks(self.batch)
            .skip(within * self.accumulation)
            .take(self.accumulation)
            .map(<[_]>::to_vec)
            .collect();
        let done = within * self.accumulation + micro_batches.len();
        StepRows {
            epoch_after: epoch as f64 + done as f64 / self.micro_batches_per_epoch() as f64,
            ends_epoch: within + 1 == per_epoch as usize,
            micro_batches,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Values;

    fn plan(rows: usize, text: &str) -> Plan {
        let keys = TrainKeys::from_values(&Values::from_yaml(text, "test").unwrap()).unwrap();
        Plan::new(&vec![1; rows], &keys)
    }

    #[test]
    fn an_epoch_visits_each_row_once_and_ends_with_a_smaller_step() {
        let mut plan =
            plan(11, "per_device_train_batch_size: 2\ngradient_accumulation_steps: 4\nnum_train_epochs: 1.5");
        // 6 micro-batches: a step of 4 and a step of 2
        assert_eq!((plan.steps_per_epoch(), plan.total_steps), (2, 3));
        let (first, second) = (plan.step(0), plan.step(1));
        assert_eq!((first.micro_batches.len(), second.micro_batches.len()), (4, 2));
        assert_eq!((first.ends_epoch, second.ends_epoch), (false, true));
        assert_eq!((first.epoch_after, second.epoch_after), (4.0 / 6.0, 1.0));
        let mut rows = [first.micro_batches.concat(), second.micro_batches.concat()].concat();
        rows.sort_unstable();
        assert_eq!(rows, (0..11).collect::<Vec<_>>());
        assert_eq!(second.micro_batches[1].len(), 1);
    }

    #[test]
    fn a_step_is_the_same_whenever_it_is_asked_for() {
        let text = "per_device_train_batch_size: 3";
        let in_order: Vec<_> = {
            let mut plan = plan(10, text);
            (0..9).map(|step| plan.step(step)).collect()
        };
        let mut plan = plan(10, text);
        for step in [8, 0, 5, 4, 3] {
            assert_eq!(plan.step(step), in_order[step as usize]);
        }
        assert_ne!(in_order[0].micro_batches, in_order[4].micro_batches, "epochs have orders of their own");
    }
}
