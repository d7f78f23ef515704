//! What networks see of observations, and which actions they choose among.

use super::env::{EnvSpec, Space};
use super::normalize::Moments;
use crate::{Error, Result};

/// Turns observations into features: a state that is a number into a row of zeros and a one, an array into itself,
/// normalised where that is wanted
#[derive(Debug, Clone, PartialEq)]
pub struct Observer {
    classes: Option<usize>,
    width: usize,
    moments: Option<Moments>,
}

impl Observer {
    /// For the observations of an environment. Numbered states are never normalised
    pub fn new(space: &Space, normalize: bool) -> Self {
        let classes = space.discrete().map(|n| n as usize);
        let width = classes.unwrap_or(space.len());
        let moments = (normalize && classes.is_none()).then(|| Moments::new(width));
        Self { classes, width, moments }
    }

    /// Features of one observation
    pub fn width(&self) -> usize {
        self.width
    }

    /// What observations are normalised by
    pub fn moments(&self) -> Option<&Moments> {
        self.moments.as_ref()
    }

    /// Normalises by these from now on
    pub fn set_moments(&mut self, moments: Option<Moments>) {
        self.moments = moments;
    }

    /// Takes observations into the statistics
    pub fn learn(&mut self, observations: &[f32]) {
        if let Some(moments) = &mut self.moments {
            moments.update(observations);
        }
    }

    /// Writes the features of observations, row by row
    pub fn features(&self, observations: &[f32], features: &mut [f32]) {
        if let Some(classes) = self.classes {
            features.fill(0.0);
            for (row, state) in features.chunks_exact_mut(classes).zip(observations) {
                row[*state as usize] = 1.0;
            }
            return;
        }
        features.copy_from_slice(observations);
        if let Some(moments) = &self.moments {
            moments.normalize(features);
        }
    }
}

/// The actions of an environment
#[derive(Debug, Clone, PartialEq)]
pub enum ActionSpace {
    /// One of so many
    Discrete(usize),
    /// A vector within bounds
    Continuous {
        /// Lower bounds
        low: Vec<f32>,
        /// Upper bounds
        high: Vec<f32>,
    },
}

impl ActionSpace {
    /// Those of an environment
    pub fn of(spec: &EnvSpec) -> Self {
        match &spec.action_space {
            Space::Discrete { n } => Self::Discrete(*n as usize),
            Space::Box(space) => Self::Continuous { low: space.low.clone(), high: space.high.clone() },
        }
    }

    /// Outputs of a policy network: logits or means
    pub fn outputs(&self) -> usize {
        match self {
            Self::Discrete(n) => *n,
            Self::Continuous { low, .. } => low.len(),
        }
    }

    /// A number from [-1, 1] as number `d` of an action, from bound to bound
    ///
    /// # Panics
    /// For discrete actions
    pub fn scale(&self, d: usize, unit: f32) -> f32 {
        match self {
            Self::Discrete(_) => unreachable!("discrete actions have no bounds"),
            Self::Continuous { low, high } => low[d] + 0.5 * (unit + 1.0) * (high[d] - low[d]),
        }
    }

    /// How many numbers an action has, each within finite bounds
    ///
    /// # Errors
    /// Other actions, for an agent that squashes its own into bounds
    pub fn bounded(&self, agent: &str, env: &str) -> Result<usize> {
        match self {
            Self::Discrete(_) => {
                Err(Error::usage(format!("`{agent}` needs continuous actions, and those of `{env}` are discrete"))
                    .hint("`ppo` and `dqn` take discrete ones"))
            }
            Self::Continuous { low, high } if low.iter().chain(high).all(|bound| bound.is_finite()) => Ok(low.len()),
            Self::Continuous { .. } => {
                Err(Error::usage(format!("`{agent}` needs bounds of actions, and those of `{env}` have none"))
                    .hint("`ppo` needs none"))
            }
        }
    }

    /// How many actions there are
    ///
    /// # Errors
    /// Actions that cannot be counted, for an agent that has to
    pub fn count(&self, agent: &str, env: &str) -> Result<usize> {
        match self {
            Self::Discrete(n) => Ok(*n),
            Self::Continuous { .. } => {
                Err(Error::usage(format!("`{agent}` needs discrete actions, and those of `{env}` are continuous"))
                    .hint("`ppo` takes both"))
            }
        }
    }
}
