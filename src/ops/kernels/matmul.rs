//! Matrix products: in f32 through the `gemm` crate (AVX-512 kernels, chosen at run time), in bfloat16 through
//! `blocked`.

use rayon::prelude::*;

use super::blocked::{self, Blocks};
use super::buffer;
use super::tiles::Loop;

/// A matrix inside a slice: element (i, j) lies at `offset + i·row + j·col`
#[derive(Clone, Copy)]
pub struct Mat<'a> {
    /// Storage
    pub data: &'a [f32],
    /// Distance between rows
    pub row: usize,
    /// Distance between columns
    pub col: usize,
}

impl<'a> Mat<'a> {
    /// Row-major with `cols` columns
    pub fn rows(data: &'a [f32], cols: usize) -> Self {
        Self { data, row: cols, col: 1 }
    }

    /// Row-major with a distance of `stride` between rows
    pub fn strided(data: &'a [f32], stride: usize) -> Self {
        Self { data, row: stride, col: 1 }
    }

    /// The transpose: no copy
    #[must_use]
    pub fn t(self) -> Self {
        Self { data: self.data, row: self.col, col: self.row }
    }

    pub(super) fn check(&self, rows: usize, cols: usize) {
        if rows > 0 && cols > 0 {
            let last = (rows - 1) * self.row + (cols - 1) * self.col;
            assert!(last < self.data.len(), "matrix ({rows}, {cols}) outside its slice of {}", self.data.len());
        }
    }
}

/// A product to be taken: alpha·A·B, with A (m, k) and B (k, n)
#[derive(Clone, Copy)]
pub struct Product<'a> {
    /// m, n and k
    pub shape: [usize; 3],
    /// Factor
    pub alpha: f32,
    /// A
    pub a: Mat<'a>,
    /// B
    pub b: Mat<'a>,
}

impl<'a> Product<'a> {
    /// A·B, its sizes as m, n, k
    pub fn new(shape: [usize; 3], a: Mat<'a>, b: Mat<'a>) -> Self {
        Self { shape, alpha: 1.0, a, b }
    }

    /// alpha·A·B
    #[must_use]
    pub fn times(self, alpha: f32) -> Self {
        Self { alpha, ..self }
    }

    pub(super) fn check(&self) {
        let [m, n, k] = self.shape;
        self.a.check(m, k);
        self.b.check(k, n);
    }

    pub(super) fn multiply_adds(&self) -> usize {
        self.shape.iter().product()
    }
}

/// What a product is added to
#[derive(Clone, Copy, Debug)]
pub enum Addend<'a> {
    /// Nothing
    None,
    /// One row of n numbers, in every row
    Bias(&'a [f32]),
    /// What stands where the product goes
    Result,
}

impl Addend<'_> {
    /// For some of the result's columns alone
    pub(super) fn columns(self, first: usize, count: usize) -> Self {
        match self {
            Self::Bias(bias) => Self::Bias(&bias[first..][..count]),
            other => other,
        }
    }

    /// Whether a bias has as many numbers as the result has columns
    pub(super) fn fits(&self, n: usize) -> bool {
        !matches!(self, Self::Bias(bias) if bias.len() != n)
    }
}

/// The number type of a product's operands; sums are f32 in both
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Precision {
    /// f32 as it is
    #[default]
    F32,
    /// Rounded to bfloat16, where the processor multiplies it
    Bf16,
}

/// Products below this many multiply-adds stay on the calling thread: splitting would cost more than it brings
pub(super) const SERIAL_BELOW: usize = 1 << 18;

impl Precision {
    /// The product (+ bias, in every row), (m, n)
    ///
    /// Parallel over the current rayon pool when large; k is never split, so the result does not depend on threads.
    ///
    /// # Panics
    /// For bfloat16 where the processor has no such products
    pub fn matmul(self, product: Product, bias: Option<&[f32]>) -> Vec<f32> {
        let [m, n, _] = product.shape;
        // SAFETY: the product writes all of it
        let mut c = unsafe { buffer(m * n) };
        self.matmul_to(product, &mut c, bias.map_or(Addend::None, Addend::Bias));
        c
    }

    /// [`Self::matmul`] into memory of the caller: C (m, n) ← product + addend
    pub fn matmul_to(self, product: Product, c: &mut [f32], addend: Addend) {
        let [m, n, k] = product.shape;
        if m == 0 || n == 0 {
            return;
        }
        assert!(c.len() == m * n, "a result ({m}, {n}) in a slice of {}", c.len());
        assert!(addend.fits(n), "a bias of another length than {n}");
        // A product of nothing is 0 in either precision
        if self == Self::Bf16 && k > 0 {
            return blocked::matmul(Loop::best(self), Blocks::default(), product, c, addend);
        }
        let threads = if product.multiply_adds() < SERIAL_BELOW { 1 } else { rayon::current_num_threads() };
        if let Addend::Bias(bias) = addend {
            let fill = |row: &mut [f32]| row.copy_from_slice(bias);
            if threads > 1 {
                c.par_chunks_mut(n).with_min_len(32).for_each(fill);
            } else {
                c.chunks_mut(n).for_each(fill);
            }
        }
        let accumulate = !matches!(addend, Addend::None);
        // SAFETY: the result is in bounds and exclusively borrowed
        unsafe { matmul_raw(product, c.as_mut_ptr(), n, accumulate, threads) }
    }
}

/// C ← product (+ C where `accumulate`) in f32 into a raw destination on one thread, for kernels that are parallel at a
/// higher level
///
/// # Safety
/// `c` must be valid for writes at all (m, n) places of stride `c_row`, and nobody else may touch them meanwhile.
pub unsafe fn matmul_serial(product: Product, c: *mut f32, c_row: usize, accumulate: bool) {
    // SAFETY: the caller's promise
    unsafe { matmul_raw(product, c, c_row, accumulate, 1) }
}

#[allow(clippy::inline_always)]
#[inline(always)]
unsafe fn matmul_raw(product: Product, c: *mut f32, c_row: usize, accumulate: bool, threads: usize) {
    let Product { shape: [m, n, k], alpha, a, b } = product;
    if m == 0 || n == 0 {
        return;
    }
    product.check();
    let parallelism = if threads > 1 { gemm::Parallelism::Rayon(threads) } else { gemm::Parallelism::None };
    // SAFETY: operands were checked against their slices; the destination is the caller's promise
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            c,
            1,
            c_row as isize,
            accumulate,
            a.data.as_ptr(),
            a.col as isize,
            a.row as isize,
            b.data.as_ptr(),
            b.col as isize,
            b.row as isize,
            1.0,
            alpha,
            false,
            false,
            false,
            parallelism,
        );
    }
}
