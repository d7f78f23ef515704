//! `collimate rl train` and `rl eval`, run as a process: every agent, its metrics, evaluation, exact resume.

#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test, in helpers too")]

#[path = "common/training.rs"]
mod training;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use training::{Outcome, bytes, command, is_eval, number, outcome, rows, text, untimed};

/// `collimate rl train --agent AGENT --output_dir OUT FLAGS`
fn train(agent: &str, out: &Path, flags: &str) -> Outcome {
    let words = ["rl", "train", "--quiet", "--agent", agent, "--output_dir", text(out)];
    outcome(command(&words.into_iter().chain(flags.split_whitespace()).collect::<Vec<_>>()))
}

fn trained(agent: &str, out: &Path, flags: &str) {
    let outcome = train(agent, out, flags);
    assert_eq!(outcome.code, Some(0), "{agent} {flags}: {}", outcome.stderr);
}

/// The lines of `collimate rl eval --policy … FLAGS`
fn eval(policies: &[&Path], flags: &str) -> Vec<Value> {
    let words = ["rl", "eval", "--policy"].into_iter().chain(policies.iter().map(|policy| text(policy)));
    let outcome = outcome(command(&words.chain(flags.split_whitespace()).collect::<Vec<_>>()));
    assert_eq!(outcome.code, Some(0), "{}", outcome.stderr);
    outcome.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Thirteen steps to the goal, and no policy is better
#[test]
fn planning_and_tables_find_the_shortest_way_along_the_cliff() {
    let folder = tempfile::tempdir().unwrap();
    for (agent, flags) in [
        ("value_iteration", "--gamma 0.99"),
        ("policy_iteration", "--gamma 0.99"),
        ("q_learning", "--max_episode_steps 1000 --total_timesteps 20000 --learning_rate 0.5 --gamma 1"),
    ] {
        let out = folder.path().join(agent);
        trained(agent, &out, &format!("--env CliffWalking-v1 {flags}"));
        let line = &eval(&[&out], "--episodes 3")[0];
        assert_eq!((&line["agent"], &line["mean"], &line["min"]), (&json!(agent), &json!(-13.0), &json!(-13.0)));
        assert!(!rows(&out).is_empty(), "{agent}");
    }
    let last = rows(&folder.path().join("policy_iteration")).pop().unwrap();
    assert_eq!((number(&last, "step"), number(&last, "improved_states")), (15.0, 0.0));
    assert!((number(&last, "start_value") + 12.247_897_700_103).abs() < 1e-9, "{last:?}");
}

#[test]
fn on_policy_tables_keep_away_from_the_cliff() {
    let folder = tempfile::tempdir().unwrap();
    for agent in ["sarsa", "expected_sarsa"] {
        let out = folder.path().join(agent);
        let flags = "--env CliffWalking-v1 --max_episode_steps 1000 --total_timesteps 60000 --gamma 1 --seed 2";
        trained(agent, &out, flags);
        let reached = eval(&[&out], "--episodes 3")[0]["mean"].as_f64().unwrap();
        assert!((-17.0..-13.0).contains(&reached), "{agent} reaches {reached}");
    }
}

/// Pendulum with networks that take no time
const SMALL: &str = "--env Pendulum-v1 --net_arch 16 --batch_size 8 --log_interval 250";

#[test]
fn every_agent_logs_what_it_has() {
    let folder = tempfile::tempdir().unwrap();
    let everywhere = ["return", "length", "episodes", "learning_rate", "steps_per_second"];
    let gradients = ["policy_loss", "value_loss", "entropy", "explained_variance", "grad_norm"];
    for (agent, flags, more) in [
        ("ppo", "--n_steps 128", &["approx_kl", "clip_fraction", "clip_range"][..]),
        ("a2c", "--log_interval 20", &[]),
        ("trpo", "--n_steps 256", &["approx_kl", "step_fraction"]),
        ("reinforce", "", &[]),
        ("q_learning", "--env FrozenLake-v1", &["epsilon", "tried_share"]),
        ("dqn", "", &["loss", "q_value", "grad_norm", "epsilon"]),
        ("sac", SMALL, &["critic_loss", "actor_loss", "ent_coef", "ent_coef_loss", "entropy", "q_value", "grad_norm"]),
        ("td3", SMALL, &["critic_loss", "actor_loss", "q_value", "grad_norm"]),
    ] {
        let out = folder.path().join(agent);
        trained(agent, &out, &format!("--total_timesteps 1500 {flags}"));
        let last = rows(&out).pop().unwrap();
        let network = if ["ppo", "a2c", "trpo", "reinforce"].contains(&agent) { &gradients[..] } else { &[] };
        for name in everywhere.iter().chain(network).chain(more) {
            assert!(number(&last, name).is_finite(), "{agent}: {name}");
        }
    }
}

#[test]
fn the_best_policy_of_the_evaluations_is_kept_and_plays() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("run");
    trained("ppo", &out, "--n_steps 256 --total_timesteps 2048 --eval_freq 512 --n_eval_episodes 4");
    let (evaluations, training): (Vec<_>, Vec<_>) = rows(&out).into_iter().partition(is_eval);
    assert_eq!((evaluations.len(), training.len()), (4, 8));
    let returns: Vec<f64> = evaluations.iter().map(|row| number(row, "eval_return")).collect();
    let best = returns.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let first = returns.iter().position(|mean| *mean == best).unwrap();
    let summary = training::json(&out.join("summary.json"));
    assert_eq!(summary["best"], json!({ "return": best, "timesteps": 512 * (first as u64 + 1) }));
    // The episodes of the evaluations again
    let seed = (1_u64 << 40).to_string();
    let line = &eval(&[&out.join("best")], &format!("--episodes 4 --seed {seed}"))[0];
    assert_eq!(line["mean"], json!(best));
    // A new run in the folder has nothing to do with the best of the old one
    trained("ppo", &out, "--n_steps 64 --total_timesteps 64 --overwrite_output_dir true");
    assert!(!out.join("best").exists());
}

#[test]
fn several_policies_are_summed_up() {
    let folder = tempfile::tempdir().unwrap();
    let runs: Vec<PathBuf> = (0..4).map(|seed| folder.path().join(format!("seed-{seed}"))).collect();
    for (seed, out) in runs.iter().enumerate() {
        trained("ppo", out, &format!("--n_steps 64 --n_epochs 1 --total_timesteps 64 --seed {seed}"));
    }
    let policies: Vec<&Path> = runs.iter().map(PathBuf::as_path).collect();
    let lines = eval(&policies, "--episodes 5 --deterministic false");
    assert_eq!(lines.len(), 5);
    let mut means: Vec<f64> = lines[..4].iter().map(|line| line["mean"].as_f64().unwrap()).collect();
    assert_eq!(lines[4]["returns"], json!(means));
    assert_eq!((&lines[4]["policies"], &lines[4]["agent"]), (&json!(4), &json!("ppo")));
    means.sort_by(f64::total_cmp);
    let iqm = &lines[4]["iqm"];
    let number = |name: &str| iqm[name].as_f64().unwrap();
    assert!((number("point") - f64::midpoint(means[1], means[2])).abs() < 1e-9, "{iqm}");
    assert!(number("low") >= means[0] && number("low") <= number("point"), "{iqm}");
    assert!(number("high") <= means[3] && number("high") >= number("point"), "{iqm}");

    let other = folder.path().join("other");
    trained("value_iteration", &other, "--env FrozenLake-v1");
    let words = ["rl", "eval", "--policy", text(&runs[0]), text(&other)];
    let refused = outcome(command(&words));
    assert_eq!(refused.code, Some(2));
    assert!(refused.stderr.contains("`CartPole-v1`, another for `FrozenLake-v1`"), "{}", refused.stderr);
}

/// Settings that have everything a resume can get wrong: episodes cut in the middle, running statistics, schedules
const RESUMED: [(&str, &str); 11] = [
    (
        "ppo",
        "--env CartPole-v1 --n_envs 3 --n_steps 50 --learning_rate lin_0.001 --total_timesteps 1500 --save_steps 300",
    ),
    ("ppo", "--env Pendulum-v1 --n_envs 2 --n_steps 75 --normalize true --total_timesteps 1500 --save_steps 300"),
    ("a2c", "--env CartPole-v1 --n_envs 3 --log_interval 7 --total_timesteps 1500 --save_steps 300"),
    ("trpo", "--env Acrobot-v1 --n_steps 150 --n_envs 2 --total_timesteps 1500 --save_steps 300"),
    ("reinforce", "--env CartPole-v1 --n_envs 3 --total_timesteps 1500 --save_steps 300"),
    ("q_learning", "--env FrozenLake-v1 --total_timesteps 4000 --save_steps 1000 --exploration_fraction 0.5"),
    ("dqn", "--env CartPole-v1 --n_envs 2 --n_steps 3 --buffer_size 300 --total_timesteps 1500 --save_steps 300"),
    ("dqn", "--env CartPole-v1 --prioritized_replay true --double true --total_timesteps 1500 --save_steps 300"),
    ("dqn", "--env BitFlip-v0 --n_sampled_goal 4 --train_freq 5 --total_timesteps 1500 --save_steps 303"),
    ("sac", "--env Pendulum-v1 --net_arch 16 --batch_size 8 --log_interval 30 --total_timesteps 1500 --save_steps 330"),
    ("td3", "--env Pendulum-v1 --net_arch 16 --batch_size 8 --log_interval 30 --total_timesteps 1500 --save_steps 330"),
];

fn checkpoints(out: &Path) -> Vec<u64> {
    let names = fs::read_dir(out).into_iter().flatten().filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let mut steps: Vec<u64> = names.filter_map(|name| name.strip_prefix("checkpoint-")?.parse().ok()).collect();
    steps.sort_unstable();
    steps
}

#[test]
fn a_run_goes_on_from_a_checkpoint_as_if_it_had_never_stopped() {
    let folder = tempfile::tempdir().unwrap();
    for (case, (agent, flags)) in RESUMED.into_iter().enumerate() {
        let whole = folder.path().join(format!("whole-{case}"));
        let flags = format!("{flags} --eval_freq 500 --n_eval_episodes 2");
        trained(agent, &whole, &flags);
        let at = checkpoints(&whole)[1];
        let from = whole.join(format!("checkpoint-{at}"));
        let resumed = folder.path().join(format!("resumed-{case}"));
        trained(agent, &resumed, &format!("{flags} --resume_from_checkpoint {}", text(&from)));
        let after =
            |out: &Path| -> Vec<_> { untimed(out).into_iter().filter(|row| number(row, "step") > at as f64).collect() };
        assert_eq!(after(&resumed), after(&whole), "{agent}");
        assert!(after(&whole).len() > 2, "{agent}");
        assert!(bytes(&resumed.join("model.safetensors")) == bytes(&whole.join("model.safetensors")), "{agent}");
        // A checkpoint is a policy that plays
        assert_eq!(eval(&[&from], "--episodes 1")[0]["agent"], json!(agent));
    }
}

#[test]
fn a_killed_run_ends_like_one_that_was_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let flags = "--env CartPole-v1 --n_envs 4 --n_steps 32 --n_epochs 20 --total_timesteps 12800 --save_steps 640 \
                 --save_total_limit 2";
    let (alone, killed) = (folder.path().join("alone"), folder.path().join("killed"));
    trained("ppo", &alone, flags);
    let words = ["rl", "train", "--quiet", "--agent", "ppo", "--output_dir", text(&killed)];
    let words: Vec<&str> = words.into_iter().chain(flags.split_whitespace()).collect();
    let mut child = command(&words).spawn().unwrap();
    let begin = Instant::now();
    while checkpoints(&killed).len() < 2 {
        assert!(begin.elapsed() < Duration::from_secs(60), "no checkpoint came");
        std::thread::sleep(Duration::from_millis(2));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    trained("ppo", &killed, &format!("{flags} --resume_from_checkpoint true"));
    assert_eq!(untimed(&killed), untimed(&alone));
    assert_eq!(checkpoints(&killed), checkpoints(&alone));
    assert!(bytes(&killed.join("model.safetensors")) == bytes(&alone.join("model.safetensors")));
}

#[test]
fn what_an_agent_has_no_use_for_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("run");
    for (agent, flags, expected) in [
        ("dqn", "--n_epochs 3", "agent `dqn` does not take `n_epochs`, which is for `ppo`"),
        ("sarsa", "--n_envs 2", "agent `sarsa` does not take `n_envs`"),
        ("value_iteration", "--total_timesteps 5", "agent `value_iteration` does not take `total_timesteps`"),
        ("q_learning", "--env CartPole-v1", "`CartPole-v1` has no table"),
        ("policy_iteration", "--env CartPole-v1", "`CartPole-v1` has no table"),
        ("ppo", "--ent_coef auto", "`ent_coef` must be a number for `ppo`"),
        ("trpo", "--target_kl null", "`target_kl` must be a number above 0"),
        ("ppo", "--n_step 5", "did you mean `n_steps`?"),
        ("a3c", "", "`agent` must be one of"),
    ] {
        let outcome = train(agent, &out, flags);
        assert_eq!(outcome.code, Some(2), "{agent} {flags}: {}", outcome.stderr);
        assert!(outcome.stderr.contains(expected), "{agent} {flags}: {}", outcome.stderr);
        assert!(!out.exists(), "{agent} {flags} left a folder behind");
    }
}

#[test]
fn a_checkpoint_of_another_agent_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let (one, other) = (folder.path().join("one"), folder.path().join("other"));
    trained("ppo", &one, "--n_steps 64 --total_timesteps 64 --save_steps 64");
    let from = one.join("checkpoint-64");
    let outcome = train("a2c", &other, &format!("--resume_from_checkpoint {}", text(&from)));
    assert_eq!(outcome.code, Some(2));
    assert!(outcome.stderr.contains("is a checkpoint of `ppo` in `CartPole-v1`"), "{}", outcome.stderr);
    let outcome = train("ppo", &other, &format!("--net_arch 8 --resume_from_checkpoint {}", text(&from)));
    assert_eq!(outcome.code, Some(2));
    assert!(outcome.stderr.contains("of another agent: `adam.first` has"), "{}", outcome.stderr);
}

/// Each seed of GridWorld is a grid of its own: the saved policy is played in the one it learned
#[test]
fn a_policy_of_a_grid_is_played_in_its_grid() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("run");
    trained("value_iteration", &out, "--env GridWorld-v0 --seed 3");
    // Eight moves, the last one to the goal
    let line = &eval(&[&out], "--episodes 2")[0];
    assert!((line["mean"].as_f64().unwrap() - 0.93).abs() < 1e-9, "{line}");
}
