//! Where a native environment stands, told by how it came there.
//!
//! Its random numbers at the start of the running episode and the actions since then lead to the same state again, to the
//! last bit, whatever the state consists of: a column of numbers or a world of bodies and joints.

use serde::{Deserialize, Serialize};

use super::rng::Pcg64;

/// The running episode of one environment
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct History {
    /// Before the reset that began it
    pub(super) rng: Pcg64,
    /// One after the other, as many numbers each as an action has
    pub(super) actions: Vec<f32>,
}

impl History {
    /// An episode that begins with these random numbers
    pub(super) fn beginning(rng: &Pcg64) -> Self {
        Self { rng: rng.clone(), actions: Vec::new() }
    }
}
