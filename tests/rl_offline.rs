//! Learning from a data set: better than what recorded it, where Q-learning that trusts in untested values is not.

#[path = "common/training.rs"]
mod training;

use std::path::Path;

use collimate::rl::agents::planning::value_iteration;
use collimate::rl::agents::{Agent, Cql, CqlOptions, Iql, IqlOptions, Schedule};
use collimate::rl::dataset::{Dataset, RecordOptions, RecordedActions, record};
use collimate::rl::env::{MakeOptions, VectorEnv, make_vec};
use collimate::rl::evaluate::play;
use collimate::rl::policy::Policy;

fn make(id: &str) -> Box<dyn VectorEnv> {
    make_vec(id, 10, &MakeOptions::default()).expect("the environment is made")
}

fn train(agent: &mut dyn Agent, updates: u64) -> Policy {
    while !agent.is_done(updates) {
        agent.iterate(updates).expect("an iteration succeeds");
    }
    agent.policy()
}

fn mean_return(policy: &Policy, id: &str) -> f64 {
    play(policy, &mut *make(id), 100, true, 1_000_000).expect("the policy plays").summary().mean
}

#[test]
fn data_sets_are_read_as_they_were_written() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("data.safetensors");
    for id in ["Pendulum-v1", "FrozenLake-v1"] {
        let mut env = make(id);
        let options = RecordOptions { steps: 205, random_actions: 0.0, deterministic: true, seed: 3 };
        let (data, _) = record(None, &mut *env, &options).unwrap();
        // Whole steps of ten environments
        assert_eq!(data.len(), 210);
        data.save(&path, id).unwrap();
        assert_eq!(Dataset::load(&path, env.spec()).unwrap(), data);
        let other = make("CartPole-v1");
        let error = Dataset::load(&path, other.spec()).unwrap_err();
        assert!(error.to_string().contains("data.safetensors"), "{error}");
    }
    assert!(Dataset::load(Path::new("nothing"), make("FrozenLake-v1").spec()).is_err());
}

#[test]
fn numbers_that_the_environment_does_not_have_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("data.safetensors");
    let env = make("FrozenLake-v1");
    let good = Dataset {
        observations: vec![0.0],
        actions: RecordedActions::Discrete(vec![3]),
        rewards: vec![0.0],
        next_observations: vec![15.0],
        terminals: vec![1],
    };
    let bad = [
        (Dataset { observations: vec![16.0], ..good.clone() }, "`16` is no state"),
        (Dataset { observations: vec![0.5], ..good.clone() }, "`0.5` is no state"),
        (Dataset { actions: RecordedActions::Discrete(vec![4]), ..good.clone() }, "action `4`"),
        (Dataset { rewards: vec![f32::NAN], ..good.clone() }, "`NaN`"),
    ];
    for (data, expected) in bad {
        data.save(&path, "FrozenLake-v1").unwrap();
        let error = Dataset::load(&path, env.spec()).unwrap_err();
        assert!(error.exit_code() == 2 && error.to_string().contains(expected), "{error}");
    }
    good.save(&path, "FrozenLake-v1").unwrap();
    assert_eq!(Dataset::load(&path, env.spec()).unwrap(), good);
}

/// `collimate rl record`, then `rl train` on its file, then `rl eval`
#[test]
fn a_data_set_is_recorded_and_learned_from() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().expect("a path in UTF-8").to_owned();
    let (data, plan) = (path("data.safetensors"), path("plan"));
    let run = |words: &str| {
        let words = words.split_whitespace().collect::<Vec<_>>();
        let output = training::outcome(training::command(&words));
        assert_eq!(output.code, Some(0), "{words:?}: {}", output.stderr);
        serde_json::from_str::<serde_json::Value>(output.stdout.lines().last().unwrap_or("null")).expect("JSON")
    };
    run(&format!("rl train --quiet --agent value_iteration --env FrozenLake-v1 --output_dir {plan}"));
    let line = run(&format!("rl record --policy {plan} --steps 2000 --random_actions 0.5 --output {data}"));
    assert_eq!((&line["env"], &line["transitions"]), (&"FrozenLake-v1".into(), &2000.into()));
    for agent in ["cql", "iql"] {
        let out = path(agent);
        let flags = "--total_timesteps 200 --net_arch 16 --save_steps 100";
        run(&format!(
            "rl train --quiet --agent {agent} --env FrozenLake-v1 --dataset {data} {flags} --output_dir {out}"
        ));
        let resumed = path(&format!("{agent}-resumed"));
        let from = format!("--resume_from_checkpoint {out}/checkpoint-100");
        run(&format!(
            "rl train --quiet --agent {agent} --env FrozenLake-v1 --dataset {data} {flags} {from} --output_dir {resumed}"
        ));
        let bytes = |run: &str| training::bytes(&Path::new(run).join("model.safetensors"));
        assert!(bytes(&out) == bytes(&resumed), "{agent}");
        assert_eq!(run(&format!("rl eval --policy {out} --episodes 2"))["agent"], agent);
    }
    let chance = run(&format!("rl record --env Pendulum-v1 --steps 2000 --output {data}"));
    assert!(chance["mean"].as_f64().is_some_and(|mean| mean < -500.0), "{chance}");
    let refused =
        training::outcome(training::command(&["rl", "train", "--agent", "cql", "--output_dir", &path("none")]));
    assert!(refused.code == Some(2) && refused.stderr.contains("`dataset` is not set"), "{}", refused.stderr);
}

/// The best policy of the lake with a fifth of its actions at random reaches the goal in a quarter of its episodes. From
/// 600 of its transitions CQL and IQL get back what was best; Q-learning values what was never tried, and does worse than
/// the data
#[test]
fn offline_methods_beat_the_data_and_naive_q_learning_does_not() {
    const ID: &str = "FrozenLake-v1";
    let mut env = make(ID);
    let spec = env.spec().clone();
    let plan = value_iteration(env.tabular().expect("the lake has a table"), 0.99, 1e-9, 10_000).unwrap();
    let mut values = vec![0.0; 16 * 4];
    plan.policy.iter().enumerate().for_each(|(state, action)| values[4 * state + action] = 1.0);
    let best = Policy::table(&spec, &values, 0.0);
    let options = RecordOptions { steps: 40_000, random_actions: 0.2, deterministic: true, seed: 0 };
    let (_, returns) = record(Some(&best), &mut *env, &options).unwrap();
    let behaviour = returns.iter().sum::<f64>() / returns.len() as f64;
    assert!((0.2..0.3).contains(&behaviour), "{behaviour}");
    let (data, _) = record(Some(&best), &mut *env, &RecordOptions { steps: 600, ..options }).unwrap();
    let learning_rate = Schedule::constant(2e-3);
    for seed in 0..2 {
        let cql = |cql_alpha| {
            let options = CqlOptions {
                learning_rate,
                batch_size: 64,
                tau: 0.02,
                cql_alpha,
                hidden: vec![32],
                ..CqlOptions::default()
            };
            mean_return(&train(&mut Cql::new(&spec, &data, options, seed).unwrap(), 2000), ID)
        };
        let options = IqlOptions {
            learning_rate,
            batch_size: 64,
            tau: 0.02,
            expectile: 0.8,
            weight_temp: 10.0,
            hidden: vec![32],
            ..IqlOptions::default()
        };
        let iql = mean_return(&train(&mut Iql::new(&spec, &data, options, seed).unwrap(), 2000), ID);
        let (naive, conservative) = (cql(0.0), cql(1.0));
        assert!(naive < behaviour, "seed {seed}: Q-learning reaches {naive}, the data {behaviour}");
        assert!(conservative > 0.6 && iql > 0.6, "seed {seed}: CQL reaches {conservative}, IQL {iql}");
    }
}
