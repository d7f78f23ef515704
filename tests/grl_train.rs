//! GRL from end to end: it learns, it resumes to the byte, its memory can be asked, and bad input is refused.

#[path = "common/training.rs"]
mod training;

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::json;
use training::{Outcome, Row, bytes, command, number, outcome, rows, text, train};

/// Sampled completions of the tiny model
fn grl(out: &Path, flags: &[&str]) {
    train("grl", out, &[&COMMON[..], flags].concat());
}

const COMMON: [&str; 18] = [
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
    "--feature_dim",
    "4",
];

const LENGTH: [&str; 2] = ["--reward_funcs", "length"];

/// A mode, estimator and kernel each, small enough that particles and responses have to leave
const RUNS: [&[&str]; 13] = [
    &["--kernel_fit_steps", "2", "--memory_capacity", "6", "--replay_max_age", "2"],
    &["--mode", "clip", "--kl_target", "0.1", "--kl_horizon", "20", "--estimator", "nadaraya_watson"],
    &["--mode", "pair", "--replay_capacity", "20", "--num_generations", "4"],
    &["--mode", "awr", "--kernel", "delta", "--kappa", "2", "--gradient_accumulation_steps", "2"],
    &["--prompt_acquisition", "deviation", "--kernel", "rbf", "--leave_one_out", "true", "--huber", "1"],
    &["--estimator", "group", "--num_generations", "4", "--replay_capacity", "24"],
    &["--estimator", "network", "--value_network", "shared", "--vf_coef", "0.5"],
    &["--estimator", "network", "--feature_permutation", "true"],
    &["--reward_pessimism", "true", "--kernel_fit_steps", "2", "--memory_capacity", "12"],
    &["--imputation", "0.05", "--kernel_fit_steps", "2", "--memory_capacity", "12"],
    &["--adaptive_generations", "4", "--per_device_train_batch_size", "12", "--kernel_fit_steps", "2"],
    &["--eta", "1", "--tau", "0.2", "--field_dim", "4", "--field_capacity", "40", "--replay_max_age", "2"],
    &[
        "--eta",
        "2",
        "--kl_target",
        "0.5",
        "--field_tokens",
        "embedding",
        "--field_backup",
        "sarsa",
        "--field_top_k",
        "8",
    ],
];

#[test]
fn a_resumed_run_is_the_uninterrupted_one_to_the_byte() {
    for flags in RUNS {
        let folder = tempfile::tempdir().unwrap();
        let (whole, rest) = (folder.path().join("whole"), folder.path().join("rest"));
        grl(&whole, &[flags, &LENGTH].concat());
        let checkpoint = whole.join("checkpoint-3");
        grl(&rest, &[flags, &LENGTH, &["--resume_from_checkpoint", text(&checkpoint)]].concat());
        for name in ["model.safetensors", "memory.safetensors", "particles.json"] {
            assert_eq!(bytes(&whole.join(name)), bytes(&rest.join(name)), "{name} after {flags:?}");
        }
        let field = |run: &Path| run.join("token_memory.safetensors");
        assert_eq!(field(&whole).is_file(), flags.contains(&"--eta"));
        if flags.contains(&"--eta") {
            assert_eq!(bytes(&field(&whole)), bytes(&field(&rest)), "{flags:?}");
        }
        let replay = |run: &Path| bytes(&run.join("checkpoint-6/replay.safetensors"));
        assert_eq!(replay(&whole), replay(&rest), "{flags:?}");
        assert_eq!(training::untimed(&whole)[3..], training::untimed(&rest)[..], "{flags:?}");
    }
}

#[test]
fn what_is_rewarded_is_learnt_in_every_mode() {
    for mode in ["pcl", "clip", "pair", "awr"] {
        let folder = tempfile::tempdir().unwrap();
        let more = ["--max_steps", "40", "--per_device_train_batch_size", "48", "--save_strategy", "no"];
        let rate = ["--learning_rate", "1e-2", "--mode", mode, "--tau", "0.1"];
        // Answers that begin with a small letter or a space
        grl(folder.path(), &[&more[..], &rate, &["--reward_funcs", "regex:^[a-z ]"]].concat());
        let rows = rows(folder.path());
        let mean = |rows: &[Row]| rows.iter().map(|row| number(row, "reward")).sum::<f64>() / rows.len() as f64;
        let (first, last) = (mean(&rows[..2]), mean(&rows[35..]));
        assert!(last > first + 0.15, "{mode}: {first} at first, {last} at last");
    }
}

#[test]
fn the_first_update_sees_the_policy_that_sampled() {
    let folder = tempfile::tempdir().unwrap();
    let (prompts, out) = (folder.path().join("prompts.jsonl"), folder.path().join("out"));
    let row = |animal: &str| json!({ "prompt": format!("Question: where is the {animal}?") }).to_string() + "\n";
    fs::write(&prompts, ["otter", "heron", "badger", "lynx", "newt", "wren"].map(row).concat()).unwrap();
    let flags = ["--replay_ratio", "1", "--mode", "clip", "--dataset_name", text(&prompts)];
    grl(&out, &[&flags[..], &LENGTH].concat());
    let rows = rows(&out);
    for row in &rows {
        assert_eq!(number(row, "clip_ratio"), 0.0);
        assert!(!row.contains_key("replay/kl"), "nothing was replayed");
    }
    assert!(number(&rows[0], "kl").abs() < 1e-4, "policy and reference are one model at the start");
    assert_eq!(number(&rows[0], "memory/size"), 4.0, "a particle for each of 8/2 prompts");
}

#[test]
fn the_memory_stays_within_its_bounds() {
    let folder = tempfile::tempdir().unwrap();
    let bounds = ["--memory_capacity", "5", "--replay_capacity", "12", "--replay_max_age", "1"];
    grl(folder.path(), &[&bounds[..], &LENGTH].concat());
    for row in rows(folder.path()) {
        assert!(number(&row, "memory/size") <= 5.0 && number(&row, "replay/size") <= 12.0);
        assert!(number(&row, "replay/mean_age") <= 1.0);
        assert!(number(&row, "value/error").is_finite());
    }
}

/// Runs in which prompts have no geometry
#[test]
fn one_prompt_or_identical_ones_are_enough() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("prompts.jsonl");
    for (i, prompts) in [vec!["Only one"], vec!["The same"; 9]].into_iter().enumerate() {
        let lines: Vec<String> = prompts.iter().map(|prompt| json!({ "prompt": prompt }).to_string() + "\n").collect();
        fs::write(&file, lines.concat()).unwrap();
        let out = folder.path().join(i.to_string());
        grl(&out, &[&LENGTH[..], &["--dataset_name", text(&file)]].concat());
        let rows = rows(&out);
        assert_eq!(number(rows.last().unwrap(), "memory/size"), 1.0);
        assert_eq!(inspect(&out, "Only one", &[]).code, Some(0));
    }
}

#[test]
fn completions_without_a_reward_are_left_out() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("replayed.jsonl");
    let row = |i: usize, rewards: &serde_json::Value| {
        let prompt = format!("Question {i}\nAnswer:");
        format!("{}\n", json!({ "prompt": prompt, "completions": [" one", " two"], "rewards": rewards }))
    };
    let (judged, half) = (json!([1.0, 0.0]), json!([null, 0.5]));
    let lines: String = (0..8).map(|i| row(i, if i % 2 == 0 { &judged } else { &half })).collect();
    fs::write(&file, lines).unwrap();
    grl(folder.path(), &["--replay_completions", text(&file), "--max_steps", "2"]);
    for row in rows(folder.path()) {
        assert_eq!(number(&row, "unjudged"), 2.0);
    }
    fs::write(&file, (0..8).map(|i| row(i, &json!([null, null]))).collect::<String>()).unwrap();
    let out = folder.path().join("none");
    grl(&out, &["--replay_completions", text(&file), "--max_steps", "2"]);
    assert_eq!(number(&rows(&out)[0], "memory/size"), 0.0);
}

fn inspect(run: &Path, prompt: &str, flags: &[&str]) -> Outcome {
    outcome(command(&[&["inspect", text(run), "--prompt", prompt], flags].concat()))
}

const KNOWN: &str = "Question: where is the wren?\nAnswer:";

#[test]
fn inspect_explains_values() {
    let folder = tempfile::tempdir().unwrap();
    grl(folder.path(), &[&LENGTH[..], &["--max_steps", "12", "--save_strategy", "no"]].concat());
    let answer = inspect(folder.path(), KNOWN, &["--json", "--neighbours", "3"]);
    let answer: serde_json::Value = serde_json::from_str(&answer.stdout).unwrap();
    assert_eq!(answer["known"], json!(true));
    let near = answer["neighbours"].as_array().unwrap();
    assert_eq!(near.len(), 3);
    assert_eq!(near[0]["prompt"], json!(KNOWN), "a prompt is nearest to itself");
    assert!(near[0]["responses"].as_array().unwrap().iter().all(|response| response["reward"].is_number()));
    assert!(answer["variance"].as_f64().unwrap() <= answer["prior_variance"].as_f64().unwrap());
    let unknown = inspect(folder.path(), "Something else", &["--json"]);
    assert!(unknown.stdout.contains("\"known\":false"), "{unknown:?}");
    assert!(inspect(folder.path(), KNOWN, &[]).stdout.contains("does not explain which tokens"));
}

#[test]
fn memories_that_cannot_be_used_are_refused_with_a_reason() {
    let folder = tempfile::tempdir().unwrap();
    let run = folder.path().join("run");
    grl(&run, &[&LENGTH[..], &["--max_steps", "1"]].concat());
    let refused = |flags: &[&str], run: &Path, reason: &str| {
        let outcome = inspect(run, KNOWN, flags);
        assert_eq!(outcome.code, Some(2), "{outcome:?}");
        assert!(outcome.stderr.contains(reason), "{outcome:?}, expected {reason:?}");
    };
    let other = folder.path().join("other");
    fs::create_dir(&other).unwrap();
    refused(&[], &other, "no `particles.json`");
    refused(&["--ref_model", text(&run)], &run, "belongs to another model");
    let memory: PathBuf = run.join("memory.safetensors");
    let whole = bytes(&memory);
    for length in [0, 5, whole.len() / 2, whole.len() - 1] {
        fs::write(&memory, &whole[..length]).unwrap();
        refused(&[], &run, "truncated");
    }
    grl(&other, &[&LENGTH[..], &["--max_steps", "1", "--feature_dim", "3"]].concat());
    fs::write(&memory, bytes(&other.join("memory.safetensors"))).unwrap();
    refused(&[], &run, "was made with feature map");
}

#[test]
fn requests_that_make_no_sense_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    for (flags, reason) in [
        (&["--num_generations", "3"][..], "must be a multiple of `num_generations`"),
        (&["--num_generations", "1", "--mode", "pair"], "`num_generations` is 1"),
        (&["--kappa", "30"], "`kappa` must be at most 1/tau"),
        (&["--estimator", "sum", "--prompt_acquisition", "deviation"], "needs a variance"),
        (&["--huber", "1", "--mode", "clip"], "`huber` does nothing"),
        (&["--tau", "0"], "`tau` must be above 0"),
    ] {
        let words = [&["grl", "--output_dir", text(folder.path())], &COMMON[..], &LENGTH, flags].concat();
        let outcome = outcome(command(&words));
        assert_eq!(outcome.code, Some(2), "{flags:?}: {outcome:?}");
        assert!(outcome.stderr.contains(reason), "{flags:?}: {}", outcome.stderr);
    }
}

/// Limit 13: a policy that does not move stays the reference, to the bit
#[test]
fn without_a_learning_rate_the_policy_is_the_reference() {
    let folder = tempfile::tempdir().unwrap();
    let (texts, out) = (folder.path().join("texts.jsonl"), folder.path().join("out"));
    fs::write(&texts, json!({ "text": "Question: where is the wren?" }).to_string()).unwrap();
    grl(&out, &[&LENGTH[..], &["--learning_rate", "0", "--max_steps", "3"]].concat());
    let log_probs = |model: &str| {
        let words = ["logprobs", "--model", model, "--texts", text(&texts)];
        let outcome = outcome(command(&words));
        assert_eq!(outcome.code, Some(0), "{outcome:?}");
        outcome.stdout
    };
    assert_eq!(log_probs(text(&out)), log_probs("model"));
    for row in rows(&out) {
        assert!(number(&row, "kl").abs() < 1e-4);
    }
}

#[test]
fn checkpoints_whose_memory_is_damaged_or_anothers_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let (run, other, again) = (folder.path().join("run"), folder.path().join("other"), folder.path().join("again"));
    grl(&run, &[&LENGTH[..], &["--max_steps", "3"]].concat());
    let checkpoint = run.join("checkpoint-3");
    let refused = |flags: &[&str], reason: &str| {
        let resume = ["grl", "--output_dir", text(&again), "--resume_from_checkpoint", text(&checkpoint)];
        let outcome = outcome(command(&[&resume[..], &COMMON, &LENGTH, flags].concat()));
        assert_eq!(outcome.code, Some(2), "{outcome:?}");
        assert!(outcome.stderr.contains(reason), "{outcome:?}, expected {reason:?}");
    };
    for name in ["memory.safetensors", "replay.safetensors", "feature_map.safetensors"] {
        let path = checkpoint.join(name);
        let whole = bytes(&path);
        fs::write(&path, &whole[..whole.len() - 3]).unwrap();
        refused(&[], &format!("`{name}` was cut or altered"));
        fs::write(&path, &whole).unwrap();
    }
    refused(&["--memory_capacity", "7"], "`memory_capacity` is 7");
    // The memory of a run that began with other weights
    let moved = ["--model_name_or_path", text(&run), "--max_steps", "3"];
    grl(&other, &[&LENGTH[..], &moved].concat());
    let (memory, foreign) = (checkpoint.join("memory.safetensors"), other.join("checkpoint-3/memory.safetensors"));
    fs::write(&memory, bytes(&foreign)).unwrap();
    refused(&[], "`memory.safetensors` was cut or altered");
}

/// JSON knows no infinity, but a number can be too large for what is computed from it
#[test]
fn rewards_that_no_number_can_hold_the_square_of_end_the_run_with_a_reason() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("huge.jsonl");
    let row = json!({ "prompt": "What is it?", "completions": ["a", "b"], "rewards": [1e200, -1e200] });
    fs::write(&file, format!("{row}\n").repeat(4)).unwrap();
    let out = folder.path().join("out");
    let words = ["grl", "--output_dir", text(&out), "--replay_completions", text(&file)];
    let outcome = outcome(command(&[&words[..], &COMMON].concat()));
    assert_eq!(outcome.code, Some(1), "{outcome:?}");
    assert!(outcome.stderr.contains("finite") || outcome.stderr.contains("inf"), "{outcome:?}");
    assert!(!out.join("summary.json").exists());
}
