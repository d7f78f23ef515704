//! Slices of CPU tensors for the kernels.

use candle_core::{CpuStorage, DType, Layout, Result, Storage, Tensor, bail};

/// The contiguous f32 slice behind a storage, or an error that names the operation
pub fn slice<'a>(op: &str, storage: &'a CpuStorage, layout: &Layout) -> Result<&'a [f32]> {
    let CpuStorage::F32(data) = storage else { bail!("{op}: expected f32 on the CPU") };
    let Some((start, end)) = layout.contiguous_offsets() else { bail!("{op}: expected a contiguous tensor") };
    Ok(&data[start..end])
}

/// Runs `f` on the tensor's data, made contiguous first where it is not
pub fn with<R>(op: &str, tensor: &Tensor, f: impl FnOnce(&[f32]) -> Result<R>) -> Result<R> {
    let tensor = tensor.contiguous()?;
    let (storage, layout) = tensor.storage_and_layout();
    match &*storage {
        Storage::Cpu(cpu) => f(slice(op, cpu, layout)?),
        _ => bail!("{op}: expected a tensor on the CPU"),
    }
}

/// Whether the f32 kernels can run on this tensor
pub fn has_kernel(tensor: &Tensor) -> bool {
    tensor.dtype() == DType::F32 && tensor.device().is_cpu()
}
