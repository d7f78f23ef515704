//! Memory for packed weights and caches, in large pages where the system has them.
//!
//! They are read from one end to the other for every token. With pages of 4 KiB the processor spends a third of that
//! time looking up addresses; pages of 2 MiB give it back.

use std::ops::{Deref, DerefMut};

/// Zeroed words that never grow
pub struct Pages(Memory);

enum Memory {
    /// Small, or on a system without large pages
    Heap(Vec<u32>),
    #[cfg(target_os = "linux")]
    Mapped(linux::Mapping),
}

impl Pages {
    /// `n` words, all 0
    pub fn new(n: usize) -> Self {
        #[cfg(target_os = "linux")]
        if let Some(mapping) = linux::Mapping::new(n) {
            return Self(Memory::Mapped(mapping));
        }
        Self(Memory::Heap(vec![0; n]))
    }
}

impl Deref for Pages {
    type Target = [u32];

    fn deref(&self) -> &[u32] {
        match &self.0 {
            Memory::Heap(words) => words,
            #[cfg(target_os = "linux")]
            Memory::Mapped(mapping) => mapping.words(),
        }
    }
}

impl DerefMut for Pages {
    fn deref_mut(&mut self) -> &mut [u32] {
        match &mut self.0 {
            Memory::Heap(words) => words,
            #[cfg(target_os = "linux")]
            Memory::Mapped(mapping) => mapping.words_mut(),
        }
    }
}

#[cfg(target_os = "linux")]
mod linux {
    use std::ptr;

    /// Size of a large page
    const LARGE: usize = 2 << 20;

    /// Anonymous memory of its own: recycled heap memory would stay in the small pages that it has
    pub struct Mapping {
        start: *mut libc::c_void,
        length: usize,
        /// The first boundary of a large page
        words: *mut u32,
        n: usize,
    }

    // SAFETY: the mapping belongs to this value alone, like a vector's memory
    unsafe impl Send for Mapping {}
    // SAFETY: as above
    unsafe impl Sync for Mapping {}

    impl Mapping {
        /// None below the size of a page, and where the system refuses
        pub fn new(n: usize) -> Option<Self> {
            let bytes = n.checked_mul(4)?;
            if bytes < LARGE {
                return None;
            }
            let length = bytes.checked_add(LARGE)?;
            let (access, kind) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
            // SAFETY: a new anonymous mapping touches nothing that exists
            let start = unsafe { libc::mmap(ptr::null_mut(), length, access, kind, -1, 0) };
            if start == libc::MAP_FAILED {
                return None;
            }
            let skip = start.cast::<u8>().align_offset(LARGE);
            // SAFETY: `skip` < LARGE, so that `bytes` remain inside the mapping; advice changes no contents, and where it
            // is refused the pages are small
            let words = unsafe {
                let words = start.byte_add(skip);
                libc::madvise(words, bytes, libc::MADV_HUGEPAGE);
                words.cast::<u32>()
            };
            Some(Self { start, length, words, n })
        }

        pub fn words(&self) -> &[u32] {
            // SAFETY: `n` words of the mapping, zeroed by the kernel, aligned, ours
            unsafe { std::slice::from_raw_parts(self.words, self.n) }
        }

        pub fn words_mut(&mut self) -> &mut [u32] {
            // SAFETY: as above, and borrowed mutably
            unsafe { std::slice::from_raw_parts_mut(self.words, self.n) }
        }
    }

    impl Drop for Mapping {
        fn drop(&mut self) {
            // SAFETY: this value made the mapping, and nothing borrows it any more
            unsafe { libc::munmap(self.start, self.length) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_zeroed_and_writable_at_every_size() {
        for n in [0, 1, 1000, (1 << 19) - 1, 1 << 19, (1 << 20) + 7] {
            let mut pages = Pages::new(n);
            assert_eq!(pages.len(), n);
            assert!(pages.iter().all(|word| *word == 0));
            if let Some(last) = pages.last_mut() {
                *last = 7;
            }
            assert_eq!(pages.iter().sum::<u32>(), if n > 0 { 7 } else { 0 });
        }
    }
}
