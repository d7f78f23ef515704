//! `model.safetensors`, streamed from the tensors' own storage.

use std::collections::HashMap;
use std::io::{self, Write};
use std::path::Path;

use candle_core::{CpuStorage, DType, Device, Storage, Tensor};
use safetensors::Dtype;
use safetensors::tensor::{Metadata, TensorInfo};

use super::WEIGHTS_FILE;
use crate::{Error, Result, files};

/// Writes `model.safetensors` into `folder`, as f32, with the names that transformers uses.
///
/// Parts of the backbone (`wte`, `wpe`, `h`, `ln_f`) get the `transformer.` prefix where they lack it; heads keep their
/// names. Tensors lie in name order and the header is that of the safetensors library, so the bytes depend on names and
/// values alone and are those that Python's `safetensors.torch.save_file(..., metadata={"format": "pt"})` writes.
pub fn save(folder: &Path, tensors: &[(String, Tensor)]) -> Result<()> {
    let mut named: Vec<(String, &Tensor)> = tensors.iter().map(|(name, tensor)| (saved_name(name), tensor)).collect();
    named.sort_by(|a, b| a.0.cmp(&b.0));
    if let Some(twice) = named.windows(2).find(|pair| pair[0].0 == pair[1].0) {
        return Err(Error::run(format!("two tensors are named `{}`", twice[0].0)));
    }
    let header = header(&named)?;
    let path = folder.join(WEIGHTS_FILE);
    files::write_atomic(&path, |writer| {
        writer.write_all(&(header.len() as u64).to_le_bytes())?;
        writer.write_all(&header)?;
        named.iter().try_for_each(|(_, tensor)| write_values(writer, tensor))
    })
}

fn saved_name(name: &str) -> String {
    let is_backbone = ["wte.", "wpe.", "h.", "ln_f."].iter().any(|part| name.starts_with(part));
    if is_backbone { format!("transformer.{name}") } else { name.to_owned() }
}

fn header(named: &[(String, &Tensor)]) -> Result<Vec<u8>> {
    let mut offset = 0;
    let infos = named
        .iter()
        .map(|(name, tensor)| {
            let start = offset;
            offset += tensor.elem_count() * size_of::<f32>();
            let info = TensorInfo { dtype: Dtype::F32, shape: tensor.dims().to_vec(), data_offsets: (start, offset) };
            (name.clone(), info)
        })
        .collect();
    // transformers refuses a file that does not say this
    let format = HashMap::from([("format".to_owned(), "pt".to_owned())]);
    let cannot = |cause: String| Error::run(format!("cannot write the weights: {cause}"));
    let metadata = Metadata::new(Some(format), infos).map_err(|cause| cannot(cause.to_string()))?;
    let mut header = serde_json::to_vec(&metadata).map_err(|cause| cannot(cause.to_string()))?;
    header.resize(header.len().next_multiple_of(8), b' ');
    Ok(header)
}

fn write_values(writer: &mut impl Write, tensor: &Tensor) -> io::Result<()> {
    // Nothing is copied for an f32 tensor that lies in order on the CPU, which is what a model's variables are
    let plain = || tensor.to_device(&Device::Cpu)?.to_dtype(DType::F32)?.contiguous();
    let tensor = plain().map_err(io::Error::other)?;
    let (storage, layout) = tensor.storage_and_layout();
    let Storage::Cpu(CpuStorage::F32(values)) = &*storage else {
        return Err(io::Error::other("a tensor moved to the CPU as f32 is something else"));
    };
    let start = layout.start_offset();
    let mut bytes = Vec::with_capacity(1 << 16);
    for chunk in values[start..start + layout.shape().elem_count()].chunks(1 << 14) {
        bytes.clear();
        bytes.extend(chunk.iter().flat_map(|value| value.to_le_bytes()));
        writer.write_all(&bytes)?;
    }
    Ok(())
}
