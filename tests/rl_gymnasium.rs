//! The bridge with the real Gymnasium behind it: its classic environments are ours, step for step and training run for
//! training run; environments of one's own; everything that such an environment may do wrong.
//!
//! Needs a Python with Gymnasium: `COLLIMATE_TEST_PYTHON`, or `python3`. Without one these tests say so and pass.

#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test, in helpers too")]
#![expect(clippy::print_stderr, reason = "what is skipped is told")]

#[path = "common/training.rs"]
mod training;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use collimate::rl::env::rng::Pcg64;
use collimate::rl::env::{Actions, GymOptions, Kwargs, MakeOptions, Space, VecStep, VectorEnv, make_vec};
use collimate::{Error, Result};
use serde_json::json;
use tempfile::TempDir;
use training::{bytes, text, untimed};

/// A Python that can import Gymnasium
fn python() -> Option<String> {
    let named = std::env::var("COLLIMATE_TEST_PYTHON").ok();
    let program = named.clone().unwrap_or_else(|| "python3".to_owned());
    let script = "import sys, gymnasium; print(sys.executable)";
    let found = Command::new(&program).args(["-c", script]).stderr(Stdio::null()).output();
    match found {
        Ok(found) if found.status.success() => Some(String::from_utf8(found.stdout).unwrap().trim().to_owned()),
        _ => {
            assert!(named.is_none(), "`{program}` of COLLIMATE_TEST_PYTHON cannot import gymnasium");
            eprintln!("skipped: `python3` cannot import gymnasium, and COLLIMATE_TEST_PYTHON is not set");
            None
        }
    }
}

/// Random actions within the space; boxes here are bounded
fn random_actions(space: &Space, n: usize, rng: &mut Pcg64) -> (Vec<u32>, Vec<f32>) {
    match space {
        Space::Discrete { n: count } => {
            ((0..n).map(|_| rng.integers(0, i64::from(*count)) as u32).collect(), Vec::new())
        }
        Space::Box(bounds) => {
            let number = |d: usize, rng: &mut Pcg64| rng.uniform(f64::from(bounds.low[d]), f64::from(bounds.high[d]));
            (Vec::new(), (0..n).flat_map(|_| 0..bounds.low.len()).map(|d| number(d, rng) as f32).collect())
        }
    }
}

fn step(env: &mut dyn VectorEnv, (discrete, continuous): &(Vec<u32>, Vec<f32>), out: &mut VecStep) {
    let actions = if continuous.is_empty() { Actions::Discrete(discrete) } else { Actions::Continuous(continuous) };
    env.step(actions, out).unwrap();
}

fn apart(one: &[f32], other: &[f32]) -> f32 {
    one.iter().zip(other).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

/// Resets with and without a seed, ends of both kinds, the last observation of an episode and the first of the next
#[test]
fn gymnasiums_own_environments_are_ours() {
    const ENVS: usize = 5;
    let Some(python) = python() else { return };
    for (id, limit, tolerance) in [
        ("CartPole-v1", Some(30), 0.0),
        ("Taxi-v4", Some(40), 0.0),
        ("FrozenLake8x8-v1", None, 0.0),
        ("CliffWalking-v1", Some(50), 0.0),
        ("MountainCar-v0", Some(60), 0.0),
        ("MountainCarContinuous-v0", Some(70), 1e-6),
        ("Pendulum-v1", Some(80), 1e-5),
        ("Acrobot-v1", Some(60), 1e-5),
    ] {
        let gym = GymOptions { python: python.clone(), workers: 2, ..GymOptions::default() };
        let native = MakeOptions { max_episode_steps: limit, ..MakeOptions::default() };
        let mut ours = make_vec(id, ENVS, &native).unwrap();
        let mut theirs = match make_vec(&format!("gym:{id}"), ENVS, &MakeOptions { gym, ..native }) {
            // Versions of ids go up with Gymnasium's
            Err(error) if error.message().contains("doesn't exist") => {
                eprintln!("skipped: {error}");
                continue;
            }
            theirs => theirs.unwrap(),
        };
        let (mine, foreign) = (ours.spec(), theirs.spec());
        assert_eq!(
            (mine.max_episode_steps, mine.reward_threshold),
            (foreign.max_episode_steps, foreign.reward_threshold)
        );
        assert_eq!((&mine.observation_space, &mine.action_space), (&foreign.observation_space, &foreign.action_space));
        let space = mine.action_space.clone();
        let (mut out, mut seen) = (VecStep::of(&*ours), VecStep::of(&*theirs));
        let mut rng = Pcg64::new(3);
        let (mut terminated, mut truncated) = (0, 0);
        for seed in [None, Some(11), None] {
            ours.reset(seed, &mut out.observations).unwrap();
            theirs.reset(seed, &mut seen.observations).unwrap();
            assert!(apart(&out.observations, &seen.observations) <= tolerance, "{id}: reset with {seed:?}");
            for at in 0..150 {
                let actions = random_actions(&space, ENVS, &mut rng);
                step(&mut *ours, &actions, &mut out);
                step(&mut *theirs, &actions, &mut seen);
                let rewards = out.rewards.iter().zip(&seen.rewards).all(|(a, b)| (a - b).abs() <= f64::from(tolerance));
                let near = [(&out.observations, &seen.observations), (&out.final_obs, &seen.final_obs)];
                let near = near.into_iter().all(|(a, b)| apart(a, b) <= tolerance);
                assert!(near && rewards, "{id}: step {at} gave {out:?} and {seen:?}");
                assert_eq!((&out.terminated, &out.truncated), (&seen.terminated, &seen.truncated), "{id}: step {at}");
                terminated += out.terminated.iter().filter(|end| **end).count();
                truncated += out.truncated.iter().filter(|end| **end).count();
            }
        }
        assert!(terminated + truncated > 0, "{id}: no episode ended");
        assert!(id != "CartPole-v1" || (terminated > 0 && truncated > 0), "{terminated} and {truncated} ends");
    }
}

/// `collimate WORDS` in a folder, which must succeed; what it prints
fn collimate(folder: &Path, words: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_collimate")).args(words).current_dir(folder).output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{words:?}: {stderr}");
    String::from_utf8(output.stdout).unwrap()
}

fn train(folder: &Path, python: &str, env: &str, out: &str, flags: &str) {
    let mut words = vec!["rl", "train", "--quiet", "--env", env, "--output_dir", out];
    words.extend(flags.split_whitespace());
    if env.starts_with("gym:") {
        words.extend(["--gym_python", python]);
    }
    collimate(folder, &words);
}

/// The same policy, byte for byte, and the same figures
fn assert_same_run(one: &Path, other: &Path) {
    assert_eq!(untimed(one), untimed(other));
    assert!(bytes(&one.join("model.safetensors")) == bytes(&other.join("model.safetensors")), "the policies differ");
}

#[test]
fn training_over_the_bridge_is_training_without() {
    let Some(python) = python() else { return };
    let folder = TempDir::new().unwrap();
    for (agent, env, flags) in [
        ("ppo", "CartPole-v1", "--n_steps 128 --normalize true --eval_freq 256 --total_timesteps 768"),
        ("ppo", "CartPole-v1", "--n_envs 4 --n_steps 64 --total_timesteps 512"),
        ("dqn", "CartPole-v1", "--train_freq 4 --learning_starts 64 --total_timesteps 400 --log_interval 20"),
        ("sac", "MountainCarContinuous-v0", "--net_arch 16 --batch_size 16 --total_timesteps 200"),
        ("q_learning", "FrozenLake-v1", "--total_timesteps 2000"),
    ] {
        let flags = format!("--agent {agent} --seed 3 --overwrite_output_dir true {flags}");
        train(folder.path(), &python, env, "ours", &flags);
        train(folder.path(), &python, &format!("gym:{env}"), "theirs", &flags);
        assert_same_run(&folder.path().join("ours"), &folder.path().join("theirs"));
    }
    // What is known of the environment lies beside the policy, and what is typed beats it
    let line = collimate(folder.path(), &["rl", "eval", "--policy", "theirs", "--episodes", "3", "--gym_workers", "2"]);
    let native = collimate(folder.path(), &["rl", "eval", "--policy", "ours", "--episodes", "3"]);
    assert_eq!(line.replace("gym:", ""), native);
}

#[test]
fn a_run_goes_on_where_it_stopped() {
    let Some(python) = python() else { return };
    let folder = TempDir::new().unwrap();
    for (env, flags) in [
        ("gym:CartPole-v1", "--agent ppo --n_envs 3 --n_steps 100 --total_timesteps 1200"),
        ("gym:MountainCarContinuous-v0", "--agent ppo --n_steps 300 --total_timesteps 1200"),
    ] {
        let flags = format!("{flags} --seed 5 --save_steps 600 --overwrite_output_dir true");
        train(folder.path(), &python, env, "whole", &flags);
        let resumed = format!("{flags} --resume_from_checkpoint whole/checkpoint-600 --gym_workers 2");
        train(folder.path(), &python, env, "resumed", &resumed);
        let bytes_of = |run: &str| bytes(&folder.path().join(run).join("model.safetensors"));
        assert!(bytes_of("whole") == bytes_of("resumed"), "{env}");
    }
    let words = ["rl", "train", "--env", "gym:MountainCarContinuous-v0", "--n_steps", "300", "--output_dir", "other"];
    let more = ["--gym_frame_stack", "2", "--resume_from_checkpoint", "whole/checkpoint-600"];
    let output = at_odds(&python, &[&words[..], &more].concat()).current_dir(folder.path()).output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(stderr.contains("with another `env_kwargs`, `max_episode_steps` or `gym_` key"), "{stderr}");
}

/// The folder in which `odd.py` lies
fn odd() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/gymnasium")
}

/// A command of the program with `odd.py` where it is found
fn at_odds(python: &str, words: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_collimate"));
    command.args(words).args(["--gym_python", python]).env("PYTHONPATH", odd()).env("PYTHONDONTWRITEBYTECODE", "1");
    command
}

#[test]
fn what_cannot_be_led_back_is_refused() {
    let Some(python) = python() else { return };
    let folder = TempDir::new().unwrap();
    let (out, again) = (folder.path().join("out"), folder.path().join("again"));
    let words =
        ["rl", "train", "--env", "gym:odd:Forgetful-v0", "--n_steps", "32", "--total_timesteps", "64", "--quiet"];
    let more = ["--save_steps", "32", "--output_dir", text(&out)];
    assert!(at_odds(&python, &[&words[..], &more].concat()).status().unwrap().success());
    let checkpoint = out.join("checkpoint-32");
    let more = ["--resume_from_checkpoint", text(&checkpoint), "--output_dir", text(&again)];
    let output = at_odds(&python, &[&words[..], &more].concat()).output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(stderr.contains("environment 0 of `gym:odd:Forgetful-v0` cannot be led back where it was"), "{stderr}");
    assert_eq!(output.status.code(), Some(2), "{stderr}");
}

/// Twelve steps of `gym:odd:…` by `rl trace`: the outcome and what was said
fn trace(python: &str, id: &str, flags: &[&str]) -> (Option<i32>, String, String) {
    let folder = TempDir::new().unwrap();
    let actions = folder.path().join("actions.json");
    fs::write(&actions, "[0, 1, 1, 0, 1]").unwrap();
    let words = [&["rl", "trace", "--env", id, "--actions", text(&actions)], flags].concat();
    let output = at_odds(python, &words).current_dir(folder.path()).output().unwrap();
    let of = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code(), of(output.stdout), of(output.stderr))
}

#[test]
fn an_environment_of_ones_own_may_print_and_be_wrapped() {
    let Some(python) = python() else { return };
    let (code, stdout, stderr) =
        trace(&python, "gym:odd:Odd-v0", &["--gym_wrappers", "odd:Scaled:factor=3", "odd:Scaled"]);
    assert_eq!(code, Some(0), "{stderr}");
    let line = |obs: [f32; 2], terminated: bool| {
        json!({"obs": obs, "reward": 6.0, "terminated": terminated, "truncated": false}).to_string()
    };
    let first = json!({"obs": [0.0, 0.0]}).to_string();
    // Its actions are 5 and 6, and ours count from 0
    let steps = [line([1.0, 5.0], false), line([2.0, 6.0], false), line([3.0, 6.0], false), line([4.0, 5.0], true)];
    let expected = [&[first.clone()][..], &steps, &[first, line([1.0, 6.0], false)]].concat();
    assert_eq!(stdout.lines().collect::<Vec<_>>(), expected);
    for said in ["a banner on stdout", "a banner past Python", "a step"] {
        assert!(stderr.contains(said), "{stderr}");
    }
}

#[test]
fn spaces_become_numbers() {
    let Some(python) = python() else { return };
    let space = |kind: &str, gym: GymOptions| {
        let gym = GymOptions { python: shim(&python), ..gym };
        let kwargs = Kwargs::from_iter([("kind".to_owned(), json!(kind))]);
        let mut env = make_vec("gym:odd:Named-v0", 2, &MakeOptions { kwargs, gym, ..MakeOptions::default() })?;
        let mut out = VecStep::of(&*env);
        env.reset(Some(1), &mut out.observations)?;
        env.step(Actions::Discrete(&[0, 1]), &mut out)?;
        Ok::<_, Error>((env.spec().observation_space.to_string(), out.observations))
    };
    let plain = GymOptions::default;
    // One of three, then the place
    let (named, seen) = space("dict", plain()).unwrap();
    assert_eq!((named.as_str(), seen.len(), seen[..3].iter().sum::<f32>()), ("Box(5)", 10, 1.0));
    let (named, seen) = space("state", plain()).unwrap();
    assert!(named == "Discrete(4)" && seen.iter().all(|state| *state < 4.0), "{named} {seen:?}");
    assert_eq!(space("matrix", plain()).unwrap().0, "Box(2x3, 0 to 1)");
    let (named, seen) = space("image", plain()).unwrap();
    assert!(named == "Box(6x6x3, 0 to 1)" && seen.iter().all(|x| (0.0..=1.0).contains(x)), "{named}");
    let grey = GymOptions { grayscale: true, frame_stack: 4, frame_skip: 2, ..plain() };
    let (named, seen) = space("image", grey).unwrap();
    assert_eq!((named.as_str(), seen.len()), ("Box(4x6x6, 0 to 1)", 288));
    for (kind, expected) in
        [("sequence", "its observations are Sequence("), ("actions", "its actions are MultiDiscrete([3 2])")]
    {
        let error = space(kind, plain()).unwrap_err();
        assert!(error.message().contains(expected) && error.exit_code() == 2, "{error}");
    }
}

/// A program that is this Python with `odd.py` in its path
fn shim(python: &str) -> String {
    static MADE: std::sync::OnceLock<(TempDir, String)> = std::sync::OnceLock::new();
    let made = MADE.get_or_init(|| {
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("python");
        let script =
            format!("#!/bin/sh\nPYTHONDONTWRITEBYTECODE=1 PYTHONPATH='{}' exec '{python}' \"$@\"\n", odd().display());
        // By another process: what this one writes cannot be started while another test forks
        let write = ["-c", "printf '%s' \"$1\" > \"$0\" && chmod 755 \"$0\"", text(&path), &script];
        assert!(Command::new("sh").args(write).status().unwrap().success());
        let path = text(&path).to_owned();
        (folder, path)
    });
    made.1.clone()
}

#[test]
fn what_an_environment_does_wrong_is_told() {
    let Some(python) = python() else { return };
    let wrong = |id: &str, flags: &[&str], code: i32, expected: &[&str]| {
        let begin = Instant::now();
        let (found, _, stderr) = trace(&python, id, flags);
        assert!(expected.iter().all(|part| stderr.contains(part)), "expected {expected:?}, got {stderr}");
        assert_eq!(found, Some(code), "{stderr}");
        assert!(begin.elapsed() < Duration::from_secs(40), "{id} {flags:?} took {:?}", begin.elapsed());
    };
    for (mode, expected) in [
        ("raise", &["environment 0 failed: ValueError: three is too many", "odd.py\", line 34, in step"][..]),
        ("exit", &["the worker of environment 0", "exited with status 7", "    good bye"]),
        ("crash", &["was ended by signal 11", "Fatal Python error: Segmentation fault"]),
        ("nan", &["environment 0 gave an observation whose number 1 is `NaN`"]),
        ("shape", &["ValueError: an observation of the shape (1,), where its space has (2,)"]),
        ("reward", &["environment 0 gave the reward `NaN`"]),
        ("four", &["environment 0 failed: ", "expected 5, got 4"]),
    ] {
        wrong("gym:odd:Odd-v0", &["--env_kwargs", &format!("mode={mode}")], 1, expected);
    }
    wrong("gym:odd:Odd-v0", &["--env_kwargs", "mode=hang", "--gym_timeout", "6"], 1, &["did not answer within 6 s"]);
    wrong("gym:odd:Odd-v0", &["--env_kwargs", "colour=red"], 2, &["unexpected keyword argument 'colour'"]);
    wrong("gym:CartPol-v1", &[], 2, &["doesn't exist. Did you mean: `CartPole`?", "`gym:MODULE:ID`"]);
    wrong("gym:nowhere:Odd-v0", &[], 2, &["No module named 'nowhere'", "imported from the current directory"]);
    wrong("gym:odd:Even-v0", &[], 2, &["Environment `Even` doesn't exist"]);
    for (wrapper, expected) in [
        ("Scaled", "there is no wrapper `Scaled` in `gymnasium.wrappers`"),
        ("nowhere:Scaled", "cannot import the wrapper `nowhere:Scaled`"),
        ("odd:Scaled:factor=", "cannot read the arguments of the wrapper"),
        ("odd:Scaled:size=2", "unexpected keyword argument 'size'"),
    ] {
        wrong("gym:odd:Odd-v0", &["--gym_wrappers", wrapper], 2, &[expected]);
    }
}

/// Whether a process runs; a zombie does not
fn runs(process: &str) -> bool {
    fs::read_to_string(format!("/proc/{process}/stat")).is_ok_and(|text| !text.contains(") Z "))
}

#[test]
fn nothing_is_left_behind_by_who_cannot_wait() {
    let Some(python) = python() else { return };
    let folder = TempDir::new().unwrap();
    let words =
        ["rl", "train", "--quiet", "--env", "gym:odd:Odd-v0", "--env_kwargs", "mode=hang", "--output_dir", "out"];
    let mut command = at_odds(&python, &words);
    let mut run = command.current_dir(folder.path()).stderr(Stdio::null()).spawn().unwrap();
    let deadline = Instant::now() + Duration::from_secs(60);
    let worker = loop {
        assert!(Instant::now() < deadline, "the environment does not begin");
        match fs::read_to_string(folder.path().join("hangs")) {
            Ok(worker) if !worker.is_empty() => break worker,
            _ => std::thread::sleep(Duration::from_millis(20)),
        }
    };
    assert!(runs(&worker));
    // The first asks for the end of the run, the second is the end
    while run.try_wait().unwrap().is_none() {
        assert!(Instant::now() < deadline, "the run does not end");
        assert!(Command::new("kill").args(["-INT", &run.id().to_string()]).status().unwrap().success());
        std::thread::sleep(Duration::from_millis(200));
    }
    while runs(&worker) {
        assert!(Instant::now() < deadline, "the worker lives on");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Every command of the page is run as it stands, with its files beside it
#[test]
fn the_page_shows_what_happens() -> Result<()> {
    let Some(python) = python() else { return Ok(()) };
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/gymnasium.md");
    let page = fs::read_to_string(&page).map_err(|cause| Error::read(&page, cause))?;
    let folder = TempDir::new().unwrap();
    let blocks = |kind: &str| {
        let opening = format!("```{kind}\n");
        let found = page.split(&opening).skip(1).map(|rest| rest.split("```").next().unwrap_or_default());
        found.map(str::to_owned).collect::<Vec<_>>()
    };
    let [file] = <[String; 1]>::try_from(blocks("python")).expect("one file");
    fs::write(folder.path().join("corridor.py"), file).unwrap();
    // `python3` is the one with Gymnasium, as in an environment that is switched on
    fs::create_dir(folder.path().join("bin")).unwrap();
    std::os::unix::fs::symlink(shim(&python), folder.path().join("bin/python3")).unwrap();
    let path = format!("{}:{}", folder.path().join("bin").display(), std::env::var("PATH").unwrap_or_default());
    let mut count = 0;
    for block in blocks("console") {
        let (commands, printed): (Vec<_>, Vec<_>) = block.lines().partition(|line| line.starts_with("$ "));
        let mut said = String::new();
        for command in commands {
            let line = command[2..].replacen("collimate", env!("CARGO_BIN_EXE_collimate"), 1);
            let output = Command::new("sh").args(["-c", &line]).current_dir(folder.path()).env("PATH", &path).output();
            let output = output.unwrap();
            assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
            said += &String::from_utf8_lossy(&output.stdout);
            count += 1;
        }
        assert_eq!(printed, said.lines().collect::<Vec<_>>(), "{block}");
    }
    assert!(count >= 5, "{count} commands");
    Ok(())
}
