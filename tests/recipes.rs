//! Training commands from end to end: the reference's numbers, the same result however a step is cut up, the same bytes
//! for the same seed, and the promised files.

#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test, in helpers too")]

#[path = "common/training.rs"]
mod training;

use std::fs;
use std::path::Path;

use serde_json::{Value, json};
use training::{GOLDENS, Row, bytes, is_eval, listing, model, number, rows, text, train, untimed};

/// Relative deviation that is let pass; f32 sums in another order give about 3e-5 after a dozen steps
const TOLERANCE: f64 = 1e-4;
/// Deviation of numbers near zero, such as a mean logit, that is let pass
const FLOOR: f64 = 1e-6;

fn config(case: &str) -> String {
    format!("{case}.yaml")
}

fn compare(place: &str, ours: &Row, reference: &Row) {
    for (name, expected) in reference {
        let (ours, expected) = (number(ours, name), expected.as_f64().expect("a number"));
        let allowed = TOLERANCE * expected.abs() + FLOOR;
        assert!((ours - expected).abs() <= allowed, "{place}: `{name}` is {ours}, the reference has {expected}");
    }
}

#[test]
fn every_case_gives_the_reference_s_numbers() {
    let names = listing(Path::new(GOLDENS));
    let cases: Vec<&str> = names.iter().filter_map(|name| name.strip_suffix(".yaml")).collect();
    assert!(cases.len() >= 9, "{cases:?}");
    for case in cases {
        let recipe = case.split('_').next().unwrap();
        let folder = tempfile::tempdir().unwrap();
        train(recipe, folder.path(), &["--config", &config(case)]);
        let ours = rows(folder.path());
        let golden = training::json(&Path::new(GOLDENS).join(format!("{case}.json")));
        let log: Vec<&Row> = golden["log"].as_array().unwrap().iter().map(|row| row.as_object().unwrap()).collect();
        // The reference's last row is about the whole run
        let (log, whole): (Vec<&Row>, Vec<&Row>) = log.into_iter().partition(|row| !row.contains_key("train_loss"));
        assert_eq!(ours.len(), log.len(), "{case}");
        for (ours, reference) in ours.iter().zip(log) {
            assert_eq!(is_eval(ours), is_eval(reference), "{case}: {ours:?}");
            compare(&format!("{case}, step {}", ours["step"]), ours, reference);
        }
        let summary = training::json(&folder.path().join("summary.json"));
        for reference in whole {
            compare(&format!("{case}, summary"), summary.as_object().unwrap(), reference);
        }
    }
}

/// What `trajectories.json` is compared at. 1e-3 relative is promised, 1e-4 near 0; a reward is a difference of sums that
/// are 1000 times as large
const TRAJECTORY: (f64, f64) = (2e-4, 3e-5);

/// Every loss and option of the offline trainers: each logged number of twelve steps
#[test]
fn trajectories_are_the_reference_s() {
    let golden = training::json(&Path::new(GOLDENS).join("trajectories.json"));
    let folder = tempfile::tempdir().unwrap();
    let mut worst: Vec<String> = Vec::new();
    let mut failures = Vec::new();
    for (name, case) in golden["cases"].as_object().unwrap() {
        let mut keys = golden["common"].as_object().unwrap().clone();
        keys.extend(case["keys"].as_object().unwrap().clone());
        if keys.contains_key("eval_strategy") {
            keys.insert("eval_dataset".to_owned(), keys["dataset_name"].clone());
        }
        if let Some(template) = keys.remove("chat_template") {
            let path = folder.path().join("template.jinja");
            fs::write(&path, template.as_str().unwrap()).unwrap();
            keys.insert("chat_template_path".to_owned(), json!(path));
        }
        // TRL has no name for it
        if name == "dpo_cdpo" {
            keys.insert("loss_type".to_owned(), json!("cdpo"));
        }
        let (config, out) = (folder.path().join(format!("{name}.yaml")), folder.path().join(name));
        fs::write(&config, Value::Object(keys).to_string()).unwrap();
        train(name.split('_').next().unwrap(), &out, &["--config", text(&config)]);
        let ours = rows(&out);
        let mut deviation = (0.0, String::new());
        for (metric, expected) in case["log"].as_object().unwrap() {
            let found: Vec<f64> = ours.iter().filter_map(|row| row.get(metric).and_then(Value::as_f64)).collect();
            let expected: Vec<f64> = expected.as_array().unwrap().iter().map(|value| value.as_f64().unwrap()).collect();
            assert_eq!(found.len(), expected.len(), "{name}: rows with `{metric}`");
            for (i, (found, expected)) in found.iter().zip(expected).enumerate() {
                let relative = ((found - expected).abs() - TRAJECTORY.1).max(0.0) / expected.abs().max(1e-12);
                if relative > deviation.0 {
                    deviation = (relative, format!("{name}: `{metric}`[{i}] is {found}, the reference has {expected}"));
                }
            }
        }
        worst.push(format!("{name} {:.1e}", deviation.0));
        // cDPO's optimum is finite; near it the gradient is a small difference of two large terms, and its norm the less exact
        let allowed = if name == "dpo_cdpo" { 1e-3 } else { TRAJECTORY.0 };
        if deviation.0 > allowed {
            failures.push(format!("{:.1e} {}", deviation.0, deviation.1));
        }
    }
    println!("worst relative deviations: {}", worst.join(", "));
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

/// Loss and gradient of each step
fn curve(recipe: &str, flags: &[&str]) -> Vec<[f64; 2]> {
    let folder = tempfile::tempdir().unwrap();
    train(recipe, folder.path(), flags);
    let train_rows = rows(folder.path()).into_iter().filter(|row| !is_eval(row));
    train_rows.map(|row| ["loss", "grad_norm"].map(|name| number(&row, name))).collect()
}

fn assert_close(what: &str, curve: &[[f64; 2]], expected: &[[f64; 2]]) {
    assert_eq!(curve.len(), expected.len(), "{what}");
    for (step, (found, expected)) in curve.iter().zip(expected).enumerate() {
        for (found, expected) in found.iter().zip(expected) {
            let step = step + 1;
            assert!((found - expected).abs() <= 1e-5 * expected.abs(), "{what}, step {step}: {found} and {expected}");
        }
    }
}

#[test]
fn the_split_into_micro_batches_changes_nothing() {
    for case in ["sft_completion", "sft_text", "dpo"] {
        let recipe = case.split('_').next().unwrap();
        // A small rate keeps what rounding does to the weights below what is to be seen
        let of = |batch: &str, accumulation: &str| {
            let batch = ["--per_device_train_batch_size", batch, "--gradient_accumulation_steps", accumulation];
            curve(recipe, &[&["--config", &config(case), "--learning_rate", "1e-4"][..], &batch].concat())
        };
        let whole = of("4", "1");
        assert_eq!(whole.len(), 12);
        assert_close(case, &of("2", "2"), &whole);
        assert_close(case, &of("1", "4"), &whole);
    }
}

/// All rows in each step, so that packing changes the rows' company alone
#[test]
fn packed_rows_teach_what_they_teach_alone() {
    let of = |more: &[&str]| {
        let flags =
            ["--config", &config("sft_completion"), "--per_device_train_batch_size", "30", "--learning_rate", "1e-4"];
        curve("sft", &[&flags[..], &["--max_steps", "6", "--eval_strategy", "no"], more].concat())
    };
    let alone = of(&[]);
    for strategy in ["bfd", "bfd_split"] {
        let packed = of(&["--packing", "true", "--packing_strategy", strategy, "--max_length", "100"]);
        assert_close(strategy, &packed, &alone);
    }
    let wrapped = of(&["--packing", "true", "--packing_strategy", "wrapped", "--max_length", "100"]);
    assert!((wrapped[0][0] - alone[0][0]).abs() > 1e-4 * alone[0][0], "`wrapped` lets texts see each other");
}

/// What follows the policy is not where it was at the start
#[test]
fn a_reference_that_follows_resumes_exactly() {
    let folder = tempfile::tempdir().unwrap();
    for (recipe, case) in [("dpo", "dpo.yaml"), ("kto", "dpo.yaml")] {
        let config = folder.path().join(format!("{recipe}.yaml"));
        let text_of_case = fs::read_to_string(Path::new(GOLDENS).join(case)).unwrap();
        let following = "sync_ref_model: true\nref_model_sync_steps: 3\nref_model_mixup_alpha: 0.7\n";
        fs::write(&config, format!("{text_of_case}{following}").replace("save_strategy: 'no'", "save_steps: 5"))
            .unwrap();
        let out = folder.path().join(recipe);
        let flags = ["--config", text(&config)];
        train(recipe, &out, &flags);
        let whole = (bytes(&out.join("model.safetensors")), untimed(&out));
        let checkpoint = out.join("checkpoint-5");
        assert!(checkpoint.join("reference.safetensors").is_file(), "{recipe}");
        train(recipe, &out, &[&flags[..], &["--resume_from_checkpoint", text(&checkpoint)]].concat());
        assert!(whole == (bytes(&out.join("model.safetensors")), untimed(&out)), "{recipe}: the resumed run differs");
    }
}

#[test]
fn the_order_within_a_batch_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    for case in ["sft_prompt_in_loss", "sft_text", "dpo"] {
        let (recipe, config) = (case.split('_').next().unwrap(), config(case));
        let file = match case {
            "dpo" => "preference.jsonl",
            "sft_text" => "text.jsonl",
            _ => "prompted.jsonl",
        };
        let original = fs::read_to_string(Path::new(GOLDENS).join(file)).unwrap();
        let lines: Vec<&str> = original.lines().collect();
        let turned: Vec<&str> = lines.chunks(5).flat_map(|batch| batch.iter().rev().copied()).collect();
        let path = folder.path().join(file);
        fs::write(&path, turned.join("\n")).unwrap();
        let of = |rows: &str| {
            let flags = ["--per_device_train_batch_size", "5", "--learning_rate", "1e-4", "--dataset_name", rows];
            curve(recipe, &[&["--config", &config][..], &flags].concat())
        };
        assert_close(case, &of(text(&path)), &of(file));
    }
}

/// Everything that draws random numbers: order, dropout, and the weights themselves
const RANDOM: [&str; 14] = [
    "--report_to",
    "none",
    "--max_steps",
    "3",
    "--logging_steps",
    "1",
    "--learning_rate",
    "1e-3",
    "--disable_dropout",
    "false",
    "--from_scratch",
    "true",
    "--save_strategy",
    "no",
];

fn random_run(recipe: &str, model: &Path, out: &Path, more: &[&str]) {
    let rows = if recipe == "dpo" { "preference.jsonl" } else { "text.jsonl" };
    let flags = ["--model_name_or_path", text(model), "--dataset_name", rows];
    train(recipe, out, &[&flags, &RANDOM[..], more].concat());
}

/// Wide enough that sums are worth splitting among threads
fn wide_model(folder: &Path) -> std::path::PathBuf {
    let dropout = ["attn_pdrop", "embd_pdrop", "resid_pdrop"].map(|name| (name, json!(0.1)));
    model(folder, &[&dropout[..], &[("n_embd", json!(256)), ("n_head", json!(4))]].concat())
}

#[test]
fn the_same_seed_gives_the_same_bytes_on_any_number_of_threads() {
    let folder = tempfile::tempdir().unwrap();
    let model = wide_model(folder.path());
    for recipe in ["sft", "dpo"] {
        let run = |name: &str, more: &[&str]| {
            let out = folder.path().join(format!("{recipe}-{name}"));
            random_run(recipe, &model, &out, more);
            (bytes(&out.join("model.safetensors")), untimed(&out))
        };
        let one = run("one", &["--threads", "1"]);
        assert!(one == run("again", &["--threads", "1"]), "{recipe}: a second run differs");
        // More than is promised: work is split by size and never by the number of threads
        assert!(one == run("two", &["--threads", "2"]), "{recipe}: two threads differ from one");
        assert!(one == run("five", &["--threads", "5"]), "{recipe}: five threads differ from one");
        assert!(one.0 != run("seed", &["--seed", "7"]).0, "{recipe}: the seed changes nothing");
    }
}

const MODEL_FILES: [&str; 6] = [
    "chat_template.jinja",
    "config.json",
    "generation_config.json",
    "model.safetensors",
    "tokenizer.json",
    "tokenizer_config.json",
];

#[test]
fn a_run_folder_holds_what_is_promised_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("new/run");
    let flags = ["--config", "dpo.yaml", "--report_to", "tensorboard", "--save_strategy", "steps", "--save_steps", "5"];
    train("dpo", &out, &[&flags[..], &["--save_total_limit", "2"]].concat());
    let mut expected: Vec<&str> = MODEL_FILES.to_vec();
    expected.extend(["checkpoint-10", "checkpoint-12", "config.yaml", "manifest.json", "metrics.jsonl", "runs"]);
    expected.push("summary.json");
    expected.sort_unstable();
    assert_eq!(listing(&out), expected);

    let mut expected: Vec<&str> = MODEL_FILES.to_vec();
    expected.extend(["checksums.txt", "optimizer.safetensors", "trainer_state.json"]);
    expected.sort_unstable();
    assert_eq!(listing(&out.join("checkpoint-12")), expected);
    for name in MODEL_FILES {
        assert_eq!(bytes(&out.join(name)), bytes(&out.join("checkpoint-12").join(name)), "{name}");
    }
    let events = listing(&out.join("runs"));
    assert!(events.len() == 1 && events[0].starts_with("events.out.tfevents."), "{events:?}");

    let manifest = training::json(&out.join("manifest.json"));
    let start = &manifest["starts"][0];
    assert_eq!(start["exit"], json!({ "code": 0 }));
    assert_eq!((&start["seed"], &start["resumed_from_step"]), (&json!(42), &Value::Null));
    assert_eq!(start["command"][1], "dpo");
    let read: Vec<&String> = start["sha256"].as_object().unwrap().keys().collect();
    for name in ["config.json", "model.safetensors", "tokenizer.json", "preference.jsonl"] {
        assert!(read.iter().any(|path| path.ends_with(name)), "{name} is not among {read:?}");
    }
    let times: Vec<f64> = rows(&out).iter().map(|row| number(row, "time/since_start")).collect();
    assert!(times[0] > 1e-4 && times.is_sorted(), "{times:?}");
}

#[test]
fn the_resolved_config_repeats_the_run() {
    let folder = tempfile::tempdir().unwrap();
    for case in ["sft_completion", "dpo_truncated_eval"] {
        let recipe = case.split('_').next().unwrap();
        let [first, second] = ["first", "second"].map(|name| folder.path().join(format!("{case}-{name}")));
        let flags = ["--config", &config(case), "--train_sampling_strategy", "random", "--seed", "3"];
        train(recipe, &first, &[&flags[..], &["--weight_decay", "0.1"]].concat());
        train(recipe, &second, &["--config", text(&first.join("config.yaml"))]);
        assert_eq!(untimed(&first), untimed(&second), "{case}");
        assert!(bytes(&first.join("model.safetensors")) == bytes(&second.join("model.safetensors")), "{case}");
        let resolved = |out: &Path| fs::read_to_string(out.join("config.yaml")).unwrap();
        assert_eq!(resolved(&first).replace(text(&first), "OUT"), resolved(&second).replace(text(&second), "OUT"));
    }
}

#[test]
fn few_rows_are_learnt_by_heart() {
    let folder = tempfile::tempdir().unwrap();
    let few = |file: &str| {
        let original = fs::read_to_string(Path::new(GOLDENS).join(file)).unwrap();
        let path = folder.path().join(file);
        fs::write(&path, original.lines().take(4).collect::<Vec<_>>().join("\n")).unwrap();
        path
    };
    let last = |case: &str, steps: &str, rows_file: &Path| {
        let (recipe, out) = (case.split('_').next().unwrap(), folder.path().join(case));
        let flags = ["--config", &config(case), "--dataset_name", text(rows_file), "--max_steps", steps];
        let more = ["--per_device_train_batch_size", "4", "--learning_rate", "1e-2", "--lr_scheduler_type", "constant"];
        train(recipe, &out, &[&flags[..], &more].concat());
        rows(&out)
    };
    let sft = last("sft_prompt_in_loss", "80", &few("prompted.jsonl"));
    // A text's first token is in the divisor but cannot be learnt: what is left tends to 0
    assert!(number(&sft[0], "loss") > 4.0 && number(sft.last().unwrap(), "loss") < 0.1, "{:?}", sft.last());
    assert!(number(sft.last().unwrap(), "mean_token_accuracy") > 0.9, "{:?}", sft.last());
    let dpo = last("dpo", "20", &few("preference.jsonl"));
    let end = dpo.last().unwrap();
    assert_eq!(number(&dpo[0], "rewards/accuracies"), 0.0);
    assert!(number(end, "rewards/accuracies") == 1.0 && number(end, "loss") < 0.01, "{end:?}");
}

#[test]
fn bfloat16_products_stay_near_f32() {
    let folder = tempfile::tempdir().unwrap();
    for case in ["sft_text", "dpo"] {
        let recipe = case.split('_').next().unwrap();
        let curve = |bf16: &str| {
            let out = folder.path().join(format!("{case}-{bf16}"));
            train(recipe, &out, &["--config", &config(case), "--bf16", bf16]);
            rows(&out).iter().map(|row| number(row, "loss")).collect::<Vec<_>>()
        };
        let (full, rounded) = (curve("false"), curve("true"));
        if collimate::ops::kernels::bf16_supported() {
            assert_ne!(full, rounded, "{case}: `bf16` has an effect");
        }
        for (step, (full, rounded)) in full.iter().zip(&rounded).enumerate() {
            // A preference loss near 0 is a difference of large sums; 1 % is of the loss at the start
            assert!((full - rounded).abs() < 0.01 * full.max(0.7), "{case} step {step}: {rounded}, f32 {full}");
        }
    }
}

#[test]
fn kept_reference_log_probabilities_change_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let cache = folder.path().join("cache");
    let run = |name: &str, more: &[&str]| {
        let out = folder.path().join(name);
        train("dpo", &out, &[&["--config", &config("dpo"), "--precompute_ref_log_probs", "true"], more].concat());
        (bytes(&out.join("model.safetensors")), untimed(&out))
    };
    let plain = run("plain", &[]);
    let caching = ["--cache_dir", text(&cache)];
    let kept = |kind: &str| listing(&cache).iter().filter(|name| name.starts_with(kind)).count();
    assert_eq!(run("first", &caching), plain);
    assert_eq!((kept("reference-"), kept("tokens-")), (1, 1));
    assert_eq!(run("second", &caching), plain, "from the file that the first run wrote");
    run("other", &[&caching[..], &["--max_length", "30"]].concat());
    assert_eq!((kept("reference-"), kept("tokens-")), (2, 2), "other tokens have files of their own");
}

#[test]
fn kept_tokens_change_nothing() {
    for (recipe, rows) in [("sft", "text"), ("dpo", "preference"), ("reward", "implicit"), ("kto", "unpaired")] {
        let folder = tempfile::tempdir().unwrap();
        let (cache, data) = (folder.path().join("cache"), folder.path().join("rows.jsonl"));
        fs::copy(Path::new(GOLDENS).join(format!("{rows}.jsonl")), &data).unwrap();
        let run = |name: &str, more: &[&str]| {
            let (out, name) = (folder.path().join(name), "model");
            let words = ["--model_name_or_path", name, "--dataset_name", text(&data), "--max_steps", "3"];
            let words = [&[recipe, "--output_dir", text(&out), "--per_device_train_batch_size", "4"], &words[..], more];
            let outcome = training::outcome(training::command(&words.concat()));
            assert_eq!(outcome.code, Some(0), "{recipe}: {}", outcome.stderr);
            let manifest = training::json(&out.join("manifest.json"));
            (bytes(&out.join("model.safetensors")), manifest["starts"][0]["rows"].clone(), outcome.stderr)
        };
        let told = |stderr: &str| stderr.contains("tokenised rows of");
        let caching = ["--cache_dir", text(&cache)];
        let (plain, first, second) = (run("plain", &[]), run("first", &caching), run("second", &caching));
        assert_eq!([&first.0, &second.0], [&plain.0; 2], "{recipe}");
        assert_eq!([&first.1, &second.1], [&plain.1; 2], "{recipe}: the account of the rows");
        assert_eq!([told(&plain.2), told(&first.2), told(&second.2)], [false, false, true], "{recipe}");
        let other = fs::read_to_string(&data).unwrap();
        fs::write(&data, other.split_once('\n').unwrap().1).unwrap();
        assert!(!told(&run("third", &caching).2), "{recipe}: another file under the same name");
    }
}

#[test]
fn the_configs_that_ship_run_as_they_are() {
    let folder = tempfile::tempdir().unwrap();
    let (sft, dpo) = (folder.path().join("sft"), folder.path().join("dpo"));
    let run = |recipe: &str, out: &Path, more: &[&str]| {
        let path = format!("configs/{recipe}.yaml");
        let mut command = training::command(&[&[recipe, "--config", &path, "--output_dir", text(out)], more].concat());
        command.current_dir(env!("CARGO_MANIFEST_DIR"));
        let outcome = training::outcome(command);
        assert_eq!(outcome.code, Some(0), "{}", outcome.stderr);
        training::json(&out.join("summary.json"))
    };
    let summary = run("sft", &sft, &[]);
    let loss = summary["eval_loss"].as_f64().unwrap();
    assert!((loss - 1.0).abs() < 0.05, "the config promises an eval_loss of 1.00: {loss}");
    let start = ["--model_name_or_path", text(&sft)];
    let summary = run("dpo", &dpo, &start);
    let accuracy = summary["eval_rewards/accuracies"].as_f64().unwrap();
    assert!((accuracy - 0.88).abs() < 0.05, "the config promises an accuracy of 0.88: {accuracy}");
    for (recipe, start, name, promised) in [
        ("kto", &start[..], "eval_rewards/margins", 1.35),
        ("orpo", &[], "eval_rewards/accuracies", 0.79),
        ("cpo", &start, "eval_rewards/accuracies", 0.73),
    ] {
        let summary = run(recipe, &folder.path().join(recipe), start);
        let found = summary[name].as_f64().unwrap();
        assert!((found - promised).abs() < 0.05 * promised.max(1.0), "{recipe} promises {name} {promised}: {found}");
    }
}
