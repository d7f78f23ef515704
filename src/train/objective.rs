//! What a recipe gives the step loop.

use candle_core::Tensor;

use crate::model::gpt2::Gpt2;
use crate::run::{Metrics, StepClock};
use crate::{Error, Result};

/// Which rows are meant
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Split {
    /// Rows that are trained on
    Train,
    /// Held-out rows
    Eval,
}

/// One forward pass
pub struct Pass<'a> {
    /// Which rows `rows` counts in
    pub split: Split,
    /// The rows
    pub rows: &'a [usize],
    /// What the loss is divided by: the weight of the whole optimiser step, so that the gradient does not depend on how
    /// the step is split into passes
    pub denominator: f64,
    /// Key of this pass's dropout masks; None turns dropout off
    pub dropout: Option<u64>,
}

/// What came out of it
pub struct Outcome {
    /// Scalar loss, already divided
    pub loss: Tensor,
    /// The trainer's metrics of this pass under TRL's names
    pub metrics: Metrics,
    /// Real tokens seen
    pub tokens: u64,
}

/// A model, rows, and a loss
pub trait Objective {
    /// The model that is trained
    fn model(&self) -> &Gpt2;

    /// Tokens of each row of a split, which is also how many rows there are
    fn lengths(&self, split: Split) -> Vec<usize>;

    /// What these rows count in the mean of the loss: loss tokens, or pairs
    fn weight(&self, split: Split, rows: &[usize]) -> f64;

    /// Loss and metrics of some rows; without gradients for [`Split::Eval`]
    fn forward(&mut self, pass: &Pass<'_>, clock: &mut StepClock) -> Result<Outcome>;
}

/// What to do about numbers that are no longer finite
pub const LOWER_THE_RATE: &str = "lower `learning_rate` or `max_grad_norm`";

/// A pass's loss as a number
///
/// # Errors
/// NaN or infinity: the run has failed
pub fn finite(loss: &Tensor) -> Result<f64> {
    let value = f64::from(loss.to_scalar::<f32>()?);
    if value.is_finite() {
        return Ok(value);
    }
    Err(Error::run(format!("the loss is {value}")).hint(LOWER_THE_RATE))
}
