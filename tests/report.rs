//! Statistics against published code, and the page of small made-up run folders.

#[path = "common/html.rs"]
mod html;

use std::fs;
use std::path::Path;
use std::process::Command;

use collimate::report::run::name_apart;
use collimate::report::statistics::{
    Bootstrap, Estimate, Scores, iqm, mean, median, optimality_gap, performance_profile, probability_of_improvement,
};
use collimate::report::{Run, render};
use serde_json::{Value, json};

fn golden() -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/goldens/report/statistics.json");
    serde_json::from_slice(&fs::read(path).expect("the golden is there")).expect("JSON")
}

fn numbers(value: &Value) -> Vec<f64> {
    value.as_array().expect("a list").iter().map(|x| x.as_f64().expect("a number")).collect()
}

fn scores(table: &Value) -> Scores {
    Scores::new(table["tasks"].as_array().expect("tasks").iter().map(numbers).collect()).expect("scores")
}

#[track_caller]
fn assert_close(found: f64, expected: &Value, tolerance: f64, what: &str) {
    let expected = expected.as_f64().expect("a number");
    assert!((found - expected).abs() <= tolerance, "{what}: expected {expected}, found {found}");
}

/// Points to rounding, ends of the interval to what two bootstraps with different generators differ by
#[track_caller]
fn assert_estimate(found: Estimate, expected: &Value, noise: f64, what: &str) {
    assert_close(found.point, &expected["point"], 1e-12, what);
    assert_close(found.low, &expected["low"], noise, what);
    assert_close(found.high, &expected["high"], noise, what);
}

#[test]
fn aggregates_are_rliables() {
    let golden = golden();
    let target = golden["target"].as_f64().expect("a target");
    // The tests run unoptimised too: fewer resamples than by default, and a tolerance to match
    let bootstrap = Bootstrap { resamples: 20_000, ..Bootstrap::default() };
    for (name, table) in golden["tables"].as_object().expect("tables") {
        let scores = scores(table);
        let figures = |s: &Scores| vec![mean(s), median(s), iqm(s), optimality_gap(s, target)];
        let estimates = bootstrap.estimates(&scores, figures);
        for (figure, estimate) in ["mean", "median", "iqm", "optimality_gap"].into_iter().zip(estimates) {
            let width = estimate.high - estimate.low;
            assert!(width > 0.0, "{name}: {figure} has an empty interval");
            assert_estimate(estimate, &table[figure], 0.03 * width + 0.002, &format!("{name}: {figure}"));
        }
        let thresholds = numbers(&golden["thresholds"]);
        assert_eq!(performance_profile(&scores, &thresholds), numbers(&table["profile"]), "{name}");
    }
}

#[test]
fn the_probability_of_improvement_is_rliables() {
    let golden = golden();
    let (x, y) = (scores(&golden["tables"]["strong"]), scores(&golden["tables"]["weak"]));
    let bootstrap = Bootstrap { resamples: 2_000, ..Bootstrap::default() };
    let found = bootstrap.improvement(&x, &y).expect("the same tasks");
    assert_estimate(found, &golden["strong_over_weak"], 0.015, "strong over weak");
    let reverse = probability_of_improvement(&y, &x).expect("the same tasks");
    assert!((found.point + reverse - 1.0).abs() < 1e-12);
    let other = scores(&golden["tables"]["single_task"]);
    assert!(probability_of_improvement(&x, &other).unwrap_err().message().contains("found 5 and 1"));
}

/// A run folder with some rows; `exit` is null while it runs
fn run_folder(parent: &Path, name: &str, kl: &str, exit: &Value) -> Run {
    let folder = parent.join(name);
    fs::create_dir_all(&folder).expect("a folder");
    let start = json!({"command": ["collimate", name, "--seed", "7"], "seed": 7, "version": "0.1.0", "exit": exit});
    fs::write(folder.join("manifest.json"), json!({ "starts": [start] }).to_string()).expect("a manifest");
    let config = "model_name_or_path: data/<base>\ndataset_name: null\n";
    fs::write(folder.join("config.yaml"), config).expect("a config");
    let rows = (1..=5).map(|i| {
        let x = f64::from(i);
        json!({"step": 10 * i, "epoch": 0.1, "loss": 1.0 / x, kl: 0.1 * x, "reward": x, "val/ratio": 1.0}).to_string()
    });
    let rows: Vec<String> = rows.chain([json!({"step": 50, "eval_loss": 0.125}).to_string()]).collect();
    // The last line is still being written
    let metrics = format!("{}\n{{\"step\":60,\"lo", rows.join("\n"));
    fs::write(folder.join("metrics.jsonl"), metrics).expect("metrics");
    Run::read(&folder).expect("a run folder")
}

#[test]
fn a_page_carries_all_it_shows() {
    let parent = tempfile::tempdir().expect("a folder");
    let runs = [
        run_folder(parent.path(), "ppo", "objective/kl", &json!({"code": 0})),
        run_folder(parent.path(), "grpo", "kl", &Value::Null),
        run_folder(parent.path(), "rloo", "kl", &json!({"code": 1, "error": "loss is <NaN>"})),
    ];
    assert_eq!(runs[1].last_step, Some(50));
    let page = render(&[], &runs).expect("a page");
    html::check(&page);
    // loss, reward, two divergences, one frontier for each, and one metric among the others
    assert_eq!(page.matches("<svg").count(), 7);
    for title in ["reward against kl", "reward against objective/kl", "val/ratio", "eval_loss"] {
        assert!(page.contains(title) || page.contains(&title.replace('/', "&#x2f;")), "no `{title}`");
    }
    assert!(page.contains("finished") && page.contains("running, or killed") && page.contains("loss is &lt;NaN&gt;"));
    assert!(page.contains("data") && !page.contains("<base>"), "texts of a run are escaped");
    assert!(page.contains("<td>0.125</td>"));
    assert_eq!(page, render(&[], &runs).expect("a page"), "the same runs give the same page");
}

#[test]
fn runs_of_one_name_are_told_apart() {
    let parent = tempfile::tempdir().expect("a folder");
    let read = |name: &str| run_folder(&parent.path().join(name), "seed-0", "kl", &Value::Null);
    let mut runs = [read("ppo"), read("grpo"), run_folder(parent.path(), "alone", "kl", &Value::Null)];
    name_apart(&mut runs);
    assert_eq!(runs.map(|run| run.name), ["ppo/seed-0", "grpo/seed-0", "alone"]);
}

#[test]
fn a_run_that_has_logged_nothing_has_a_page() {
    let folder = tempfile::tempdir().expect("a folder");
    fs::write(folder.path().join("manifest.json"), r#"{"starts": [{"seed": 1}]}"#).expect("a manifest");
    let page = render(&[], &[Run::read(folder.path()).expect("a run folder")]).expect("a page");
    html::check(&page);
    assert!(page.contains("Nothing is logged yet") && !page.contains("<svg"));
}

#[test]
fn what_is_no_run_folder_is_named() {
    let folder = tempfile::tempdir().expect("a folder");
    let error = Run::read(folder.path()).unwrap_err();
    assert!(error.message().contains("is not a run folder") && error.exit_code() == 2, "{error}");
    fs::write(folder.path().join("metrics.jsonl"), "{\"step\":1}\nnonsense\n").expect("metrics");
    let error = Run::read(folder.path()).unwrap_err();
    assert!(error.message().contains("metrics.jsonl:2: "), "{error}");
}

#[test]
fn a_grl_runs_page_shows_its_field() {
    let folder = tempfile::tempdir().expect("a folder");
    let run = folder.path().join("run");
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let collimate = |arguments: &[&str]| {
        let said =
            Command::new(env!("CARGO_BIN_EXE_collimate")).args(arguments).current_dir(root).output().expect("it runs");
        assert!(said.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&said.stderr));
        String::from_utf8(said.stdout).expect("text")
    };
    let output = run.to_str().expect("a name");
    let mut grl = vec!["grl", "--model_name_or_path", "data/walks/base", "--dataset_name", "data/walks/prompts.jsonl"];
    grl.extend(["--reward_funcs", "shortest_path:data/walks/graph.json", "--max_completion_length", "10"]);
    grl.extend(["--feature_dim", "4", "--max_steps", "3", "--logging_steps", "1", "--report_to", "none"]);
    grl.extend(["--eval_dataset", "data/walks/prompts.jsonl", "--eval_strategy", "steps", "--eval_steps", "3"]);
    grl.extend(["--num_generations_eval", "8", "--per_device_eval_batch_size", "160", "--output_dir", output]);
    collimate(&grl);
    let page = collimate(&["report", output]);
    let page = fs::read_to_string(page.trim()).expect("the page");
    html::check(&page);
    for shown in ["value of prompts", "share of the field", "memory and replay store", "doubt right?", "highest third"]
    {
        assert!(page.contains(shown), "no `{shown}`");
    }
    // Each prompt in memory is a dot
    let size = Run::read(&run).expect("a run").metrics["memory/size"].last().expect("a row").1;
    let map =
        page.split("<figcaption>value of prompts").nth(1).expect("the map").split("</svg>").next().expect("an end");
    assert_eq!(map.matches("<circle").count() as f64, size);
}
