//! Group relative policy optimisation: completions of a prompt are judged against each other, no value model.
//!
//! Shao et al. 2024, <https://arxiv.org/abs/2402.03300>, and the losses that came after it ([`LossType`]).

use serde_json::{Value, json};

use super::group::{self, GroupMethod};
use super::rounds::RoundSizes;
use crate::Result;
use crate::algo::entropy::AdaptiveEntropy;
use crate::algo::group::{GroupAdvantages, Scale, group_relative, normalize_then_sum};
use crate::algo::group_loss::{GroupLoss, Importance, LossType, MicroBatch, StepTotals, group_loss};
use crate::algo::kl::KlEstimator;
use crate::algo::policy::{Clip, Vespo};
use crate::config::{
    Aggregation, CommandSpec, Context, GrpoKeys, GrpoLoss, ImportanceLevel, KlTerm, OnlineKeys, ScaleRewards, SyncKeys,
    TrainKeys, Values,
};
use crate::rollout::Rollout;
use crate::run::Metrics;

/// The command `grpo`
pub const GRPO: CommandSpec = CommandSpec {
    name: "grpo",
    about: "Group relative policy optimisation against any reward",
    groups: &[TrainKeys::KEYS, OnlineKeys::KEYS, GrpoKeys::KEYS, SyncKeys::KEYS],
    defaults: &[("learning_rate", "1e-6")],
    run,
};

fn run(values: &Values, context: &Context) -> Result<()> {
    let (train, online) = (TrainKeys::from_values(values)?, OnlineKeys::from_values(values)?);
    let (keys, sync) = (GrpoKeys::from_values(values)?, SyncKeys::from_values(values)?);
    let sizes = RoundSizes {
        num_iterations: keys.num_iterations,
        steps_per_generation: keys.steps_per_generation,
        generation_batch_size: keys.generation_batch_size,
    };
    let own = keys.to_values().into_iter().chain(sync.to_values()).collect();
    group::run(train, &online, own, sizes, sync.sync(), Grpo::new(keys), context)
}

struct Grpo {
    loss: GroupLoss,
    /// Steers the weight of the entropy bonus
    entropy: Option<AdaptiveEntropy>,
    /// Σ entropy and tokens of the step so far
    entropy_sum: (f64, f64),
    keys: GrpoKeys,
}

impl Grpo {
    fn new(keys: GrpoKeys) -> Self {
        let entropy = keys.use_adaptive_entropy.then_some(AdaptiveEntropy {
            coefficient: keys.entropy_coef,
            min: keys.entropy_coef_min,
            max: keys.entropy_coef_max,
            delta: keys.entropy_coef_delta,
            target: keys.entropy_target,
            last: None,
        });
        Self { loss: loss(&keys), entropy, entropy_sum: (0.0, 0.0), keys }
    }
}

fn loss(keys: &GrpoKeys) -> GroupLoss {
    GroupLoss {
        loss_type: match keys.loss_type {
            GrpoLoss::Grpo => LossType::Grpo,
            GrpoLoss::Bnpo => LossType::Bnpo,
            GrpoLoss::DrGrpo => LossType::DrGrpo,
            GrpoLoss::Dapo => LossType::Dapo,
            GrpoLoss::Cispo => LossType::Cispo,
            GrpoLoss::Sapo => LossType::Sapo,
            GrpoLoss::Luspo => LossType::Luspo,
            GrpoLoss::Vespo => LossType::Vespo,
        },
        importance: match keys.importance_sampling_level {
            ImportanceLevel::Token => Importance::Token,
            ImportanceLevel::Sequence => Importance::Sequence,
        },
        clip: Clip {
            low: keys.epsilon,
            high: keys.epsilon_high.unwrap_or(keys.epsilon),
            delta: keys.delta,
            dual: keys.dual_clip,
        },
        beta: keys.beta,
        kl: match keys.kl_estimator {
            KlTerm::K3 => KlEstimator::K3,
            KlTerm::K2 => KlEstimator::K2,
            KlTerm::SequenceK2 => KlEstimator::SequenceK2,
        },
        // The squares have the wanted gradient as they are
        kl_ratio_weighted: keys.use_bias_correction_kl && keys.kl_estimator == KlTerm::K3,
        sapo_temperature_pos: keys.sapo_temperature_pos,
        sapo_temperature_neg: keys.sapo_temperature_neg,
        vespo: Vespo {
            k_pos: keys.vespo_k_pos,
            lambda_pos: keys.vespo_lambda_pos,
            k_neg: keys.vespo_k_neg,
            lambda_neg: keys.vespo_lambda_neg,
        },
        top_entropy_quantile: keys.top_entropy_quantile,
        off_policy_mask_threshold: keys.off_policy_mask_threshold,
        entropy_coef: keys.entropy_coef,
    }
}

impl GroupMethod for Grpo {
    fn beta(&self) -> f64 {
        self.loss.beta
    }

    fn needs_old(&self) -> bool {
        false
    }

    fn masks_truncated(&self) -> bool {
        self.keys.mask_truncated_completions
    }

    fn resamples(&self) -> usize {
        self.keys.dynamic_sampling
    }

    fn end_step(&mut self) -> Metrics {
        let (sum, tokens) = std::mem::take(&mut self.entropy_sum);
        let mut metrics = Metrics::new();
        if let Some(entropy) = &mut self.entropy {
            entropy.update(sum / tokens.max(1.0));
            metrics.set("entropy_coef", entropy.coefficient);
        } else if self.loss.entropy_coef > 0.0 {
            metrics.set("entropy_coef", self.loss.entropy_coef);
        }
        metrics
    }

    fn state(&self) -> Value {
        json!(self.entropy)
    }

    fn restore(&mut self, state: Value) -> serde_json::Result<()> {
        self.entropy = serde_json::from_value(state)?;
        Ok(())
    }

    fn advantages(&self, rollout: &mut Rollout, weights: &[f64], generations: usize) -> Metrics {
        let scale = match self.keys.scale_rewards {
            ScaleRewards::Group => Scale::Group,
            ScaleRewards::Batch => Scale::Batch,
            ScaleRewards::None => Scale::None,
        };
        let GroupAdvantages { advantages, zero_spread, .. } = match self.keys.multi_objective_aggregation {
            Aggregation::SumThenNormalize => group_relative(&rollout.scores(), generations, scale),
            Aggregation::NormalizeThenSum => {
                let by_completion: Vec<f32> = (0..rollout.len())
                    .flat_map(|i| rollout.rewards_by_function.iter().map(move |values| values[i]))
                    .map(|value| value.map_or(f32::NAN, |value| value as f32))
                    .collect();
                normalize_then_sum(&by_completion, weights, generations)
            }
        };
        rollout.advantages = advantages.into_iter().map(|advantage| vec![advantage]).collect();
        Metrics::from_iter([("frac_reward_zero_std", zero_spread)])
    }

    fn loss(
        &mut self,
        batch: &MicroBatch<'_>,
        totals: &StepTotals,
        grad: &mut [f32],
        grad_entropy: &mut [f32],
    ) -> (f64, Metrics) {
        if let Some(entropy) = &self.entropy {
            self.loss.entropy_coef = entropy.applied();
        }
        let value = group_loss(&self.loss, batch, totals, grad, Some(grad_entropy));
        self.entropy_sum.0 += value.entropy_sum.0;
        self.entropy_sum.1 += value.entropy_sum.1;
        (value.loss, value.entries().into_iter().filter(|(_, metric)| !metric.is_nan()).collect())
    }
}
