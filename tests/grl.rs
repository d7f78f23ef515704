//! Reinforcement fields: the limits in which they must equal something known, other programs' numbers, and bad input.

#![allow(clippy::unwrap_used)]

#[path = "grl/bad_input.rs"]
mod bad_input;
#[path = "grl/classical.rs"]
mod classical;
#[path = "grl/fields.rs"]
mod fields;
#[path = "grl/language.rs"]
mod language;
#[path = "grl/losses.rs"]
mod losses;
#[path = "grl/token_td.rs"]
mod token_td;

use collimate::grl::arrays::Owner;
use collimate::grl::kernel::Point;
use collimate::grl::memory::PromptMemory;
use serde_json::Value;

/// The tolerance of every limit that is not bitwise
const EXACT: f64 = 1e-10;

fn golden(name: &str) -> Value {
    let path = format!("{}/tests/goldens/{name}", env!("CARGO_MANIFEST_DIR"));
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

fn numbers(value: &Value) -> Vec<f64> {
    serde_json::from_value(value.clone()).unwrap()
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap()
}

fn rows(value: &Value) -> Vec<Vec<f32>> {
    serde_json::from_value(value.clone()).unwrap()
}

#[track_caller]
fn close(got: f64, want: f64, tolerance: f64) {
    assert!((got - want).abs() <= tolerance * (1.0 + want.abs()), "{got}, expected {want}");
}

#[track_caller]
fn all_close(got: &[f64], want: &[f64], tolerance: f64) {
    assert_eq!(got.len(), want.len());
    for (i, (got, want)) in got.iter().zip(want).enumerate() {
        assert!((got - want).abs() <= tolerance * (1.0 + want.abs()), "[{i}]: {got}, expected {want}");
    }
}

fn owner() -> Owner {
    Owner { model: "tiny".to_owned(), feature_map: "map 1".to_owned() }
}

/// A memory without features in which each (prompt, soft return) was seen
fn identities(seen: &[(u64, f64)]) -> PromptMemory {
    let mut memory = PromptMemory::new(0, 64, 0.0).unwrap();
    for (key, b) in seen {
        memory.observe(Point::id(*key), *b, 0).unwrap();
    }
    memory
}

/// SplitMix64: a generator with nothing to install, for worlds and data of tests
struct Noise(u64);

impl Noise {
    fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    fn uniform(&mut self) -> f64 {
        (self.bits() >> 11) as f64 / (1_u64 << 53) as f64
    }

    fn below(&mut self, n: usize) -> usize {
        (self.uniform() * n as f64) as usize
    }

    /// Between -1 and 1, many
    fn signed(&mut self, n: usize) -> Vec<f64> {
        (0..n).map(|_| 2.0 * self.uniform() - 1.0).collect()
    }
}
