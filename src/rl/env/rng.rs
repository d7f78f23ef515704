//! numpy's default generator, bit by bit: `SeedSequence` and PCG64 (XSL-RR 128/64), as `numpy.random.default_rng(seed)`
//! and with it Gymnasium's `np_random`.
//!
//! O'Neill, "PCG: A Family of Simple Fast Space-Efficient Statistically Good Algorithms for Random Number Generation",
//! 2014; bounded integers after Lemire, "Fast Random Integer Generation in an Interval", 2019.

use serde::{Deserialize, Serialize};

const POOL: usize = 4;
const XSHIFT: u32 = 16;
const MULTIPLIER: u128 = 0x2360_ed05_1fc6_5da4_4385_df64_9fcc_f645;

/// A running hash of numpy's `SeedSequence`
struct HashMix {
    constant: u32,
    multiplier: u32,
}

impl HashMix {
    fn next(&mut self, value: u32) -> u32 {
        let value = value ^ self.constant;
        self.constant = self.constant.wrapping_mul(self.multiplier);
        let value = value.wrapping_mul(self.constant);
        value ^ (value >> XSHIFT)
    }
}

/// Spreads one number over as many words of state as a generator wants
#[derive(Debug, Clone)]
pub struct SeedSequence {
    pool: [u32; POOL],
}

impl SeedSequence {
    /// From the integer that numpy calls entropy
    pub fn new(entropy: u128) -> Self {
        let mut hash = HashMix { constant: 0x43b0_d7e5, multiplier: 0x931e_8875 };
        let mut pool = [0, 1, 2, 3].map(|word| hash.next((entropy >> (32 * word)) as u32));
        for source in 0..POOL {
            for target in (0..POOL).filter(|target| *target != source) {
                let left = pool[target].wrapping_mul(0xca01_f9dd);
                let mixed = left.wrapping_sub(hash.next(pool[source]).wrapping_mul(0x4973_f715));
                pool[target] = mixed ^ (mixed >> XSHIFT);
            }
        }
        Self { pool }
    }

    /// The first `N` words of 64 bits that it generates
    pub fn generate_state<const N: usize>(&self) -> [u64; N] {
        let mut hash = HashMix { constant: 0x8b51_f9dd, multiplier: 0x58f3_8ded };
        let mut word = 0;
        [(); N].map(|()| {
            let [low, high] = [word, word + 1].map(|at| hash.next(self.pool[at % POOL]));
            word += 2;
            u64::from(high) << 32 | u64::from(low)
        })
    }
}

/// `numpy.random.default_rng(seed)`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pcg64 {
    #[serde(with = "hexadecimal")]
    state: u128,
    #[serde(with = "hexadecimal")]
    increment: u128,
    /// The upper half of a draw whose lower half was asked for
    spare: Option<u32>,
}

impl Pcg64 {
    /// The generator of a seed
    pub fn new(seed: u128) -> Self {
        let words: [u64; 4] = SeedSequence::new(seed).generate_state();
        let [state, sequence] = [0, 2].map(|at| u128::from(words[at]) << 64 | u128::from(words[at + 1]));
        let increment = sequence << 1 | 1;
        let mut generator = Self { state: increment.wrapping_add(state), increment, spare: None };
        generator.advance();
        generator
    }

    fn advance(&mut self) {
        self.state = self.state.wrapping_mul(MULTIPLIER).wrapping_add(self.increment);
    }

    /// 64 random bits
    pub fn next_u64(&mut self) -> u64 {
        self.advance();
        let folded = (self.state >> 64) as u64 ^ self.state as u64;
        folded.rotate_right((self.state >> 122) as u32)
    }

    /// 32 random bits: a draw's lower half, then its upper half
    pub fn next_u32(&mut self) -> u32 {
        if let Some(upper) = self.spare.take() {
            return upper;
        }
        let both = self.next_u64();
        self.spare = Some((both >> 32) as u32);
        both as u32
    }

    /// From `[0, 1)`, in steps of 2⁻⁵³
    pub fn random(&mut self) -> f64 {
        (self.next_u64() >> 11) as f64 * (1.0 / 9_007_199_254_740_992.0)
    }

    /// From `[low, high)`
    pub fn uniform(&mut self, low: f64, high: f64) -> f64 {
        low + (high - low) * self.random()
    }

    /// From `low..high`, as `Generator.integers` and `Generator.choice` draw
    ///
    /// # Panics
    /// If there is no number from `low` to `high`
    pub fn integers(&mut self, low: i64, high: i64) -> i64 {
        assert!(low < high, "no integer lies in {low}..{high}");
        let largest = high.wrapping_sub(low) as u64 - 1;
        let drawn = match u32::try_from(largest) {
            Ok(0) => 0,
            Ok(u32::MAX) => u64::from(self.next_u32()),
            Ok(largest) => u64::from(self.lemire_u32(largest)),
            Err(_) => self.lemire_u64(largest),
        };
        low.wrapping_add(drawn as i64)
    }

    /// From `0..=largest`, which is neither end of the type
    fn lemire_u32(&mut self, largest: u32) -> u32 {
        let count = largest + 1;
        let threshold = (u32::MAX - largest) % count;
        loop {
            let product = u64::from(self.next_u32()) * u64::from(count);
            if product as u32 >= threshold {
                return (product >> 32) as u32;
            }
        }
    }

    /// The same in 64 bits
    fn lemire_u64(&mut self, largest: u64) -> u64 {
        let count = largest + 1;
        let threshold = (u64::MAX - largest) % count;
        loop {
            let product = u128::from(self.next_u64()) * u128::from(count);
            if product as u64 >= threshold {
                return (product >> 64) as u64;
            }
        }
    }
}

/// JSON has no numbers of 128 bits
mod hexadecimal {
    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serializer};

    pub fn serialize<S: Serializer>(number: &u128, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("{number:032x}"))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u128, D::Error> {
        let text = String::deserialize(deserializer)?;
        u128::from_str_radix(&text, 16).map_err(D::Error::custom)
    }
}
