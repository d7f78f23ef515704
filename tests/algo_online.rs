//! The online half of `algo/` against TRL's own code and PyTorch (`scripts/goldens/algo_online.py`), and its identities.

#![allow(clippy::unwrap_used)]

use collimate::algo::advantage::{
    add_values, discounted_returns, gae, gae_strided, lambda_returns, n_step_returns, normalize, step_streams,
    token_streams, whiten,
};
use collimate::algo::entropy::{AdaptiveEntropy, high_entropy_mask};
use collimate::algo::group::{Scale, group_relative, leave_one_out, normalize_then_sum, weighted_sum};
use collimate::algo::group_loss::{
    GroupLoss, GroupLossValue, Importance, LossType, MicroBatch, StepTotals, group_loss,
};
use collimate::algo::kl::{AdaptiveKl, FixedKl, KlController, KlEstimator, approx_kl};
use collimate::algo::policy::{Clip, clipped_surrogate, reinforce};
use collimate::algo::rloo::rloo_loss;
use collimate::algo::shaping::{
    clip_scores, overlong_penalty, penalize_unfinished, sequence_kl, subtract_kl, token_rewards,
};
use collimate::algo::value::{ValueLoss, explained_variance, value_loss};
use proptest::prelude::*;
use serde::de::DeserializeOwned;
use serde_json::Value;

fn goldens(part: &str) -> Vec<Value> {
    let path = format!("{}/tests/goldens/algo_online.json", env!("CARGO_MANIFEST_DIR"));
    let all: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    all[part].as_array().unwrap().clone()
}

fn read<T: DeserializeOwned>(value: &Value) -> T {
    serde_json::from_value(value.clone()).unwrap()
}

/// null stands for NaN
fn floats(value: &Value) -> Vec<f32> {
    value.as_array().unwrap().iter().map(|x| x.as_f64().map_or(f32::NAN, |x| x as f32)).collect()
}

fn maybe_floats(value: &Value) -> Option<Vec<f32>> {
    (!value.is_null()).then(|| floats(value))
}

fn assert_near(what: &str, got: f64, want: f64) {
    assert!((got - want).abs() <= 1e-7 + 2e-7 * want.abs(), "{what}: {got}, expected {want}");
}

fn assert_all_near(what: &str, got: &[f32], want: &Value) {
    let want = floats(want);
    assert_eq!(got.len(), want.len(), "{what}");
    for (at, (got, want)) in got.iter().zip(want).enumerate() {
        assert_near(&format!("{what}[{at}]"), f64::from(*got), f64::from(want));
    }
}

struct Case {
    config: GroupLoss,
    step: StepTotals,
    lengths: Vec<usize>,
    log_probs: Vec<f32>,
    old: Option<Vec<f32>>,
    reference: Option<Vec<f32>>,
    sampling: Option<Vec<f32>>,
    entropies: Vec<f32>,
    advantages: Vec<f32>,
    mask: Vec<bool>,
}

impl Case {
    fn read(case: &Value) -> Self {
        let (c, number) = (&case["config"], |name: &str| case[name].as_f64().unwrap());
        let set = |name: &str| c[name].as_f64().unwrap();
        let config = GroupLoss {
            loss_type: read(&c["loss_type"]),
            importance: read(&c["importance"]),
            clip: Clip { low: set("low"), high: set("high"), delta: c["delta"].as_f64(), dual: None },
            beta: set("beta"),
            kl: KlEstimator::K3,
            kl_ratio_weighted: read(&c["kl_ratio_weighted"]),
            top_entropy_quantile: set("top_entropy_quantile"),
            off_policy_mask_threshold: c["off_policy_mask_threshold"].as_f64(),
            entropy_coef: set("entropy_coef"),
            ..GroupLoss::default()
        };
        Self {
            config,
            step: StepTotals {
                sequences: number("sequences"),
                tokens: number("tokens"),
                micro_batches: number("micro_batches"),
                max_completion_length: number("max_completion_length"),
            },
            lengths: read(&case["lengths"]),
            log_probs: floats(&case["log_probs"]),
            old: maybe_floats(&case["old_log_probs"]),
            reference: maybe_floats(&case["ref_log_probs"]),
            sampling: maybe_floats(&case["sampling_log_probs"]),
            entropies: floats(&case["entropies"]),
            advantages: floats(&case["advantages"]),
            mask: read(&case["mask"]),
        }
    }

    /// Value, gradient in log-probabilities, gradient in entropies of the sequences `from..to`
    fn part(&self, from: usize, to: usize) -> (GroupLossValue, Vec<f32>, Vec<f32>) {
        let start: usize = self.lengths[..from].iter().sum();
        let tokens = start..start + self.lengths[from..to].iter().sum::<usize>();
        let per_token = self.advantages.len() != self.lengths.len();
        let batch = MicroBatch {
            lengths: &self.lengths[from..to],
            log_probs: &self.log_probs[tokens.clone()],
            old_log_probs: self.old.as_ref().map(|x| &x[tokens.clone()]),
            ref_log_probs: self.reference.as_ref().map(|x| &x[tokens.clone()]),
            sampling_log_probs: self.sampling.as_ref().map(|x| &x[tokens.clone()]),
            entropies: Some(&self.entropies[tokens.clone()]),
            advantages: if per_token { &self.advantages[tokens.clone()] } else { &self.advantages[from..to] },
            mask: Some(&self.mask[tokens.clone()]),
        };
        let (mut grad, mut grad_entropies) = (vec![f32::NAN; tokens.len()], vec![f32::NAN; tokens.len()]);
        let value = group_loss(&self.config, &batch, &self.step, &mut grad, Some(&mut grad_entropies));
        (value, grad, grad_entropies)
    }

    fn whole(&self) -> (GroupLossValue, Vec<f32>, Vec<f32>) {
        self.part(0, self.lengths.len())
    }
}

#[test]
fn group_losses_are_those_of_trl_in_value_gradient_and_metrics() {
    let cases = goldens("group_loss");
    assert_eq!(cases.len(), 40);
    for case in &cases {
        let (value, grad, grad_entropies) = Case::read(case).whole();
        let what = case["config"].to_string();
        assert_near(&what, value.loss, case["loss"].as_f64().unwrap());
        assert_all_near(&what, &grad, &case["grad"]);
        assert_all_near(&what, &grad_entropies, &case["grad_entropies"]);
        let entries = value.entries();
        for (name, want) in case["metrics"].as_object().unwrap() {
            let got = entries.iter().find(|(entry, _)| entry == name).unwrap_or_else(|| panic!("{name} of {what}")).1;
            assert_near(&format!("{name} of {what}"), got, want.as_f64().unwrap());
        }
        // TRL logs the policy loss only beside an entropy bonus
        let logged = case["metrics"].as_object().unwrap().len();
        assert_eq!(entries.len(), logged + usize::from(case["metrics"]["policy_loss"].is_null()), "{what}");
    }
}

#[test]
fn gradients_do_not_depend_on_the_split() {
    for case in goldens("group_loss") {
        let mut case = Case::read(&case);
        // Means over the micro-batch by definition
        if case.config.loss_type == LossType::Bnpo || case.config.top_entropy_quantile < 1.0 {
            continue;
        }
        case.config.entropy_coef = 0.0;
        let (whole, grad, _) = case.whole();
        for cut in 1..case.lengths.len() {
            let (left, right) = (case.part(0, cut), case.part(cut, case.lengths.len()));
            assert_near("loss", left.0.loss + right.0.loss, whole.loss);
            assert_eq!([left.1, right.1].concat(), grad, "{:?} cut at {cut}", case.config);
        }
    }
}

#[test]
fn ratio_one_is_the_policy_gradient() {
    for case in goldens("group_loss") {
        let mut case = Case::read(&case);
        (case.config.beta, case.config.off_policy_mask_threshold) = (0.0, None);
        case.config.top_entropy_quantile = 1.0;
        (case.config.loss_type, case.config.importance) = (LossType::Dapo, Importance::Token);
        let mut plain = vec![0.0; case.log_probs.len()];
        let advantages: Vec<f32> = if case.advantages.len() == case.lengths.len() {
            let each = case.lengths.iter().zip(&case.advantages);
            each.flat_map(|(length, advantage)| std::iter::repeat_n(*advantage, *length)).collect()
        } else {
            case.advantages.clone()
        };
        reinforce(&case.log_probs, &advantages, Some(&case.mask), case.step.tokens, &mut plain);
        for old in [None, Some(case.log_probs.clone())] {
            case.old = old;
            for loss_type in [LossType::Dapo, LossType::Cispo, LossType::Vespo] {
                case.config.loss_type = loss_type;
                case.config.clip.high = 5.0;
                assert_eq!(case.whole().1, plain, "{loss_type:?}");
            }
        }
    }
}

#[test]
fn sequence_ratio_of_one_is_grpo() {
    for case in goldens("group_loss") {
        let mut case = Case::read(&case);
        (case.old, case.config.loss_type) = (None, LossType::Grpo);
        case.config.importance = Importance::Token;
        case.config.beta = 0.0;
        let token = case.whole();
        if case.advantages.len() == case.lengths.len() && case.config.top_entropy_quantile >= 1.0 {
            case.config.importance = Importance::Sequence;
            let sequence = case.whole();
            for (token, sequence) in token.1.iter().zip(&sequence.1) {
                assert_near("grad", f64::from(*sequence), f64::from(*token));
            }
            // What is close to, yet not, the policy gradient: SAPO's gate has slope 1 at ρ = 1
            case.config.loss_type = LossType::Sapo;
            for (sapo, token) in case.whole().1.iter().zip(&token.1) {
                assert_near("sapo", f64::from(*sapo), f64::from(*token));
            }
        }
    }
}

#[test]
fn equal_rewards_give_exactly_no_gradient() {
    for reward in [0.1_f32, 1.0 / 3.0, -7.3e-3, 1e6] {
        for size in [2, 3, 7, 8] {
            let rewards = vec![reward; 2 * size];
            for scale in [Scale::Group, Scale::Batch, Scale::None] {
                let group = group_relative(&rewards, size, scale);
                assert!(group.advantages.iter().all(|a| *a == 0.0) && group.zero_spread == 1.0);
            }
            assert!(normalize_then_sum(&rewards, &[1.0], size).advantages.iter().all(|a| *a == 0.0));
        }
    }
    for case in goldens("group_loss") {
        let mut case = Case::read(&case);
        case.advantages.fill(0.0);
        case.config.beta = 0.0;
        assert!(case.whole().1.iter().all(|g| *g == 0.0), "{:?}", case.config);
    }
}

#[test]
fn advantages_of_groups_are_those_of_trl() {
    for case in goldens("group_relative") {
        let (size, weights): (usize, Vec<f64>) = (read(&case["group_size"]), read(&case["weights"]));
        let rewards = floats(&case["rewards"]);
        let group = if case["settings"]["multi_objective_aggregation"] == "normalize_then_sum" {
            normalize_then_sum(&rewards, &weights, size)
        } else {
            let summed = weighted_sum(&rewards, &weights);
            group_relative(&summed, size, read(&case["settings"]["scale_rewards"]))
        };
        assert_all_near(&case.to_string(), &group.advantages, &case["advantages"]);
        assert_near(&case.to_string(), group.zero_spread, case["zero_spread"].as_f64().unwrap());
    }
    for case in goldens("leave_one_out") {
        let normalize = read(&case["settings"]["normalize_advantages"]);
        let group = leave_one_out(&floats(&case["rewards"]), read(&case["group_size"]), normalize);
        assert_all_near(&case.to_string(), &group.advantages, &case["advantages"]);
        assert_near(&case.to_string(), group.zero_spread, case["zero_spread"].as_f64().unwrap());
    }
}

#[test]
fn groups_of_two_in_closed_form() {
    let (low, high) = (0.25_f32, 1.5_f32);
    let spread = f64::from(high - low);
    let half = spread / 2.0 / (spread / 2.0_f64.sqrt() + 1e-4);
    let group = group_relative(&[high, low], 2, Scale::Group).advantages;
    assert_eq!(group, [half as f32, -half as f32]);
    assert_eq!(group_relative(&[high, low], 2, Scale::None).advantages, [0.625, -0.625]);
    assert_eq!(leave_one_out(&[high, low], 2, false).advantages, [1.25, -1.25]);
}

#[test]
fn rloo_is_that_of_trl() {
    for case in goldens("rloo_loss") {
        let (lengths, mask): (Vec<usize>, Vec<bool>) = (read(&case["lengths"]), read(&case["mask"]));
        let clip =
            Clip { low: case["low"].as_f64().unwrap(), high: case["high"].as_f64().unwrap(), ..Clip::symmetric(0.0) };
        let (log_probs, old) = (floats(&case["log_probs"]), floats(&case["old_log_probs"]));
        let advantages = floats(&case["advantages"]);
        let mut grad = vec![f32::NAN; log_probs.len()];
        let mut run = |old| rloo_loss(&clip, &lengths, &log_probs, old, &advantages, Some(&mask), 4.0, &mut grad);
        let value = run(Some(&old));
        assert_near("loss", value.loss, case["loss"].as_f64().unwrap());
        for (name, got) in value.clip.entries() {
            assert_near(name, got, case["metrics"][name].as_f64().unwrap());
        }
        assert_eq!(run(None), run(Some(&log_probs)));
        run(Some(&old));
        assert_all_near("grad", &grad, &case["grad"]);
    }
}

#[test]
fn ppo_surrogate_in_value_gradient_and_statistics() {
    for case in goldens("ppo") {
        let number = |name: &str| case[name].as_f64().unwrap();
        let clip = Clip { dual: case["dual"].as_f64(), ..Clip::symmetric(number("low")) };
        let mask: Vec<bool> = read(&case["mask"]);
        let (log_probs, old) = (floats(&case["log_probs"]), floats(&case["old_log_probs"]));
        let advantages = floats(&case["advantages"]);
        let count = mask.iter().filter(|m| **m).count() as f64;
        let mut grad = vec![f32::NAN; mask.len()];
        let got = clipped_surrogate(&clip, &log_probs, &old, &advantages, Some(&mask), count, &mut grad);
        assert_near("loss", got.loss, number("loss"));
        assert_near("approx_kl", got.approx_kl, number("approx_kl"));
        assert_near("approx_kl_k2", got.approx_kl_k2, number("approx_kl_k2"));
        assert_near("clip_fraction", got.clip_fraction, number("clip_fraction"));
        assert_near("outside_fraction", got.outside_fraction, number("outside_fraction"));
        assert_near("ratio", got.ratio, number("ratio"));
        assert_all_near("grad", &grad, &case["grad"]);
        if mask.iter().all(|m| *m) {
            assert_near("approx_kl", approx_kl(&log_probs, &old), number("approx_kl"));
        }
        // Parts of a minibatch add up
        let mut parts = vec![0.0; mask.len()];
        let mut part = |range: std::ops::Range<usize>| {
            let r = range.clone();
            let (lp, o, a) = (&log_probs[r.clone()], &old[r.clone()], &advantages[r.clone()]);
            clipped_surrogate(&clip, lp, o, a, Some(&mask[r]), count, &mut parts[range]).loss
        };
        assert_near("parts", part(0..5) + part(5..mask.len()), number("loss"));
        assert_eq!(parts, grad);
    }
}

#[test]
fn dual_clip_is_delta_where_delta_exceeds_the_upper_bound() {
    let (dual, delta) =
        (Clip { dual: Some(1.5), ..Clip::symmetric(0.2) }, Clip { delta: Some(1.5), ..Clip::symmetric(0.2) });
    for log_ratio in [-2.0, -0.1, 0.0, 0.1, 0.3, 0.5, 2.0] {
        for advantage in [-1.3, 0.0, 0.7] {
            let (dual, delta) = (dual.term(log_ratio, advantage), delta.term(log_ratio, advantage));
            assert_near("loss", dual.loss, delta.loss);
            assert_near("grad", dual.grad, delta.grad);
        }
    }
}

#[test]
fn divergences_in_value_and_gradient() {
    for case in goldens("divergence") {
        let lengths: Vec<usize> = read(&case["lengths"]);
        let config = GroupLoss {
            loss_type: LossType::Grpo,
            importance: read(&case["importance"]),
            beta: case["beta"].as_f64().unwrap(),
            kl: read(&case["kind"]),
            kl_ratio_weighted: read(&case["weighted"]),
            ..GroupLoss::default()
        };
        let (log_probs, old) = (floats(&case["log_probs"]), floats(&case["old_log_probs"]));
        let reference = floats(&case["ref_log_probs"]);
        let batch = MicroBatch {
            lengths: &lengths,
            log_probs: &log_probs,
            old_log_probs: Some(&old),
            ref_log_probs: Some(&reference),
            sampling_log_probs: None,
            entropies: None,
            advantages: &[0.0; 3],
            mask: None,
        };
        let step = StepTotals { sequences: 3.0, tokens: 9.0, micro_batches: 1.0, max_completion_length: 4.0 };
        let mut grad = vec![f32::NAN; 9];
        let value = group_loss(&config, &batch, &step, &mut grad, None);
        assert_near(&case.to_string(), value.loss, case["loss"].as_f64().unwrap());
        assert_near(&case.to_string(), value.kl.unwrap(), case["kl"].as_f64().unwrap());
        assert_all_near(&case.to_string(), &grad, &case["grad"]);
    }
}

#[test]
fn value_losses_in_value_and_gradient() {
    for case in goldens("value") {
        let bound = case["bound"].as_f64().unwrap();
        let loss = match case["kind"].as_str().unwrap() {
            "squared" => ValueLoss::Squared,
            "clipped_max" => ValueLoss::ClippedMax { range: bound },
            "clipped_prediction" => ValueLoss::ClippedPrediction { range: bound },
            _ => ValueLoss::Huber { delta: bound },
        };
        let (values, old) = (floats(&case["values"]), floats(&case["old_values"]));
        let (returns, mask): (_, Vec<bool>) = (floats(&case["returns"]), read(&case["mask"]));
        let factor = case["factor"].as_f64().unwrap();
        let mut grad = vec![f32::NAN; values.len()];
        let got = value_loss(loss, &values, &old, &returns, Some(&mask), factor, 8.0, &mut grad);
        assert_near("loss", got.loss, case["loss"].as_f64().unwrap());
        assert_near("clip_fraction", got.clip_fraction, case["clip_fraction"].as_f64().unwrap());
        assert_all_near(&format!("{loss:?}"), &grad, &case["grad"]);
        assert_near("ev", explained_variance(&values, &returns), case["explained_variance"].as_f64().unwrap());
    }
    assert!(explained_variance(&[1.0, 2.0], &[3.0, 3.0]).is_nan());
    assert_eq!(explained_variance(&[1.0, 2.0], &[1.0, 2.0]), 1.0);
}

#[test]
fn advantages_and_returns_along_streams() {
    for case in goldens("gae") {
        let (gamma, lambda) = (case["gamma"].as_f64().unwrap(), case["lam"].as_f64().unwrap());
        let (rewards, values) = (floats(&case["rewards"]), floats(&case["values"]));
        let next = floats(&case["next_values"]);
        let (terminated, truncated): (Vec<bool>, Vec<bool>) = (read(&case["terminated"]), read(&case["truncated"]));
        let n = rewards.len();
        let (mut discounts, mut traces, mut out) = (vec![0.0; n], vec![0.0; n], vec![f32::NAN; n]);
        // The trace of λ = 1 marks the ends whatever λ is
        step_streams(&terminated, &truncated, gamma, 1.0, &mut discounts, &mut traces);
        discounted_returns(&rewards, &traces, &mut out);
        assert_all_near("returns", &out, &case["returns"]);
        n_step_returns(&rewards, &next, &discounts, &traces, 3, &mut out);
        assert_all_near("3-step", &out, &case["three_step"]);
        n_step_returns(&rewards, &next, &discounts, &traces, 1, &mut out);
        let zeros = vec![0.0; n];
        let mut lambda_zero = zeros.clone();
        lambda_returns(&rewards, &next, &discounts, &zeros, &mut lambda_zero);
        assert_eq!(out, lambda_zero);
        n_step_returns(&rewards, &next, &discounts, &traces, n, &mut out);
        lambda_returns(&rewards, &next, &discounts, &traces, &mut lambda_zero);
        for (got, want) in lambda_zero.iter().zip(&out) {
            assert_near("λ = 1", f64::from(*got), f64::from(*want));
        }

        step_streams(&terminated, &truncated, gamma, lambda, &mut discounts, &mut traces);
        gae(&rewards, &values, &next, &discounts, &traces, &mut out);
        assert_all_near("gae", &out, &case["advantages"]);
        // The same numbers time-major, two environments of seven steps: both halves end with a cut
        let turned = |x: &[f32]| (0..n).map(|at| x[at % 2 * 7 + at / 2]).collect::<Vec<f32>>();
        let mut strided = vec![f32::NAN; n];
        let (d, t) = (turned(&discounts), turned(&traces));
        gae_strided(&turned(&rewards), &turned(&values), &turned(&next), &d, &t, 2, &mut strided);
        let mut halves = vec![f32::NAN; n];
        for half in [0..7, 7..n] {
            let h = half.clone();
            let (r, v, w) = (&rewards[h.clone()], &values[h.clone()], &next[h.clone()]);
            gae(r, v, w, &discounts[h.clone()], &traces[h], &mut halves[half]);
        }
        assert_eq!(strided, turned(&halves));
    }
}

#[test]
fn gae_of_rlax() {
    let rewards = [[0.0, 0.0, 1.0, 0.0, -0.5], [0.0, 0.0, 0.0, 0.0, 1.0]];
    let values = [[1.0, 4.0, -3.0, -2.0, -1.0, -1.0], [-3.0, -2.0, -1.0, 0.0, 5.0, -1.0]];
    let discounts = [[0.99_f32; 5], [0.9, 0.9, 0.9, 0.0, 0.9]];
    let expected = [
        (1.0, [[-1.45118, -4.4557, 2.5396, 0.5249, -0.49], [3.0, 2.0, 1.0, 0.0, -4.9]]),
        (0.7, [[-0.676_979, -5.248_167, 2.4846, 0.6704, -0.49], [2.2899, 1.73, 1.0, 0.0, -4.9]]),
        (0.4, [[0.56731, -6.042, 2.3431, 0.815, -0.49], [1.725, 1.46, 1.0, 0.0, -4.9]]),
    ];
    for (lambda, expected) in expected {
        for row in 0..2 {
            let traces = discounts[row].map(|d| d * lambda);
            let mut out = [0.0; 5];
            gae(&rewards[row], &values[row][..5], &values[row][1..], &discounts[row], &traces, &mut out);
            for (got, want) in out.iter().zip(expected[row]) {
                assert!(
                    (got - want).abs() < 2e-3 * want.abs() + 1e-5,
                    "λ = {lambda}: {out:?}, not {:?}",
                    expected[row]
                );
            }
        }
    }
}

#[test]
fn lambda_zero_is_the_td_error_and_lambda_one_the_return_less_the_value() {
    let lengths = [3, 1, 4];
    let rewards = [0.5, -1.0, 2.0, 0.25, 0.0, 1.0, -0.5, 3.0];
    let values = [0.1, 0.2, -0.3, 0.4, 0.5, -0.6, 0.7, 0.8];
    let (mut next, mut discounts, mut traces) = ([0.0; 8], [0.0; 8], [0.0; 8]);
    let (mut advantages, mut returns) = ([0.0; 8], [0.0; 8]);
    token_streams(&lengths, &values, 0.9, 0.0, &mut next, &mut discounts, &mut traces);
    assert_eq!(next, [0.2, -0.3, 0.0, 0.0, -0.6, 0.7, 0.8, 0.0]);
    gae(&rewards, &values, &next, &discounts, &traces, &mut advantages);
    for t in 0..8 {
        let delta = f64::from(rewards[t]) + f64::from(discounts[t]) * f64::from(next[t]) - f64::from(values[t]);
        assert_eq!(advantages[t], delta as f32);
    }
    token_streams(&lengths, &values, 0.9, 1.0, &mut next, &mut discounts, &mut traces);
    gae(&rewards, &values, &next, &discounts, &traces, &mut advantages);
    discounted_returns(&rewards, &traces, &mut returns);
    let mut targets = [0.0; 8];
    add_values(&advantages, &values, &mut targets);
    for (target, g) in targets.iter().zip(returns) {
        assert!((target - g).abs() < 1e-6);
    }
}

#[test]
fn whitening() {
    for case in goldens("whiten") {
        let mask: Vec<bool> = read(&case["mask"]);
        let mut x = floats(&case["x"]);
        whiten(&mut x, Some(&mask), read(&case["shift_mean"]));
        assert_all_near("whiten", &x, &case["whitened"]);
    }
    // Figures of "The N implementation details of RLHF with PPO", unbiased variance
    let mut x = [1.2, 1.3, 1.4, 1.5, 1.6, 1.7, 1.8, 1.9, 2.0];
    whiten(&mut x, None, false);
    for (got, want) in x.iter().zip([0.1394, 0.5046, 0.8697, 1.2349, 1.6, 1.9651, 2.3303, 2.6954, 3.0606]) {
        assert!((got - want).abs() < 1e-4);
    }
    let mut one = [3.0];
    whiten(&mut one, None, true);
    normalize(&mut one);
    assert_eq!(one, [3.0]);
    let mut x = [1.0, 2.0, 4.0];
    normalize(&mut x);
    let std = (7.0_f64 / 3.0).sqrt() + 1e-8;
    assert_eq!(x.map(f64::from).map(|x| (x * std * 3.0).round()), [-4.0, -1.0, 5.0]);
}

#[test]
fn rewards_of_tokens_sum_to_score_less_penalty() {
    let (lengths, scores) = ([2, 3], [1.5, -0.5]);
    let (policy, reference) = ([-1.0, -2.0, -0.5, -0.25, -3.0], [-1.5, -1.0, -0.5, -1.25, -2.0]);
    let mut rewards = [f32::NAN; 5];
    let stats = token_rewards(&lengths, &policy, &reference, &scores, 0.1, KlEstimator::K1, &mut rewards);
    for (got, want) in rewards.iter().zip([-0.05, 0.1 + 1.5, 0.0, -0.1, 0.1 - 0.5]) {
        assert!((got - want).abs() < 1e-7);
    }
    let mut kl = [f32::NAN; 2];
    sequence_kl(&lengths, &policy, &reference, None, &mut kl);
    assert_eq!(kl, [-0.5, 0.0]);
    assert_near("kl", stats.kl, -0.25);
    assert_near("non_score_reward", stats.non_score_reward, 0.025);
    assert_near("rlhf_reward", stats.rlhf_reward, 0.525);
    let mut shaped = scores;
    subtract_kl(&mut shaped, &kl, 0.1);
    assert_eq!(shaped, [1.55, -0.5]);
    penalize_unfinished(&mut shaped, &[true, false], 1.0);
    clip_scores(&mut shaped, -1.0, 1.0);
    assert_eq!(shaped, [1.0, -1.0]);
}

#[test]
fn overlong_penalty_is_that_of_trl() {
    for case in goldens("overlong") {
        for (length, want) in floats(&case["penalties"]).into_iter().enumerate() {
            let got = overlong_penalty(length, read(&case["max_length"]), read(&case["buffer"]));
            assert_near("penalty", got, f64::from(want));
        }
    }
}

#[test]
fn adaptive_entropy_acts_below_its_target_only() {
    let mut control = AdaptiveEntropy { coefficient: 0.01, min: 0.0, max: 0.02, delta: 0.006, target: 1.0, last: None };
    let mut seen = Vec::new();
    for entropy in [0.9, 0.8, 1.0, 1.1, 1.2, 1.3, 1.4, 0.5] {
        seen.push(control.applied());
        control.update(entropy);
    }
    seen.push(control.applied());
    for (got, want) in seen.iter().zip([0.0, 0.016, 0.02, 0.02, 0.0, 0.0, 0.0, 0.0, 0.006]) {
        assert_near("coefficient", *got, want);
    }
}

#[test]
fn quantiles_of_entropy_interpolate() {
    let entropies = [4.0, 1.0, 3.0, 2.0, 9.0];
    let mut keep = [false; 5];
    // Half-way between 2 and 3 without the masked 9
    high_entropy_mask(&entropies, Some(&[true, true, true, true, false]), 0.5, &mut keep);
    assert_eq!(keep, [true, false, true, false, false]);
    high_entropy_mask(&entropies, None, 0.5, &mut keep);
    assert_eq!(keep, [true, false, true, false, true]);
    high_entropy_mask(&entropies, Some(&[false; 5]), 0.5, &mut keep);
    assert_eq!(keep, [false; 5]);
}

#[test]
fn kl_controllers() {
    let mut adaptive = AdaptiveKl { coefficient: 0.2, target: 6.0, horizon: 10_000.0 };
    adaptive.update(60.0, 256);
    assert_near("too far", adaptive.coefficient, 0.2 * (1.0 + 0.2 * 256.0 / 10_000.0));
    let before = adaptive.coefficient;
    adaptive.update(6.0, 256);
    adaptive.update(f64::NAN, 256);
    assert_eq!(adaptive.coefficient, before);
    adaptive.update(5.7, 256);
    assert_near("near", adaptive.coefficient, before * (1.0 - 0.05 * 256.0 / 10_000.0));
    let mut controller = KlController::Adaptive(adaptive);
    let again: KlController = serde_json::from_str(&serde_json::to_string(&controller).unwrap()).unwrap();
    assert_eq!(again, controller);
    controller.update(0.0, 10_000);
    assert_near("below", controller.coefficient(), adaptive.coefficient * 0.8);
    let mut fixed = KlController::Fixed(FixedKl { coefficient: 0.05 });
    fixed.update(99.0, 1);
    assert_eq!(fixed.coefficient(), 0.05);
}

/// Log-probabilities on a grid, so that a small step is exact in f32
fn grid(
    size: impl Into<proptest::collection::SizeRange>,
    range: std::ops::Range<i32>,
) -> impl Strategy<Value = Vec<f32>> {
    proptest::collection::vec(range.prop_map(|x| x as f32 / 64.0), size)
}

const STEP: f32 = 1.0 / 1024.0;

fn central(at: usize, x: &[f32], mut f: impl FnMut(&[f32]) -> f64) -> f64 {
    let mut moved = x.to_vec();
    moved[at] = x[at] + STEP;
    let above = f(&moved);
    moved[at] = x[at] - STEP;
    (above - f(&moved)) / f64::from(2.0 * STEP)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    // CISPO and VESPO take their weights as constants: their gradient is not that of their value
    #[test]
    fn gradient_of_the_group_loss_is_its_slope(
        log_probs in grid(9, -200..0), moves in grid(9, -40..40), away in grid(9, -40..40),
        advantages in grid(3, -128..128), mask in proptest::collection::vec(proptest::bool::weighted(0.8), 9),
        loss_type in proptest::sample::select(vec![LossType::Grpo, LossType::Bnpo, LossType::DrGrpo, LossType::Dapo,
            LossType::Sapo, LossType::Luspo]),
        importance in proptest::sample::select(vec![Importance::Token, Importance::Sequence]),
        kl in proptest::sample::select(vec![KlEstimator::K1, KlEstimator::K2, KlEstimator::K3, KlEstimator::SequenceK2]),
        kl_ratio_weighted: bool, delta in proptest::option::of(1.3..2.0_f64), dual in proptest::option::of(1.3..2.0_f64),
    ) {
        let shifted = |by: &[f32]| log_probs.iter().zip(by).map(|(x, d)| x + d).collect::<Vec<f32>>();
        let (old, reference) = (shifted(&moves), shifted(&away));
        let config = GroupLoss {
            loss_type, importance, beta: 0.3, kl, kl_ratio_weighted,
            clip: Clip { low: 0.2, high: 0.28, delta, dual }, ..GroupLoss::default()
        };
        let step = StepTotals { sequences: 4.0, tokens: 11.0, micro_batches: 2.0, max_completion_length: 6.0 };
        let run = |x: &[f32]| {
            let batch = MicroBatch {
                lengths: &[2, 4, 3], log_probs: x, old_log_probs: Some(&old), ref_log_probs: Some(&reference),
                sampling_log_probs: None, entropies: None, advantages: &advantages, mask: Some(&mask),
            };
            let mut grad = vec![f32::NAN; 9];
            (group_loss(&config, &batch, &step, &mut grad, None), grad)
        };
        let (_, grad) = run(&log_probs);
        for at in 0..9 {
            // On either side of a bound the slopes differ: a step across one shows nothing
            let sides: Vec<Vec<f32>> = [STEP, -STEP].map(|d| { let mut x = log_probs.clone(); x[at] += d; run(&x).1 }).into();
            if sides[0].iter().zip(&sides[1]).any(|(a, b)| (a - b).abs() > 0.02 * (a.abs() + b.abs()) + 1e-3) {
                continue;
            }
            let slope = central(at, &log_probs, |x| run(x).0.loss);
            let tolerance = 1e-4 + 1e-3 * slope.abs();
            prop_assert!((f64::from(grad[at]) - slope).abs() < tolerance, "{config:?} {at}: {} {slope}", grad[at]);
        }
    }

    #[test]
    fn gradient_of_the_value_loss_is_its_slope(
        values in grid(4, -128..128), old in grid(4, -128..128), returns in grid(4, -128..128),
        loss in proptest::sample::select(vec![ValueLoss::Squared, ValueLoss::ClippedMax { range: 0.2 },
            ValueLoss::ClippedPrediction { range: 0.2 }, ValueLoss::Huber { delta: 0.7 }]),
    ) {
        let run = |x: &[f32]| {
            let mut grad = vec![f32::NAN; 4];
            (value_loss(loss, x, &old, &returns, None, 0.5, 4.0, &mut grad).loss, grad)
        };
        let (_, grad) = run(&values);
        for at in 0..4 {
            let sides = [STEP, -STEP].map(|d| { let mut x = values.clone(); x[at] += d; run(&x).1[at] });
            if (sides[0] - sides[1]).abs() < 2e-3 {
                let slope = central(at, &values, |x| run(x).0);
                prop_assert!((f64::from(grad[at]) - slope).abs() < 1e-3, "{loss:?}: {} {slope}", grad[at]);
            }
        }
    }

    #[test]
    fn leave_one_out_is_group_relative_unscaled_times_g_over_g_less_one(rewards in grid(12, -500..500)) {
        let (loo, group) = (leave_one_out(&rewards, 4, false), group_relative(&rewards, 4, Scale::None));
        for (loo, group) in loo.advantages.iter().zip(&group.advantages) {
            prop_assert!((loo - group * 4.0 / 3.0).abs() < 1e-5);
        }
    }
}
