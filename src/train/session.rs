//! What every recipe does before its first step: find model, tokenizer and data, and claim the run folder.

use std::cell::OnceCell;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::thread::{self, JoinHandle};

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use super::datasets::Rows;
use super::objective::Split;
use super::source::ModelSource;
use crate::config::{Context, Resume as ResumeKey, TrainKeys};
use crate::data::{Dataset, Prepared, RowReport, Tokenizer, Truncation, cached_examples};
use crate::files;
use crate::model::gpt2::Gpt2;
use crate::model::hub::Hub;
use crate::model::weights::weight_files;
use crate::ops::Precision;
use crate::ops::kernels::bf16_supported;
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
    /// Of the model's files, while it is read
    model_sums: JoinHandle<Result<Vec<(PathBuf, String)>>>,
    max_length: OnceCell<usize>,
}

impl Session {
    /// Claims the run folder, finds the model and reads its config and tokenizer
    pub fn open(keys: TrainKeys, resolved: String, context: &Context) -> Result<Self> {
        if keys.bf16 && !bf16_supported() {
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
        source.warn_of_token_field();
        if let Some(token) = &keys.pad_token {
            source.tokenizer.set_pad_token(token)?;
        }
        let model_sums = model_sums(&source.folder, !keys.from_scratch);
        Ok(Self {
            keys,
            resolved,
            source,
            context: context.clone(),
            hub,
            pending,
            rows: Map::new(),
            sha256: BTreeMap::new(),
            model_sums,
            max_length: OnceCell::new(),
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
        if self.keys.bf16 && bf16_supported() { Precision::Bf16 } else { Precision::F32 }
    }

    /// Where models and datasets come from
    pub fn hub(&self) -> &Hub {
        &self.hub
    }

    /// Gives the tokenizer another end token and chat template, where the request names them
    pub fn adapt_tokenizer(&mut self, eos_token: Option<&str>, chat_template_path: Option<&str>) -> Result<()> {
        if let Some(token) = eos_token {
            self.source.tokenizer.set_eos_token(token)?;
        }
        if let Some(name) = chat_template_path {
            let template = self.chat_template(name)?;
            self.source.tokenizer.set_chat_template(&template)?;
        }
        Ok(())
    }

    /// Finds a chat template: a Jinja file, or the folder or id of a tokenizer that has one
    fn chat_template(&self, name: &str) -> Result<String> {
        let path = Path::new(name);
        if path.is_file() {
            return std::fs::read_to_string(path).map_err(|cause| Error::read(path, cause));
        }
        let other = Tokenizer::from_folder(&self.hub.tokenizer(name, None)?)?;
        other.chat_template_source(false).map(ToOwned::to_owned).ok_or_else(|| {
            Error::usage(format!("the tokenizer of `chat_template_path`, `{name}`, has no chat template"))
        })
    }

    /// `max_length`, no longer than the model's positions; told of once
    pub fn max_length(&self) -> usize {
        let positions = self.source.config.n_positions;
        *self.max_length.get_or_init(|| match self.keys.max_length {
            Some(length) if length <= positions => length,
            asked => {
                let asked = asked.map_or_else(|| "null".to_owned(), |length| length.to_string());
                tracing::info!("`max_length` is {positions}, the model's positions, not {asked}");
                positions
            }
        })
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
        let rows = Rows::train(&self.hub, &self.keys)?;
        self.hash(&rows)?;
        rows.read()
    }

    /// The rows to evaluate on, where the request evaluates
    pub fn eval_rows(&mut self) -> Result<Option<Dataset>> {
        let Some(rows) = Rows::eval(&self.hub, &self.keys)? else { return Ok(None) };
        self.hash(&rows)?;
        rows.read().map(Some)
    }

    /// The examples that `make` makes of a split's rows, from `cache_dir` where they were made before; none for a split
    /// that the request does not use. `kind` says all that decides over the result besides rows and tokenizer
    pub fn examples<T: Serialize + DeserializeOwned>(
        &mut self,
        split: Split,
        kind: &str,
        make: impl FnOnce(&Dataset, &Tokenizer) -> Result<Prepared<T>>,
    ) -> Result<Vec<T>> {
        let rows = match split {
            Split::Train => Some(Rows::train(&self.hub, &self.keys)?),
            Split::Eval => Rows::eval(&self.hub, &self.keys)?,
        };
        let Some(rows) = rows else { return Ok(Vec::new()) };
        self.hash(&rows)?;
        let make = || make(&rows.read()?, &self.source.tokenizer);
        let Prepared { examples, report } = match &self.keys.cache_dir {
            None => make()?,
            Some(folder) => {
                let file = Path::new(folder).join(format!("tokens-{}.bin", self.fingerprint(&rows, kind)?));
                cached_examples(&file, &rows.name(), make)?
            }
        };
        self.note_rows(split, &report);
        Ok(examples)
    }

    /// Stands for the bytes of the files, the rows that are taken of them, the tokenizer and `kind`
    fn fingerprint(&self, rows: &Rows, kind: &str) -> Result<String> {
        let mut hash = Sha256::new().chain_update(self.source.tokenizer.fingerprint()?);
        let sums = rows.files().map(|file| self.sha256.get(file).cloned().unwrap_or_default());
        for part in [env!("CARGO_PKG_VERSION").to_owned(), kind.to_owned(), rows.describe()].into_iter().chain(sums) {
            // Lengths keep the parts apart
            hash.update((part.len() as u64).to_le_bytes());
            hash.update(part);
        }
        Ok(files::hex(&hash.finalize()))
    }

    fn hash(&mut self, rows: &Rows) -> Result<()> {
        for file in rows.files() {
            if !self.sha256.contains_key(file) {
                self.sha256.insert(file.to_path_buf(), files::sha256_file(file)?);
            }
        }
        Ok(())
    }

    /// Notes for the manifest what became of a dataset's rows
    pub fn note_rows(&mut self, split: Split, report: &RowReport) {
        self.rows.insert(split.name().to_owned(), json!(report));
    }

    /// Claims the folder for good, writes manifest and config
    pub fn begin(mut self) -> Result<(RunFolder, Option<Checkpoint>, Manifest, ModelSource)> {
        self.sha256.extend(self.model_sums.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?);
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

/// SHA-256 of config, tokenizer and weights, on a thread of its own: for weights it takes as long as to read them
fn model_sums(folder: &Path, with_weights: bool) -> JoinHandle<Result<Vec<(PathBuf, String)>>> {
    let folder = folder.to_path_buf();
    thread::spawn(move || {
        let small =
            ["config.json", "tokenizer.json"].map(|name| folder.join(name)).into_iter().filter(|path| path.is_file());
        let weights = if with_weights { weight_files(&folder)? } else { Vec::new() };
        let sum = |path: PathBuf| files::sha256_file(&path).map(|sum| (path, sum));
        small.chain(weights).map(sum).collect()
    })
}
