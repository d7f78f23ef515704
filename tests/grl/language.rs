//! Limits on responses, with policies small enough that everything can be enumerated (limits 6 to 9 and 12 to 15).

use std::path::Path;
use std::sync::Arc;

use collimate::algo::policy::Clip;
use collimate::grl::importance::{effective_sample_size, importance_mean, sequence_kl, soft_optimal_value};
use collimate::grl::kernel::{Kernel, Point};
use collimate::grl::loss::{Batch, Pair, Reduction, SubPath, awr, clip, group_means, pair, pcl, pcl_spans, reinforce};
use collimate::grl::memory::TokenMemory;
use collimate::grl::target::{boltzmann, soft_value};
use collimate::grl::token_field::{TokenField, TokenKernel, continuous_log_probs, steer};
use collimate::grl::value::{Estimator, ValueField};
use collimate::model::gpt2::Gpt2;
use collimate::ops::Ragged;

use super::{EXACT, Noise, all_close, close, identities};

fn log_softmax(logits: &[f64]) -> Vec<f64> {
    let largest = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let total = largest + logits.iter().map(|x| (x - largest).exp()).sum::<f64>().ln();
    logits.iter().map(|x| x - total).collect()
}

/// A response model with a row of logits for each prefix, and all its responses
struct Tiny {
    vocabulary: usize,
    reference: Vec<Vec<f64>>,
    /// For each response the (prefix, token) of each step
    responses: Vec<Vec<(usize, usize)>>,
}

impl Tiny {
    fn new(vocabulary: usize, length: usize, noise: &mut Noise) -> Self {
        let prefixes: usize = (0..length).map(|t| vocabulary.pow(t as u32)).sum();
        let reference = (0..prefixes).map(|_| log_softmax(&noise.signed(vocabulary))).collect();
        let response = |mut code: usize| {
            let mut prefix = 0;
            let step = |_| {
                let token = code % vocabulary;
                code /= vocabulary;
                let at = (prefix, token);
                prefix = prefix * vocabulary + token + 1;
                at
            };
            (0..length).map(step).collect()
        };
        let responses = (0..vocabulary.pow(length as u32)).map(response).collect();
        Self { vocabulary, reference, responses }
    }

    fn policy(&self, theta: &[f64]) -> Vec<Vec<f64>> {
        let rows = self.reference.iter().zip(theta.chunks_exact(self.vocabulary));
        rows.map(|(reference, theta)| log_softmax(&reference.iter().zip(theta).map(|(r, t)| r + t).collect::<Vec<_>>()))
            .collect()
    }

    fn parameters(&self) -> usize {
        self.reference.len() * self.vocabulary
    }

    /// log-probabilities of these responses' tokens, flat
    fn tokens(&self, which: &[usize], table: &[Vec<f64>]) -> Vec<f64> {
        which.iter().flat_map(|i| self.responses[*i].iter().map(|(prefix, token)| table[*prefix][*token])).collect()
    }

    fn log_probs(&self, table: &[Vec<f64>]) -> Vec<f64> {
        self.responses.iter().map(|steps| steps.iter().map(|(prefix, token)| table[*prefix][*token]).sum()).collect()
    }

    /// From ∂loss/∂log π of tokens to ∂loss/∂θ
    fn chain(&self, which: &[usize], table: &[Vec<f64>], grad: &[f64]) -> Vec<f64> {
        let mut out = vec![0.0; self.parameters()];
        let steps = which.iter().flat_map(|i| &self.responses[*i]);
        for ((prefix, token), grad) in steps.zip(grad) {
            let row = &mut out[prefix * self.vocabulary..(prefix + 1) * self.vocabulary];
            for (a, out) in row.iter_mut().enumerate() {
                *out += grad * (f64::from(u8::from(a == *token)) - table[*prefix][a].exp());
            }
        }
        out
    }

    fn lengths(&self, n: usize) -> Vec<usize> {
        vec![self.responses[0].len(); n]
    }
}

const TAU: f64 = 0.3;

#[test]
fn limit_6_path_consistency_is_tau_times_reinforce_for_every_sample() {
    let mut noise = Noise(1);
    let tiny = Tiny::new(5, 3, &mut noise);
    let theta = noise.signed(tiny.parameters());
    let table = tiny.policy(&theta);
    for i in [0, 17, 93, 124] {
        let (reward, value) = (noise.signed(1)[0] * 3.0, noise.signed(1)[0]);
        let loss_at = |table: &[Vec<f64>]| {
            let (policy, reference) = (tiny.tokens(&[i], table), tiny.tokens(&[i], &tiny.reference));
            let batch = Batch::new(&policy, &reference, &tiny.lengths(1)).unwrap();
            let loss = pcl(&batch, &[reward], &[value], TAU, None).unwrap();
            let advantage = reward - TAU * batch.log_ratios()[0] - value;
            // ∇ of −A log π is minus REINFORCE's direction
            let direction = reinforce(&batch, &[advantage], Reduction::SequenceMean).unwrap();
            (loss, direction.grad_log_probs.iter().map(|g| -g).collect::<Vec<f64>>())
        };
        let (loss, direction) = loss_at(&table);
        let grad = tiny.chain(&[i], &table, &loss.grad_log_probs);
        let expected: Vec<f64> = tiny.chain(&[i], &table, &direction).iter().map(|g| -TAU * g).collect();
        all_close(&grad, &expected, EXACT);
        // And both are the derivative
        for at in (0..theta.len()).step_by(7) {
            let shifted = |by: f64| {
                let mut theta = theta.clone();
                theta[at] += by;
                loss_at(&tiny.policy(&theta)).0.loss
            };
            close(grad[at], (shifted(1e-6) - shifted(-1e-6)) / 2e-6, 1e-8);
        }
    }
}

/// Rewards, log-ratios and soft returns of K responses to each of three prompts, and the field of the soft returns
struct Groups {
    prompts: Vec<u64>,
    policy: Vec<f64>,
    rewards: Vec<f64>,
    soft: Vec<f64>,
}

const K: usize = 4;

impl Groups {
    fn new(seed: u64) -> Self {
        let mut noise = Noise(seed);
        let policy: Vec<f64> = noise.signed(3 * K).iter().map(|x| 2.0 * x - 2.0).collect();
        let rewards: Vec<f64> = noise.signed(3 * K).iter().map(|x| 3.0 * x).collect();
        let soft = rewards.iter().zip(&policy).map(|(r, l)| r - TAU * (l + 2.0)).collect();
        Self { prompts: (0..3 * K).map(|i| (i / K) as u64).collect(), policy, rewards, soft }
    }

    fn field(&self, values: &[f64]) -> ValueField {
        let seen: Vec<(u64, f64)> = self.prompts.iter().copied().zip(values.iter().copied()).collect();
        let kernel = Kernel::Delta { variance: 1.0 };
        Estimator::NadarayaWatson { kernel }.fit(&identities(&seen)).unwrap()
    }

    fn pcl_grad(&self, values: &[f64]) -> (Vec<f64>, Vec<f64>) {
        let reference = vec![-2.0; 3 * K];
        let batch = Batch::new(&self.policy, &reference, &[1; 3 * K]).unwrap();
        let loss = pcl(&batch, &self.rewards, values, TAU, None).unwrap();
        (loss.residuals, loss.grad_log_probs)
    }
}

#[test]
fn limit_7_leave_one_out_by_identity_is_rloo_and_standardised_grpo() {
    let groups = Groups::new(21);
    let field = groups.field(&groups.soft);
    let samples = groups.prompts.iter().zip(&groups.soft);
    let values: Vec<f64> = samples.map(|(key, b)| field.leave_one_out(Point::id(*key), *b)).collect();
    let (residuals, grad) = groups.pcl_grad(&values);
    for (i, residual) in residuals.iter().enumerate() {
        let group = &groups.soft[i / K * K..(i / K + 1) * K];
        let others = (group.iter().sum::<f64>() - groups.soft[i]) / (K - 1) as f64;
        close(*residual, groups.soft[i] - others, EXACT);
        close(grad[i], -TAU * (groups.soft[i] - others) / (3 * K) as f64, EXACT);
    }
    let ids: Vec<u32> = groups.prompts.iter().map(|key| *key as u32).collect();
    all_close(&group_means(&groups.soft, &ids, true), &values, EXACT);
    // On bare rewards and with the particle's own spread
    let field = groups.field(&groups.rewards);
    for (i, reward) in groups.rewards.iter().enumerate() {
        let group = &groups.rewards[i / K * K..(i / K + 1) * K];
        let mean = group.iter().sum::<f64>() / K as f64;
        let deviation = (group.iter().map(|r| (r - mean).powi(2)).sum::<f64>() / (K - 1) as f64).sqrt();
        let prediction = field.predict(Point::id(groups.prompts[i]));
        let advantage = (reward - prediction.mean) / (prediction.spread.unwrap().sqrt() + 1e-4);
        close(advantage, (reward - mean) / (deviation + 1e-4), EXACT);
    }
}

#[test]
fn limit_8_the_group_mean_gives_the_gradient_of_trajectory_balance() {
    let groups = Groups::new(22);
    let field = groups.field(&groups.soft);
    let values: Vec<f64> = groups.prompts.iter().map(|key| field.value(Point::id(*key))).collect();
    let (_, grad) = groups.pcl_grad(&values);
    for (i, grad) in grad.iter().enumerate() {
        // (log Z + log π − log π_ref − R/β)² with log Z the detached group mean of log π_ref − log π + R/β
        let term = |j: usize| -(groups.policy[j] + 2.0) + groups.rewards[j] / TAU;
        let log_z = (i / K * K..(i / K + 1) * K).map(term).sum::<f64>() / K as f64;
        let vargrad = 2.0 * (log_z - term(i)) / (3 * K) as f64;
        close(*grad, 0.5 * TAU * TAU * vargrad, EXACT);
    }
    let ids: Vec<u32> = groups.prompts.iter().map(|key| *key as u32).collect();
    all_close(&group_means(&groups.soft, &ids, false), &values, EXACT);
    assert_eq!(group_means(&[3.0, 5.0], &[7, 8], true), [3.0, 5.0], "alone, a response is its own mean");
}

#[test]
fn limit_9_a_value_head_and_one_response_are_dro() {
    let mut noise = Noise(23);
    let (policy, reference, rewards, values) = (noise.signed(6), noise.signed(6), noise.signed(3), noise.signed(3));
    let dro = |policy: &[f64], values: &[f64]| {
        let ratio = |i: usize| policy[2 * i] + policy[2 * i + 1] - reference[2 * i] - reference[2 * i + 1];
        (0..3).map(|i| 0.5 * (rewards[i] - values[i] - TAU * ratio(i)).powi(2)).sum::<f64>() / 3.0
    };
    let loss = pcl(&Batch::new(&policy, &reference, &[2; 3]).unwrap(), &rewards, &values, TAU, None).unwrap();
    close(loss.loss, dro(&policy, &values), EXACT);
    let slope = |of: &dyn Fn(f64) -> f64| (of(1e-5) - of(-1e-5)) / 2e-5;
    let moved = |values: &[f64], at: usize, by: f64| {
        let mut values = values.to_vec();
        values[at] += by;
        values
    };
    for i in 0..3 {
        close(loss.grad_values[i], slope(&|by| dro(&policy, &moved(&values, i, by))), EXACT);
        close(loss.grad_log_probs[2 * i], slope(&|by| dro(&moved(&policy, 2 * i, by), &values)), EXACT);
    }
}

#[test]
fn limit_10_the_value_cancels_within_a_pair() {
    let mut noise = Noise(24);
    let (policy, reference, rewards) = (noise.signed(2), noise.signed(2), noise.signed(2));
    let batch = Batch::new(&policy, &reference, &[1, 1]).unwrap();
    let loss = pair(&batch, &[(0, 1)], Pair::Residual { rewards: &rewards }, TAU).unwrap();
    for v in [-5.0, 0.0, 100.0] {
        let residuals = pcl(&batch, &rewards, &[v, v], TAU, None).unwrap().residuals;
        close(loss.loss, 0.5 * (residuals[0] - residuals[1]).powi(2), EXACT);
    }
}

#[test]
fn limit_12_where_nothing_has_moved_the_clipped_surrogate_is_the_policy_gradient() {
    let mut noise = Noise(25);
    let policy: Vec<f64> = noise.signed(7).iter().map(|x| x - 1.0).collect();
    let advantages = noise.signed(3);
    for reduction in [Reduction::SequenceMean, Reduction::TokenMean] {
        let batch = Batch::new(&policy, &policy, &[2, 4, 1]).unwrap();
        let clipped = clip(&batch, &policy, &advantages, &Clip::symmetric(0.2), reduction).unwrap();
        let plain = reinforce(&batch, &advantages, reduction).unwrap();
        assert_eq!(clipped.grad_log_probs, plain.grad_log_probs);
        assert_eq!(clipped.clipped, 0.0);
    }
}

#[test]
fn limit_13_no_field_no_change_and_the_limits_of_temperature() {
    let logits = [0.3_f32, -7.25, f32::NEG_INFINITY, 2.5, -0.0];
    let q = [1.0_f32, 5.0, 9.0, -2.0, 0.5];
    let bits = |logits: &[f32]| logits.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
    let steered = |eta: f64, tau: f64| {
        let mut steered = logits;
        steer(&mut steered, &q, eta, tau);
        steered
    };
    assert_eq!(bits(&steered(0.0, 0.1)), bits(&logits));
    let far = steered(1.0, 1e12);
    assert!(far.iter().zip(logits).all(|(a, b)| *a == b || (a - b).abs() < 1e-6), "{far:?}");
    // The largest q is outside the support and stays there
    let cold = log_softmax(&steered(1.0, 1e-3).map(f64::from));
    assert_eq!(cold[2], f64::NEG_INFINITY);
    close(cold[1], 0.0, EXACT);
    // In between it is the Boltzmann policy, whose centring is of no consequence
    let reference = log_softmax(&logits.map(f64::from));
    let expected = boltzmann(&q.map(f64::from), &reference, 0.7);
    let got = log_softmax(&steered(1.0, 0.7).map(f64::from));
    for a in [0, 1, 3, 4] {
        assert!((got[a] - expected[a]).abs() < 1e-5, "{} {}", got[a], expected[a]);
    }
}

#[test]
fn limit_14_off_policy_path_consistency_finds_the_optimum_only_with_a_refreshed_value() {
    let (tau, rate) = (0.5, 8.0);
    let mut noise = Noise(26);
    let tiny = Tiny::new(4, 3, &mut noise);
    let n = tiny.responses.len();
    let rewards: Vec<f64> = noise.signed(n).iter().map(|x| 1.5 * x).collect();
    let reference = tiny.log_probs(&tiny.reference);
    let optimal_value = soft_value(&rewards, &reference, tau);
    let optimal = boltzmann(&rewards, &reference, tau);
    let all: Vec<usize> = (0..n).collect();
    let reference_tokens = tiny.tokens(&all, &tiny.reference);
    let solve = |refresh: bool| {
        let mut theta = vec![0.0; tiny.parameters()];
        let mut value = rewards.iter().sum::<f64>() / n as f64;
        for _ in 0..4000 {
            let table = tiny.policy(&theta);
            let tokens = tiny.tokens(&all, &table);
            let batch = Batch::new(&tokens, &reference_tokens, &tiny.lengths(n)).unwrap();
            if refresh {
                let ratios = batch.log_ratios();
                let seen: Vec<(u64, f64)> = rewards.iter().zip(&ratios).map(|(r, l)| (1, r - tau * l)).collect();
                let kernel = Kernel::Delta { variance: 1.0 };
                value = Estimator::NadarayaWatson { kernel }.fit(&identities(&seen)).unwrap().value(Point::id(1));
            }
            let loss = pcl(&batch, &rewards, &vec![value; n], tau, None).unwrap();
            let grad = tiny.chain(&all, &table, &loss.grad_log_probs);
            theta.iter_mut().zip(grad).for_each(|(theta, grad)| *theta -= rate * grad);
        }
        let policy = tiny.log_probs(&tiny.policy(&theta));
        let kl: f64 = policy.iter().zip(&optimal).map(|(p, o)| p.exp() * (p - o)).sum();
        (kl, value)
    };
    let (kl, value) = solve(true);
    assert!(kl.abs() < 1e-6, "KL to the optimum is {kl}");
    close(value, optimal_value, 1e-6);
    let (frozen, _) = solve(false);
    assert!(frozen > 0.05, "a frozen value must not find the optimum, and came within {frozen}");
}

#[test]
fn a_stretch_is_consistent_with_values_in_between() {
    // With V(s) of the enumerated optimum every stretch has no residual
    let tau = 0.5;
    let mut noise = Noise(27);
    let tiny = Tiny::new(3, 2, &mut noise);
    let rewards = noise.signed(9);
    let second = |first: usize| {
        let r: Vec<f64> = (0..3).map(|a| rewards[first + 3 * a]).collect();
        soft_value(&r, &tiny.reference[first + 1], tau)
    };
    let inner = [second(0), second(1), second(2)];
    let start = soft_value(&inner, &tiny.reference[0], tau);
    let mut policy = vec![boltzmann(&inner, &tiny.reference[0], tau)];
    policy.extend((0..3).map(|first| {
        let r: Vec<f64> = (0..3).map(|a| rewards[first + 3 * a]).collect();
        boltzmann(&r, &tiny.reference[first + 1], tau)
    }));
    let all: Vec<usize> = (0..9).collect();
    let (tokens, reference) = (tiny.tokens(&all, &policy), tiny.tokens(&all, &tiny.reference));
    let batch = Batch::new(&tokens, &reference, &tiny.lengths(9)).unwrap();
    let paths: Vec<SubPath> = (0..9)
        .flat_map(|i| {
            let between = inner[tiny.responses[i][0].1];
            let first = SubPath { tokens: 2 * i..2 * i + 1, reward: 0.0, value: start, value_next: between };
            let last = SubPath { tokens: 2 * i + 1..2 * i + 2, reward: rewards[i], value: between, value_next: 0.0 };
            [first, last]
        })
        .collect();
    let loss = pcl_spans(&batch, &paths, tau).unwrap();
    assert!(loss.residuals.iter().all(|e| e.abs() < EXACT), "{:?}", loss.residuals);
}

#[test]
fn limit_15_importance_weights_are_unbiased_by_enumeration() {
    // μ in sixteenths, so that a list with repetitions is the distribution
    let counts = [1_usize, 5, 2, 8];
    let mut noise = Noise(28);
    let (policy, reference) = (log_softmax(&noise.signed(4)), log_softmax(&noise.signed(4)));
    let (f, rewards) = (noise.signed(4), noise.signed(4));
    let spread = |values: &[f64]| -> Vec<f64> {
        values.iter().zip(counts).flat_map(|(value, count)| vec![*value; count]).collect()
    };
    let behaviour: Vec<f64> = counts.iter().map(|count| (*count as f64 / 16.0).ln()).collect();
    let (pi, mu) = (spread(&policy), spread(&behaviour));
    let expectation: f64 = policy.iter().zip(&f).map(|(p, f)| p.exp() * f).sum();
    close(importance_mean(&pi, &mu, &spread(&f)), expectation, EXACT);
    close(importance_mean(&pi, &mu, &[1.0; 16]), 1.0, EXACT);
    let ratios: Vec<f64> = behaviour.iter().zip(&reference).map(|(mu, reference)| mu - reference).collect();
    let value = soft_optimal_value(&spread(&rewards), &spread(&ratios), TAU);
    close(value, soft_value(&rewards, &reference, TAU), EXACT);
    let kl: f64 = policy.iter().zip(&behaviour).map(|(p, m)| p.exp() * (p - m)).sum();
    close(sequence_kl(&pi, &mu) / 16.0, kl, EXACT);
    let rho: Vec<f64> = pi.iter().zip(&mu).map(|(p, m)| (p - m).exp()).collect();
    let ess = rho.iter().sum::<f64>().powi(2) / rho.iter().map(|r| r * r).sum::<f64>();
    close(effective_sample_size(&pi, &mu), ess, EXACT);

    // Advantages under μ make the best policy a stationary point of advantage-weighted regression
    let best = boltzmann(&rewards, &reference, TAU);
    let advantages: Vec<f64> = (0..4).map(|a| rewards[a] - TAU * ratios[a] - value).collect();
    let (tokens, references) = (spread(&best), spread(&reference));
    let batch = Batch::new(&tokens, &references, &[1; 16]).unwrap();
    let loss = awr(&batch, &spread(&advantages), TAU, 1e9).unwrap();
    let mut grad = [0.0; 4];
    for (token, g) in counts.iter().enumerate().flat_map(|(a, n)| vec![a; *n]).zip(&loss.grad_log_probs) {
        for a in 0..4 {
            grad[a] += g * (f64::from(u8::from(a == token)) - best[a].exp());
        }
    }
    assert!(grad.iter().all(|g| g.abs() < EXACT), "{grad:?}");
}

#[test]
fn a_token_field_is_its_sum_over_particles() {
    let mut noise = Noise(29);
    let kernel = Kernel::Rbf { variance: 1.0, length: 0.8 };
    let mut memory = TokenMemory::new(2, 6).unwrap();
    let mut state = || noise.signed(2).into_iter().map(|x| x as f32).collect::<Vec<f32>>();
    let states: Vec<Vec<f32>> = (0..5).map(|_| state()).collect();
    for (i, state) in states.iter().enumerate() {
        memory.add(&kernel, state, (i % 3) as u32, 0.5 + i as f64, i as u32).unwrap();
    }
    // The same place and token again is the same particle
    memory.add(&kernel, &states[1], 1, 0.25, 9).unwrap();
    assert_eq!((memory.len(), memory.particle(1).alpha, memory.particle(1).count), (5, 1.75, 2));
    let x = state();
    let weight = |i: usize| {
        let k = kernel.value(Point::new(0, &x), Point::new(1, &states[i]));
        f64::from(memory.particle(i).alpha) * k
    };
    let all = TokenField::new(kernel.clone(), TokenKernel::Identity, 4, 5).unwrap().query(&memory, &x).unwrap();
    let expected = [weight(0) + weight(3), weight(1) + weight(4), weight(2), 0.0];
    assert!(all.iter().zip(expected).all(|(got, want)| (f64::from(*got) - want).abs() < 1e-6), "{all:?} {expected:?}");
    // With orthonormal token features the low-rank kernel is the identity
    let features: Vec<f32> = (0..16).map(|i| if i % 5 == 0 { 1.0 } else { 0.0 }).collect();
    let low_rank = TokenKernel::LowRank { features, width: 4 };
    let same = TokenField::new(kernel.clone(), low_rank, 4, 64).unwrap().query(&memory, &x).unwrap();
    assert_eq!(same, all);
    // Only the nearest two
    let mut order: Vec<usize> = (0..5).collect();
    let k = |i: &usize| kernel.value(Point::new(0, &x), Point::new(1, &states[*i]));
    order.sort_by(|a, b| k(b).total_cmp(&k(a)));
    let two = TokenField::new(kernel.clone(), TokenKernel::Identity, 4, 2).unwrap().query(&memory, &x).unwrap();
    let sum: f32 = two.iter().sum();
    assert!((f64::from(sum) - weight(order[0]) - weight(order[1])).abs() < 1e-6);
    // A full memory lets go of what was not touched for longest
    for i in 0..2 {
        memory.add(&kernel, &[5.0 + i as f32, 5.0], 0, 1.0, 20).unwrap();
    }
    assert_eq!((memory.len(), memory.particle(0).phi[0]), (6, 6.0));
    let bytes = memory.to_arrays(&super::owner()).to_bytes().unwrap();
    assert_eq!(TokenMemory::from_bytes(&bytes, &super::owner()).unwrap(), memory);
}

#[test]
fn the_continuous_option_becomes_the_discrete_one_as_clouds_shrink() {
    let mut noise = Noise(30);
    let embeddings: Vec<f32> = noise.signed(8).into_iter().map(|x| x as f32).collect();
    let draws: Vec<f32> = noise.signed(64).into_iter().map(|x| x as f32).collect();
    let reference = log_softmax(&noise.signed(4));
    let field = |u: &[f32]| f64::from(u[0]) - 2.0 * f64::from(u[1]).powi(2);
    let q: Vec<f64> = embeddings.chunks(2).map(field).collect();
    let expected = boltzmann(&q, &reference, TAU);
    let at = |scale: f64| continuous_log_probs(&reference, &embeddings, 2, &draws, (scale, TAU), field).unwrap();
    all_close(&at(0.0), &expected, EXACT);
    let apart = |scale: f64| at(scale).iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
    assert!(apart(1e-3) < 0.01 && apart(0.5) > 0.1, "{} {}", apart(1e-3), apart(0.5));
}

/// Limit 13 on the logits of a model: the tiny one of the trainers' tests
#[test]
fn limit_13_a_models_logits_stay_as_they_are_without_a_field() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/goldens/trl/model");
    let model = Gpt2::load(Path::new(folder)).unwrap().detached().unwrap();
    let layout = Arc::new(Ragged::from_lengths([6]).unwrap());
    let hidden = model.hidden(&[3, 41, 59, 26, 53, 58], &layout, None).unwrap(); // (N, C)
    let logits = hidden.matmul(&model.lm_head().t().unwrap()).unwrap().to_vec2::<f32>().unwrap(); // (N, V)
    let states: Vec<Vec<f32>> = hidden.to_vec2().unwrap();
    let (width, vocabulary) = (states[0].len(), logits[0].len());
    let kernel = Kernel::Rbf { variance: 1.0, length: 3.0 };
    let mut memory = TokenMemory::new(width, 16).unwrap();
    for (token, state) in states.iter().enumerate() {
        memory.add(&kernel, state, 7 * token as u32, 2.0 - token as f64, 0).unwrap();
    }
    let field = TokenField::new(kernel, TokenKernel::Identity, vocabulary, 64).unwrap();
    let best = |values: &[f32]| (0..values.len()).max_by(|a, b| values[*a].total_cmp(&values[*b])).unwrap();
    for (logits, state) in logits.iter().zip(&states) {
        let q = field.query(&memory, state).unwrap();
        let steered = |eta: f64, tau: f64| {
            let mut steered = logits.clone();
            steer(&mut steered, &q, eta, tau);
            steered
        };
        let bits = |logits: &[f32]| logits.iter().map(|x| x.to_bits()).collect::<Vec<u32>>();
        assert_eq!(bits(&steered(0.0, 0.1)), bits(logits));
        assert!(steered(1.0, 1e9).iter().zip(logits).all(|(a, b)| (a - b).abs() < 1e-5));
        assert_ne!(best(&q), best(logits));
        assert_eq!(best(&steered(1.0, 1e-4)), best(&q), "without temperature the field decides");
    }
}
