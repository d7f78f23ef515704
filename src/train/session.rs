//! What every recipe does before its first step: find model, tokenizer and data, and claim the run folder.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

use super::source::ModelSource;
use crate::config::{Context, Resume as ResumeKey, Strategy, TrainKeys};
use crate::data::{Dataset, ReadOptions, RowReport, Tokenizer, Truncation, read_dataset, read_split, splits};
use crate::files;
use crate::model::gpt2::Gpt2;
use crate::model::hub::Hub;
use crate::model::weights::weight_files;
use crate::ops::Precision;
use crate::ops::kernels::bf16;
use crate::run::{Checkpoint, Manifest, OpenMode, PendingRun, Resume, RunFolder, Start};
use crate::{Error, Result};

/// A request that was found sound; nothing on disk has changed yet
pub struct Session {
    /// The common keys
    pub keys: TrainKeys,
    /// Every key with its resolved value, as YAML
    pub resolved: String,
    /// The model that the request names, with its tokenizer
    pub source: ModelSource,
    context: Context,
    hub: Hub,
    pending: PendingRun,
    rows: Map<String, Value>,
    sha256: BTreeMap<PathBuf, String>,
}

impl Session {
    /// Claims the run folder, finds the model and reads its config and tokenizer
    pub fn open(keys: TrainKeys, resolved: String, context: &Context) -> Result<Self> {
        if keys.bf16 && !bf16::supported() {
            tracing::warn!("`bf16` falls back to f32: this processor does not multiply bfloat16 (avx512_bf16)");
        }
        if keys.gradient_checkpointing {
            tracing::info!("`gradient_checkpointing` changes nothing: activations are kept, the result is the same");
        }
        let resume = match &keys.resume_from_checkpoint {
            ResumeKey::No => None,
            ResumeKey::Newest => Some(Resume::Newest),
            ResumeKey::Folder(folder) => Some(Resume::From(folder.into())),
        };
        let pending =
            RunFolder::open(keys.output_dir.as_str(), &OpenMode { overwrite: keys.overwrite_output_dir, resume })?;
        let hub = Hub::from_env(keys.offline)?;
        let (name, revision) = (keys.model()?, Some(keys.model_revision.as_str()));
        let mut source = if keys.from_scratch {
            ModelSource::without_weights(&hub, name, revision)?
        } else {
            ModelSource::find(&hub, name, revision)?
        };
        if let Some(token) = &keys.pad_token {
            source.tokenizer.set_pad_token(token)?;
        }
        Ok(Self {
            keys,
            resolved,
            source,
            context: context.clone(),
            hub,
            pending,
            rows: Map::new(),
            sha256: BTreeMap::new(),
        })
    }

    /// The trainable model, as the request names it (a resumed run's weights come later)
    pub fn load_model(&self) -> Result<Gpt2> {
        let model = if self.keys.from_scratch {
            Gpt2::from_scratch(self.source.config.clone(), self.keys.seed)?
        } else {
            Gpt2::load(&self.source.folder)?
        };
        model.with_precision(self.precision())
    }

    /// How operands of matrix products are rounded
    pub fn precision(&self) -> Precision {
        if self.keys.bf16 && bf16::supported() { Precision::Bf16 } else { Precision::F32 }
    }

    /// Where models and datasets come from
    pub fn hub(&self) -> &Hub {
        &self.hub
    }

    /// Finds a chat template: a Jinja file, or the folder or id of a tokenizer that has one
    pub fn chat_template(&self, name: &str) -> Result<String> {
        let path = Path::new(name);
        if path.is_file() {
            return std::fs::read_to_string(path).map_err(|cause| Error::read(path, cause));
        }
        let other = Tokenizer::from_folder(&self.hub.tokenizer(name, None)?)?;
        other.chat_template_source(false).map(ToOwned::to_owned).ok_or_else(|| {
            Error::usage(format!("the tokenizer of `chat_template_path`, `{name}`, has no chat template"))
        })
    }

    /// `max_length`, no longer than the model's positions
    pub fn max_length(&self) -> usize {
        let positions = self.source.config.n_positions;
        match self.keys.max_length {
            Some(length) if length <= positions => length,
            asked => {
                let asked = asked.map_or_else(|| "null".to_owned(), |length| length.to_string());
                tracing::info!("`max_length` is {positions}, the model's positions, not {asked}");
                positions
            }
        }
    }

    /// `truncation_mode` as the data room knows it
    pub fn truncation(&self) -> Truncation {
        match self.keys.truncation_mode {
            crate::config::TruncationMode::KeepStart => Truncation::KeepStart,
            crate::config::TruncationMode::KeepEnd => Truncation::KeepEnd,
        }
    }

    /// The rows to train on
    pub fn train_rows(&mut self) -> Result<Dataset> {
        let split = self.keys.dataset_train_split.clone();
        let name = self.keys.dataset()?.to_owned();
        self.read(&name, &split)
    }

    /// The rows to evaluate on, where the request evaluates
    pub fn eval_rows(&mut self) -> Result<Option<Dataset>> {
        if self.keys.eval_strategy == Strategy::No && !self.keys.eval_on_start {
            return Ok(None);
        }
        let split = self.keys.dataset_test_split.clone();
        if let Some(name) = self.keys.eval_dataset.clone() {
            // A dataset named for evaluation alone may be a plain file, whose only split is `train`
            let known = self.splits(&name)?;
            let split = if known.contains(&split) || known.len() != 1 { split } else { known[0].clone() };
            return self.read(&name, &split).map(Some);
        }
        let name = self.keys.dataset()?.to_owned();
        if !self.splits(&name)?.contains(&split) {
            return Err(Error::usage(format!(
                "`eval_strategy` needs held-out rows, and `{name}` has no split `{split}`"
            ))
            .hint("set `eval_dataset`, or `dataset_test_split`, or `eval_strategy: no`"));
        }
        self.read(&name, &split).map(Some)
    }

    fn splits(&self, name: &str) -> Result<Vec<String>> {
        let config = self.keys.dataset_config.as_deref();
        match self.hub.local_dataset(name)? {
            Some(path) => splits(&path, config),
            None => self.hub.dataset_splits(name, None, config),
        }
    }

    fn read(&mut self, name: &str, split: &str) -> Result<Dataset> {
        let config = self.keys.dataset_config.clone();
        let columns = self.keys.columns.iter().map(|(found, expected)| (found.to_owned(), expected.clone())).collect();
        let options = ReadOptions { split: split.to_owned(), config, columns };
        let dataset = if let Some(path) = self.hub.local_dataset(name)? {
            read_dataset(&path, &options)?
        } else {
            // The card of a dataset on the Hub says which file is which split; the others stay there
            let files = self.hub.dataset_files(name, None, options.config.as_deref(), &[split])?;
            read_split(Path::new(name), files.into_iter().map(|file| file.path).collect(), &options)?
        };
        for file in &dataset.files {
            self.sha256.insert(file.clone(), files::sha256_file(file)?);
        }
        Ok(dataset)
    }

    /// Notes for the manifest what became of a dataset's rows
    pub fn note_rows(&mut self, split: &str, report: &RowReport) {
        self.rows.insert(split.to_owned(), json!(report));
    }

    /// Claims the folder for good, writes manifest and config
    pub fn begin(mut self) -> Result<(RunFolder, Option<Checkpoint>, Manifest, ModelSource)> {
        for name in ["config.json", "tokenizer.json"] {
            let path = self.source.folder.join(name);
            if path.is_file() {
                self.sha256.insert(path.clone(), files::sha256_file(&path)?);
            }
        }
        if !self.keys.from_scratch {
            for path in weight_files(&self.source.folder)? {
                self.sha256.insert(path.clone(), files::sha256_file(&path)?);
            }
        }
        let (folder, checkpoint) = self.pending.begin()?;
        let start = Start {
            command: self.context.command_line,
            seed: self.keys.seed,
            threads: rayon::current_num_threads(),
            resumed_from_step: folder.resumed_from(),
            sha256: self.sha256.into_iter().map(|(path, sum)| (path.display().to_string(), json!(sum))).collect(),
            rows: Value::Object(self.rows),
        };
        // The manifest comes first: without it a killed start leaves a `config.yaml` that looks like someone else's
        let mut manifest = Manifest::start(folder.join(crate::run::names::MANIFEST), start)?;
        if let Err(error) = folder.write(crate::run::names::CONFIG, self.resolved.as_bytes()) {
            manifest.finish(Err(&error))?;
            return Err(error);
        }
        Ok((folder, checkpoint, manifest, self.source))
    }
}
