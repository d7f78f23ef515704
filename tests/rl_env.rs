//! The native environments against numpy and Gymnasium 1.4.0 (`scripts/goldens/rl_env.py`), against the optima of their
//! tables, and against themselves.

use std::fs;
use std::path::Path;

use collimate::rl::env::rng::{Pcg64, SeedSequence};
use collimate::rl::env::{
    Actions, EpisodeStatistics, Kwargs, MakeOptions, Space, Tabular, VecStep, VectorEnv, listing, make_vec,
};
use proptest::prelude::*;
use serde::Deserialize;
use serde_json::{Value, json};

fn golden<T: for<'de> Deserialize<'de>>(name: &str) -> T {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/goldens/rl").join(name);
    serde_json::from_str(&fs::read_to_string(path).expect("the golden file is there")).expect("it has its format")
}

fn make(id: &str, num_envs: usize, kwargs: &Value) -> Box<dyn VectorEnv> {
    let kwargs: Kwargs = kwargs.as_object().expect("arguments are an object").clone();
    make_vec(id, num_envs, &MakeOptions { kwargs, ..MakeOptions::default() }).expect("the environment is made")
}

#[derive(Deserialize)]
struct RandomNumbers {
    seed: u64,
    state: [String; 4],
    integers: Vec<(i64, i64, Vec<i64>)>,
    random: Vec<f64>,
    uniform: Vec<(f64, f64, f64)>,
}

#[derive(Deserialize)]
struct Random {
    cases: Vec<RandomNumbers>,
}

#[test]
fn random_numbers_are_numpys() {
    for case in golden::<Random>("random.json").cases {
        let state: [u64; 4] = SeedSequence::new(u128::from(case.seed)).generate_state();
        assert_eq!(state.map(|word| word.to_string()), case.state);
        let mut rng = Pcg64::new(u128::from(case.seed));
        for (low, high, expected) in case.integers {
            let drawn: Vec<_> = expected.iter().map(|_| rng.integers(low, high)).collect();
            assert_eq!(drawn, expected, "integers({low}, {high}) of seed {}", case.seed);
        }
        let drawn: Vec<_> = case.random.iter().map(|_| rng.random()).collect();
        assert_eq!(drawn, case.random);
        for (low, high, expected) in case.uniform {
            assert_eq!(rng.uniform(low, high), expected);
        }
    }
}

/// One environment over some hundred steps
#[derive(Deserialize)]
struct Trajectory {
    id: String,
    kwargs: Value,
    seed: u64,
    actions: Script,
    /// Step and observation, every so many steps
    observations: Vec<Vec<f64>>,
    /// Step and first observation of the next episode
    resets: Vec<Vec<f64>>,
    ends: Vec<(usize, bool, bool)>,
    /// Sums over so many steps each
    rewards: Vec<f64>,
    weighted_sum: f64,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Script {
    Digits(String),
    Thousandths(Vec<Vec<i32>>),
}

#[derive(Deserialize)]
struct Trajectories {
    every: usize,
    cases: Vec<Trajectory>,
    #[serde(default)]
    heuristic_scores: Vec<f64>,
}

impl Script {
    fn len(&self) -> usize {
        match self {
            Self::Digits(digits) => digits.len(),
            Self::Thousandths(rows) => rows.len(),
        }
    }

    fn step(&self, t: usize, env: &mut dyn VectorEnv, out: &mut VecStep) {
        let done = match self {
            Self::Digits(digits) => env.step(Actions::Discrete(&[u32::from(digits.as_bytes()[t] - b'0')]), out),
            Self::Thousandths(rows) => {
                let row: Vec<_> = rows[t].iter().map(|x| (f64::from(*x) / 1000.0) as f32).collect();
                env.step(Actions::Continuous(&row), out)
            }
        };
        done.expect("the step is taken");
    }
}

fn assert_near(found: &[f32], expected: &[f64], tolerance: f64, place: &str) {
    let near = |(found, expected): (&f32, &f64)| (f64::from(*found) - expected).abs() <= tolerance;
    let all = found.len() == expected.len() && found.iter().zip(expected).all(near);
    assert!(all, "{place}: found {found:?}, expected {expected:?}");
}

impl Trajectory {
    /// Replays it; observations and rewards may differ by so much, and sums of the latter by that much a step
    fn assert_reproduced(&self, every: usize, tolerance: f64, reward_tolerance: f64) {
        let name = format!("{} {} of seed {}", self.id, self.kwargs, self.seed);
        let mut env = make(&self.id, 1, &self.kwargs);
        let mut out = VecStep::of(&*env);
        env.reset(Some(self.seed), &mut out.observations).expect("it is reset");
        assert_near(&out.observations, &self.observations[0][1..], tolerance, &format!("{name}, reset"));
        let mut sampled = self.observations[1..].iter();
        let mut resets = self.resets.iter();
        let (mut ends, mut rewards, mut weighted_sum) = (Vec::new(), vec![0.0; self.rewards.len()], 0.0);
        for t in 1..=self.actions.len() {
            self.actions.step(t - 1, &mut *env, &mut out);
            let sum: f64 = out.final_obs.iter().copied().map(f64::from).sum();
            weighted_sum += (1 + t % 7) as f64 * sum;
            rewards[(t - 1) / every] += out.rewards[0];
            if t % every == 0 {
                let expected = sampled.next().expect("there is one for each");
                assert_eq!(expected[0], t as f64);
                assert_near(&out.final_obs, &expected[1..], tolerance, &format!("{name}, step {t}"));
            }
            if out.ended(0) {
                ends.push((t, out.terminated[0], out.truncated[0]));
                let expected = resets.next().unwrap_or_else(|| panic!("{name} does not end at step {t}"));
                assert_eq!(expected[0], t as f64, "{name}");
                assert_near(&out.observations, &expected[1..], tolerance, &format!("{name}, reset after {t}"));
            } else {
                assert_eq!(out.observations, out.final_obs);
            }
        }
        assert_eq!(ends, self.ends, "{name}");
        for (i, (found, expected)) in rewards.iter().zip(&self.rewards).enumerate() {
            let near = (found - expected).abs() <= reward_tolerance * every as f64;
            assert!(near, "{name}, rewards up to step {}: found {found}, expected {expected}", (i + 1) * every);
        }
        let allowed = tolerance * 7.0 * (self.actions.len() * out.final_obs.len()) as f64;
        assert!((weighted_sum - self.weighted_sum).abs() <= allowed, "{name}: {weighted_sum}, {}", self.weighted_sum);
    }
}

#[test]
fn trajectories_are_gymnasiums() {
    let golden: Trajectories = golden("trajectories.json");
    for case in &golden.cases {
        case.assert_reproduced(golden.every, 1e-6, 1e-9);
    }
    // Something ends, is truncated and starts again in them
    let ends = || golden.cases.iter().flat_map(|case| &case.ends);
    assert!(ends().any(|end| end.1) && ends().any(|end| end.2));
}

#[cfg(feature = "box2d")]
mod lunar_lander {
    use super::*;

    #[test]
    fn flights_are_gymnasiums() {
        let golden: Trajectories = golden("lunar_lander.json");
        for case in &golden.cases {
            case.assert_reproduced(golden.every, 1e-6, 1e-6);
        }
    }

    /// Gymnasium's controller: point at the middle, hover lower the nearer it is, brake once a leg is down
    fn heuristic(observation: &[f32]) -> u32 {
        let [x, y, x_dot, y_dot, angle, angle_dot, leg1, leg2] =
            <[f32; 8]>::try_from(observation).expect("eight numbers").map(f64::from);
        let target = (x * 0.5 + x_dot).clamp(-0.4, 0.4);
        let mut turn = (target - angle) * 0.5 - angle_dot;
        let mut hover = (0.55 * x.abs() - y) * 0.5 - y_dot * 0.5;
        if leg1 + leg2 > 0.0 {
            (turn, hover) = (0.0, -y_dot * 0.5);
        }
        if hover > turn.abs() && hover > 0.05 {
            2
        } else if turn < -0.05 {
            3
        } else {
            u32::from(turn > 0.05)
        }
    }

    /// Touch-down itself differs, but not how well a controller lands
    #[test]
    fn the_heuristic_scores_as_in_gymnasium() {
        let expected = golden::<Trajectories>("lunar_lander.json").heuristic_scores;
        let score = |seed| {
            let mut env = make("LunarLander-v3", 1, &json!({}));
            let mut out = VecStep::of(&*env);
            env.reset(Some(seed), &mut out.observations).expect("it is reset");
            let mut statistics = EpisodeStatistics::new(1);
            let mut score = None;
            while score.is_none() {
                let action = heuristic(&out.observations);
                env.step(Actions::Discrete(&[action]), &mut out).expect("the step is taken");
                statistics.record(&out, |episode| score = Some(episode.episode_return));
            }
            score
        };
        let scores: Vec<f64> = (0..expected.len() as u64).filter_map(score).collect();
        let mean = |scores: &[f64]| scores.iter().sum::<f64>() / scores.len() as f64;
        let landed = |scores: &[f64]| scores.iter().filter(|score| **score >= 200.0).count();
        let near = scores.iter().zip(&expected).filter(|(found, expected)| (*found - *expected).abs() < 10.0).count();
        // The standard error of the mean is 8
        assert!((mean(&scores) - mean(&expected)).abs() < 16.0);
        assert!(landed(&scores).abs_diff(landed(&expected)) <= 5);
        assert!(near >= 65, "{near} scores lie within 10 of Gymnasium's");
    }
}

/// The value of each state by value iteration, until nothing changes any more
fn optimal_values(model: &Tabular, gamma: f64) -> Vec<f64> {
    let mut values = vec![0.0; model.num_states()];
    for _ in 0..100_000 {
        let value = |state| {
            let follow = |action| -> f64 {
                let outcomes = model.outcomes(state, action).iter();
                let each = outcomes.map(|outcome| {
                    let next = if outcome.terminated { 0.0 } else { values[outcome.next_state as usize] };
                    outcome.probability * (outcome.reward + gamma * next)
                });
                each.sum()
            };
            (0..model.num_actions()).map(follow).fold(f64::NEG_INFINITY, f64::max)
        };
        let next: Vec<_> = (0..model.num_states()).map(value).collect();
        let change = next.iter().zip(&values).map(|(a, b): (&f64, &f64)| (a - b).abs()).fold(0.0, f64::max);
        values = next;
        if change < 1e-13 {
            break;
        }
    }
    values
}

fn optimum(model: &Tabular, gamma: f64) -> f64 {
    model.initial_distribution().iter().zip(optimal_values(model, gamma)).map(|(p, value)| p * value).sum()
}

#[test]
fn tables_have_the_known_optima() {
    for (id, undiscounted, discounted) in [
        ("FrozenLake-v1", 14.0 / 17.0, 0.542_026),
        ("FrozenLake8x8-v1", 1.0, 0.414_640),
        ("CliffWalking-v1", -13.0, -12.2479),
        ("CliffWalkingSlippery-v1", -64.709, -46.3527),
        ("Taxi-v4", 7.93, 6.3275),
    ] {
        let env = make(id, 1, &json!({}));
        let model = env.tabular().expect("it has a table");
        for (gamma, expected, digits) in [(1.0, undiscounted, 5e-4), (0.99, discounted, 5e-5)] {
            let found = optimum(model, gamma);
            assert!((found - expected).abs() < digits, "{id}: {found} with γ = {gamma}");
        }
        for state in 0..model.num_states() {
            for action in 0..model.num_actions() {
                let total: f64 = model.outcomes(state, action).iter().map(|outcome| outcome.probability).sum();
                assert!((total - 1.0).abs() < 1e-12);
            }
        }
    }
}

#[test]
fn grid_worlds_differ_by_seed_and_can_be_solved() {
    let mut env = make("GridWorld-v0", 2, &json!({}));
    let mut observations = [9.0; 2];
    let mut layouts = Vec::new();
    for seed in 0..200 {
        env.reset(Some(seed), &mut observations).expect("it is reset");
        let model = env.tabular().expect("it has a table").clone();
        let best = optimum(&model, 1.0);
        // Eight moves: three obstacles that leave a way leave a shortest one
        assert!((best - 0.93).abs() < 1e-12, "seed {seed}: {best}");
        env.reset(None, &mut observations).expect("it is reset");
        assert_eq!(env.tabular(), Some(&model), "the layout stays from episode to episode");
        if !layouts.contains(&model) {
            layouts.push(model);
        }
    }
    assert!(layouts.len() > 150, "{} layouts", layouts.len());
    let mut pinned = make("GridWorld-v0", 1, &json!({"layout_seed": 3}));
    pinned.reset(Some(77), &mut observations[..1]).expect("it is reset");
    env.reset(Some(3), &mut observations).expect("it is reset");
    assert_eq!(pinned.tabular(), env.tabular());
}

#[test]
fn grid_world_without_a_goal_is_cut_at_its_limit() {
    let mut env = make("GridWorld-v0", 1, &json!({}));
    let mut out = VecStep::of(&*env);
    env.reset(Some(0), &mut out.observations).expect("it is reset");
    for t in 1..=100 {
        // Up, against the border
        env.step(Actions::Discrete(&[0]), &mut out).expect("the step is taken");
        assert_eq!((out.rewards[0], out.terminated[0], out.truncated[0]), (-0.01, false, t == 100));
    }
}

#[test]
fn a_limit_of_ones_own_truncates_and_may_meet_a_termination() {
    let options = |limit| MakeOptions { max_episode_steps: Some(limit), ..MakeOptions::default() };
    let mut env = make_vec("CliffWalking-v1", 1, &options(13)).expect("it is made");
    let mut out = VecStep::of(&*env);
    env.reset(Some(0), &mut out.observations).expect("it is reset");
    // Along the cliff's edge: up, eleven times right, down
    let path = [&[0][..], &[1; 11], &[2]].concat();
    for (t, action) in path.iter().enumerate() {
        env.step(Actions::Discrete(&[*action]), &mut out).expect("the step is taken");
        assert_eq!((out.terminated[0], out.truncated[0]), (t == 12, t == 12));
    }
    assert_eq!((out.final_obs[0], out.observations[0]), (47.0, 36.0));
}

/// Actions of any environment, drawn from one number each
fn act(env: &mut dyn VectorEnv, numbers: &[u32], out: &mut VecStep) {
    let space = env.spec().action_space.clone();
    let done = match &space {
        Space::Discrete { n } => {
            let actions: Vec<_> = numbers.iter().map(|number| number % n).collect();
            env.step(Actions::Discrete(&actions), out)
        }
        Space::Box(_) => {
            let each =
                numbers.iter().flat_map(|number| (0..space.len() as u32).map(move |j| number.rotate_left(7 * j)));
            let actions: Vec<_> = each.map(|number| number as f32 / (1_u32 << 30) as f32 - 2.0).collect();
            env.step(Actions::Continuous(&actions), out)
        }
    };
    done.expect("the step is taken");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Environment `i` of a vector is the single one of seed `seed + i`
    #[test]
    fn a_vector_is_so_many_single_environments(
        which in 0_usize..64,
        seed in prop_oneof![any::<u64>(), Just(u64::MAX - 2), 0..100_u64],
        rounds in prop::collection::vec(prop::array::uniform3(any::<u32>()), 1..120),
    ) {
        let listing = listing().expect("they can be listed");
        let id = listing[which % listing.len()].spec.id.as_str();
        // Its layout belongs to the vector
        let kwargs = if id == "GridWorld-v0" { json!({"layout_seed": 0}) } else { json!({}) };
        let mut all = make(id, 3, &kwargs);
        let mut together = VecStep::of(&*all);
        all.reset(Some(seed), &mut together.observations).expect("it is reset");
        let mut steps = Vec::new();
        for numbers in &rounds {
            act(&mut *all, numbers, &mut together);
            steps.push(together.clone());
        }
        for i in 0..3 {
            let Some(own) = seed.checked_add(i) else { continue };
            let i = i as usize;
            let mut env = make(id, 1, &kwargs);
            let mut out = VecStep::of(&*env);
            env.reset(Some(own), &mut out.observations).expect("it is reset");
            let width = out.observations.len();
            for (numbers, together) in rounds.iter().zip(&steps) {
                act(&mut *env, &numbers[i..=i], &mut out);
                prop_assert_eq!(&out.final_obs, &together.final_obs[i * width..][..width]);
                prop_assert_eq!(&out.observations, &together.observations[i * width..][..width]);
                prop_assert_eq!(out.rewards[0].to_bits(), together.rewards[i].to_bits());
                prop_assert_eq!(out.ended(0), together.ended(i));
                prop_assert_eq!(out.terminated[0], together.terminated[i]);
            }
        }
    }

    /// What is seen lies in the observation space; LunarLander's bounds are no more than usual values
    #[test]
    fn observations_lie_in_their_space(
        which in 0_usize..64,
        seed in any::<u64>(),
        numbers in prop::collection::vec(any::<u32>(), 1..400),
    ) {
        let listing = listing().expect("they can be listed");
        let id = listing[which % listing.len()].spec.id.as_str();
        prop_assume!(!id.starts_with("LunarLander"));
        let mut env = make(id, 1, &json!({}));
        let mut out = VecStep::of(&*env);
        env.reset(Some(seed), &mut out.observations).expect("it is reset");
        for number in numbers {
            act(&mut *env, &[number], &mut out);
            for seen in [&out.observations, &out.final_obs] {
                let inside = match &env.spec().observation_space {
                    Space::Discrete { n } => seen[0] >= 0.0 && seen[0] < *n as f32,
                    Space::Box(space) => (0..seen.len()).all(|j| (space.low[j]..=space.high[j]).contains(&seen[j])),
                };
                prop_assert!(inside, "{} shows {:?}", id, seen);
            }
        }
    }

    /// Uniform integers stay in their range, whatever it is
    #[test]
    fn integers_lie_in_their_range(seed in any::<u64>(), a in any::<i64>(), b in any::<i64>()) {
        prop_assume!(a != b);
        let (low, high) = (a.min(b), a.max(b));
        let mut rng = Pcg64::new(u128::from(seed));
        for _ in 0..8 {
            prop_assert!((low..high).contains(&rng.integers(low, high)));
        }
    }
}

#[test]
fn wrong_requests_are_refused() {
    let refused = |id: &str, num_envs, kwargs: Value, limit| {
        let kwargs = kwargs.as_object().expect("arguments are an object").clone();
        let error =
            make_vec(id, num_envs, &MakeOptions { kwargs, max_episode_steps: limit, ..MakeOptions::default() }).err();
        let error = error.unwrap_or_else(|| panic!("`{id}` was made"));
        assert_eq!(error.exit_code(), 2);
        error.to_string()
    };
    for (message, expected) in [
        (
            refused("CartPole", 1, json!({}), None),
            "no native environment `CartPole`\nhint: did you mean `CartPole-v1`?",
        ),
        (refused("frozenlake-v1", 1, json!({}), None), "did you mean `FrozenLake-v1`?"),
        (refused("HalfCheetah-v5", 1, json!({}), None), "`collimate rl envs` lists them"),
        (refused("Taxi-v4", 1, json!({"is_rainy": true}), None), "`Taxi-v4` takes no argument `is_rainy`"),
        (refused("FrozenLake-v1", 1, json!({"slippery": true}), None), "it takes `map_name`, `desc`, `is_slippery`"),
        (refused("FrozenLake-v1", 1, json!({"success_rate": 1.5}), None), "must be a number from 0 to 1, got `1.5`"),
        (refused("FrozenLake-v1", 1, json!({"desc": ["SF", "G"]}), None), "`desc` of `FrozenLake-v1` must be"),
        (refused("CartPole-v1", 0, json!({}), None), "at least one environment"),
        (refused("CartPole-v1", 1, json!({}), Some(0)), "`max_episode_steps` must be at least 1"),
    ] {
        assert!(message.contains(expected), "{message}");
    }
}

#[test]
fn wrong_steps_are_refused() {
    let mut env = make("CartPole-v1", 2, &json!({}));
    let mut out = VecStep::of(&*env);
    let error = env.step(Actions::Discrete(&[0, 1]), &mut out).expect_err("it was not reset");
    assert!(error.message().contains("must be reset"));
    env.reset(Some(0), &mut out.observations).expect("it is reset");
    let mut refused = |actions: Actions<'_>| env.step(actions, &mut out).expect_err("the step is refused").to_string();
    let message = refused(Actions::Discrete(&[1, 2]));
    assert!(message.contains("action 2 of environment 1") && message.contains("takes 0 to 1"), "{message}");
    assert!(refused(Actions::Discrete(&[1])).contains("expected 2 numbers as actions, found 1"));
    assert!(refused(Actions::Continuous(&[1.0, 1.0])).contains("are Discrete(2)"));
    let mut narrow = VecStep::of(&*make("CartPole-v1", 1, &json!({})));
    assert!(env.step(Actions::Discrete(&[0, 0]), &mut narrow).is_err());
    assert!(env.reset(None, &mut [0.0; 7]).is_err());

    let mut env = make("Pendulum-v1", 1, &json!({}));
    let mut out = VecStep::of(&*env);
    env.reset(Some(0), &mut out.observations).expect("it is reset");
    let error = env.step(Actions::Continuous(&[f32::NAN]), &mut out).expect_err("the step is refused");
    assert!(error.message().contains("environment 0 holds `NaN`"));
}
