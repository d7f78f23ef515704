//! Online DPO: two completions of each prompt, the better rewarded one is preferred.
//!
//! Guo et al. 2024, <https://arxiv.org/abs/2402.04792>.

use super::group::{self, GroupMethod};
use super::rounds::RoundSizes;
use crate::Result;
use crate::algo::group_loss::{MicroBatch, StepTotals};
use crate::config::{CommandSpec, Context, OnlineDpoKeys, OnlineDpoLoss, OnlineKeys, TrainKeys, Values};
use crate::rollout::Rollout;
use crate::run::Metrics;

/// The command `online_dpo`
pub const ONLINE_DPO: CommandSpec = CommandSpec {
    name: "online_dpo",
    about: "DPO on pairs of the policy's own completions, ranked by any reward",
    groups: &[TrainKeys::KEYS, OnlineKeys::KEYS, OnlineDpoKeys::KEYS],
    defaults: &[
        ("learning_rate", "5e-7"),
        ("disable_dropout", "true"),
        ("num_generations", "2"),
        ("max_completion_length", "64"),
        ("temperature", "0.9"),
    ],
    run,
};

fn run(values: &Values, context: &Context) -> Result<()> {
    let (train, online) = (TrainKeys::from_values(values)?, OnlineKeys::from_values(values)?);
    let keys = OnlineDpoKeys::from_values(values)?;
    if online.num_generations != 2 {
        return Err(crate::Error::usage(format!(
            "`num_generations` must be 2, got {}: a pair is ranked",
            online.num_generations
        )));
    }
    if !train.per_device_train_batch_size.is_multiple_of(2) {
        return Err(crate::Error::usage(format!(
            "`per_device_train_batch_size` must be even, got {}: it counts completions, and two make a pair",
            train.per_device_train_batch_size
        )));
    }
    let sizes = RoundSizes { num_iterations: 1, steps_per_generation: None, generation_batch_size: None };
    let own = keys.to_values();
    group::run(train, &online, own, sizes, None, OnlineDpo { keys }, context)
}

struct OnlineDpo {
    keys: OnlineDpoKeys,
}

impl GroupMethod for OnlineDpo {
    fn beta(&self) -> f64 {
        self.keys.beta
    }

    fn needs_old(&self) -> bool {
        false
    }

    fn masks_truncated(&self) -> bool {
        false
    }

    /// 1 for the preferred completion of a pair, −1 for the other, 0 for both where they cannot be told apart
    fn advantages(&self, rollout: &mut Rollout, _weights: &[f64], generations: usize) -> Metrics {
        let penalty = self.keys.missing_eos_penalty.unwrap_or(0.0);
        let cut = rollout.truncated.iter().map(|cut| if *cut { penalty } else { 0.0 });
        let scores: Vec<f64> =
            rollout.rewards.iter().zip(cut).map(|(reward, cut)| reward.unwrap_or(f64::NAN) - cut).collect();
        let margins: Vec<f64> =
            scores.chunks(generations).map(|pair| (pair[0] - pair[1]).abs()).filter(|m| !m.is_nan()).collect();
        rollout.advantages = scores
            .chunks(generations)
            .flat_map(|pair| match pair[0].partial_cmp(&pair[1]) {
                Some(std::cmp::Ordering::Greater) => [vec![1.0], vec![-1.0]],
                Some(std::cmp::Ordering::Less) => [vec![-1.0], vec![1.0]],
                _ => [vec![0.0], vec![0.0]],
            })
            .collect();
        let mean = margins.iter().sum::<f64>() / margins.len().max(1) as f64;
        Metrics::from_iter([("objective/scores_margin", mean)])
    }

    /// −log σ(βΔ) or (Δ − 1/2β)² of each pair, Δ the difference of summed log-ratios; a tie counts nothing
    fn loss(
        &mut self,
        batch: &MicroBatch<'_>,
        totals: &StepTotals,
        grad: &mut [f32],
        _grad_entropy: &mut [f32],
    ) -> (f64, Metrics) {
        let beta = self.keys.beta;
        let reference = batch.ref_log_probs.unwrap_or_default();
        let mut ends = 0;
        let spans: Vec<std::ops::Range<usize>> = batch
            .lengths
            .iter()
            .map(|length| {
                ends += length;
                ends - length..ends
            })
            .collect();
        let ratio = |i: usize| -> f64 {
            spans[i].clone().map(|t| f64::from(batch.log_probs[t]) - f64::from(reference[t])).sum()
        };
        let pairs = totals.sequences / 2.0;
        let (mut loss, mut rewards, mut correct, mut counted) = (0.0, [0.0; 2], 0.0, 0.0);
        for first in (0..spans.len()).step_by(2) {
            let (chosen, rejected) =
                if batch.advantages[first] > 0.0 { (first, first + 1) } else { (first + 1, first) };
            if batch.advantages[first] == 0.0 {
                continue;
            }
            let (up, down) = (ratio(chosen), ratio(rejected));
            let delta = up - down;
            // Value and derivative by Δ
            let (value, slope) = match self.keys.loss_type {
                OnlineDpoLoss::Sigmoid => {
                    let z = beta * delta;
                    let value = (-z.abs()).exp().ln_1p() + (-z).max(0.0);
                    (value, -beta / (1.0 + z.exp()))
                }
                OnlineDpoLoss::Ipo => {
                    let error = delta - 0.5 / beta;
                    (error * error, 2.0 * error)
                }
            };
            loss += value / pairs;
            spans[chosen].clone().for_each(|t| grad[t] = (slope / pairs) as f32);
            spans[rejected].clone().for_each(|t| grad[t] = (-slope / pairs) as f32);
            rewards[0] += beta * up;
            rewards[1] += beta * down;
            correct += f64::from(u8::from(up > down));
            counted += 1.0;
        }
        let mut metrics = Metrics::new();
        if counted > 0.0 {
            metrics.extend([
                ("rewards/chosen", rewards[0] / counted),
                ("rewards/rejected", rewards[1] / counted),
                ("rewards/accuracies", correct / counted),
                ("rewards/margins", (rewards[0] - rewards[1]) / counted),
            ]);
        }
        let n = batch.lengths.len().max(1) as f64;
        let kl: f64 = (0..spans.len()).map(ratio).sum();
        metrics.extend([("objective/kl", kl / n), ("beta", beta)]);
        (loss, metrics)
    }
}
