//! Distributions and losses of classical agents against torch.distributions (`scripts/goldens/algo_classical.py`).

#![allow(clippy::unwrap_used)]

use collimate::algo::distribution::{
    categorical, categorical_backward, gaussian, gaussian_backward, tanh_gaussian, tanh_gaussian_backward,
};
use collimate::algo::natural::{categorical_fisher, conjugate_gradient, gaussian_fisher, trust_region_step};
use collimate::algo::offline::{advantage_weights, conservative_term, expectile_loss};
use collimate::algo::q::{double_values, expected_values, max_values, q_loss, targets};
use collimate::algo::soft::{actor_loss, soft_values, temperature_loss};
use collimate::algo::value::ValueLoss;
use serde_json::Value;

fn golden(part: &str) -> Value {
    let path = format!("{}/tests/goldens/algo_classical.json", env!("CARGO_MANIFEST_DIR"));
    let all: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    all[part].clone()
}

fn floats(value: &Value) -> Vec<f32> {
    value.as_array().unwrap().iter().map(|x| x.as_f64().unwrap() as f32).collect()
}

fn doubles(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect()
}

fn indices(value: &Value) -> Vec<usize> {
    value.as_array().unwrap().iter().map(|x| x.as_u64().unwrap() as usize).collect()
}

fn assert_near(what: &str, got: f64, want: f64) {
    assert!((got - want).abs() <= 2e-7 * (1.0 + want.abs()), "{what}: {got}, expected {want}");
}

fn assert_all_near(what: &str, got: &[f32], want: &Value) {
    let want = floats(want);
    assert_eq!(got.len(), want.len(), "{what}");
    for (at, (got, want)) in got.iter().zip(want).enumerate() {
        assert_near(&format!("{what}[{at}]"), f64::from(*got), f64::from(want));
    }
}

#[test]
fn categorical_there_and_back() {
    for case in golden("categorical").as_array().unwrap() {
        let (logits, actions) = (floats(&case["logits"]), indices(&case["actions"]));
        let (mut log_probs, mut entropies, mut grad) = ([f32::NAN; 4], [f32::NAN; 4], [f32::NAN; 12]);
        categorical(&logits, &actions, &mut log_probs, &mut entropies);
        assert_all_near("log_probs", &log_probs, &case["log_probs"]);
        assert_all_near("entropies", &entropies, &case["entropies"]);
        let (by_log_prob, by_entropy) = (floats(&case["by_log_prob"]), floats(&case["by_entropy"]));
        categorical_backward(&logits, &actions, &by_log_prob, &by_entropy, &mut grad);
        assert_all_near("grad", &grad, &case["grad"]);
    }
}

#[test]
fn a_forbidden_action_has_no_probability_and_no_gradient() {
    let logits = [0.0, f32::NEG_INFINITY, 0.0];
    let (mut log_prob, mut entropy, mut grad) = ([0.0], [0.0], [f32::NAN; 3]);
    categorical(&logits, &[2], &mut log_prob, &mut entropy);
    assert_near("log_prob", f64::from(log_prob[0]), -std::f64::consts::LN_2);
    assert_near("entropy", f64::from(entropy[0]), std::f64::consts::LN_2);
    categorical_backward(&logits, &[2], &[1.0], &[1.0], &mut grad);
    assert_eq!(grad, [-0.5, 0.0, 0.5]);
}

#[test]
fn gaussian_there_and_back() {
    let case = golden("gaussian");
    let (mean, log_std, actions) = (floats(&case["mean"]), floats(&case["log_std"]), floats(&case["actions"]));
    let (mut log_probs, mut entropies) = ([f32::NAN; 3], [f32::NAN; 3]);
    gaussian(&mean, &log_std, &actions, &mut log_probs, &mut entropies);
    assert_all_near("log_probs", &log_probs, &case["log_probs"]);
    assert_all_near("entropies", &entropies, &case["entropies"]);
    let (mut grad_mean, mut grad_log_std) = ([f32::NAN; 6], [f32::NAN; 6]);
    let (by_log_prob, by_entropy) = (floats(&case["by_log_prob"]), floats(&case["by_entropy"]));
    gaussian_backward(&mean, &log_std, &actions, &by_log_prob, &by_entropy, &mut grad_mean, &mut grad_log_std);
    assert_all_near("grad_mean", &grad_mean, &case["grad_mean"]);
    assert_all_near("grad_log_std", &grad_log_std, &case["grad_log_std"]);
}

#[test]
fn tanh_gaussian_there_and_back() {
    for case in golden("tanh_gaussian").as_array().unwrap() {
        let (mean, log_std, noise) = (floats(&case["mean"]), floats(&case["log_std"]), floats(&case["noise"]));
        let (mut actions, mut log_probs) = ([f32::NAN; 6], [f32::NAN; 3]);
        tanh_gaussian(&mean, &log_std, &noise, &mut actions, &mut log_probs);
        assert_all_near("actions", &actions, &case["actions"]);
        assert_all_near("log_probs", &log_probs, &case["log_probs"]);
        let (mut grad_mean, mut grad_log_std) = ([f32::NAN; 6], [f32::NAN; 6]);
        let (by_action, by_log_prob) = (floats(&case["by_action"]), floats(&case["by_log_prob"]));
        let outs = (&mut grad_mean, &mut grad_log_std);
        tanh_gaussian_backward(&mean, &log_std, &noise, &by_action, &by_log_prob, outs.0, outs.1);
        assert_all_near("grad_mean", &grad_mean, &case["grad_mean"]);
        assert_all_near("grad_log_std", &grad_log_std, &case["grad_log_std"]);
    }
}

#[test]
fn tanh_gaussian_is_a_density() {
    // ∫ π(a) da over (-1, 1), by the change of variable a = tanh u, on a grid of the noise
    let (mean, log_std) = (0.4_f32, -0.3_f32);
    let (mut action, mut log_prob) = ([0.0], [0.0]);
    let mut area = 0.0;
    let mut last: Option<(f64, f64)> = None;
    for step in -4000..=4000 {
        tanh_gaussian(&[mean], &[log_std], &[step as f32 / 500.0], &mut action, &mut log_prob);
        let now = (f64::from(action[0]), f64::from(log_prob[0]).exp());
        if let Some(last) = last {
            area += (now.0 - last.0) * (now.1 + last.1) / 2.0;
        }
        last = Some(now);
    }
    assert!((area - 1.0).abs() < 1e-4, "{area}");
}

#[test]
fn action_values_regress_to_their_targets() {
    for case in golden("q").as_array().unwrap() {
        let loss = if case["kind"] == "squared" { ValueLoss::Squared } else { ValueLoss::Huber { delta: 0.5 } };
        let (q, actions) = (floats(&case["q"]), indices(&case["actions"]));
        let (target, weights) = (floats(&case["targets"]), floats(&case["weights"]));
        let (mut errors, mut grad) = ([f32::NAN; 4], [f32::NAN; 12]);
        let got = q_loss(loss, &q, &actions, &target, Some(&weights), 4.0, &mut errors, &mut grad);
        assert_near("loss", got, case["loss"].as_f64().unwrap());
        assert_all_near("grad", &grad, &case["grad"]);
        assert_all_near("errors", &errors, &case["errors"]);
        let got = conservative_term(&q, &actions, 0.7, 4.0, &mut grad);
        assert_near("conservative", got, case["conservative"].as_f64().unwrap());
        assert_all_near("both", &grad, &case["grad_both"]);
    }
}

#[test]
fn bootstraps_of_action_values() {
    let (online, target) = ([1.0, 3.0, 2.0, 5.0, 5.0, -1.0], [0.5, -2.0, 9.0, 1.0, 2.0, 3.0]);
    let mut values = [f32::NAN; 2];
    max_values(&online, &mut values);
    assert_eq!(values, [3.0, 5.0]);
    double_values(&online, &target, &mut values);
    assert_eq!(values, [-2.0, 1.0]);
    expected_values(&online, &[0.5, 0.25, 0.25, 0.0, 1.0, 0.0], &mut values);
    assert_eq!(values, [1.75, 5.0]);
    let mut out = [f32::NAN; 2];
    targets(&[1.0, 2.0], &[0.5, 0.0], &values, &mut out);
    assert_eq!(out, [1.875, 2.0]);
}

#[test]
fn soft_actor_critic() {
    let case = golden("soft");
    let number = |name: &str| case[name].as_f64().unwrap();
    let (q1, q2, log_probs) = (floats(&case["q1"]), floats(&case["q2"]), floats(&case["log_probs"]));
    let alpha = number("log_alpha").exp();
    let (mut by_q1, mut by_q2, mut by_log_prob) = ([f32::NAN; 5], [f32::NAN; 5], [f32::NAN; 5]);
    let got = actor_loss(&q1, &q2, &log_probs, alpha, 5.0, &mut by_q1, &mut by_q2, &mut by_log_prob);
    assert_near("actor", got, number("actor"));
    assert_all_near("grad_q1", &by_q1, &case["grad_q1"]);
    assert_all_near("grad_q2", &by_q2, &case["grad_q2"]);
    assert_all_near("grad_log_probs", &by_log_prob, &case["grad_log_probs"]);
    soft_values(&q1, &q2, &log_probs, alpha, &mut by_q1);
    assert_all_near("values", &by_q1, &case["values"]);
    let (loss, slope) = temperature_loss(number("log_alpha"), &log_probs, number("target_entropy"));
    assert_near("temperature", loss, number("temperature"));
    assert_near("slope", slope, number("slope"));
    // Entropy below the target: a step against the slope raises α
    assert!(temperature_loss(0.0, &[3.0], -1.0).1 < 0.0);
}

#[test]
fn expectiles() {
    let case = golden("expectile");
    let (values, targets) = (floats(&case["values"]), floats(&case["targets"]));
    let mut grad = [f32::NAN; 6];
    let got = expectile_loss(&values, &targets, case["tau"].as_f64().unwrap(), 6.0, &mut grad);
    assert_near("loss", got, case["loss"].as_f64().unwrap());
    assert_all_near("grad", &grad, &case["grad"]);
    // τ = ½ has its minimum at the mean
    expectile_loss(&[2.0; 3], &[1.0, 2.0, 3.0], 0.5, 3.0, &mut grad[..3]);
    assert_eq!(grad[..3].iter().sum::<f32>(), 0.0);
    let mut weights = [f32::NAN; 2];
    advantage_weights(&[1.0, 9.0], &[1.0, 0.0], 3.0, 100.0, &mut weights);
    assert_eq!(weights, [1.0, 100.0]);
}

#[test]
fn fisher_products_are_hessians_of_the_kl() {
    let case = golden("fisher");
    let v = doubles(&case["v"]);
    let mut out = [f64::NAN; 4];
    categorical_fisher(&doubles(&case["probabilities"]), &v, &mut out);
    for (got, want) in out.iter().zip(doubles(&case["categorical"])) {
        assert!((got - want).abs() < 1e-9);
    }
    gaussian_fisher(&doubles(&case["log_std"]), &v, &mut out);
    for (got, want) in out.iter().zip(doubles(&case["gaussian"])) {
        assert!((got - want).abs() < 1e-9);
    }
}

#[test]
fn conjugate_gradients_solve_and_the_step_meets_the_bound() {
    let p = [0.1, 0.2, 0.3, 0.4];
    // Damped: the Fisher matrix of a softmax is singular along (1, 1, 1, 1)
    let product = |v: &[f64], out: &mut [f64]| {
        categorical_fisher(&p, v, out);
        for (out, v) in out.iter_mut().zip(v) {
            *out += 0.1 * v;
        }
    };
    let b = [0.3, -0.1, 0.4, -0.6];
    let (mut x, mut image) = ([f64::NAN; 4], [0.0; 4]);
    let solved = conjugate_gradient(product, &b, 10, 1e-20, &mut x);
    assert!(solved.iterations <= 5 && solved.residual < 1e-20, "{solved:?}");
    product(&x, &mut image);
    for (got, want) in image.iter().zip(b) {
        assert!((got - want).abs() < 1e-9);
    }
    let step = trust_region_step(&x, &image, 0.01).unwrap();
    let kl: f64 = x.iter().zip(&image).map(|(x, fx)| 0.5 * step * x * step * fx).sum();
    assert!((kl - 0.01).abs() < 1e-15);
    assert_eq!(trust_region_step(&[0.0; 4], &[0.0; 4], 0.01), None);
    let solved = conjugate_gradient(product, &[0.0; 4], 10, 1e-10, &mut x);
    assert_eq!((solved.iterations, x), (0, [0.0; 4]));
}

/// Kakade 2001: in other coordinates, θ = Bφ, the natural gradient moves the distribution by the same
#[test]
fn a_natural_step_does_not_depend_on_the_coordinates() {
    let p = [0.1, 0.2, 0.7];
    let gradient = [0.5, -0.3, -0.2];
    let scale = [2.0, 0.5, -3.0];
    let stretch = |v: &[f64]| -> Vec<f64> { v.iter().zip(scale).map(|(v, b)| b * v).collect() };
    let (mut plain, mut stretched) = ([f64::NAN; 3], [f64::NAN; 3]);
    conjugate_gradient(|v, out| categorical_fisher(&p, v, out), &gradient, 20, 1e-28, &mut plain);
    let fisher = |v: &[f64], out: &mut [f64]| {
        let mut image = [0.0; 3];
        categorical_fisher(&p, &stretch(v), &mut image);
        out.copy_from_slice(&stretch(&image));
    };
    conjugate_gradient(fisher, &stretch(&gradient), 20, 1e-28, &mut stretched);
    let moved = stretch(&stretched);
    // A softmax does not see what all logits have in common
    let centred = |x: &[f64]| -> Vec<f64> { x.iter().map(|v| v - x.iter().sum::<f64>() / 3.0).collect() };
    for (one, other) in centred(&plain).iter().zip(centred(&moved)) {
        assert!((one - other).abs() < 1e-9, "{one} and {other}");
    }
}
