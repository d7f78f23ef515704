//! The loss of GRPO and its relatives over a micro-batch of ragged completions, with its gradient.

use serde::{Deserialize, Serialize};

use super::entropy::high_entropy_mask;
use super::group_pass::{Pass, Sequence};
use super::kl::KlEstimator;
use super::policy::{Clip, Vespo};
use super::{counts, same_length, same_length_if_any};

/// Which loss per token, and how tokens are added up; names are TRL's `loss_type`
///
/// With l the loss of a token, B sequences, L tokens that count in a sequence:
///
/// | name | token | sum over the optimiser step |
/// |---|---|---|
/// | `grpo` | clipped | Σ_seq (Σ_t l / L) / B (Shao et al. 2024, <https://arxiv.org/abs/2402.03300>) |
/// | `bnpo` | clipped | Σ l / tokens of the micro-batch / micro-batches: depends on the split, by definition |
/// | `dr_grpo` | clipped | Σ l / (B · `max_completion_length`) (Liu et al. 2025, <https://arxiv.org/abs/2503.20783>) |
/// | `dapo` | clipped | Σ l / tokens (Yu et al. 2025, <https://arxiv.org/abs/2503.14476>) |
/// | `cispo` | weight capped | Σ l / tokens ([`super::policy::cispo_term`]) |
/// | `sapo` | soft gate | as `grpo` ([`super::policy::sapo_term`]) |
/// | `luspo` | clipped | Σ l / B (LUSPO 2026, <https://arxiv.org/abs/2602.05261>) |
/// | `vespo` | weight of the sequence | Σ l / tokens ([`Vespo`]) |
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LossType {
    /// Mean over tokens, then over sequences
    Grpo,
    /// Mean over the micro-batch's tokens
    Bnpo,
    /// A constant denominator: no bias on length
    DrGrpo,
    /// Mean over the optimiser step's tokens
    #[default]
    Dapo,
    /// The weight is capped, the gradient is not cut
    Cispo,
    /// A soft gate in place of the bound
    Sapo,
    /// Sum over tokens, mean over sequences
    Luspo,
    /// A smooth weight of the whole sequence
    Vespo,
}

impl LossType {
    /// Whether the tokens' loss is the clipped surrogate
    pub fn clips(self) -> bool {
        matches!(self, Self::Grpo | Self::Bnpo | Self::DrGrpo | Self::Dapo | Self::Luspo)
    }
}

/// What a ratio is taken over
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Importance {
    /// ρ_t = π(token) / π_old(token)
    #[default]
    Token,
    /// One ρ per sequence, the geometric mean over its tokens (GSPO, Zheng et al. 2025, <https://arxiv.org/abs/2507.18071>)
    Sequence,
}

/// The loss; defaults are TRL's
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct GroupLoss {
    /// Loss per token and sum over tokens
    pub loss_type: LossType,
    /// What the ratio is taken over
    pub importance: Importance,
    /// ε, ε_high, δ and dual clip; for `cispo`, `high` is the cap
    pub clip: Clip,
    /// Coefficient of the KL term; 0 leaves it out
    pub beta: f64,
    /// Estimator of the KL term
    pub kl: KlEstimator,
    /// Multiply the KL term by the ratio, which is differentiated too (TRL's `use_bias_correction_kl`): with k3 and one
    /// ratio per token this has the gradient of the reverse KL per token
    pub kl_ratio_weighted: bool,
    /// τ of `sapo` where A > 0
    pub sapo_temperature_pos: f64,
    /// τ of `sapo` elsewhere
    pub sapo_temperature_neg: f64,
    /// Weight of `vespo`
    pub vespo: Vespo,
    /// Share ρ of tokens, those with the highest entropy, that the policy term keeps; 1 keeps all
    pub top_entropy_quantile: f64,
    /// Drop the policy term of sequences with A < 0 whose mean log(π_old/π) exceeds this (DeepSeek-V3.2, eq. 9,
    /// <https://arxiv.org/abs/2512.02556>)
    pub off_policy_mask_threshold: Option<f64>,
    /// Coefficient of the entropy bonus, the mean over the micro-batch's tokens that the policy term keeps
    pub entropy_coef: f64,
}

impl Default for GroupLoss {
    fn default() -> Self {
        Self {
            loss_type: LossType::default(),
            importance: Importance::default(),
            clip: Clip::default(),
            beta: 0.0,
            kl: KlEstimator::default(),
            kl_ratio_weighted: true,
            sapo_temperature_pos: 1.0,
            sapo_temperature_neg: 1.05,
            vespo: Vespo::default(),
            top_entropy_quantile: 1.0,
            off_policy_mask_threshold: None,
            entropy_coef: 0.0,
        }
    }
}

/// What belongs to the whole optimiser step: the denominators
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct StepTotals {
    /// Sequences in the step, masked ones included (`grpo`, `sapo`, `dr_grpo`, `luspo`)
    pub sequences: f64,
    /// Tokens that count in the step (`dapo`, `cispo`, `vespo`). TRL takes the rollout's tokens times the share of its
    /// micro-batches that make one step (`gradient_accumulation_steps / steps_per_generation`)
    pub tokens: f64,
    /// Micro-batches in the step (`bnpo` and the entropy bonus, which are means over each micro-batch)
    pub micro_batches: f64,
    /// `max_completion_length` (`dr_grpo`)
    pub max_completion_length: f64,
}

/// A micro-batch of completions: B sequences, N tokens in all
#[derive(Debug, Clone, Copy)]
pub struct MicroBatch<'a> {
    /// Tokens per sequence (B,), sum N
    pub lengths: &'a [usize],
    /// log π of the tokens (N,)
    pub log_probs: &'a [f32],
    /// log π at the start of the step on this rollout (N,); none where π has not moved: ρ is exactly 1
    pub old_log_probs: Option<&'a [f32]>,
    /// log π_ref (N,); needed where β ≠ 0
    pub ref_log_probs: Option<&'a [f32]>,
    /// log π as the sampler saw it (N,), for the off-policy mask; none means `old_log_probs`
    pub sampling_log_probs: Option<&'a [f32]>,
    /// Entropy of the next-token distribution (N,); needed for the bonus and the quantile, else only logged
    pub entropies: Option<&'a [f32]>,
    /// A per sequence (B,) or per token (N,); (B,) where both fit
    pub advantages: &'a [f32],
    /// Which tokens count (N,); none means all. Sequences cut at the length limit are masked here, as a whole
    pub mask: Option<&'a [bool]>,
}

/// Shares of clipped ratios under TRL's names
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ClipRatios {
    /// `clip_ratio/low_mean`
    pub low_mean: f64,
    /// `clip_ratio/low_min`, the lowest of the sequences' means; NaN where no sequence counts
    pub low_min: f64,
    /// `clip_ratio/high_mean`
    pub high_mean: f64,
    /// `clip_ratio/high_max`, the highest of the sequences' means; NaN where no sequence counts
    pub high_max: f64,
    /// `clip_ratio/region_mean`
    pub region_mean: f64,
}

impl ClipRatios {
    /// Names and values as logged
    pub fn entries(&self) -> [(&'static str, f64); 5] {
        [
            ("clip_ratio/low_mean", self.low_mean),
            ("clip_ratio/low_min", self.low_min),
            ("clip_ratio/high_mean", self.high_mean),
            ("clip_ratio/high_max", self.high_max),
            ("clip_ratio/region_mean", self.region_mean),
        ]
    }
}

/// A micro-batch's share of the step's loss, and its metrics, which are means over the micro-batch
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct GroupLossValue {
    /// This micro-batch's share of the step's loss; shares add up
    pub loss: f64,
    /// The loss without entropy bonus; for the losses that are means over a micro-batch, that mean (TRL logs it so)
    pub policy_loss: f64,
    /// Σ entropy and number of the tokens that the policy term keeps, for [`super::entropy::AdaptiveEntropy`]
    pub entropy_sum: (f64, f64),
    /// `entropy`, where entropies are given
    pub entropy: Option<f64>,
    /// `kl`, as it stands in the loss, where β ≠ 0
    pub kl: Option<f64>,
    /// `clip_ratio/*`, for the clipped losses
    pub clip: Option<ClipRatios>,
    /// `cispo_clip_ratio`
    pub cispo_clip_ratio: Option<f64>,
    /// `vespo/phi_seq_mean`
    pub vespo_phi: Option<f64>,
}

impl GroupLossValue {
    /// Metrics under TRL's names
    pub fn entries(&self) -> Vec<(&'static str, f64)> {
        let mut entries = vec![("policy_loss", self.policy_loss)];
        entries.extend(self.kl.map(|x| ("kl", x)));
        entries.extend(self.entropy.map(|x| ("entropy", x)));
        entries.extend(self.clip.iter().flat_map(ClipRatios::entries));
        entries.extend(self.cispo_clip_ratio.map(|x| ("cispo_clip_ratio", x)));
        entries.extend(self.vespo_phi.map(|x| ("vespo/phi_seq_mean", x)));
        entries
    }
}

/// The loss of a micro-batch, the gradient of the step's loss with respect to its log-probabilities, and to its entropies
///
/// ```text
/// Σ_t w_t [keep_t · policy_t + β kl_t] - entropy_coef · mean entropy / micro-batches
/// ```
///
/// with the weights w of [`LossType`], and keep = 0 where the entropy quantile or the off-policy mask says so. Order of
/// operations and names are those of TRL's `GRPOTrainer._compute_loss`. For all losses but `bnpo`, and without entropy
/// bonus, the gradient does not depend on how a step is split into micro-batches.
///
/// # Shapes
/// grad_log_probs (N,), overwritten, 0 where the mask is false; grad_entropies (N,), overwritten, may be left out where
/// `entropy_coef` is 0
pub fn group_loss(
    config: &GroupLoss,
    batch: &MicroBatch<'_>,
    step: &StepTotals,
    grad_log_probs: &mut [f32],
    grad_entropies: Option<&mut [f32]>,
) -> GroupLossValue {
    let tokens = check(config, batch, grad_log_probs.len());
    let active = (0..tokens).filter(|t| counts(batch.mask, *t)).count() as f64;
    let keep = batch.entropies.filter(|_| config.top_entropy_quantile < 1.0).map(|entropies| {
        let mut keep = vec![false; tokens];
        high_entropy_mask(entropies, batch.mask, 1.0 - config.top_entropy_quantile, &mut keep);
        keep
    });
    grad_log_probs.fill(0.0);

    let mut pass = Pass::new(config, batch, keep.as_deref());
    let mut start = 0;
    for (index, &length) in batch.lengths.iter().enumerate() {
        let sequence = Sequence::new(batch, index, start, length);
        let weight = match config.loss_type {
            LossType::Grpo | LossType::Sapo => 1.0 / (sequence.length() * step.sequences),
            LossType::Bnpo => 1.0 / (active.max(1.0) * step.micro_batches),
            LossType::DrGrpo => 1.0 / (step.sequences * step.max_completion_length),
            LossType::Luspo => 1.0 / step.sequences,
            LossType::Dapo | LossType::Cispo | LossType::Vespo => 1.0 / step.tokens.max(1.0),
        };
        pass.add(&sequence, weight, grad_log_probs);
        start += length;
    }

    let entropy_sum = entropy_sum(batch, keep.as_deref());
    let bonus_weight = config.entropy_coef / (entropy_sum.1.max(1.0) * step.micro_batches);
    if let Some(grad) = grad_entropies {
        same_length("grad_entropies", grad.len(), tokens);
        for (t, grad) in grad.iter_mut().enumerate() {
            let kept = counts(batch.mask, t) && counts(keep.as_deref(), t);
            *grad = if kept { -bonus_weight as f32 } else { 0.0 };
        }
    } else {
        assert!(config.entropy_coef == 0.0, "an entropy bonus needs `grad_entropies`");
    }
    let whole_step = matches!(config.loss_type, LossType::Dapo | LossType::Cispo | LossType::Vespo);
    GroupLossValue {
        loss: pass.loss - bonus_weight * entropy_sum.0,
        policy_loss: if whole_step { pass.loss } else { pass.loss * step.micro_batches },
        entropy_sum,
        entropy: batch.entropies.map(|_| self::entropy_sum(batch, None).0 / active.max(1.0)),
        kl: pass.kl_mean(),
        clip: pass.clip_ratios(),
        cispo_clip_ratio: pass.cispo_clip_ratio(),
        vespo_phi: pass.vespo_phi(),
    }
}

/// Panics where the slices do not fit; returns the number of tokens
fn check(config: &GroupLoss, batch: &MicroBatch<'_>, grad: usize) -> usize {
    let tokens = batch.lengths.iter().sum();
    same_length("log_probs", batch.log_probs.len(), tokens);
    same_length("grad_log_probs", grad, tokens);
    same_length_if_any("old_log_probs", batch.old_log_probs, tokens);
    same_length_if_any("ref_log_probs", batch.ref_log_probs, tokens);
    same_length_if_any("sampling_log_probs", batch.sampling_log_probs, tokens);
    same_length_if_any("entropies", batch.entropies, tokens);
    same_length_if_any("mask", batch.mask, tokens);
    if batch.advantages.len() != batch.lengths.len() {
        same_length("advantages", batch.advantages.len(), tokens);
    }
    assert!(config.beta == 0.0 || batch.ref_log_probs.is_some(), "a KL term needs `ref_log_probs`");
    assert!(
        batch.entropies.is_some() || (config.entropy_coef == 0.0 && config.top_entropy_quantile >= 1.0),
        "an entropy bonus or quantile needs `entropies`"
    );
    tokens
}

/// Σ entropy and number of the tokens that count and are kept
fn entropy_sum(batch: &MicroBatch<'_>, keep: Option<&[bool]>) -> (f64, f64) {
    let Some(entropies) = batch.entropies else { return (0.0, 0.0) };
    let kept = entropies.iter().enumerate().filter(|(t, _)| counts(batch.mask, *t) && counts(keep, *t));
    kept.fold((0.0, 0.0), |(sum, count), (_, entropy)| (sum + f64::from(*entropy), count + 1.0))
}
