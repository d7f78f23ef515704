//! A run that is killed or stopped at any moment and resumed ends like one that was left alone, byte for byte.
//!
//! The runs have everything that a resume can get wrong: random order, dropout, accumulation, evaluation, a logging
//! window across checkpoints, old checkpoints that go.

#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test, in helpers too")]
#![cfg(unix)]

#[path = "common/training.rs"]
mod training;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;
use training::{Row, bytes, is_eval, listing, model, number, rows, text, train, untimed};

const STEPS: u64 = 50;

/// A recipe, its flags, and what comes of it when nothing happens
struct Case {
    folder: TempDir,
    recipe: &'static str,
    flags: Vec<String>,
}

impl Case {
    fn new(recipe: &'static str, more: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let dropout = ["attn_pdrop", "embd_pdrop", "resid_pdrop"].map(|name| (name, json!(0.1)));
        let model = model(folder.path(), &dropout);
        let rows = if recipe == "sft" { "prompted.jsonl" } else { "preference.jsonl" };
        let flags = format!(
            "--model_name_or_path {} --dataset_name {rows} --eval_dataset {rows} --disable_dropout false --seed 11 \
             --per_device_train_batch_size 2 --gradient_accumulation_steps 2 --max_steps {STEPS} --learning_rate 1e-3 \
             --logging_steps 4 --save_steps 3 --save_total_limit 2 --eval_strategy steps --eval_steps 5",
            text(&model)
        );
        let flags = flags.split(' ').chain(more.iter().copied()).map(str::to_owned).collect();
        let case = Self { folder, recipe, flags };
        train(recipe, &case.undisturbed(), &case.flags());
        case
    }

    /// The three ways to hold a policy to something, or to nothing; and a model with another head
    fn all() -> [Self; 4] {
        let precomputed = ["--precompute_ref_log_probs", "true"];
        [Self::new("sft", &[]), Self::new("dpo", &[]), Self::new("dpo", &precomputed), Self::new("reward", &[])]
    }

    fn flags(&self) -> Vec<&str> {
        self.flags.iter().map(String::as_str).collect()
    }

    fn undisturbed(&self) -> PathBuf {
        self.folder.path().join("undisturbed")
    }

    fn out(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A start that goes on from the newest checkpoint, if there is one
    fn spawn(&self, out: &Path, more: &[&str]) -> Child {
        let words = [self.recipe, "--output_dir", text(out), "--resume_from_checkpoint", "true"];
        training::command(&[&words, &self.flags()[..], more].concat()).spawn().unwrap()
    }

    /// The last start, which nobody disturbs
    fn finish(&self, out: &Path) {
        let newest = newest_checkpoint(out);
        train(self.recipe, out, &[&self.flags()[..], &["--resume_from_checkpoint", "true"]].concat());
        assert_eq!(starts(out).last().unwrap()["resumed_from_step"], json!(newest), "in {}", out.display());
        assert_eq!(starts(out).last().unwrap()["exit"], json!({ "code": 0 }));
        self.assert_like_undisturbed(out);
    }

    fn assert_like_undisturbed(&self, out: &Path) {
        let undisturbed = self.undisturbed();
        assert_eq!(untimed(out), untimed(&undisturbed), "{} {:?}", self.recipe, self.flags);
        let last = format!("checkpoint-{STEPS}");
        for name in
            ["model.safetensors", &format!("{last}/model.safetensors"), &format!("{last}/optimizer.safetensors")]
        {
            assert!(bytes(&out.join(name)) == bytes(&undisturbed.join(name)), "{}: `{name}` differs", self.recipe);
        }
        let summaries = [out, &undisturbed].map(|folder| {
            let mut summary = training::json(&folder.join("summary.json"));
            let object = summary.as_object_mut().unwrap();
            object.retain(|name, _| !name.contains("runtime") && !name.contains("per_second"));
            summary
        });
        assert_eq!(summaries[0], summaries[1]);
        let of_a_run = |folder: &Path| -> Vec<String> {
            listing(folder).into_iter().filter(|name| !name.ends_with(".superseded")).collect()
        };
        assert_eq!(of_a_run(out), of_a_run(&undisturbed), "no leftovers, no other checkpoints");
    }
}

fn newest_checkpoint(out: &Path) -> Option<u64> {
    let steps = fs::read_dir(out).ok()?.filter_map(|entry| {
        let name = entry.ok()?.file_name().into_string().ok()?;
        name.strip_prefix("checkpoint-")?.parse().ok()
    });
    steps.max()
}

fn starts(out: &Path) -> Vec<Value> {
    training::json(&out.join("manifest.json"))["starts"].as_array().unwrap().clone()
}

fn last_step(out: &Path) -> u64 {
    rows(out).last().map_or(0, |row| number(row, "step") as u64)
}

/// Waits for something to happen in a run; false where the run ended before it was seen
fn wait_for(child: &mut Child, mut what: impl FnMut() -> bool) -> bool {
    let begin = Instant::now();
    loop {
        if what() {
            return true;
        }
        if child.try_wait().unwrap().is_some() {
            return false;
        }
        assert!(begin.elapsed() < Duration::from_secs(60), "nothing happens");
        std::thread::sleep(Duration::from_micros(200));
    }
}

fn kill(mut child: Child) {
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn killed_after_some_checkpoints_the_run_goes_on_from_the_newest() {
    for case in Case::all() {
        let out = case.out("killed");
        let mut expected: Option<u64> = None;
        for goal in [3, 15, 30] {
            let mut child = case.spawn(&out, &[]);
            let seen = wait_for(&mut child, || newest_checkpoint(&out) >= Some(goal));
            kill(child);
            assert!(seen, "the run ended before checkpoint {goal}");
            assert_eq!(starts(&out).last().unwrap()["resumed_from_step"], json!(expected));
            expected = newest_checkpoint(&out);
        }
        case.finish(&out);
        assert_eq!(starts(&out).len(), 4);
        assert!(starts(&out)[..3].iter().all(|start| start.get("exit").is_none()), "a killed start has no exit");
    }
}

#[test]
fn killed_in_the_middle_of_a_logging_window_no_row_is_lost_or_doubled() {
    for case in Case::all() {
        let out = case.out("killed");
        // Rows come at 4, 8, 12 ... and checkpoints at 3, 6, 9 ...: each kill takes back rows, steps, or both
        for goal in [8, 20, 36] {
            let mut child = case.spawn(&out, &[]);
            wait_for(&mut child, || last_step(&out) >= goal);
            kill(child);
        }
        case.finish(&out);
        let steps: Vec<f64> = rows(&out).iter().filter(|row| !is_eval(row)).map(|row| number(row, "step")).collect();
        assert!(steps.iter().zip(1..).all(|(step, i)| *step == f64::from(4 * i)), "{steps:?}");
    }
}

#[test]
fn killed_at_any_moment_the_run_resumes() {
    // Delays from the loading of the program to far into the run, in an order without order
    let delays = (1..=14_u64).map(|i| Duration::from_millis(10 + i * 7919 % 140));
    let cases = Case::all();
    for (i, delay) in delays.enumerate() {
        let case = &cases[i % cases.len()];
        let out = case.out("killed");
        let child = case.spawn(&out, &[]);
        std::thread::sleep(delay);
        kill(child);
    }
    for case in &cases {
        case.finish(&case.out("killed"));
    }
}

#[test]
fn killed_while_a_checkpoint_is_written_the_half_of_it_is_not_taken() {
    for case in Case::all() {
        let out = case.out("killed");
        let half_written =
            || listing(&out).into_iter().any(|name| name.starts_with("checkpoint-") && name.contains(".partial-"));
        let mut caught = 0;
        while caught < 3 {
            let mut child = case.spawn(&out, &[]);
            let seen = wait_for(&mut child, || out.is_dir() && half_written());
            kill(child);
            if !seen {
                // Only a run at its end has no checkpoint left to write
                assert_eq!(newest_checkpoint(&out), Some(STEPS));
                println!("skipped: {caught} of 3 kills in time, this machine writes too fast");
                break;
            }
            caught += usize::from(half_written());
        }
        case.finish(&out);
    }
}

/// Sends a signal; the exit code and what stderr says
fn signalled(child: Child, signal: &str) -> (Option<i32>, String) {
    let pid = child.id().to_string();
    assert!(Command::new("kill").args([signal, &pid]).status().unwrap().success());
    let output = child.wait_with_output().unwrap();
    (output.status.code(), String::from_utf8(output.stderr).unwrap())
}

#[test]
fn stopped_by_a_signal_the_run_keeps_its_last_step() {
    for case in Case::all() {
        for (signal, name, code) in [("-INT", "SIGINT", 130), ("-TERM", "SIGTERM", 143)] {
            let out = case.out(name);
            // No checkpoint but the one that the signal asks for
            let sparse = ["--save_steps", "1000"];
            let mut child = case.spawn(&out, &sparse);
            assert!(wait_for(&mut child, || last_step(&out) >= 8));
            let (found, stderr) = signalled(child, signal);
            assert_eq!(found, Some(code), "{stderr}");
            let step = newest_checkpoint(&out).expect("a checkpoint");
            assert!(step >= 8 && step >= last_step(&out), "{step}");
            assert!(stderr.contains(&format!("error: stopped by {name} after step {step}\n")), "{stderr}");
            assert!(stderr.contains("hint: the same command with `--resume_from_checkpoint true`"), "{stderr}");
            assert!(!out.join("summary.json").exists() && !out.join("model.safetensors").exists());
            let exit = &starts(&out)[0]["exit"];
            assert_eq!((&exit["code"], exit["signal"].is_u64()), (&json!(code), true));
            case.finish(&out);
        }
    }
}

#[test]
fn an_evaluation_that_a_signal_broke_off_is_made_up_for() {
    let mut case = Case::new("sft", &[]);
    // Row by row an evaluation takes longer than all that lies between two
    let long = case.out("long.jsonl");
    let rows_of = Path::new(training::GOLDENS).join("prompted.jsonl");
    fs::write(&long, fs::read_to_string(rows_of).unwrap().repeat(8)).unwrap();
    let more = ["--eval_dataset", text(&long), "--per_device_eval_batch_size", "1", "--logging_steps", "5"];
    case.flags.extend(more.map(str::to_owned));
    fs::remove_dir_all(case.undisturbed()).unwrap();
    train(case.recipe, &case.undisturbed(), &case.flags());

    let out = case.out("stopped");
    for goal in [10, 25] {
        let mut child = case.spawn(&out, &[]);
        // The row of a step is written right before its evaluation begins
        assert!(wait_for(&mut child, || rows(&out).iter().any(|row| !is_eval(row) && row["step"] == json!(goal))));
        let (code, stderr) = signalled(child, "-TERM");
        assert_eq!(code, Some(143), "{stderr}");
        let evaluated = |row: &Row| is_eval(row) && row["step"] == json!(goal);
        assert!(!rows(&out).iter().any(evaluated), "the signal came too late for this test");
        assert_eq!(newest_checkpoint(&out), Some(goal));
    }
    // Once more, killed after the evaluation was made up for and before the next checkpoint
    let mut child = case.spawn(&out, &[]);
    wait_for(&mut child, || rows(&out).iter().any(|row| is_eval(row) && row["step"] == json!(25)));
    kill(child);
    case.finish(&out);
}

#[test]
fn a_named_checkpoint_is_where_the_run_goes_on() {
    for case in Case::all() {
        let copy = case.out("named");
        train(case.recipe, &copy, &[&case.flags()[..], &["--save_total_limit", "100"]].concat());
        let checkpoint = copy.join("checkpoint-21");
        // In its own folder the run is taken back to that step
        let named = ["--resume_from_checkpoint", text(&checkpoint)];
        train(case.recipe, &copy, &[&case.flags()[..], &named].concat());
        case.assert_like_undisturbed(&copy);
        assert!(copy.join("checkpoint-24.superseded").is_dir(), "what was there is set aside, not lost");
        assert_eq!(starts(&copy)[1]["resumed_from_step"], json!(21));
        // In another one it is a run that begins there
        let elsewhere = case.out("elsewhere");
        let checkpoint = case.undisturbed().join("checkpoint-48");
        train(case.recipe, &elsewhere, &[&case.flags()[..], &["--resume_from_checkpoint", text(&checkpoint)]].concat());
        let name = "model.safetensors";
        assert!(bytes(&elsewhere.join(name)) == bytes(&case.undisturbed().join(name)));
        let later: Vec<Row> =
            untimed(&case.undisturbed()).into_iter().filter(|row| row["step"].as_u64() > Some(48)).collect();
        assert_eq!(untimed(&elsewhere), later);
    }
}

#[test]
fn killed_before_its_first_row_the_run_begins_anew() {
    let case = Case::new("sft", &[]);
    // What a start has written by then, one file after the other
    for written in [&[][..], &["manifest.json"], &["manifest.json", "config.yaml"]] {
        let out = case.out(&written.len().to_string());
        fs::create_dir(&out).unwrap();
        for name in written {
            fs::copy(case.undisturbed().join(name), out.join(name)).unwrap();
        }
        fs::write(out.join("config.yaml.partial-Ab3xYz"), "half").unwrap();
        case.finish(&out);
    }
}

#[test]
fn killed_after_its_last_step_the_run_only_ends() {
    let case = Case::new("sft", &[]);
    let out = case.out("copy");
    train(case.recipe, &out, &case.flags());
    for name in ["summary.json", "model.safetensors"] {
        fs::remove_file(out.join(name)).unwrap();
    }
    case.finish(&out);
}
