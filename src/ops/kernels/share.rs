//! A slice that several threads write at places that do not overlap.

use std::marker::PhantomData;

/// Hands out raw access to a slice across threads; who uses it proves that the places are disjoint
#[derive(Clone, Copy)]
pub struct Shared<'a, T = f32> {
    pointer: *mut T,
    len: usize,
    _lifetime: PhantomData<&'a mut [T]>,
}

// SAFETY: access goes through `range`, whose callers promise disjoint ranges
unsafe impl<T: Send> Send for Shared<'_, T> {}
// SAFETY: as above
unsafe impl<T: Send> Sync for Shared<'_, T> {}

impl<'a, T> Shared<'a, T> {
    /// Borrows the slice for as long as the copies of this handle live
    pub fn new(slice: &'a mut [T]) -> Self {
        Self { pointer: slice.as_mut_ptr(), len: slice.len(), _lifetime: PhantomData }
    }

    /// # Safety
    /// No other live reference may touch a place inside `start..start + len` that this caller writes.
    #[allow(clippy::mut_from_ref)]
    pub unsafe fn range(&self, start: usize, len: usize) -> &'a mut [T] {
        assert!(start + len <= self.len, "range {start}+{len} outside a slice of {}", self.len);
        // SAFETY: in bounds, and disjoint by the caller's promise
        unsafe { std::slice::from_raw_parts_mut(self.pointer.add(start), len) }
    }

    /// The raw pointer at `start`, with `span` elements in bounds behind it
    pub fn pointer(&self, start: usize, span: usize) -> *mut T {
        assert!(start + span <= self.len, "span {start}+{span} outside a slice of {}", self.len);
        // SAFETY: in bounds
        unsafe { self.pointer.add(start) }
    }
}
