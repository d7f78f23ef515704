//! Pure functions on tensors: losses and what they are made of. No model, no data, no random numbers, no files, no clock.

pub mod preference;
