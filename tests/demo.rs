//! `collimate demo` as a user runs it, and the data that it carries.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

/// Every file of the repository that the program carries
const CARRIED: [&str; 14] = [
    "README.md",
    "base/README.md",
    "base/config.json",
    "base/generation_config.json",
    "base/model.safetensors",
    "base/tokenizer.json",
    "base/tokenizer_config.json",
    "reviews/corpus.jsonl",
    "reviews/corpus.test.jsonl",
    "reviews/lexicon.json",
    "reviews/preferences.test.jsonl",
    "reviews/preferences.train.jsonl",
    "reviews/sft.test.jsonl",
    "reviews/sft.train.jsonl",
];

fn collimate(current: &Path, args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_collimate")).args(args).current_dir(current).output().expect("the program starts")
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).expect("UTF-8")
}

fn json(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).expect("the file is there")).expect("JSON")
}

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn files_below(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() { files.extend(files_below(&path)) } else { files.push(path) }
    }
    files.sort();
    files
}

/// Weights, and metrics without times: what must be the same each time
fn result_of(run: &Path) -> (Vec<u8>, Vec<Value>) {
    let metrics = fs::read_to_string(run.join("metrics.jsonl")).expect("metrics");
    let rows = metrics.lines().map(|line| {
        let mut row: serde_json::Map<String, Value> = serde_json::from_str(line).expect("a row");
        row.retain(|name, _| !["time", "second", "runtime"].iter().any(|word| name.contains(word)));
        Value::Object(row)
    });
    (fs::read(run.join("model.safetensors")).expect("weights"), rows.collect())
}

#[test]
fn demo_aligns_and_runs_again_with_the_same_result() {
    let outside = tempfile::tempdir().expect("a temporary folder");
    let first = collimate(outside.path(), &["demo"]);
    assert!(first.status.success(), "{}", text(&first.stderr));
    let folder = outside.path().join("collimate-demo");

    for name in CARRIED {
        let carried = fs::read(folder.join("default").join(name)).expect(name);
        assert!(carried == fs::read(repository().join("data").join(name)).expect(name), "`{name}` is stale");
    }
    for run in ["sft", "dpo"] {
        for name in ["config.yaml", "manifest.json", "metrics.jsonl", "summary.json", "model.safetensors"] {
            assert!(folder.join(run).join(name).is_file(), "{run}/{name}");
        }
    }
    let record = json(&folder.join("demo.json"));
    let number = |name: &str| record.pointer(name).and_then(Value::as_f64).unwrap_or(f64::NAN);
    assert!(number("/dpo/rewards~1accuracies") > 0.75, "{record}");
    assert!(number("/dpo/logps~1accuracies") > number("/sft/logps~1accuracies") + 0.1, "{record}");
    assert!(number("/dpo/gold") > number("/sft/gold") + 0.2, "{record}");
    assert!(number("/sft/perplexity") < number("/base/perplexity"), "{record}");
    let by_trainer = json(&folder.join("dpo/summary.json"))["eval_rewards/accuracies"].as_f64().expect("a number");
    assert!((by_trainer - number("/dpo/rewards~1accuracies")).abs() < 0.01, "the trainer says {by_trainer}");

    // The command that the report ends with
    let generated = collimate(&folder, &["generate", "--model", "dpo", "--prompt", "Review of the inn:"]);
    assert!(generated.status.success(), "{}", text(&generated.stderr));
    assert!(text(&generated.stdout).starts_with("Review of the inn: "));

    let before = ["sft", "dpo"].map(|run| result_of(&folder.join(run)));
    let second = collimate(outside.path(), &["demo", "--quiet"]);
    assert!(second.status.success(), "{}", text(&second.stderr));
    assert_eq!(text(&second.stderr), "", "quiet");
    assert_eq!(text(&second.stdout), text(&first.stdout));
    assert!(before == ["sft", "dpo"].map(|run| result_of(&folder.join(run))), "the second demo made other models");
}

#[test]
fn the_demo_spares_the_files_of_others() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    fs::write(folder.path().join("thesis.txt"), "years of work").expect("a file");
    let refused = collimate(folder.path(), &["demo", "--output_dir", "."]);
    assert_eq!(refused.status.code(), Some(2));
    assert_eq!(
        text(&refused.stderr),
        "error: `.` holds files that no demo made\nhint: name another folder with `--output_dir`\n"
    );
    assert_eq!(files_below(folder.path()).len(), 1);
}

#[test]
fn nothing_in_the_data_folder_is_left_out() {
    let data = repository().join("data");
    let found: Vec<_> = files_below(&data)
        .into_iter()
        .map(|path| path.strip_prefix(&data).expect("below data").to_string_lossy().into_owned())
        // The tasks that the demo does not show stay in the repository
        .filter(|path| !path.starts_with("sums/") && !path.starts_with("walks/"))
        .collect();
    assert_eq!(found, CARRIED);
}

#[test]
fn generated_data_is_current() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let script = repository().join("scripts/data/reviews.py");
    let run = Command::new("python3").arg("-B").arg(script).arg("--output_dir").arg(folder.path()).output();
    let run = match run {
        Ok(run) => run,
        Err(cause) => {
            println!("skipped: `python3` does not start: {cause}");
            return;
        }
    };
    assert!(run.status.success(), "{}", text(&run.stderr));
    let shipped = repository().join("data/reviews");
    let names = |folder: &Path| {
        let files = files_below(folder).into_iter();
        files.map(|path| path.file_name().expect("a name").to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(names(folder.path()), names(&shipped));
    for name in names(&shipped) {
        let same = fs::read(folder.path().join(&name)).expect("new") == fs::read(shipped.join(&name)).expect("shipped");
        assert!(same, "`data/reviews/{}` is not what scripts/data/reviews.py writes", name.display());
    }
}
