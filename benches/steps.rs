//! Time of whole steps at GPT-2 124M's shapes with random weights: `cargo bench --bench steps`. Tokens a second.

#![allow(clippy::unwrap_used, missing_docs)]

use std::sync::{Arc, OnceLock};

use collimate::model::Trainable;
use collimate::model::config::Gpt2Config;
use collimate::model::gpt2::Gpt2;
use collimate::model::gpt2::cached::{Decoder, NewTokens};
use collimate::model::gpt2::packed::PackedGpt2;
use collimate::ops::kernels::bf16_supported;
use collimate::ops::{Precision, Ragged};
use collimate::optim::gradients::{clip_factor, collect, norm};
use collimate::optim::{AdamW, AdamWConfig};
use divan::Bencher;
use divan::counter::ItemsCount;

fn main() {
    divan::main();
}

fn precision(bf16: usize) -> Option<Precision> {
    match bf16 {
        0 => Some(Precision::F32),
        _ => bf16_supported().then_some(Precision::Bf16),
    }
}

fn model() -> Gpt2 {
    Gpt2::from_scratch(Gpt2Config::default(), 1).unwrap()
}

fn ids(n: usize) -> Vec<u32> {
    (0..n).map(|i| (i * 7919 % 50257) as u32).collect()
}

/// One step of supervised fine-tuning: 8 sequences of 160 tokens, loss on the last 70, clipping, AdamW
#[divan::bench(consts = [0, 1], sample_count = 4, sample_size = 1)]
fn sft_step<const BF16: usize>(bencher: Bencher) {
    let Some(precision) = precision(BF16) else { return };
    let model = model().with_precision(precision).unwrap();
    let config = AdamWConfig { beta1: 0.9, beta2: 0.999, epsilon: 1e-8, weight_decay: 0.0 };
    let mut optimizer = AdamW::new(model.vars().iter().map(|(name, var)| (name, var)), config);
    let (count, len, scored) = (8, 160, 70);
    let layout = Arc::new(Ragged::from_lengths(vec![len; count]).unwrap());
    let ids = ids(count * len);
    let rows: Vec<u32> =
        (0..count).flat_map(|s| (s * len + len - 1 - scored..s * len + len - 1).map(|row| row as u32)).collect();
    let targets: Vec<u32> = rows.iter().map(|&row| ids[row as usize + 1]).collect();
    bencher.counter(ItemsCount::new(count * len)).bench_local(|| {
        model.gradients().reset();
        let hidden = model.hidden(&ids, &layout, None).unwrap();
        let p = model.token_log_probs(&hidden, &rows, &targets, 1.0).unwrap();
        let store = p.log_probs.mean_all().unwrap().neg().unwrap().backward().unwrap();
        let sums = model.gradients();
        collect(sums, &store, model.vars().iter().map(|(_, var)| var)).unwrap();
        optimizer.step(sums, 1e-5, clip_factor(norm(sums), 1.0)).unwrap();
    });
}

fn packed(bf16: usize) -> Option<&'static PackedGpt2> {
    static MODELS: [OnceLock<PackedGpt2>; 2] = [OnceLock::new(), OnceLock::new()];
    let precision = precision(bf16)?;
    Some(MODELS[bf16].get_or_init(|| PackedGpt2::new(&model().with_precision(precision).unwrap()).unwrap()))
}

/// One token for each of so many sequences, after 80 to 101 others
#[divan::bench(args = [1, 4, 16, 64], consts = [0, 1], sample_count = 20, sample_size = 1)]
fn decode_step<const BF16: usize>(bencher: Bencher, rows: usize) {
    let Some(model) = packed(BF16) else { return };
    let mut decoder = Decoder::new(model, rows, 128);
    decoder.forward(&[NewTokens { slot: 0, ids: ids(80) }]).unwrap();
    (1..rows).for_each(|slot| decoder.copy(0, slot));
    let tokens: Vec<NewTokens> = (0..rows).map(|slot| NewTokens { slot, ids: vec![11] }).collect();
    decoder.forward(&tokens).unwrap();
    bencher.counter(ItemsCount::new(rows)).bench_local(|| decoder.forward(&tokens).unwrap());
}

/// 16 prompts of 48 tokens
#[divan::bench(consts = [0, 1], sample_count = 4, sample_size = 1)]
fn prefill<const BF16: usize>(bencher: Bencher) {
    let Some(model) = packed(BF16) else { return };
    let mut decoder = Decoder::new(model, 16, 48);
    let prompts: Vec<NewTokens> = (0..16).map(|slot| NewTokens { slot, ids: ids(48) }).collect();
    bencher.counter(ItemsCount::new(16_u64 * 48)).bench_local(|| {
        (0..16).for_each(|slot| decoder.clear(slot));
        decoder.forward(&prompts).unwrap()
    });
}

/// Packing all weights, as before each rollout
#[divan::bench(consts = [0, 1], sample_count = 4, sample_size = 1)]
fn pack<const BF16: usize>(bencher: Bencher) {
    let Some(precision) = precision(BF16) else { return };
    let model = model().with_precision(precision).unwrap();
    bencher.counter(ItemsCount::new(model.parameter_count())).bench_local(|| PackedGpt2::new(&model).unwrap());
}
