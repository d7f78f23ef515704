//! The commands that look at models and data without training: `logprobs`, `eval`, `data inspect`, `doctor`. The
//! program runs as a process, on the tiny model of the golden runs.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::{Value, json};

struct Outcome {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

impl Outcome {
    /// The lines of a run that must have ended well
    fn objects(&self) -> Vec<Value> {
        assert_eq!(self.code, Some(0), "{}", self.stderr);
        self.stdout.lines().map(|line| serde_json::from_str(line).expect("each line is JSON")).collect()
    }
}

fn goldens() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/goldens")
}

/// The program, in the folder of the golden runs, whose model is called `model`
fn program(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_collimate"));
    command.args(args).current_dir(goldens().join("trl")).env_remove("NO_COLOR").env_remove("HF_ENDPOINT");
    command
}

fn outcome(mut command: Command) -> Outcome {
    let output = command.output().expect("the program starts");
    Outcome {
        code: output.status.code(),
        stdout: String::from_utf8(output.stdout).expect("stdout is UTF-8"),
        stderr: String::from_utf8(output.stderr).expect("stderr is UTF-8"),
    }
}

fn collimate(args: &[&str]) -> Outcome {
    outcome(program(args))
}

/// A file of this name and text in a folder that lives as long as the first half
fn file(name: &str, text: &[u8]) -> (tempfile::TempDir, String) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join(name);
    fs::write(&path, text).expect("the file is written");
    let path = path.to_str().expect("a path in UTF-8").to_owned();
    (folder, path)
}

fn logprobs(texts: &str, flags: &[&str]) -> Outcome {
    collimate(&[&["logprobs", "--model", "model", "--texts", texts], flags].concat())
}

fn floats(value: &Value) -> Vec<f64> {
    value.as_array().expect("a list").iter().map(|number| number.as_f64().expect("a number")).collect()
}

fn number(object: &Value, name: &str) -> f64 {
    object[name].as_f64().unwrap_or_else(|| panic!("no number `{name}` in {object}"))
}

fn near(found: f64, expected: f64, tolerance: f64, what: &str) {
    let difference = (found - expected).abs();
    assert!(difference <= tolerance * expected.abs().max(1.0), "{what}: {found}, expected {expected}");
}

#[test]
fn logprobs_are_those_of_transformers() {
    let golden: Value = serde_json::from_slice(&fs::read(goldens().join("logprobs.json")).unwrap()).unwrap();
    let rows = golden["rows"].as_array().unwrap();
    let lines = rows.iter().map(|row| row["line"].to_string()).collect::<Vec<_>>().join("\n");
    let (_folder, path) = file("texts.jsonl", lines.as_bytes());
    let outcome = logprobs(&path, &[]);
    assert_eq!(outcome.stderr, "warning: cut 1 of 7 texts to 128 tokens, the model's positions\n");
    let found = outcome.objects();
    assert_eq!(found.len(), rows.len());
    for (i, (found, row)) in found.iter().zip(rows).enumerate() {
        assert_eq!(found["token_ids"], row["token_ids"], "text {i}");
        let (found, expected) = (floats(&found["logprobs"]), floats(&row["logprobs"]));
        assert_eq!(found.len(), expected.len(), "text {i}");
        for (found, expected) in found.iter().zip(&expected) {
            assert!((found - expected).abs() < 1e-5, "text {i}: {found}, expected {expected}");
        }
    }
    assert_eq!((&found[1], &found[3]["logprobs"]), (&json!({"token_ids": [], "logprobs": []}), &json!([])));
}

#[test]
fn logprobs_do_not_depend_on_what_shares_a_pass() {
    let together = logprobs("text.jsonl", &[]);
    let mut texts = fs::read_to_string(goldens().join("trl/text.jsonl")).unwrap();
    texts.push_str("\n\n");
    let (_folder, copy) = file("texts.jsonl", texts.as_bytes());
    for (path, flags) in [
        ("text.jsonl", &["--batch_size", "1"][..]),
        ("text.jsonl", &["--batch-size", "7", "--threads", "1"]),
        (&copy, &["--quiet"]),
    ] {
        let (together, apart) = (together.objects(), logprobs(path, flags).objects());
        assert_eq!(together.len(), apart.len());
        for (together, apart) in together.iter().zip(&apart) {
            assert_eq!(together["token_ids"], apart["token_ids"], "{flags:?}");
            for (a, b) in floats(&together["logprobs"]).into_iter().zip(floats(&apart["logprobs"])) {
                near(a, b, 1e-6, "a log-probability");
            }
        }
    }
}

#[test]
fn logprobs_are_printed_with_all_their_digits_and_no_more() {
    let outcome = logprobs("prompted.jsonl", &["--max_length", "5"]);
    assert_eq!(outcome.stderr, "", "a cut that was asked for needs no warning");
    for line in outcome.stdout.lines() {
        let (_, numbers) = line.split_once("\"logprobs\":[").unwrap();
        let numbers: Vec<&str> = numbers.trim_end_matches("]}").split(',').collect();
        assert_eq!(numbers.len(), 4);
        for text in numbers {
            let number: f32 = text.parse().unwrap();
            assert_eq!(serde_json::to_string(&number).unwrap(), text);
        }
    }
}

#[test]
fn bad_line_is_named_before_anything_is_printed() {
    for (line, expected) in [
        (&b"{\"text\": 1}"[..], "`text` must be a text, got `1`"),
        (b"{\"prompt\": \"a\", \"completion\": null}", "`completion` must be a text, got `null`"),
        (b"{\"prompt\": \"a\"}", "expected `text`, or `prompt` with `completion`, found `prompt`"),
        (b"{}", "expected `text`, or `prompt` with `completion`, found nothing"),
        (b"[1]", "expected a JSON object, found a list"),
        (b"", "the line is empty, expected an object"),
        (b"{\"text\": \"\xff\"}", "11: not valid UTF-8"),
    ] {
        let (_folder, path) = file("texts.jsonl", &[b"{\"text\":\"a\"}\n", line, b"\n{\"text\":\"b\"}\n"].concat());
        let outcome = logprobs(&path, &[]);
        let start = outcome.stderr.replace(&path, "texts.jsonl").replace("jsonl:2:11:", "jsonl:2: 11:");
        assert!(start.starts_with(&format!("error: texts.jsonl:2: {expected}")), "{start}");
        assert_eq!((outcome.code, outcome.stdout.as_str()), (Some(2), ""));
    }
}

#[test]
fn file_without_a_line_gives_none() {
    let (_folder, path) = file("texts.jsonl", b"");
    let outcome = logprobs(&path, &[]);
    assert_eq!((outcome.code, outcome.stdout.as_str(), outcome.stderr.as_str()), (Some(0), "", ""));
    let missing = logprobs("nowhere.jsonl", &[]);
    assert!(missing.stderr.starts_with("error: cannot read `nowhere.jsonl`: "), "{}", missing.stderr);
    assert_eq!(missing.code, Some(2));
}

#[test]
fn reader_that_leaves_early_is_no_failure() {
    let text = fs::read_to_string(goldens().join("trl/text.jsonl")).unwrap().repeat(20);
    let (_folder, path) = file("texts.jsonl", text.as_bytes());
    for args in [
        &["logprobs", "--model", "model", "--texts", &path][..],
        &["data", "inspect", &path, "--rows", "600", "--model", "model"],
    ] {
        let mut child = program(args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        drop(child.stdout.take());
        let output = child.wait_with_output().unwrap();
        assert_eq!((output.status.code(), String::from_utf8_lossy(&output.stderr).as_ref()), (Some(0), ""));
    }
}

#[cfg(target_os = "linux")]
#[test]
fn full_disk_is_a_failure() {
    let mut command = program(&["logprobs", "--model", "model", "--texts", "text.jsonl"]);
    command.stdout(fs::OpenOptions::new().write(true).open("/dev/full").unwrap());
    let outcome = outcome(command);
    assert!(outcome.stderr.starts_with("error: cannot write `stdout`: "), "{}", outcome.stderr);
    assert_eq!(outcome.code, Some(1));
}

/// Trains a few steps and gives the last evaluation of `metrics.jsonl`; the model lies in `folder`
fn trained(command: &str, data: &str, flags: &[&str], folder: &str) -> Value {
    let common = ["--model_name_or_path", "model", "--eval_strategy", "steps", "--eval_steps", "3", "--max_steps", "3"];
    let more = ["--save_strategy", "no", "--report_to", "none", "--learning_rate", "2e-3", "--output_dir", folder];
    let data = ["--dataset_name", data, "--eval_dataset", data];
    let outcome = collimate(&[&[command], &common[..], &more, &data, flags, &["--quiet"]].concat());
    assert_eq!(outcome.code, Some(0), "{}", outcome.stderr);
    let rows = fs::read_to_string(Path::new(folder).join("metrics.jsonl")).expect("metrics");
    let last = rows.lines().rfind(|line| line.contains("eval_")).expect("an evaluation");
    serde_json::from_str(last).expect("a line is JSON")
}

#[test]
fn eval_of_a_batch_size_is_what_training_logs() {
    let folder = tempfile::tempdir().unwrap();
    let folder = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    // 30 rows in batches of 4 leave a smaller last batch, which counts as much as the others in all but the loss
    let batch = ["--per_device_eval_batch_size", "4", "--max_length", "26"];
    for (command, data, extra) in [
        ("sft", "prompted.jsonl", &[][..]),
        ("sft", "chat.jsonl", &[]),
        ("dpo", "preference.jsonl", &["--beta", "0.3"]),
    ] {
        let output = folder(data);
        let flags = [&batch[..], extra].concat();
        let logged = trained(command, data, &flags, &output);
        let reference: &[&str] = if command == "dpo" { &["--ref_model", "model"] } else { &[] };
        let eval = ["eval", "--model", &output, "--dataset_name", data, "--json"];
        let outcome = collimate(&[&eval[..], &flags, reference].concat());
        let found = &outcome.objects()[0];
        let names = logged.as_object().unwrap().keys().filter_map(|name| name.strip_prefix("eval_"));
        let timeless = |name: &&str| !["num_tokens", "runtime", "samples_per_second"].contains(name);
        let names: Vec<&str> = names.filter(timeless).collect();
        assert_eq!(names.len(), if command == "dpo" { 11 } else { 3 }, "{names:?}");
        for name in names {
            near(number(found, name), number(&logged, &format!("eval_{name}")), 2e-6, &format!("{data}: {name}"));
        }
        assert_eq!((&found["rows"], &found["dropped"]), (&json!(30), &json!(0)));
    }
}

#[test]
fn eval_is_what_trl_logs_in_its_first_step() {
    // The first step logs what the untrained model says of the first batch, which has two rows
    for (case, data, extra) in [
        ("sft_completion", "prompted.jsonl", &[][..]),
        ("dpo", "preference.jsonl", &["--ref_model", "model", "--beta", "0.3"]),
    ] {
        let golden = fs::read(goldens().join(format!("trl/{case}.json"))).unwrap();
        let golden: Value = serde_json::from_slice(&golden).unwrap();
        let rows = fs::read_to_string(goldens().join("trl").join(data)).unwrap();
        let two = rows.lines().take(2).collect::<Vec<_>>().join("\n");
        let (_folder, path) = file("rows.jsonl", two.as_bytes());
        let eval = ["eval", "--model", "model", "--dataset_name", &path, "--json"];
        let found = &collimate(&[&eval[..], extra].concat()).objects()[0];
        let logged = golden["log"][0].as_object().unwrap();
        let of_training = ["grad_norm", "learning_rate", "num_tokens", "epoch", "step"];
        for (name, value) in logged.iter().filter(|(name, _)| !of_training.contains(&name.as_str())) {
            near(number(found, name), value.as_f64().unwrap(), 1e-6, &format!("{case}: {name}"));
        }
    }
}

#[test]
fn eval_without_a_batch_size_is_exact() {
    let rows = fs::read_to_string(goldens().join("trl/text.jsonl")).unwrap();
    let with_eos = |line: &str| {
        let row: Value = serde_json::from_str(line).unwrap();
        format!("{}\n", json!({"text": format!("{}<|endoftext|>", row["text"].as_str().unwrap())}))
    };
    let (_folder, path) = file("texts.jsonl", rows.lines().map(with_eos).collect::<String>().as_bytes());
    let all: Vec<f64> = logprobs(&path, &[]).objects().iter().flat_map(|row| floats(&row["logprobs"])).collect();
    let mean = -all.iter().sum::<f64>() / all.len() as f64;

    let found = &collimate(&["eval", "--model", "model", "--dataset_name", "text.jsonl", "--json"]).objects()[0];
    near(number(found, "loss"), mean, 1e-7, "loss");
    near(number(found, "perplexity"), mean.exp(), 1e-7, "perplexity");
    assert_eq!(found["tokens"], json!(all.len()));
    let batches = ["eval", "--model", "model", "--dataset", "text.jsonl", "--json", "--batch_size", "7"];
    let batches = &collimate(&batches).objects()[0];
    near(number(batches, "perplexity"), mean.exp(), 1e-6, "perplexity does not know batches");
    assert_ne!(batches["loss"], found["loss"]);
}

#[test]
fn eval_compares_with_a_reference() {
    let folder = tempfile::tempdir().unwrap();
    let output = folder.path().join("run").to_str().unwrap().to_owned();
    trained("sft", "prompted.jsonl", &[], &output);
    let eval = |model: &str, reference: &[&str]| {
        let args = ["eval", "--model", model, "--dataset_name", "prompted.jsonl", "--json"];
        collimate(&[&args[..], reference].concat()).objects()[0].clone()
    };
    let (before, after) = (eval("model", &[]), eval(&output, &[]));
    let both = eval(&output, &["--ref_model", "model"]);
    assert_eq!((&both["loss"], &both["ref_perplexity"]), (&after["loss"], &before["perplexity"]));
    let per_token = number(&before, "loss") - number(&after, "loss");
    assert!(per_token > 0.0, "training raised the likelihood");
    near(number(&both, "log_ratio_per_token"), per_token, 1e-9, "log_ratio_per_token");
    near(number(&both, "log_ratio"), per_token * number(&both, "tokens") / 30.0, 1e-9, "log_ratio");

    let pairs = ["eval", "--model", "model", "--dataset_name", "preference.jsonl", "--json"];
    let alone = &collimate(&pairs).objects()[0];
    assert!(alone.get("rewards/accuracies").is_none(), "an implicit reward needs a reference");
    let margin = number(alone, "logps/chosen") - number(alone, "logps/rejected");
    near(number(alone, "logps/margins"), margin, 1e-9, "logps/margins");
    let same = &collimate(&[&pairs[..], &["--ref_model", "model"]].concat()).objects()[0];
    near(number(same, "loss"), std::f64::consts::LN_2, 1e-6, "DPO starts at ln 2");
}

#[test]
fn eval_judges_what_models_write() {
    let judge = |flags: &[&str]| {
        let common =
            ["eval", "--model", "model", "--dataset_name", "prompted.jsonl", "--json", "--max_new_tokens", "8"];
        let rewards = ["--reward_funcs", "length", "contains:the", "--reward_weights", "1", "0.5"];
        collimate(&[&common[..], &rewards, flags].concat()).objects().remove(0)
    };
    let alone = judge(&["--num_generations", "4"]);
    let weighted = number(&alone, "rewards/length/mean") + 0.5 * number(&alone, "rewards/contains/mean");
    near(number(&alone, "reward"), weighted, 1e-9, "the reward is the weighted sum");
    assert!(number(&alone, "reward_stderr") > 0.0 && alone.get("win_rate").is_none() && alone.get("kl").is_none());
    // Against itself, with the same draws: as many wins as losses, no divergence
    let itself = judge(&["--num_generations", "4", "--ref_model", "model"]);
    near(number(&itself, "win_rate"), 0.5, 1e-12, "win rate against itself");
    near(number(&itself, "kl"), 0.0, 1e-12, "KL from itself");
    assert_eq!(number(&itself, "reward"), number(&itself, "ref_reward"));
    assert_eq!(judge(&["--num_generations", "4"]), alone, "the same seed, the same answer");

    let folder = tempfile::tempdir().unwrap();
    let trained = folder.path().join("long");
    let trained = trained.to_str().unwrap();
    let flags =
        "--reward_funcs contains:e --num_generations 4 --max_completion_length 8 --learning_rate 3e-3 --max_steps 30";
    let words = ["grpo", "--model_name_or_path", "model", "--dataset_name", "prompted.jsonl", "--output_dir", trained];
    let outcome = collimate(&[&words[..], &flags.split(' ').collect::<Vec<_>>()].concat());
    assert_eq!(outcome.code, Some(0), "{}", outcome.stderr);
    let args = "--dataset_name prompted.jsonl --json --max_new_tokens 8 --reward_funcs contains:e --num_generations 4";
    let words =
        [&["eval", "--model", trained, "--ref_model", "model"][..], &args.split(' ').collect::<Vec<_>>()].concat();
    let found = collimate(&words).objects().remove(0);
    let [rate, low, high] = ["win_rate", "win_rate_low", "win_rate_high"].map(|name| number(&found, name));
    assert!(0.5 < low && low < rate && rate < high && high <= 1.0, "{found}");
    assert!(number(&found, "kl") > 3.0 * number(&found, "kl_stderr"), "{found}");
    // A KL on completions from another distribution would be no KL
    assert!(collimate(&[&words[..], &["--temperature", "0.5"]].concat()).objects()[0].get("kl").is_none());
}

#[test]
fn bfloat16_is_computed_with_where_the_processor_has_it() {
    let eval = ["eval", "--model", "model", "--dataset_name", "text.jsonl", "--json"];
    let loss = |flags: &[&str]| {
        let outcome = collimate(&[&eval[..], flags].concat());
        (number(&outcome.objects()[0], "loss"), outcome.stderr.contains("falls back to f32"))
    };
    let (plain, _) = loss(&[]);
    let (rounded, fell_back) = loss(&["--bf16"]);
    near(rounded, plain, 1e-2, "loss in bfloat16");
    assert_eq!(rounded == plain, fell_back, "either it is used, or the program says that it is not");
}

#[test]
fn eval_says_which_rows_it_left_out() {
    let rows = b"{\"prompt\":\"The otter\",\"completion\":\" waited\"}\n{\"prompt\":\"\",\"completion\":\"\"}\n";
    let (_folder, path) = file("rows.jsonl", rows);
    let outcome = collimate(&["eval", "--model", "model", "--dataset_name", &path]);
    let expected = format!("warning: dropped 1 of 2 rows of `{path}`: no token to learn from (first at {path}:2)\n");
    assert_eq!((outcome.code, outcome.stderr), (Some(0), expected));
    let names: Vec<_> = outcome.stdout.lines().map(|line| line.split_whitespace().next().unwrap()).collect();
    assert_eq!(names, ["loss", "mean_token_accuracy", "entropy", "perplexity", "rows", "dropped", "tokens"]);
    let columns: Vec<_> = outcome.stdout.lines().map(|line| line.rfind("  ").unwrap()).collect();
    assert!(columns.iter().all(|column| *column == columns[0]), "{}", outcome.stdout);
}

#[test]
fn eval_takes_the_rows_that_were_asked_for() {
    let eval = |split: &[&str]| {
        collimate(&[&["eval", "--model", "model", "--dataset_name", "text.jsonl", "--json"], split].concat())
    };
    // The split of a lone file need not be named
    let all = eval(&[]).objects()[0]["rows"].as_u64().unwrap();
    assert!(all > 2);
    assert_eq!(eval(&["--dataset_test_split", "train[:2]"]).objects()[0]["rows"], json!(2));
    let outcome = eval(&["--dataset_test_split", "validation"]);
    assert_eq!(outcome.code, Some(2));
    assert!(outcome.stderr.contains("validation"), "{}", outcome.stderr);
}

#[test]
fn eval_refuses_what_it_cannot_measure() {
    let (_folder, path) = file("rows.jsonl", b"{\"prompt\":\"a\"}\n");
    for (args, expected) in [
        (
            &["--dataset_name", path.as_str()][..],
            "holds rows in the format `prompt-only, standard`, which `eval` cannot",
        ),
        (&["--dataset_name", "text.jsonl", "--columns", "text"], "`--columns` must be FOUND=EXPECTED, got `text`"),
        (&["--dataset_name", "text.jsonl", "--columns", "txt=text"], "has no column `txt`"),
        (&["--dataset_name", "text.jsonl", "--batch_size", "0"], "`--batch_size` must be a whole number from 1 up"),
        (&["--dataset_name", "text.jsonl", "--ref_model", "./nowhere"], "nowhere"),
    ] {
        let outcome = collimate(&[&["eval", "--model", "model", "--offline"], args].concat());
        assert!(outcome.stderr.starts_with("error: ") && outcome.stderr.contains(expected), "{}", outcome.stderr);
        assert_eq!((outcome.code, outcome.stdout.as_str()), (Some(2), ""), "{args:?}");
    }
}

#[test]
fn inspect_shows_tokens_and_their_loss_mask() {
    let args = ["data", "inspect", "prompted.jsonl", "--model", "model", "--rows", "2"];
    let mut quiet = program(&args);
    quiet.env("NO_COLOR", "1");
    for outcome in [collimate(&args), outcome(quiet)] {
        assert_eq!((outcome.code, outcome.stderr.as_str()), (Some(0), ""));
        assert!(!outcome.stdout.contains('\u{1b}'), "colours away from a terminal");
        let start = "files     prompted.jsonl\nformat    prompt-completion, standard\ncolumns   prompt, completion\n\
                     rows      30\nexamples  30\ntokens    min 22, median 28, 95% 36, max 40, mean 28.5, total 856\n";
        assert!(outcome.stdout.starts_with(start), "{}", outcome.stdout);
        let second = "\nexample 2 (prompted.jsonl:2)\n  Question|:| where| is| the| |he|r|on|?|\\n|Answer|:|[ by]|[ the]|\
                      [ mill]|[,]|[ with]|[ a]|[ trout]|[.]|[<|endoftext|>]\n";
        assert!(outcome.stdout.contains(second), "{}", outcome.stdout);
        assert!(!outcome.stdout.contains("example 3"));
    }
}

#[test]
fn inspect_prints_one_object_for_machines() {
    let pairs =
        ["data", "inspect", "--dataset_name", "preference.jsonl", "--model", "model", "--json", "--max_length", "26"];
    let found = &collimate(&pairs).objects()[0];
    assert_eq!(found["format"], json!({"kind": "preference", "conversational": false}));
    assert_eq!((&found["rows"], &found["used"], &found["lengths"]["max"]), (&json!(30), &json!(30), &json!(26)));
    assert!(found["at_max_length"].as_u64().unwrap() > 0);
    let example = &found["examples"][2];
    assert_eq!(example["place"], "preference.jsonl:3");
    for side in ["chosen", "rejected"] {
        let spans = example[side].as_array().unwrap();
        assert!(spans[0]["carries_loss"] == false && spans.last().unwrap()["carries_loss"] == true, "{side}");
        assert!(spans.iter().map(|span| span["ids"].as_array().unwrap().len()).sum::<usize>() <= 26);
    }

    let plain = &collimate(&["data", "inspect", "chat.jsonl", "--json", "--rows", "1"]).objects()[0];
    assert_eq!(plain["format"], json!({"kind": "language_modeling", "conversational": true}));
    assert_eq!(plain["examples"].as_array().unwrap().len(), 1);
    assert_eq!(plain["examples"][0]["row"]["messages"][0]["role"], "user");
}

#[test]
fn inspect_names_dropped_rows_and_the_places_of_the_others() {
    let empty = "{\"text\":\"\"}\n";
    let row = |text: &str| format!("{{\"text\":\"{text}\"}}\n");
    let text = [&row("first"), empty, empty, &row("second\\u001b[31m"), &empty.repeat(5), &row("third")].concat();
    let (_folder, path) = file("rows.jsonl", text.as_bytes());
    let outcome = collimate(&["data", "inspect", &path, "--model", "model"]);
    let found = outcome.stdout.replace(&path, "rows.jsonl");
    let dropped =
        "dropped   7: no token to learn from (rows.jsonl:2, rows.jsonl:3, rows.jsonl:5, rows.jsonl:6, rows.jsonl:7)\n";
    assert!(found.contains(dropped), "{found}");
    assert!(found.contains("example 1 (rows.jsonl:1)\n") && found.contains("example 2 (rows.jsonl:4)\n"), "{found}");
    assert!(found.contains("example 3\n"), "after more dropped rows than are on record no place is certain: {found}");
    assert!(found.contains("\\u{1b}") && !found.contains('\u{1b}'), "{found}");
}

#[test]
fn inspect_refuses_what_is_not_there() {
    for args in [&["nowhere.jsonl"][..], &["text.jsonl", "--split", "test"], &[], &["a", "--dataset_name", "b"]] {
        let outcome = collimate(&[&["data", "inspect", "--offline"], args].concat());
        assert_eq!((outcome.code, outcome.stdout.as_str()), (Some(2), ""), "{args:?}");
        assert!(outcome.stderr.starts_with("error: "), "{}", outcome.stderr);
    }
}

/// The line of `collimate doctor` that begins with `name`
fn doctor(name: &str, endpoint: &str, flags: &[&str]) -> (Option<i32>, String) {
    let mut command = program(&[&["doctor"], flags].concat());
    command
        .env("HF_ENDPOINT", endpoint)
        .env_remove("HF_HUB_OFFLINE")
        .env_remove("TRANSFORMERS_OFFLINE")
        .env("NO_PROXY", "127.0.0.1");
    let outcome = outcome(command);
    let line =
        outcome.stdout.lines().find_map(|line| Some(line.strip_prefix(name)?.strip_prefix("  ")?.trim().to_owned()));
    (outcome.code, line.unwrap_or_else(|| panic!("no line `{name}` in {}", outcome.stdout)))
}

#[test]
fn doctor_reports_without_failing() {
    assert_eq!(doctor("collimate", "", &["--offline"]), (Some(0), env!("CARGO_PKG_VERSION").to_owned()));
    assert_eq!(doctor("Hub", "", &["--offline"]), (Some(0), "not asked: offline".to_owned()));
    let (code, threads) = doctor("threads", "", &["--offline", "--threads", "3"]);
    assert!(code == Some(0) && threads.starts_with("3 ("), "{threads}");
    let (code, kernels) = doctor("kernels", "", &["--offline"]);
    assert!(code == Some(0) && kernels.ends_with(", agree with plain arithmetic"), "{kernels}");

    // A port that was free a moment ago
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let (code, hub) = doctor("Hub", &format!("http://{nobody}"), &[]);
    assert!(code == Some(0) && hub.starts_with("does not answer ("), "{hub}");
}

#[test]
fn doctor_says_how_the_hub_answers() {
    for (status, expected) in [("200 OK", "answers in "), ("503 Busy", "answers with status 503")] {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = [0; 4096];
            let length = stream.read(&mut request).unwrap();
            write!(stream, "HTTP/1.1 {status}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n").unwrap();
            String::from_utf8_lossy(&request[..length]).into_owned()
        });
        let (code, hub) = doctor("Hub", &endpoint, &[]);
        assert!(code == Some(0) && hub.starts_with(expected), "{hub}");
        assert!(server.join().unwrap().starts_with("HEAD /"));
    }
}

#[test]
fn doctor_fails_where_no_model_could_be_found() {
    let (code, hub) = doctor("Hub", "not-an-address", &["--offline"]);
    assert!(code == Some(2) && hub.starts_with("the settings are wrong: HF_ENDPOINT"), "{hub}");
}
