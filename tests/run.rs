//! The run folder from outside: kills, damage, full disks, second runs.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use collimate::run::metrics::{self, Window};
use collimate::run::{Checkpoint, Manifest, Metrics, MetricsWriter, OpenMode, Resume, RunFolder, Slice, Start, names};
use proptest::prelude::*;
use serde_json::json;

fn settings(cases: u32) -> ProptestConfig {
    ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() }
}

fn fresh() -> OpenMode {
    OpenMode::default()
}

fn newest() -> OpenMode {
    OpenMode { resume: Some(Resume::Newest), ..fresh() }
}

fn from(path: impl Into<PathBuf>) -> OpenMode {
    OpenMode { resume: Some(Resume::From(path.into())), ..fresh() }
}

fn overwrite() -> OpenMode {
    OpenMode { overwrite: true, ..fresh() }
}

fn begin(path: &Path, mode: &OpenMode) -> (RunFolder, Option<Checkpoint>) {
    RunFolder::open(path, mode).unwrap().begin().unwrap()
}

fn listing(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        fs::read_dir(folder).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn loss(x: f64) -> Metrics {
    [("loss", x)].into_iter().collect()
}

fn save(run: &RunFolder, step: u64, marker: f32) {
    let writer = run.new_checkpoint(step).unwrap();
    fs::write(writer.path().join("model.safetensors"), marker.to_le_bytes()).unwrap();
    writer.write_tensors("optimizer.safetensors", [("m", Slice::flat(&[marker, 2.0]))]).unwrap();
    writer.write_state(&json!({ "marker": marker })).unwrap();
    writer.publish().unwrap();
}

/// A run of `steps` steps with a row a step and a checkpoint every tenth
fn run_to(path: &Path, mode: &OpenMode, steps: u64, marker: f32) {
    let (run, checkpoint) = begin(path, mode);
    let mut metrics = run.metrics().unwrap();
    let mut events = run.events().unwrap();
    for step in checkpoint.map_or(0, |c| c.step()) + 1..=steps {
        metrics.write(step, step as f64 / 100.0, &loss(f64::from(marker) + step as f64)).unwrap();
        events.write(step, step as f64 / 100.0, &loss(f64::from(marker))).unwrap();
        if step % 5 == 0 {
            fs::write(run.completions(step).unwrap(), "").unwrap();
        }
        if step % 10 == 0 {
            save(&run, step, marker);
        }
    }
}

fn steps_logged(path: &Path) -> Vec<u64> {
    metrics::read(&path.join(names::METRICS)).unwrap().iter().map(|row| row.step).collect()
}

proptest! {
    // Each case tries every byte, with a file brought to disk for each
    #![proptest_config(settings(4))]

    #[test]
    fn a_torn_metrics_file_resumes_at_every_byte(
        values in prop::collection::vec(any::<f64>(), 1..6),
        eval_every in 1_u64..4,
        keep in 0_u64..7,
    ) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("metrics.jsonl");
        let mut writer = MetricsWriter::open(&path).unwrap();
        for (step, &value) in (1..).zip(&values) {
            writer.write(step, value, &loss(value)).unwrap();
            if step % eval_every == 0 {
                writer.write(step, value, &loss(value).into_eval()).unwrap();
            }
        }
        let whole = fs::read(&path).unwrap();
        for torn_at in 0..=whole.len() {
            fs::write(&path, &whole[..torn_at]).unwrap();
            metrics::truncate_after(&path, keep).unwrap();
            let kept = fs::read(&path).unwrap();
            prop_assert!(whole.starts_with(&kept), "rows that stay are the same bytes");
            prop_assert!(kept.is_empty() || kept.ends_with(b"\n"));
            let rows = metrics::read(&path).unwrap();
            prop_assert!(rows.iter().all(|row| row.step <= keep));
            // Every row that was whole before the tear (its line end may be missing) and is old enough is still there
            let whole_rows = whole.split_inclusive(|&b| b == b'\n').scan(0, |end, line| {
                *end += line.len();
                Some((*end - 1, serde_json::from_slice::<serde_json::Value>(line).unwrap()["step"].as_u64().unwrap()))
            });
            let expected = whole_rows.filter(|&(end, step)| end <= torn_at && step <= keep).count();
            prop_assert_eq!(rows.len(), expected);
            // And the next row is read back
            MetricsWriter::open(&path).unwrap().write(100, 1.0, &loss(1.0)).unwrap();
            prop_assert_eq!(metrics::read(&path).unwrap().len(), expected + 1);
        }
    }
}

proptest! {
    #![proptest_config(settings(12))]

    #[test]
    fn a_window_survives_a_checkpoint_to_the_bit(values in prop::collection::vec(any::<f64>(), 1..40), cut in 0_usize..40) {
        let folder = tempfile::tempdir().unwrap();
        let (run, _) = begin(folder.path(), &fresh());
        let (mut straight, mut resumed) = (Window::new(), Window::new());
        for (i, &value) in values.iter().enumerate() {
            if i == cut {
                let writer = run.new_checkpoint(1).unwrap();
                writer.write_state(&resumed).unwrap();
                resumed = Checkpoint::open(writer.publish().unwrap()).unwrap().state().unwrap();
            }
            for window in [&mut straight, &mut resumed] {
                window.add("loss", value);
                window.add_ratio("tokens_per_second", value, 0.1);
            }
        }
        let bits = |window: &Window| window.means().iter().map(|(n, x)| (n.to_owned(), x.to_bits())).collect::<Vec<_>>();
        prop_assert_eq!(bits(&straight), bits(&resumed));
    }

    #[test]
    fn floats_in_the_state_come_back_to_the_bit(values in prop::collection::vec(prop::num::f64::NORMAL | prop::num::f64::SUBNORMAL | prop::num::f64::ZERO, 1..50)) {
        let folder = tempfile::tempdir().unwrap();
        let (run, _) = begin(folder.path(), &fresh());
        let writer = run.new_checkpoint(1).unwrap();
        writer.write_state(&values).unwrap();
        let back: Vec<f64> = Checkpoint::open(writer.publish().unwrap()).unwrap().state().unwrap();
        prop_assert!(values.iter().zip(&back).all(|(a, b)| a.to_bits() == b.to_bits()));
    }

    #[test]
    fn tensors_come_back_to_the_bit(floats in prop::collection::vec(any::<u32>(), 0..64), words in prop::collection::vec(any::<u64>(), 0..8)) {
        let folder = tempfile::tempdir().unwrap();
        let floats: Vec<f32> = floats.into_iter().map(f32::from_bits).collect();
        let (run, _) = begin(folder.path(), &fresh());
        let writer = run.new_checkpoint(7).unwrap();
        let shape = [1, floats.len(), 1];
        writer.write_tensors("t.safetensors", [("f", Slice::shaped(&shape, &floats)), ("rng", Slice::flat(&words))]).unwrap();
        writer.write_state(&()).unwrap();
        let checkpoint = Checkpoint::open(writer.publish().unwrap()).unwrap();
        let mut file = checkpoint.tensors("t.safetensors").unwrap();
        let back: Vec<f32> = file.read("f").unwrap();
        prop_assert!(back.iter().zip(&floats).all(|(a, b)| a.to_bits() == b.to_bits()));
        prop_assert_eq!((back.len(), file.shape("f").unwrap()), (floats.len(), &shape[..]));
        prop_assert_eq!(file.read::<u64>("rng").unwrap(), words);
        prop_assert!(file.read::<f64>("f").is_err() || floats.is_empty());
        prop_assert!(file.read::<f32>("absent").is_err());
    }

    #[test]
    fn rotation_keeps_the_newest(steps in prop::collection::btree_set(1_u64..2000, 1..8), limit in prop::option::of(0_usize..5)) {
        let folder = tempfile::tempdir().unwrap();
        let (run, _) = begin(folder.path(), &fresh());
        fs::create_dir(folder.path().join("checkpoint-best")).unwrap();
        for &step in &steps {
            save(&run, step, 1.0);
            run.rotate(limit).unwrap();
        }
        let keep = limit.filter(|&limit| limit > 0).unwrap_or(usize::MAX).min(steps.len());
        let expected: Vec<u64> = steps.into_iter().rev().take(keep).rev().collect();
        let left: Vec<u64> = run.checkpoints().unwrap().into_iter().map(|(step, _)| step).collect();
        prop_assert_eq!(left, expected);
        prop_assert_eq!(listing(folder.path()).len(), keep + 1, "nothing but checkpoints and the foreign folder");
    }
}

#[test]
fn a_checkpoint_with_any_byte_changed_or_missing_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let (run, _) = begin(folder.path(), &fresh());
    let writer = run.new_checkpoint(3).unwrap();
    fs::create_dir(writer.path().join("reward")).unwrap();
    for (name, content) in [("model.safetensors", "weights"), ("reward/config.json", "{}"), ("empty", "")] {
        fs::write(writer.path().join(name), content).unwrap();
    }
    writer.write_state(&json!({ "epoch": 0.5 })).unwrap();
    let path = writer.publish().unwrap();
    assert_eq!(Checkpoint::open(&path).unwrap().step(), 3);

    let files = ["model.safetensors", "reward/config.json", "trainer_state.json", "checksums.txt"];
    for file in files.map(|name| path.join(name)) {
        let content = fs::read(&file).unwrap();
        let refused = |what: &str| {
            let error = Checkpoint::open(&path).expect_err(&format!("{}: {what}", file.display()));
            assert_eq!(error.exit_code(), 2);
            assert!(error.message().contains("damaged"), "{error}");
        };
        for i in 0..content.len() {
            fs::write(&file, &content[..i]).unwrap();
            refused(&format!("cut to {i} bytes"));
            let mut altered = content.clone();
            for bit in 0..8 {
                altered[i] = content[i] ^ (1 << bit);
                fs::write(&file, &altered).unwrap();
                refused(&format!("bit {bit} of byte {i} flipped"));
            }
        }
        fs::write(&file, [&content[..], b"x"].concat()).unwrap();
        refused("a byte longer");
        fs::remove_file(&file).unwrap();
        assert!(Checkpoint::open(&path).is_err());
        fs::write(&file, &content).unwrap();
    }
    fs::write(path.join("notes.txt"), "mine").unwrap();
    Checkpoint::open(&path).expect("files that someone adds do no harm");
    fs::remove_file(path.join("empty")).unwrap();
    assert!(Checkpoint::open(&path).unwrap_err().message().contains("`empty`"));
}

#[test]
fn an_unsealed_checkpoint_is_invisible() {
    let folder = tempfile::tempdir().unwrap();
    let (run, _) = begin(folder.path(), &fresh());
    let writer = run.new_checkpoint(10).unwrap();
    writer.write_state(&()).unwrap();
    assert!(run.checkpoints().unwrap().is_empty());
    drop(writer);
    assert!(listing(folder.path()).is_empty());
}

#[test]
fn a_checkpoint_of_the_same_step_is_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let (run, _) = begin(folder.path(), &fresh());
    save(&run, 10, 1.0);
    save(&run, 10, 2.0);
    assert_eq!(listing(folder.path()), ["checkpoint-10"]);
    let checkpoint = Checkpoint::open(folder.path().join("checkpoint-10")).unwrap();
    assert_eq!(checkpoint.tensors("optimizer.safetensors").unwrap().read::<f32>("m").unwrap(), [2.0, 2.0]);
    assert_eq!(checkpoint.state::<serde_json::Value>().unwrap(), json!({ "marker": 2.0 }));
}

#[test]
fn a_second_start_is_refused_with_both_ways_out() {
    let folder = tempfile::tempdir().unwrap();
    run_to(folder.path(), &fresh(), 12, 0.0);
    let before = listing(folder.path());
    let error = RunFolder::open(folder.path(), &fresh()).unwrap_err();
    assert_eq!(error.exit_code(), 2);
    let hint = error.hint_text().unwrap();
    assert!(hint.contains("resume_from_checkpoint") && hint.contains("overwrite_output_dir"));
    assert_eq!(listing(folder.path()), before);
}

#[test]
fn foreign_files_do_no_harm_and_come_to_none() {
    let folder = tempfile::tempdir().unwrap();
    let foreign = ["notes.txt", "runs/events.out.tfevents.1.host.2.0", "completions/mine.parquet", "checkpoint-best/w"];
    for name in foreign {
        fs::create_dir_all(folder.path().join(name).parent().unwrap()).unwrap();
        fs::write(folder.path().join(name), name).unwrap();
    }
    run_to(folder.path(), &fresh(), 20, 0.0);
    let (run, checkpoint) = begin(folder.path(), &overwrite());
    assert!(checkpoint.is_none() && run.resumed_from().is_none());
    for name in foreign {
        assert_eq!(fs::read_to_string(folder.path().join(name)).unwrap(), name);
    }
    assert_eq!(listing(folder.path()), ["checkpoint-best", "completions", "notes.txt", "runs"]);
    assert_eq!(listing(&folder.path().join("runs")).len(), 1);
    assert_eq!(listing(&folder.path().join("completions")), ["mine.parquet"]);
}

#[test]
fn a_model_that_no_run_wrote_is_not_replaced_unasked() {
    let folder = tempfile::tempdir().unwrap();
    let model = folder.path().join("model.safetensors");
    fs::write(&model, "weeks of work").unwrap();
    let error = RunFolder::open(folder.path(), &fresh()).unwrap_err();
    assert!(error.message().contains("model.safetensors"), "{error}");
    let (run, _) = begin(folder.path(), &overwrite());
    assert_eq!(fs::read_to_string(&model).unwrap(), "weeks of work", "it may be the very model to start from");
    run.write_model(|into| {
        fs::write(into.join("model.safetensors"), "new").unwrap();
        Ok(())
    })
    .unwrap();
    assert_eq!(fs::read_to_string(&model).unwrap(), "new");
    assert_eq!(listing(folder.path()), ["model.safetensors"]);
    run.write_model(|_| Err(collimate::Error::run("no"))).unwrap_err();
    assert_eq!(listing(folder.path()), ["model.safetensors"]);
}

#[test]
fn opening_changes_nothing_and_a_refused_request_leaves_no_folder() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a/b");
    drop(RunFolder::open(&path, &fresh()).unwrap());
    assert!(!path.exists());
    run_to(&path, &fresh(), 12, 0.0);
    let before = listing(&path);
    drop(RunFolder::open(&path, &overwrite()).unwrap());
    drop(RunFolder::open(&path, &newest()).unwrap());
    assert_eq!(listing(&path), before);
    assert_eq!(steps_logged(&path).len(), 12);
    let file = folder.path().join("file");
    fs::write(&file, "").unwrap();
    assert_eq!(RunFolder::open(&file, &fresh()).unwrap_err().exit_code(), 2);
}

#[test]
fn a_resume_goes_on_exactly_behind_the_checkpoint() {
    let folder = tempfile::tempdir().unwrap();
    run_to(folder.path(), &fresh(), 17, 0.0);
    let rows = fs::read_to_string(folder.path().join(names::METRICS)).unwrap();
    let up_to_10: String = rows.split_inclusive('\n').take(10).collect();
    fs::write(folder.path().join(names::SUMMARY), "{}").unwrap();

    let (run, checkpoint) = begin(folder.path(), &newest());
    assert_eq!((checkpoint.unwrap().step(), run.resumed_from()), (10, Some(10)));
    assert_eq!(fs::read_to_string(folder.path().join(names::METRICS)).unwrap(), up_to_10);
    assert!(!folder.path().join(names::SUMMARY).exists());
    let left = listing(&folder.path().join(names::COMPLETIONS));
    assert_eq!(left, ["completions_00005.parquet", "completions_00010.parquet"]);
    drop(run);

    run_to(folder.path(), &newest(), 20, 0.0);
    assert_eq!(steps_logged(folder.path()), (1..=20).collect::<Vec<_>>());
    assert_eq!(listing(&folder.path().join(names::EVENTS)).len(), 2);
}

#[test]
fn tensorboard_shows_what_metrics_say() {
    let Some(python) = std::env::var_os("COLLIMATE_PYTHON") else {
        println!("skipped: COLLIMATE_PYTHON names no Python that has tensorboard");
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let mut last_step = 0;
    for (steps, marker) in [(17, 1.0), (24, 2.0), (30, 3.0)] {
        let (run, checkpoint) = begin(folder.path(), &newest());
        let first = checkpoint.map_or(0, |c| c.step());
        assert!(first <= last_step);
        let (mut metrics, mut events) = (run.metrics().unwrap(), run.events().unwrap());
        for step in first + 1..=steps {
            let train: Metrics = [("loss", marker / step as f64), ("rewards/chosen", 0.0)].into_iter().collect();
            let mut rows = vec![train];
            if step % 4 == 0 {
                rows.push([("loss", marker), ("x", f64::NAN)].into_iter().collect::<Metrics>().into_eval());
            }
            for row in &rows {
                metrics.write(step, step as f64 / 10.0, row).unwrap();
                events.write(step, step as f64 / 10.0, row).unwrap();
            }
            if step % 10 == 0 {
                save(&run, step, 0.0);
            }
        }
        // A kill in the middle of a frame
        let mut torn = OpenOptions::new().append(true).open(events.path()).unwrap();
        torn.write_all(&[30, 0, 0, 0, 0, 0, 0, 0, 1, 2]).unwrap();
        last_step = steps;
    }
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/goldens/tensorboard_check.py");
    let output = Command::new(python).arg(script).arg(folder.path()).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    println!("{text}{}", String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{text}");
}

#[test]
fn a_resume_from_an_earlier_checkpoint_sets_the_later_ones_aside() {
    let folder = tempfile::tempdir().unwrap();
    run_to(folder.path(), &fresh(), 30, 1.0);
    let mode = OpenMode { overwrite: true, ..from(folder.path().join("checkpoint-10")) };
    run_to(folder.path(), &mode, 20, 2.0);
    assert_eq!(steps_logged(folder.path()), (1..=20).collect::<Vec<_>>());
    let names = listing(folder.path());
    let checkpoints: Vec<&String> = names.iter().filter(|name| name.starts_with("checkpoint")).collect();
    assert_eq!(checkpoints, ["checkpoint-10", "checkpoint-20", "checkpoint-20.superseded", "checkpoint-30.superseded"]);
    let newest = begin(folder.path(), &newest()).1.unwrap();
    assert_eq!(newest.state::<serde_json::Value>().unwrap(), json!({ "marker": 2.0 }));

    let aside = folder.path().join("checkpoint-30.superseded");
    let mode = OpenMode { overwrite: true, ..from(&aside) };
    assert_eq!(RunFolder::open(folder.path(), &mode).unwrap_err().exit_code(), 2, "overwriting would remove it");
    assert!(aside.exists());
}

#[test]
fn newest_means_newest_complete() {
    let folder = tempfile::tempdir().unwrap();
    run_to(folder.path(), &fresh(), 30, 1.0);
    let damaged = folder.path().join("checkpoint-30/optimizer.safetensors");
    OpenOptions::new().append(true).open(damaged).unwrap().write_all(b"x").unwrap();
    fs::remove_file(folder.path().join("checkpoint-20/checksums.txt")).unwrap();
    fs::create_dir(folder.path().join("checkpoint-40.partial-a1B2c3")).unwrap();
    let (run, checkpoint) = begin(folder.path(), &newest());
    assert_eq!(checkpoint.unwrap().step(), 10);
    assert_eq!(run.checkpoints().unwrap().len(), 1);
    assert!(!folder.path().join("checkpoint-40.partial-a1B2c3").exists());
    assert_eq!(steps_logged(folder.path()).len(), 10);
}

#[test]
fn resuming_a_run_without_checkpoint_begins_anew() {
    let folder = tempfile::tempdir().unwrap();
    run_to(&folder.path().join("new"), &newest(), 3, 0.0);
    run_to(folder.path(), &fresh(), 7, 0.0);
    fs::write(folder.path().join(names::MANIFEST), "{}").unwrap();
    run_to(folder.path(), &newest(), 4, 0.0);
    assert_eq!(steps_logged(folder.path()), [1, 2, 3, 4]);
    assert_eq!(listing(&folder.path().join(names::EVENTS)).len(), 1);
    assert!(folder.path().join(names::MANIFEST).exists(), "the manifest tells of every start");
    assert!(listing(&folder.path().join(names::COMPLETIONS)).is_empty());
}

#[test]
fn a_start_that_failed_before_its_first_row_is_in_nobodys_way() {
    let folder = tempfile::tempdir().unwrap();
    for starts in 1..=3 {
        let (run, _) = begin(folder.path(), &fresh());
        run.metrics().unwrap();
        run.events().unwrap();
        run.write(names::CONFIG, b"").unwrap();
        Manifest::start(run.join(names::MANIFEST), Start::default()).unwrap();
        let manifest: serde_json::Value =
            serde_json::from_slice(&fs::read(run.join(names::MANIFEST)).unwrap()).unwrap();
        assert_eq!(manifest["starts"].as_array().unwrap().len(), starts);
        assert_eq!(listing(&run.join(names::EVENTS)).len(), 1);
    }
}

#[test]
fn a_checkpoint_of_another_folder_starts_a_run_of_its_own() {
    let (old, new) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    run_to(old.path(), &fresh(), 20, 0.0);
    let mode = from(old.path().join("checkpoint-10"));
    run_to(new.path(), &mode, 12, 0.0);
    assert_eq!(steps_logged(new.path()), [11, 12]);
    assert_eq!(steps_logged(old.path()).len(), 20);
    assert_eq!(RunFolder::open(new.path(), &mode).unwrap_err().exit_code(), 2, "by now it holds a run");

    let error = RunFolder::open(new.path(), &from(old.path())).unwrap_err();
    assert!(error.hint_text().unwrap().contains("checkpoint-20"), "{error}");
    let error = RunFolder::open(new.path(), &from(old.path().join("checkpoint-99"))).unwrap_err();
    assert!(error.message().contains("no checkpoint folder"), "{error}");
}

#[test]
fn two_runs_do_not_share_a_folder() {
    let folder = tempfile::tempdir().unwrap();
    let (run, _) = begin(folder.path(), &fresh());
    for mode in [fresh(), newest(), overwrite()] {
        let error = RunFolder::open(folder.path(), &mode).unwrap_err();
        assert_eq!(error.exit_code(), 2);
        assert!(error.message().contains("another run"), "{error}");
    }
    drop(run);
    begin(folder.path(), &fresh());
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_ends_a_metrics_file_with_exit_1() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("metrics.jsonl");
    std::os::unix::fs::symlink("/dev/full", &path).unwrap();
    let error = MetricsWriter::open(&path).unwrap().write(1, 0.1, &loss(1.0)).unwrap_err();
    assert_eq!(error.exit_code(), 1);
    assert!(error.hint_text().unwrap().contains("the disk is full"), "{error}");
}

/// Set in the child processes of the tests below
const CHILD: &str = "COLLIMATE_TEST_CHILD";

fn child_of(test: &str, argument: &Path) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args([test, "--exact", "--test-threads=1", "--nocapture"]).env(CHILD, argument);
    command
}

/// The kernel cuts a write in the middle, as a full disk does, through the limit on file sizes
#[cfg(unix)]
#[test]
fn a_write_that_the_system_cuts_leaves_nothing_behind() {
    if let Some(folder) = std::env::var_os(CHILD).map(PathBuf::from) {
        let big = vec![1.5_f32; 100_000];
        let error = collimate::files::write_bytes(&folder.join("file"), bytemuck::cast_slice(&big)).unwrap_err();
        assert_eq!(error.exit_code(), 1);
        assert!(error.hint_text().is_some(), "{error}");
        let (run, _) = begin(&folder, &fresh());
        let writer = run.new_checkpoint(1).unwrap();
        writer.write_tensors("t.safetensors", [("t", Slice::flat(&big))]).unwrap_err();
        drop(writer);
        assert_eq!(fs::read(folder.join("file")).unwrap(), b"old");
        assert_eq!(listing(&folder), ["file"]);
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("file"), "old").unwrap();
    let child = child_of("a_write_that_the_system_cuts_leaves_nothing_behind", folder.path());
    // Without the trap the signal of the limit would end the process
    let script = "trap '' XFSZ; ulimit -f 64; exec \"$0\" \"$@\"";
    let mut shell = Command::new("sh");
    shell.args(["-c", script]).arg(child.get_program()).args(child.get_args()).env(CHILD, folder.path());
    // Into pipes: the limit holds for a log file too, where the tests write into one
    let output = shell.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// A file system of 128 kB of its own, where the system lets an ordinary user have one
#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_costs_nothing_that_was_whole() {
    if let Some(folder) = std::env::var_os(CHILD).map(PathBuf::from) {
        let says_so = |error: collimate::Error| {
            assert_eq!(error.exit_code(), 1);
            assert!(error.hint_text().is_some_and(|hint| hint.contains("the disk is full")), "{error}");
            error
        };
        let (run, _) = begin(&folder, &fresh());
        let mut metrics = run.metrics().unwrap();
        metrics.write(1, 0.1, &loss(1.0)).unwrap();
        save(&run, 1, 1.0);
        run.write(names::SUMMARY, b"old").unwrap();
        let before = listing(&folder);

        let big = vec![1.5_f32; 100_000];
        says_so(run.write(names::SUMMARY, bytemuck::cast_slice(&big)).unwrap_err());
        let writer = run.new_checkpoint(2).unwrap();
        let error = says_so(writer.write_tensors("t.safetensors", [("t", Slice::flat(&big))]).unwrap_err());
        assert!(error.hint_text().is_some_and(|hint| hint.contains("400 kB are needed")), "{error}");
        drop(writer);
        assert_eq!(listing(&folder), before);
        assert_eq!(fs::read(folder.join(names::SUMMARY)).unwrap(), b"old");

        let mut step = 1;
        let error = loop {
            step += 1;
            if let Err(error) = metrics.write(step, 0.1, &loss(1.0)) {
                break error;
            }
        };
        says_so(error);
        assert_eq!(steps_logged(&folder), (1..step).collect::<Vec<_>>());
        assert!(fs::read(folder.join(names::METRICS)).unwrap().ends_with(b"}\n"), "no torn row");
        says_so(run.new_checkpoint(2).and_then(|writer| writer.write_state(&"state")).unwrap_err());
        assert_eq!(Checkpoint::open(folder.join("checkpoint-1")).unwrap().step(), 1);
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let in_namespace = |then: &str| {
        let mut command = Command::new("unshare");
        let script = format!("mount -t tmpfs -o size=128k tmpfs \"${CHILD}\" && {then}");
        command.args(["--map-root-user", "--mount", "sh", "-c", &script]).env(CHILD, folder.path());
        command
    };
    if !in_namespace("true").status().is_ok_and(|status| status.success()) {
        println!("skipped: this system gives no file system of its own to a test");
        return;
    }
    let child = child_of("a_full_disk_costs_nothing_that_was_whole", folder.path());
    let mut command = in_namespace("exec \"$0\" \"$@\"");
    assert!(command.arg(child.get_program()).args(child.get_args()).status().unwrap().success());
}

#[cfg(unix)]
#[test]
fn the_lock_ends_with_a_killed_process() {
    if let Some(folder) = std::env::var_os(CHILD).map(PathBuf::from) {
        let (run, _) = begin(&folder, &fresh());
        let _writer = run.new_checkpoint(5).unwrap();
        fs::write(folder.join("ready"), "").unwrap();
        std::thread::sleep(std::time::Duration::from_secs(60));
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let mut child = child_of("the_lock_ends_with_a_killed_process", folder.path()).spawn().unwrap();
    while !folder.path().join("ready").exists() {
        assert!(child.try_wait().unwrap().is_none(), "the child ended early");
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    assert!(RunFolder::open(folder.path(), &fresh()).unwrap_err().message().contains("another run"));
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(listing(folder.path()).len(), 2, "the killed process leaves its half checkpoint");
    begin(folder.path(), &fresh());
    assert_eq!(listing(folder.path()), ["ready"]);
}

#[cfg(unix)]
#[test]
fn the_first_signal_asks_and_a_second_interrupt_kills() {
    use std::os::unix::process::ExitStatusExt as _;

    use collimate::run::Signals;
    use signal_hook::consts::{SIGINT, SIGTERM};
    use signal_hook::low_level::raise;

    if let Some(folder) = std::env::var_os(CHILD).map(PathBuf::from) {
        let signals = Signals::install().unwrap();
        assert_eq!(signals.received(), None);
        raise(SIGTERM).unwrap();
        assert_eq!(signals.received(), Some(SIGTERM));
        raise(SIGTERM).unwrap();
        fs::write(folder.join("alive"), "").unwrap();
        raise(SIGINT).unwrap();
        fs::write(folder.join("not killed"), "").unwrap();
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let status = child_of("the_first_signal_asks_and_a_second_interrupt_kills", folder.path()).status().unwrap();
    assert_eq!(status.signal(), Some(SIGINT));
    assert_eq!(listing(folder.path()), ["alive"]);
}
