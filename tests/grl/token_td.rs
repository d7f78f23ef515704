//! Kernel TD of a token field: sweeps that were computed elsewhere, and the optimum where everything can be enumerated.

use collimate::grl::kernel::Kernel;
use collimate::grl::memory::TokenMemory;
use collimate::grl::target::{Backup, boltzmann, soft_value};
use collimate::grl::token_field::{Cloud, TokenField, TokenKernel};
use collimate::grl::token_td::{Steps, TokenTd};
use serde_json::Value;

use super::{EXACT, Noise, all_close, close, golden, number, numbers, rows};

const FREE: (f64, f64) = (f64::NEG_INFINITY, f64::INFINITY);

const BACKUPS: [(&str, Backup); 4] = [
    ("expected_sarsa", Backup::ExpectedSarsa),
    ("sarsa", Backup::Sarsa),
    ("soft_q", Backup::SoftQ),
    ("hard_q", Backup::HardQ),
];

fn tokens(value: &Value) -> Vec<u32> {
    serde_json::from_value(value.clone()).unwrap()
}

#[test]
fn sweeps_are_those_of_torch() {
    let golden = golden("grl/token_field.json");
    let of = |name: &str| number(&golden[name]);
    let kernel = Kernel::Rbf { variance: 1.0, length: of("length") };
    let low_rank = TokenKernel::LowRank { features: rows(&golden["embeddings"]).concat(), width: 2 };
    for (name, alike) in [("identity", TokenKernel::Identity), ("low_rank", low_rank)] {
        let field = TokenField::new(kernel.clone(), alike, 5, of("top") as usize).unwrap();
        for (backup_name, backup) in BACKUPS {
            let expected = &golden[name][backup_name];
            let rule = TokenTd { backup, rate: of("rate"), eta: of("eta"), tau: of("tau"), merge: 1.0 };
            let mut memory = TokenMemory::new(3, 64).unwrap();
            let sweeps = expected["sweeps"].as_array().unwrap();
            for (response, sweep) in golden["responses"].as_array().unwrap().iter().zip(sweeps) {
                let (states, logits) = (rows(&response["states"]), rows(&response["logits"]).concat());
                let tokens = tokens(&response["tokens"]);
                let advantage = number(&response["advantage"]);
                let steps = Steps { states: &states, logits: &logits, tokens: &tokens, advantage, bounds: FREE };
                // Weights are kept in f32
                let before = rule.log_probs(&field, &memory, &steps).unwrap();
                all_close(&before, &numbers(&sweep["log_probs"]), 1e-5);
                let errors = rule.learn(&field, &mut memory, &steps, 0).unwrap();
                all_close(&errors, &numbers(&sweep["errors"]), 1e-5);
            }
            let weights: Vec<f64> = (0..memory.len()).map(|i| f64::from(memory.particle(i).alpha)).collect();
            all_close(&weights, &numbers(&expected["weights"]), 1e-5);
            let probe: Vec<f32> = serde_json::from_value(expected["probe"].clone()).unwrap();
            let q: Vec<f64> = field.query(&memory, &probe).unwrap().into_iter().map(f64::from).collect();
            all_close(&q, &numbers(&expected["q"]), 1e-5);
        }
    }
}

#[test]
fn clouds_are_those_of_numpy_and_shrink_to_their_centres() {
    let golden = golden("grl/token_field.json");
    let expected = &golden["cloud"];
    let of = |name: &str| number(&expected[name]);
    let row = |value: &Value| -> Vec<f32> { serde_json::from_value(value.clone()).unwrap() };
    let states = Kernel::Rbf { variance: 1.0, length: number(&golden["length"]) };
    let cloud = Cloud {
        features: rows(&golden["embeddings"]).concat(),
        width: 2,
        length: of("length"),
        scale: of("scale"),
        draws: rows(&expected["draws"]).concat(),
        candidates: of("candidates") as usize,
    };
    let mut memory = TokenMemory::new(3, 64).unwrap();
    for particle in expected["particles"].as_array().unwrap() {
        let (token, weight) = (particle["token"].as_u64().unwrap() as u32, number(&particle["weight"]));
        memory.add(&states, &row(&particle["state"]), token, weight, 0).unwrap();
    }
    let (state, logits, top) = (row(&expected["state"]), row(&expected["logits"]), number(&golden["top"]) as usize);
    let read = |tokens: TokenKernel| {
        let field = TokenField::new(states.clone(), tokens, 5, top).unwrap();
        let q = field.read(&memory, &state, &logits, of("tau")).unwrap();
        q.into_iter().map(f64::from).collect::<Vec<f64>>()
    };
    all_close(&read(TokenKernel::Cloud(cloud.clone())), &numbers(&expected["q"]), 1e-5);
    // Clouds without extent and a kernel that no other token feels: the discrete field
    let points = Cloud { scale: 0.0, length: 1e-3, candidates: 5, ..cloud.clone() };
    all_close(&read(TokenKernel::Cloud(points)), &read(TokenKernel::Identity), 1e-6);
    let wrong = TokenField::new(states.clone(), TokenKernel::Cloud(Cloud { width: 3, ..cloud }), 5, top);
    assert!(wrong.unwrap_err().to_string().contains("clouds of 5 tokens"));
}

const V: usize = 3;
const T: usize = 3;
const PREFIXES: usize = 1 + V + V * V;

/// A prefix as a point far from all others
fn place(prefix: usize) -> Vec<f32> {
    (0..PREFIXES).map(|i| if i == prefix { 1.0 } else { 0.0 }).collect()
}

/// Prefixes before each token, and the tokens, of response `code`
fn response(mut code: usize) -> (Vec<usize>, Vec<u32>) {
    let (mut prefix, mut prefixes, mut tokens) = (0, Vec::new(), Vec::new());
    for _ in 0..T {
        let token = code % V;
        code /= V;
        prefixes.push(prefix);
        tokens.push(token as u32);
        prefix = prefix * V + token + 1;
    }
    (prefixes, tokens)
}

/// Off-policy, for every response is shown as often as any other
#[test]
fn a_steered_model_finds_the_enumerated_optimum() {
    let (tau, n) = (0.4, V.pow(T as u32));
    let mut noise = Noise(5);
    let logits: Vec<Vec<f32>> =
        (0..PREFIXES).map(|_| noise.signed(V).into_iter().map(|x| x as f32).collect()).collect();
    let rewards = noise.signed(n);
    let kernel = Kernel::Rbf { variance: 1.0, length: 1e-2 };
    let field = TokenField::new(kernel, TokenKernel::Identity, V, 4 * V).unwrap();
    let log_probs_of = |eta: f64, memory: &TokenMemory, backup: Backup| -> Vec<f64> {
        let rule = TokenTd { backup, rate: 1.0, eta, tau, merge: 1.0 };
        let of = |code: usize| {
            let (prefixes, tokens) = response(code);
            let states: Vec<Vec<f32>> = prefixes.iter().map(|prefix| place(*prefix)).collect();
            let logits: Vec<f32> = prefixes.iter().flat_map(|prefix| logits[*prefix].clone()).collect();
            let steps = Steps { states: &states, logits: &logits, tokens: &tokens, advantage: 0.0, bounds: FREE };
            rule.log_probs(&field, memory, &steps).unwrap().iter().sum()
        };
        (0..n).map(of).collect()
    };
    let reference = log_probs_of(0.0, &TokenMemory::new(PREFIXES, 64).unwrap(), Backup::SoftQ);
    let (optimum, value) = (boltzmann(&rewards, &reference, tau), soft_value(&rewards, &reference, tau));
    for backup in [Backup::SoftQ, Backup::ExpectedSarsa] {
        let rule = TokenTd { backup, rate: 1.0, eta: 1.0, tau, merge: 1.0 };
        let mut memory = TokenMemory::new(PREFIXES, 64).unwrap();
        for _ in 0..=T {
            for (code, reward) in rewards.iter().enumerate() {
                let (prefixes, tokens) = response(code);
                let states: Vec<Vec<f32>> = prefixes.iter().map(|prefix| place(*prefix)).collect();
                let logits: Vec<f32> = prefixes.iter().flat_map(|prefix| logits[*prefix].clone()).collect();
                let steps = Steps {
                    states: &states,
                    logits: &logits,
                    tokens: &tokens,
                    advantage: reward - value,
                    bounds: FREE,
                };
                rule.learn(&field, &mut memory, &steps, 0).unwrap();
            }
        }
        let found = log_probs_of(1.0, &memory, backup);
        let kl: f64 = found.iter().zip(&optimum).map(|(p, o)| p.exp() * (p - o)).sum();
        assert!(kl.abs() < 1e-6, "{backup:?}: KL to the optimum is {kl}");
        all_close(&found, &optimum, 1e-5);
    }
    close(optimum.iter().map(|p| p.exp()).sum(), 1.0, EXACT);
}

#[test]
fn responses_that_make_no_sense_are_refused() {
    let field = TokenField::new(Kernel::Rbf { variance: 1.0, length: 1.0 }, TokenKernel::Identity, 2, 4).unwrap();
    let rule = TokenTd { backup: Backup::SoftQ, rate: 0.5, eta: 1.0, tau: 0.1, merge: 1.0 };
    let (states, logits) = (vec![vec![0.0_f32]], [0.0_f32, 1.0]);
    let refused = |steps: &Steps<'_>, reason: &str| {
        let mut memory = TokenMemory::new(1, 4).unwrap();
        let error = rule.learn(&field, &mut memory, steps, 0).unwrap_err().to_string();
        assert!(error.contains(reason), "{error}");
        assert!(memory.is_empty());
    };
    let sound = Steps { states: &states, logits: &logits, tokens: &[1], advantage: 0.5, bounds: FREE };
    for advantage in [f64::NAN, f64::INFINITY] {
        refused(&Steps { advantage, ..sound }, "reward less value");
    }
    refused(&Steps { tokens: &[2], ..sound }, "a response of 1 tokens");
    refused(&Steps { tokens: &[], ..sound }, "a response of 0 tokens");
    refused(&Steps { states: &[], ..sound }, "0 states");
}

#[test]
fn near_states_share_a_particle_and_targets_stay_within_bounds() {
    let field = TokenField::new(Kernel::Rbf { variance: 1.0, length: 1.0 }, TokenKernel::Identity, 2, 8).unwrap();
    let rule = TokenTd { backup: Backup::SoftQ, rate: 1.0, eta: 1.0, tau: 0.1, merge: 0.98 };
    let mut memory = TokenMemory::new(1, 8).unwrap();
    let mut learn = |place: f32, token: u32, advantage: f64| {
        let states = vec![vec![place]];
        let steps = Steps { states: &states, logits: &[0.0, 0.0], tokens: &[token], advantage, bounds: (-1.0, 2.0) };
        (rule.learn(&field, &mut memory, &steps, 0).unwrap()[0], memory.len())
    };
    assert_eq!(learn(0.0, 0, 0.5), (0.5, 1));
    // Correlations of 0.995 and, for the third, 0.96
    assert_eq!(learn(0.1, 0, 0.5).1, 1);
    assert_eq!(learn(0.1, 1, 0.5).1, 2);
    assert_eq!(learn(0.29, 0, 0.5).1, 3);
    assert_eq!(learn(9.0, 0, 50.0), (2.0, 4));
    assert_eq!(learn(-9.0, 0, -50.0), (-1.0, 5));
}
