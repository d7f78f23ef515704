//! Off-policy agents, each against the standard test of its algorithm.

use collimate::algo::q::{double_values, max_values};
use collimate::algo::soft::soft_values;
use collimate::rl::agents::{
    Agent, Dqn, DqnOptions, ReplayOptions, Sac, SacOptions, Schedule, Td3, Td3Options, Temperature,
};
use collimate::rl::env::rng::Pcg64;
use collimate::rl::env::{Actions, BoxSpace, EnvSpec, Kwargs, MakeOptions, Space, VecStep, VectorEnv, make_vec};
use collimate::rl::evaluate::play;
use collimate::rl::policy::Policy;
use collimate::rl::random::standard_normal;
use collimate::rl::saved;
use serde_json::json;

fn make(id: &str, n: usize, kwargs: &serde_json::Value) -> Box<dyn VectorEnv> {
    let kwargs = kwargs.as_object().cloned().unwrap_or_default();
    make_vec(id, n, &MakeOptions { kwargs, ..MakeOptions::default() }).expect("the environment is made")
}

fn train(agent: &mut dyn Agent, total: u64) -> Policy {
    while !agent.is_done(total) {
        agent.iterate(total).expect("an iteration succeeds");
    }
    agent.policy()
}

/// x' = x + u, cost x² + u², discounted by .9: the best u is -K x by Riccati's equation, and meets no bound
struct Regulator {
    spec: EnvSpec,
    states: Vec<f32>,
    elapsed: u32,
    rng: Pcg64,
}

const HORIZON: u32 = 4;
const GAMMA: f64 = 0.9;

impl Regulator {
    fn new(n: usize) -> Self {
        let vector = |bound: f32| Space::Box(BoxSpace { shape: vec![1], low: vec![-bound], high: vec![bound] });
        let spec = EnvSpec {
            id: "Regulator".to_owned(),
            observation_space: vector(2.0),
            action_space: vector(1.0),
            max_episode_steps: Some(HORIZON),
            reward_threshold: None,
        };
        Self { spec, states: vec![0.0; n], elapsed: 0, rng: Pcg64::new(0) }
    }

    /// K of u = -K x: p = 1 + γ p / (1 + γ p) is the value's curvature
    fn gain() -> f64 {
        let mut p = 1.0;
        for _ in 0..1000 {
            p = 1.0 + GAMMA * p / (1.0 + GAMMA * p);
        }
        GAMMA * p / (1.0 + GAMMA * p)
    }

    fn start(&mut self) {
        self.elapsed = 0;
        let rng = &mut self.rng;
        self.states.fill_with(|| rng.uniform(-1.5, 1.5) as f32);
    }
}

impl VectorEnv for Regulator {
    fn spec(&self) -> &EnvSpec {
        &self.spec
    }

    fn num_envs(&self) -> usize {
        self.states.len()
    }

    fn reset(&mut self, seed: Option<u64>, observations: &mut [f32]) -> collimate::Result<()> {
        if let Some(seed) = seed {
            self.rng = Pcg64::new(u128::from(seed));
        }
        self.start();
        observations.copy_from_slice(&self.states);
        Ok(())
    }

    fn step(&mut self, actions: Actions<'_>, out: &mut VecStep) -> collimate::Result<()> {
        let Actions::Continuous(actions) = actions else { panic!("the actions are continuous") };
        self.elapsed += 1;
        for (i, (state, action)) in self.states.iter_mut().zip(actions).enumerate() {
            out.rewards[i] = -f64::from(*state * *state + *action * *action);
            *state = (*state + action).clamp(-2.0, 2.0);
            out.final_obs[i] = *state;
        }
        out.terminated.fill(false);
        out.truncated.fill(self.elapsed == HORIZON);
        if self.elapsed == HORIZON {
            self.start();
        }
        out.observations.copy_from_slice(&self.states);
        Ok(())
    }
}

/// What the policy does in a state
fn action(policy: &Policy, state: f32) -> f64 {
    match policy.actor(1, true, 0).act(&[state]) {
        Actions::Continuous(action) => f64::from(action[0]),
        Actions::Discrete(_) => panic!("the actions are continuous"),
    }
}

fn regulates(name: &str, policy: &Policy) {
    let gain = Regulator::gain();
    assert!((gain - 0.588_4).abs() < 1e-3, "{gain}");
    for state in [-1.0, -0.5, 0.5, 1.0] {
        let (found, best) = (action(policy, state), -gain * f64::from(state));
        assert!((found - best).abs() < 0.12, "{name} does {found} at {state}, where {best} is best");
    }
}

fn replay() -> ReplayOptions {
    ReplayOptions { batch_size: 64, gamma: GAMMA, learning_starts: 200, ..ReplayOptions::default() }
}

/// Every episode is truncated after four steps: an agent that took this for an end would hardly act in a quarter of them
#[test]
fn continuous_agents_find_the_linear_quadratic_regulator() {
    let (learning_rate, hidden) = (Schedule::constant(1e-3), vec![32, 32]);
    let td3 =
        Td3Options { learning_rate, replay: replay(), tau: 0.02, hidden: hidden.clone(), ..Td3Options::default() };
    regulates("td3", &train(&mut Td3::new(Box::new(Regulator::new(1)), td3, 0).unwrap(), 6000));
    let sac = SacOptions {
        learning_rate,
        replay: replay(),
        tau: 0.02,
        ent_coef: Temperature::Fixed(0.01),
        hidden,
        ..SacOptions::default()
    };
    regulates("sac", &train(&mut Sac::new(Box::new(Regulator::new(1)), sac, 0).unwrap(), 6000));
}

/// van Hasselt 2010: the largest of five estimates of 0 with unit noise is 1.163 too high; one estimate that chooses and
/// another that judges have no bias; the smaller of two critics is too low
#[test]
fn two_critics_do_not_overestimate() {
    const ARMS: usize = 5;
    const STATES: usize = 20_000;
    let mut rng = Pcg64::new(0);
    let mut noise = |n: usize| (0..n).map(|_| standard_normal(&mut rng) as f32).collect::<Vec<f32>>();
    let (first, second) = (noise(ARMS * STATES), noise(ARMS * STATES));
    let (mut single, mut double) = (vec![0.0; STATES], vec![0.0; STATES]);
    max_values(&first, &mut single);
    double_values(&first, &second, &mut double);
    let mean = |values: &[f32]| values.iter().map(|x| f64::from(*x)).sum::<f64>() / values.len() as f64;
    assert!((mean(&single) - 1.163).abs() < 0.02, "{}", mean(&single));
    assert!(mean(&double).abs() < 0.02, "{}", mean(&double));
    let mut smaller = vec![0.0; ARMS * STATES];
    soft_values(&first, &second, &vec![0.0; ARMS * STATES], 0.0, &mut smaller);
    assert!(smaller.iter().zip(first.iter().zip(&second)).all(|(min, (a, b))| min <= a && min <= b));
    // E min of two standard normals is -1/√π
    assert!((mean(&smaller) + 1.0 / std::f64::consts::PI.sqrt()).abs() < 0.01, "{}", mean(&smaller));
}

#[test]
fn threads_do_not_change_a_byte() {
    let run = |threads: usize, agent: fn() -> Box<dyn Agent>| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| train(&mut *agent(), 160).params.iter().map(|x| x.to_bits()).collect::<Vec<_>>())
    };
    let agents: [fn() -> Box<dyn Agent>; 2] = [
        || Box::new(Sac::new(make("Pendulum-v1", 2, &json!({})), SacOptions::default(), 3).unwrap()),
        || Box::new(Td3::new(make("Pendulum-v1", 2, &json!({})), Td3Options::default(), 3).unwrap()),
    ];
    for agent in agents {
        assert_eq!(run(1, agent), run(2, agent));
    }
}

#[test]
fn saved_policies_play_as_before() {
    let agents: [Box<dyn Agent>; 2] = [
        Box::new(Sac::new(make("Pendulum-v1", 1, &json!({})), SacOptions::default(), 3).unwrap()),
        Box::new(Td3::new(make("Pendulum-v1", 1, &json!({})), Td3Options::default(), 3).unwrap()),
    ];
    for mut agent in agents {
        let policy = train(&mut *agent, 110);
        let folder = tempfile::tempdir().unwrap();
        let (agent, env) = ("any".to_owned(), "Pendulum-v1".to_owned());
        let origin = saved::Origin { agent, env, env_kwargs: Kwargs::new(), max_episode_steps: None, gym: None };
        saved::save(folder.path(), &policy, &origin).unwrap();
        let mut env = make("Pendulum-v1", 2, &json!({}));
        let loaded = saved::load(folder.path(), env.spec()).unwrap();
        for deterministic in [true, false] {
            let mut returns = |policy| play(policy, &mut *env, 3, deterministic, 5).unwrap().returns;
            assert_eq!(returns(&loaded), returns(&policy));
        }
        let other = make("CartPole-v1", 1, &json!({}));
        assert_eq!(saved::load(folder.path(), other.spec()).unwrap_err().exit_code(), 2);
    }
}

#[test]
fn squashing_needs_bounds() {
    for id in ["CartPole-v1", "Taxi-v4"] {
        let errors = [
            Sac::new(make(id, 1, &json!({})), SacOptions::default(), 0).err(),
            Td3::new(make(id, 1, &json!({})), Td3Options::default(), 0).err(),
        ];
        for error in errors {
            let error = error.expect("discrete actions are refused");
            assert_eq!((error.exit_code(), error.message().contains("are discrete")), (2, true));
        }
    }
}

const BITS: usize = 8;

fn bit_flip(n_sampled_goal: usize) -> DqnOptions {
    DqnOptions {
        learning_rate: Schedule::constant(1e-3),
        replay: ReplayOptions {
            batch_size: 64,
            gamma: 0.98,
            learning_starts: 200,
            train_freq: 8,
            gradient_steps: Some(8),
            n_sampled_goal,
            ..ReplayOptions::default()
        },
        target_update_interval: 100,
        exploration_fraction: 0.3,
        exploration_final_eps: 0.1,
        ..DqnOptions::default()
    }
}

/// Share of episodes that reach the goal, which costs less than one reward for every bit
fn success(policy: &Policy) -> f64 {
    let mut env = make("BitFlip-v0", 10, &json!({"n_bits": BITS}));
    let played = play(policy, &mut *env, 100, true, 1_000_000).expect("the policy plays");
    played.returns.iter().filter(|of_episode| **of_episode > -(BITS as f64)).count() as f64 / 100.0
}

/// Andrychowicz et al. 2017, figure 1
#[test]
fn hindsight_flips_the_bits_that_dqn_does_not() {
    let reached = [4, 0].map(|goals| {
        let env = make("BitFlip-v0", 1, &json!({"n_bits": BITS}));
        success(&train(&mut Dqn::new(env, bit_flip(goals), 0).unwrap(), 8_000))
    });
    assert!(reached[0] >= 0.9 && reached[1] <= 0.3, "with goals in hindsight {}, without {}", reached[0], reached[1]);
}

#[test]
fn bits_flip_until_they_are_as_wanted_or_time_is_up() {
    let mut env = make("BitFlip-v0", 1, &json!({"n_bits": 3}));
    assert_eq!((env.spec().max_episode_steps, env.spec().action_space.discrete()), (Some(3), Some(3)));
    let mut step = VecStep::of(&*env);
    let goal_of = |observation: &[f32]| observation[3..].to_vec();
    for seed in 0..8 {
        env.reset(Some(seed), &mut step.observations).unwrap();
        let (start, goal) = (step.observations[..3].to_vec(), goal_of(&step.observations));
        assert_ne!(start, goal);
        let wrong: Vec<_> = (0..3).filter(|bit| start[*bit] != goal[*bit]).collect();
        for (at, bit) in wrong.iter().enumerate() {
            env.step(Actions::Discrete(&[*bit as u32]), &mut step).unwrap();
            let done = at + 1 == wrong.len();
            assert_eq!((step.rewards[0], step.terminated[0]), (if done { 0.0 } else { -1.0 }, done));
            assert_eq!(goal_of(&step.final_obs), goal);
        }
    }
    let goals = env.goals().expect("it has goals");
    assert_eq!(
        (goals.judge(&[1.0, 0.0, 1.0], &[1.0, 0.0, 1.0]), goals.judge(&[1.0; 3], &[0.0; 3])),
        ((0.0, true), (-1.0, false))
    );
    let error = Dqn::new(make("CartPole-v1", 1, &json!({})), bit_flip(4), 0).err().expect("there are no goals");
    assert!(error.exit_code() == 2 && error.message().contains("has no goals"));
}
