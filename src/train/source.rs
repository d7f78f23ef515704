//! A model by name: its folder, shape and tokenizer; weights come later, and go into another folder of the same kind.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::data::Tokenizer;
use crate::model::Trainable;
use crate::model::config::Gpt2Config;
use crate::model::gpt2::Gpt2;
use crate::model::gpt2::packed::PackedGpt2;
use crate::model::hub::Hub;
use crate::ops::Precision;
use crate::run::names::TOKEN_FIELD;
use crate::{Error, Result, files};

/// Name of the file with sampling defaults in a model folder
const GENERATION_CONFIG: &str = "generation_config.json";

/// A model that was found and whose weights are not loaded yet
pub struct ModelSource {
    /// Where it lies on this disk
    pub folder: PathBuf,
    /// Its shape
    pub config: Gpt2Config,
    /// Its tokenizer
    pub tokenizer: Tokenizer,
}

impl ModelSource {
    /// Finds a model by folder or Hub id and reads what is small
    pub fn find(hub: &Hub, name: &str, revision: Option<&str>) -> Result<Self> {
        Self::in_folder(hub.model(name, revision)?)
    }

    /// The same for a model that need not have weights
    pub fn without_weights(hub: &Hub, name: &str, revision: Option<&str>) -> Result<Self> {
        Self::in_folder(hub.tokenizer(name, revision)?)
    }

    fn in_folder(folder: PathBuf) -> Result<Self> {
        Ok(Self { config: Gpt2Config::load(&folder)?, tokenizer: Tokenizer::from_folder(&folder)?, folder })
    }

    /// The model without gradients
    pub fn load_frozen(&self) -> Result<Gpt2> {
        Gpt2::load(&self.folder)?.detached()
    }

    /// The model for decoding alone, its products in this precision
    pub fn load_packed(&self, precision: Precision) -> Result<PackedGpt2> {
        PackedGpt2::load(&self.folder, precision)
    }

    /// Says so where a token field steers this model, and is not asked here
    pub fn warn_of_token_field(&self) {
        if self.folder.join(TOKEN_FIELD).is_file() {
            tracing::warn!(
                "the token field in `{}` is left out: it steers `generate`, `chat` and `eval` with `reward_funcs`, and \
                 this is the model without it",
                self.folder.display()
            );
        }
    }

    /// Refuses tokens that the model does not have
    pub fn check_tokens<'a>(&self, sequences: impl IntoIterator<Item = &'a [u32]>) -> Result<()> {
        let largest = sequences.into_iter().flatten().max().copied().unwrap_or(0) as usize;
        if largest < self.config.vocab_size {
            return Ok(());
        }
        Err(Error::usage(format!(
            "the tokenizer makes token {largest}, and the model in `{}` has only {} tokens",
            self.folder.display(),
            self.config.vocab_size
        ))
        .hint("the tokenizer belongs to another model: put the right `tokenizer.json` into the model's folder"))
    }

    /// Tokens that end a text, by the tokenizer, the model's config and its sampling defaults
    pub fn stop_tokens(&self) -> Vec<u32> {
        let mut stop: Vec<u32> =
            self.tokenizer.eos_id().into_iter().chain(self.config.eos_token_ids.iter().copied()).collect();
        let defaults = std::fs::read(self.folder.join(GENERATION_CONFIG)).unwrap_or_default();
        match serde_json::from_slice::<Value>(&defaults).unwrap_or_default().get("eos_token_id") {
            Some(Value::Number(id)) => stop.extend(id.as_u64().map(|id| id as u32)),
            Some(Value::Array(ids)) => stop.extend(ids.iter().filter_map(Value::as_u64).map(|id| id as u32)),
            _ => {}
        }
        stop.sort_unstable();
        stop.dedup();
        stop
    }

    /// Writes a model of this kind: weights, config, tokenizer and sampling defaults
    pub fn save(&self, model: &dyn Trainable, folder: &Path) -> Result<()> {
        model.save(folder)?;
        self.tokenizer.save(folder)?;
        let original = self.folder.join(GENERATION_CONFIG);
        let text = if original.is_file() {
            std::fs::read(&original).map_err(|cause| Error::read(&original, cause))?
        } else {
            let eos = self.tokenizer.eos_id().or(self.config.eos_token_ids.first().copied());
            let defaults = json!({
                "_from_model_config": true,
                "bos_token_id": self.tokenizer.bos_id().or(self.config.bos_token_id),
                "eos_token_id": eos,
            });
            format!("{defaults:#}\n").into_bytes()
        };
        files::write_bytes(&folder.join(GENERATION_CONFIG), &text)
    }
}
