//! Where an environment stands, told by how it came there.
//!
//! Its random numbers at the start of the running episode and the actions since then lead to the same state again, to the
//! last bit, whatever the state consists of: a column of numbers or a world of bodies and joints.

use serde::{Deserialize, Serialize};

use super::rng::Pcg64;

/// The running episode of one environment
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct History {
    /// Before the reset that began it
    rng: Generator,
    /// One after the other, as many numbers each as an action has
    pub(super) actions: Vec<f32>,
    /// A digest of what it shows, where other actions or random numbers might lead elsewhere
    #[serde(default, skip_serializing_if = "String::is_empty")]
    seen: String,
}

/// Random numbers at the start of an episode
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
enum Generator {
    Native(Pcg64),
    /// Of an environment in another process, in its own words
    Foreign(String),
}

impl History {
    /// An episode that begins with these random numbers
    pub(super) fn beginning(rng: &Pcg64) -> Self {
        Self { rng: Generator::Native(rng.clone()), actions: Vec::new(), seen: String::new() }
    }

    /// An episode of another process
    pub(super) fn of(start: String, actions: Vec<f32>, seen: String) -> Self {
        Self { rng: Generator::Foreign(start), actions, seen }
    }

    /// How a native one begins
    pub(super) fn native(&self) -> Option<&Pcg64> {
        match &self.rng {
            Generator::Native(rng) => Some(rng),
            Generator::Foreign(_) => None,
        }
    }

    /// How one of another process begins, and what it shows now
    pub(super) fn foreign(&self) -> Option<(&str, &str)> {
        match &self.rng {
            Generator::Native(_) => None,
            Generator::Foreign(start) => Some((start, &self.seen)),
        }
    }
}
