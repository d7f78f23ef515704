//! Reinforcement fields: values that live in particles, and what is learnt from them.
//!
//! A particle says what was found at one point; a kernel says how far that carries. Over prompts, the field is the value
//! V(x) that a policy's path-consistency residual needs, with an uncertainty; over states and actions it is a Q function
//! whose identity-kernel case is the classical table.
//!
//! | file | holds |
//! |---|---|
//! | [`kernel`], [`fit`] | likeness by identity, distance or both; its hyperparameters by marginal likelihood |
//! | [`memory`], [`replay`], [`arrays`] | prompt and token particles; scored responses; how they are kept |
//! | [`value`], [`uncertainty`], [`calibration`], [`concepts`], [`preference`] | V(x), what is done with not knowing it and whether that is right, its parts; the same from preferences |
//! | [`field`], [`target`], [`rf_sarsa`] | fields over states and actions, their update rules and targets |
//! | [`features`] | hidden states to features |
//! | [`loss`], [`importance`] | losses with their gradients; what data of another policy are worth |
//! | [`token_field`], [`token_td`] | steering the decoder of a frozen model, and learning how |
//!
//! Pure: no tensors, no model, no files, no clock; random numbers come from the caller's generator. Arithmetic is f64 in a
//! fixed order, in one thread.

pub mod arrays;
pub mod calibration;
pub mod concepts;
pub mod eigen;
pub mod features;
pub mod field;
pub mod fit;
pub mod importance;
pub mod kernel;
pub mod linalg;
pub mod loss;
pub mod memory;
pub mod preference;
pub mod replay;
pub mod rf_sarsa;
pub mod target;
pub mod token_field;
pub mod token_td;
pub mod uncertainty;
pub mod value;
