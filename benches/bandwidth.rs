//! Decoding one row beside reading as much memory, in turn: `cargo bench --bench bandwidth`. A step reads every weight once,
//! and what other programs leave of the memory's pace changes within a second, so that only neighbours can be compared.

#![allow(clippy::unwrap_used, clippy::print_stdout, missing_docs)]

use std::hint::black_box;
use std::time::Instant;

use collimate::model::config::Gpt2Config;
use collimate::model::gpt2::Gpt2;
use collimate::model::gpt2::cached::{Decoder, NewTokens};
use collimate::model::gpt2::packed::PackedGpt2;
use collimate::ops::Precision;
use collimate::ops::kernels::pages::Pages;
use collimate::ops::kernels::team::Team;
use collimate::ops::kernels::{bf16_supported, vector};

const ROUNDS: usize = 200;
/// Numbers that a thread reads at a time
const BLOCK: usize = 1 << 14;

fn main() {
    // `cargo test --benches` runs this, too
    if !std::env::args().any(|argument| argument == "--bench") {
        return;
    }
    for precision in [Precision::F32, Precision::Bf16] {
        if precision == Precision::F32 || bf16_supported() {
            compare(precision);
        }
    }
}

fn compare(precision: Precision) {
    let config = Gpt2Config::default();
    let positions = config.n_positions * config.n_embd;
    let model = Gpt2::from_scratch(config, 1).unwrap().with_precision(precision).unwrap();
    let width = if precision == Precision::Bf16 { 2 } else { 4 };
    let bytes = (model.parameter_count() - positions) * width;
    let model = PackedGpt2::new(&model).unwrap();
    // Written once: memory that never was is one page of zeros
    let mut memory = Pages::new(bytes / 4);
    memory.fill(1.0_f32.to_bits());
    let memory: &[f32] = bytemuck::cast_slice(&memory);

    let mut decoder = Decoder::new(&model, 1, 128);
    decoder.forward(&[NewTokens { slot: 0, ids: vec![11; 32] }]).unwrap();
    let token = [NewTokens { slot: 0, ids: vec![11] }];
    let mut seconds = [Vec::new(), Vec::new()];
    for _ in 0..ROUNDS {
        let begin = Instant::now();
        Team::gather(usize::MAX, |team| {
            team.each(memory.len().div_ceil(BLOCK), |blocks| {
                for block in blocks {
                    let end = memory.len().min((block + 1) * BLOCK);
                    black_box(vector::max(&memory[block * BLOCK..end]));
                }
            });
        });
        seconds[0].push(begin.elapsed().as_secs_f64());
        if decoder.len(0) == 128 {
            decoder.clear(0);
            decoder.forward(&[NewTokens { slot: 0, ids: vec![11; 32] }]).unwrap();
        }
        let begin = Instant::now();
        decoder.forward(&token).unwrap();
        seconds[1].push(begin.elapsed().as_secs_f64());
    }
    let pace = |seconds: f64| bytes as f64 / seconds / 1e9;
    let ratios = seconds[0].iter().zip(&seconds[1]).map(|(read, step)| read / step).collect();
    let [read, step] = seconds.map(median);
    println!(
        "{precision:?}: {:.0} MB of weights; reading {:.1} GB/s, decoding {:.1} GB/s ({:.2} ms a token); median of {ROUNDS} ratios {:.2}",
        bytes as f64 / 1e6,
        pace(read),
        pace(step),
        step * 1e3,
        median(ratios)
    );
}

fn median(mut numbers: Vec<f64>) -> f64 {
    numbers.sort_by(f64::total_cmp);
    numbers[numbers.len() / 2]
}
