//! What is kept of a token field in files: for an exact resume, and for those who generate with it later.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::Grl;
use super::features::Features;
use super::keep::{FEATURE_MAP, read, read_map, read_record, write_record};
use super::state::Learnt;
use super::steering::{FieldBend, Reading, Steering, Tokens};
use crate::config::FieldTokens;
use crate::grl::memory::TokenMemory;
use crate::model::gpt2::Gpt2;
use crate::run::names::TOKEN_FIELD;
use crate::train::source::ModelSource;
use crate::{Error, Result, files};

const PARTICLES: &str = "token_memory.safetensors";
const STATE_MAP: &str = "state_map.safetensors";

/// `token_field.json`
#[derive(Serialize, Deserialize)]
struct Record {
    /// Checksums of the model's weights and of all feature maps
    model_sha256: String,
    features_sha256: String,
    eta: f64,
    tau: f64,
    reading: Reading,
    particles: usize,
}

impl Grl {
    /// Writes the field, where there is one; the record last, by which it is known
    pub(super) fn keep_field(&self, folder: &Path, learnt: &Learnt) -> Result<()> {
        let (Some(steering), Some(particles)) = (&self.steering, &learnt.particles) else { return Ok(()) };
        let map = steering.states().to_arrays(&self.features.map_owner());
        files::write_bytes(&folder.join(STATE_MAP), &map.to_bytes()?)?;
        files::write_bytes(&folder.join(PARTICLES), &particles.to_arrays(steering.owner()).to_bytes()?)?;
        let record = Record {
            model_sha256: steering.owner().model.clone(),
            features_sha256: steering.owner().feature_map.clone(),
            eta: self.keys.eta,
            tau: learnt.tau,
            reading: steering.reading().clone(),
            particles: particles.len(),
        };
        write_record(&folder.join(TOKEN_FIELD), &record)
    }

    /// Puts back what [`Self::keep_field`] wrote
    pub(super) fn restore_field(&mut self, folder: &Path) -> Result<()> {
        const HINT: &str = "a run resumes with the keys that it began with";
        let found = Record::read(folder)?;
        if !self.is_frozen() {
            return match found {
                None => Ok(()),
                Some(Record { eta, .. }) => {
                    Err(Error::usage(format!("`eta` is 0, and the checkpoint's run had {eta}")).hint(HINT))
                }
            };
        }
        let Some(record) = found else {
            if self.learnt.store.is_empty() {
                return Ok(());
            }
            let message = format!("`eta` is {}, and the checkpoint has no token field", self.keys.eta);
            return Err(Error::usage(message).hint(HINT));
        };
        let keys = &self.keys;
        let (steering, particles) = record.load(folder, &self.actor.view, &self.features)?;
        let same = |name: &str, found: String, asked: String| {
            if found == asked {
                return Ok(());
            }
            Err(Error::usage(format!("`{name}` is {asked}, and the checkpoint's token field has {found}")).hint(HINT))
        };
        same("field_capacity", particles.capacity().to_string(), keys.field_capacity.to_string())?;
        let Reading { top_k, prompt_weight, tokens, .. } = record.reading;
        let tokens = match tokens {
            Tokens::Identity => FieldTokens::Identity,
            Tokens::Embedding => FieldTokens::Embedding,
            Tokens::Cloud { .. } => FieldTokens::Cloud,
        };
        same("field_top_k", top_k.to_string(), keys.field_top_k.to_string())?;
        same("field_prompt_weight", prompt_weight.to_string(), keys.field_prompt_weight.to_string())?;
        same("field_tokens", tokens.to_string(), keys.field_tokens.to_string())?;
        (self.steering, self.learnt.particles) = (Some(steering), Some(particles));
        Ok(())
    }
}

impl Record {
    /// Of the field in a folder, where there is one
    fn read(folder: &Path) -> Result<Option<Self>> {
        let path = folder.join(TOKEN_FIELD);
        if path.is_file() { read_record(&path).map(Some) } else { Ok(None) }
    }

    /// The field itself, which must be that of this model
    fn load(&self, folder: &Path, model: &Gpt2, features: &Features) -> Result<(Steering, TokenMemory)> {
        let damaged =
            |what: &str| Error::usage(format!("{what} in `{}` is not the token field's own", folder.display()));
        let map = read_map(&folder.join(STATE_MAP), &features.map_owner())?;
        let map = map.ok_or_else(|| damaged(&format!("`{STATE_MAP}` is missing, or")))?;
        let steering = Steering::new(model, features, map, self.reading.clone())?;
        if steering.owner().feature_map != self.features_sha256 {
            return Err(damaged(&format!("`{STATE_MAP}` or `{FEATURE_MAP}`")));
        }
        let particles = read(&folder.join(PARTICLES), |bytes| TokenMemory::from_bytes(bytes, steering.owner()))?;
        if particles.dim() != steering.dim(features.dim()) {
            return Err(damaged(&format!("`{PARTICLES}`")));
        }
        Ok((steering, particles))
    }
}

/// The token field of a run, for those who generate with its model
pub struct KeptField {
    steering: Steering,
    particles: TokenMemory,
    features: Features,
    eta: f64,
    tau: f64,
}

impl KeptField {
    /// Reads the field beside a model, where there is one
    ///
    /// # Errors
    /// It belongs to another model, or is truncated
    pub fn open(source: &ModelSource) -> Result<Option<Self>> {
        let folder = &source.folder;
        let Some(record) = Record::read(folder)? else { return Ok(None) };
        let mut features = Features::with_map(source.load_frozen()?, None)?;
        if features.owner().model != record.model_sha256 {
            return Err(Error::usage(format!("the token field in `{}` belongs to another model", folder.display()))
                .hint(format!("put `{TOKEN_FIELD}` beside the weights that it was learnt with, or take it away")));
        }
        if record.reading.prompt_weight > 0.0 {
            features.set_map(read_map(&folder.join(FEATURE_MAP), &features.map_owner())?)?;
        }
        let (steering, particles) = record.load(folder, features.reference(), &features)?;
        Ok(Some(Self { steering, particles, features, eta: record.eta, tau: record.tau }))
    }

    /// The same field with another η
    #[must_use]
    pub fn with_eta(self, eta: f64) -> Self {
        Self { eta, ..self }
    }

    /// What bends the logits of completions of these prompts
    pub fn bend(&mut self, prompts: &[Vec<u32>]) -> Result<FieldBend> {
        let mut of_prompts = Vec::with_capacity(prompts.len());
        for ids in prompts {
            of_prompts.push(if self.steering.asks_prompts() {
                let key = self.features.learn(ids)?;
                self.features.point(key)?.phi.to_vec()
            } else {
                Vec::new()
            });
        }
        let (steering, particles) = (self.steering.clone(), self.particles.clone());
        Ok(FieldBend { steering, particles, prompts: of_prompts, eta: self.eta, tau: self.tau })
    }
}
