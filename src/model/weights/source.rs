//! Which files of a model folder hold the weights.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::WEIGHTS_FILE;
use super::read::Archive;
use crate::{Error, Result};

const SAFETENSORS_INDEX: &str = "model.safetensors.index.json";
const PICKLE_FILE: &str = "pytorch_model.bin";
const PICKLE_INDEX: &str = "pytorch_model.bin.index.json";

/// Weight files and their index files, the preferred one first
pub(crate) const CANDIDATES: [&str; 4] = [WEIGHTS_FILE, SAFETENSORS_INDEX, PICKLE_FILE, PICKLE_INDEX];

/// Whether this candidate lists shards instead of holding weights
pub(crate) fn is_index(name: &str) -> bool {
    name.ends_with(".index.json")
}

/// Opens every weight file of the folder and reads the headers
pub(super) fn open_all(folder: &Path) -> Result<Vec<Archive>> {
    find(folder)?.into_iter().map(Archive::open).collect()
}

pub(super) fn find(folder: &Path) -> Result<Vec<PathBuf>> {
    let Some(name) = CANDIDATES.into_iter().find(|name| folder.join(name).exists()) else {
        return Err(nothing_found(folder));
    };
    let path = folder.join(name);
    if !is_index(name) {
        return Ok(vec![path]);
    }
    let shards = shards(&path)?;
    let absent: Vec<_> = shards.iter().filter(|shard| !folder.join(shard).exists()).collect();
    if let Some(first) = absent.first() {
        return Err(Error::usage(format!(
            "`{}` names {} shards, but {} of them do not exist, such as `{first}`",
            path.display(),
            shards.len(),
            absent.len()
        ))
        .hint("the download or the copy broke off: fetch the missing shards"));
    }
    Ok(shards.into_iter().map(|shard| folder.join(shard)).collect())
}

/// The shards that an index file names, in name order
pub(crate) fn shards(index: &Path) -> Result<Vec<String>> {
    let text = std::fs::read_to_string(index).map_err(|cause| Error::read(index, cause))?;
    let value: Value = serde_json::from_str(&text).map_err(|cause| {
        Error::usage(format!("{}:{}:{}: not valid JSON: {cause}", index.display(), cause.line(), cause.column()))
    })?;
    let malformed = |what: &str| Error::usage(format!("`{}`: {what}", index.display()));
    let map = value
        .get("weight_map")
        .and_then(Value::as_object)
        .filter(|map| !map.is_empty())
        .ok_or_else(|| malformed("expected an object `weight_map` from tensor names to file names"))?;
    let mut shards = BTreeSet::new();
    for (tensor, shard) in map {
        let shard = shard.as_str().ok_or_else(|| malformed(&format!("`weight_map.{tensor}` is not a file name")))?;
        // An index comes from elsewhere: it must not reach outside its folder
        if shard.is_empty() || shard == ".." || shard.contains(['/', '\\']) {
            return Err(malformed(&format!("`weight_map.{tensor}`: `{shard}` is not a plain file name")));
        }
        shards.insert(shard.to_owned());
    }
    Ok(shards.into_iter().collect())
}

fn nothing_found(folder: &Path) -> Error {
    let mut found: Vec<String> = std::fs::read_dir(folder)
        .map(|entries| entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect())
        .unwrap_or_default();
    found.sort();
    let error = Error::usage(format!("no weights in `{}`", folder.display()));
    if found.iter().any(|name| name == "adapter_model.safetensors" || name == "adapter_model.bin") {
        return error.hint("the folder holds a LoRA adapter: merge it into its base model (peft: `merge_and_unload`)");
    }
    if let Some(other) = found.iter().find(|name| is_foreign(name)) {
        return error.hint(format!("`{other}` is not supported: save the model as `{WEIGHTS_FILE}`"));
    }
    if let Some(checkpoint) = found.iter().rev().find(|name| name.starts_with("checkpoint-")) {
        return error.hint(format!("did you mean `{}`?", folder.join(checkpoint).display()));
    }
    error.hint(format!("expected `{WEIGHTS_FILE}`, `{SAFETENSORS_INDEX}` or `{PICKLE_FILE}`"))
}

/// Weights of another framework
pub(crate) fn is_foreign(name: &str) -> bool {
    [".h5", ".msgpack", ".gguf", ".onnx", ".ot", ".ckpt"].iter().any(|extension| name.ends_with(extension))
}
