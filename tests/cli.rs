//! What a user meets on the command line: exit codes, messages, spellings. The program runs as a process.

use std::fs;
use std::process::{Command, Stdio};

struct Outcome {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

fn collimate(args: &[&str]) -> Outcome {
    let output = Command::new(env!("CARGO_BIN_EXE_collimate")).args(args).output().expect("the program starts");
    Outcome {
        code: output.status.code(),
        stdout: String::from_utf8(output.stdout).expect("stdout is UTF-8"),
        stderr: String::from_utf8(output.stderr).expect("stderr is UTF-8"),
    }
}

/// Exit code 2, nothing on stdout, and exactly this on stderr
fn refused(args: &[&str], expected: &str) {
    let outcome = collimate(args);
    assert_eq!(outcome.stderr, expected, "{args:?}");
    assert_eq!((outcome.code, outcome.stdout.as_str()), (Some(2), ""), "{args:?}");
}

/// Runs a training command on a config file and gives what stderr says, the file called `config.yaml`
fn with_config(command: &str, text: &str, flags: &[&str]) -> Outcome {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("config.yaml");
    fs::write(&path, text).expect("the config is written");
    let path = path.to_str().expect("a path in UTF-8");
    let mut outcome = collimate(&[&[command, "--config", path], flags].concat());
    outcome.stderr = outcome.stderr.replace(path, "config.yaml");
    outcome
}

#[test]
fn unknown_flag_gets_the_nearest_key_in_its_own_spelling() {
    let expected = "error: unknown key `lerning_rate` for `sft`\nhint: did you mean `learning_rate`?\n";
    refused(&["sft", "--lerning_rate", "1"], expected);
    refused(&["sft", "--lerning-rate", "1"], expected);
    refused(&["sft", "--lerning-rate=1"], expected);
    refused(&["generate", "--modl", "x"], "error: unknown flag `--modl`\nhint: did you mean `--model`?\n");
    refused(&["dpo", "--qqqqq"], "error: unknown key `qqqqq` for `dpo`\nhint: `collimate dpo --help` lists the keys\n");
}

#[test]
fn stray_word_is_refused() {
    refused(&["sft", "stray"], "error: unexpected argument `stray`\n");
}

#[test]
fn faults_of_a_file_have_a_place() {
    for (text, expected) in [
        (
            "seed: 1\nbeta_typo: 2\n",
            "error: config.yaml:2:1: unknown key `beta_typo` for `dpo`\nhint: did you mean `beta`?\n",
        ),
        ("seed: 1\nbeta: -1\n", "error: config.yaml:2:7: `beta` must be at least 0, got `-1`\n"),
        ("beta: high\n", "error: config.yaml:1:7: `beta` must be a number, got `high`\n"),
        ("seed: 1\nseed: 2\n", "error: config.yaml:2:1: `seed` is set twice\nhint: keep one of the two\n"),
        (
            "per_device_train_batch_size: 0\n",
            "error: config.yaml:1:30: `per_device_train_batch_size` must be at least 1, got `0`\n",
        ),
        (
            "dtype: bfloat16\n",
            "error: config.yaml:1:8: `dtype` cannot be `bfloat16` here: weights are held in float32\nhint: leave out \
             `dtype`\n",
        ),
    ] {
        let outcome = with_config("dpo", text, &[]);
        assert_eq!(outcome.stderr, expected);
        assert_eq!((outcome.code, outcome.stdout.as_str()), (Some(2), ""));
    }
}

#[test]
fn misspelt_value_gets_the_nearest_one() {
    let outcome = with_config("dpo", "loss_type: sigmod\n", &[]);
    assert!(outcome.stderr.starts_with("error: config.yaml:1:12: `loss_type` must be "), "{}", outcome.stderr);
    assert!(outcome.stderr.ends_with("got `sigmod`\nhint: did you mean `sigmoid`?\n"), "{}", outcome.stderr);
    assert_eq!(outcome.code, Some(2));
}

#[test]
fn yaml_that_does_not_parse_has_a_place() {
    let outcome = with_config("sft", "a: b: c\n", &[]);
    assert!(outcome.stderr.starts_with("error: config.yaml:1:5: not valid as YAML: "), "{}", outcome.stderr);
    assert_eq!(outcome.code, Some(2));
}

#[test]
fn config_that_is_not_there_is_named() {
    let outcome = collimate(&["sft", "--config", "nowhere.yaml"]);
    assert!(outcome.stderr.starts_with("error: cannot read `nowhere.yaml`: "), "{}", outcome.stderr);
    assert_eq!(outcome.code, Some(2));
}

#[test]
fn flag_beats_file() {
    let outcome = with_config("dpo", "beta: high\n", &["--beta", "-1"]);
    assert_eq!(outcome.stderr, "error: `beta` must be at least 0, got `-1`\n");
}

#[test]
fn both_spellings_and_all_booleans_reach_the_keys() {
    let beta = "error: `beta` must be at least 0, got `-1`\n";
    for flags in [
        &["--beta", "-1"][..],
        &["--disable_dropout", "--beta", "-1"],
        &["--disable-dropout", "true", "--beta=-1"],
        &["--disable_dropout", "false", "--beta", "-1"],
        &["--no_disable_dropout", "--learning-rate", "1e-5", "--beta", "-1"],
        &["--quiet", "--threads", "1", "--beta", "-1"],
    ] {
        refused(&[&["dpo"], flags].concat(), beta);
    }
    refused(&["dpo", "--learning-rate", "-1"], "error: `learning_rate` must be at least 0, got `-1`\n");
    refused(&["dpo", "--bf16", "maybe"], "error: `bf16` must be `true` or `false`, got `maybe`\n");
}

#[test]
fn lists_are_several_words_commas_or_repeats() {
    for flags in [
        &["--report_to", "tensorboard", "wandb"][..],
        &["--report_to", "tensorboard,wandb"],
        &["--report-to", "tensorboard", "--report_to", "wandb"],
    ] {
        refused(
            &[&["sft"], flags].concat(),
            "error: `report_to` cannot be `wandb` here: metrics go to `metrics.jsonl` and TensorBoard files\n\
             hint: `report_to` takes `tensorboard`, `none`\n",
        );
    }
}

#[test]
fn keys_of_trl_without_an_effect_give_one_notice() {
    let flags = ["--model_name_or_path", "/nowhere/model", "--dataset_name", "/nowhere/rows.jsonl"];
    let outcome = with_config("sft", "use_cpu: true\nattn_implementation: eager\n", &flags);
    let notice = "accepted, with no effect here: `use_cpu`, `attn_implementation`\n";
    assert_eq!(outcome.stderr.matches(notice).count(), 1, "{}", outcome.stderr);
    let quiet = with_config("sft", "use_cpu: true\n", &[&flags[..], &["--quiet"]].concat());
    assert!(!quiet.stderr.contains("accepted"), "{}", quiet.stderr);
}

#[test]
fn help_and_version_go_to_stdout() {
    let version = collimate(&["--version"]);
    assert_eq!((version.code, version.stdout.trim()), (Some(0), concat!("collimate ", env!("CARGO_PKG_VERSION"))));
    for (args, words) in [
        (&["--help"][..], &["sft", "dpo", "generate", "logprobs", "eval", "data", "demo", "doctor"][..]),
        (&["sft", "--help"], &["Model:", "Optimisation:", "--learning_rate <X>", "[default: 2e-5]", "--packing"]),
        (&["dpo", "--help"], &["[default: 1e-6]", "--beta <X>", "--disable_dropout [<true|false>]"]),
        (&["generate", "--help"], &["--max_new_tokens", "--ignore_eos"]),
        (&["data", "inspect", "--help"], &["--dataset_name"]),
    ] {
        let help = collimate(args);
        assert_eq!((help.code, help.stderr.as_str()), (Some(0), ""), "{args:?}");
        for word in words {
            assert!(help.stdout.contains(word), "{args:?} does not say {word:?}");
        }
        assert!(!help.stdout.contains('\u{1b}'), "{args:?} has colours away from a terminal");
        assert!(help.stdout.lines().all(|line| line.chars().count() <= 100), "{args:?} has lines over 100 characters");
    }
}

#[test]
fn nothing_asked_is_an_error() {
    let outcome = collimate(&[]);
    assert_eq!((outcome.code, outcome.stdout.as_str()), (Some(2), ""));
    assert!(outcome.stderr.contains("Usage: collimate"), "{}", outcome.stderr);
    assert_eq!(collimate(&["generate", "--model", "x"]).code, Some(2), "a prompt is missing");
}

#[test]
fn fixed_commands_speak_as_the_training_commands_do() {
    let generate = |flags: &[&'static str]| [&["generate", "--model", "x", "--prompt", "a"], flags].concat();
    refused(&["generat"], "error: unknown command `generat`\nhint: did you mean `generate`?\n");
    refused(&generate(&["--temperature", "-1"]), "error: `--temperature` must be a number of at least 0, got `-1`\n");
    refused(&generate(&["--top-p", "2"]), "error: `--top_p` must be a number from 0 to 1, got `2`\n");
    refused(
        &generate(&["--ignore_eos", "perhaps"]),
        "error: `--ignore_eos` must be `true` or `false`, got `perhaps`\n",
    );
    refused(&generate(&["--seed", "x"]), "error: `--seed` cannot be `x`: invalid digit found in string\n");
    refused(&generate(&["--seed"]), "error: `--seed` needs a value\n");
    refused(&["dpo", "--seed"], "error: `--seed` needs a value\n");
}

#[test]
fn reader_that_leaves_early_is_no_failure() {
    let mut child = Command::new(env!("CARGO_BIN_EXE_collimate"))
        .args(["sft", "--help"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program starts");
    drop(child.stdout.take());
    let output = child.wait_with_output().expect("the program ends");
    assert_eq!((output.status.code(), output.stderr.as_slice()), (Some(0), &[][..]));
}
