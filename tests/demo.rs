//! `collimate demo` as a user runs it, and the data that it carries.

use std::collections::BTreeMap;
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

const RUNS: [&str; 6] = ["sft", "reward", "dpo", "ppo", "grpo", "grl"];
const ALIGNED: [&str; 4] = ["dpo", "ppo", "grpo", "grl"];

/// What the runs and the figures of a demo are, apart from times: the same each time
fn result_of(folder: &Path) -> BTreeMap<&'static str, (Vec<u8>, Vec<Value>)> {
    fn timeless(value: Value) -> Value {
        match value {
            Value::Object(fields) => {
                let timed = |name: &str| ["time", "second", "runtime"].iter().any(|word| name.contains(word));
                let kept = fields.into_iter().filter(|(name, _)| !timed(name));
                Value::Object(kept.map(|(name, value)| (name, timeless(value))).collect())
            }
            other => other,
        }
    }
    let mut results: BTreeMap<&'static str, _> = RUNS
        .into_iter()
        .map(|run| {
            let rows = fs::read_to_string(folder.join(run).join("metrics.jsonl")).expect("metrics");
            let rows = rows.lines().map(|line| timeless(serde_json::from_str(line).expect("a row"))).collect();
            (run, (fs::read(folder.join(run).join("model.safetensors")).expect("weights"), rows))
        })
        .collect();
    results.insert("figures", (Vec::new(), vec![timeless(json(&folder.join("demo.json")))]));
    results
}

#[test]
fn demo_aligns_a_model_in_five_ways_and_shows_what_came_of_it() {
    let outside = tempfile::tempdir().expect("a temporary folder");
    let shown = collimate(outside.path(), &["demo"]);
    assert!(shown.status.success(), "{}", text(&shown.stderr));
    let folder = outside.path().join("collimate-demo");

    for name in CARRIED {
        let carried = fs::read(folder.join("default").join(name)).expect(name);
        assert!(carried == fs::read(repository().join("data").join(name)).expect(name), "`{name}` is stale");
    }
    for run in RUNS {
        for name in ["config.yaml", "manifest.json", "metrics.jsonl", "summary.json", "model.safetensors"] {
            assert!(folder.join(run).join(name).is_file(), "{run}/{name}");
        }
    }
    check_figures(&json(&folder.join("demo.json")));
    check_progress(text(&shown.stderr));
    check_table(text(&shown.stdout));
    check_page(&fs::read_to_string(folder.join("report.html")).expect("a report"));

    // The commands that it ends with
    let inside = |args: &[&str]| {
        let done = collimate(outside.path(), args);
        assert!(done.status.success(), "{}", text(&done.stderr));
        text(&done.stdout).to_owned()
    };
    let written = inside(&["generate", "--model", "collimate-demo/grpo", "--prompt", "Review of the inn:"]);
    assert!(written.starts_with("Review of the inn: "));
    let config = ["grpo", "--config", "collimate-demo/grpo/config.yaml", "--beta", "0", "--max_steps", "2"];
    inside(&[&config[..], &["--output_dir", "collimate-demo/grpo-no-kl"]].concat());
    // Any run of it can be had again from its folder
    inside(&["sft", "--config", "collimate-demo/sft/config.yaml", "--output_dir", "again", "--quiet"]);
    let weights = |folder: &Path| fs::read(folder.join("model.safetensors")).expect("weights");
    assert!(weights(&outside.path().join("again")) == weights(&folder.join("sft")), "another model");
}

fn check_figures(record: &Value) {
    let number = |name: String| {
        let found = record.pointer(&name).and_then(Value::as_f64);
        found.unwrap_or_else(|| panic!("no `{name}` in {record:#}"))
    };
    let of = |model: &str, figure: &str| number(format!("/models/{model}/{figure}"));
    for model in ALIGNED {
        let gain = of(model, "gold/mean") - of("sft", "gold/mean");
        let error = of(model, "gold/standard_error").hypot(of("sft", "gold/standard_error"));
        assert!(gain > 0.15 && gain > 4.0 * error, "{model}: gold rises by {gain} ± {error}");
        assert!(of(model, "proxy/mean") > of("sft", "proxy/mean") + 0.5, "{model}: {record:#}");
        assert!(of(model, "kl/mean") > 1.0 && of(model, "kl/standard_error") > 0.0, "{model}: {record:#}");
        let (queries, pairs) = (of(model, "reward_queries"), of(model, "preference_pairs"));
        assert_eq!((queries > 0.0, pairs > 0.0), (model != "dpo", model == "dpo"), "{model}");
        assert!(queries == 0.0 || queries == of("ppo", "reward_queries"), "equal budgets");
    }
    assert_eq!(of("sft", "kl/mean"), 0.0);
    let accuracy = number("/reward_model/accuracy".into());
    assert!(accuracy > 0.75, "the reward model ranks {accuracy}");
    let bins = record["reward_model"]["calibration"].as_array().expect("bins");
    assert_eq!(bins.iter().map(|bin| bin["pairs"].as_u64().expect("pairs")).sum::<u64>(), 256);
}

/// Plain lines, and every part announced
fn check_progress(lines: &str) {
    assert!(!lines.contains(['\u{1b}', '\r']), "{lines:?}");
    for part in 1..=7 {
        assert!(lines.contains(&format!("{part}/7 ")), "{lines}");
    }
    assert!(lines.contains("  reward ") && lines.contains("  KL "), "{lines}");
}

fn check_table(shown: &str) {
    let mut lines = shown.lines();
    let head = lines.next().expect("a table");
    for column in ["gold reward", "proxy reward", "KL to SFT", "tokens", "reward queries", "time"] {
        assert!(head.contains(column), "{head}");
    }
    for name in ["base", "SFT", "DPO", "PPO", "GRPO", "GRL"] {
        let row = lines.next().expect("a row");
        assert!(row.starts_with(name) && row.chars().count() == head.chars().count(), "{row}");
    }
    assert!(shown.lines().all(|line| line.chars().count() <= 100 || line.starts_with("  collimate ")), "{shown}");
    for word in ["The reward model ranks", "Where they part:", "collimate-demo/report.html"] {
        assert!(shown.contains(word), "{shown}");
    }
}

fn check_page(page: &str) {
    for outside in ["http://", "https://", "src=", "href=", "url(", "@import", "<script", "<link"] {
        assert!(!page.contains(outside), "the page holds `{outside}`");
    }
    for title in [
        "What alignment did",
        "Gold reward over KL",
        "Proxy reward over KL",
        "Gold against proxy",
        "Proxy reward",
        "KL to SFT, nats a review",
        "How often the review with the higher score was the chosen one",
        "What each model writes",
        "Review of the ",
    ] {
        assert!(page.contains(title), "the page does not hold `{title}`");
    }
    assert!(page.matches("<svg").count() >= 8);
    assert!(!page.contains("NaN") && !page.contains("undefined"));
}

#[test]
#[ignore = "takes two demos; run it where nothing else runs"]
fn a_second_demo_finds_the_same() {
    let outside = tempfile::tempdir().expect("a temporary folder");
    let results = [&["demo"][..], &["demo", "--quiet"]].map(|args| {
        let shown = collimate(outside.path(), args);
        assert!(shown.status.success(), "{}", text(&shown.stderr));
        assert_eq!(text(&shown.stderr).is_empty(), args.len() == 2, "quiet");
        result_of(&outside.path().join("collimate-demo"))
    });
    for (name, first) in &results[0] {
        assert!(results[1][name] == *first, "`{name}` came out otherwise");
    }
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
