//! Every request that cannot work is refused with its place, its cause and what to do, and leaves nothing behind.

#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test, in helpers too")]

#[path = "common/training.rs"]
mod training;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use collimate::run::{Column, write_table};
use serde_json::{Map, Value, json};
use tempfile::TempDir;
use training::{GOLDENS, Outcome, bytes, json, listing, model, outcome, text};

const PROMPTED: &str = r#"{"prompt": "Question: where?", "completion": " under the bridge"}"#;
const PAIR: &str = r#"{"prompt": "Question: where?", "chosen": " under the bridge", "rejected": " nowhere"}"#;

struct Request {
    folder: TempDir,
}

impl Request {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes a file of the request
    fn file(&self, name: &str, content: impl AsRef<[u8]>) -> String {
        fs::write(self.path(name), content).unwrap();
        text(&self.path(name)).to_owned()
    }

    fn run(&self, recipe: &str, flags: &[&str]) -> Outcome {
        let out = self.path("new/out");
        let common =
            ["--model_name_or_path", "model", "--report_to", "none", "--max_steps", "3", "--logging_steps", "1"];
        let mut command = training::command(&[&[recipe, "--output_dir", text(&out)], &common[..], flags].concat());
        command.env("HF_HOME", self.path("cache"));
        let mut outcome = outcome(command);
        outcome.stderr = outcome.stderr.replace(text(self.folder.path()), "DIR");
        outcome
    }

    /// Exit code 2, these words on stderr, nothing on stdout, no output folder
    fn is_refused(&self, recipe: &str, flags: &[&str], expected: &[&str]) {
        let outcome = self.run(recipe, flags);
        says(&outcome, 2, expected);
        assert!(!self.path("new").exists(), "a folder was left behind: {}", outcome.stderr);
    }
}

fn says(outcome: &Outcome, code: i32, expected: &[&str]) {
    assert_eq!((outcome.code, outcome.stdout.as_str()), (Some(code), ""), "{}", outcome.stderr);
    let error = outcome.stderr.find("error: ").unwrap_or_else(|| panic!("no error in {:?}", outcome.stderr));
    for words in expected {
        assert!(outcome.stderr[error..].contains(words), "no {words:?} in {}", outcome.stderr);
    }
    assert!(!outcome.stderr.contains("panicked"), "{}", outcome.stderr);
}

#[test]
fn rows_that_cannot_be_read_are_named_by_file_and_line() {
    let cut = "hint: the file may have been cut off; fetch or write it again\n";
    let one_format = "hint: a dataset holds rows of one format; correct or remove this row\n";
    let columns =
        "hint: map columns with `columns: {FOUND: EXPECTED}` or `collimate data convert --columns FOUND=EXPECTED`\n";
    let by_first_row = "though the dataset is in the prompt-completion format by its first row; this row has `prompt`";
    let sft: &[(&str, &[&str])] = &[
        (r#"{"prompt": "a", "comp"#, &["DIR/rows.jsonl:2:21: the JSON value is not finished", cut]),
        ("hello", &["DIR/rows.jsonl:2:1: not valid JSON: expected value"]),
        ("3", &["DIR/rows.jsonl:2: expected a JSON object, found a number", "hint: a row is an object of columns"]),
        (r#"["a"]"#, &["DIR/rows.jsonl:2: expected a JSON object, found a list"]),
        (r#"{"prompt": "a"}"#, &["DIR/rows.jsonl:2: no column `completion`", by_first_row, one_format]),
        (r#"{"prompt": "a", "completion": null}"#, &["DIR/rows.jsonl:2: null in `completion`", by_first_row]),
        (r#"{"prompt": "a", "completion": 3}"#, &["DIR/rows.jsonl:2: `completion` is a number, expected a string"]),
        (r#"{"prompt": ["a"], "completion": "b"}"#, &["DIR/rows.jsonl:2: ", "`prompt`"]),
    ];
    let dpo: &[(&str, &[&str])] = &[
        (r#"{"prompt": "a", "chosen": "b"}"#, &["DIR/rows.jsonl:2: no column `rejected`", one_format]),
        (
            r#"{"prompt": "a", "chosen": "b", "rejected": false}"#,
            &["DIR/rows.jsonl:2: `rejected` is a bool", "expected a string"],
        ),
    ];
    for (recipe, good, cases) in [("sft", PROMPTED, sft), ("dpo", PAIR, dpo)] {
        for (bad, expected) in cases {
            let request = Request::new();
            let rows = request.file("rows.jsonl", format!("{good}\n{bad}"));
            request.is_refused(recipe, &["--dataset_name", &rows], expected);
            // The same among the rows to evaluate on
            let rows = request.file("good.jsonl", good);
            let eval = text(&request.path("rows.jsonl")).to_owned();
            let flags = ["--dataset_name", &rows, "--eval_dataset", &eval, "--eval_strategy", "steps"];
            request.is_refused(recipe, &flags, expected);
        }
    }
    for (recipe, row, needed) in [
        (
            "sft",
            r#"{"a": "x"}"#,
            "the dataset has the columns `a`, but `text`, `messages`, or `prompt` with `completion` is needed",
        ),
        ("dpo", PROMPTED, "the dataset has the columns `prompt` and `completion`, but `chosen` with `rejected`"),
    ] {
        let request = Request::new();
        let rows = request.file("rows.jsonl", row);
        request.is_refused(recipe, &["--dataset_name", &rows], &[needed, columns]);
    }
}

#[test]
fn a_dataset_without_one_useful_row_is_refused() {
    let long = "the heron waited near the harbour wall";
    let cases: &[(&str, String, &[&str])] = &[
        (
            "sft",
            r#"{"text": ""}"#.to_owned(),
            &["none of the 1 rows of `DIR/rows.jsonl` can be used: 1 × no token to learn from"],
        ),
        (
            "sft",
            json!({"prompt": long, "completion": " b"}).to_string(),
            &["none of the 1 rows", "hint: look at `DIR/rows.jsonl:1`"],
        ),
        ("dpo", json!({"prompt": long, "chosen": " b", "rejected": " c"}).to_string(), &["none of the 1 rows"]),
        ("sft", String::new(), &["`DIR/rows.jsonl` holds no rows"]),
    ];
    for (recipe, rows, expected) in cases {
        let request = Request::new();
        let rows = request.file("rows.jsonl", rows);
        request.is_refused(recipe, &["--dataset_name", &rows, "--max_length", "2"], expected);
    }
}

#[test]
fn useless_rows_among_others_are_dropped_and_told() {
    let request = Request::new();
    let rows = request.file("rows.jsonl", "{\"text\": \"\"}\n{\"text\": \"the heron\"}\n");
    let outcome = request.run("sft", &["--dataset_name", &rows]);
    assert_eq!(outcome.code, Some(0), "{}", outcome.stderr);
    let told = "warning: dropped 1 of 2 rows of `DIR/rows.jsonl`: no token to learn from (first at DIR/rows.jsonl:1)";
    assert!(outcome.stderr.contains(told), "{}", outcome.stderr);
    let manifest = json(&request.path("new/out/manifest.json"));
    assert_eq!(manifest["starts"][0]["rows"]["train"]["used"], json!(1), "{manifest}");
    // An empty completion still teaches where to stop
    let request = Request::new();
    let rows = request.file("rows.jsonl", r#"{"prompt": "a", "completion": ""}"#);
    assert_eq!(request.run("sft", &["--dataset_name", &rows]).code, Some(0));
}

#[test]
fn datasets_that_are_not_there_are_told_from_misspelt_ones() {
    let request = Request::new();
    request.file("rows.jsonl", PROMPTED);
    let at = |name: &str| text(&request.path(name)).to_owned();
    request.is_refused(
        "sft",
        &["--dataset_name", &at("row.jsonl")],
        &["`DIR/row.jsonl` does not exist", "hint: did you mean `DIR/rows.jsonl`?"],
    );
    fs::create_dir(request.path("folder.jsonl")).unwrap();
    request.is_refused("sft", &["--dataset_name", &at("folder.jsonl")], &["no data file in `DIR/folder.jsonl`"]);
    fs::create_dir(request.path("rows")).unwrap();
    request.file("rows/train.jsonl", PROMPTED);
    let rows = at("rows");
    request.is_refused(
        "sft",
        &["--dataset_name", &rows, "--dataset_train_split", "trian"],
        &["`DIR/rows` has no split `trian`, it has `train`", "hint: set `dataset_train_split`"],
    );
    request.is_refused(
        "sft",
        &["--dataset_name", &rows, "--eval_strategy", "steps"],
        &["`eval_strategy` needs held-out rows, and `DIR/rows` has no split `test`", "hint: set `eval_dataset`"],
    );
    let cache = "is not in the cache `DIR/cache/hub`\nhint: run once without `--offline`";
    request.is_refused("sft", &["--dataset_name", "someone/rows"], &["dataset `someone/rows`", cache]);
    #[cfg(unix)]
    {
        std::os::unix::fs::symlink("/nowhere", request.path("link.jsonl")).unwrap();
        let expected = ["`DIR/link.jsonl` is a link to `/nowhere`, which does not exist"];
        request.is_refused("sft", &["--dataset_name", &at("link.jsonl")], &expected);
    }
}

#[cfg(unix)]
#[test]
fn a_file_that_may_not_be_read_is_named() {
    use std::os::unix::fs::PermissionsExt;
    let request = Request::new();
    let rows = request.file("rows.jsonl", PROMPTED);
    fs::set_permissions(&rows, fs::Permissions::from_mode(0o000)).unwrap();
    if fs::read(&rows).is_ok() {
        println!("skipped: this user may read everything");
        return;
    }
    request.is_refused("sft", &["--dataset_name", &rows], &["cannot read `DIR/rows.jsonl`: Permission denied"]);
}

/// The header and the data of a safetensors file
fn weights(file: &Path) -> (Map<String, Value>, Vec<u8>) {
    let whole = bytes(file);
    let length = u64::from_le_bytes(whole[..8].try_into().unwrap()) as usize;
    (serde_json::from_slice(&whole[8..8 + length]).unwrap(), whole[8 + length..].to_vec())
}

fn write_weights(file: &Path, header: &Map<String, Value>, data: &[u8]) {
    let header = Value::Object(header.clone()).to_string();
    let length = (header.len() as u64).to_le_bytes();
    fs::write(file, [&length, header.as_bytes(), data].concat()).unwrap();
}

const TENSOR: &str = "transformer.h.1.mlp.c_fc.weight";

#[test]
fn a_damaged_model_is_refused() {
    type Damage = fn(&Path);
    let cases: &[(Damage, &[&str])] = &[
        (
            |model| fs::remove_file(model.join("tokenizer.json")).unwrap(),
            &["no tokenizer in `DIR/model`", "hint: expected `tokenizer.json`"],
        ),
        (
            |model| fs::write(model.join("tokenizer.json"), "{\"version\":").unwrap(),
            &["`DIR/model/tokenizer.json` is not a readable tokenizer", "line 1 column 11", "hint: fetch it again"],
        ),
        (
            |model| fs::remove_file(model.join("model.safetensors")).unwrap(),
            &["no weights in `DIR/model`", "hint: expected `model.safetensors`"],
        ),
        (
            |model| fs::remove_file(model.join("config.json")).unwrap(),
            &["the folder `DIR/model` holds no model: it has no `config.json`"],
        ),
        (|model| fs::write(model.join("config.json"), "{\n \"n_embd\": ,\n}").unwrap(), &["DIR/model/config.json:2:"]),
        (
            |model| {
                let path = model.join("model.safetensors");
                let whole = bytes(&path);
                fs::write(&path, &whole[..whole.len() - 1000]).unwrap();
            },
            &[
                "`DIR/model/model.safetensors` is not a whole safetensors file: its header describes 164392 bytes, the file has 163392",
                "hint: the download",
            ],
        ),
        (
            |model| fs::write(model.join("model.safetensors"), "").unwrap(),
            &["`DIR/model/model.safetensors` is empty (0 bytes)", "hint: "],
        ),
        (
            |model| {
                let path = model.join("model.safetensors");
                let (header, mut data) = weights(&path);
                let start = header[TENSOR]["data_offsets"][0].as_u64().unwrap() as usize + 20;
                data[start..start + 4].copy_from_slice(&f32::NAN.to_le_bytes());
                write_weights(&path, &header, &data);
            },
            &[
                "tensor `transformer.h.1.mlp.c_fc.weight` holds NaN at element 5",
                "hint: the training run that wrote it diverged",
            ],
        ),
        (
            |model| {
                let path = model.join("model.safetensors");
                let (mut header, data) = weights(&path);
                // The data stays whole: the tensor goes by another name
                let tensor = header.remove(TENSOR).unwrap();
                header.insert("other".to_owned(), tensor);
                write_weights(&path, &header, &data);
            },
            &["1 tensor missing: `transformer.h.1.mlp.c_fc.weight` [32, 128]"],
        ),
        (
            |model| {
                let path = model.join("model.safetensors");
                let (mut header, data) = weights(&path);
                header[TENSOR]["shape"] = json!([128, 32]);
                write_weights(&path, &header, &data);
            },
            &[
                "`transformer.h.1.mlp.c_fc.weight` expected [32, 128], found [128, 32]",
                "hint: `config.json` and the weights do not belong together",
            ],
        ),
    ];
    for (damage, expected) in cases {
        for (recipe, rows) in [("sft", PROMPTED), ("dpo", PAIR)] {
            let request = Request::new();
            let rows = request.file("rows.jsonl", rows);
            let model = model(request.folder.path(), &[]);
            damage(&model);
            request.is_refused(recipe, &["--model_name_or_path", text(&model), "--dataset_name", &rows], expected);
        }
    }
}

#[test]
fn a_model_of_another_kind_or_place_is_refused() {
    let with = |changes: &[(&str, Value)], more: &[&str], expected: &[&str]| {
        let request = Request::new();
        let model = model(request.folder.path(), changes);
        let rows = Path::new(GOLDENS).join("text.jsonl");
        let flags = ["--model_name_or_path", text(&model), "--dataset_name", text(&rows)];
        request.is_refused("sft", &[&flags, more].concat(), expected);
    };
    with(
        &[("model_type", json!("llama"))],
        &[],
        &["DIR/model/config.json: `model_type` `llama` is not supported", "hint: supported: `gpt2`"],
    );
    let scratch = ["--from_scratch", "true"];
    with(
        &[("vocab_size", json!(100))],
        &scratch,
        &[
            "the tokenizer makes token 339, and the model in `DIR/model` has only 100 tokens",
            "hint: the tokenizer belongs to another model",
        ],
    );
    with(&[("n_head", json!(5))], &scratch, &["DIR/model/config.json: ", "n_head"]);

    let request = Request::new();
    let rows = request.file("rows.jsonl", PROMPTED);
    let of = |name: &str, expected: &[&str]| {
        request.is_refused("sft", &["--dataset_name", &rows, "--model_name_or_path", name], expected);
    };
    model(request.folder.path(), &[]);
    of(text(&request.path("modle")), &["`DIR/modle` does not exist", "hint: did you mean `DIR/model`?"]);
    of(&rows, &["`DIR/rows.jsonl` is a file, expected the folder of a model"]);
    of(
        "someone/model",
        &[
            "model `someone/model` at revision `main` is not in the cache `DIR/cache/hub`",
            "hint: run once without `--offline`",
        ],
    );
}

#[test]
fn keys_that_are_wrong_are_refused() {
    let request = Request::new();
    let rows = request.file("rows.jsonl", PAIR);
    let of = |flags: &[&str], expected: &[&str]| {
        request.is_refused("dpo", &[&["--dataset_name", &rows], flags].concat(), expected);
    };
    of(&["--learning_rat", "1"], &["unknown key `learning_rat` for `dpo`", "hint: did you mean `learning_rate`?"]);
    of(&["--beta", "-1"], &["`beta` must be at least 0, got `-1`"]);
    of(&["--per_device_train_batch_size", "0"], &["`per_device_train_batch_size` must be at least 1, got `0`"]);
    of(&["--learning_rate", "nan"], &["`learning_rate` must be a number, got `nan`"]);
    of(&["--loss_type", "sigmod"], &["got `sigmod`", "hint: did you mean `sigmoid`?"]);
    for (line, expected) in [
        (
            "learning_rat: 1",
            &["DIR/keys.yaml:2:1: unknown key `learning_rat`", "hint: did you mean `learning_rate`?"][..],
        ),
        ("zzz: 1", &["DIR/keys.yaml:2:1: unknown key `zzz` for `dpo`", "hint: `collimate dpo --help` lists the keys"]),
        ("beta: -1", &["`beta` must be at least 0, got `-1`"]),
        ("beta: [", &["DIR/keys.yaml:"]),
    ] {
        let config = request.file("keys.yaml", format!("seed: 1\n{line}\n"));
        of(&["--config", &config], expected);
    }
}

#[test]
fn an_output_folder_that_belongs_to_something_else_is_left_alone() {
    let request = Request::new();
    let rows = request.file("rows.jsonl", PROMPTED);
    let file = request.file("file", "mine");
    let to = |out: &str| request.run("sft", &["--dataset_name", &rows, "--output_dir", out]);
    says(&to(&file), 2, &["`output_dir` is a file: `DIR/file`", "hint: name a folder"]);
    says(&to(&format!("{file}/run")), 2, &["`output_dir` cannot be `DIR/file/run`: `DIR/file` is a file"]);
    assert_eq!(bytes(Path::new(&file)), b"mine");

    let run = request.path("run");
    assert_eq!(to(text(&run)).code, Some(0));
    let (before, names) = (bytes(&run.join("metrics.jsonl")), listing(&run));
    says(
        &to(text(&run)),
        2,
        &["`output_dir` holds a run already: `DIR/run/", "hint: go on with `resume_from_checkpoint: true`"],
    );
    assert_eq!((bytes(&run.join("metrics.jsonl")), listing(&run)), (before, names));
    // A bad row costs nobody the run that was to be replaced
    let bad = request.file("bad.jsonl", "{");
    let before = bytes(&run.join("model.safetensors"));
    let flags = ["--dataset_name", &bad, "--output_dir", text(&run), "--overwrite_output_dir", "true"];
    says(&request.run("sft", &flags), 2, &["DIR/bad.jsonl:1:"]);
    assert!(bytes(&run.join("model.safetensors")) == before && run.join("summary.json").exists());

    let nowhere = request.path("nowhere");
    let flags = ["--dataset_name", &rows, "--resume_from_checkpoint", text(&nowhere)];
    request.is_refused("sft", &flags, &["no checkpoint folder `DIR/nowhere`"]);
    let flags = ["--dataset_name", &rows, "--resume_from_checkpoint", text(&run)];
    let expected = ["`DIR/run` is not a complete checkpoint", "hint: its newest checkpoint is `DIR/run/checkpoint-3`"];
    request.is_refused("sft", &flags, &expected);
}

#[test]
fn a_rate_beyond_all_measure_fails_at_a_named_step_and_keeps_what_was_sound() {
    let lower = "hint: lower `learning_rate` or `max_grad_norm`";
    for (recipe, rows) in [("sft", "text.jsonl"), ("dpo", "preference.jsonl")] {
        let request = Request::new();
        let out = request.path("new/out");
        let flags = ["--dataset_name", rows, "--max_steps", "9", "--save_steps", "1"];
        let of = |rate: [&str; 2]| request.run(recipe, &[&flags, &rate[..]].concat());

        // Weights of 1e30 are finite, what comes of them is not
        says(&of(["--learning_rate", "1e30"]), 1, &["error: step 2: the loss is NaN\n", lower]);
        assert_eq!(listing(&out), ["checkpoint-1", "config.yaml", "manifest.json", "metrics.jsonl"]);
        let manifest = json(&out.join("manifest.json"));
        assert_eq!(manifest["starts"][0]["exit"], json!({ "code": 1, "error": "step 2: the loss is NaN" }));
        fs::remove_dir_all(&out).unwrap();

        // Infinite ones are not even saved
        says(
            &of(["--learning_rate", "1e39"]),
            1,
            &["error: step 1: `transformer.wte.weight` is no longer finite\n", lower],
        );
        assert_eq!(listing(&out), ["config.yaml", "manifest.json", "metrics.jsonl"]);
        fs::remove_dir_all(&out).unwrap();

        // A rate that grows: the checkpoint before the damage is named
        let grown = ["--learning_rate", "1e30", "--warmup_steps", "2", "--lr_scheduler_type", "constant_with_warmup"];
        let outcome = request.run(recipe, &[&flags[..], &grown].concat());
        let newest = "; the newest checkpoint before that is `DIR/new/out/checkpoint-1`";
        says(&outcome, 1, &["error: step 3: the loss is NaN\n", lower, newest]);
        assert!(!out.join("summary.json").exists() && !out.join("model.safetensors").exists());
    }
}

/// The request with a disk of its own for the run
#[cfg(unix)]
#[test]
fn a_full_disk_ends_the_run_and_nothing_is_half_written() {
    let request = Request::new();
    let disk = request.path("disk");
    fs::create_dir(&disk).unwrap();
    let in_namespace = |then: &str| {
        let mut command = Command::new("unshare");
        let script = format!("mount -t tmpfs -o size=1200k tmpfs '{}' && {then}", text(&disk));
        command.args(["--map-root-user", "--mount", "sh", "-c", &script]).current_dir(GOLDENS);
        command
    };
    if !in_namespace("true").output().is_ok_and(|output| output.status.success()) {
        println!("skipped: this system gives no file system of its own to a test");
        return;
    }
    // Room for one checkpoint of 0.5 MB and the half of a second
    let script = "\"$0\" \"$@\"; code=$?; cd \"$DISK\"; ls -A; ls -A run/checkpoint-*; exit $code";
    let mut command = in_namespace(script);
    let program = env!("CARGO_BIN_EXE_collimate");
    let flags =
        "sft --model_name_or_path model --dataset_name text.jsonl --report_to none --max_steps 9 --save_steps 1";
    command.arg(program).args(flags.split(' ')).arg("--output_dir").arg(disk.join("run")).env("DISK", &disk);
    let outcome = outcome(command);
    assert_eq!(outcome.code, Some(1), "{}", outcome.stderr);
    assert!(outcome.stderr.contains("error: cannot write `"), "{}", outcome.stderr);
    assert!(outcome.stderr.contains("hint: the disk is full: free some space"), "{}", outcome.stderr);
    assert!(outcome.stdout.contains("checksums.txt"), "the first checkpoint is whole: {}", outcome.stdout);
    assert!(!outcome.stdout.contains(".partial-"), "{}", outcome.stdout);
}

#[test]
fn preferences_that_cannot_serve_are_named_or_dropped_and_told() {
    let unpaired = |label: &str| format!(r#"{{"prompt": "a", "completion": " b", "label": {label}}}"#);
    for (label, found) in [("\"yes\"", "the text \"yes\""), ("1", "the number 1"), ("[true]", "a list")] {
        let request = Request::new();
        let rows = request.file("rows.jsonl", format!("{}\n{}", unpaired("true"), unpaired(label)));
        let expected = format!("DIR/rows.jsonl:2: `label` is {found}, expected `true` (a good completion) or `false`");
        request.is_refused("kto", &["--dataset_name", &rows], &[&expected]);
    }
    let request = Request::new();
    let rows = request.file("rows.jsonl", format!("{}\n{PAIR}", unpaired("true")));
    let expected = "DIR/rows.jsonl:2: no column `completion` and `label`, though the dataset is in the unpaired preference \
                    format by its first row";
    request.is_refused("kto", &["--dataset_name", &rows], &[expected]);
    let rows = request.file("rows.jsonl", PROMPTED);
    let expected = "`prompt`, `completion` and `label`, or `chosen` with `rejected`, is needed";
    request.is_refused("kto", &["--dataset_name", &rows], &[expected]);

    // A CSV file has text alone
    let rows = request.file("rows.csv", "prompt,completion,label\na, b,True\na, c,false\n");
    let outcome = request.run("kto", &["--dataset_name", &rows]);
    assert_eq!(outcome.code, Some(0), "{}", outcome.stderr);

    let eos = "<|endoftext|>";
    let pairs = [
        json!({"prompt": "", "chosen": " under the bridge", "rejected": " nowhere"}),
        json!({"prompt": "", "chosen": eos, "rejected": " nowhere"}),
        json!({"prompt": "a", "chosen": " b", "rejected": " b"}),
    ];
    for recipe in ["dpo", "kto", "orpo", "cpo"] {
        let request = Request::new();
        let rows = request.file("rows.jsonl", pairs.each_ref().map(ToString::to_string).join("\n"));
        let outcome = request.run(recipe, &["--dataset_name", &rows]);
        assert_eq!(outcome.code, Some(0), "{recipe}: {}", outcome.stderr);
        let told = match recipe {
            // There a BOS token comes before every prompt
            "orpo" | "cpo" => "warning: 1 rows of `DIR/rows.jsonl` have equal chosen and rejected completions",
            "dpo" => {
                "warning: dropped 1 of 3 rows of `DIR/rows.jsonl`: an empty prompt before a completion of one token"
            }
            _ => "warning: dropped 1 of 6 rows of `DIR/rows.jsonl`: an empty prompt before a completion of one token",
        };
        assert!(outcome.stderr.contains(told), "{recipe}: {}", outcome.stderr);
        if matches!(recipe, "dpo" | "kto") {
            assert!(outcome.stderr.contains("have an empty prompt"), "{recipe}: {}", outcome.stderr);
        }
        let losses = training::rows(&request.path("new/out"));
        assert!(losses.iter().all(|row| training::number(row, "loss").is_finite()), "{recipe}: {losses:?}");
    }
}

#[test]
fn a_parquet_column_of_the_wrong_type_is_named() {
    let request = Request::new();
    let texts = |text: &str| Column::Texts(vec![text.to_owned(); 2]);
    let path = request.path("rows.parquet");
    let columns = [("prompt", texts("a")), ("chosen", Column::Integers(vec![1, 2])), ("rejected", texts(" b"))];
    write_table(&path, &columns).unwrap();
    request.is_refused(
        "dpo",
        &["--dataset_name", text(&path)],
        &["DIR/rows.parquet:1: `chosen` is a number, expected a string"],
    );
    let columns = [("prompt", texts("a")), ("completion", texts(" b")), ("label", Column::Integers(vec![1, 0]))];
    write_table(&path, &columns).unwrap();
    request.is_refused(
        "kto",
        &["--dataset_name", text(&path)],
        &["DIR/rows.parquet:1: `label` is the number 1, expected `true`"],
    );
    let columns = [("text", Column::Numbers(vec![Some(0.5), None]))];
    write_table(&path, &columns).unwrap();
    request.is_refused(
        "sft",
        &["--dataset_name", text(&path)],
        &["DIR/rows.parquet:1: `text` is a number, expected a string"],
    );
}

#[test]
fn mixtures_that_cannot_be_made_are_refused() {
    let request = Request::new();
    let rows = request.file("rows.jsonl", format!("{PAIR}\n{PAIR}\n{PAIR}"));
    let one = |entry: &str| format!("[{{path: {rows}, fraction: 0.5}}, {{path: {rows}{entry}}}]");
    for (datasets, expected) in [
        (one(""), "`datasets`: some have a `fraction` and some have none"),
        (one(", fraction: -1"), "`fraction` is at least 0"),
        (one(", fracton: 1"), "hint: did you mean `fraction`?"),
        (one(", fraction: 1, split: 'train[5:]'"), "has 3 rows, and the part asked for begins or ends at 5"),
        (one(", fraction: 1, split: test"), "has no split `test`, it has `train`"),
        (one(", fraction: 1, columns: [chosn]"), "has no column `chosn`, it has `prompt`, `chosen` and `rejected`"),
        ("[{split: train}]".to_owned(), "got a map without `path`"),
        ("[{path: nowhere.jsonl}]".to_owned(), "nowhere.jsonl"),
        ("[{path: json, data_files: nowhere.jsonl}]".to_owned(), "nowhere.jsonl"),
    ] {
        request.is_refused("dpo", &["--datasets", &datasets], &[expected]);
    }
    let alone = ["--dataset_name", rows.as_str()];
    for (flags, expected) in [
        (&["--test_split_size", "3"][..], "`test_split_size` is 3, and `DIR/rows.jsonl` has 3 rows"),
        (&["--test_split_size", "0.5", "--eval_dataset", &rows], "`test_split_size` and `eval_dataset` both name rows"),
        (&["--dataset_train_split", "train[1"], "`train[1` is neither a split nor a part of one"),
        (&["--eval_strategy", "steps"], "hint: set `eval_dataset`, or `test_split_size`"),
    ] {
        request.is_refused("dpo", &[&alone[..], flags].concat(), &[expected]);
    }
}

#[test]
fn tokenised_pairs_are_checked() {
    let request = Request::new();
    for (row, recipe, expected) in [
        (r#"{"chosen_ids": [1], "rejected_ids": [2]}"#, "dpo", "DIR/rows.jsonl:1: no `prompt_ids`"),
        (r#"{"prompt_ids": [1], "chosen_ids": [1, 999999], "rejected_ids": [2]}"#, "dpo", "`chosen_ids` holds 999999"),
        (
            r#"{"chosen_ids": "1 2", "rejected_ids": [2]}"#,
            "reward",
            "`chosen_ids` holds a string, expected a list of integers",
        ),
    ] {
        let rows = request.file("rows.jsonl", row);
        request.is_refused(recipe, &["--dataset_name", &rows], &[expected]);
    }
}

#[test]
fn settings_of_the_offline_trainers_that_exclude_each_other_are_refused() {
    let request = Request::new();
    let rows = request.file("rows.jsonl", format!("{PAIR}\n{PAIR}"));
    let chat = request.file("chat.jsonl", r#"{"messages": [{"role": "user", "content": "a"}]}"#);
    let cases: &[(&str, &str, &[&str])] = &[
        ("dpo", "--loss_type sigmod", &["got `sigmod`", "hint: did you mean `sigmoid`?"]),
        ("dpo", "--loss_type sppo", &["got `sppo`", "hint: did you mean `sppo_hard`?"]),
        ("dpo", "--loss_type exo_pair", &["`label_smoothing` must be above 0 for `loss_type exo_pair`", "0.001"]),
        ("dpo", "--loss_type robust --label_smoothing 0.5", &["must be below 0.5 for `loss_type robust`, got 0.5"]),
        ("dpo", "--label_smoothing 1", &["`label_smoothing` must be at least 0 and below 1, got `1`"]),
        ("dpo", "--loss_type ipo --beta 0", &["`beta` must be above 0 for `loss_type ipo`"]),
        ("dpo", "--ld_alpha 1.5", &["`ld_alpha` must be at least 0 and at most 1, got `1.5`"]),
        ("dpo", "--discopop_tau 0", &["`discopop_tau` must be above 0, got `0`"]),
        ("dpo", "--loss_type nca_pair --f_divergence_type js_divergence", &["has no meaning for `loss_type nca_pair`"]),
        ("dpo", "--f_divergence_type jsd", &["`f_divergence_type`", "`js_divergence`"]),
        ("dpo", "--loss_type aot --use_weighting", &["`use_weighting` weighs pairs, and `loss_type aot`"]),
        ("dpo", "--loss_type sigmoid sft --loss_weights 1", &["one weight for each loss of `loss_type` (2), got 1"]),
        ("dpo", "--sync_ref_model --precompute_ref_log_probs", &["`sync_ref_model` and `precompute_ref_log_probs`"]),
        ("dpo", "--ref_model_mixup_alpha 2", &["`ref_model_mixup_alpha` must be at least 0 and at most 1"]),
        (
            "kto",
            "--per_device_train_batch_size 1",
            &["must be at least 2 for `loss_type kto`, got 1", "apo_zero_unpaired"],
        ),
        ("kto", "--train_sampling_strategy random", &["must be `sequential` for `loss_type kto`, got `random`"]),
        ("kto", "--desirable_weight -1", &["`desirable_weight` must be at least 0"]),
        ("cpo", "--loss_type simp", &["got `simp`", "hint: did you mean `simpo`?"]),
        ("cpo", "--loss_type ipo --beta 0", &["`beta` must be above 0 for `loss_type ipo`"]),
        ("orpo", "--beta -0.1", &["`beta` must be at least 0, got `-0.1`"]),
    ];
    for (recipe, flags, expected) in cases {
        let flags: Vec<&str> = flags.split(' ').chain(["--dataset_name", &rows]).collect();
        request.is_refused(recipe, &flags, expected);
    }
    let assistant = |rows: &str, more: &[&str], expected: &[&str]| {
        request.is_refused("sft", &[&["--assistant_only_loss", "--dataset_name", rows], more].concat(), expected);
    };
    let texts = request.file("texts.jsonl", PROMPTED);
    assistant(&texts, &[], &["`assistant_only_loss` needs conversations, and these rows are texts"]);
    assistant(&chat, &[], &["this one has no `{% generation %}`", "hint: put `{% generation %}`"]);
    let marked = "{% for m in messages %}{% if m.role == 'assistant' %}{% generation %}{{ m.content }}{% endgeneration %}\
                  {% else %}{{ m.content }}{% endif %}{% endfor %}";
    let template = request.file("marked.jinja", marked);
    let expected = "DIR/chat.jsonl:1: `assistant_only_loss` finds no token of the assistant in this row";
    assistant(&chat, &["--chat_template_path", &template], &[expected]);
    for (source, expected) in [
        ("{{ raise_exception('no') }}", "DIR/chat.jsonl:1: the chat template refuses the conversation: no"),
        ("{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}", "does not come to an end"),
        ("{{ messages[7].content }}", "the chat template fails (line 1)"),
    ] {
        let template = request.file("bad.jinja", source);
        request.is_refused("sft", &["--dataset_name", &chat, "--chat_template_path", &template], &[expected]);
    }
}
