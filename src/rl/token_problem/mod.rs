//! A language problem that can be enumerated: prompts with features, a bigram reference, a reward for every step, noise.
//!
//! The soft optimum and the objective J = E r − τ KL of any policy are computed exactly, so that methods are compared by
//! what they reached and not by what a judge saw. Prompts have an offset that no response can change: a value field that
//! knows it removes variance. It is a smooth function of the features, or (unstructured) has nothing to do with them.

mod arms;
mod critic;
mod doubt;
mod methods;
mod policy;
mod problem;

pub use arms::{ARMS, Arm};
pub use doubt::{DOUBTERS, Doubts, doubts};
pub use methods::{Field, Method, Point, Settings, run};
pub use policy::Policy;
pub use problem::Problem;

use rand::Rng;

/// In (0, 1]
fn uniform(rng: &mut impl Rng) -> f64 {
    ((rng.next_u64() >> 11) as f64 + 1.0) / (1_u64 << 53) as f64
}

fn normal(rng: &mut impl Rng) -> f64 {
    let (u, v) = (uniform(rng), uniform(rng));
    (-2.0 * u.ln()).sqrt() * (2.0 * std::f64::consts::PI * v).cos()
}

fn below(rng: &mut impl Rng, n: usize) -> usize {
    (((rng.next_u64() >> 11) as f64 / (1_u64 << 53) as f64) * n as f64) as usize
}

fn log_softmax(logits: &mut [f64]) {
    let largest = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let total = largest + logits.iter().map(|x| (x - largest).exp()).sum::<f64>().ln();
    for x in logits {
        *x -= total;
    }
}
