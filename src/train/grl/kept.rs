//! What lies in the files of a memory, for those who ask why a prompt has its value, and how sure that is.

use std::path::{Path, PathBuf};

use serde::Serialize;

use super::features::{Features, key};
use super::keep::{FEATURE_MAP, MEMORY, PARTICLES, Record, Response, read, read_map};
use crate::grl::arrays::Owner;
use crate::grl::kernel::Point;
use crate::grl::memory::PromptMemory;
use crate::grl::uncertainty::{abstain, confidence};
use crate::grl::value::{Prediction, ValueField};
use crate::model::hub::Hub;
use crate::rollout::{Bend, Moment};
use crate::run::names::CONFIG;
use crate::train::source::ModelSource;
use crate::{Error, Result};

/// A memory with its field, and the model that makes the features of a prompt
pub struct Kept {
    source: ModelSource,
    features: Features,
    field: ValueField,
    record: Record,
    folder: PathBuf,
}

/// Why a prompt has its value
pub struct Explanation {
    /// V(x), its variance and the evidence behind it
    pub prediction: Prediction,
    /// The mean of all soft returns, which is the answer without evidence
    pub prior_mean: f64,
    /// 1 where the field is sure, 0 where it knows nothing
    pub confidence: f64,
    /// Whether the prompt itself has a particle
    pub known: bool,
    /// The nearest particles
    pub neighbours: Vec<Neighbour>,
}

/// A particle near a prompt
#[derive(Debug, Serialize)]
pub struct Neighbour {
    /// Its prompt
    pub prompt: String,
    /// The prompt's row in the training data, counted from 0
    pub row: Option<usize>,
    /// k(x, x_i)
    pub weight: f64,
    /// Kernel correlation, 1 for the prompt itself
    pub correlation: f64,
    /// Soft returns behind it
    pub count: f64,
    /// Mean soft return
    pub value: f64,
    /// Mean reward of the responses that are kept
    pub mean_reward: Option<f64>,
    /// Some of its responses
    pub responses: Vec<Response>,
}

impl Kept {
    /// Reads the memory of a run folder or checkpoint; `reference` where the reference model lies elsewhere by now
    pub fn open(folder: &Path, reference: Option<&str>, offline: bool) -> Result<Self> {
        if !folder.join(PARTICLES).is_file() {
            let has_run = folder.join(CONFIG).is_file();
            let why =
                if has_run { "the run has no particle memory, or has not ended" } else { "this is no run folder" };
            return Err(Error::usage(format!("no `{PARTICLES}` in `{}`: {why}", folder.display()))
                .hint("`inspect` takes the folder of a `grl` run, or one of its checkpoints"));
        }
        let record = Record::read(folder)?;
        let name = reference.unwrap_or(&record.model);
        let revision = reference.is_none().then_some(record.model_revision.as_str());
        let hub = Hub::from_env(offline)?;
        let source = ModelSource::find(&hub, name, revision).map_err(|error| {
            let hint = error.hint_text().unwrap_or("`--ref_model` says where the reference model lies now").to_owned();
            error.context("the reference model of the memory").hint(hint)
        })?;
        let owner = Owner { model: record.model_sha256.clone(), feature_map: String::new() };
        // A map may be left of an earlier run in this folder
        let has_map = !record.feature_map_sha256.is_empty();
        let map = if has_map { read_map(&folder.join(FEATURE_MAP), &owner)? } else { None };
        let features = Features::with_map(source.load_frozen()?, map)?;
        if features.owner().model != record.model_sha256 {
            return Err(Error::usage(format!(
                "the memory in `{}` belongs to another model than `{}`",
                folder.display(),
                source.folder.display()
            ))
            .hint(format!("`--ref_model` says where the weights of `{}` at the start of the run lie", record.model)));
        }
        let owner = record.owner();
        if features.owner().feature_map != owner.feature_map {
            return Err(Error::usage(format!("`{FEATURE_MAP}` in `{}` is not the memory's own", folder.display())));
        }
        let memory = read(&folder.join(MEMORY), |bytes| PromptMemory::from_bytes(bytes, &owner))?;
        let field = record.estimator.fit(&memory)?;
        Ok(Self { source, features, field, record, folder: folder.to_owned() })
    }

    /// Particles
    pub fn len(&self) -> usize {
        self.field.memory().len()
    }

    /// Whether there is none
    pub fn is_empty(&self) -> bool {
        self.field.memory().is_empty()
    }

    /// τ of the soft returns
    pub fn tau(&self) -> f64 {
        self.record.tau
    }

    /// The reference model of the run
    pub fn reference(&self) -> &ModelSource {
        &self.source
    }

    /// How sure the field is of each prompt: g = 1 − σ²/k(x, x), 1 where it is and 0 where it knows nothing
    ///
    /// # Errors
    /// What reads the values has no variance
    pub fn confidences(&mut self, prompts: &[Vec<u32>]) -> Result<Vec<f64>> {
        let mut all = Vec::with_capacity(prompts.len());
        for ids in prompts {
            self.learn(ids)?;
            let prediction = self.field.predict(self.point(ids)?);
            if prediction.variance.is_none() {
                return Err(Error::usage(format!(
                    "the values in `{}` have no variance, so that nothing is known of their doubt",
                    self.folder.display()
                ))
                .hint("abstention needs a run with `estimator: gaussian_process`"));
            }
            all.push(confidence(&prediction));
        }
        Ok(all)
    }

    /// Computes what the field needs of a prompt; whether it has a particle
    fn learn(&mut self, ids: &[u32]) -> Result<bool> {
        let known = self.field.memory().position(key(ids)).is_some();
        if !known {
            self.features.learn(ids)?;
        }
        Ok(known)
    }

    /// A particle's own features, where there is one: with `feature_permutation` they are another prompt's
    fn point(&self, ids: &[u32]) -> Result<Point<'_>> {
        match self.field.memory().position(key(ids)) {
            Some(at) => Ok(self.field.memory().particle(at).point),
            None => self.features.point(key(ids)),
        }
    }

    /// What the field says of a prompt, and the `most` nearest particles
    pub fn explain(&mut self, prompt: &str, most: usize) -> Result<Explanation> {
        let ids = self.source.tokenizer.encode(prompt)?;
        if ids.is_empty() || ids.len() > self.source.config.n_positions {
            let (found, most) = (ids.len(), self.source.config.n_positions);
            return Err(Error::usage(format!("the prompt has {found} tokens, expected 1 to {most}")));
        }
        self.source.check_tokens([&ids[..]])?;
        let known = self.learn(&ids)?;
        let point = self.point(&ids)?;
        let prediction = self.field.predict(point);
        let mut neighbours = Vec::with_capacity(most);
        for near in self.field.neighbours(point, most) {
            let Some(particle) = self.record.particle(near.key) else {
                return Err(Error::usage(format!(
                    "`{PARTICLES}` in `{}` has no particle `{:016x}`: it does not belong to the memory",
                    self.folder.display(),
                    near.key
                )));
            };
            let rewards = particle.responses.iter().map(|response| response.reward);
            let judged = particle.responses.len();
            neighbours.push(Neighbour {
                prompt: particle.prompt.clone(),
                row: particle.row,
                weight: near.weight,
                correlation: near.correlation,
                count: near.count,
                value: near.level,
                mean_reward: (judged > 0).then(|| rewards.sum::<f64>() / judged as f64),
                responses: particle.responses.clone(),
            });
        }
        Ok(Explanation {
            confidence: confidence(&prediction),
            prior_mean: self.field.prior_mean(),
            known,
            prediction,
            neighbours,
        })
    }
}

/// Draws a policy back to its reference where the field does not know a prompt: log π_ref + g (log π − log π_ref)
pub struct Abstention {
    /// g of each prompt
    pub confidences: Vec<f64>,
}

impl Bend for Abstention {
    fn bend(&self, at: &Moment<'_>, logits: &mut [f32]) -> Result<()> {
        abstain(logits, at.reference, self.confidences[at.prompt]);
        Ok(())
    }
}
