//! `collimate rl trace` and `rl envs`, run as a process.

use std::fs;
use std::process::Command;

use serde_json::{Value, json};

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

/// A trace with these actions as its file
fn trace(id: &str, actions: &str, flags: &[&str]) -> Outcome {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("actions.json");
    fs::write(&path, actions).expect("the file is written");
    let path = path.to_str().expect("a path in UTF-8");
    collimate(&[&["rl", "trace", "--env", id, "--actions", path], flags].concat())
}

impl Outcome {
    fn objects(&self) -> Vec<Value> {
        assert_eq!(self.code, Some(0), "{}", self.stderr);
        self.stdout.lines().map(|line| serde_json::from_str(line).expect("each line is JSON")).collect()
    }
}

#[test]
fn a_trace_starts_with_the_reset_and_shows_one_after_each_end() {
    let lines = trace("CliffWalking-v1", "[0, 1, 2, 0]", &["--max_episode_steps", "2"]).objects();
    let step = |obs: u32, reward: f64, truncated: bool| json!({"obs": [obs], "reward": reward, "terminated": false, "truncated": truncated});
    let expected = [
        json!({"obs": [36]}),
        step(24, -1.0, false),
        step(25, -1.0, true),
        json!({"obs": [36]}),
        // Down, where the border is
        step(36, -1.0, false),
        step(24, -1.0, true),
        // After the last action too
        json!({"obs": [36]}),
    ];
    assert_eq!(lines, expected);
}

#[test]
fn a_trace_has_gymnasiums_first_observation() {
    let lines = trace("CartPole-v1", "[]", &["--seed", "123"]).objects();
    assert_eq!(lines, [json!({"obs": [0.018_235_186, -0.044_617_9, -0.027_964_013, -0.031_562_82]})]);
}

#[test]
fn continuous_actions_are_lists_and_arguments_reach_the_environment() {
    let lines = trace("MountainCarContinuous-v0", "[[0.5], [3]]", &[]).objects();
    assert_eq!((&lines[1]["reward"], &lines[2]["reward"]), (&json!(-0.025), &json!(-0.9)));
    let lines = trace("FrozenLake-v1", "[2, 2]", &["--env_kwargs", "is_slippery=false", "map_name=8x8"]).objects();
    assert_eq!((&lines[1]["obs"], &lines[2]["obs"]), (&json!([1]), &json!([2])));
}

#[test]
fn wrong_traces_are_usage_errors() {
    for (outcome, expected) in [
        (trace("CartPol-v1", "[]", &[]), "did you mean `CartPole-v1`?"),
        (trace("CartPole-v1", "[0, 1, 2]", &[]), "action 2 is `2`, which `CartPole-v1` does not take"),
        (trace("CartPole-v1", "[0, 1.0]", &[]), "action 1 is `1.0`"),
        (trace("CartPole-v1", "[0, -1]", &[]), "whole numbers from 0 to 1"),
        (trace("CartPole-v1", "[0,\n 1,", &[]), "actions.json: not JSON: EOF while parsing a value at line 2 column 3"),
        (trace("CartPole-v1", "{}", &[]), "actions.json: not a list"),
        (trace("Pendulum-v1", "[0.5]", &[]), "lists, each of length 1"),
        (trace("Pendulum-v1", "[[1e300]]", &[]), "action 0 is `[1e+300]`"),
        (trace("CartPole-v1", "[]", &["--seed", "-1"]), "--seed"),
        (trace("CartPole-v1", "[]", &["--env_kwargs", "size=3"]), "takes no argument `size`"),
        (
            collimate(&["rl", "trace", "--env", "CartPole-v1", "--actions", "missing.json"]),
            "cannot read `missing.json`",
        ),
    ] {
        assert_eq!(outcome.code, Some(2), "{}", outcome.stderr);
        assert!(outcome.stderr.starts_with("error: ") && outcome.stderr.contains(expected), "{}", outcome.stderr);
        assert_eq!(outcome.stdout, "");
    }
}

#[test]
fn environments_are_listed() {
    let lines = collimate(&["rl", "envs", "--json"]).objects();
    let taxi = lines.iter().find(|line| line["id"] == "Taxi-v4").expect("Taxi is listed");
    let discrete = |n: u32| json!({"type": "discrete", "n": n});
    assert_eq!((&taxi["action_space"], &taxi["observation_space"]), (&discrete(6), &discrete(500)));
    assert_eq!((&taxi["aliases"], &taxi["max_episode_steps"]), (&json!(["Taxi-v3"]), &json!(200)));
    let table = collimate(&["rl", "envs"]).stdout;
    assert_eq!(table.lines().count(), lines.len() + 1);
    assert!(lines.iter().all(|line| table.contains(line["id"].as_str().expect("ids are texts"))));
}
