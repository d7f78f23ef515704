//! What a recipe gives the step loop.

use std::path::Path;

use candle_core::Tensor;
use serde_json::Value;

use super::plan::{Plan, StepRows};
use crate::config::TrainKeys;
use crate::model::Trainable;
use crate::run::{Checkpoint, CheckpointWriter, Metrics, Signals, StepClock};
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
    /// What the loss is divided by: the weight of the whole update, so that the gradient does not depend on how the
    /// update is split into passes
    pub denominator: f64,
    /// Passes of this update
    pub passes: usize,
    /// Key of this pass's dropout masks; None turns dropout off
    pub dropout: Option<u64>,
}

/// What came out of it
pub struct Outcome {
    /// The loss, already divided
    pub loss: f64,
    /// A scalar whose gradient is the loss's
    pub graph: Tensor,
    /// The trainer's metrics of this pass under TRL's names
    pub metrics: Metrics,
    /// Real tokens seen
    pub tokens: u64,
}

impl Outcome {
    /// Of a loss that candle differentiates
    pub fn new(loss: Tensor, metrics: Metrics, tokens: u64) -> Result<Self> {
        Ok(Self { loss: f64::from(loss.to_scalar::<f32>()?), graph: loss, metrics, tokens })
    }
}

/// The passes of one step
pub struct Updates {
    /// Rows of each pass of each update of the weights
    pub passes: Vec<Vec<Vec<usize>>>,
    /// Tokens that this step made itself; where there are none, those of its passes count as seen
    pub generated: Option<u64>,
    /// Completions that the rewards judged for this step; None where a trainer asks no rewards
    pub queries: Option<u64>,
}

/// What a step may use beside its rows
pub struct StepContext<'a> {
    /// The step, counted from 0
    pub step: u64,
    /// Where the time goes
    pub clock: &'a mut StepClock,
    /// Whether the user wants to stop
    pub signals: &'a Signals,
}

impl<'a> StepContext<'a> {
    /// What long work asks again and again: an error once a signal wants the step to end
    pub fn checker(&self) -> impl Fn() -> Result<()> + use<'a> {
        let (signals, step) = (self.signals, self.step);
        move || signals.received().map_or(Ok(()), |signal| Err(Signals::error(signal, step)))
    }
}

/// A model, rows, and a loss
pub trait Objective {
    /// What is trained
    fn model(&self) -> &dyn Trainable;

    /// Tokens of each row of a split, which is also how many rows there are
    fn lengths(&self, split: Split) -> Vec<usize>;

    /// Which rows belong to which step
    fn plan(&self, keys: &TrainKeys) -> Plan {
        Plan::new(&self.lengths(Split::Train), keys)
    }

    /// Everything before the first pass of a step: online trainers generate here
    fn begin_step(&mut self, rows: &StepRows, context: &mut StepContext<'_>) -> Result<Updates> {
        let _ = context;
        Ok(Updates { passes: vec![rows.micro_batches.clone()], generated: None, queries: None })
    }

    /// What these rows count in the mean of the loss: loss tokens, or pairs
    fn weight(&self, split: Split, rows: &[usize]) -> f64;

    /// Loss and metrics of some rows; without gradients for [`Split::Eval`]
    fn forward(&mut self, pass: &Pass<'_>, clock: &mut StepClock) -> Result<Outcome>;

    /// Whether the update whose passes are done is to be left out, with all that follow in this step
    fn stops_updates(&mut self) -> bool {
        false
    }

    /// Everything after the last update of a step, and the step's own metrics
    fn end_step(&mut self, step: u64) -> Result<Metrics> {
        let _ = step;
        Ok(Metrics::new())
    }

    /// Called where a step's metrics are logged, with the run folder
    fn logged(&mut self, step: u64, folder: &Path) -> Result<()> {
        let _ = (step, folder);
        Ok(())
    }

    /// Everything after the last step, before the final model is written
    fn finish(&mut self) -> Result<()> {
        Ok(())
    }

    /// What lies beside the final model in its folder
    fn save_beside(&self, folder: &Path) -> Result<()> {
        let _ = folder;
        Ok(())
    }

    /// What a checkpoint must hold beside model and moments; large things go into files of their own
    fn save_state(&self, checkpoint: &CheckpointWriter) -> Result<Value> {
        let _ = checkpoint;
        Ok(Value::Null)
    }

    /// Puts back what [`Self::save_state`] gave
    fn restore_state(&mut self, checkpoint: &Checkpoint, state: Value) -> Result<()> {
        let _ = (checkpoint, state);
        Ok(())
    }
}

/// What to do about numbers that are no longer finite
pub const LOWER_THE_RATE: &str = "lower `learning_rate` or `max_grad_norm`";

/// A pass's loss, where it is a number
///
/// # Errors
/// NaN or infinity: the run has failed
pub fn finite(loss: f64) -> Result<f64> {
    if loss.is_finite() {
        return Ok(loss);
    }
    Err(Error::run(format!("the loss is {loss}")).hint(LOWER_THE_RATE))
}
