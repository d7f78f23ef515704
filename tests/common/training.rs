//! Training runs of the program as a process, on the tiny model that lies beside the reference's results.

#![allow(dead_code, reason = "each test file uses its part")]
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test, in helpers too")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::{Map, Value};

/// Model, rows, configs, and what the reference logged for them
pub const GOLDENS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/goldens/trl");

pub type Row = Map<String, Value>;

#[derive(Debug)]
pub struct Outcome {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

/// The program with these words, started where the rows lie, cut off from the network
pub fn command(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_collimate"));
    command.args(args).current_dir(GOLDENS).env("HF_HUB_OFFLINE", "1").env_remove("RAYON_NUM_THREADS");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

pub fn outcome(mut command: Command) -> Outcome {
    let output = command.output().expect("the program starts");
    Outcome {
        code: output.status.code(),
        stdout: String::from_utf8(output.stdout).expect("stdout is UTF-8"),
        stderr: String::from_utf8(output.stderr).expect("stderr is UTF-8"),
    }
}

/// `collimate RECIPE --output_dir OUT FLAGS`, which must succeed
pub fn train(recipe: &str, out: &Path, flags: &[&str]) {
    let words = [&[recipe, "--output_dir", text(out)], flags].concat();
    let outcome = outcome(command(&words));
    assert_eq!(outcome.code, Some(0), "{words:?}: {}", outcome.stderr);
}

pub fn text(path: &Path) -> &str {
    path.to_str().expect("a path in UTF-8")
}

/// Complete lines of `metrics.jsonl`; none where there is no such file yet
pub fn rows(out: &Path) -> Vec<Row> {
    let text = fs::read_to_string(out.join("metrics.jsonl")).unwrap_or_default();
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    whole.lines().map(|line| serde_json::from_str(line).expect("a JSON object")).collect()
}

/// The same without times and rates, which no two runs share
pub fn untimed(out: &Path) -> Vec<Row> {
    let is_timed = |name: &str| {
        name.starts_with("time/") || name.contains("per_second") || name == "eval_runtime" || name == "train_runtime"
    };
    let strip = |row: Row| row.into_iter().filter(|(name, _)| !is_timed(name)).collect();
    rows(out).into_iter().map(strip).collect()
}

pub fn is_eval(row: &Row) -> bool {
    row.keys().any(|name| name.starts_with("eval_"))
}

pub fn number(row: &Row, name: &str) -> f64 {
    row.get(name).and_then(Value::as_f64).unwrap_or_else(|| panic!("no number `{name}` in {row:?}"))
}

pub fn json(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).expect("a file")).expect("JSON")
}

pub fn bytes(path: &Path) -> Vec<u8> {
    fs::read(path).unwrap_or_else(|cause| panic!("{}: {cause}", path.display()))
}

/// The names in a folder, sorted
pub fn listing(folder: &Path) -> Vec<String> {
    let name = |entry: std::io::Result<fs::DirEntry>| entry.unwrap().file_name().into_string().unwrap();
    let mut names: Vec<String> = fs::read_dir(folder).unwrap().map(name).collect();
    names.sort();
    names
}

/// A copy of the tiny model with some entries of `config.json` changed
pub fn model(folder: &Path, changes: &[(&str, Value)]) -> PathBuf {
    let copy = folder.join("model");
    fs::create_dir(&copy).unwrap();
    for name in listing(&Path::new(GOLDENS).join("model")) {
        fs::write(copy.join(&name), bytes(&Path::new(GOLDENS).join("model").join(&name))).unwrap();
    }
    let mut config = json(&copy.join("config.json"));
    for (name, value) in changes {
        config[*name] = value.clone();
    }
    fs::write(copy.join("config.json"), config.to_string()).unwrap();
    copy
}
