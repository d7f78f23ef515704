//! `collimate compare` as a user runs it: cells are ordinary runs, a second start keeps what is done, and the result is
//! what the statistics say of the cells' own metrics.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test, in helpers too")]

#[path = "common/html.rs"]
mod html;
#[path = "common/training.rs"]
mod training;

use std::fs;
use std::path::{Path, PathBuf};

use collimate::report::statistics::{Scores, iqm};
use serde_json::Value;
use training::{Outcome, bytes, command, json, number, outcome, rows, text};

/// Two small agents of a few hundred steps each
const CLASSICAL: &str = "seeds: [0, 1]
budget: {timesteps: 384}
threshold: 15
common: {command: rl train, env: CartPole-v1, net_arch: [8]}
runs:
  ppo: {agent: ppo, n_steps: 64, batch_size: 64, n_epochs: 2}
  dqn: {agent: dqn, learning_starts: 32, train_freq: 64, gradient_steps: 4, batch_size: 16}
";

fn compare(folder: &Path, config: &str, flags: &[&str]) -> Outcome {
    let path = folder.join("compare.yaml");
    fs::write(&path, config).unwrap();
    let output_dir = folder.join("out");
    let words = [&["compare", "--config", text(&path), "--output_dir", text(&output_dir)], flags].concat();
    outcome(command(&words))
}

fn ok(outcome: &Outcome) {
    assert_eq!(outcome.code, Some(0), "{}", outcome.stderr);
}

fn cell(folder: &Path, name: &str) -> PathBuf {
    folder.join("out/cells").join(name)
}

fn modified(path: &Path) -> std::time::SystemTime {
    fs::metadata(path).unwrap().modified().unwrap()
}

#[test]
fn a_classical_comparison_from_start_to_page() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    let first = compare(folder.path(), CLASSICAL, &["--jobs", "2"]);
    ok(&first);
    assert!(
        first.stdout.contains("P(row > column)") && first.stdout.trim_end().ends_with("compare.html"),
        "{}",
        first.stdout
    );
    assert!(first.stderr.contains("2 runs of an algorithm are few"), "{}", first.stderr);

    // Its curves are those of the cells
    let found = json(&out.join("compare.json"));
    assert_eq!((&found["metric"], &found["x"]), (&Value::from("return"), &Value::from("step")));
    let last = found["span"][1].as_f64().unwrap();
    assert!(last <= 384.0);
    for (i, name) in ["ppo", "dqn"].into_iter().enumerate() {
        let at_end: Vec<f64> = (0..2)
            .map(|seed| {
                let rows = rows(&cell(folder.path(), &format!("{name}/seed-{seed}")));
                let rows = rows.iter().filter(|row| row.contains_key("return"));
                let points: Vec<_> = rows.map(|row| (number(row, "step"), number(row, "return"))).collect();
                let after = points.iter().position(|(step, _)| *step >= last).unwrap();
                let (x, y) = points[after];
                if x == last {
                    return y;
                }
                let (before_x, before) = points[after - 1];
                before + (y - before) * (last - before_x) / (x - before_x)
            })
            .collect();
        let expected = iqm(&Scores::new(vec![at_end]).unwrap());
        let curve = found["algorithms"][i]["curve"].as_array().unwrap();
        let got = curve.last().unwrap()["point"].as_f64().unwrap();
        assert!((got - expected).abs() < 1e-9, "{name}: {got}, expected {expected}");
    }
    assert_eq!(found["pairs"].as_array().unwrap().len(), 2);

    // The page carries what it shows, and the figures lie beside it
    let page = fs::read_to_string(out.join("compare.html")).unwrap();
    html::check(&page);
    let figures = training::listing(&out.join("figures"));
    assert_eq!(
        figures,
        [
            "final.svg",
            "performance_profile.svg",
            "probability_of_improvement.svg",
            "sample_efficiency.svg",
            "to_threshold.svg"
        ]
    );
    assert_eq!(page.matches("<svg").count(), figures.len());
    let figure = fs::read_to_string(out.join("figures/sample_efficiency.svg")).unwrap();
    assert!(
        figure.contains("xmlns=\"http://www.w3.org/2000/svg\"")
            && figure.contains("<polygon")
            && figure.contains("dqn")
    );
    let table = fs::read_to_string(out.join("runs.csv")).unwrap();
    assert_eq!(table.lines().count(), 5);
    assert_eq!(fs::read_to_string(out.join("compare.csv")).unwrap().lines().count(), 3);

    // A cell alone gives the same policy
    let alone = folder.path().join("alone");
    let config = cell(folder.path(), "dqn/seed-1.yaml");
    ok(&outcome(command(&["rl", "train", "--config", text(&config), "--output_dir", text(&alone)])));
    let model = "model.safetensors";
    assert_eq!(bytes(&alone.join(model)), bytes(&cell(folder.path(), "dqn/seed-1").join(model)));

    // A second start does only what is missing, and finds the same
    let (kept, gone) = (cell(folder.path(), "ppo/seed-0/summary.json"), cell(folder.path(), "ppo/seed-1/summary.json"));
    let before = (modified(&kept), bytes(&out.join("compare.json")));
    fs::remove_file(&gone).unwrap();
    let second = compare(folder.path(), CLASSICAL, &[]);
    ok(&second);
    assert!(second.stderr.contains("3 of 4 runs are done already"), "{}", second.stderr);
    assert!(
        second.stderr.contains("ppo, seed 1 begins") && !second.stderr.contains("seed 0 begins"),
        "{}",
        second.stderr
    );
    assert_eq!((modified(&kept), bytes(&out.join("compare.json"))), before);
    assert!(gone.is_file());

    // Another config has no place in the same folder
    let other = compare(folder.path(), &CLASSICAL.replace("n_epochs: 2", "n_epochs: 3"), &[]);
    assert_eq!(other.code, Some(2));
    assert!(other.stderr.contains("ppo/seed-0` is a run with another `n_epochs`"), "{}", other.stderr);

    // The same from the run folders alone
    let other = folder.path().join("again");
    let words = ["compare", "--runs", text(&out), "--output_dir", text(&other)];
    let again = outcome(command(&words));
    ok(&again);
    let again = json(&folder.path().join("again/compare.json"));
    let names: Vec<&Value> = again["algorithms"].as_array().unwrap().iter().map(|found| &found["name"]).collect();
    assert_eq!(names, ["dqn", "ppo"]);
    assert!(again["algorithms"][0]["runs"] == 2 && again["threshold"].is_null());
}

#[test]
fn a_failing_cell_is_reported_and_the_others_go_on() {
    let folder = tempfile::tempdir().unwrap();
    let config = "seeds: 2
budget: {timesteps: 256}
failed_score: 0
common: {command: rl train, env: CartPole-v1, n_steps: 64, n_epochs: 1, net_arch: [4]}
runs:
  works: {}
  fails: {env: NoSuchPole-v7}
";
    let found = compare(folder.path(), config, &["--jobs", "2"]);
    assert_eq!(found.code, Some(1), "{}", found.stderr);
    assert!(
        found.stderr.contains("error: 2 of 4 runs failed: fails, seed 0 (") && found.stderr.contains("NoSuchPole-v7")
    );
    assert!(cell(folder.path(), "works/seed-1/summary.json").is_file());
    let json = json(&folder.path().join("out/compare.json"));
    assert_eq!((&json["algorithms"][1]["failed"], &json["algorithms"][1]["iqm"]["point"]), (&2.into(), &0.0.into()));
    assert!(json["algorithms"][1]["cells"][0]["failure"].as_str().unwrap().contains("NoSuchPole-v7"));

    // Without a score for failures there is nothing to compare it by
    let config = config.replace("failed_score: 0\n", "");
    let found = compare(folder.path(), &config, &[]);
    assert_eq!(found.code, Some(1));
    assert!(found.stderr.contains("warning: `fails` has no finished run"), "{}", found.stderr);
}

#[test]
fn language_models_are_compared_at_equal_reward_queries() {
    let folder = tempfile::tempdir().unwrap();
    let config = "seeds: [1, 2]
budget: {reward_queries: 32}
common:
  model_name_or_path: model
  dataset_name: prompted.jsonl
  reward_funcs: length
  max_completion_length: 6
  per_device_train_batch_size: 4
  learning_rate: 1e-3
  logging_steps: 1
  save_strategy: 'no'
  report_to: none
runs:
  ppo: {num_generations: 2}
  grpo: {num_generations: 4, num_iterations: 2, steps_per_generation: 1}
";
    ok(&compare(folder.path(), config, &[]));
    let found = json(&folder.path().join("out/compare.json"));
    assert_eq!(found["x"], "reward_queries");
    assert_eq!(found["span"][1], 32.0);
    for (i, name) in ["ppo", "grpo"].into_iter().enumerate() {
        assert_eq!(found["algorithms"][i]["spent"], 32.0, "{name}");
        let rows = rows(&cell(folder.path(), &format!("{name}/seed-1")));
        // 8 completions a step; 4 completions every other step
        let expected: &[f64] = if name == "ppo" { &[8.0, 16.0, 24.0, 32.0] } else { &[4.0, 4.0, 8.0, 8.0, 12.0, 12.0] };
        let queries: Vec<f64> = rows.iter().map(|row| number(row, "reward_queries")).collect();
        assert_eq!(&queries[..expected.len()], expected, "{name}");
        assert_eq!(*queries.last().unwrap(), 32.0);
    }
    let summary = json(&cell(folder.path(), "grpo/seed-2/summary.json"));
    assert_eq!(summary["reward_queries"], 32.0);
}

#[test]
fn a_signal_stops_the_cells_and_the_next_start_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    // More steps than a test may take
    let config = "seeds: [1]
budget: {steps: 100000}
metric: reward
common: {model_name_or_path: model, dataset_name: prompted.jsonl, reward_funcs: length, max_completion_length: 4, \
                  per_device_train_batch_size: 4, num_generations: 2, logging_steps: 1, report_to: none}
runs: {grpo: {}}
";
    let path = folder.path().join("compare.yaml");
    fs::write(&path, config).unwrap();
    let out = folder.path().join("out");
    let words = ["compare", "--config", text(&path), "--output_dir", text(&out)];
    let mut child = command(&words).spawn().unwrap();
    let run = cell(folder.path(), "grpo/seed-1");
    let begin = std::time::Instant::now();
    while rows(&run).len() < 3 {
        assert!(begin.elapsed().as_secs() < 60, "no step within a minute");
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    rustix::process::kill_process(rustix::process::Pid::from_child(&child), rustix::process::Signal::TERM).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(143));
    let checkpoints = || training::listing(&run).into_iter().filter(|name| name.starts_with("checkpoint-")).count();
    assert_eq!(checkpoints(), 1, "the run wrote a checkpoint: {:?}", training::listing(&run));
    let done = rows(&run).len();

    // The next start resumes it
    let mut child = command(&words).spawn().unwrap();
    while rows(&run).len() <= done {
        assert!(begin.elapsed().as_secs() < 60, "no further step within a minute");
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    rustix::process::kill_process(rustix::process::Pid::from_child(&child), rustix::process::Signal::INT).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(130));
    let manifest = json(&run.join("manifest.json"));
    assert_eq!(manifest["starts"][1]["resumed_from_step"].as_u64().unwrap() as usize, done);
}

#[test]
fn the_shipped_comparisons_run() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for (name, changes) in [
        ("walks", [("seeds: 10 ", "seeds: 1 "), ("reward_queries: 9600", "reward_queries: 640")]),
        ("cartpole", [("seeds: [0, 1, 2, 3, 4]", "seeds: [3]"), ("timesteps: 50000", "timesteps: 768")]),
    ] {
        let mut config = fs::read_to_string(root.join(format!("configs/compare/{name}.yaml"))).unwrap();
        for (from, to) in changes {
            assert!(config.contains(from), "{name}: {from}");
            config = config.replace(from, to);
        }
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("compare.yaml");
        fs::write(&path, config).unwrap();
        let out = folder.path().join("out");
        let mut command = command(&["compare", "--config", text(&path), "--output_dir", text(&out)]);
        command.current_dir(root);
        ok(&outcome(command));
        assert!(out.join("compare.html").is_file(), "{name}");
    }
}
