//! The reference model of a run: frozen, following the policy, or asked once before the first step, with its answers
//! kept on disk between runs (`cache_dir`).

use std::path::{Path, PathBuf};

use candle_core::{Device, Tensor};
use safetensors::tensor::{Dtype, TensorView};
use safetensors::{SafeTensors, serialize};
use sha2::{Digest, Sha256};

use super::objective::{Pass, Split};
use super::reference_model::ReferenceModel;
use super::session::Session;
use crate::config::ReferenceKeys;
use crate::data::PreferenceExample;
use crate::files;
use crate::model::gpt2::Gpt2;
use crate::ops::view::Values;
use crate::run::{Checkpoint, CheckpointWriter};
use crate::{Error, Result};

/// Changes whenever the same key could stand for other numbers
const FORMAT: &[u8] = b"reference log-probabilities 2";
const NAME: &str = "log_probs";

/// Σ log π_ref of both sequences of each pair under a model
pub type Score<'a> = dyn Fn(&Gpt2, &[&PreferenceExample]) -> Result<Tensor> + 'a;

/// Where log π_ref comes from
pub enum Reference {
    /// A model, asked in every step
    Model(ReferenceModel),
    /// Both sums of each training and each held-out pair, computed before the first step
    Precomputed([Vec<[f32; 2]>; 2]),
}

impl Reference {
    /// As the keys ask for it; `score` gives (2B,) sums, and `kind` tells one such function from another in the cache
    pub fn new(
        model: &Gpt2,
        keys: &ReferenceKeys,
        sync: Option<(f64, u64)>,
        session: &Session,
        pairs: [&[PreferenceExample]; 2],
        kind: &str,
        score: &Score<'_>,
    ) -> Result<Self> {
        let cache_dir = session.keys.cache_dir.as_deref().filter(|_| sync.is_none());
        if session.keys.cache_dir.is_some() && sync.is_some() {
            tracing::info!("`cache_dir` keeps tokens alone: `sync_ref_model` moves the reference model");
        }
        if !keys.precompute_ref_log_probs && cache_dir.is_none() {
            return ReferenceModel::new(model, sync).map(Self::Model);
        }
        let view = model.detached()?;
        let batches = [session.keys.per_device_train_batch_size, session.keys.per_device_eval_batch_size];
        let [train, eval] = [0, 1].map(|split| {
            let (pairs, batch) = (pairs[split], keys.precompute_ref_batch_size.unwrap_or(batches[split]));
            let compute = || {
                let mut all = Vec::with_capacity(pairs.len());
                for pairs in pairs.chunks(batch) {
                    let sums = score(&view, &pairs.iter().collect::<Vec<_>>())?.to_vec1::<f32>()?;
                    all.extend((0..pairs.len()).map(|i| [sums[i], sums[pairs.len() + i]]));
                }
                Ok(all)
            };
            match cache_dir {
                Some(folder) if !pairs.is_empty() => {
                    cached(&cache_file(Path::new(folder), &view, pairs, batch, kind)?, pairs.len(), compute)
                }
                _ => compute(),
            }
        });
        Ok(Self::Precomputed([train?, eval?]))
    }

    /// The sums of the pass's pairs, (2B,)
    pub fn sums(&self, pass: &Pass<'_>, pairs: &[&PreferenceExample], score: &Score<'_>) -> Result<Tensor> {
        match self {
            Self::Model(model) => score(model.get(), pairs),
            Self::Precomputed(sums) => {
                let sums = &sums[usize::from(pass.split == Split::Eval)];
                let side = |side: usize| pass.rows.iter().map(move |&row| sums[row][side]);
                let values: Vec<f32> = side(0).chain(side(1)).collect();
                Ok(Tensor::new(values, &Device::Cpu)?)
            }
        }
    }

    /// Lets the reference model follow the policy, where it does
    pub fn end_step(&mut self, policy: &Gpt2, step: u64) -> Result<()> {
        match self {
            Self::Model(model) => model.end_step(policy, step),
            Self::Precomputed(_) => Ok(()),
        }
    }

    /// Writes what a resumed run cannot take from the start again
    pub fn save(&self, checkpoint: &CheckpointWriter) -> Result<()> {
        match self {
            Self::Model(model) => model.save(checkpoint),
            Self::Precomputed(_) => Ok(()),
        }
    }

    /// Puts it back
    pub fn restore(&mut self, checkpoint: &Checkpoint) -> Result<()> {
        match self {
            Self::Model(model) => model.restore(checkpoint),
            Self::Precomputed(_) => Ok(()),
        }
    }
}

/// The cache file for these pairs under this model: its name says the weights, the precision and every token
fn cache_file(
    cache_dir: &Path,
    model: &Gpt2,
    pairs: &[PreferenceExample],
    batch: usize,
    kind: &str,
) -> Result<PathBuf> {
    let mut hash = Sha256::new().chain_update(FORMAT).chain_update((batch as u64).to_le_bytes());
    hash.update(format!("{kind} {:?}", model.precision()));
    hash.update(
        serde_json::to_vec(&model.config().to_map(crate::model::config::Architecture::LmHead)).unwrap_or_default(),
    );
    for (name, tensor) in model.weights() {
        hash.update(name);
        hash.update(bytemuck::cast_slice::<f32, u8>(&Values::new(tensor)?));
    }
    for pair in pairs {
        for (prompt, completion) in [pair.chosen_sequence(), pair.rejected_sequence()] {
            for ids in [prompt, completion] {
                // Lengths keep the parts apart
                hash.update((ids.len() as u64).to_le_bytes());
                hash.update(bytemuck::cast_slice::<u32, u8>(ids));
            }
        }
    }
    Ok(cache_dir.join(format!("reference-{}.safetensors", files::hex(&hash.finalize()))))
}

/// Both sums of each pair from `file`, or from `compute`, whose result is then written there
fn cached(file: &Path, pairs: usize, compute: impl FnOnce() -> Result<Vec<[f32; 2]>>) -> Result<Vec<[f32; 2]>> {
    if let Ok(bytes) = std::fs::read(file) {
        if let Some(sums) = decode(&bytes, pairs) {
            return Ok(sums);
        }
        tracing::warn!("`{}` is damaged and is computed again", file.display());
    }
    let sums = compute()?;
    let view = TensorView::new(Dtype::F32, vec![pairs, 2], bytemuck::cast_slice(&sums))
        .and_then(|view| serialize([(NAME, view)], None))
        .map_err(|cause| Error::write(file, cause))?;
    files::write_bytes(file, &view)?;
    Ok(sums)
}

fn decode(bytes: &[u8], pairs: usize) -> Option<Vec<[f32; 2]>> {
    let file = SafeTensors::deserialize(bytes).ok()?;
    let tensor = file.tensor(NAME).ok()?;
    let values: Vec<f32> =
        tensor.data().chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect();
    let sums: Vec<[f32; 2]> = values.chunks_exact(2).map(|pair| [pair[0], pair[1]]).collect();
    (tensor.dtype() == Dtype::F32 && sums.len() == pairs && values.iter().all(|value| value.is_finite()))
        .then_some(sums)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_run_reads_what_the_first_one_computed_and_a_damaged_file_is_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("cache").join("reference.safetensors");
        std::fs::create_dir(file.parent().unwrap()).unwrap();
        let sums = vec![[-1.5, -2.25], [-3.0, -0.125]];
        assert_eq!(cached(&file, 2, || Ok(sums.clone())).unwrap(), sums);
        assert_eq!(cached(&file, 2, || panic!("computed twice")).unwrap(), sums);
        let whole = std::fs::read(&file).unwrap();
        for end in [0, 10, whole.len() - 1] {
            std::fs::write(&file, &whole[..end]).unwrap();
            assert_eq!(cached(&file, 2, || Ok(sums.clone())).unwrap(), sums);
            assert_eq!(std::fs::read(&file).unwrap(), whole);
        }
    }
}
