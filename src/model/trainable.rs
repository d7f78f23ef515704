//! What a run trains, whatever its architecture.

use std::path::Path;
use std::sync::Arc;

use candle_core::Var;

use crate::Result;
use crate::ops::GradientSums;

/// Named variables, where their gradients are summed, and their files
pub trait Trainable {
    /// Trainable parameters by name, in a fixed order
    fn vars(&self) -> &[(String, Var)];

    /// Where backward passes sum the gradients of [`Self::vars`], in their order
    fn gradients(&self) -> &Arc<GradientSums>;

    /// Writes config and weights in Hugging Face layout
    fn save(&self, folder: &Path) -> Result<()>;

    /// Replaces the values of the variables by those in a folder that [`Self::save`] wrote
    fn restore(&self, folder: &Path) -> Result<()>;
}
