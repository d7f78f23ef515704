//! Classical agents: planning against exact optima, learning against the standard test of each algorithm.

use collimate::rl::agents::planning::{
    finite_horizon, finite_horizon_evaluation, policy_evaluation, policy_iteration, start_value, sweep, value_iteration,
};
use collimate::rl::agents::{Exploration, TabularAgent, TabularMethod, TabularOptions};
use collimate::rl::env::{Kwargs, MakeOptions, VectorEnv, make_vec};

fn make(id: &str, max_episode_steps: Option<u32>) -> Box<dyn VectorEnv> {
    make_vec(id, 1, &MakeOptions { max_episode_steps, kwargs: Kwargs::new() }).expect("the environment is made")
}

/// Undiscounted and discounted optima from the start, and the rounds of policy iteration at γ = .99
const OPTIMA: [(&str, f64, f64, usize); 4] = [
    ("FrozenLake-v1", 14.0 / 17.0, 0.542_025_932_000, 7),
    ("FrozenLake8x8-v1", 1.0, 0.414_640_361_800, 11),
    // 13 moves, each -1: -(1 - .99^13) / .01
    ("CliffWalking-v1", -13.0, -12.247_897_700_103_2, 15),
    ("Taxi-v4", 7.93, 6.327_464_314_919, 17),
];

#[test]
fn planning_finds_the_known_optima() {
    for (id, undiscounted, discounted, rounds) in OPTIMA {
        let env = make(id, None);
        let model = env.tabular().expect("toy text has a table");
        let plan = policy_iteration(model, 0.99).unwrap();
        assert_eq!(plan.rounds, rounds, "{id}");
        let swept = value_iteration(model, 0.99, 1e-12, 10_000).unwrap();
        let exact = policy_evaluation(model, &swept.policy, 0.99).unwrap();
        for state in 0..model.num_states() {
            assert!((plan.values[state] - swept.values[state]).abs() < 1e-10, "{id}: state {state}");
            assert!((plan.values[state] - exact[state]).abs() < 1e-10, "{id}: state {state}");
        }
        assert!((plan.start_value(model) - discounted).abs() < 1e-10, "{id}: {:.13}", plan.start_value(model));
        let whole = value_iteration(model, 1.0, 1e-12, 100_000).unwrap().start_value(model);
        assert!((whole - undiscounted).abs() < 1e-10, "{id}: {whole:.13} without discount");
    }
}

#[test]
fn a_time_limit_lowers_what_can_be_reached() {
    for (id, limit, best, stationary) in
        [("FrozenLake-v1", 100, 0.744_19, 0.740_16), ("FrozenLake8x8-v1", 200, 0.913_22, 0.862_96)]
    {
        let env = make(id, None);
        let model = env.tabular().expect("toy text has a table");
        let reached = start_value(model, &finite_horizon(model, 1.0, limit));
        assert!((reached - best).abs() < 1e-5, "{id}: {reached}");
        let policy = policy_iteration(model, 0.99).unwrap().policy;
        let reached = start_value(model, &finite_horizon_evaluation(model, &policy, 1.0, limit));
        assert!((reached - stationary).abs() < 1e-5, "{id}: {reached}");
    }
}

#[test]
fn every_sweep_contracts_by_gamma() {
    let env = make("FrozenLake8x8-v1", None);
    let model = env.tabular().expect("toy text has a table");
    let mut values: Vec<f64> = (0..model.num_states()).map(|state| ((state * 7) % 5) as f64).collect();
    let mut next = values.clone();
    let mut before = sweep(model, 0.9, &values, &mut next);
    for _ in 0..60 {
        std::mem::swap(&mut values, &mut next);
        let change = sweep(model, 0.9, &values, &mut next);
        assert!(change <= 0.9 * before + 1e-15, "{change} after {before}");
        before = change;
    }
}

#[test]
fn a_policy_that_never_ends_has_no_undiscounted_value() {
    let env = make("CliffWalking-v1", None);
    let model = env.tabular().expect("toy text has a table");
    let error = policy_evaluation(model, &vec![0; model.num_states()], 1.0).unwrap_err();
    assert!(error.to_string().contains("never reaches an end"), "{error}");
}

fn tabular(method: TabularMethod, exploration: Exploration, learning_rate: f64, gamma: f64) -> TabularOptions {
    TabularOptions { method, exploration, learning_rate, gamma }
}

/// Sutton & Barto's example 6.6: Q-learning finds the edge of the cliff and falls while exploring, SARSA keeps away
#[test]
fn the_cliff_tells_the_methods_apart() {
    let rule = Exploration::EpsilonGreedy { epsilon: 0.1 };
    for (method, online, path) in [
        (TabularMethod::QLearning, -50.5, -13.0),
        (TabularMethod::Sarsa, -26.5, -17.0),
        (TabularMethod::ExpectedSarsa, -20.8, -15.0),
    ] {
        let mut returns = Vec::new();
        let mut paths = Vec::new();
        for seed in 0..20 {
            let mut env = make("CliffWalking-v1", Some(10_000));
            let mut agent = TabularAgent::new(&*env, tabular(method, rule, 0.5, 1.0), seed).unwrap();
            let episodes = agent.train(&mut *env, 500, seed).unwrap();
            returns.extend(episodes[400..].iter().map(|episode| episode.episode_return));
            let model = env.tabular().expect("toy text has a table");
            let values = finite_horizon_evaluation(model, &agent.greedy_policy(), 1.0, 100);
            paths.push(start_value(model, &values));
        }
        let mean = returns.iter().sum::<f64>() / returns.len() as f64;
        assert!((mean - online).abs() < 3.0, "{method:?} earns {mean}, expected {online}");
        // A step size of .5 never settles, so that now and then a greedy path of SARSA goes round in circles
        paths.sort_by(f64::total_cmp);
        assert_eq!(paths[10], path, "{method:?} goes {paths:?}");
    }
}

#[test]
fn each_exploration_learns_the_lake() {
    for exploration in [
        Exploration::EpsilonGreedy { epsilon: 0.1 },
        Exploration::Boltzmann { temperature: 0.02 },
        Exploration::Ucb { coefficient: 0.1 },
    ] {
        let mut env = make("FrozenLake-v1", None);
        let options = tabular(TabularMethod::QLearning, exploration, 0.02, 0.99);
        let mut agent = TabularAgent::new(&*env, options, 0).unwrap();
        agent.train(&mut *env, 20_000, 0).unwrap();
        let model = env.tabular().expect("toy text has a table");
        let reached = start_value(model, &finite_horizon_evaluation(model, &agent.greedy_policy(), 1.0, 100));
        assert!(reached >= 0.73, "{exploration:?} reaches the goal in {reached} of the episodes");
    }
}

#[test]
fn a_table_needs_states_that_can_be_counted() {
    let env = make("CartPole-v1", None);
    let options = tabular(TabularMethod::Sarsa, Exploration::EpsilonGreedy { epsilon: 0.1 }, 0.5, 1.0);
    let error = TabularAgent::new(&*env, options, 0).unwrap_err();
    assert_eq!((error.exit_code(), error.message().contains("`CartPole-v1` has no table")), (2, true));
}
