//! What writes in `generate` and `chat`: a model, the token field beside it, and the reference that it is drawn back to.

use std::path::Path;

use crate::model::gpt2::packed::PackedGpt2;
use crate::ops::Precision;
use crate::rollout::{Bend, Moment, Source};
use crate::train::grl::{Abstention, FieldBend, Kept, KeptField};
use crate::train::source::ModelSource;
use crate::{Error, Result};

/// A model that is ready to write
pub(super) struct Speaker {
    model: PackedGpt2,
    field: Option<KeptField>,
    /// The memory that says how well a prompt is known, and the model that is asked where it is not
    doubt: Option<(Kept, PackedGpt2)>,
}

/// What bends the logits for some prompts
#[derive(Default)]
pub(super) struct Bends {
    field: Option<FieldBend>,
    abstention: Option<Abstention>,
}

impl Bends {
    /// g of each prompt, where the model abstains
    pub(super) fn confidences(&self) -> Option<&[f64]> {
        self.abstention.as_ref().map(|abstention| &abstention.confidences[..])
    }
}

impl Bend for Bends {
    fn bend(&self, at: &Moment<'_>, logits: &mut [f32]) -> Result<()> {
        if let Some(field) = &self.field {
            field.bend(at, logits)?;
        }
        if let Some(abstention) = &self.abstention {
            abstention.bend(at, logits)?;
        }
        Ok(())
    }
}

impl Speaker {
    /// The model of a folder, steered by the token field in it with strength `eta` in place of its own
    pub(super) fn open(source: &ModelSource, precision: Precision, eta: Option<f64>) -> Result<Self> {
        Ok(Self { model: source.load_packed(precision)?, field: token_field(source, eta)?, doubt: None })
    }

    /// Drawn back to the reference model where the run's memory does not know a prompt
    pub(super) fn abstaining(
        self,
        run: &Path,
        reference: Option<&str>,
        precision: Precision,
        offline: bool,
    ) -> Result<Self> {
        let kept = Kept::open(run, reference, offline).map_err(|error| error.context("abstention"))?;
        let reference = kept.reference().load_packed(precision)?;
        Ok(Self { doubt: Some((kept, reference)), ..self })
    }

    /// What these prompts need
    pub(super) fn prepare(&mut self, prompts: &[Vec<u32>]) -> Result<Bends> {
        let field = self.field.as_mut().map(|field| field.bend(prompts)).transpose()?;
        let confidences = self.doubt.as_mut().map(|(kept, _)| kept.confidences(prompts)).transpose()?;
        Ok(Bends { field, abstention: confidences.map(|confidences| Abstention { confidences }) })
    }

    /// Where the logits come from
    pub(super) fn source<'a>(&'a self, bends: &'a Bends) -> Source<'a> {
        let bent = bends.field.is_some() || bends.abstention.is_some();
        Source {
            model: &self.model,
            reference: self.doubt.as_ref().map(|(_, reference)| reference),
            bend: bent.then_some(bends as &dyn Bend),
        }
    }
}

/// The token field beside a model, with the strength that was asked for; none at 0
pub(super) fn token_field(source: &ModelSource, eta: Option<f64>) -> Result<Option<KeptField>> {
    if eta == Some(0.0) {
        return Ok(None);
    }
    let field = KeptField::open(source)?;
    match (field, eta) {
        (None, Some(_)) => {
            Err(Error::usage(format!("`eta`: there is no token field in `{}`", source.folder.display()))
                .hint("a run of `grl` with `eta` above 0 leaves one beside its model"))
        }
        (Some(field), Some(eta)) => Ok(Some(field.with_eta(eta))),
        (field, None) => Ok(field),
    }
}
