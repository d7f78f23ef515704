//! An environment that is led where another one was goes on like it, to the last bit.

use collimate::rl::env::rng::Pcg64;
use collimate::rl::env::{Actions, MakeOptions, Space, VecStep, VectorEnv, listing, make_vec};

const ENVS: usize = 3;

/// Random actions, the same for both
fn step(env: &mut dyn VectorEnv, rng: &mut Pcg64, out: &mut VecStep) {
    match env.spec().action_space.clone() {
        Space::Discrete { n } => {
            let actions: Vec<u32> = (0..ENVS).map(|_| rng.integers(0, i64::from(n)) as u32).collect();
            env.step(Actions::Discrete(&actions), out).expect("a step");
        }
        space @ Space::Box(_) => {
            let actions: Vec<f32> = (0..ENVS * space.len()).map(|_| rng.uniform(-1.2, 1.2) as f32).collect();
            env.step(Actions::Continuous(&actions), out).expect("a step");
        }
    }
}

#[test]
fn every_environment_can_be_led_where_another_was() {
    for listed in listing().expect("the list") {
        let id = listed.spec.id;
        let make = || make_vec(&id, ENVS, &MakeOptions { max_episode_steps: Some(70), ..MakeOptions::default() });
        let mut first = make().expect("the environment is made");
        first.keep_history().expect("native environments can");
        let mut out = VecStep::of(&*first);
        first.reset(Some(5), &mut out.observations).expect("a reset");
        let mut rng = Pcg64::new(9);
        // Somewhere in the middle of episodes that began at different times
        for _ in 0..157 {
            step(&mut *first, &mut rng, &mut out);
        }
        let mut second = make().expect("the environment is made");
        second.keep_history().expect("native environments can");
        // What lies in between the environment was asked for: its layout may depend on the seed
        let mut seen = VecStep::of(&*second);
        second.reset(Some(5), &mut seen.observations).expect("a reset");
        let histories = first.histories().expect("an answer").expect("they were kept");
        second.replay(&histories).expect("a replay");
        let (mut one, mut other) = (rng.clone(), rng);
        for at in 0..200 {
            step(&mut *first, &mut one, &mut out);
            step(&mut *second, &mut other, &mut seen);
            assert_eq!(seen, out, "{id}: step {at} after the replay");
        }
    }
}

#[test]
fn histories_of_other_environments_are_refused() {
    let mut env = make_vec("CartPole-v1", 2, &MakeOptions::default()).expect("the environment is made");
    env.keep_history().expect("native environments can");
    let histories = env.histories().expect("an answer").expect("they were kept");
    let mut one = make_vec("CartPole-v1", 1, &MakeOptions::default()).expect("the environment is made");
    let error = one.replay(&histories).expect_err("it is refused");
    assert!(error.to_string().contains("expected 1 histories, found 2"), "{error}");
}
