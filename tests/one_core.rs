//! Language models and classical agents learn from the very same advantages: a mistake there fails a test of each half.
//!
//! The language half is a step of `collimate ppo` on given completions, whose loss is worked out by hand; the classical half
//! is a rollout of Stable-Baselines3's own buffer (`scripts/goldens/rl_rollout.py`). Neither test calls the advantages itself:
//! both go through what a run calls.

#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test, in helpers too")]

#[path = "common/training.rs"]
mod training;

use std::fs;
use std::path::{Path, PathBuf};

use collimate::rl::rollout::Rollout;
use serde::Deserialize;
use serde_json::json;
use training::{model, number, rows, text, train};

/// Two completions with a reward at their ends, and values that are all 0 but for 1e-8: A_t = (γλ)^(T-1-t) r
#[test]
fn a_step_of_ppo_on_completions_has_the_advantages_worked_out_by_hand() {
    let folder = tempfile::tempdir().unwrap();
    let model = model(folder.path(), &[("initializer_range", json!(1e-8))]);
    let completions = [(vec![14, 282, 258, 0], 1.5), (vec![55, 0], -0.75)];
    let lines = completions.iter().map(|(ids, reward)| {
        json!({ "prompt": "ha was waitedha", "completions": [ids], "rewards": [reward] }).to_string() + "\n"
    });
    let replay = folder.path().join("replay.jsonl");
    fs::write(&replay, lines.collect::<String>()).unwrap();
    let out = folder.path().join("run");
    let flags = format!(
        "--model_name_or_path {} --dataset_name prompted.jsonl --replay_completions {} --per_device_train_batch_size 2 \
         --max_steps 1 --logging_steps 1 --num_ppo_epochs 1 --gamma 0.97 --lam 0.9 --whiten_advantages false --kl_coef 0 \
         --max_completion_length 8",
        text(&model),
        text(&replay)
    );
    train("ppo", &out, &flags.split_whitespace().collect::<Vec<_>>());
    let carried = 0.97_f64 * 0.9;
    let advantages: Vec<f64> = completions
        .iter()
        .flat_map(|(ids, reward)| (0..ids.len()).map(move |t| carried.powi((ids.len() - 1 - t) as i32) * reward))
        .collect();
    let mean = |of: fn(f64) -> f64| advantages.iter().map(|a| of(*a)).sum::<f64>() / advantages.len() as f64;
    let row = &rows(&out)[0];
    // The ratio is 1; the value loss is half the squared distance to the returns, which are the advantages here
    for (name, expected) in [("loss/policy_avg", -mean(|a| a)), ("loss/value_avg", 0.5 * mean(|a| a * a))] {
        let found = number(row, name);
        assert!((found - expected).abs() < 1e-5, "`{name}` is {found}, expected {expected}");
    }
}

#[derive(Deserialize)]
struct Reference {
    num_envs: usize,
    gamma: f64,
    lambda: f64,
    rewards: Vec<f32>,
    values: Vec<f32>,
    next_values: Vec<f32>,
    terminated: Vec<bool>,
    truncated: Vec<bool>,
    advantages: Vec<f32>,
    returns: Vec<f32>,
}

#[test]
fn a_rollout_of_environments_has_the_advantages_of_stable_baselines() {
    let golden = fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/goldens/rl/rollout.json")).unwrap();
    let reference: Reference = serde_json::from_slice(&golden).unwrap();
    let steps = reference.rewards.len() / reference.num_envs;
    let mut rollout = Rollout::new(reference.num_envs, steps, 1, None);
    rollout.rewards = reference.rewards;
    rollout.values = reference.values;
    rollout.next_values = reference.next_values;
    rollout.terminated = reference.terminated;
    rollout.truncated = reference.truncated;
    rollout.finish(reference.gamma, reference.lambda);
    let pairs = [(&rollout.advantages, &reference.advantages), (&rollout.returns, &reference.returns)];
    for (found, expected) in pairs {
        assert_eq!(found.len(), expected.len());
        for (at, (found, expected)) in found.iter().zip(expected).enumerate() {
            assert!((found - expected).abs() < 2e-5, "{at}: {found}, expected {expected}");
        }
    }
}

/// Every source file under these rooms, with its path
fn sources(room: &str) -> Vec<(PathBuf, String)> {
    let mut folders = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("src").join(room)];
    let mut found = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if let Ok(source) = fs::read_to_string(&path) {
                found.push((path, source));
            }
        }
    }
    found
}

/// No room but `algo` defines one of the functions that both halves share
#[test]
fn there_is_one_of_each_function() {
    let shared = ["gae", "gae_strided", "add_values", "clipped_surrogate", "reinforce", "value_loss", "approx_kl"];
    for room in ["train", "rl"] {
        let sources = sources(room);
        assert!(sources.len() > 10, "{room}");
        for (path, source) in sources {
            for name in shared {
                assert!(!source.contains(&format!("fn {name}(")), "{} has a `{name}` of its own", path.display());
            }
        }
    }
}
