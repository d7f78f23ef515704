//! Time of each operation at GPT-2 124M's shapes: `cargo bench --bench ops`. Products and attention show operations a
//! second (2 for a multiply and an add), the rest numbers a second.

#![allow(clippy::unwrap_used, missing_docs)]

use collimate::ops::Ragged;
use collimate::ops::kernels::attention::{self, Heads};
use collimate::ops::kernels::cache::{KvCache, NewRows};
use collimate::ops::kernels::layers::{self, Activation};
use collimate::ops::kernels::matmul::{Addend, Mat, Precision, Product};
use collimate::ops::kernels::packed::Packed;
use collimate::ops::kernels::team::Team;
use collimate::ops::kernels::vector::{self, AdamwConstants};
use divan::Bencher;
use divan::counter::ItemsCount;

/// Tokens of a batch
const N: usize = 1400;
/// Width
const C: usize = 768;

fn main() {
    divan::main();
}

fn numbers(n: usize) -> Vec<f32> {
    (0..n).map(|i| ((i * 2_654_435_761) % 1000) as f32 / 500.0 - 1.0).collect()
}

/// (m, n, k, which operand is transposed): forward, input gradient, weight gradient
const SHAPES: [(usize, usize, usize, &str); 9] = [
    (N, 3 * C, C, "forward"),
    (N, 4 * C, C, "forward"),
    (N, C, 4 * C, "forward"),
    (N, C, 4 * C, "input gradient"),
    (C, 4 * C, N, "weight gradient"),
    (600, 50257, C, "input gradient"),
    (600, C, 50257, "forward"),
    (50257, C, 600, "weight gradient"),
    (16, 50257, C, "input gradient"),
];

#[divan::bench(args = 0..SHAPES.len(), consts = [0, 1], sample_count = 8)]
fn matmul<const BF16: usize>(bencher: Bencher, shape: usize) {
    let (m, n, k, kind) = SHAPES[shape];
    let precision = if BF16 == 1 { Precision::Bf16 } else { Precision::F32 };
    if BF16 == 1 && !collimate::ops::kernels::bf16_supported() {
        return;
    }
    let (a, b, mut c) = (numbers(m * k), numbers(k * n), vec![0.0; m * n]);
    let a = if kind == "weight gradient" { Mat::rows(&a, m).t() } else { Mat::rows(&a, k) };
    let b = if kind == "input gradient" { Mat::rows(&b, k).t() } else { Mat::rows(&b, n) };
    let product = Product::new([m, n, k], a, b);
    bencher.counter(ItemsCount::new(2 * m * n * k)).bench_local(|| precision.matmul_to(product, &mut c, Addend::None));
}

/// A few rows by packed weights: (rows, k, n)
const PACKED: [(usize, usize, usize); 10] = [
    (1, C, 4 * C),
    (1, 4 * C, C),
    (1, C, 50257),
    (4, C, 50257),
    (16, C, 4 * C),
    (16, 4 * C, C),
    (16, C, 50257),
    (64, C, 50257),
    (N, C, 4 * C),
    (N, 4 * C, C),
];

#[divan::bench(args = 0..PACKED.len(), consts = [0, 1])]
fn packed<const BF16: usize>(bencher: Bencher, shape: usize) {
    let (m, k, n) = PACKED[shape];
    if BF16 == 1 && !collimate::ops::kernels::bf16_supported() {
        return;
    }
    let precision = if BF16 == 1 { Precision::Bf16 } else { Precision::F32 };
    let (x, mut y) = (numbers(m * k), vec![0.0; m * n]);
    // More weights than any cache holds, in turn, as a model has them
    let copies = ((1 << 27) / (k * n)).clamp(1, 64);
    let weights: Vec<Packed> =
        (0..copies).map(|_| Packed::new(Mat::rows(&numbers(k * n), n), k, n, precision)).collect();
    let mut turn = weights.iter().cycle();
    // As a step has them: one product after the other
    let mut products = |team: &Team| {
        (0..8).for_each(|_| turn.next().unwrap().multiply(team, m, &x, None, &mut y));
    };
    let bencher = bencher.counter(ItemsCount::new(8 * 2 * m * n * k));
    bencher.bench_local(|| Team::gather(usize::MAX, &mut products));
}

/// Attention of one new token each of 16 sequences over 96 others
#[divan::bench]
fn cached_attention(bencher: Bencher) {
    let heads = Heads { count: 12, dim: 64, scale: 0.125, dropout: None };
    let mut cache = KvCache::new(heads, 16, 97, Precision::F32);
    let new: Vec<NewRows> = (0..16).map(|slot| NewRows { row: slot, rows: 1, slot, past: 96 }).collect();
    let (qkv, mut out) = (numbers(16 * 3 * C), vec![0.0; 16 * C]);
    let mut layers = |team: &Team| (0..8).for_each(|_| cache.attend(team, &qkv, &new, &mut out));
    let bencher = bencher.counter(ItemsCount::new(8 * 4 * 16 * 97 * C));
    bencher.bench_local(|| Team::gather(usize::MAX, &mut layers));
}

/// The gradient of a linear layer's input, by the width of its output
#[divan::bench(args = [C, 3 * C, 4 * C], sample_count = 8)]
fn linear_backward_input(bencher: Bencher, o: usize) {
    let (w, g) = (numbers(C * o), numbers(N * o));
    bencher
        .counter(ItemsCount::new(2 * N * C * o))
        .bench_local(|| layers::linear_backward_input(&w, &g, o, Precision::F32));
}

/// Eight sequences of 175 tokens, or one of 1024
#[divan::bench(args = [175, 1024], consts = [false, true], sample_count = 8)]
fn causal_attention<const BACKWARD: bool>(bencher: Bencher, len: usize) {
    let count = (N / len).max(1);
    let layout = Ragged::from_lengths(vec![len; count]).unwrap();
    let n = layout.rows();
    let heads = Heads { count: 12, dim: 64, scale: 0.125, dropout: None };
    let (qkv, grad) = (numbers(n * 3 * C), numbers(n * C));
    let (out, lse) = attention::forward(&qkv, &layout, heads);
    let products = if BACKWARD { 5 } else { 2 };
    bencher.counter(ItemsCount::new(products * count * len * len * C)).bench_local(|| {
        if BACKWARD {
            drop(attention::backward(&qkv, &layout, heads, &out, &lse, &grad));
        } else {
            drop(attention::forward(&qkv, &layout, heads));
        }
    });
}

#[divan::bench]
fn layer_norm(bencher: Bencher) {
    let (x, w) = (numbers(N * C), numbers(C));
    bencher.counter(ItemsCount::new(N * C)).bench_local(|| layers::layer_norm(&x, &w, &w, 1e-5));
}

#[divan::bench]
fn layer_norm_backward(bencher: Bencher) {
    let (x, w) = (numbers(N * C), numbers(C));
    let (mut dw, mut db) = (vec![0.0; C], vec![0.0; C]);
    bencher
        .counter(ItemsCount::new(N * C))
        .bench_local(|| layers::layer_norm_backward(&x, &w, &x, 1e-5, &mut dw, &mut db, true));
}

#[divan::bench]
fn gelu(bencher: Bencher) {
    let x = numbers(N * 4 * C);
    bencher.counter(ItemsCount::new(x.len())).bench_local(|| layers::activation(Activation::GeluTanh, &x));
}

#[divan::bench]
fn gelu_backward(bencher: Bencher) {
    let (x, mut g) = (numbers(N * 4 * C), numbers(N * 4 * C));
    bencher
        .counter(ItemsCount::new(x.len()))
        .bench_local(|| layers::activation_backward(Activation::GeluTanh, &x, &mut g));
}

#[divan::bench]
fn column_sums(bencher: Bencher) {
    let (g, mut db) = (numbers(N * 4 * C), vec![0.0; 4 * C]);
    bencher.counter(ItemsCount::new(g.len())).bench_local(|| layers::column_sums(&g, &mut db, false));
}

#[divan::bench]
fn adamw(bencher: Bencher) {
    let (mut p, mut m, mut v, g) = (numbers(1 << 22), vec![0.0; 1 << 22], vec![0.0; 1 << 22], numbers(1 << 22));
    let c = AdamwConstants {
        beta1: 0.9,
        beta2: 0.999,
        epsilon: 1e-8,
        step_size: 1e-5,
        root_correction: 1.0,
        decay: 1.0,
        clip: 1.0,
    };
    bencher.counter(ItemsCount::new(p.len())).bench_local(|| vector::adamw(&mut p, &mut m, &mut v, &g, &c));
}
