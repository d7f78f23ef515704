//! What is kept of a memory in files: for an exact resume, and for those who ask later why a prompt has its value.

use std::path::Path;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::Grl;
use super::features::Features;
use super::responses::response_values;
use super::state::Learnt;
use crate::algo::kl::KlController;
use crate::config::GrlKeys;
use crate::grl::arrays::Owner;
use crate::grl::features::FeatureMap;
use crate::grl::fit::Fitted;
use crate::grl::memory::PromptMemory;
use crate::grl::replay::ReplayStore;
use crate::grl::value::Estimator;
use crate::model::gpt2::Gpt2;
use crate::{Error, Result, files};

pub(super) const MEMORY: &str = "memory.safetensors";
pub(super) const FEATURE_MAP: &str = "feature_map.safetensors";
pub(super) const PARTICLES: &str = "particles.json";
const REPLAY: &str = "replay.safetensors";
const RESPONSES: &str = "responses.safetensors";
const RESPONSE_MAP: &str = "response_map.safetensors";

/// Responses of a particle that are kept as text, the newest
const KEPT_TEXTS: usize = 4;

/// State of a checkpoint that is neither memory nor store
#[derive(Serialize, Deserialize)]
struct Saved {
    fitted: Fitted,
    controller: KlController,
    tau: f64,
    next_group: u32,
    /// Of the process over responses
    #[serde(default, skip_serializing_if = "Option::is_none")]
    responses: Option<Fitted>,
    /// Of a value network that shares the policy's states
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    head: Vec<f32>,
}

/// `particles.json`
#[derive(Serialize, Deserialize)]
pub(super) struct Record {
    /// Name and revision of the reference model
    pub model: String,
    pub model_revision: String,
    /// Checksums of the reference model's weights and of the feature map
    pub model_sha256: String,
    pub feature_map_sha256: String,
    pub tau: f64,
    pub estimator: Estimator,
    pub particles: Vec<Particle>,
}

#[derive(Serialize, Deserialize)]
pub(super) struct Particle {
    pub key: String,
    pub row: Option<usize>,
    pub prompt: String,
    pub responses: Vec<Response>,
}

impl Record {
    /// Reads `particles.json` of a folder
    pub(super) fn read(folder: &Path) -> Result<Self> {
        read_record(&folder.join(PARTICLES))
    }

    /// Whose the memory is
    pub(super) fn owner(&self) -> Owner {
        Owner { model: self.model_sha256.clone(), feature_map: self.feature_map_sha256.clone() }
    }

    /// What is told of the particle with this key
    pub(super) fn particle(&self, key: u64) -> Option<&Particle> {
        let name = format!("{key:016x}");
        self.particles.iter().find(|particle| particle.key == name)
    }
}

/// A response behind a particle
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Response {
    /// Its text
    pub text: String,
    /// R
    pub reward: f64,
    /// b = R − τL
    pub soft_return: f64,
}

impl Grl {
    /// Writes memory, feature map and the texts behind the particles
    pub(super) fn keep(&self, folder: &Path, learnt: &Learnt) -> Result<()> {
        write_memory(folder, learnt, &self.features)?;
        let owner = self.features.owner();
        let memory = learnt.values.memory();
        let particle = |key: u64| -> Result<Particle> {
            let row = self.rows.get(&key).copied();
            let own = learnt.store.iter().filter(|rollout| rollout.prompt == key);
            let mut newest: Vec<_> = own.collect();
            newest.drain(..newest.len().saturating_sub(KEPT_TEXTS));
            let prompt = match (row, newest.first()) {
                (Some(row), _) => self.train.prompt_text(row),
                (None, Some(rollout)) => self.train.decode(&rollout.prompt_tokens)?,
                (None, None) => String::new(),
            };
            let response = |rollout: &&crate::grl::replay::Rollout| -> Result<Response> {
                let text = self.train.decode(&rollout.tokens)?;
                Ok(Response { text, reward: rollout.reward, soft_return: rollout.soft_return(learnt.tau) })
            };
            let responses = newest.iter().map(response).collect::<Result<_>>()?;
            Ok(Particle { key: format!("{key:016x}"), row, prompt, responses })
        };
        let record = Record {
            model: self.reference_name.0.clone(),
            model_revision: self.reference_name.1.clone(),
            model_sha256: owner.model.clone(),
            feature_map_sha256: owner.feature_map.clone(),
            tau: learnt.tau,
            estimator: learnt.values.estimator(),
            particles: memory.iter().map(|at| particle(at.point.key)).collect::<Result<_>>()?,
        };
        write_record(&folder.join(PARTICLES), &record)?;
        self.keep_field(folder, learnt)
    }
}

/// Writes memory and feature map
pub(super) fn write_memory(folder: &Path, learnt: &Learnt, features: &Features) -> Result<()> {
    let memory = learnt.values.memory().to_arrays(features.owner());
    files::write_bytes(&folder.join(MEMORY), &memory.to_bytes()?)?;
    match features.map() {
        Some(map) => files::write_bytes(&folder.join(FEATURE_MAP), &map.to_arrays(&features.map_owner()).to_bytes()?),
        None => Ok(()),
    }
}

/// Writes what only a resume needs
pub(super) fn save(
    folder: &Path,
    learnt: &Learnt,
    features: &Features,
    of_responses: Option<&Features>,
    head: Vec<f32>,
) -> Result<Value> {
    if let (Some(values), Some(features)) = (&learnt.responses, of_responses) {
        let memory = values.memory().to_arrays(features.owner());
        files::write_bytes(&folder.join(RESPONSES), &memory.to_bytes()?)?;
        if let Some(map) = features.map() {
            let map = map.to_arrays(&features.map_owner());
            files::write_bytes(&folder.join(RESPONSE_MAP), &map.to_bytes()?)?;
        }
    }
    let bytes = learnt.store.to_arrays(&features.map_owner()).to_bytes()?;
    files::write_bytes(&folder.join(REPLAY), &bytes)?;
    let saved = Saved {
        fitted: learnt.values.fitted().clone(),
        controller: learnt.controller,
        tau: learnt.tau,
        next_group: learnt.next_group,
        responses: learnt.responses.as_ref().map(|values| values.fitted().clone()),
        head,
    };
    serde_json::to_value(saved).map_err(|cause| Error::run(format!("cannot save the state of the run: {cause}")))
}

/// Writes what says whose a memory is
pub(super) fn write_record(path: &Path, record: &impl Serialize) -> Result<()> {
    let mut json = serde_json::to_vec_pretty(record).map_err(|cause| Error::write(path, cause))?;
    json.push(b'\n');
    files::write_bytes(path, &json)
}

/// Reads what [`write_record`] wrote
pub(super) fn read_record<T: DeserializeOwned>(path: &Path) -> Result<T> {
    let text = std::fs::read(path).map_err(|cause| Error::read(path, cause))?;
    serde_json::from_slice(&text)
        .map_err(|cause| Error::read(path, cause).hint("the file is truncated, or was written by another version"))
}

/// Reads a file of the memory, and names it where it is wrong
pub(super) fn read<T>(path: &Path, parse: impl FnOnce(&[u8]) -> Result<T>) -> Result<T> {
    let bytes = std::fs::read(path).map_err(|cause| Error::read(path, cause))?;
    parse(&bytes).map_err(|error| error.context(format_args!("`{}`", path.display())))
}

pub(super) fn read_map(path: &Path, owner: &Owner) -> Result<Option<FeatureMap>> {
    if path.is_file() { read(path, |bytes| FeatureMap::from_bytes(bytes, owner)).map(Some) } else { Ok(None) }
}

/// Puts back what [`save`] and [`write_memory`] wrote; gives the value head
pub(super) fn restore(folder: &Path, state: &Value, learnt: &mut Learnt, features: &mut Features) -> Result<Vec<f32>> {
    let saved = saved(state)?;
    features.set_map(read_map(&folder.join(FEATURE_MAP), &features.map_owner())?)?;
    let memory = read(&folder.join(MEMORY), |bytes| PromptMemory::from_bytes(bytes, features.owner()))?;
    let asked = learnt.values.memory();
    let same = |name: &str, found: usize, asked: usize| {
        if found == asked {
            return Ok(());
        }
        Err(Error::usage(format!("`{name}` is {asked}, and the checkpoint's memory has {found}"))
            .hint("a run resumes with the keys that it began with"))
    };
    same("memory_capacity", memory.capacity(), asked.capacity())?;
    same("feature_dim", memory.dim(), features.dim())?;
    if memory.kappa().to_bits() != asked.kappa().to_bits() {
        let message = format!("`kappa` is {}, and the checkpoint's memory has {}", asked.kappa(), memory.kappa());
        return Err(Error::usage(message).hint("a run resumes with the keys that it began with"));
    }
    learnt.store = read(&folder.join(REPLAY), |bytes| ReplayStore::from_bytes(bytes, &features.map_owner()))?;
    for rollout in learnt.store.iter() {
        features.learn(&rollout.prompt_tokens)?;
    }
    learnt.controller = saved.controller;
    learnt.tau = saved.tau;
    learnt.next_group = saved.next_group;
    learnt.values.restore(memory, saved.fitted)?;
    Ok(saved.head)
}

fn saved(state: &Value) -> Result<Saved> {
    Saved::deserialize(state).map_err(|cause| Error::usage(format!("the checkpoint's state cannot be read: {cause}")))
}

/// Puts back the process over responses; gives their features
pub(super) fn restore_responses(
    folder: &Path,
    state: &Value,
    learnt: &mut Learnt,
    keys: &GrlKeys,
    reference: Gpt2,
) -> Result<Option<Features>> {
    let Some(fitted) = saved(state)?.responses else { return Ok(None) };
    let mut features = Features::with_map(reference, None)?;
    features.set_map(read_map(&folder.join(RESPONSE_MAP), &features.map_owner())?)?;
    let memory = read(&folder.join(RESPONSES), |bytes| PromptMemory::from_bytes(bytes, features.owner()))?;
    let mut values = response_values(keys, features.dim())?;
    values.restore(memory, fitted)?;
    learnt.responses = Some(values);
    Ok(Some(features))
}
