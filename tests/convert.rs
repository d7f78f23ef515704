//! `collimate data convert`: what goes out comes back, formats are TRL's, splits keep prompts together.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test, in helpers too")]

#[path = "common/training.rs"]
mod training;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use collimate::data::{ReadOptions, Row, read_dataset};
use serde_json::{Map, Value, json};
use training::{Outcome, command, outcome, text};

fn convert(words: &[&str]) -> Outcome {
    outcome(command(&[&["data", "convert"], words].concat()))
}

fn ok(words: &[&str]) -> String {
    let found = convert(words);
    assert_eq!(found.code, Some(0), "{words:?}: {}", found.stderr);
    found.stdout
}

fn fields(path: &Path) -> Vec<Map<String, Value>> {
    let rows = read_dataset(path, &ReadOptions::default()).unwrap().rows;
    rows.into_iter().map(|Row { fields, .. }| fields).collect()
}

/// A file with these rows in a folder of its own
fn file(rows: &[Value]) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("rows.jsonl");
    let lines: Vec<String> = rows.iter().map(ToString::to_string).collect();
    fs::write(&path, lines.join("\n")).unwrap();
    (folder, path)
}

#[test]
fn rows_survive_every_file_type() {
    let plain = [
        json!({"prompt": "a, \"b\"\nc", "score": 1.5, "n": 3, "ok": true, "none": null}),
        json!({"prompt": "é", "score": 2.0, "n": -4, "ok": false, "none": null}),
    ];
    let nested = [
        json!({"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}], "tags": [["x"], []],
               "info": {"id": 1, "part": {"w": 0.5}}}),
        json!({"messages": [{"role": "user", "content": "é"}], "tags": [], "info": {"id": 2, "part": {"w": 1.5}}}),
        json!({"messages": [], "tags": [["y", "z"], ["v"]], "info": {"id": 3, "part": {"w": 2.5}}}),
    ];
    for (rows, endings) in [
        (&plain[..], &["jsonl", "json", "jsonl.gz", "json.gz", "parquet"][..]),
        (&nested[..], &["jsonl", "json", "parquet"][..]),
    ] {
        let (folder, path) = file(rows);
        let expected = fields(&path);
        for ending in endings {
            let to = folder.path().join(format!("out.{ending}"));
            ok(&["--from", text(&path), "--to", text(&to)]);
            assert_eq!(fields(&to), expected, "{ending}");
        }
    }
    // A CSV file holds texts
    let (folder, path) = file(&plain);
    let to = folder.path().join("out.csv");
    ok(&["--from", text(&path), "--to", text(&to)]);
    let first = Value::Object(fields(&to).remove(0));
    assert_eq!(first, json!({"prompt": "a, \"b\"\nc", "score": "1.5", "n": "3", "ok": "true", "none": ""}));
    let (folder, path) = file(&nested);
    let refused = convert(&["--from", text(&path), "--to", text(&folder.path().join("out.csv"))]);
    assert_eq!(refused.code, Some(2));
    assert!(
        refused.stderr.contains("rows.jsonl:1: `messages` is a list, which a CSV file cannot hold"),
        "{}",
        refused.stderr
    );
}

fn converted(rows: &[Value], format: &str) -> Vec<Value> {
    let (folder, path) = file(rows);
    let to = folder.path().join("out.jsonl");
    ok(&["--from", text(&path), "--to", text(&to), "--format", format]);
    fields(&to).into_iter().map(Value::Object).collect()
}

// What TRL 1.16's `extract_prompt`, `unpair_preference_dataset` and its guide to dataset formats give
#[test]
fn formats_become_each_other() {
    let pair = json!({"prompt": "The sky is", "chosen": " blue.", "rejected": " green.", "id": 7});
    let implicit = json!({"chosen": "The sky is blue.", "rejected": "The sky is green.", "id": 7});
    let one = std::slice::from_ref::<Value>;
    assert_eq!(converted(one(&pair), "implicit_preference"), one(&implicit));
    assert_eq!(converted(one(&implicit), "preference"), one(&pair));
    assert_eq!(
        converted(one(&implicit), "unpaired-preference"),
        [
            json!({"prompt": "The sky is", "completion": " blue.", "label": true, "id": 7}),
            json!({"prompt": "The sky is", "completion": " green.", "label": false, "id": 7}),
        ]
    );
    assert_eq!(
        converted(one(&pair), "prompt_completion"),
        [json!({"prompt": "The sky is", "completion": " blue.", "id": 7})]
    );
    assert_eq!(converted(one(&pair), "language_modeling"), [json!({"text": "The sky is blue.", "id": 7})]);
    assert_eq!(converted(one(&pair), "prompt_only"), [json!({"prompt": "The sky is", "id": 7})]);
    let judged = [
        json!({"prompt": "p", "completion": " good", "label": true}),
        json!({"prompt": "p", "completion": " bad", "label": false}),
    ];
    assert_eq!(converted(&judged, "prompt_completion"), [json!({"prompt": "p", "completion": " good"})]);
    assert_eq!(converted(&judged, "prompt_only").len(), 2);

    let message = |role: &str, content: &str| json!({"role": role, "content": content});
    let chat = json!({"messages": [message("user", "q"), message("assistant", "a")]});
    let answered = json!({"prompt": [message("user", "q")], "completion": [message("assistant", "a")]});
    assert_eq!(converted(one(&chat), "prompt_completion"), one(&answered));
    assert_eq!(converted(one(&answered), "language_modeling"), one(&chat));

    let (folder, path) = file(&[json!({"text": "no prompt to be found"})]);
    let refused =
        convert(&["--from", text(&path), "--to", text(&folder.path().join("x.jsonl")), "--format", "preference"]);
    assert_eq!(refused.code, Some(2));
    assert!(
        refused.stderr.contains("is language modelling, standard, which does not hold `preference`"),
        "{}",
        refused.stderr
    );
}

#[test]
fn trl_s_own_conversions_are_repeated() {
    let golden = training::json(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/goldens/data/convert.json"));
    for case in golden["cases"].as_array().unwrap() {
        let long = case["from"] == "pairs";
        let from: Vec<Value> = if long {
            let pair = |i| json!({"prompt": format!("p{i}"), "chosen": format!(" c{i}"), "rejected": format!(" r{i}"), "id": i});
            (0..1003).map(pair).collect()
        } else {
            case["from"].as_array().unwrap().clone()
        };
        let (folder, path) = file(&from);
        let to = folder.path().join("out.jsonl");
        let flags = case["flags"].as_array().unwrap().iter().map(|flag| flag.as_str().unwrap());
        ok(&["--from", text(&path), "--to", text(&to)].into_iter().chain(flags).collect::<Vec<_>>());
        let found: Vec<Value> = fields(&to).into_iter().map(Value::Object).collect();
        let found = if long { found.iter().map(|row| json!([row["id"], row["label"]])).collect() } else { found };
        let expected = case["to"].as_array().unwrap();
        assert_eq!(found.len(), expected.len());
        for (found, expected) in found.iter().zip(expected) {
            assert_eq!(found, expected, "{}", case["flags"]);
        }
    }
}

#[test]
fn chatml_names_are_those_of_trl() {
    let rows =
        [json!({"conversations": [{"from": "user", "value": "q"}, {"from": "assistant", "value": "a"}], "id": 1})];
    let (folder, path) = file(&rows);
    let to = folder.path().join("out.jsonl");
    ok(&["--from", text(&path), "--to", text(&to), "--chatml"]);
    let expected =
        json!({"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}], "id": 1});
    assert_eq!(Value::Object(fields(&to).remove(0)), expected);
}

#[test]
fn columns_are_renamed_and_files_are_spared() {
    let (folder, path) = file(&[json!({"question": "q", "answer": "a"})]);
    let to = folder.path().join("out.jsonl");
    let words = ["--from", text(&path), "--to", text(&to), "--columns", "question=prompt", "answer=completion"];
    assert!(ok(&words).contains("1 rows, prompt-completion, standard"));
    assert_eq!(Value::Object(fields(&to).remove(0)), json!({"prompt": "q", "completion": "a"}));
    let again = convert(&words);
    assert_eq!(again.code, Some(2));
    assert!(again.stderr.contains("exists already"), "{}", again.stderr);
    ok(&[&words[..], &["--overwrite"]].concat());
}

#[test]
fn a_split_keeps_the_rows_of_a_prompt_together() {
    let rows: Vec<Value> =
        (0..200).map(|i| json!({"prompt": format!("p{}", i / 4), "completion": format!("c{i}")})).collect();
    let (folder, path) = file(&rows);
    let to = folder.path().join("out.jsonl");
    ok(&["--from", text(&path), "--to", text(&to), "--split", "0.75", "--seed", "1"]);
    let [train, test] = ["train", "test"].map(|part| fields(&folder.path().join(format!("out.{part}.jsonl"))));
    assert_eq!((train.len(), test.len()), (152, 48));
    let prompts =
        |rows: &[Map<String, Value>]| rows.iter().map(|row| row["prompt"].to_string()).collect::<BTreeSet<_>>();
    assert!(prompts(&train).is_disjoint(&prompts(&test)));

    // Neither the order of the rows nor new ones move a prompt that is far from the cut; another seed does
    let reversed: Vec<Value> = rows.iter().rev().cloned().collect();
    let split = |rows: &[Value], seed: &str| {
        let (folder, path) = file(rows);
        ok(&["--from", text(&path), "--to", text(&folder.path().join("x.jsonl")), "--split", "0.75", "--seed", seed]);
        prompts(&fields(&folder.path().join("x.train.jsonl")))
    };
    assert_eq!(split(&reversed, "1"), prompts(&train));
    assert_ne!(split(&rows, "2"), prompts(&train));
    let (folder, path) = file(&rows[..4]);
    let refused = convert(&["--from", text(&path), "--to", text(&folder.path().join("x.jsonl")), "--split", "0.5"]);
    assert_eq!(refused.code, Some(2));
}
