//! Online trainers and what can go wrong: each time a message with place and cause, the right exit code, nothing lost.

#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test, in helpers too")]

#[path = "common/training.rs"]
mod training;

use std::fs;
use std::path::Path;

use training::{Outcome, command, number, outcome, rows, text};

fn grpo(out: &Path, flags: &[&str]) -> Outcome {
    let common = [
        "grpo",
        "--model_name_or_path",
        "model",
        "--output_dir",
        text(out),
        "--per_device_train_batch_size",
        "8",
        "--max_completion_length",
        "6",
        "--logging_steps",
        "1",
    ];
    outcome(command(&[&common[..], flags].concat()))
}

const PROMPTS: &[&str] = &["--dataset_name", "prompted.jsonl"];

fn fails(flags: &[&str], code: i32, words: &[&str]) {
    let folder = tempfile::tempdir().unwrap();
    let outcome = grpo(&folder.path().join("out"), flags);
    assert_eq!(outcome.code, Some(code), "{flags:?}: {}", outcome.stderr);
    for word in words {
        assert!(outcome.stderr.contains(word), "{flags:?}: no `{word}` in {}", outcome.stderr);
    }
}

#[test]
fn requests_that_cannot_be_met_are_refused_before_anything_is_written() {
    let with = |more: &[&'static str]| [PROMPTS, more].concat();
    fails(&with(&[]), 2, &["reward_funcs", "doctor --rewards"]);
    fails(&with(&["--reward_funcs", "lenght"]), 2, &["length"]);
    fails(&with(&["--reward_funcs", "length", "--num_generations", "3"]), 2, &["num_generations", "multiple"]);
    fails(&with(&["--reward_funcs", "length", "--num_generations", "1"]), 2, &["at least 2"]);
    fails(&with(&["--reward_funcs", "length", "--reward_weights", "1", "2"]), 2, &["reward_weights"]);
    fails(&with(&["--reward_funcs", "exact_match:nowhere"]), 2, &["nowhere"]);
    fails(&with(&["--reward_funcs", "no/such/model/here"]), 2, &["no/such/model/here"]);
    fails(&with(&["--reward_funcs", "length", "--loss_type", "dapoo"]), 2, &["did you mean `dapo`"]);
    fails(&with(&["--reward_funcs", "length", "--temperature", "0"]), 2, &["temperature"]);
    fails(&with(&["--reward_funcs", "length", "--per_device_train_batch_size", "800"]), 2, &["not enough"]);
}

#[test]
fn a_reward_that_fails_ends_the_run_with_what_it_said() {
    let with = |reward: &'static str| [PROMPTS, &["--reward_retries", "0", "--reward_funcs", reward]].concat();
    fails(&with("command:sh -c 'echo the judge is ill >&2; exit 3'"), 1, &["the judge is ill"]);
    fails(&with("command:sh -c 'while read line; do echo maybe; done'"), 1, &["maybe"]);
    fails(&with("command:sh -c 'while read line; do echo NaN; done'"), 1, &["NaN"]);
    fails(&with("http://127.0.0.1:9/"), 1, &["127.0.0.1:9"]);
}

#[test]
fn a_reward_that_fails_in_mid_run_leaves_a_checkpoint() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    // 8 completions a step: the third step's first question gets no answer
    let judge = "command:sh -c 'i=0; while read line; do i=$((i+1)); [ $i -gt 16 ] && exit 7; echo 1; done'";
    let flags = [PROMPTS, &["--reward_funcs", judge, "--reward_retries", "0"]].concat();
    let first = grpo(&out, &flags);
    assert_eq!(first.code, Some(1), "{}", first.stderr);
    assert_eq!(rows(&out).len(), 2);
    assert!(out.join("checkpoint-2").is_dir(), "{}", first.stderr);
}

#[test]
fn equal_rewards_teach_nothing_and_say_so() {
    let folder = tempfile::tempdir().unwrap();
    let flags = [PROMPTS, &["--reward_funcs", "regex:^", "--max_steps", "2"]].concat();
    let done = grpo(folder.path(), &flags);
    assert_eq!(done.code, Some(0), "{}", done.stderr);
    for row in rows(folder.path()) {
        assert_eq!((number(&row, "frac_reward_zero_std"), number(&row, "grad_norm")), (1.0, 0.0));
    }
}

#[test]
fn a_prompt_longer_than_the_context_is_dropped_and_counted() {
    let folder = tempfile::tempdir().unwrap();
    let prompts = folder.path().join("prompts.jsonl");
    let long = format!("{{\"prompt\": \"{}\"}}\n", "where is the otter? ".repeat(60));
    fs::write(&prompts, "{\"prompt\": \"where is the heron?\"}\n".to_owned() + &long).unwrap();
    let out = folder.path().join("out");
    let done = grpo(&out, &["--dataset_name", text(&prompts), "--reward_funcs", "length", "--max_steps", "1"]);
    assert_eq!(done.code, Some(0), "{}", done.stderr);
    let manifest = fs::read_to_string(out.join("manifest.json")).unwrap();
    assert!(manifest.contains("leaves no room for a completion"), "{manifest}");
}

#[test]
fn a_replay_that_does_not_fit_names_its_line() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("replay.jsonl");
    for (row, words) in [
        (r#"{"prompt": "a", "completions": ["b", "c"]}"#, ["num_generations", ":1"]),
        (r#"{"prompt": "a"}"#, ["completions", ":1"]),
        (r#"{"prompt": "a", "completions": [["x"]]}"#, ["token ids", ":1"]),
        (r#"{"prompt": "a", "completions": ["b"], "rewards": [1, 2]}"#, ["rewards", ":1"]),
    ] {
        fs::write(&file, format!("{row}\n")).unwrap();
        fails(&["--replay_completions", text(&file), "--reward_funcs", "length"], 2, &words);
    }
}
