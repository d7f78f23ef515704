//! Online trainers from end to end: on replayed completions they follow the reference's numbers
//! (`scripts/goldens/online.py`); sampled ones are reproducible, and a run that is killed goes on exactly.

#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test, in helpers too")]

#[path = "common/training.rs"]
mod training;

use std::path::{Path, PathBuf};

use serde_json::Value;
use training::{Row, number, rows, text, train};

/// Relative deviation that is let pass, and the deviation of numbers near zero
const TOLERANCE: f64 = 1e-3;
const FLOOR: f64 = 1e-4;

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/goldens/online").join(name)
}

/// Flags that say what a case's TRL config says
fn flags(config: &Row) -> Vec<String> {
    let mut flags = vec!["--model_name_or_path".to_owned(), "model".to_owned()];
    for (key, value) in config {
        flags.push(format!("--{key}"));
        match value {
            Value::Array(items) => flags.extend(items.iter().map(ToString::to_string)),
            Value::String(text) => flags.push(text.clone()),
            other => flags.push(other.to_string()),
        }
    }
    flags
}

#[test]
fn replayed_completions_give_the_reference_s_numbers() {
    let trl = training::json(&golden("trl.json"));
    let replay = golden("replay.jsonl");
    let cases = trl["cases"].as_object().unwrap();
    assert!(cases.len() >= 18);
    for (case, expected) in cases {
        let recipe = case.split('_').next().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let mut flags = flags(expected["config"].as_object().unwrap());
        flags.extend(["--replay_completions".to_owned(), text(&replay).to_owned()]);
        train(recipe, folder.path(), &flags.iter().map(String::as_str).collect::<Vec<_>>());
        let ours = rows(folder.path());
        let log = expected["log"].as_array().unwrap();
        assert_eq!(ours.len() + 1, log.len(), "{case}");
        for (ours, reference) in ours.iter().zip(log) {
            for (name, expected) in reference.as_object().unwrap() {
                let (got, expected) = (number(ours, name), expected.as_f64().unwrap());
                let deviation = (got - expected).abs();
                assert!(
                    deviation <= TOLERANCE * expected.abs() || deviation <= FLOOR,
                    "{case}, step {}: `{name}` is {got}, the reference has {expected}",
                    ours["step"]
                );
            }
        }
    }
}
