//! Numbers that begin where a vector does: a vector that lies across two cache lines takes two reads.

use std::ops::{Deref, DerefMut};

/// As many numbers as a vector and a cache line hold
#[derive(Debug, Clone, Copy, Default)]
#[repr(C, align(64))]
struct Line([f32; 16]);

/// A vector of numbers at a multiple of 64 bytes; its length is one of 16
#[derive(Debug, Clone, Default)]
pub struct Aligned(Vec<Line>);

impl Aligned {
    /// `n` zeros, or a few more
    pub fn new(n: usize) -> Self {
        Self(vec![Line::default(); n.div_ceil(16)])
    }

    /// All of them, after growing to `n` where there are fewer
    pub fn at_least(&mut self, n: usize) -> &mut [f32] {
        if self.len() < n {
            self.0.resize(n.div_ceil(16), Line::default());
        }
        self
    }
}

impl Deref for Aligned {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        // SAFETY: a line is sixteen numbers and nothing else
        unsafe { std::slice::from_raw_parts(self.0.as_ptr().cast(), 16 * self.0.len()) }
    }
}

impl DerefMut for Aligned {
    fn deref_mut(&mut self) -> &mut [f32] {
        // SAFETY: as above
        unsafe { std::slice::from_raw_parts_mut(self.0.as_mut_ptr().cast(), 16 * self.0.len()) }
    }
}
