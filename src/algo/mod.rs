//! Pure functions: losses and what they are made of. No model, no data, no random numbers, no files, no clock.
//!
//! Losses on pairs take tensors. The online half works on flat slices and returns analytic gradients beside values, so
//! that tokens of ragged completions and steps of parallel environments go through the very same functions, whatever
//! computes the log-probabilities. Inputs and outputs are `f32`; every sum is taken in `f64`. Slices of unequal length
//! are a mistake of the caller and panic; ranges of user-set numbers are checked where configs are read.
//!
//! A gradient is always of the *returned* loss with respect to one element of the *given* slice. What a mean is taken
//! over is never read off the slice where a minibatch may be split: it is an argument, so that the parts of any split
//! add up to the whole.

pub mod advantage;
pub mod bradley_terry;
pub mod distribution;
pub mod entropy;
pub mod group;
pub mod group_loss;
mod group_pass;
pub mod kl;
pub mod natural;
pub mod offline;
pub mod policy;
pub mod preference;
pub mod q;
pub mod rloo;
pub mod shaping;
pub mod soft;
pub mod value;

/// Whether element `at` counts; no mask means that all do
#[inline]
pub(crate) fn counts(mask: Option<&[bool]>, at: usize) -> bool {
    mask.is_none_or(|mask| mask[at])
}

/// Panics with the numbers where a slice has not the length of the stream
#[track_caller]
pub(crate) fn same_length(name: &str, got: usize, expected: usize) {
    assert!(got == expected, "`{name}` has {got} elements, expected {expected}");
}

/// The same for a slice that may be absent
#[track_caller]
pub(crate) fn same_length_if_any<T>(name: &str, got: Option<&[T]>, expected: usize) {
    if let Some(got) = got {
        same_length(name, got.len(), expected);
    }
}
