//! Counter-based noise for dropout: the mask of an element depends on a key and its index alone, so backward and a
//! resumed run rebuild it without storing it.

/// Avalanche mix of a 64-bit counter (SplitMix64's finaliser)
#[inline(always)]
pub fn mix(x: u64) -> u64 {
    let mut z = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// A stream of masks: probability of dropping, and the key that names the place and time
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Dropout {
    /// Probability that an element is dropped, in [0, 1)
    pub p: f32,
    /// Seed, step, micro-batch and site, mixed
    pub key: u64,
}

impl Dropout {
    /// 0 where element `index` is dropped, else 1/(1 − p)
    #[inline(always)]
    pub fn factor(&self, index: u64) -> f32 {
        // 24 high bits as a uniform number in [0, 1)
        let uniform = (mix(self.key ^ index) >> 40) as f32 * (1.0 / 16_777_216.0);
        if uniform < self.p { 0.0 } else { 1.0 / (1.0 - self.p) }
    }

    /// x ← mask·x for elements `first..first + x.len()`
    pub fn apply(&self, x: &mut [f32], first: u64) {
        for (i, value) in x.iter_mut().enumerate() {
            *value *= self.factor(first + i as u64);
        }
    }

    /// The same probability at another site
    #[must_use]
    pub fn site(&self, site: u64) -> Self {
        Self { p: self.p, key: mix(self.key ^ mix(site)) }
    }
}
