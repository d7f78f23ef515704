//! Learning from a data set: better than what recorded it, where Q-learning that trusts in untested values is not.

use std::path::Path;

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
