//! Slices of CPU tensors for the kernels.

use std::ops::Deref;

use candle_core::{CpuStorage, DType, Layout, Result, Storage, StorageRef, Tensor, bail};

/// The contiguous f32 slice behind a storage, or an error that names the operation
pub fn slice<'a>(op: &str, storage: &'a CpuStorage, layout: &Layout) -> Result<&'a [f32]> {
    let CpuStorage::F32(data) = storage else { bail!("{op}: expected f32 on the CPU") };
    let Some((start, end)) = layout.contiguous_offsets() else { bail!("{op}: expected a contiguous tensor") };
    Ok(&data[start..end])
}

/// Read access to the values of a contiguous f32 tensor on the CPU
pub struct Values<'a> {
    storage: StorageRef<'a>,
    range: (usize, usize),
}

impl<'a> Values<'a> {
    /// # Errors
    /// Another type, device, or a tensor that is not contiguous
    pub fn new(tensor: &'a Tensor) -> Result<Self> {
        let (storage, layout) = tensor.storage_and_layout();
        match (&*storage, layout.contiguous_offsets()) {
            (Storage::Cpu(CpuStorage::F32(_)), Some(range)) => Ok(Self { storage, range }),
            _ => bail!("expected a contiguous f32 tensor on the CPU, got {:?} {:?}", tensor.dtype(), tensor.shape()),
        }
    }
}

impl Deref for Values<'_> {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        match &*self.storage {
            Storage::Cpu(CpuStorage::F32(values)) => &values[self.range.0..self.range.1],
            _ => unreachable!("checked when made"),
        }
    }
}

/// Whether the f32 kernels can run on this tensor
pub fn has_kernel(tensor: &Tensor) -> bool {
    tensor.dtype() == DType::F32 && tensor.device().is_cpu()
}
