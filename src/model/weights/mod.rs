//! Weights in and out: safetensors and PyTorch files to f32 tensors on the CPU, and back to `model.safetensors`.
//!
//! Names are those of transformers, with or without the `transformer.` prefix. This room knows which names a file may
//! carry beside those that were asked for; which names a model has is `gpt2`'s business.

mod plan;
mod read;
mod source;
mod write;

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use candle_core::Tensor;
use rayon::prelude::*;

use crate::Result;
pub(crate) use source::{CANDIDATES as WEIGHTS_CANDIDATES, is_foreign, is_index, shards};
pub use write::save;

/// The one file that is written
pub const WEIGHTS_FILE: &str = "model.safetensors";

/// Reads the tensors `wanted` (name and shape) from a model folder, converted to f32.
///
/// Files are taken in the order that transformers takes them: `model.safetensors`, its sharded form, `pytorch_model.bin`,
/// its sharded form. The result has the names of `wanted`. Names in `optional` may be absent from the file and are then
/// absent from the result. Attention buffers (`h.N.attn.bias`, `h.N.attn.masked_bias`) are skipped, as is a
/// `lm_head.weight` that was not asked for (a tied model) once its shape is found to be that of the embedding.
///
/// # Errors
/// Missing, unexpected and wrongly shaped tensors (all of them in one message), damaged files, NaN and Inf.
pub fn load(folder: &Path, wanted: &[(String, Vec<usize>)], optional: &[&str]) -> Result<HashMap<String, Tensor>> {
    load_as(folder, wanted, optional, |_, tensor| Ok(tensor))
}

/// [`load`] that hands each tensor to `convert` as soon as it is read: what it drops is never in memory with the rest
pub fn load_as<T: Send>(
    folder: &Path,
    wanted: &[(String, Vec<usize>)],
    optional: &[&str],
    convert: impl Fn(&str, Tensor) -> Result<T> + Sync,
) -> Result<HashMap<String, T>> {
    let archives = source::open_all(folder)?;
    let reads = plan::match_names(folder, &archives, wanted, optional)?;
    let tensors: Vec<Result<(String, T)>> = reads
        .par_iter()
        .map(|(name, archive, entry)| Ok((name.clone(), convert(name, archive.read(entry)?)?)))
        .collect();
    // In the order of `wanted`, so that the first complaint does not depend on which thread was faster
    tensors.into_iter().collect()
}

/// The weight files that [`load`] reads from this folder: one, or the shards in name order
pub fn weight_files(folder: &Path) -> Result<Vec<PathBuf>> {
    source::find(folder)
}
