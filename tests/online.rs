//! Online trainers from end to end: on replayed completions they follow the reference's numbers
//! (`scripts/goldens/online.py`); sampled ones are reproducible, and a run that is killed goes on exactly.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test, in helpers too")]

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
                // Equal rewards leave the reference with advantages of 1e-8, whose sign it then counts; ours are 0
                if case == "rloo_reuse" && name.starts_with("clip_ratio") {
                    continue;
                }
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

/// What a short run of each online trainer takes; with checkpoints in the middle of a rollout's use where it is reused
const RUNS: [(&str, &[&str]); 6] = [
    ("grpo", &["--num_generations", "4", "--num_iterations", "2", "--steps_per_generation", "2", "--beta", "0.1"]),
    ("grpo", &["--num_generations", "4", "--use_adaptive_entropy", "--entropy_target", "6", "--dynamic_sampling", "1"]),
    ("rloo", &["--num_iterations", "2", "--sync_ref_model", "--ref_model_sync_steps", "2"]),
    ("ppo", &["--kl_target", "1", "--kl_horizon", "20", "--num_mini_batches", "2", "--missing_eos_penalty", "1"]),
    ("ppo", &["--value_network", "shared", "--entropy_coef", "0.01", "--kl_loss_coef", "0.1"]),
    ("online_dpo", &[]),
];

/// Sampled completions of the tiny model
fn sampled(recipe: &str, out: &Path, flags: &[&str]) {
    let words = sampled_words(recipe, out, flags);
    let outcome = training::outcome(training::command(&words));
    assert_eq!(outcome.code, Some(0), "{words:?}: {}", outcome.stderr);
}

/// A short run with sampled completions
fn sampled_words<'a>(recipe: &'a str, out: &'a Path, flags: &[&'a str]) -> Vec<&'a str> {
    let common = [
        recipe,
        "--output_dir",
        text(out),
        "--model_name_or_path",
        "model",
        "--dataset_name",
        "prompted.jsonl",
        "--max_completion_length",
        "8",
        "--per_device_train_batch_size",
        "8",
        "--max_steps",
        "6",
        "--save_steps",
        "3",
        "--logging_steps",
        "1",
        "--learning_rate",
        "1e-3",
    ];
    [&common[..], flags].concat()
}

fn rewarded_for_length(recipe: &str, out: &Path, flags: &[&str]) {
    sampled(recipe, out, &[flags, &["--reward_funcs", "length"]].concat());
}

#[test]
fn a_resumed_run_is_the_uninterrupted_one_to_the_byte() {
    for (recipe, flags) in RUNS {
        let folder = tempfile::tempdir().unwrap();
        let (whole, rest) = (folder.path().join("whole"), folder.path().join("rest"));
        rewarded_for_length(recipe, &whole, flags);
        let checkpoint = whole.join("checkpoint-3");
        rewarded_for_length(recipe, &rest, &[flags, &["--resume_from_checkpoint", text(&checkpoint)]].concat());
        assert_eq!(
            training::bytes(&whole.join("model.safetensors")),
            training::bytes(&rest.join("model.safetensors")),
            "{recipe} {flags:?}"
        );
        assert_eq!(training::untimed(&whole)[3..], training::untimed(&rest)[..], "{recipe} {flags:?}");
    }
}

#[test]
fn rewards_that_teach_nothing_are_told_of_once_and_so_is_where_the_model_is() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("run");
    let words = sampled_words("grpo", &out, &["--reward_funcs", "contains:no completion has this"]);
    let outcome = training::outcome(training::command(&words));
    assert_eq!(outcome.code, Some(0), "{}", outcome.stderr);
    assert_eq!(
        outcome.stderr.matches("warning: step 1: all completions of each prompt").count(),
        1,
        "{}",
        outcome.stderr
    );
    let end = format!("6 steps done, the model is in `{}`\n", out.display());
    assert!(outcome.stderr.ends_with(&end), "{}", outcome.stderr);
}

#[test]
fn a_policy_that_has_not_moved_has_ratio_one() {
    for (recipe, flags) in RUNS {
        let folder = tempfile::tempdir().unwrap();
        rewarded_for_length(
            recipe,
            folder.path(),
            &[flags, &["--num_ppo_epochs", "1"][..if recipe == "ppo" { 2 } else { 0 }]].concat(),
        );
        let rows = rows(folder.path());
        let first = &rows[0];
        if recipe == "grpo" || recipe == "rloo" {
            assert_eq!(number(first, "clip_ratio/region_mean"), 0.0, "{recipe}");
        }
        if let Some(difference) = first.get("sampling/sampling_logp_difference/max") {
            assert!(difference.as_f64().unwrap() < 1e-4, "{recipe}: sampler and trainer differ by {difference}");
        }
        if recipe == "ppo" && !flags.contains(&"--num_mini_batches") {
            assert_eq!(number(first, "val/ratio"), 1.0);
            assert_eq!(number(first, "policy/approxkl_avg"), 0.0);
        }
    }
}

#[test]
fn what_is_rewarded_is_learnt() {
    for recipe in ["grpo", "rloo", "ppo", "online_dpo"] {
        let folder = tempfile::tempdir().unwrap();
        let more = ["--max_steps", "60", "--per_device_train_batch_size", "48", "--learning_rate", "1e-2"];
        // Answers that begin with a small letter or a space
        sampled(recipe, folder.path(), &[&more[..], &["--reward_funcs", "regex:^[a-z ]"]].concat());
        let rows = rows(folder.path());
        let reward = |row: &Row| number(row, "reward");
        let mean = |rows: &[Row]| rows.iter().map(reward).sum::<f64>() / rows.len() as f64;
        let (first, last) = (mean(&rows[..5]), mean(&rows[55..]));
        assert!(last > first + 0.2, "{recipe}: {first} at first, {last} at last");
    }
}

/// A reward as a child process; from its 21st answer on it waits for as long as `hold` lies in the folder
const SLOW: &str = r#"n=0
while IFS= read -r line; do
  n=$((n + 1))
  while [ $n -gt 20 ] && [ -e "$1/hold" ]; do : > "$1/waiting"; sleep 0.05; done
  echo "${#line}"
done
"#;

#[cfg(unix)]
#[test]
fn killed_in_the_middle_of_a_rollout_the_run_resumes_to_the_byte() {
    for (recipe, flags) in RUNS {
        for signal in ["-KILL", "-TERM"] {
            let folder = tempfile::tempdir().unwrap();
            let script = folder.path().join("reward.sh");
            std::fs::write(&script, SLOW).unwrap();
            let reward = format!("command:sh {} {}", text(&script), text(folder.path()));
            let flags = [flags, &["--reward_funcs", &reward, "--save_steps", "1"]].concat();
            let whole = folder.path().join("whole");
            sampled(recipe, &whole, &flags);

            let (out, waiting) = (folder.path().join("killed"), folder.path().join("waiting"));
            std::fs::write(folder.path().join("hold"), "").unwrap();
            let mut child = training::command(&sampled_words(recipe, &out, &flags)).spawn().unwrap();
            let begin = std::time::Instant::now();
            while !waiting.exists() {
                assert!(child.try_wait().unwrap().is_none(), "{recipe} {flags:?}: ended before it was killed");
                assert!(begin.elapsed().as_secs() < 60, "{recipe} {flags:?}: nothing happens");
                std::thread::sleep(std::time::Duration::from_millis(5));
            }
            let pid = child.id().to_string();
            assert!(std::process::Command::new("kill").args([signal, &pid]).status().unwrap().success());
            child.wait().unwrap();
            std::fs::remove_file(folder.path().join("hold")).unwrap();
            assert!(!out.join("summary.json").exists(), "{recipe} {flags:?}");

            sampled(recipe, &out, &[&flags[..], &["--resume_from_checkpoint", "true"]].concat());
            let same = |name: &str| training::bytes(&whole.join(name)) == training::bytes(&out.join(name));
            assert!(same("model.safetensors"), "{recipe} {flags:?} after {signal}");
            assert_eq!(training::untimed(&whole), training::untimed(&out), "{recipe} {flags:?} after {signal}");
        }
    }
}
