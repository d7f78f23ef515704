//! Worked examples that textbooks and lessons print, with the numbers that are right.
//!
//! Where a printed number is wrong, the test says so and the page `docs/classical.md` says why.

use collimate::algo::advantage::{discounted_returns, gae};
use collimate::algo::distribution::{categorical, categorical_backward, categorical_kl, gaussian};
use collimate::algo::offline::expectile_loss;
use collimate::algo::policy::{Clip, reinforce};
use collimate::algo::q::{double_values, max_values, targets};
use collimate::algo::soft::temperature_loss;
use collimate::rl::agents::planning::{ValueIteration, action_value, value_iteration};
use collimate::rl::env::Tabular;
use collimate::rl::env::tabular::Outcome;

fn assert_near(what: &str, found: f64, expected: f64, tolerance: f64) {
    assert!((found - expected).abs() <= tolerance, "{what}: {found}, expected {expected}");
}

/// A certain outcome
fn to(next_state: u32, reward: f64) -> [Outcome; 1] {
    [Outcome { probability: 1.0, next_state, reward, terminated: false }]
}

fn end(reward: f64) -> [Outcome; 1] {
    [Outcome { terminated: true, ..to(0, reward)[0] }]
}

/// Two states, two actions each. One sweep gives 12, 11.8, 10.8, 10, which was printed as the fixed point
#[test]
fn a_fixed_point_takes_more_than_one_sweep() {
    let model = Tabular::new(&[1.0, 0.0], 2, |state, action| match (state, action) {
        (0, 0) => to(0, 1.0),
        (0, _) => to(1, 3.0),
        (_, 0) => to(0, 0.0),
        (_, _) => end(10.0),
    });
    let plan = value_iteration(&model, 0.9, 1e-12, 10_000).expect("it converges");
    for (state, action, expected) in [(0, 0, 15.210_5), (0, 1, 15.789_5), (1, 0, 14.210_5), (1, 1, 10.0)] {
        let found = action_value(&model, &plan.values, 0.9, state, action);
        assert_near(&format!("Q({state}, {action})"), found, expected, 5e-5);
    }
    assert_near("V(A)", plan.values[0], 3.0 / 0.19, 1e-10);
}

#[test]
fn value_iteration_sweep_by_sweep() {
    let model = Tabular::new(&[1.0, 0.0], 1, |state, _| if state == 0 { to(1, 2.0) } else { to(1, 1.0) });
    let mut sweeps = ValueIteration::new(&model, 0.9, 1e-12);
    for expected in [[2.0, 1.0], [2.9, 1.9], [3.71, 2.71]] {
        sweeps.advance(&model);
        assert_near("A", sweeps.values()[0], expected[0], 1e-12);
        assert_near("B", sweeps.values()[1], expected[1], 1e-12);
    }
    while !sweeps.advance(&model).1 {}
    assert_near("A", sweeps.values()[0], 11.0, 1e-10);
    assert_near("B", sweeps.values()[1], 10.0, 1e-10);
}

#[test]
fn a_chain_to_a_goal_that_is_worth_ten() {
    let model = Tabular::new(&[1.0, 0.0, 0.0], 1, |state, _| if state == 2 { end(10.0) } else { to(state + 1, -1.0) });
    let plan = value_iteration(&model, 0.9, 1e-12, 100).expect("it converges");
    for (found, expected) in plan.values.iter().zip([6.2, 8.0, 10.0]) {
        assert_near("V", *found, expected, 1e-12);
    }
}

/// 3 (½, -½) (-1, 1) was multiplied element by element to (-1.5, -1.5); a gradient of logits sums to 0
#[test]
fn a_step_of_a_softmax_policy() {
    let (logits, actions) = ([0.0, 0.0], [1]);
    let (mut log_probs, mut entropies, mut by_log_prob, mut grad) = ([0.0], [0.0], [0.0], [0.0; 2]);
    categorical(&logits, &actions, &mut log_probs, &mut entropies);
    reinforce(&log_probs, &[3.0], None, 1.0, &mut by_log_prob);
    categorical_backward(&logits, &actions, &by_log_prob, &[0.0], &mut grad);
    // Of the loss; the step goes the other way
    assert_eq!(grad, [1.5, -1.5]);
}

/// Advantages behind the end of a sequence are 0, and values are held at 0 to give the TD errors as they are
fn advantages(errors: &[f32], trace: f32) -> Vec<f32> {
    let n = errors.len();
    let (zeros, mut traces, mut out) = (vec![0.0; n], vec![trace; n], vec![0.0; n]);
    traces[n - 1] = 0.0;
    gae(errors, &zeros, &zeros, &zeros, &traces, &mut out);
    out
}

#[test]
fn generalised_advantages() {
    for (errors, expected) in [
        (&[-0.04, 3.94, -1.02, -2.0][..], &[1.099_52, 1.211_61, -2.901, -2.0][..]),
        (&[-0.04, -1.03, -1.02, -1.01, 9.0], &[4.290_53, 4.604_50, 5.990_96, 7.454_50, 9.0]),
    ] {
        for (found, expected) in advantages(errors, 0.99 * 0.95).iter().zip(expected) {
            assert_near("A", f64::from(*found), *expected, 1e-5);
        }
    }
    let errors = [-0.04, -1.03, -1.02, -1.01, 9.0];
    assert_eq!(advantages(&errors, 0.0)[0], -0.04, "λ = 0");
    assert_near("λ = 1", f64::from(advantages(&errors, 0.99)[0]), 5.605_96, 1e-5);
    // (γλ)⁴ was printed as .81, which is .95⁴
    assert_near("(γλ)⁴", f64::from(advantages(&[0.0, 0.0, 0.0, 0.0, 1.0], 0.99 * 0.95)[0]), 0.782_4, 5e-5);
    // r = 5, V = 3, V' = 10
    let mut error = [0.0];
    gae(&[5.0], &[3.0], &[10.0], &[0.9], &[0.0], &mut error);
    assert_eq!(error, [11.0]);
}

/// A hundred steps at -1: -100 as printed is the undiscounted return; with the lesson's γ it is less
#[test]
fn a_hundred_steps_of_the_mountain_car() {
    let (mut plain, mut discounted) = ([0.0; 100], [0.0; 100]);
    let traces = |gamma: f32| {
        let mut traces = [gamma; 100];
        traces[99] = 0.0;
        traces
    };
    discounted_returns(&[-1.0; 100], &traces(1.0), &mut plain);
    discounted_returns(&[-1.0; 100], &traces(0.99), &mut discounted);
    assert_eq!((plain[0], plain[99]), (-100.0, -1.0));
    assert_near("γ = .99", f64::from(discounted[0]), -63.40, 5e-3);
}

/// "KL ≤ .01 allows .25" is loose: that is a KL of .007
#[test]
fn how_far_a_bound_on_the_divergence_lets_a_policy_go() {
    let logits = |p: f32| [p.ln(), (1.0 - p).ln()];
    assert_near("to .25", categorical_kl(&logits(0.2), &logits(0.25), 1), 0.0070, 5e-5);
    assert_near("old to new", categorical_kl(&logits(0.2), &logits(0.260), 1), 0.01, 2e-4);
    assert_near("new to old", categorical_kl(&logits(0.258), &logits(0.2), 1), 0.01, 2e-4);
}

#[test]
fn a_clipped_ratio_has_no_gradient() {
    let term = Clip::symmetric(0.2).term(1.8_f64.ln(), 3.0);
    assert_near("min(5.4, 3.6)", -term.loss, 3.6, 1e-12);
    assert_eq!(term.grad, 0.0);
}

/// -.27 a dimension was printed, for which σ would have to be .185
#[test]
fn the_entropy_of_seven_gaussians() {
    let log_std = [0.3_f32.ln(); 7];
    let (mut log_probs, mut entropies) = ([0.0], [0.0]);
    gaussian(&[0.0; 7], &log_std, &[0.0; 7], &mut log_probs, &mut entropies);
    assert_near("H", f64::from(entropies[0]), 1.504_76, 1e-5);
    assert_near("a dimension", f64::from(entropies[0]) / 7.0, 0.214_97, 1e-5);
}

/// J = α (H - H̄): entropy above the target lowers α. The signs of both losses were printed the other way round
#[test]
fn the_temperature_follows_the_entropy() {
    for (entropy, loss) in [(-5.0_f32, 2.0), (-10.0, -3.0)] {
        let (found, slope) = temperature_loss(0.0, &[-entropy], -7.0);
        assert_near("slope", slope, loss, 1e-6);
        assert!(found.is_finite());
    }
}

#[test]
fn double_q_learning_does_not_trust_the_largest() {
    let (online, target) = ([5.0, 3.0], [4.0, 7.0]);
    let (mut plain, mut double) = ([0.0], [0.0]);
    max_values(&target, &mut plain);
    double_values(&online, &target, &mut double);
    assert_eq!((plain, double), ([7.0], [4.0]));
    let mut target = [0.0];
    targets(&[5.0], &[0.9], &[10.0], &mut target);
    assert_eq!(target, [14.0]);
}

/// The expectile of .9 was printed as 7.2, which is that of .9355; an expectile is no quantile
#[test]
fn expectiles_of_four_numbers() {
    let slope = |value: f32, tau: f64| {
        let mut grad = [0.0; 4];
        expectile_loss(&[value; 4], &[2.0, 5.0, 3.0, 8.0], tau, 4.0, &mut grad);
        f64::from(grad.iter().sum::<f32>())
    };
    for (tau, value) in [(0.5, 4.5), (0.9, 6.833_3), (0.99, 7.862_7), (0.935_5, 7.2)] {
        assert_near("the slope at the minimum", slope(value, tau), 0.0, 5e-4);
    }
    assert!(slope(7.2, 0.9).abs() > 0.05);
}
