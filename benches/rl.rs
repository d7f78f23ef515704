//! Steps a second of the native environments on one core: `cargo bench --bench rl`. Those of the real Gymnasium over the
//! bridge: `COLLIMATE_TEST_PYTHON=.venv/bin/python cargo bench --bench rl bridge`.

#![allow(clippy::print_stderr, clippy::unwrap_used, missing_docs)]

use collimate::rl::env::{Actions, GymOptions, MakeOptions, Space, VecStep, VectorEnv, make_vec};
use divan::Bencher;
use divan::counter::ItemsCount;

const IDS: [&str; 8] = [
    "CartPole-v1",
    "MountainCar-v0",
    "MountainCarContinuous-v0",
    "Acrobot-v1",
    "Pendulum-v1",
    "FrozenLake8x8-v1",
    "Taxi-v4",
    "LunarLander-v3",
];
/// Steps of all environments together that one sample takes
const STEPS: usize = 1 << 15;

fn main() {
    divan::main();
}

#[divan::bench(args = IDS, consts = [1, 8, 64], sample_count = 10)]
fn steps<const N: usize>(bencher: Bencher<'_, '_>, id: &str) {
    step_all(bencher, &mut *make_vec(id, N, &MakeOptions::default()).unwrap());
}

#[divan::bench(args = ["gym:CartPole-v1", "gym:Pendulum-v1"], consts = [1, 8, 64], sample_count = 10)]
fn bridge<const N: usize>(bencher: Bencher<'_, '_>, id: &str) {
    let python = std::env::var("COLLIMATE_TEST_PYTHON").unwrap_or_else(|_| "python3".to_owned());
    let gym = GymOptions { python, ..GymOptions::default() };
    match make_vec(id, N, &MakeOptions { gym, ..MakeOptions::default() }) {
        Ok(mut env) => step_all(bencher, &mut *env),
        Err(error) => eprintln!("skipped: {error}"),
    }
}

fn step_all(bencher: Bencher<'_, '_>, env: &mut dyn VectorEnv) {
    let n = env.num_envs();
    let mut out = VecStep::of(&*env);
    env.reset(Some(0), &mut out.observations).unwrap();
    let space = env.spec().action_space.clone();
    // Pseudo-random, but fixed, so that episodes end now and then
    let number = |i: usize| ((i as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40) as u32;
    let discrete: Vec<u32> = (0..STEPS).map(|i| number(i) % space.discrete().unwrap_or(1)).collect();
    let continuous: Vec<f32> = (0..STEPS * space.len()).map(|i| number(i) as f32 / (1 << 23) as f32 - 1.0).collect();
    bencher.counter(ItemsCount::new(STEPS)).bench_local(|| match space {
        Space::Discrete { .. } => {
            discrete.chunks_exact(n).for_each(|actions| env.step(Actions::Discrete(actions), &mut out).unwrap());
        }
        Space::Box(_) => continuous
            .chunks_exact(n * space.len())
            .for_each(|actions| env.step(Actions::Continuous(actions), &mut out).unwrap()),
    });
}
