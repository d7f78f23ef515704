//! The small tasks whose optimum is known: their files are what the scripts write, and the configs for them run.

#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test, in helpers too")]

#[path = "common/training.rs"]
mod training;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use collimate::reward::{Rewards, Sample};
use serde_json::{Map, Value, json};
use training::{bytes, listing, number, text};

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn data_rows(path: &str) -> Vec<Map<String, Value>> {
    let content = fs::read_to_string(repository().join("data").join(path)).unwrap();
    content.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// What the built-in says about one completion of a row
fn judge(reward: &str, row: &Map<String, Value>, completion: &str) -> f64 {
    let mut rewards =
        Rewards::from_config(&[reward.to_owned()], None, collimate::reward::Options::default(), |_| unreachable!())
            .unwrap();
    rewards.check_row(row).unwrap();
    let completion = json!(completion);
    let sample =
        Sample { prompt: &row["prompt"], completion: &completion, completion_ids: &[], columns: row, truncated: false };
    rewards.score(&[sample], &|| Ok(())).unwrap().total[0].unwrap()
}

fn shortest_path() -> String {
    format!("shortest_path:{}", text(&repository().join("data/walks/graph.json")))
}

#[test]
fn the_shipped_rows_are_what_the_scripts_write() {
    let folder = tempfile::tempdir().unwrap();
    for task in ["walks", "sums"] {
        let (shipped, written) = (repository().join("data").join(task), folder.path().join(task));
        let script = repository().join("scripts/data").join(format!("{task}.py"));
        let start = written.join("start");
        let mut python = Command::new("python3");
        python.arg("-B").arg(script).args(["--output_dir", text(&written), "--start", text(&start)]);
        match python.status() {
            Ok(status) => assert!(status.success(), "{task}"),
            Err(cause) => return eprintln!("skipped: no python3 ({cause})"),
        }
        for name in listing(&written).iter().filter(|name| *name != "start") {
            assert!(bytes(&written.join(name)) == bytes(&shipped.join(name)), "data/{task}/{name}");
        }
        // The program writes them anew beside the weights, but means the same
        for name in ["config.json", "tokenizer.json"] {
            let (ours, theirs) = (training::json(&start.join(name)), training::json(&shipped.join("base").join(name)));
            for (key, value) in ours.as_object().unwrap() {
                assert_eq!(theirs[key], *value, "data/{task}/base/{name}: {key}");
            }
        }
    }
}

#[test]
fn the_cards_have_the_hashes_of_the_files() {
    for task in ["walks", "sums"] {
        let folder = repository().join("data").join(task);
        let card = fs::read_to_string(folder.join("README.md")).unwrap();
        let base = listing(&folder.join("base")).into_iter().map(|name| format!("base/{name}"));
        let rows = listing(&folder).into_iter().filter(|name| name.contains(".json"));
        for name in rows.chain(base) {
            let line = format!("| `{name}` | `{}` |", sha256(&folder.join(&name)));
            assert!(card.contains(&line), "data/{task}/README.md lacks: {line}");
        }
    }
}

fn sha256(path: &Path) -> String {
    use sha2::{Digest, Sha256};
    collimate::files::hex(&Sha256::digest(bytes(path)))
}

#[test]
fn walks_are_judged_as_the_script_that_drew_the_graph_judges_them() {
    let script = "import json, sys, walks; graph = json.load(open(sys.argv[1]))\n\
                  for line in sys.stdin: print(walks.optimality(graph, line.strip()))";
    let walks = data_rows("walks/walks.jsonl");
    let mut texts: Vec<String> = walks.iter().map(|row| row["text"].as_str().unwrap().to_owned()).collect();
    // Cut, led astray, and never begun
    let spoilt = |text: &String| [text[..text.len() - 1].to_owned(), text.replace('a', "ua"), text[..1].to_owned()];
    texts.extend(texts.clone().iter().take(200).flat_map(spoilt));
    let folder = tempfile::tempdir().unwrap();
    let input = folder.path().join("walks.txt");
    fs::write(&input, texts.join("\n")).unwrap();
    let output = Command::new("python3")
        .args(["-B", "-c", script, text(&repository().join("data/walks/graph.json"))])
        .env("PYTHONPATH", repository().join("scripts/data"))
        .stdin(fs::File::open(&input).unwrap())
        .output();
    let output = match output {
        Ok(output) => output,
        Err(cause) => return eprintln!("skipped: no python3 ({cause})"),
    };
    let expected: Vec<f64> =
        String::from_utf8(output.stdout).unwrap().lines().map(|line| line.parse().unwrap()).collect();
    assert_eq!(expected.len(), texts.len(), "{}", String::from_utf8_lossy(&output.stderr));
    let kinds = |kind: fn(f64) -> bool| expected.iter().filter(|value| kind(**value)).count();
    assert!(kinds(|value| value == 1.0) > 50 && kinds(|value| value == 0.0) > 50, "both ends of the scale occur");
    for (walk, expected) in texts.iter().zip(expected) {
        let row = json!({"prompt": walk[..1]});
        assert_eq!(judge(&shortest_path(), row.as_object().unwrap(), &walk[1..]), expected, "{walk}");
    }
}

#[test]
fn sums_are_right_and_the_held_out_ones_are_held_out() {
    let (train, test) = (data_rows("sums/train.jsonl"), data_rows("sums/test.jsonl"));
    let prompts = |rows: &[Map<String, Value>]| -> BTreeSet<String> {
        rows.iter().map(|row| row["prompt"].as_str().unwrap().to_owned()).collect()
    };
    assert!(prompts(&train).is_disjoint(&prompts(&test)));
    assert_eq!((prompts(&train).len(), prompts(&test).len()), (9000, 1000));
    for row in train.iter().chain(&test) {
        let (a, b) = row["prompt"].as_str().unwrap().strip_suffix('=').unwrap().split_once('+').unwrap();
        let sum = a.parse::<u32>().unwrap() + b.parse::<u32>().unwrap();
        assert_eq!(row["answer"], json!(sum.to_string()));
    }
    assert_eq!(judge("exact_match", &test[0], test[0]["answer"].as_str().unwrap()), 1.0);
    assert_eq!(judge("exact_match", &test[0], "1"), 0.0);
}

/// Mean reward of samples of a base model: what the cards say
#[test]
fn the_base_models_are_as_far_as_their_cards_say() {
    let cases = [("walks", "prompts", shortest_path(), 32, 0.36), ("sums", "test", "exact_match".to_owned(), 1, 0.40)];
    for (task, prompts, reward, samples, expected) in cases {
        let folder = repository().join("data").join(task);
        let (model, file) = (folder.join("base"), folder.join(format!("{prompts}.jsonl")));
        let words =
            ["--model_name_or_path", text(&model), "--prompts", text(&file), "--max_new_tokens", "10", "--json"];
        let samples_each = samples.to_string();
        let outcome = training::outcome(training::command(
            &[&["generate", "--batch_size", "256", "--num_return_sequences", &samples_each], &words[..]].concat(),
        ));
        assert_eq!(outcome.code, Some(0), "{}", outcome.stderr);
        let rows = data_rows(&format!("{task}/{prompts}.jsonl"));
        let rows = rows.iter().flat_map(|row| std::iter::repeat_n(row, samples));
        let scores: Vec<f64> = outcome
            .stdout
            .lines()
            .zip(rows)
            .map(|(line, row)| {
                let completion: Value = serde_json::from_str(line).unwrap();
                assert_eq!(completion["prompt"], row["prompt"]);
                judge(&reward, row, completion["completion"].as_str().unwrap())
            })
            .collect();
        let mean = scores.iter().sum::<f64>() / scores.len() as f64;
        // Four standard errors, which are 0.016 at most
        assert!((mean - expected).abs() < 0.065, "{task}: {mean}, expected {expected}");
    }
}

/// `configs/TASK/RECIPE.yaml`
fn configs() -> Vec<(String, PathBuf)> {
    let mut found = Vec::new();
    for task in ["walks", "sums"] {
        let folder = repository().join("configs").join(task);
        for name in listing(&folder) {
            let recipe = name.strip_suffix(".yaml").expect("configs only").to_owned();
            found.push((recipe, folder.join(name)));
        }
    }
    found
}

#[test]
fn the_configs_of_the_tasks_run_as_they_are() {
    let configs = configs();
    assert!(configs.len() >= 2, "{configs:?}");
    for (recipe, path) in configs {
        let shown = text(path.strip_prefix(repository()).unwrap()).to_owned();
        let head = fs::read_to_string(&path).unwrap();
        let command = format!("# collimate {recipe} --config {shown} ");
        assert!(head.starts_with(&command), "{shown} must begin with its command");
        for word in ["Needs ", "Expected "] {
            assert!(head.lines().any(|line| line.starts_with('#') && line.contains(word)), "{shown} lacks `{word}`");
        }
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().join("run");
        let more = ["--max_steps", "2", "--logging_steps", "1", "--report_to", "none"];
        let mut command = training::command(
            &[&[recipe.as_str(), "--config", &shown, "--output_dir", text(&out)], &more[..]].concat(),
        );
        command.current_dir(repository());
        let outcome = training::outcome(command);
        assert_eq!(outcome.code, Some(0), "{shown}: {}", outcome.stderr);
        let rows = training::rows(&out);
        assert_eq!(rows.len(), 2, "{shown}");
        assert!(rows.iter().all(|row| number(row, "loss").is_finite()), "{shown}: {rows:?}");
        assert!(out.join("model.safetensors").exists(), "{shown}");
    }
}
