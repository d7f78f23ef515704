//! The bridge to Gymnasium: its protocol, and everything that may go wrong with a worker. Shell scripts that say what a
//! worker would say stand in for Python, so that nothing but this program is needed. `rl_gymnasium.rs` has the real one.

#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test, in helpers too")]

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use collimate::rl::env::{Actions, GymOptions, MakeOptions, Space, VecStep, VectorEnv, make_vec};
use collimate::{Error, Result};
use tempfile::TempDir;

/// An answer as it passes through the pipe
fn frame(kind: u8, payload: &[u8]) -> Vec<u8> {
    [&(payload.len() as u32).to_le_bytes()[..], &[kind], payload].concat()
}

fn floats(numbers: &[f32]) -> Vec<u8> {
    numbers.iter().flat_map(|number| number.to_le_bytes()).collect()
}

const TWO: &str = r#"{"kind": "box", "shape": [2], "image": false}"#;
const IMAGE: &str = r#"{"kind": "box", "shape": [1, 2], "image": true}"#;
const THREE_STATES: &str = r#"{"kind": "discrete", "n": 3}"#;

/// The hello of a worker with these observations, and two actions
fn hello(observation: &str) -> Vec<u8> {
    let json = format!(
        r#"{{"python": "3.12", "gymnasium": "1.4", "max_episode_steps": 500, "reward_threshold": 475.0,
            "observation": {observation}, "action": {{"kind": "discrete", "n": 2}}}}"#
    );
    let bounds = if observation == TWO { floats(&[-1.0, -1.0, 1.0, 1.0]) } else { Vec::new() };
    frame(b'H', &[&[1], &(json.len() as u32).to_le_bytes()[..], json.as_bytes(), &bounds].concat())
}

/// What a step brought: observations, rewards, and the ends of `n` environments
fn stepped(observations: &[u8], rewards: &[f64], terminated: &[u8], truncated: &[u8], finals: &[u8]) -> Vec<u8> {
    let rewards: Vec<u8> = rewards.iter().flat_map(|reward| reward.to_le_bytes()).collect();
    frame(b'S', &[observations, &rewards, terminated, truncated, finals].concat())
}

/// A program that says `answers`, whatever it is asked, and then does something
fn stand_in(folder: &TempDir, answers: &[u8], then: &str) -> PathBuf {
    let path = |name: &str| folder.path().join(name);
    fs::write(path("answers"), answers).unwrap();
    // Written by another process: one that is being written by this one cannot be started while another test forks
    let mut shell = Command::new("sh");
    shell.args(["-c", "cat > \"$0\" && chmod 755 \"$0\""]).arg(path("python")).stdin(Stdio::piped());
    let mut writer = shell.spawn().unwrap();
    let script = format!("#!/bin/sh\ncd '{}'\ncat answers\n{then}\n", folder.path().display());
    writer.stdin.take().unwrap().write_all(script.as_bytes()).unwrap();
    assert!(writer.wait().unwrap().success());
    path("python")
}

fn bridge(python: &Path, num_envs: usize, timeout: f64) -> Result<Box<dyn VectorEnv>> {
    let gym = GymOptions { python: python.to_str().unwrap().to_owned(), timeout, ..GymOptions::default() };
    make_vec("gym:Stand-v0", num_envs, &MakeOptions { gym, ..MakeOptions::default() })
}

/// Makes, resets and steps `num_envs` environments until something fails
fn failure(python: &Path, num_envs: usize, timeout: f64) -> Error {
    let play = || -> Result<()> {
        let mut env = bridge(python, num_envs, timeout)?;
        let mut out = VecStep::of(&*env);
        env.reset(Some(0), &mut out.observations)?;
        env.step(Actions::Discrete(&vec![0; num_envs]), &mut out)
    };
    play().expect_err("a failure")
}

#[test]
fn answers_become_steps() {
    let folder = TempDir::new().unwrap();
    let answers = [
        hello(TWO),
        frame(b'O', &floats(&[0.0, 1.0, 2.0, 3.0, 4.0, 5.0])),
        // The first has ended, the last is cut off: what both led to comes behind
        stepped(
            &floats(&[10.0, 11.0, 12.0, 13.0, 14.0, 15.0]),
            &[1.0, -0.1, 2.5],
            &[1, 0, 0],
            &[0, 0, 1],
            &floats(&[20.0, 21.0, 24.0, 25.0]),
        ),
        stepped(&floats(&[0.5; 6]), &[0.0; 3], &[0; 3], &[0; 3], &[]),
    ];
    let mut env = bridge(&stand_in(&folder, &answers.concat(), "cat > asked"), 3, 60.0).unwrap();
    let spec = env.spec();
    assert_eq!(
        (spec.id.as_str(), spec.max_episode_steps, spec.reward_threshold),
        ("gym:Stand-v0", Some(500), Some(475.0))
    );
    assert_eq!((&spec.action_space, spec.observation_space.len()), (&Space::Discrete { n: 2 }, 2));
    let mut out = VecStep::of(&*env);
    env.reset(Some(7), &mut out.observations).unwrap();
    assert_eq!(out.observations, [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]);
    env.step(Actions::Discrete(&[1, 0, 1]), &mut out).unwrap();
    let expected = VecStep {
        observations: vec![10.0, 11.0, 12.0, 13.0, 14.0, 15.0],
        final_obs: vec![20.0, 21.0, 12.0, 13.0, 24.0, 25.0],
        rewards: vec![1.0, -0.1, 2.5],
        terminated: vec![true, false, false],
        truncated: vec![false, false, true],
    };
    assert_eq!(out, expected);
    env.step(Actions::Discrete(&[0; 3]), &mut out).unwrap();
    assert_eq!((&out.observations, &out.final_obs), (&vec![0.5; 6], &vec![0.5; 6]));
    // Dropped, it closes the pipe, and the shell has all that was asked
    drop(env);
    let asked = fs::read(folder.path().join("asked")).unwrap();
    let reset = frame(b'r', &[&[1], &7_u128.to_le_bytes()[..]].concat());
    let steps: Vec<u8> = [[1_i64, 0, 1], [0; 3]]
        .iter()
        .flat_map(|actions| frame(b's', &actions.iter().flat_map(|action| action.to_le_bytes()).collect::<Vec<_>>()))
        .collect();
    assert!(asked.ends_with(&[reset, steps].concat()), "{asked:?}");
    let make = String::from_utf8_lossy(&asked);
    assert!(make.contains(r#""id":"Stand-v0""#) && make.contains(r#""num_envs":3"#), "{make}");
}

#[test]
fn images_become_numbers_from_0_to_1() {
    let folder = TempDir::new().unwrap();
    let answers =
        [hello(IMAGE), frame(b'O', &[0, 255, 51, 102]), stepped(&[255; 4], &[0.0; 2], &[0, 1], &[0; 2], &[0, 51])];
    let mut env = bridge(&stand_in(&folder, &answers.concat(), "cat > asked"), 2, 60.0).unwrap();
    let Space::Box(space) = env.spec().observation_space.clone() else { panic!("images are a box") };
    assert_eq!((space.shape, space.low, space.high), (vec![1, 2], vec![0.0; 2], vec![1.0; 2]));
    let mut out = VecStep::of(&*env);
    env.reset(None, &mut out.observations).unwrap();
    assert_eq!(out.observations, [0.0, 1.0, 0.2, 0.4]);
    env.step(Actions::Discrete(&[0, 1]), &mut out).unwrap();
    assert_eq!(out.final_obs, [1.0, 1.0, 0.0, 0.2]);
}

#[test]
fn whatever_a_worker_does_is_told() {
    let folder = TempDir::new().unwrap();
    let start = || [hello(TWO), frame(b'O', &floats(&[0.0; 4]))].concat();
    let and = |more: &[u8]| [start(), more.to_vec()].concat();
    let fine = |observations: [f32; 4], reward: f64| {
        and(&stepped(&floats(&observations), &[0.0, reward], &[0; 2], &[0; 2], &[]))
    };
    let mut old = hello(TWO);
    old[5] = 9;
    let reported = |json: &str| and(&frame(b'E', json.as_bytes()));
    let step = stepped(&floats(&[0.0; 4]), &[0.0; 2], &[0; 2], &[0; 2], &[]);
    for (answers, then, code, expected) in [
        (vec![], "exit 3", 1, &["`gym:Stand-v0`: the worker of environments 0 to 1", "exited with status 3"][..]),
        (vec![], "echo no such display >&2; kill -SEGV $$", 1, &["was ended by signal 11", "    no such display"]),
        (b"Hello from the community\n".to_vec(), "sleep 60", 1, &["something else than a frame", "Hello from the com"]),
        (old, "sleep 60", 1, &["speaks version 9 of the protocol, and this program version 1"]),
        (hello(TWO), "exit 0", 1, &["exited with status 0"]),
        (and(&step[..step.len() - 3]), "exit 1", 1, &["exited with status 1 in the middle of an answer"]),
        (and(&frame(b'O', &[])), "sleep 60", 1, &["a frame of kind `O` where `S` was due"]),
        (and(&frame(b'S', &[0; 7])), "sleep 60", 1, &["answered with 7 bytes where 36 were due"]),
        // One flag says that an episode has ended, and its final observation is not there
        (
            and(&stepped(&floats(&[0.0; 4]), &[0.0; 2], &[0, 1], &[0; 2], &[])),
            "sleep 60",
            1,
            &["answered with 36 bytes where 44 were due"],
        ),
        ([hello(TWO), frame(b'O', &[0; 4])].concat(), "sleep 60", 1, &["answered with 4 bytes where 16 were due"]),
        (
            fine([0.0, 0.0, 0.0, f32::NAN], 0.0),
            "sleep 60",
            1,
            &["environment 1 gave an observation whose number 1 is `NaN`"],
        ),
        (fine([0.0; 4], f64::INFINITY), "sleep 60", 1, &["environment 1 gave the reward `inf`"]),
        (
            [hello(THREE_STATES), frame(b'O', &floats(&[2.0, 3.0]))].concat(),
            "sleep 60",
            1,
            &["environment 1 is in the state `3`, and there are 3 from 0 on"],
        ),
        (
            reported(
                r#"{"kind": "step", "message": "ValueError: no", "env": 1, "places": ["  File \"own.py\", line 7"]}"#,
            ),
            "exit 0",
            1,
            &["`gym:Stand-v0`: environment 1 failed: ValueError: no\n  File \"own.py\", line 7"],
        ),
        (reported("what?"), "exit 0", 1, &["failed: `what?`"]),
        (
            frame(b'E', br#"{"kind": "missing", "message": "has no module `gymnasium`"}"#),
            "exit 0",
            2,
            &["has no module `gymnasium`", "hint: `", "-m pip install \"gymnasium>=1.0\"`"],
        ),
        (
            frame(b'E', br#"{"kind": "actions", "message": "its actions are MultiDiscrete([3 2])"}"#),
            "exit 0",
            2,
            &["its actions are MultiDiscrete([3 2])", "hint: a wrapper of your own", "`gym_wrappers`"],
        ),
    ] {
        let begin = Instant::now();
        let error = failure(&stand_in(&folder, &answers, then), 2, 60.0);
        let text = error.to_string();
        assert!(expected.iter().all(|part| text.contains(part)), "expected {expected:?}, got {text}");
        assert_eq!(error.exit_code(), code, "{text}");
        assert!(begin.elapsed() < Duration::from_secs(10), "{text} took {:?}", begin.elapsed());
    }
}

/// Whether a process runs; a zombie does not
fn runs(process: &str) -> bool {
    fs::read_to_string(format!("/proc/{process}/stat")).is_ok_and(|text| !text.contains(") Z "))
}

/// The processes that a stand-in names in its folder all end soon
fn assert_ended(folder: &TempDir) {
    let text = fs::read_to_string(folder.path().join("processes")).unwrap();
    let begin = Instant::now();
    while text.split_whitespace().any(runs) && begin.elapsed() < Duration::from_secs(5) {
        std::thread::sleep(Duration::from_millis(10));
    }
    assert!(!text.split_whitespace().any(runs), "some of {text} still run");
}

/// A stand-in that starts something itself, and hangs
const HANG: &str = "sleep 100 & echo $$ $! > processes; wait";

#[test]
fn one_that_hangs_is_ended_in_time_with_what_it_started() {
    let folder = TempDir::new().unwrap();
    for answers in [vec![], hello(TWO), [hello(TWO), frame(b'O', &floats(&[0.0; 4]))].concat()] {
        let begin = Instant::now();
        let error = failure(&stand_in(&folder, &answers, HANG), 2, 1.0);
        assert!(error.message().contains("did not answer within 1 s"), "{error}");
        assert_eq!(error.hint_text(), Some("`gym_timeout` is the longest wait for an answer"));
        assert!(begin.elapsed() < Duration::from_secs(8), "it took {:?}", begin.elapsed());
        assert_ended(&folder);
    }
}

#[test]
fn one_that_does_not_end_by_itself_is_ended() {
    let folder = TempDir::new().unwrap();
    drop(bridge(&stand_in(&folder, &hello(TWO), HANG), 2, 60.0).unwrap());
    assert_ended(&folder);
}

#[test]
fn after_a_failure_nothing_more_is_asked() {
    let folder = TempDir::new().unwrap();
    let mut env = bridge(&stand_in(&folder, &hello(TWO), "exit 0"), 1, 60.0).unwrap();
    let mut observations = [0.0; 2];
    assert!(env.reset(None, &mut observations).is_err());
    let error = env.reset(None, &mut observations).unwrap_err();
    assert!(error.message().contains("its workers have ended"), "{error}");
}

#[test]
fn wrong_requests_are_usage_errors() {
    let make = |id: &str, gym: GymOptions| {
        let error = make_vec(id, 2, &MakeOptions { gym, ..MakeOptions::default() }).err().expect("an error");
        assert_eq!(error.exit_code(), 2, "{error}");
        error.to_string()
    };
    let python = || "no/such/python".to_owned();
    for (id, gym, expected) in [
        ("gym:A-v0", GymOptions { python: python(), ..GymOptions::default() }, "cannot start `no/such/python`"),
        ("gym:A-v0", GymOptions { timeout: 0.0, ..GymOptions::default() }, "`gym_timeout` must be above 0"),
        ("gym:A-v0", GymOptions { timeout: f64::NAN, ..GymOptions::default() }, "`gym_timeout` must be above 0"),
        ("gym:A-v0", GymOptions { workers: 0, ..GymOptions::default() }, "`gym_workers` must be at least 1"),
        (
            "CartPole-v1",
            GymOptions { frame_stack: 4, ..GymOptions::default() },
            "take Gymnasium's own: `gym:CartPole-v1`",
        ),
        ("Ant-v5", GymOptions::default(), "an environment of an installed Gymnasium is `gym:Ant-v5`"),
    ] {
        let text = make(id, gym);
        assert!(text.contains(expected), "expected {expected}, got {text}");
    }
}

/// With an interpreter, but without packages: the script says what is missing
#[test]
fn a_python_without_gymnasium_is_told() {
    let Ok(found) = Command::new("python3").args(["-c", "import sys; print(sys.executable)"]).output() else {
        eprintln!("skipped: there is no `python3`");
        return;
    };
    let python = String::from_utf8(found.stdout).unwrap();
    let folder = TempDir::new().unwrap();
    let bare =
        |path: &str| stand_in(&folder, &[], &format!("exec env PYTHONPATH='{path}' '{}' -S \"$@\"", python.trim()));
    let text = failure(&bare(""), 1, 60.0).to_string();
    assert!(text.contains("has no module `gymnasium`") && text.contains("pip install"), "{text}");

    fs::write(folder.path().join("gymnasium.py"), "__version__ = '0.29.1'\nprint('a banner')").unwrap();
    fs::write(folder.path().join("numpy.py"), "").unwrap();
    let text = failure(&bare(folder.path().to_str().unwrap()), 1, 60.0).to_string();
    assert!(text.contains("has Gymnasium 0.29.1, and 1.0 or newer is needed"), "{text}");
}
