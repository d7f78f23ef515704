//! Named arrays of plain numbers in a checkpoint (safetensors), written from and read into memory without a second copy.

use std::borrow::Cow;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use bytemuck::Pod;
use safetensors::Dtype;
use safetensors::tensor::{Metadata, TensorInfo, View};

use crate::error::{Error, Result};

// Both the format and the casts below are little-endian
const _: () = assert!(cfg!(target_endian = "little"), "big-endian machines are not supported");

/// A number type that can lie in a checkpoint
pub trait Element: Pod {
    /// Its name in the file
    const DTYPE: Dtype;
}

macro_rules! elements {
    ($($number:ty => $dtype:ident),*) => { $(impl Element for $number { const DTYPE: Dtype = Dtype::$dtype; })* };
}
elements!(f32 => F32, f64 => F64, u8 => U8, u32 => U32, i64 => I64, u64 => U64);

/// A borrowed array with a shape
#[derive(Debug, Clone)]
pub struct Slice<'a> {
    dtype: Dtype,
    shape: Vec<usize>,
    bytes: &'a [u8],
}

impl<'a> Slice<'a> {
    /// A flat array
    pub fn flat<T: Element>(values: &'a [T]) -> Self {
        Self { dtype: T::DTYPE, shape: vec![values.len()], bytes: bytemuck::cast_slice(values) }
    }

    /// An array of this shape
    ///
    /// # Panics
    /// Where the shape does not hold as many elements as there are
    pub fn shaped<T: Element>(shape: &[usize], values: &'a [T]) -> Self {
        let product: usize = shape.iter().product();
        assert_eq!(product, values.len(), "shape {shape:?} does not hold {} elements", values.len());
        Self { shape: shape.to_vec(), ..Self::flat(values) }
    }
}

impl View for Slice<'_> {
    fn dtype(&self) -> Dtype {
        self.dtype
    }

    fn shape(&self) -> &[usize] {
        &self.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        Cow::Borrowed(self.bytes)
    }

    fn data_len(&self) -> usize {
        self.bytes.len()
    }
}

/// A safetensors file of which single tensors are read
#[derive(Debug)]
pub struct TensorFile {
    path: PathBuf,
    file: File,
    metadata: Metadata,
    data_start: u64,
}

impl TensorFile {
    /// Reads the header
    pub fn open(path: &Path) -> Result<Self> {
        let fail = |cause: &dyn std::fmt::Display| Error::read(path, cause);
        let mut file = File::open(path).map_err(|e| fail(&e))?;
        let mut length = [0; 8];
        file.read_exact(&mut length).map_err(|e| fail(&e))?;
        let length = u64::from_le_bytes(length);
        let size = file.metadata().map_err(|e| fail(&e))?.len();
        if length > size.saturating_sub(8) {
            return Err(fail(&format!("a header of {length} bytes does not fit into a file of {size}")));
        }
        let mut header = vec![0; length as usize];
        file.read_exact(&mut header).map_err(|e| fail(&e))?;
        let metadata = serde_json::from_slice(&header).map_err(|e| fail(&e))?;
        Ok(Self { path: path.to_path_buf(), file, metadata, data_start: 8 + length })
    }

    /// The names, in no particular order
    pub fn names(&self) -> Vec<String> {
        self.metadata.tensors().into_keys().collect()
    }

    /// The shape of a tensor
    pub fn shape(&self, name: &str) -> Result<&[usize]> {
        Ok(&self.info(name)?.shape)
    }

    /// The elements of a tensor
    pub fn read<T: Element>(&mut self, name: &str) -> Result<Vec<T>> {
        let elements = self.shape(name)?.iter().product();
        let mut values = vec![T::zeroed(); elements];
        self.read_into(name, &mut values)?;
        Ok(values)
    }

    /// The elements of a tensor, into memory that is already there
    pub fn read_into<T: Element>(&mut self, name: &str, into: &mut [T]) -> Result<()> {
        let info = self.info(name)?;
        let (dtype, (begin, end)) = (info.dtype, info.data_offsets);
        let expected = size_of_val(into);
        if dtype != T::DTYPE || end - begin != expected {
            let found = end - begin;
            let message =
                format!("tensor `{name}`: expected {expected} bytes of {}, found {found} of {dtype}", T::DTYPE);
            return Err(Error::read(&self.path, message));
        }
        let from = SeekFrom::Start(self.data_start + begin as u64);
        self.file
            .seek(from)
            .and_then(|_| self.file.read_exact(bytemuck::cast_slice_mut(into)))
            .map_err(|cause| Error::read(&self.path, cause))
    }

    fn info(&self, name: &str) -> Result<&TensorInfo> {
        self.metadata.info(name).ok_or_else(|| Error::read(&self.path, format!("no tensor `{name}`")))
    }
}
