//! The keys of GRPO and RLOO.

use super::keys::Range;
use super::{config_choice, config_keys};
use crate::{Error, Result};

config_choice! {
    /// Loss per token, and how tokens are added up
    pub enum GrpoLoss {
        /// Mean over tokens, then over sequences
        Grpo = "grpo",
        /// Mean over the tokens of a micro-batch
        Bnpo = "bnpo",
        /// Sum over tokens, divided by a constant length
        DrGrpo = "dr_grpo",
        /// Mean over all tokens of the step
        Dapo = "dapo",
        /// Capped weights, no token's gradient is cut
        Cispo = "cispo",
        /// A soft gate in place of clipping
        Sapo = "sapo",
        /// Sum over tokens, mean over sequences
        Luspo = "luspo",
        /// A smooth weight of the whole sequence
        Vespo = "vespo",
    }
}

config_choice! {
    /// What a ratio is taken over
    pub enum ImportanceLevel {
        /// Each token
        Token = "token",
        /// Each completion (GSPO)
        Sequence = "sequence",
    }
}

config_choice! {
    /// What centred rewards are divided by
    pub enum ScaleRewards {
        /// The group's standard deviation
        Group = "group" | "true" | "True",
        /// The batch's standard deviation
        Batch = "batch",
        /// Nothing
        None = "none" | "no" | "false" | "False",
    }
}

config_choice! {
    /// How several rewards become one advantage
    pub enum Aggregation {
        /// Weighted sum, then normalised in the group
        SumThenNormalize = "sum_then_normalize",
        /// Each normalised in the group, then summed and normalised over the batch
        NormalizeThenSum = "normalize_then_sum",
    }
}

config_choice! {
    /// Estimator of the KL term in the loss
    pub enum KlTerm {
        /// exp(−d) + d − 1 of each token (TRL's)
        K3 = "k3",
        /// d²/2 of each token
        K2 = "k2",
        /// d²/2 of the whole completion: its fixed point is that of the KL in the reward
        SequenceK2 = "sequence_k2",
    }
}

config_keys! {
    /// The keys of group relative policy optimisation
    pub struct GrpoKeys {
        "Policy optimisation" {
            /// Weight of the KL term in the loss; 0 keeps no reference model
            beta: f64 = 0.0, Range::at_least(0.0);
            /// Loss per token, and how tokens are added up
            loss_type: GrpoLoss = GrpoLoss::Dapo;
            /// What centred rewards are divided by
            scale_rewards: ScaleRewards = ScaleRewards::Group;
            /// How several rewards become one advantage
            multi_objective_aggregation: Aggregation = Aggregation::SumThenNormalize;
            /// Passes over each batch of completions
            num_iterations: usize = 1, Range::at_least(1.0);
            /// Micro-batches of one round of generation; gradient_accumulation_steps where not set
            steps_per_generation: Option<usize> = None, Range::at_least(1.0);
            /// Completions of one round of generation, in place of steps_per_generation
            generation_batch_size: Option<usize> = None, Range::at_least(1.0);
            /// ε, how far a ratio may fall, and rise where epsilon_high is not set
            epsilon: f64 = 0.2, Range::at_least(0.0);
            /// How far a ratio may rise; for `cispo` the cap on the ratio itself
            epsilon_high: Option<f64> = None, Range::at_least(0.0);
            /// Cap on the unclipped ratio (two-sided clipping)
            delta: Option<f64> = None, Range::above(1.0);
            /// With a negative advantage the loss is at most this times it (dual clip)
            dual_clip: Option<f64> = None, Range::above(1.0);
            /// What a ratio is taken over
            importance_sampling_level: ImportanceLevel = ImportanceLevel::Token;
            /// Temperature of `sapo` where the advantage is positive
            sapo_temperature_pos: f64 = 1.0, Range::above(0.0);
            /// Temperature of `sapo` elsewhere
            sapo_temperature_neg: f64 = 1.05, Range::above(0.0);
            /// Power of `vespo` where the advantage is not negative
            vespo_k_pos: f64 = 2.0, Range::at_least(0.0);
            /// Decay of `vespo` where the advantage is not negative
            vespo_lambda_pos: f64 = 3.0, Range::at_least(0.0);
            /// Power of `vespo` where the advantage is negative
            vespo_k_neg: f64 = 3.0, Range::at_least(0.0);
            /// Decay of `vespo` where the advantage is negative
            vespo_lambda_neg: f64 = 2.0, Range::at_least(0.0);
            /// Estimator of the KL term
            kl_estimator: KlTerm = KlTerm::K3;
            /// Weight the KL term by the ratio, which is differentiated too
            use_bias_correction_kl: bool = true;
            /// Leave completions that were cut at the limit out of the loss
            mask_truncated_completions: bool = false;
            /// Share of tokens, those of highest entropy, that the policy term keeps
            top_entropy_quantile: f64 = 1.0, Range::within(0.0, 1.0);
            /// Weight of the entropy bonus
            entropy_coef: f64 = 0.0, Range::at_least(0.0);
            /// Steer the weight of the entropy bonus towards entropy_target
            use_adaptive_entropy: bool = false;
            /// Lowest weight that steering reaches
            entropy_coef_min: f64 = 0.0, Range::at_least(0.0);
            /// Highest weight that steering reaches
            entropy_coef_max: f64 = 1.0, Range::at_least(0.0);
            /// Change of the weight in a step
            entropy_coef_delta: f64 = 0.005, Range::at_least(0.0);
            /// Entropy per token to hold, in nats
            entropy_target: f64 = 0.2, Range::at_least(0.0);
            /// Drop completions of negative advantage that drifted further than this from their sampler
            off_policy_mask_threshold: Option<f64> = None;
            /// Sample again, so many times, for prompts whose completions all have the same reward
            dynamic_sampling: usize = 0;
        }
    }
}

impl GrpoKeys {
    fn check(&self) -> Result<()> {
        both_generation_keys(self.steps_per_generation, self.generation_batch_size)?;
        if self.loss_type == GrpoLoss::Luspo && self.importance_sampling_level == ImportanceLevel::Token {
            tracing::info!("`luspo` is meant for `importance_sampling_level: sequence`");
        }
        Ok(())
    }
}

config_keys! {
    /// The keys of REINFORCE with a leave-one-out baseline
    pub struct RlooKeys {
        "Policy optimisation" {
            /// Weight of the KL in the reward; 0 keeps no reference model
            beta: f64 = 0.05, Range::at_least(0.0);
            /// Passes over each batch of completions
            num_iterations: usize = 1, Range::at_least(1.0);
            /// Micro-batches of one round of generation; gradient_accumulation_steps where not set
            steps_per_generation: Option<usize> = None, Range::at_least(1.0);
            /// Completions of one round of generation, in place of steps_per_generation
            generation_batch_size: Option<usize> = None, Range::at_least(1.0);
            /// ε, how far the ratio of a completion may fall, and rise where epsilon_high is not set
            epsilon: f64 = 0.2, Range::at_least(0.0);
            /// How far the ratio of a completion may rise
            epsilon_high: Option<f64> = None, Range::at_least(0.0);
            /// Centre and scale the advantages over the batch
            normalize_advantages: bool = false;
            /// Lowest and highest reward
            reward_clip_range: Option<Vec<f64>> = None;
            /// Leave completions that were cut at the limit out of the loss
            mask_truncated_completions: bool = false;
        }
    }
}

impl RlooKeys {
    fn check(&self) -> Result<()> {
        both_generation_keys(self.steps_per_generation, self.generation_batch_size)?;
        match self.reward_clip_range.as_deref() {
            None => Ok(()),
            Some([low, high]) if low <= high => Ok(()),
            Some(other) => {
                Err(Error::usage(format!("`reward_clip_range` must be two numbers, the lowest first, got {other:?}")))
            }
        }
    }
}

fn both_generation_keys(steps: Option<usize>, size: Option<usize>) -> Result<()> {
    if steps.is_some() && size.is_some() {
        return Err(Error::usage("`steps_per_generation` and `generation_batch_size` exclude each other: set one"));
    }
    Ok(())
}
