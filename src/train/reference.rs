//! Log-probabilities under the frozen start of a run, kept on disk between runs (`cache_dir`).

use std::path::{Path, PathBuf};

use safetensors::tensor::{Dtype, TensorView};
use safetensors::{SafeTensors, serialize};
use sha2::{Digest, Sha256};

use crate::data::PreferenceExample;
use crate::files;
use crate::model::gpt2::Gpt2;
use crate::ops::view::Values;
use crate::{Error, Result};

/// Changes whenever the same key could stand for other numbers
const FORMAT: &[u8] = b"reference log-probabilities, f32, 1";
const NAME: &str = "log_probs";

/// The cache file for these pairs under this model: its name says the weights, the precision and every token
pub fn cache_file(cache_dir: &Path, model: &Gpt2, pairs: &[PreferenceExample], batch: usize) -> Result<PathBuf> {
    let mut hash = Sha256::new().chain_update(FORMAT).chain_update((batch as u64).to_le_bytes());
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

/// (chosen, rejected) of each pair from `file`, or from `compute`, whose result is then written there
pub fn cached(file: &Path, pairs: usize, compute: impl FnOnce() -> Result<Vec<[f32; 2]>>) -> Result<Vec<[f32; 2]>> {
    if let Ok(bytes) = std::fs::read(file) {
        match decode(&bytes, pairs) {
            Some(sums) => return Ok(sums),
            None => tracing::warn!("`{}` is damaged and is computed again", file.display()),
        }
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
