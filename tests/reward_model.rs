//! Reward models: training against TRL's trajectory, scores against transformers', the commands `reward` and `score`.
//!
//! Goldens are made by `scripts/goldens/reward.py`.

#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test, in helpers too")]

#[path = "common/training.rs"]
mod training;

use std::fs;
use std::path::{Path, PathBuf};

use candle_core::{Device, Tensor, Var};
use collimate::algo::bradley_terry::{bradley_terry, centering};
use collimate::data::{SequenceEncoder, Tokenizer};
use collimate::model::reward::RewardModel;
use serde_json::{Map, Value, json};
use training::{Outcome, Row, bytes, is_eval, listing, number, rows, text, untimed};

const REWARD: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/goldens/reward");
/// A plain language model
const LM: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/goldens/trl/model");

/// Relative deviation that is let pass, and the deviation of numbers near zero
const TOLERANCE: f64 = 1e-4;
const FLOOR: f64 = 2e-5;
/// Deviation of single rewards. Only their difference is in the loss: the gradient of what moves all of them together is
/// nothing but rounding, and Adam makes steps of full length out of that
const DRIFT: f64 = 5e-4;

fn golden(name: &str) -> PathBuf {
    Path::new(REWARD).join(name)
}

fn run(args: &[&str]) -> Outcome {
    let mut command = training::command(args);
    command.current_dir(REWARD);
    training::outcome(command)
}

/// `collimate reward --output_dir OUT FLAGS`, which must succeed; returns what it said
fn reward(out: &Path, flags: &[&str]) -> String {
    let words = [&["reward", "--report_to", "none", "--output_dir", text(out)], flags].concat();
    let outcome = run(&words);
    assert_eq!(outcome.code, Some(0), "{words:?}: {}", outcome.stderr);
    outcome.stderr
}

/// What `score` prints, which must succeed
fn score(model: &str, rows: &str, more: &[&str]) -> (Vec<Value>, String) {
    let outcome = run(&[&["score", "--model_name_or_path", model, "--rows", rows], more].concat());
    assert_eq!(outcome.code, Some(0), "{}", outcome.stderr);
    (outcome.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect(), outcome.stderr)
}

fn refused(args: &[&str], expected: &[&str]) {
    let outcome = run(args);
    assert_eq!((outcome.code, outcome.stdout.as_str()), (Some(2), ""), "{}", outcome.stderr);
    for words in expected {
        assert!(outcome.stderr.contains(words), "no {words:?} in {}", outcome.stderr);
    }
}

fn floats(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(|number| number.as_f64().unwrap()).collect()
}

fn assert_near(what: &str, found: f64, expected: f64) {
    assert_within(FLOOR, what, found, expected);
}

fn assert_within(floor: f64, what: &str, found: f64, expected: f64) {
    let allowed = TOLERANCE * expected.abs() + floor;
    assert!((found - expected).abs() <= allowed, "{what}: {found}, the reference has {expected}");
}

#[test]
fn every_case_follows_trl() {
    let names = listing(Path::new(REWARD));
    let cases: Vec<&str> = names.iter().filter_map(|name| name.strip_suffix(".yaml")).collect();
    assert!(cases.len() >= 6, "{cases:?}");
    for case in cases {
        let folder = tempfile::tempdir().unwrap();
        reward(folder.path(), &["--config", &format!("{case}.yaml")]);
        let ours = rows(folder.path());
        let reference = training::json(&golden(&format!("{case}.json")));
        let log: Vec<&Row> = reference["log"].as_array().unwrap().iter().map(|row| row.as_object().unwrap()).collect();
        // The reference's last row is about the whole run
        let (log, whole): (Vec<&Row>, Vec<&Row>) = log.into_iter().partition(|row| !row.contains_key("train_loss"));
        assert_eq!(ours.len(), log.len(), "{case}");
        for (ours, reference) in ours.iter().zip(log) {
            assert_eq!(is_eval(ours), is_eval(reference), "{case}: {ours:?}");
            for (name, expected) in reference {
                let what = format!("{case}, step {}, `{name}`", ours["step"]);
                let floor = if name.ends_with("_reward") { DRIFT } else { FLOOR };
                assert_within(floor, &what, number(ours, name), expected.as_f64().unwrap());
            }
        }
        let summary = training::json(&folder.path().join("summary.json"));
        for (name, expected) in whole.into_iter().flatten() {
            assert_near(case, number(summary.as_object().unwrap(), name), expected.as_f64().unwrap());
        }
        let manifest = training::json(&folder.path().join("manifest.json"));
        assert_eq!(manifest["starts"][0]["rows"]["train"]["used"], reference["rows"], "{case}");
    }
}

#[test]
fn rows_beyond_max_length_are_dropped_and_counted() {
    let folder = tempfile::tempdir().unwrap();
    let stderr = reward(folder.path(), &["--config", "explicit.yaml", "--max_steps", "1"]);
    assert!(stderr.contains("warning: dropped 2 of 24 rows of `explicit.jsonl`: a side is longer than `max_length`"));
    let rows = &training::json(&folder.path().join("manifest.json"))["starts"][0]["rows"]["train"];
    assert_eq!((&rows["used"], &rows["dropped"][0]["count"]), (&json!(22), &json!(2)), "{rows}");
}

#[test]
fn the_loss_is_that_of_float64_and_so_is_its_gradient() {
    let golden = training::json(&golden("bradley_terry.json"));
    for case in golden["cases"].as_array().unwrap() {
        let vector = |name: &str| floats(&case[name]).iter().map(|value| *value as f32).collect::<Vec<f32>>();
        let var = |name: &str| Var::from_slice(&vector(name), 7, &Device::Cpu).unwrap();
        let (chosen, rejected) = (var("chosen"), var("rejected"));
        let margin = (!case["margin"].is_null()).then(|| Tensor::new(vector("margin"), &Device::Cpu).unwrap());
        let penalty =
            centering(&chosen, &rejected).unwrap().affine(case["coefficient"].as_f64().unwrap(), 0.0).unwrap();
        let loss = (bradley_terry(&chosen, &rejected, margin.as_ref()).unwrap() + penalty).unwrap();
        let weighted = (&loss * Tensor::new(vector("weights"), &Device::Cpu).unwrap()).unwrap();
        let grads = weighted.sum_all().unwrap().backward().unwrap();
        let of = |var: &Var| grads.get(var).unwrap().clone();
        for (what, found) in [("loss", loss), ("grad_chosen", of(&chosen)), ("grad_rejected", of(&rejected))] {
            for (found, expected) in found.to_vec1::<f32>().unwrap().iter().zip(floats(&case[what])) {
                assert!(
                    (f64::from(*found) - expected).abs() <= 1e-5 * expected.abs() + 1e-6,
                    "{what}: {found} {expected}"
                );
            }
        }
    }
}

#[test]
fn scores_are_transformers_with_either_padding_token() {
    let golden_scores = training::json(&golden("scores.json"));
    let ids: Vec<Vec<u32>> = serde_json::from_value(golden_scores["ids"].clone()).unwrap();
    let mut model = RewardModel::load(&golden("model")).unwrap();
    for (name, pad) in [("eos", 0), ("pad", 1)] {
        model.set_special_tokens(Some(pad), None);
        let scores = model.scores(&ids).unwrap();
        for (found, expected) in scores.iter().zip(floats(&golden_scores[name])) {
            assert_near(name, f64::from(*found), expected);
        }
    }
    // The command makes the same ids of the texts, whatever it scores together
    let (lines, _) = score("model", "scores.jsonl", &[]);
    let command = |lines: &[Value]| lines.iter().map(|line| line["score"].as_f64().unwrap()).collect::<Vec<f64>>();
    for (found, expected) in command(&lines).into_iter().zip(floats(&golden_scores["eos"])) {
        assert_near("score", found, expected);
    }
    let (one_by_one, _) = score("model", "scores.jsonl", &["--batch_size", "1"]);
    for (found, expected) in command(&one_by_one).into_iter().zip(command(&lines)) {
        assert!((found - expected).abs() < 1e-5);
    }
}

#[test]
fn rows_of_every_kind_are_scored_in_order() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, rows: &[Value]| {
        let path = folder.path().join(name);
        fs::write(&path, rows.iter().map(|row| row.to_string() + "\n").collect::<String>()).unwrap();
        text(&path).to_owned()
    };
    let near = |a: &Value, b: &Value| (a.as_f64().unwrap() - b.as_f64().unwrap()).abs() < 1e-5;
    let (implicit, _) = score("model", "implicit.jsonl", &[]);
    let (explicit, _) = score("model", "explicit.jsonl", &[]);
    assert_eq!(implicit.len(), 24);
    for (a, b) in implicit.iter().zip(&explicit) {
        assert!(near(&a["chosen"], &b["chosen"]) && near(&a["rejected"], &b["rejected"]), "{a} {b}");
        assert_eq!(a.as_object().unwrap().len(), 2);
    }
    let pairs: Vec<Value> = fs::read_to_string(golden("explicit.jsonl")).unwrap().lines().map(parse).collect();
    let completions: Vec<Value> =
        pairs.iter().map(|row| json!({"prompt": row["prompt"], "completion": row["rejected"]})).collect();
    let (lines, _) = score("model", &write("completions.jsonl", &completions), &[]);
    assert!(lines.iter().zip(&explicit).all(|(line, pair)| near(&line["score"], &pair["rejected"])));
    let texts: Vec<Value> = pairs
        .iter()
        .map(|row| json!({"text": format!("{}{}", row["prompt"].as_str().unwrap(), row["chosen"].as_str().unwrap())}))
        .collect();
    let (lines, _) = score("model", &write("texts.jsonl", &texts), &[]);
    assert!(lines.iter().zip(&explicit).all(|(line, pair)| near(&line["score"], &pair["chosen"])));
    let (chat, _) = score("model", "chat.jsonl", &[]);
    assert!(chat.len() == 24 && chat.iter().all(|line| line["chosen"].is_f64()));
    assert_eq!(score("model", &write("empty.jsonl", &[]), &[]).0, Vec::<Value>::new());

    // What does not fit the positions has no score, and its line says so
    let long = json!({"prompt": "a", "completion": "the otter ".repeat(200)});
    let (lines, stderr) =
        score("model", &write("long.jsonl", &[completions[0].clone(), long, completions[1].clone()]), &[]);
    assert_eq!((lines.len(), &lines[1]), (3, &json!({"score": null})));
    assert!(near(&lines[2]["score"], &explicit[1]["rejected"]));
    let told = "1 of 3 sequences have no token, or more than the model's 96 positions: they have no score (first at ";
    assert!(stderr.contains(told) && stderr.contains("long.jsonl:2)"), "{stderr}");
}

#[test]
fn completions_that_come_one_by_one_give_the_ids_of_training() {
    let tokenizer = Tokenizer::from_folder(&golden("model")).unwrap();
    let scores = training::json(&golden("scores.json"));
    let rows: Vec<Value> = fs::read_to_string(golden("scores.jsonl")).unwrap().lines().map(parse).collect();
    let encoder = SequenceEncoder::new(&tokenizer, false).unwrap();
    for (row, expected) in rows.iter().zip(scores["ids"].as_array().unwrap()) {
        let ids = |finished| json!(encoder.ids(&row["prompt"], &row["completion"], &Map::new(), finished).unwrap());
        assert_eq!(ids(true), *expected);
        let (_, broken_off) = expected.as_array().unwrap().split_last().unwrap();
        assert_eq!(ids(false), json!(broken_off));
    }
    let chat = parse(fs::read_to_string(golden("chat.jsonl")).unwrap().lines().next().unwrap());
    let encoder = SequenceEncoder::new(&tokenizer, true).unwrap();
    let ids = encoder.ids(&chat["prompt"], &chat["chosen"], &Map::new(), false).unwrap();
    let content = |side: &str| chat[side][0]["content"].as_str().unwrap().to_owned();
    let text = format!("<user>{}<|endoftext|>\n<assistant>{}<|endoftext|>\n", content("prompt"), content("chosen"));
    assert_eq!(ids, tokenizer.encode(&text).unwrap());
}

fn parse(line: &str) -> Value {
    serde_json::from_str(line).unwrap()
}

/// From the language model, with a fresh head
const FRESH: [&str; 8] =
    ["--model_name_or_path", LM, "--dataset_name", "explicit.jsonl", "--learning_rate", "2e-3", "--logging_steps", "1"];

#[test]
fn a_language_model_becomes_a_reward_model_that_goes_on_as_one() {
    let folder = tempfile::tempdir().unwrap();
    let [first, second] = ["first", "second"].map(|name| folder.path().join(name));
    let few = folder.path().join("few.jsonl");
    let all = fs::read_to_string(golden("explicit.jsonl")).unwrap();
    fs::write(&few, all.lines().take(8).collect::<Vec<_>>().join("\n")).unwrap();
    let more = ["--max_steps", "25", "--dataset_name", text(&few), "--eval_strategy", "steps", "--eval_steps", "25"];
    let stderr = reward(&first, &[&FRESH[..], &more, &["--eval_dataset", text(&few), "--pad_token", "~"]].concat());
    assert!(stderr.contains("the score head is new"), "{stderr}");
    let log = rows(&first);
    let end = log.last().unwrap();
    assert!(number(end, "eval_accuracy") == 1.0 && number(end, "eval_loss") < 0.05, "{end:?}");

    let config = training::json(&first.join("config.json"));
    assert_eq!(config["architectures"], json!(["GPT2ForSequenceClassification"]));
    assert_eq!((&config["id2label"], &config["num_labels"]), (&json!({"0": "LABEL_0"}), &Value::Null));
    let tokenizer = training::json(&first.join("tokenizer_config.json"));
    assert_eq!(tokenizer["pad_token"], "~");
    assert_ne!(config["pad_token_id"], config["eos_token_id"]);

    // The stored mean and deviation are those of the scores of the held-out rows
    let (plain, _) = score(text(&first), text(&few), &[]);
    let both: Vec<f64> =
        plain.iter().flat_map(|row| ["chosen", "rejected"].map(|side| row[side].as_f64().unwrap())).collect();
    let mean = both.iter().sum::<f64>() / 16.0;
    let std = (both.iter().map(|score| (score - mean).powi(2)).sum::<f64>() / 16.0).sqrt();
    let statistics = &config["reward_statistics"];
    assert_near("mean", statistics["mean"].as_f64().unwrap(), mean);
    assert_near("std", statistics["std"].as_f64().unwrap(), std);
    assert_eq!(statistics["sequences"], 16);
    let (normal, _) = score(text(&first), text(&few), &["--normalize"]);
    assert_near(
        "normalised",
        normal[3]["chosen"].as_f64().unwrap(),
        (plain[3]["chosen"].as_f64().unwrap() - mean) / std,
    );

    // `eval` ranks the same pairs
    let outcome = run(&["eval", "--model", text(&first), "--dataset_name", text(&few), "--json"]);
    assert_eq!(outcome.code, Some(0), "{}", outcome.stderr);
    let evaluation = parse(&outcome.stdout);
    assert_eq!((&evaluation["accuracy"], &evaluation["accuracy_pairs"]), (&json!(1.0), &json!(8.0)), "{evaluation}");
    assert!(evaluation["accuracy_low"].as_f64().unwrap() > 0.6 && evaluation["longer_wins"].is_f64());
    assert_near("margin", evaluation["margin"].as_f64().unwrap(), number(end, "eval_margin"));

    // A second run starts at the first one's head, and its statistics are not the first one's
    let flags = ["--model_name_or_path", text(&first), "--dataset_name", text(&few), "--max_steps", "1"];
    let more = ["--logging_steps", "1", "--learning_rate", "1e-5", "--reward_statistics_rows", "0"];
    let stderr = reward(&second, &[&flags[..], &more].concat());
    assert!(!stderr.contains("the score head is new"), "{stderr}");
    assert!(number(&rows(&second)[0], "loss") < 0.05);
    assert!(training::json(&second.join("config.json")).get("reward_statistics").is_none());
    let no_statistics = ["`normalize` needs the mean and standard deviation", "hint: train it with"];
    refused(&["score", "--model", text(&second), "--rows", text(&few), "--normalize"], &no_statistics);
}

#[test]
fn neither_the_split_into_micro_batches_nor_the_threads_change_a_run() {
    let folder = tempfile::tempdir().unwrap();
    let of = |name: &str, more: &[&str]| {
        let out = folder.path().join(name);
        reward(&out, &[&["--config", "margin_centred_eval.yaml", "--eval_strategy", "no"], more].concat());
        out
    };
    let split = |batch, accumulation| {
        [
            "--per_device_train_batch_size",
            batch,
            "--gradient_accumulation_steps",
            accumulation,
            "--learning_rate",
            "1e-4",
        ]
    };
    let whole = rows(&of("whole", &split("4", "1")));
    for (batch, accumulation) in [("2", "2"), ("1", "4")] {
        for (found, expected) in rows(&of(batch, &split(batch, accumulation))).iter().zip(&whole) {
            for name in ["loss", "grad_norm", "accuracy", "margin", "mean_reward", "num_tokens"] {
                let (found, expected) = (number(found, name), number(expected, name));
                assert!((found - expected).abs() <= 1e-5 * expected.abs() + 1e-6, "{name}: {found}, whole {expected}");
            }
        }
    }
    let weights = |out: &Path| bytes(&out.join("model.safetensors"));
    let one = of("one", &["--threads", "1"]);
    let two = of("two", &["--threads", "2"]);
    assert!(weights(&one) == weights(&two) && untimed(&one) == untimed(&two));
}

#[test]
fn a_run_that_goes_on_from_a_checkpoint_ends_like_one_that_never_stopped() {
    let folder = tempfile::tempdir().unwrap();
    let flags = ["--max_steps", "12", "--save_steps", "5", "--eval_strategy", "steps", "--eval_steps", "4"];
    let data =
        ["--eval_dataset", "implicit.jsonl", "--per_device_train_batch_size", "4", "--center_rewards_coefficient"];
    let flags = [&FRESH[..], &flags, &data, &["0.01", "--disable_dropout", "false", "--logging_steps", "3"]].concat();
    let whole = folder.path().join("whole");
    reward(&whole, &flags);
    let checkpoint = whole.join("checkpoint-5");
    let resumed = folder.path().join("resumed");
    reward(&resumed, &[&flags[..], &["--resume_from_checkpoint", text(&checkpoint)]].concat());
    for name in ["model.safetensors", "config.json", "checkpoint-12/optimizer.safetensors"] {
        assert!(bytes(&whole.join(name)) == bytes(&resumed.join(name)), "`{name}` differs");
    }
    let later: Vec<Row> = untimed(&whole).into_iter().filter(|row| row["step"].as_u64() > Some(5)).collect();
    assert_eq!(untimed(&resumed), later);
}

#[test]
fn requests_that_cannot_work_are_refused_with_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, rows: &str| {
        let path = folder.path().join(name);
        fs::write(&path, rows).unwrap();
        text(&path).to_owned()
    };
    let out = folder.path().join("new/out");
    let reward = |rows: &str, more: &[&str], expected: &[&str]| {
        let path = write("rows.jsonl", rows);
        let common = ["reward", "--output_dir", text(&out), "--model_name_or_path", "model", "--dataset_name", &path];
        refused(&[&common[..], more].concat(), expected);
        assert!(!out.exists());
    };
    let pair = r#"{"chosen": "a b", "rejected": "a c"}"#;
    reward(r#"{"text": "a"}"#, &[], &["the dataset has the columns `text`, but `chosen` with `rejected` is needed"]);
    reward(&format!("{pair}\n{{\"chosen\": \"a\"}}"), &[], &["rows.jsonl:2: no column `rejected`"]);
    let all_long = ["none of the 1 rows of", "1 × a side is longer than `max_length`", "hint: look at `"];
    reward(pair, &["--max_length", "2"], &all_long);
    let margin = |margin: &str| format!("{{\"chosen\": \"a\", \"rejected\": \"b\", \"margin\": {margin}}}");
    let expected = "rows.jsonl:2: `margin` is null, expected a finite number\nhint: give each row a `margin`, or none";
    reward(&format!("{}\n{}", margin("1"), margin("null")), &[], &[expected]);
    reward(&format!("{}\n{}", margin("1"), pair), &[], &["rows.jsonl:2: `margin` is missing"]);
    reward(&format!("{}\n{}", pair, margin("1")), &[], &["rows.jsonl:2: has a `margin`, which the first row lacks"]);
    reward(pair, &["--pad_token", "<no such>"], &["`pad_token` must be a token of the tokenizer, got `<no such>`"]);
    reward(pair, &["--center_rewards_coefficient", "-1"], &["`center_rewards_coefficient` must be at least 0"]);
    reward(pair, &["--beta", "0.1"], &["beta"]);

    let rows = write("rows.jsonl", "{\"prompt\": \"a\", \"completion\": \"b\"}\n");
    let of_an_lm =
        ["is a language model, not a reward model: it has no `score.weight`", "hint: train a reward model from"];
    refused(&["score", "--model", LM, "--rows", &rows], &of_an_lm);
    let blank = write("blank.jsonl", "{\"text\": \"a\"}\n\n{\"text\": \"b\"}\n");
    refused(&["score", "--model", "model", "--rows", &blank], &["blank.jsonl:2: the line is empty"]);
    let labels = folder.path().join("labels");
    fs::create_dir(&labels).unwrap();
    for name in listing(&golden("model")) {
        fs::copy(golden("model").join(&name), labels.join(&name)).unwrap();
    }
    let mut config = training::json(&labels.join("config.json"));
    config["id2label"] = json!({"0": "bad", "1": "good"});
    config["label2id"] = json!({"bad": 0, "good": 1});
    fs::write(labels.join("config.json"), config.to_string()).unwrap();
    refused(
        &["score", "--model", text(&labels), "--rows", &rows],
        &["has 2 labels, and a reward model has one", "hint: "],
    );
}
