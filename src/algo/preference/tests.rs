//! The algebra of the losses; values and gradients against PyTorch are in `tests/algo.rs`.

#![allow(clippy::unwrap_used)]

use candle_core::{Device, Tensor, Var};

use super::*;

fn var(values: &[f32]) -> Var {
    Var::from_slice(values, values.len(), &Device::Cpu).unwrap()
}

fn numbers(tensor: &Tensor) -> Vec<f32> {
    tensor.to_vec1().unwrap()
}

#[test]
fn dpo_starts_at_ln_2_with_gradient_half_beta() {
    let (chosen, rejected) = (var(&[0.0]), var(&[0.0]));
    let loss = dpo_sigmoid(&chosen, &rejected, 0.1).unwrap();
    assert_eq!(numbers(&loss), [std::f32::consts::LN_2]);
    let grads = loss.backward().unwrap();
    assert_eq!(numbers(grads.get(&chosen).unwrap()), [-0.05]);
    assert_eq!(numbers(grads.get(&rejected).unwrap()), [0.05]);
}

#[test]
fn without_smoothing_the_smoothed_losses_are_dpo() {
    let (chosen, rejected) = (var(&[1.5, -3.0]), var(&[-0.5, 2.0]));
    let dpo = numbers(&dpo_sigmoid(&chosen, &rejected, 0.3).unwrap());
    assert_eq!(numbers(&cdpo(&chosen, &rejected, 0.3, 0.0).unwrap()), dpo);
    assert_eq!(numbers(&robust(&chosen, &rejected, 0.3, 0.0).unwrap()), dpo);
    assert_eq!(numbers(&simpo(&chosen, &rejected, 0.3, 0.0, 0.0).unwrap()), dpo);
}

/// What robust DPO promises: averaged over labels that flip with probability ε it is DPO on the true ones
#[test]
fn robust_dpo_is_unbiased_under_flips() {
    let (chosen, rejected, flips) = (var(&[1.5, -3.0]), var(&[-0.5, 2.0]), 0.2);
    let mean = ((robust(&chosen, &rejected, 0.3, flips).unwrap() * (1.0 - flips)).unwrap()
        + (robust(&rejected, &chosen, 0.3, flips).unwrap() * flips).unwrap())
    .unwrap();
    let clean = dpo_sigmoid(&chosen, &rejected, 0.3).unwrap();
    for (mean, clean) in numbers(&mean).iter().zip(numbers(&clean)) {
        assert!((mean - clean).abs() < 1e-6, "{mean}, not {clean}");
    }
}

#[test]
fn conservative_dpo_has_its_minimum_at_a_finite_margin() {
    let (beta, smoothing) = (0.5, 0.1_f64);
    let best = ((1.0 - smoothing) / smoothing).ln() / beta;
    let (chosen, rejected) = (var(&[best as f32]), var(&[0.0]));
    let grads = cdpo(&chosen, &rejected, beta, smoothing).unwrap().backward().unwrap();
    assert!(numbers(grads.get(&chosen).unwrap())[0].abs() < 1e-7);
}

#[test]
fn kto_without_a_reference_point_is_apo_zero() {
    let (chosen, rejected) = (var(&[1.5, -3.0]), var(&[-0.5, 2.0]));
    let apart = (kto_desirable(&chosen, 0.0, 0.3).unwrap() + kto_undesirable(&rejected, 0.0, 0.3).unwrap()).unwrap();
    assert_eq!(numbers(&apart), numbers(&apo_zero(&chosen, &rejected, 0.3).unwrap()));
}

#[test]
fn one_pair_leaves_nothing_to_sort() {
    let (chosen, rejected, reference) = (var(&[1.5]), var(&[-0.5]), var(&[0.0]));
    let dpo = numbers(&dpo_sigmoid(&chosen, &rejected, 0.3).unwrap());
    assert_eq!(numbers(&aot(&chosen, &rejected, &reference, &reference, 0.3, 0.0).unwrap()), dpo);
    assert_eq!(numbers(&aot_unpaired(&chosen, &rejected, 0.3, 0.0).unwrap()), dpo);
}

#[test]
fn ends_of_the_line_stay_finite_in_value_and_gradient() {
    type Loss = fn(&Tensor, &Tensor) -> Result<Tensor>;
    let losses: [(&str, Loss); 12] = [
        ("sigmoid", |c, r| dpo_sigmoid(c, r, 1.0)),
        ("cdpo", |c, r| cdpo(c, r, 1.0, 0.1)),
        ("robust", |c, r| robust(c, r, 1.0, 0.1)),
        ("hinge", |c, r| hinge(c, r, 1.0)),
        ("ipo", |c, r| ipo(c, r, 1.0)),
        ("exo_pair", |c, r| exo_pair(c, r, 1.0, 1e-3)),
        ("nca_pair", |c, r| nca_pair(c, r, 1.0)),
        ("bco_pair", |c, r| bco_pair(c, r, 1.0)),
        ("apo_zero", |c, r| apo_zero(c, r, 1.0)),
        ("apo_down", |c, r| apo_down(c, r, 1.0)),
        ("discopop", |c, r| discopop(c, r, 1.0, 0.05)),
        ("js", |c, r| js_divergence(&(c - r)?)),
    ];
    for (name, loss) in losses {
        for end in [-500.0, -90.0, 0.0, 90.0, 500.0] {
            let (chosen, rejected) = (var(&[end]), var(&[-end]));
            let value = loss(&chosen, &rejected).unwrap();
            let grads = value.backward().unwrap();
            let all = [&value, grads.get(&chosen).unwrap(), grads.get(&rejected).unwrap()].map(numbers);
            assert!(all.iter().flatten().all(|number| number.is_finite()), "{name} at {end}: {all:?}");
        }
    }
}

#[test]
fn the_odds_of_a_sure_answer_keep_their_digits() {
    let sure = var(&[-1e-6]);
    let value = log_odds_ratio(&sure, &var(&[-std::f32::consts::LN_2])).unwrap();
    // log(e^x/(1 − e^x)) at −1e-6, and odds of 1 for p = ½
    assert!((numbers(&value)[0] - 13.815_51).abs() < 1e-4, "{value}");
    let slope = numbers(value.backward().unwrap().get(&sure).unwrap())[0];
    assert!((slope / 1e6 - 1.0).abs() < 1e-3, "{slope}");
}

/// A policy over three answers: softmax of `logits`, against the reference (0.5, 0.3, 0.2)
const REFERENCE: [f32; 3] = [0.5, 0.3, 0.2];

/// Where gradient descent on Σ_{i≠j} p(i beats j)·loss(i, j) leads from the reference: log π − log π_ref, mean 0
fn fixed_point(preference: [[f64; 3]; 3], loss: impl Fn(&Tensor, &Tensor) -> Result<Tensor>) -> [f32; 3] {
    let reference = Tensor::new(&REFERENCE, &Device::Cpu).unwrap().log().unwrap();
    let logits = Var::from_tensor(&reference).unwrap();
    let pairs: Vec<(u32, u32)> = (0..3).flat_map(|i| (0..3).map(move |j| (i, j))).filter(|(i, j)| i != j).collect();
    let index = |side: Vec<u32>| Tensor::new(side, &Device::Cpu).unwrap();
    let winners = index(pairs.iter().map(|pair| pair.0).collect());
    let losers = index(pairs.iter().map(|pair| pair.1).collect());
    let weights: Vec<f32> = pairs.iter().map(|&(i, j)| preference[i as usize][j as usize] as f32).collect();
    let weights = Tensor::new(weights, &Device::Cpu).unwrap();
    let log_ratios = || {
        let log_probs = candle_nn::ops::log_softmax(logits.as_tensor(), 0)?;
        log_probs - &reference
    };
    for _ in 0..4000 {
        let ratios = log_ratios().unwrap();
        let losses = loss(&ratios.index_select(&winners, 0).unwrap(), &ratios.index_select(&losers, 0).unwrap());
        let total = (losses.unwrap() * &weights).unwrap().sum_all().unwrap();
        let slope = total.backward().unwrap().get(&logits).unwrap().clone();
        logits.set(&(logits.as_tensor() - (slope * 0.1).unwrap()).unwrap()).unwrap();
    }
    let ratios = numbers(&log_ratios().unwrap());
    let mean = ratios.iter().sum::<f32>() / 3.0;
    [ratios[0] - mean, ratios[1] - mean, ratios[2] - mean]
}

fn assert_near(found: [f32; 3], expected: [f64; 3]) {
    let mean = expected.iter().sum::<f64>() / 3.0;
    for (found, expected) in found.iter().zip(expected) {
        assert!((f64::from(*found) - (expected - mean)).abs() < 2e-3, "{found} in place of {}", expected - mean);
    }
}

/// Rafailov et al. 2023, eq. 4: preferences of Bradley and Terry with rewards r lead to π ∝ π_ref·e^{r/β}
#[test]
fn dpo_leads_to_the_reference_tilted_by_the_reward() {
    let (rewards, beta) = ([0.4_f64, -0.2, 0.7], 0.5);
    let preference = rewards.map(|own| rewards.map(|other| 1.0 / (1.0 + (other - own).exp())));
    let found = fixed_point(preference, |chosen, rejected| dpo_sigmoid(chosen, rejected, beta));
    assert_near(found, rewards.map(|reward| reward / beta));
}

/// Azar et al. 2024, eq. 10 and 12: log(π/π_ref) = p(y beats a random answer)/τ up to a constant, also where one answer
/// always wins, where DPO has no fixed point
#[test]
fn ipo_leads_to_the_reference_tilted_by_the_win_rate() {
    let tau = 0.4;
    for preference in
        [[[0.5, 0.7, 0.9], [0.3, 0.5, 0.4], [0.1, 0.6, 0.5]], [[0.5, 1.0, 1.0], [0.0, 0.5, 1.0], [0.0, 0.0, 0.5]]]
    {
        let found = fixed_point(preference, |chosen, rejected| ipo(chosen, rejected, tau));
        assert_near(found, preference.map(|row| row.iter().sum::<f64>() / 3.0 / tau));
    }
}
