//! Configs that were written for TRL's command line (`scripts/goldens/trl_yaml.py` has TRL itself parse them) run here,
//! as a file and as flags, with nothing changed but the program's name.

#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test, in helpers too")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

const GOLDENS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/goldens");
const COMMANDS: [&str; 6] = ["sft", "dpo", "reward", "kto", "grpo", "rloo"];

/// A folder with the model and the data that the configs name
fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let trl = Path::new(GOLDENS).join("trl");
    for name in ["text.jsonl", "preference.jsonl", "unpaired.jsonl", "prompted.jsonl"] {
        fs::copy(trl.join(name), folder.path().join(name)).unwrap();
    }
    fs::create_dir(folder.path().join("model")).unwrap();
    for entry in fs::read_dir(trl.join("model")).unwrap() {
        let path = entry.unwrap().path();
        fs::copy(&path, folder.path().join("model").join(path.file_name().unwrap())).unwrap();
    }
    folder
}

fn run(folder: &Path, arguments: &[String]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_collimate")).args(arguments).current_dir(folder).output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(0), "{arguments:?}\n{stderr}");
    stderr
}

fn config(command: &str) -> PathBuf {
    Path::new(GOLDENS).join("trl_yaml").join(format!("{command}.yaml"))
}

/// The numbers of a run, times and rates left out
fn numbers(folder: &Path) -> Vec<Value> {
    let text = fs::read_to_string(folder.join("metrics.jsonl")).unwrap();
    let mut rows: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    for row in &mut rows {
        let timed = |name: &String| name.contains("time") || name.contains("second") || name.contains("rss");
        row.as_object_mut().unwrap().retain(|name, _| !timed(name));
    }
    rows
}

#[test]
fn a_config_of_trl_runs_as_it_is() {
    for command in COMMANDS {
        let folder = folder();
        let stderr = run(folder.path(), &[command.into(), "--config".into(), config(command).to_str().unwrap().into()]);
        assert!(stderr.contains("`use_cpu`") && stderr.contains("`run_name`"), "{command}: {stderr}");
        let rows = numbers(&folder.path().join("out"));
        let last = rows.iter().rev().find(|row| row.get("loss").is_some()).unwrap();
        assert_eq!(last["step"], 4, "{command}");
        assert!(rows.iter().any(|row| row.get("eval_loss").is_some()), "{command}: {rows:?}");
        assert!(folder.path().join("out/summary.json").is_file() && folder.path().join("out/checkpoint-4").is_dir());
    }
}

#[test]
fn a_command_line_of_trl_runs_as_it_is() {
    for command in COMMANDS {
        let folder = folder();
        let text = fs::read_to_string(config(command)).unwrap();
        let mut flags = vec![command.to_owned()];
        // `key: value` lines alone: a mixture has no form as flags, so one folder takes its place
        for line in text.lines().filter(|line| !line.starts_with([' ', '#']) && !line.ends_with(':')) {
            let (key, value) = line.split_once(": ").unwrap();
            flags.push(format!("--{key}"));
            let list = value.trim_start_matches('[').trim_end_matches(']');
            flags.extend(list.split(", ").map(ToOwned::to_owned));
        }
        let data = match command {
            "sft" => "text",
            "dpo" | "reward" => "preference",
            "kto" => "unpaired",
            _ => "prompted",
        };
        fs::create_dir(folder.path().join("data")).unwrap();
        fs::copy(folder.path().join(format!("{data}.jsonl")), folder.path().join("data/train.jsonl")).unwrap();
        flags.extend(["--dataset_name".to_owned(), "data".to_owned()]);
        run(folder.path(), &flags);
        let by_flags = numbers(&folder.path().join("out"));
        assert!(by_flags.iter().any(|row| row.get("eval_loss").is_some()), "{command}");
        if command != "sft" && command != "grpo" && command != "rloo" {
            fs::remove_dir_all(folder.path().join("out")).unwrap();
            run(folder.path(), &[command.into(), "--config".into(), config(command).to_str().unwrap().into()]);
            assert_eq!(by_flags, numbers(&folder.path().join("out")), "{command}: the same run from a file");
        }
    }
}
