//! A token problem small enough to enumerate: 4 tokens, completions of length 3, π* ∝ π_ref · exp(r/β) known exactly.
//! What learning curves hide shows here: an estimator of the KL with another fixed point misses the optimum.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test, in helpers too")]

#[path = "common/training.rs"]
mod training;

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpListener;
use std::path::Path;
use std::sync::Arc;

use collimate::model::Trainable as _;
use collimate::model::config::Gpt2Config;
use collimate::model::gpt2::Gpt2;
use collimate::ops::Ragged;
use serde_json::{Value, json};
use training::{text, train};

const TOKENS: usize = 4;
const LENGTH: usize = 3;
const COMPLETIONS: usize = TOKENS.pow(LENGTH as u32);

/// Rewards of all completions with mean 0 and standard deviation 1 under `p`: β = 1 is then sd(r)/β = 1
fn rewards(p: &[f64]) -> Vec<f64> {
    let raw: Vec<f64> = (0..COMPLETIONS).map(|i| ((i * i * 37 + i * 11) % 64) as f64).collect();
    let mean: f64 = raw.iter().zip(p).map(|(r, p)| r * p).sum();
    let variance: f64 = raw.iter().zip(p).map(|(r, p)| p * (r - mean).powi(2)).sum();
    raw.iter().map(|r| (r - mean) / variance.sqrt()).collect()
}

fn tokens(index: usize) -> Vec<u32> {
    (0..LENGTH).map(|t| (index / TOKENS.pow(t as u32) % TOKENS) as u32).collect()
}

fn index(tokens: &[u64]) -> usize {
    tokens.iter().enumerate().map(|(t, id)| *id as usize * TOKENS.pow(t as u32)).sum()
}

/// Probability of every completion of the prompt `0`
fn distribution(folder: &Path) -> Vec<f64> {
    let model = Gpt2::load(folder).unwrap().detached().unwrap();
    let (mut ids, mut rows, mut targets) = (Vec::new(), Vec::new(), Vec::new());
    for i in 0..COMPLETIONS {
        rows.extend((0..LENGTH).map(|t| (ids.len() + t) as u32));
        targets.extend(tokens(i));
        ids.push(0);
        ids.extend(&tokens(i)[..LENGTH - 1]);
    }
    let layout = Arc::new(Ragged::from_lengths([LENGTH; COMPLETIONS]).unwrap());
    let hidden = model.hidden(&ids, &layout, None).unwrap();
    let log_probs = model.token_log_probs(&hidden, &rows, &targets, 1.0).unwrap().log_probs;
    let log_probs: Vec<f32> = log_probs.to_vec1().unwrap();
    log_probs.chunks(LENGTH).map(|three| three.iter().map(|p| f64::from(*p)).sum::<f64>().exp()).collect()
}

fn kl(p: &[f64], q: &[f64]) -> f64 {
    p.iter().zip(q).map(|(p, q)| p * (p / q).ln()).sum()
}

/// A model with 4 tokens and no end of text, and its prompt
fn problem(folder: &Path) {
    let config = json!({
        "architectures": ["GPT2LMHeadModel"], "model_type": "gpt2", "vocab_size": TOKENS, "n_positions": 8, "n_embd": 32,
        "n_layer": 1, "n_head": 2, "initializer_range": 0.25, "embd_pdrop": 0.0, "attn_pdrop": 0.0, "resid_pdrop": 0.0,
    });
    fs::write(folder.join("config.json"), config.to_string()).unwrap();
    Gpt2::from_scratch(Gpt2Config::load(folder).unwrap(), 3).unwrap().save(folder).unwrap();
    let tokenizer = json!({
        "version": "1.0", "added_tokens": [], "pre_tokenizer": { "type": "WhitespaceSplit" },
        "model": { "type": "WordLevel", "vocab": { "a": 0, "b": 1, "c": 2, "d": 3 }, "unk_token": "a" },
    });
    fs::write(folder.join("tokenizer.json"), tokenizer.to_string()).unwrap();
    fs::write(folder.join("prompts.jsonl"), "{\"prompt\": \"a\"}\n".repeat(64)).unwrap();
}

/// A server that knows the reward of every completion; ends with the test
fn serve(rewards: Vec<f64>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}/", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut reader = BufReader::new(stream.unwrap());
            let (mut line, mut length) = (String::new(), 0);
            while reader.read_line(&mut line).unwrap_or(0) > 2 {
                if let Some(value) = line.to_lowercase().strip_prefix("content-length:") {
                    length = value.trim().parse().unwrap();
                }
                line.clear();
            }
            let mut body = vec![0; length];
            reader.read_exact(&mut body).unwrap();
            let body: Value = serde_json::from_slice(&body).unwrap();
            let reward = |sample: &Value| {
                let ids: Vec<u64> =
                    sample["completion_ids"].as_array().unwrap().iter().map(|id| id.as_u64().unwrap()).collect();
                rewards[index(&ids)]
            };
            let rewards: Vec<f64> = body["samples"].as_array().unwrap().iter().map(reward).collect();
            let answer = json!({ "rewards": rewards }).to_string();
            let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", answer.len());
            let _ = reader.into_inner().write_all((head + &answer).as_bytes());
        }
    });
    address
}

/// KL(π‖π*) at the end of a run, and at its beginning
fn distance(recipe: &str, flags: &[&str]) -> (f64, f64) {
    let folder = tempfile::tempdir().unwrap();
    problem(folder.path());
    let reference = distribution(folder.path());
    let rewards = rewards(&reference);
    let weights: Vec<f64> = reference.iter().zip(&rewards).map(|(p, r)| p * r.exp()).collect();
    let total: f64 = weights.iter().sum();
    let optimum: Vec<f64> = weights.iter().map(|weight| weight / total).collect();
    let address = serve(rewards);
    let (out, prompts) = (folder.path().join("out"), folder.path().join("prompts.jsonl"));
    let common = [
        "--model_name_or_path",
        text(folder.path()),
        "--dataset_name",
        text(&prompts),
        "--reward_funcs",
        &address,
        "--max_completion_length",
        "3",
        "--temperature",
        "1.0",
        "--learning_rate",
        "5e-3",
        "--per_device_train_batch_size",
        "512",
        "--max_steps",
        "250",
        "--max_grad_norm",
        "0",
        "--save_strategy",
        "no",
        "--report_to",
        "none",
    ];
    train(recipe, &out, &[&common[..], flags].concat());
    (kl(&distribution(&out), &optimum), kl(&reference, &optimum))
}

const PPO: &[&str] =
    &["--kl_coef", "1", "--lam", "1", "--num_ppo_epochs", "2", "--vf_coef", "1", "--num_generations", "8"];
const RLOO: &[&str] = &["--beta", "1", "--num_generations", "16"];
const GRPO: &[&str] = &["--beta", "1", "--num_generations", "16", "--scale_rewards", "none", "--loss_type", "dr_grpo"];

#[test]
fn the_exact_optimum_is_reached() {
    let whole = [GRPO, &["--kl_estimator", "sequence_k2"]].concat();
    for (recipe, flags) in [("ppo", PPO), ("rloo", RLOO), ("grpo", &whole[..])] {
        let (end, start) = distance(recipe, flags);
        eprintln!("{recipe}: KL to the optimum {start:.3} at first, {end:.4} at last");
        assert!(start > 0.3, "{recipe}: the problem is no problem, {start}");
        assert!(end < 0.02, "{recipe}: {end}");
    }
}

/// The fixed points of other estimators, for `docs/online.md`:
/// `cargo test --release --test optimum -- --ignored --nocapture`
#[test]
#[ignore = "a table, not a test"]
fn distances_of_other_estimators() {
    let with = |more: &[&'static str]| [GRPO, more].concat();
    let scaled =
        [&GRPO[..4], &["--scale_rewards", "group", "--loss_type", "dr_grpo", "--kl_estimator", "sequence_k2"]].concat();
    for (name, flags) in [
        ("KL of the whole sequence, k2", with(&["--kl_estimator", "sequence_k2"])),
        ("per-token k2", with(&["--kl_estimator", "k2"])),
        ("plain k3", with(&["--kl_estimator", "k3", "--use_bias_correction_kl", "false"])),
        ("ratio-weighted k3", with(&["--kl_estimator", "k3"])),
        ("whole sequence, rewards scaled by the group", scaled),
    ] {
        let (end, start) = distance("grpo", &flags);
        eprintln!("| {name} | {start:.3} | {end:.4} |");
    }
}
