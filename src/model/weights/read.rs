//! One weight file: its table of tensors, and each tensor read straight into its own vector of f32.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use candle_core::pickle::PthTensors;
use candle_core::{DType, Device, Tensor};
use half::{bf16, f16};
use safetensors::Dtype;
use safetensors::tensor::Metadata;

use crate::{Error, Result};

/// First bytes of the text that git checks out in place of a large file when git-lfs is not installed
const LFS_POINTER: &[u8] = b"version https://git-lfs";
/// Bytes of the length field before a safetensors header
const LENGTH_FIELD: u64 = 8;
/// What the safetensors format allows for a header
const MAX_HEADER: u64 = 100_000_000;
/// Bytes converted at a time; a multiple of every element size
const CHUNK: usize = 1 << 20;

/// A tensor in a file
#[derive(Debug, Clone)]
pub(super) struct Entry {
    /// As in the file
    pub name: String,
    pub shape: Vec<usize>,
    place: Place,
}

#[derive(Debug, Clone)]
enum Place {
    Bytes {
        start: u64,
        element: Element,
    },
    Pickled,
    /// Known by name only, such as a quantised tensor; an error if it is asked for
    Unsupported(String),
}

#[derive(Debug, Clone, Copy)]
enum Element {
    F16,
    Bf16,
    F32,
    F64,
}

/// An open weight file
pub(super) struct Archive {
    pub path: PathBuf,
    pub entries: Vec<Entry>,
    content: Content,
}

enum Content {
    Safetensors(File),
    Pickle(PthTensors),
}

impl Archive {
    pub fn open(path: PathBuf) -> Result<Self> {
        let (file, length) = open_data(&path)?;
        let is_pickle = path.extension().is_some_and(|extension| extension == "bin");
        if is_pickle { Self::open_pickle(path, &file) } else { Self::open_safetensors(path, file, length) }
    }

    fn open_safetensors(path: PathBuf, file: File, length: u64) -> Result<Self> {
        let damaged = |what: String| {
            Error::usage(format!("`{}` is not a whole safetensors file: {what}", path.display()))
                .hint("the download or the copy broke off, or this is another kind of file: fetch it again")
        };
        if length < LENGTH_FIELD {
            return Err(damaged(format!("only {length} bytes long")));
        }
        let mut field = [0; LENGTH_FIELD as usize];
        file.read_exact_at(&mut field, 0).map_err(|cause| Error::read(&path, cause))?;
        let header_length = u64::from_le_bytes(field);
        if header_length > MAX_HEADER || header_length > length - LENGTH_FIELD {
            return Err(damaged(format!("its header claims {header_length} bytes, the file has {length}")));
        }
        let mut header = vec![0; header_length as usize];
        file.read_exact_at(&mut header, LENGTH_FIELD).map_err(|cause| Error::read(&path, cause))?;
        let metadata: Metadata =
            serde_json::from_slice(&header).map_err(|cause| damaged(format!("bad header: {cause}")))?;
        let data_start = LENGTH_FIELD + header_length;
        let expected = data_start + metadata.data_len() as u64;
        if expected != length {
            return Err(damaged(format!("its header describes {expected} bytes, the file has {length}")));
        }
        let entries = metadata
            .offset_keys()
            .into_iter()
            .filter_map(|name| {
                let info = metadata.info(&name)?;
                let element = match info.dtype {
                    Dtype::F16 => Some(Element::F16),
                    Dtype::BF16 => Some(Element::Bf16),
                    Dtype::F32 => Some(Element::F32),
                    Dtype::F64 => Some(Element::F64),
                    _ => None,
                };
                let start = data_start + info.data_offsets.0 as u64;
                let place = element.map_or_else(
                    || Place::Unsupported(info.dtype.to_string()),
                    |element| Place::Bytes { start, element },
                );
                Some(Entry { name, shape: info.shape.clone(), place })
            })
            .collect();
        Ok(Self { path, entries, content: Content::Safetensors(file) })
    }

    fn open_pickle(path: PathBuf, file: &File) -> Result<Self> {
        let mut magic = [0; 2];
        file.read_exact_at(&mut magic, 0).map_err(|cause| Error::read(&path, cause))?;
        if magic[0] == 0x80 {
            return Err(Error::usage(format!("`{}` is in the format of PyTorch before 1.6", path.display())).hint(
                "rewrite it with PyTorch: `torch.save(torch.load(path, weights_only=True), path)`, or save the model as \
                 `model.safetensors`",
            ));
        }
        let damaged = |cause: String| {
            Error::usage(format!("`{}` is not a whole PyTorch file: {cause}", path.display()))
                .hint("the download or the copy broke off, or this is another kind of file: fetch it again")
        };
        if &magic != b"PK" {
            return Err(damaged("it does not begin like a zip archive".into()));
        }
        let pickle = PthTensors::new(&path, None).map_err(|cause| damaged(cause.to_string()))?;
        let mut entries: Vec<_> = pickle
            .tensor_infos()
            .values()
            .map(|info| {
                let place = match info.dtype {
                    DType::F16 | DType::BF16 | DType::F32 | DType::F64 => Place::Pickled,
                    other => Place::Unsupported(other.as_str().to_owned()),
                };
                Entry { name: info.name.clone(), shape: info.layout.dims().to_vec(), place }
            })
            .collect();
        entries.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(Self { path, entries, content: Content::Pickle(pickle) })
    }

    /// Reads one tensor as f32
    pub fn read(&self, entry: &Entry) -> Result<Tensor> {
        let values = match (&self.content, &entry.place) {
            (Content::Safetensors(file), Place::Bytes { start, element }) => {
                read_values(file, *start, entry.shape.iter().product(), *element)
                    .map_err(|cause| Error::read(&self.path, format!("tensor `{}`: {cause}", entry.name)))?
            }
            (Content::Pickle(pickle), Place::Pickled) => read_pickled(pickle, &entry.name).map_err(|cause| {
                Error::usage(format!("`{}`: cannot read tensor `{}`: {cause}", self.path.display(), entry.name))
                    .hint("the file is damaged: fetch it again")
            })?,
            (_, Place::Unsupported(dtype)) => {
                return Err(Error::usage(format!(
                    "`{}`: tensor `{}` has elements of type {dtype}",
                    self.path.display(),
                    entry.name
                ))
                .hint("weights must be F32, F16, BF16 or F64; save the model without quantisation"));
            }
            _ => return Err(Error::run(format!("tensor `{}` does not belong to this file", entry.name))),
        };
        if let Some(index) = values.iter().position(|value| !value.is_finite()) {
            return Err(Error::usage(format!(
                "`{}`: tensor `{}` holds {} at element {index}",
                self.path.display(),
                entry.name,
                values[index]
            ))
            .hint("the training run that wrote it diverged, or the file is damaged"));
        }
        Ok(Tensor::from_vec(values, entry.shape.as_slice(), &Device::Cpu)?)
    }
}

fn read_values(file: &File, start: u64, count: usize, element: Element) -> std::io::Result<Vec<f32>> {
    match element {
        Element::F32 => convert(file, start, count, f32::from_le_bytes),
        Element::F16 => convert(file, start, count, |bytes| f16::from_le_bytes(bytes).to_f32()),
        Element::Bf16 => convert(file, start, count, |bytes| bf16::from_le_bytes(bytes).to_f32()),
        Element::F64 => convert(file, start, count, |bytes| f64::from_le_bytes(bytes) as f32),
    }
}

/// Reads `count` elements of `N` bytes in chunks, so that the file is never in memory beside its tensors
fn convert<const N: usize>(
    file: &File,
    start: u64,
    count: usize,
    to_f32: impl Fn([u8; N]) -> f32,
) -> std::io::Result<Vec<f32>> {
    let mut values = Vec::with_capacity(count);
    let mut buffer = vec![0; CHUNK.min(count * N)];
    let mut position = start;
    let mut left = count * N;
    while left > 0 {
        let chunk = &mut buffer[..left.min(CHUNK)];
        file.read_exact_at(chunk, position)?;
        values.extend(chunk.as_chunks::<N>().0.iter().map(|bytes| to_f32(*bytes)));
        position += chunk.len() as u64;
        left -= chunk.len();
    }
    Ok(values)
}

fn read_pickled(pickle: &PthTensors, name: &str) -> candle_core::Result<Vec<f32>> {
    let tensor = pickle.get(name)?.ok_or_else(|| candle_core::Error::Msg("not in the file".into()))?;
    tensor.to_dtype(DType::F32)?.flatten_all()?.to_vec1()
}

/// Opens a file that must hold data, and says so where it is empty or only a git-lfs pointer; also returns its length.
fn open_data(path: &Path) -> Result<(File, u64)> {
    let mut file = File::open(path).map_err(|cause| Error::read(path, cause))?;
    let length = file.metadata().map_err(|cause| Error::read(path, cause))?.len();
    if length == 0 {
        return Err(Error::usage(format!("`{}` is empty (0 bytes)", path.display()))
            .hint("the download or the copy broke off: fetch the file again"));
    }
    let mut start = vec![0; LFS_POINTER.len().min(length as usize)];
    file.read_exact(&mut start).map_err(|cause| Error::read(path, cause))?;
    if start == LFS_POINTER {
        return Err(Error::usage(format!(
            "`{}` is a git-lfs pointer ({length} bytes of text), not the file itself",
            path.display()
        ))
        .hint("run `git lfs install` and `git lfs pull` in that folder"));
    }
    Ok((file, length))
}
