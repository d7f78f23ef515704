//! The other methods as settings of the same trainer, each equal to what it is said to be where that can be told exactly.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test, in helpers too")]

#[path = "common/training.rs"]
mod training;

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::json;
use training::{bytes, command, is_eval, number, outcome, rows, text, train, untimed};

const COMMON: [&str; 16] = [
    "--model_name_or_path",
    "model",
    "--max_completion_length",
    "8",
    "--per_device_train_batch_size",
    "8",
    "--logging_steps",
    "1",
    "--learning_rate",
    "1e-3",
    "--save_strategy",
    "no",
    "--disable_dropout",
    "true",
    "--shuffle_dataset",
    "false",
];

/// Four completions of four tokens for each of two prompts, with rewards of their own
fn replayed(folder: &Path) -> PathBuf {
    let path = folder.join("replayed.jsonl");
    let row = |prompt: &str, first: u32| {
        let completion = |i: u32| (0..4).map(|t| 20 + (7 * (first + i) + 3 * t) % 60).collect::<Vec<u32>>();
        let completions: Vec<Vec<u32>> = (0..4).map(completion).collect();
        let rewards: Vec<f64> = (0..4).map(|i| f64::from((first + i * i) % 5) - 1.3).collect();
        json!({ "prompt": prompt, "completions": completions, "rewards": rewards }).to_string() + "\n"
    };
    fs::write(&path, row("Question: where is the otter?\nAnswer:", 1) + &row("What is it?", 6)).unwrap();
    path
}

/// The norm of the first step's gradient
fn first_norm(folder: &Path, recipe: &str, flags: &[&str]) -> f64 {
    let (file, out) = (replayed(folder), folder.join(format!("{recipe}{}", flags.concat())));
    let own = ["--replay_completions", text(&file), "--max_steps", "1", "--num_generations", "4"];
    train(recipe, &out, &[&COMMON[..], &own, flags].concat());
    number(&rows(&out)[0], "grad_norm")
}

#[track_caller]
fn close(got: f64, want: f64) {
    assert!((got - want).abs() < 1e-4 * want, "{got}, expected {want}");
}

/// Its batches count prompts
const OF_PPO: [&str; 4] = ["--temperature", "1", "--per_device_train_batch_size", "2"];

const ONCE: [&str; 4] = ["--tau", "0.2", "--replay_ratio", "1"];

#[test]
fn group_values_are_rloo_and_trajectory_balance() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let rloo = first_norm(folder, "rloo", &["--beta", "0.2"]);
    let group = |flags: &[&str]| first_norm(folder, "grl", &[&ONCE[..], &["--estimator", "group"], flags].concat());
    // −τe ∇log π: the gradient of the loss in units of the reward is τ times that of REINFORCE
    close(group(&["--leave_one_out", "true"]), 0.2 * rloo);
    // Of four, a response is ¾ of its distance from the others' mean away from the mean of all
    close(group(&[]), 0.2 * 0.75 * rloo);
    // Before anything else is known, a kernel by identity says the same
    let identity = ["--estimator", "nadaraya_watson", "--kernel", "delta"];
    let field = |flags: &[&str]| first_norm(folder, "grl", &[&ONCE[..], &identity, flags].concat());
    close(field(&["--leave_one_out", "true"]), 0.2 * rloo);
    close(field(&["--leave_one_out", "false"]), 0.2 * 0.75 * rloo);
}

/// Limit 11: PPO is no limit of GRL but the same core with other settings. Where its own parts are off (no value loss, a
/// critic that says 0, one episode-long trace, no whitening) the first gradient is that of clipped GRL, but that PPO divides
/// by tokens and GRL by completions
#[test]
fn a_value_network_that_knows_nothing_is_reinforce_in_every_guise() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let shared = ["--value_network", "shared", "--vf_coef", "0"];
    let plain = ["--lam", "1", "--whiten_advantages", "false", "--kl_coef", "0.2", "--num_ppo_epochs", "1"];
    let ppo = first_norm(folder, "ppo", &[&shared[..], &plain, &OF_PPO].concat());
    let dro =
        |flags: &[&str]| first_norm(folder, "grl", &[&ONCE[..], &["--estimator", "network"], &shared, flags].concat());
    let clipped = dro(&["--mode", "clip"]);
    close(clipped, 4.0 * ppo);
    close(dro(&[]), 0.2 * clipped);
    // A field that has seen nothing says 0 as well
    let field = ["--value_network", "field"];
    close(first_norm(folder, "ppo", &[&field[..], &plain, &OF_PPO].concat()), ppo);
}

#[test]
fn a_value_network_learns_the_soft_returns() {
    for network in ["separate", "shared"] {
        let folder = tempfile::tempdir().unwrap();
        let (file, out) = (folder.path().join("same.jsonl"), folder.path().join("out"));
        let row = json!({ "prompt": "What is it?", "completions": ["a", "b"], "rewards": [2.0, 2.0] }).to_string();
        fs::write(&file, format!("{row}\n").repeat(4)).unwrap();
        let flags = ["--estimator", "dro", "--value_network", network, "--max_steps", "40", "--num_generations", "2"];
        let replay = ["--replay_completions", text(&file), "--learning_rate", "5e-3"];
        train("grl", &out, &[&COMMON[..], &flags, &replay, &ONCE].concat());
        let rows = rows(&out);
        let residual = |row: usize| number(&rows[row], "residual");
        assert!(residual(39) < 0.3 * residual(0), "{network}: {} then {}", residual(0), residual(39));
    }
}

/// Features of the particles of a run by their keys
fn particles(run: &Path) -> Vec<(u64, Vec<u8>)> {
    let file = bytes(&run.join("memory.safetensors"));
    let tensors = safetensors::SafeTensors::deserialize(&file).unwrap();
    let (keys, phi) = (tensors.tensor("keys").unwrap(), tensors.tensor("phi").unwrap());
    let width = 4 * phi.shape()[1];
    let keys = keys.data().chunks(8).map(|key| u64::from_le_bytes(key.try_into().unwrap()));
    let mut found: Vec<_> = keys.zip(phi.data().chunks(width).map(<[u8]>::to_vec)).collect();
    found.sort();
    found
}

const LENGTH: [&str; 4] = ["--reward_funcs", "length", "--feature_dim", "4"];

#[test]
fn permuted_features_are_the_same_ones_at_other_prompts() {
    let folder = tempfile::tempdir().unwrap();
    let run = |name: &str, flags: &[&str]| {
        let out = folder.path().join(name);
        let whole = ["--dataset_name", "prompted.jsonl", "--max_steps", "3", "--num_generations", "2"];
        train("grl", &out, &[&COMMON[..], &LENGTH, &whole, flags].concat());
        out
    };
    let (plain, permuted) = (run("plain", &[]), run("permuted", &["--feature_permutation", "true"]));
    let (own, dealt) = (particles(&plain), particles(&permuted));
    let keys = |all: &[(u64, Vec<u8>)]| all.iter().map(|(key, _)| *key).collect::<Vec<u64>>();
    assert_eq!(keys(&own), keys(&dealt));
    assert!(own.iter().zip(&dealt).any(|(a, b)| a.1 != b.1));
    let again = run("again", &["--feature_permutation", "true"]);
    assert_eq!(dealt, particles(&again));
    // A particle is found again whatever its features are
    let prompt = "Question: where is the wren?\nAnswer:";
    let found = outcome(command(&["inspect", text(&permuted), "--prompt", prompt, "--json"]));
    assert_eq!(found.code, Some(0), "{found:?}");
}

#[test]
fn one_prompt_has_nobody_to_deal_with() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("one.jsonl");
    fs::write(&file, json!({ "prompt": "Only one" }).to_string()).unwrap();
    let run = |name: &str, flags: &[&str]| {
        let out = folder.path().join(name);
        let whole = ["--dataset_name", text(&file), "--max_steps", "3", "--num_generations", "2"];
        train("grl", &out, &[&COMMON[..], &LENGTH, &whole, flags].concat());
        out
    };
    let (plain, permuted) = (run("plain", &[]), run("permuted", &["--feature_permutation", "true"]));
    assert_eq!(bytes(&plain.join("model.safetensors")), bytes(&permuted.join("model.safetensors")));
}

#[test]
fn ppo_with_a_field_remembers_prompts_and_resumes_to_the_byte() {
    let folder = tempfile::tempdir().unwrap();
    let (whole, rest) = (folder.path().join("whole"), folder.path().join("rest"));
    let run = |out: &Path, flags: &[&str]| {
        let own = ["--value_network", "field", "--lam", "1", "--dataset_name", "prompted.jsonl", "--max_steps", "6"];
        let kept = ["--save_strategy", "steps", "--save_steps", "3", "--reward_funcs", "length"];
        train("ppo", out, &[&COMMON[..], &own, &kept, flags].concat());
    };
    run(&whole, &[]);
    run(&rest, &["--resume_from_checkpoint", text(&whole.join("checkpoint-3"))]);
    assert_eq!(bytes(&whole.join("model.safetensors")), bytes(&rest.join("model.safetensors")));
    let (all, last) = (untimed(&whole), untimed(&rest));
    assert_eq!(all[3..], last[..]);
    assert!(number(&all[0], "memory/size") > 1.0 && number(&all[5], "memory/size") >= number(&all[0], "memory/size"));
    assert!(all.iter().all(|row| number(row, "loss/value_avg") == 0.0));
}

/// With one prompt the value is the same for every token of every completion, and whitening takes it away
#[test]
fn ppo_with_a_field_over_one_prompt_is_ppo_without_values() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("one.jsonl");
    fs::write(&file, format!("{}\n", json!({ "prompt": "Only one" })).repeat(8)).unwrap();
    let run = |network: &str| {
        let out = folder.path().join(network);
        let own = ["--value_network", network, "--vf_coef", "0", "--lam", "1", "--dataset_name", text(&file)];
        let reward = ["--max_steps", "3", "--reward_funcs", "regex:^[a-m ]"];
        train("ppo", &out, &[&COMMON[..], &own, &reward].concat());
        rows(&out).iter().map(|row| number(row, "grad_norm")).collect::<Vec<f64>>()
    };
    let (field, nothing) = (run("field"), run("shared"));
    for (field, nothing) in field.iter().zip(&nothing) {
        assert!(*field > 0.0 && (field - nothing).abs() < 1e-3 * nothing, "{field} and {nothing}");
    }
}

#[test]
fn held_out_prompts_with_many_responses_judge_the_fields_doubt() {
    let folder = tempfile::tempdir().unwrap();
    let held_out = ["--eval_dataset", "prompted.jsonl", "--eval_strategy", "steps", "--eval_steps", "4"];
    let own = ["--dataset_name", "prompted.jsonl", "--max_steps", "4", "--num_generations", "2"];
    let many = ["--num_generations_eval", "8", "--per_device_eval_batch_size", "8"];
    train("grl", folder.path(), &[&COMMON[..], &LENGTH, &held_out, &own, &many].concat());
    let rows = rows(folder.path());
    let eval = rows.iter().find(|row| is_eval(row)).unwrap();
    let [half, most, nearly] = ["50", "80", "95"].map(|level| number(eval, &format!("eval_value/coverage_{level}")));
    assert!(0.0 <= half && half <= most && most <= nearly && nearly <= 1.0);
    assert!(number(eval, "eval_value/crps") > 0.0 && number(eval, "eval_value/nll").is_finite());
}

#[test]
fn settings_that_contradict_each_other_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    for (flags, reason) in [
        (&["--estimator", "group", "--num_generations", "1"][..], "estimator `group` compares"),
        (&["--value_network", "field"], "`value_network: field` is for `ppo`"),
        (&["--feature_permutation", "true", "--kernel", "delta"], "`feature_permutation` does nothing"),
        (&["--estimator", "dro", "--prompt_acquisition", "deviation"], "needs a variance"),
    ] {
        let start = ["grl", "--output_dir", text(folder.path()), "--dataset_name", "prompted.jsonl"];
        let outcome = outcome(command(&[&start[..], &COMMON, &LENGTH, flags].concat()));
        assert_eq!(outcome.code, Some(2), "{flags:?}: {outcome:?}");
        assert!(outcome.stderr.contains(reason), "{flags:?}: {}", outcome.stderr);
    }
}

/// The comparison that ships, on one task and as short as can be: all arms run, and nothing is claimed
#[test]
fn the_comparison_of_all_arms_runs_and_claims_nothing_from_one_seed() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let folder = tempfile::tempdir().unwrap();
    let (config, out) = (folder.path().join("short.yaml"), folder.path().join("out"));
    let whole = fs::read_to_string(root.join("configs/grl/language.yaml")).unwrap();
    let (before, after) = (whole.find("  reviews:").unwrap(), whole.find("\nruns:").unwrap());
    let short = format!("{}{}", &whole[..before], &whole[after..])
        .replace("seeds: 10", "seeds: [3]")
        .replace("reward_queries: 1600", "reward_queries: 400")
        .replace("num_generations_eval: 16", "num_generations_eval: 2");
    fs::write(&config, short.replace("per_device_eval_batch_size: 320", "per_device_eval_batch_size: 40")).unwrap();
    let mut compare = command(&["compare", "--config", text(&config), "--output_dir", text(&out), "--quiet"]);
    compare.current_dir(root);
    let outcome = outcome(compare);
    assert_eq!(outcome.code, Some(0), "{outcome:?}");
    let claims = fs::read_to_string(out.join("claims.md")).unwrap();
    assert!(outcome.stdout.contains(claims.trim_end()));
    assert!(!claims.contains(": established"), "{claims}");
    for pair in ["grl − ppo", "grl − tba", "grl − grl_permuted", "ppo_field − ppo", "grl − grl_no_replay"] {
        assert!(claims.contains(pair), "{pair} is missing in {claims}");
    }
    // As many queries for all
    for arm in training::listing(&out.join("cells")) {
        let run = out.join("cells").join(arm).join("walks/seed-3");
        assert_eq!(number(rows(&run).last().unwrap(), "eval_reward_queries"), 400.0, "{}", run.display());
    }
}
