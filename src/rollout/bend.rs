//! What may come between a model's logits and the choice of a token.

use crate::Result;
use crate::model::gpt2::Gpt2;
use crate::model::gpt2::packed::PackedGpt2;

/// Changes the logits of a model before a token is chosen of them
pub trait Bend: Sync {
    /// `logits` (V,) are those of the model on entry, and those that are drawn from on return
    fn bend(&self, at: &Moment<'_>, logits: &mut [f32]) -> Result<()>;
}

/// What is known at the moment of a choice
#[derive(Clone, Copy, Debug)]
pub struct Moment<'a> {
    /// Index of the prompt among those that are completed
    pub prompt: usize,
    /// The model's state after `ln_f`, which its logits are computed from, (C,)
    pub hidden: &'a [f32],
    /// Logits of the second model, (V,); empty where there is none
    pub reference: &'a [f32],
}

/// Where the logits come from that tokens are drawn from
#[derive(Clone, Copy)]
pub struct Source<'a> {
    /// The model
    pub model: &'a PackedGpt2,
    /// A second model with the same vocabulary, which reads what the first one writes
    pub reference: Option<&'a PackedGpt2>,
    /// What changes the logits
    pub bend: Option<&'a dyn Bend>,
}

impl<'a> From<&'a PackedGpt2> for Source<'a> {
    fn from(model: &'a PackedGpt2) -> Self {
        Self { model, reference: None, bend: None }
    }
}

/// A model and what bends its logits: together a distribution over completions
#[derive(Clone, Copy)]
pub struct Policy<'a> {
    /// The model
    pub model: &'a Gpt2,
    /// What changes its logits
    pub bend: Option<&'a dyn Bend>,
}

impl<'a> From<&'a Gpt2> for Policy<'a> {
    fn from(model: &'a Gpt2) -> Self {
        Self { model, bend: None }
    }
}
