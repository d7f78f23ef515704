//! REINFORCE with a leave-one-out baseline; the KL to the frozen start is part of the reward.
//!
//! Ahmadian et al. 2024, <https://arxiv.org/abs/2402.14740>.

use super::group::{self, GroupMethod};
use super::rounds::RoundSizes;
use crate::Result;
use crate::algo::group::leave_one_out;
use crate::algo::group_loss::{MicroBatch, StepTotals};
use crate::algo::policy::Clip;
use crate::algo::rloo::rloo_loss;
use crate::algo::shaping::{clip_scores, sequence_kl, subtract_kl};
use crate::config::{CommandSpec, Context, OnlineKeys, RlooKeys, SyncKeys, TrainKeys, Values};
use crate::rollout::Rollout;
use crate::run::Metrics;

/// The command `rloo`
pub const RLOO: CommandSpec = CommandSpec {
    name: "rloo",
    about: "REINFORCE with a leave-one-out baseline against any reward",
    groups: &[TrainKeys::KEYS, OnlineKeys::KEYS, RlooKeys::KEYS, SyncKeys::KEYS],
    defaults: &[("learning_rate", "1e-6"), ("num_generations", "2")],
    run,
};

fn run(values: &Values, context: &Context) -> Result<()> {
    let (train, online) = (TrainKeys::from_values(values)?, OnlineKeys::from_values(values)?);
    let (keys, sync) = (RlooKeys::from_values(values)?, SyncKeys::from_values(values)?);
    let sizes = RoundSizes {
        num_iterations: keys.num_iterations,
        steps_per_generation: keys.steps_per_generation,
        generation_batch_size: keys.generation_batch_size,
    };
    let clip = Clip { high: keys.epsilon_high.unwrap_or(keys.epsilon), ..Clip::symmetric(keys.epsilon) };
    let own = keys.to_values().into_iter().chain(sync.to_values()).collect();
    group::run(train, &online, own, sizes, sync.sync(), Rloo { clip, keys }, context)
}

struct Rloo {
    clip: Clip,
    keys: RlooKeys,
}

impl GroupMethod for Rloo {
    fn beta(&self) -> f64 {
        self.keys.beta
    }

    fn needs_old(&self) -> bool {
        self.keys.beta != 0.0
    }

    fn masks_truncated(&self) -> bool {
        self.keys.mask_truncated_completions
    }

    fn advantages(&self, rollout: &mut Rollout, _weights: &[f64], generations: usize) -> Metrics {
        let mut metrics = Metrics::new();
        let mut scores = rollout.scores();
        if let Some([low, high]) = self.keys.reward_clip_range.as_deref() {
            clip_scores(&mut scores, *low, *high);
        }
        if self.keys.beta != 0.0 {
            let lengths: Vec<usize> = rollout.completions.iter().map(Vec::len).collect();
            let (old, reference) = (rollout.old_log_probs.concat(), rollout.ref_log_probs.concat());
            let mask: Option<Vec<bool>> = self.keys.mask_truncated_completions.then(|| {
                let cut = rollout.truncated.iter().zip(&lengths);
                cut.flat_map(|(cut, &length)| std::iter::repeat_n(!cut, length)).collect()
            });
            let mut kl = vec![0.0; lengths.len()];
            sequence_kl(&lengths, &old, &reference, mask.as_deref(), &mut kl);
            subtract_kl(&mut scores, &kl, self.keys.beta);
            let tokens = mask.map_or(old.len(), |mask| mask.into_iter().filter(|counts| *counts).count());
            let total: f64 = kl.iter().map(|kl| f64::from(*kl)).sum();
            metrics.set("kl", total / tokens.max(1) as f64);
        }
        let judged = leave_one_out(&scores, generations, self.keys.normalize_advantages);
        metrics.set("frac_reward_zero_std", judged.zero_spread);
        rollout.advantages = judged.advantages.into_iter().map(|advantage| vec![advantage]).collect();
        metrics
    }

    fn loss(
        &mut self,
        batch: &MicroBatch<'_>,
        totals: &StepTotals,
        grad: &mut [f32],
        _grad_entropy: &mut [f32],
    ) -> (f64, Metrics) {
        let MicroBatch { lengths, log_probs, old_log_probs, advantages, mask, .. } = *batch;
        let value = rloo_loss(&self.clip, lengths, log_probs, old_log_probs, advantages, mask, totals.sequences, grad);
        let mut metrics: Metrics = value.clip.entries().into_iter().filter(|(_, x)| !x.is_nan()).collect();
        let counted = |t: &usize| mask.is_none_or(|mask| mask[*t]);
        let kept: Vec<f64> = batch.entropies.map_or_else(Vec::new, |entropies| {
            (0..entropies.len()).filter(counted).map(|t| f64::from(entropies[t])).collect()
        });
        metrics.set("entropy", kept.iter().sum::<f64>() / kept.len().max(1) as f64);
        (value.loss, metrics)
    }
}
