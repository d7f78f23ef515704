//! Gradients of weights, summed in place outside candle's graph.
//!
//! candle adds a fresh tensor for every edge of its graph, weights included. Operations that hold a [`Weight`] write
//! their share straight into one buffer a weight instead, which lives as long as the model.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use candle_core::Tensor;

use super::kernels::matmul::Precision;

#[derive(Debug, Default)]
struct Sum {
    values: Vec<f32>,
    /// Whether anything was added since the last reset; before that `values` are stale
    begun: bool,
}

/// One flat gradient for each weight, in a fixed order
#[derive(Debug, Default)]
pub struct GradientSums(Vec<Arc<Mutex<Sum>>>);

impl GradientSums {
    /// For so many weights, nothing added yet
    pub fn new(weights: usize) -> Self {
        Self((0..weights).map(|_| Arc::default()).collect())
    }

    /// The same buffers, those of all parts in a row: what is added to a part is added here
    pub fn joined(parts: &[&Self]) -> Self {
        Self(parts.iter().flat_map(|part| part.0.iter().cloned()).collect())
    }

    fn lock(&self, i: usize) -> MutexGuard<'_, Sum> {
        self.0[i].lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Hands out the buffer of weight `i` with `n` elements; `add(buffer, accumulate)` overwrites it unless `accumulate`
    pub fn add(&self, i: usize, n: usize, add: impl FnOnce(&mut [f32], bool)) {
        let mut sum = self.lock(i);
        if sum.values.len() != n {
            sum.values = vec![0.0; n];
        }
        let accumulate = std::mem::replace(&mut sum.begun, true);
        add(&mut sum.values, accumulate);
    }

    /// [`Self::add`] for two weights at once
    pub fn add_pair(&self, [i, j]: [usize; 2], [n, m]: [usize; 2], add: impl FnOnce(&mut [f32], &mut [f32], bool)) {
        self.add(i, n, |first, first_begun| {
            self.add(j, m, |second, second_begun| {
                debug_assert_eq!(first_begun, second_begun, "weights of one layer are added to together");
                add(first, second, first_begun);
            });
        });
    }

    /// Forgets what was added
    pub fn reset(&self) {
        (0..self.0.len()).for_each(|i| self.lock(i).begun = false);
    }

    /// Calls `f` with the gradient of weight `i`, if anything was added to it
    pub fn read<R>(&self, i: usize, f: impl FnOnce(&[f32]) -> R) -> Option<R> {
        let sum = self.lock(i);
        sum.begun.then(|| f(&sum.values))
    }

    /// Number of weights
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is no weight
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// A weight of an operation, and where its gradient goes; nowhere for a frozen model
#[derive(Clone, Debug)]
pub struct Weight {
    /// Its values; an optimiser changes them in place between passes
    pub values: Tensor,
    /// The sums, and which of them is this weight's
    pub sum: Option<(Arc<GradientSums>, usize)>,
    /// Operands of products with it
    pub precision: Precision,
}
