//! From logits to a token, with transformers' processors in transformers' order.

use crate::ops::kernels::noise::mix;
use crate::ops::kernels::vector;

/// How a token is chosen
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sampling {
    /// Divides the logits; 0 takes the likeliest token
    pub temperature: f64,
    /// Keeps this many of the likeliest tokens; 0 keeps all
    pub top_k: usize,
    /// Keeps the likeliest tokens until their probability reaches this; 1 keeps all
    pub top_p: f64,
    /// Keeps tokens of at least this share of the likeliest one's probability
    pub min_p: Option<f64>,
    /// Divides positive and multiplies negative logits of tokens that occurred
    pub repetition_penalty: f64,
}

impl Default for Sampling {
    fn default() -> Self {
        Self { temperature: 1.0, top_k: 0, top_p: 1.0, min_p: None, repetition_penalty: 1.0 }
    }
}

/// A chosen token
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Choice {
    /// Its id
    pub id: u32,
    /// Its log-probability under the distribution that it was drawn from, truncation included; 0 for the likeliest token
    pub log_prob: f32,
}

/// A uniform number in [0, 1) that depends on seed, stream and position alone: what a sequence draws does not depend on
/// what shares its batch
pub fn uniform(seed: u64, stream: u64, position: u64) -> f64 {
    (mix(mix(mix(seed) ^ stream) ^ position) >> 11) as f64 / (1_u64 << 53) as f64
}

impl Sampling {
    /// Chooses a token; `logits` are overwritten, `seen` are the sequence's tokens so far, `u` is uniform in [0, 1)
    ///
    /// Order: repetition penalty, temperature, top-k, top-p, min-p, each on what the one before left.
    pub fn choose(&self, logits: &mut [f32], seen: &[u32], u: f64) -> Choice {
        self.penalise(logits, seen);
        if self.temperature == 0.0 {
            let mut best = 0;
            for (id, logit) in logits.iter().enumerate() {
                if *logit > logits[best] {
                    best = id;
                }
            }
            return Choice { id: best as u32, log_prob: 0.0 };
        }
        if self.temperature != 1.0 {
            vector::scale(logits, (1.0 / self.temperature) as f32);
        }
        self.truncate(logits);
        // From here on: probabilities, unnormalised
        let max = vector::max(logits);
        let sums: Vec<f64> = logits.chunks_mut(BLOCK).map(|block| f64::from(vector::exp_shifted(block, max))).collect();
        let id = draw(logits, &sums, u);
        Choice { id: id as u32, log_prob: (f64::from(logits[id]) / sums.iter().sum::<f64>()).ln() as f32 }
    }

    fn penalise(&self, logits: &mut [f32], seen: &[u32]) {
        if self.repetition_penalty == 1.0 {
            return;
        }
        let penalty = self.repetition_penalty as f32;
        let mut seen = seen.to_vec();
        seen.sort_unstable();
        seen.dedup();
        for id in seen {
            if let Some(logit) = logits.get_mut(id as usize) {
                *logit = if *logit < 0.0 { *logit * penalty } else { *logit / penalty };
            }
        }
    }

    /// Sets logits outside top-k, top-p and min-p to −∞
    fn truncate(&self, logits: &mut [f32]) {
        if self.top_k > 0 && self.top_k < logits.len() {
            let mut sorted = logits.to_vec();
            let (_, kth, _) = sorted.select_nth_unstable_by(self.top_k - 1, |a, b| b.total_cmp(a));
            let kth = *kth;
            // Ties with the k-th stay, as in transformers
            logits.iter_mut().filter(|logit| **logit < kth).for_each(|logit| *logit = f32::NEG_INFINITY);
        }
        if self.top_p < 1.0 {
            let max = vector::max(logits);
            let mut order: Vec<(f32, usize)> =
                logits.iter().enumerate().filter(|(_, z)| **z > f32::NEG_INFINITY).map(|(i, z)| (*z, i)).collect();
            // Largest first; among equals the later index, which an ascending stable sort removes last
            order.sort_unstable_by(|a, b| b.0.total_cmp(&a.0).then(b.1.cmp(&a.1)));
            let total: f64 = order.iter().map(|(z, _)| f64::from(z - max).exp()).sum();
            let mut before = 0.0;
            for (i, (z, id)) in order.iter().enumerate() {
                if i > 0 && before >= self.top_p * total {
                    logits[*id] = f32::NEG_INFINITY;
                }
                before += f64::from(z - max).exp();
            }
        }
        if let Some(min_p) = self.min_p.filter(|min_p| *min_p > 0.0) {
            let floor = f64::from(vector::max(logits)) + min_p.ln();
            logits.iter_mut().filter(|z| f64::from(**z) < floor).for_each(|z| *z = f32::NEG_INFINITY);
        }
    }
}

/// Weights that are summed together
const BLOCK: usize = 1024;

/// The first index at which the running sum passes `u` of the total; `sums` are those of blocks
fn draw(weights: &[f32], sums: &[f64], u: f64) -> usize {
    // Blocks first: the scan inside one block alone is sequential
    let target = u * sums.iter().sum::<f64>();
    let mut before = 0.0;
    for (block, sum) in sums.iter().enumerate() {
        if before + sum > target {
            for (i, weight) in weights[block * BLOCK..].iter().take(BLOCK).enumerate() {
                before += f64::from(*weight);
                if before > target && *weight > 0.0 {
                    return block * BLOCK + i;
                }
            }
        } else {
            before += sum;
        }
    }
    // Rounding carried the target past the end: the last token that can be drawn
    weights.iter().rposition(|weight| *weight > 0.0).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use candle_core::{Device, Tensor};
    use candle_transformers::generation::{LogitsProcessor, Sampling as Oracle};

    use super::*;

    const LOGITS: [f32; 8] = [0.3, 2.0, -1.0, 1.1, 0.9, -3.0, 2.5, 0.0];

    /// Exact probabilities of our sampler, by asking it at a fine grid of `u`
    fn probabilities(sampling: Sampling) -> [f64; 8] {
        let mut p = [0.0; 8];
        for i in 0..20_000 {
            let choice = sampling.choose(&mut LOGITS.clone(), &[], (f64::from(i) + 0.5) / 20_000.0);
            p[choice.id as usize] += 1.0 / 20_000.0;
        }
        p
    }

    #[test]
    fn draws_have_the_distribution_of_candle_transformers() {
        let n = 20_000_u32;
        let cases = [
            (Sampling::default(), Oracle::All { temperature: 1.0 }),
            (Sampling { temperature: 0.6, ..Sampling::default() }, Oracle::All { temperature: 0.6 }),
            (Sampling { top_k: 3, ..Sampling::default() }, Oracle::TopK { k: 3, temperature: 1.0 }),
            (
                Sampling { top_p: 0.7, temperature: 1.3, ..Sampling::default() },
                Oracle::TopP { p: 0.7, temperature: 1.3 },
            ),
        ];
        for (ours, theirs) in cases {
            let p = probabilities(ours);
            let mut oracle = LogitsProcessor::from_sampling(1, theirs.clone());
            let logits = Tensor::new(&LOGITS, &Device::Cpu).unwrap();
            let mut counts = [0_u32; 8];
            for _ in 0..n {
                counts[oracle.sample(&logits).unwrap() as usize] += 1;
            }
            for (id, (count, p)) in counts.iter().zip(p).enumerate() {
                let (got, sd) = (f64::from(*count) / f64::from(n), (p * (1.0 - p) / f64::from(n)).sqrt());
                assert!((got - p).abs() <= 5.0 * sd + 1e-3, "{theirs:?} token {id}: {got}, ours {p}");
            }
        }
    }

    #[test]
    fn log_prob_is_that_of_the_truncated_distribution() {
        let sampling = Sampling { top_k: 4, temperature: 0.8, min_p: Some(0.3), ..Sampling::default() };
        let p = probabilities(sampling);
        let mut total = 0.0;
        for id in 0..8 {
            let u = p[..id].iter().sum::<f64>() + p[id] / 2.0;
            if p[id] > 0.0 {
                let choice = sampling.choose(&mut LOGITS.clone(), &[], u);
                assert_eq!(choice.id as usize, id);
                assert!((f64::from(choice.log_prob).exp() - p[id]).abs() < 2e-4);
                total += f64::from(choice.log_prob).exp();
            }
        }
        assert!((total - 1.0).abs() < 1e-6);
        assert_eq!(p.iter().filter(|p| **p > 0.0).count(), 2, "{p:?}");
    }

    #[test]
    fn the_likeliest_token_and_the_penalty() {
        let greedy = Sampling { temperature: 0.0, ..Sampling::default() };
        assert_eq!(greedy.choose(&mut LOGITS.clone(), &[], 0.9).id, 6);
        assert_eq!(greedy.choose(&mut [1.0, 2.0, 2.0], &[], 0.9).id, 1, "the first among equals");
        let penalised = Sampling { repetition_penalty: 2.0, ..greedy };
        assert_eq!(penalised.choose(&mut LOGITS.clone(), &[6, 6], 0.0).id, 1);
        let mut logits = [-1.0, -1.5];
        assert_eq!(penalised.choose(&mut logits, &[0], 0.0).id, 1, "a negative logit goes further down");
    }

    #[test]
    fn every_u_draws_a_token_that_can_be_drawn() {
        let weights: Vec<f32> = (0..3000).map(|i| if i % 7 == 3 { 1.0 } else { 0.0 }).collect();
        let sums: Vec<f64> = weights.chunks(BLOCK).map(|block| block.iter().sum::<f32>().into()).collect();
        for i in 0..5000 {
            assert_eq!(draw(&weights, &sums, f64::from(i) / 5000.0) % 7, 3);
        }
        assert_eq!(draw(&weights, &sums, 1.0 - 1e-16) % 7, 3);
    }
}
