//! Spaces of observations and actions.

use std::fmt;

use serde::Serialize;

/// What an observation or an action can be
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "type", rename_all = "lowercase")]
pub enum Space {
    /// The numbers `0..n`
    Discrete {
        /// How many there are
        n: u32,
    },
    /// An array of numbers within bounds
    Box(BoxSpace),
}

/// An array of numbers, each with its own bounds
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct BoxSpace {
    /// Its dimensions
    pub shape: Vec<usize>,
    /// The lower bound of each number, row by row
    pub low: Vec<f32>,
    /// The upper bound of each number
    pub high: Vec<f32>,
}

impl Space {
    /// A vector between these bounds
    pub(super) fn vector(low: &[f32], high: &[f32]) -> Self {
        Self::Box(BoxSpace { shape: vec![low.len()], low: low.to_vec(), high: high.to_vec() })
    }

    /// A vector between these bounds and their negatives
    pub(super) fn symmetric(high: &[f32]) -> Self {
        let low: Vec<_> = high.iter().map(|bound| -bound).collect();
        Self::vector(&low, high)
    }

    /// How many numbers one element takes in a buffer; a discrete one takes one
    #[expect(clippy::len_without_is_empty, reason = "no space is empty")]
    pub fn len(&self) -> usize {
        match self {
            Self::Discrete { .. } => 1,
            Self::Box(space) => space.low.len(),
        }
    }

    /// The `n` of a discrete space
    pub fn discrete(&self) -> Option<u32> {
        match self {
            Self::Discrete { n } => Some(*n),
            Self::Box(_) => None,
        }
    }
}

impl fmt::Display for Space {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let space = match self {
            Self::Discrete { n } => return write!(f, "Discrete({n})"),
            Self::Box(space) => space,
        };
        let shape: Vec<_> = space.shape.iter().map(usize::to_string).collect();
        write!(f, "Box({}", shape.join("x"))?;
        // One pair of bounds says it all where every number has the same
        let same = |bounds: &[f32]| bounds.iter().all(|bound| *bound == bounds[0]);
        if same(&space.low) && same(&space.high) && !space.low.is_empty() {
            write!(f, ", {} to {}", space.low[0], space.high[0])?;
        }
        f.write_str(")")
    }
}
