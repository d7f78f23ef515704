//! A field that steers a frozen model, rewards that are not asked for, completions by doubt, and abstention: end to end.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test, in helpers too")]

#[path = "common/training.rs"]
mod training;

use std::fs;
use std::path::Path;

use serde_json::{Value, json};
use training::{Outcome, bytes, command, number, outcome, rows, text, train};

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
    "4",
    "--save_strategy",
    "no",
    "--logging_steps",
    "1",
    "--learning_rate",
    "1e-2",
    "--feature_dim",
    "4",
];

const LENGTH: [&str; 2] = ["--reward_funcs", "length"];
const FIELD: [&str; 6] = ["--eta", "1", "--tau", "0.1", "--field_dim", "4"];
const KNOWN: &str = "Question: where is the wren?\nAnswer:";

fn grl(out: &Path, flags: &[&str]) {
    train("grl", out, &[&COMMON[..], flags].concat());
}

fn ask(words: &[&str]) -> Outcome {
    let outcome = outcome(command(words));
    assert_eq!(outcome.code, Some(0), "{words:?}: {outcome:?}");
    outcome
}

#[track_caller]
fn refused(words: &[&str], reason: &str) {
    let outcome = outcome(command(words));
    assert_eq!(outcome.code, Some(2), "{words:?}: {outcome:?}");
    assert!(outcome.stderr.contains(reason), "{outcome:?}, expected {reason:?}");
}

fn generated(model: &str, flags: &[&str]) -> String {
    let few =
        ["generate", "--model", model, "--prompt", KNOWN, "--max_new_tokens", "12", "--num_return_sequences", "4"];
    ask(&[&few[..], &["--json"], flags].concat()).stdout
}

/// Limit 13 where it is used: the weights are the model's, and without η so is every token
#[test]
fn the_weights_stay_as_they_are_and_the_field_steers() {
    let folder = tempfile::tempdir().unwrap();
    let (texts, out) = (folder.path().join("texts.jsonl"), folder.path().join("out"));
    fs::write(&texts, json!({ "text": KNOWN }).to_string()).unwrap();
    grl(&out, &[&FIELD[..], &["--reward_funcs", "regex:^[a-z ]", "--per_device_train_batch_size", "32"]].concat());
    let out = text(&out);
    let log_probs = |model: &str| ask(&["logprobs", "--model", model, "--texts", text(&texts)]).stdout;
    assert_eq!(log_probs(out), log_probs("model"));
    assert_eq!(generated(out, &["--eta", "0"]), generated("model", &[]));
    assert_ne!(generated(out, &["--eta", "20"]), generated("model", &[]));
    assert_eq!(generated(out, &["--eta", "1"]), generated(out, &[]));
    let chat = |model: &str, eta: &[&str]| {
        let words = [&["chat", "--model", model, "--format", "continue", "--max_new_tokens", "12"], eta].concat();
        let mut chat = command(&words);
        let file = folder.path().join("said.txt");
        fs::write(&file, "Question: where is it?\n").unwrap();
        chat.stdin(fs::File::open(file).unwrap());
        outcome(chat).stdout
    };
    assert_eq!(chat(out, &["--eta", "0"]), chat("model", &[]));
    refused(&["generate", "--model", "model", "--prompt", "a", "--eta", "1"], "there is no token field");
    // Whoever does not ask the field says so
    let warned = ask(&["logprobs", "--model", out, "--texts", text(&texts)]).stderr;
    assert!(warned.contains("is left out"), "{warned}");
}

#[test]
fn what_is_rewarded_is_found_without_moving_a_weight() {
    let folder = tempfile::tempdir().unwrap();
    // States that recur: two prompts, and the first token decides
    let file = folder.path().join("two.jsonl");
    let prompts = [KNOWN, "Question: where is the otter?\nAnswer:"];
    fs::write(&file, prompts.map(|prompt| json!({ "prompt": prompt }).to_string() + "\n").concat()).unwrap();
    let prompts = text(&file);
    let more = ["--max_steps", "60", "--num_generations", "48", "--per_device_train_batch_size", "96"];
    let reward = ["--reward_funcs", "regex:^[a-z ]", "--max_completion_length", "2", "--dataset_name", prompts];
    let out = &folder.path().join("out");
    grl(out, &[&FIELD[..], &more, &reward].concat());
    let rows = rows(out);
    let mean = |range: std::ops::Range<usize>| {
        let n = range.len() as f64;
        range.map(|i| number(&rows[i], "reward")).sum::<f64>() / n
    };
    let (first, last) = (mean(0..2), mean(55..60));
    assert!(last > first + 0.15, "{first} at first, {last} at last");
    // Weights that do not move have no other way to leave the reference than by what the sampler adds
    assert!(number(&rows[0], "kl").abs() < 1e-4 && number(&rows[59], "kl") > 0.1);
    assert!(rows.iter().all(|row| number(row, "field/error").is_finite() && number(row, "grad_norm") == 0.0));
    // And `eval` asks the steered model
    let eval = |flags: &[&str]| -> Value {
        let judge =
            ["--dataset", "prompted.jsonl", "--reward_funcs", "regex:^[a-z ]", "--max_new_tokens", "8", "--json"];
        let many = ["--num_generations", "8", "--ref_model", "model"];
        let words = [&["eval", "--model", text(out)], &judge[..], &many, flags].concat();
        serde_json::from_str(&ask(&words).stdout).unwrap()
    };
    let (steered, plain) = (eval(&[]), eval(&["--eta", "0"]));
    assert!(steered["reward"].as_f64().unwrap() > plain["reward"].as_f64().unwrap() + 0.15, "{steered} {plain}");
    assert_eq!(plain["reward"], plain["ref_reward"]);
    assert!(steered["kl"].as_f64().unwrap() > 0.1 && plain["kl"].as_f64().unwrap().abs() < 1e-4);
}

#[test]
fn fields_of_another_model_and_damaged_ones_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let (run, moved) = (folder.path().join("run"), folder.path().join("moved"));
    grl(&run, &[&LENGTH[..], &FIELD, &["--save_strategy", "steps", "--save_steps", "2"]].concat());
    grl(&moved, &LENGTH);
    let words = |run: &'static str| ["generate", "--prompt", "a", "--model", run];
    let path: &'static str = Box::leak(text(&run).to_owned().into_boxed_str());
    let memory = run.join("token_memory.safetensors");
    let whole = bytes(&memory);
    for length in [0, 5, whole.len() / 2, whole.len() - 1] {
        fs::write(&memory, &whole[..length]).unwrap();
        refused(&words(path), "truncated");
    }
    fs::write(&memory, &whole).unwrap();
    let map = run.join("state_map.safetensors");
    let kept = bytes(&map);
    fs::remove_file(&map).unwrap();
    refused(&words(path), "`state_map.safetensors`");
    fs::write(&map, bytes(&run.join("feature_map.safetensors"))).unwrap();
    refused(&words(path), "not the token field's own");
    fs::write(&map, kept).unwrap();
    // Other weights
    let model = run.join("model.safetensors");
    let own = bytes(&model);
    fs::write(&model, bytes(&moved.join("model.safetensors"))).unwrap();
    refused(&words(path), "belongs to another model");
    fs::write(&model, own).unwrap();
    let again = folder.path().join("again");
    let checkpoint = run.join("checkpoint-2");
    let resume = ["grl", "--output_dir", text(&again), "--resume_from_checkpoint", text(&checkpoint)];
    let resumed = |flags: &[&str], reason: &str| {
        refused(&[&resume[..], &COMMON, &LENGTH, &["--tau", "0.1", "--field_dim", "4"], flags].concat(), reason);
    };
    resumed(&[], "`eta` is 0, and the checkpoint's run had 1");
    resumed(&["--eta", "1", "--field_capacity", "9"], "`field_capacity` is 9");
    resumed(&["--eta", "1", "--field_prompt_weight", "0.5"], "`field_prompt_weight` is 0.5");
}

/// A run in the folder of an earlier one leaves no field of the other's beside its weights
#[test]
fn a_later_run_in_the_same_folder_is_not_steered_by_the_earlier_field() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    grl(&out, &[&LENGTH[..], &FIELD].concat());
    grl(&out, &[&LENGTH[..], &["--overwrite_output_dir", "true"]].concat());
    assert!(!out.join("token_field.json").exists());
    ask(&["generate", "--model", text(&out), "--prompt", "a", "--max_new_tokens", "2"]);
}

#[test]
fn a_field_sees_tokens_that_a_sampler_cut_away_and_completions_of_a_file() {
    let folder = tempfile::tempdir().unwrap();
    grl(&folder.path().join("cut"), &[&LENGTH[..], &FIELD, &["--top_k", "5"]].concat());
    let file = folder.path().join("replayed.jsonl");
    let row = |i: usize| {
        let prompt = format!("Question {i}\nAnswer:");
        json!({ "prompt": prompt, "completions": [" one", " two"], "rewards": [1.0, 0.0] }).to_string() + "\n"
    };
    fs::write(&file, (0..8).map(row).collect::<String>()).unwrap();
    let out = folder.path().join("replayed");
    grl(&out, &[&FIELD[..], &["--replay_completions", text(&file)]].concat());
    assert!(number(&rows(&out)[3], "field/size") > 0.0);
}

#[test]
fn requests_that_make_no_sense_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    for (flags, reason) in [
        (&["--eta", "1", "--mode", "awr"][..], "mode `awr` does nothing with `eta` above 0"),
        (&["--eta", "1", "--huber", "1"], "`huber` does nothing with `eta` above 0"),
        (&["--eta", "1", "--estimator", "group"], "not `estimator: group`"),
        (&["--eta", "1", "--field_rate", "1.5"], "`field_rate` must be at most 1"),
        (&["--eta", "-1"], "`eta` must be at least 0"),
        (&["--imputation", "0"], "`imputation` must be above 0"),
        (&["--adaptive_generations", "4", "--num_generations", "8"], "`adaptive_generations`, 4, must be at least"),
        (&["--adaptive_generations", "4", "--estimator", "sum"], "needs a variance"),
    ] {
        let words = [&["grl", "--output_dir", text(folder.path())], &COMMON[..], &LENGTH, flags].concat();
        refused(&words, reason);
    }
}

#[test]
fn rewards_that_are_foretold_are_not_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("same.jsonl");
    // The same few completions again and again, each with its own reward
    let row = |i: usize| {
        let prompt = format!("Question {}\nAnswer:", i % 4);
        let rewards = [1.0 + (i % 4) as f64, 0.0];
        json!({ "prompt": prompt, "completions": [" one", " two"], "rewards": rewards }).to_string() + "\n"
    };
    fs::write(&file, (0..32).map(row).collect::<String>()).unwrap();
    let run = |name: &str, flags: &[&str]| {
        let out = folder.path().join(name);
        let own = ["--replay_completions", text(&file), "--kernel_fit_steps", "1", "--max_steps", "8"];
        grl(&out, &[&own[..], flags].concat());
        out
    };
    let (all, none) = (run("all", &["--imputation", "1e-9"]), run("off", &[]));
    // Nothing is as sure as that, and what is never done changes nothing
    assert_eq!(bytes(&all.join("model.safetensors")), bytes(&none.join("model.safetensors")));
    assert!(rows(&all).iter().all(|row| number(row, "imputed/share") == 0.0));
    let some = rows(&run("some", &["--imputation", "100"]));
    assert_eq!(number(&some[0], "imputed/share"), 0.0, "at first nothing is known");
    assert_eq!(number(&some[7], "imputed/share"), 1.0, "and then everything, to such an accuracy");
    assert!(number(&some[7], "imputed/reward").is_finite() && number(&some[7], "memory/size") > 0.0);
    let queries: f64 = some.iter().map(|row| 8.0 * (1.0 - number(row, "imputed/share"))).sum();
    assert_eq!(number(&some[7], "reward_queries"), queries);
    assert!(queries < number(&rows(&none)[7], "reward_queries"));
}

/// JSON knows no infinity, but a number can be too large for what is computed from it
#[test]
fn rewards_that_no_number_can_hold_the_square_of_end_a_run_with_imputation() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("huge.jsonl");
    let row = json!({ "prompt": "What is it?", "completions": ["a", "b"], "rewards": [1e200, -1e200] });
    fs::write(&file, format!("{row}\n").repeat(4)).unwrap();
    let out = folder.path().join("out");
    for more in [&["--imputation", "0.1"][..], &FIELD] {
        let words = ["grl", "--output_dir", text(&out), "--replay_completions", text(&file)];
        let outcome = outcome(command(&[&words[..], &COMMON, more].concat()));
        assert_eq!(outcome.code, Some(1), "{outcome:?}");
        assert!(outcome.stderr.contains("finite") || outcome.stderr.contains("inf"), "{outcome:?}");
        assert!(!out.join("summary.json").exists());
        fs::remove_dir_all(&out).unwrap();
    }
}

#[test]
fn completions_go_where_values_are_least_known_at_the_same_cost() {
    let folder = tempfile::tempdir().unwrap();
    let run = |name: &str, flags: &[&str]| {
        let out = folder.path().join(name);
        let own = ["--per_device_train_batch_size", "12", "--kernel_fit_steps", "1", "--max_steps", "6"];
        grl(&out, &[&LENGTH[..], &own, flags].concat());
        out
    };
    // With no room for more, everyone gets the same
    let (even, plain) = (run("even", &["--adaptive_generations", "2"]), run("plain", &[]));
    assert_eq!(bytes(&even.join("model.safetensors")), bytes(&plain.join("model.safetensors")));
    // One prompt that is seen again and again, others that are new, and a reward that is the prompt's own
    let file = folder.path().join("one_known.jsonl");
    let row = |i: usize| {
        let name = if i.is_multiple_of(6) { 0 } else { i };
        json!({ "prompt": format!("Question {name}\nAnswer:") }).to_string() + "\n"
    };
    fs::write(&file, (0..36).map(row).collect::<String>()).unwrap();
    let judge = "command:sed -u -e 's/.*Question 0.*/1/;t;s/.*/0/'";
    let own = ["--dataset_name", text(&file), "--reward_funcs", judge, "--shuffle_dataset", "false"];
    let rows = rows(&run("adaptive", &[&own[..], &["--adaptive_generations", "6", "--kernel", "delta"]].concat()));
    assert_eq!((number(&rows[0], "generations/min"), number(&rows[0], "generations/max")), (2.0, 2.0));
    assert!(rows.iter().any(|row| number(row, "generations/max") > 2.0 && number(row, "generations/min") == 1.0));
    assert_eq!(number(&rows[5], "reward_queries"), 72.0);
}

#[test]
fn a_prompt_that_nothing_is_known_of_is_left_to_the_reference() {
    let folder = tempfile::tempdir().unwrap();
    let (run, smooth) = (folder.path().join("run"), folder.path().join("smooth"));
    let long = ["--max_steps", "8", "--per_device_train_batch_size", "32"];
    grl(&run, &[&LENGTH[..], &long, &["--kernel", "delta"]].concat());
    grl(&smooth, &[&LENGTH[..], &long].concat());
    let out = text(&run);
    let unknown = |model: &str, flags: &[&str]| {
        let words = ["generate", "--model", model, "--prompt", "Something else", "--max_new_tokens", "12", "--json"];
        ask(&[&words[..], flags].concat())
    };
    let object = |outcome: &Outcome| -> Value { serde_json::from_str(&outcome.stdout).unwrap() };
    // By identity, a prompt that was not seen is one that nothing is known of: the reference, to the last token
    let abstained = unknown(out, &["--abstention"]);
    assert_eq!(object(&abstained)["token_ids"], object(&unknown("model", &[]))["token_ids"]);
    assert_eq!((&object(&abstained)["confidence"], &object(&abstained)["uncertain"]), (&json!(0.0), &json!(true)));
    assert!(abstained.stderr.contains("below `g_min`"), "{}", abstained.stderr);
    assert_ne!(object(&unknown(out, &[]))["token_ids"], object(&unknown("model", &[]))["token_ids"]);
    // What it was trained on is known better
    let known = generated(text(&smooth), &["--abstention", "--g_min", "0"]);
    let line: Value = serde_json::from_str(known.lines().next().unwrap()).unwrap();
    assert!(line["confidence"].as_f64().unwrap() > 0.0 && line["uncertain"] == json!(false), "{line}");
    let stream = ["generate", "--model", out, "--prompt", "Something else", "--max_new_tokens", "12", "--stream"];
    let plain = ["generate", "--model", "model", "--prompt", "Something else", "--max_new_tokens", "12"];
    assert_eq!(ask(&[&stream[..], &["--abstention"]].concat()).stdout, ask(&plain).stdout);
    refused(&["generate", "--model", "model", "--prompt", "a", "--abstention"], "no `particles.json`");
    refused(&["generate", "--model", out, "--prompt", "a", "--abstention", "--ref_model", out], "another model");
    let average = folder.path().join("average");
    grl(&average, &[&LENGTH[..], &["--estimator", "nadaraya_watson"]].concat());
    refused(&["generate", "--model", text(&average), "--prompt", "a", "--abstention"], "have no variance");
}
