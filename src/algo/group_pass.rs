//! One sequence of [`super::group_loss::group_loss`]: terms per token, and what couples the tokens of a sequence.

use super::counts;
use super::group_loss::{ClipRatios, GroupLoss, Importance, LossType, MicroBatch};
use super::kl::KlEstimator;
use super::policy::{Term, Vespo, cispo_term, reinforce_term, sapo_term};

/// What the tokens of one sequence share
pub(super) struct Sequence {
    index: usize,
    start: usize,
    end: usize,
    /// Tokens that count
    pub(super) active: f64,
    /// Σ (log π - log π_old)
    log_ratio: f64,
    /// The same with each token's part bounded
    bounded_log_ratio: f64,
    /// Σ (log π_sampler - log π)
    drift: f64,
    /// Σ (log π - log π_ref)
    ref_log_ratio: f64,
}

impl Sequence {
    pub(super) fn new(batch: &MicroBatch<'_>, index: usize, start: usize, length: usize) -> Self {
        let end = start + length;
        let (active, log_ratio, bounded_log_ratio, drift, ref_log_ratio) = (0.0, 0.0, 0.0, 0.0, 0.0);
        let mut sequence = Self { index, start, end, active, log_ratio, bounded_log_ratio, drift, ref_log_ratio };
        let sampler = batch.sampling_log_probs.or(batch.old_log_probs);
        for t in (start..end).filter(|t| counts(batch.mask, *t)) {
            let log_prob = f64::from(batch.log_probs[t]);
            let log_ratio = token_log_ratio(batch, t);
            sequence.active += 1.0;
            sequence.log_ratio += log_ratio;
            sequence.bounded_log_ratio += Vespo::bounded(log_ratio);
            let drift = sampler.map_or(0.0, |sampler| f64::from(sampler[t]) - log_prob);
            // A token that the sampler could not score is no evidence of drift
            sequence.drift += if drift.is_nan() { 0.0 } else { drift };
            sequence.ref_log_ratio += batch.ref_log_probs.map_or(0.0, |reference| log_prob - f64::from(reference[t]));
        }
        sequence
    }

    /// Tokens that count, at least 1: a denominator
    pub(super) fn length(&self) -> f64 {
        self.active.max(1.0)
    }

    /// log ρ where the sequence has one ratio
    fn log_weight(&self) -> f64 {
        self.log_ratio / self.length()
    }
}

fn token_log_ratio(batch: &MicroBatch<'_>, t: usize) -> f64 {
    batch.old_log_probs.map_or(0.0, |old| f64::from(batch.log_probs[t]) - f64::from(old[t]))
}

/// One pass over a micro-batch: its configuration and the running sums
pub(super) struct Pass<'a> {
    config: &'a GroupLoss,
    batch: &'a MicroBatch<'a>,
    keep: Option<&'a [bool]>,
    /// Σ weight · (policy + β KL)
    pub(super) loss: f64,
    tokens: f64,
    kl: f64,
    /// Clipped below, above, and above CISPO's cap: over tokens, or over sequences where each has one ratio
    clipped: [f64; 3],
    clip_units: f64,
    low_min: f64,
    high_max: f64,
    phi: f64,
    phi_units: f64,
}

impl<'a> Pass<'a> {
    pub(super) fn new(config: &'a GroupLoss, batch: &'a MicroBatch<'a>, keep: Option<&'a [bool]>) -> Self {
        Self {
            config,
            batch,
            keep,
            loss: 0.0,
            tokens: 0.0,
            kl: 0.0,
            clipped: [0.0; 3],
            clip_units: 0.0,
            low_min: f64::NAN,
            high_max: f64::NAN,
            phi: 0.0,
            phi_units: 0.0,
        }
    }

    fn one_advantage_each(&self) -> bool {
        self.batch.advantages.len() == self.batch.lengths.len()
    }

    fn advantage(&self, sequence: &Sequence, t: usize) -> f64 {
        f64::from(self.batch.advantages[if self.one_advantage_each() { sequence.index } else { t }])
    }

    /// DeepSeek-V3.2's sequence mask
    fn on_policy(&self, sequence: &Sequence, advantage: f64) -> bool {
        let drift = sequence.drift / sequence.length();
        self.config.off_policy_mask_threshold.is_none_or(|threshold| advantage >= 0.0 || drift <= threshold)
    }

    /// The policy's term of a token; true where its gradient flows through the ratio
    fn policy_term(&self, sequence: &Sequence, t: usize, log_weight: f64, advantage: f64) -> (Term, bool) {
        let config = self.config;
        let log_prob = f64::from(self.batch.log_probs[t]);
        match config.loss_type {
            LossType::Cispo => (cispo_term(log_prob, log_weight, advantage, config.clip.high), false),
            LossType::Vespo => {
                let phi = config.vespo.weight(sequence.bounded_log_ratio, advantage);
                (reinforce_term(log_prob, phi * advantage), false)
            }
            LossType::Sapo => {
                let positive = advantage > 0.0;
                let temperature = if positive { config.sapo_temperature_pos } else { config.sapo_temperature_neg };
                (sapo_term(log_weight, advantage, temperature), true)
            }
            LossType::Grpo | LossType::Bnpo | LossType::DrGrpo | LossType::Dapo | LossType::Luspo => {
                (config.clip.term(log_weight, advantage), true)
            }
        }
    }

    /// Divergence of a token and its slope in log π: of this token, or of every token alike for a whole sequence's
    fn kl(&self, sequence: &Sequence, t: usize) -> (f64, f64) {
        let estimator = self.config.kl;
        if estimator == KlEstimator::SequenceK2 {
            let (kl, slope) = estimator.value_and_grad(sequence.ref_log_ratio, 0.0);
            return (kl / sequence.length(), slope / sequence.length());
        }
        let reference = self.batch.ref_log_probs.map_or(f64::NAN, |reference| f64::from(reference[t]));
        estimator.value_and_grad(f64::from(self.batch.log_probs[t]), reference)
    }

    /// Adds one sequence's share of the loss, tokens weighing `weight`, and writes its gradient
    pub(super) fn add(&mut self, sequence: &Sequence, weight: f64, grad: &mut [f32]) {
        let (config, batch) = (self.config, self.batch);
        let sequence_level = config.importance == Importance::Sequence;
        let scale = config.beta * weight;
        // Gradient that reaches every token alike: through the sequence's ratio, and through its divergence
        let mut shared = 0.0;
        let mut clipped = [0.0; 3];
        for t in (sequence.start..sequence.end).filter(|t| counts(batch.mask, *t)) {
            let advantage = self.advantage(sequence, t);
            let log_weight = if sequence_level { sequence.log_weight() } else { token_log_ratio(batch, t) };
            let mut direct = 0.0;
            let mut through_ratio = 0.0;
            if counts(self.keep, t) && self.on_policy(sequence, advantage) {
                let (term, by_ratio) = self.policy_term(sequence, t, log_weight, advantage);
                self.loss += weight * term.loss;
                *(if by_ratio { &mut through_ratio } else { &mut direct }) += weight * term.grad;
            }
            if config.beta != 0.0 {
                let (kl, slope) = self.kl(sequence, t);
                let ratio = if config.kl_ratio_weighted { log_weight.exp() } else { 1.0 };
                self.kl += kl * ratio;
                self.loss += scale * kl * ratio;
                let whole = config.kl == KlEstimator::SequenceK2;
                *(if whole { &mut shared } else { &mut direct }) += scale * ratio * slope;
                if config.kl_ratio_weighted {
                    through_ratio += scale * kl * ratio;
                }
            }
            if sequence_level {
                shared += through_ratio / sequence.length();
            } else {
                direct += through_ratio;
            }
            grad[t] = direct as f32;
            for (count, clips) in clipped.iter_mut().zip(self.clips(log_weight, advantage)) {
                *count += f64::from(clips);
            }
        }
        if shared != 0.0 {
            for t in (sequence.start..sequence.end).filter(|t| counts(batch.mask, *t)) {
                grad[t] = (f64::from(grad[t]) + shared) as f32;
            }
        }
        self.tally(sequence, clipped);
    }

    /// Whether the ratio is clipped below, above, and above CISPO's cap
    fn clips(&self, log_weight: f64, advantage: f64) -> [bool; 3] {
        let clip = &self.config.clip;
        let capped = log_weight.exp() > clip.high && advantage > 0.0;
        [clip.is_low(log_weight, advantage), clip.is_high(log_weight, advantage), capped]
    }

    /// Metrics of one sequence: weighed by its tokens, or once where the sequence has a single ratio
    fn tally(&mut self, sequence: &Sequence, mut clipped: [f64; 3]) {
        let single = self.one_advantage_each();
        let mut units = sequence.active;
        if single && self.config.importance == Importance::Sequence {
            // Counted by TRL even where all of its tokens are masked
            let advantage = f64::from(self.batch.advantages[sequence.index]);
            (clipped, units) = (self.clips(sequence.log_weight(), advantage).map(f64::from), 1.0);
        }
        for (sum, clipped) in self.clipped.iter_mut().zip(clipped) {
            *sum += clipped;
        }
        self.clip_units += units;
        if units > 0.0 {
            // `min` and `max` of f64 pass over the NaN that these start from
            self.low_min = self.low_min.min(clipped[0] / units);
            self.high_max = self.high_max.max(clipped[1] / units);
        }
        self.tokens += sequence.active;
        if self.config.loss_type == LossType::Vespo {
            let phi = |at| self.config.vespo.weight(sequence.bounded_log_ratio, self.advantage(sequence, at));
            let (sum, units) = if single {
                (phi(sequence.start), 1.0)
            } else {
                let counted = (sequence.start..sequence.end).filter(|t| counts(self.batch.mask, *t));
                (counted.map(phi).sum(), sequence.active)
            };
            self.phi += sum;
            self.phi_units += units;
        }
    }

    pub(super) fn kl_mean(&self) -> Option<f64> {
        (self.config.beta != 0.0).then(|| self.kl / self.tokens.max(1.0))
    }

    pub(super) fn clip_ratios(&self) -> Option<ClipRatios> {
        let units = self.clip_units.max(1.0);
        self.config.loss_type.clips().then(|| ClipRatios {
            low_mean: self.clipped[0] / units,
            low_min: self.low_min,
            high_mean: self.clipped[1] / units,
            high_max: self.high_max,
            region_mean: (self.clipped[0] + self.clipped[1]) / units,
        })
    }

    pub(super) fn cispo_clip_ratio(&self) -> Option<f64> {
        (self.config.loss_type == LossType::Cispo).then(|| self.clipped[2] / self.clip_units.max(1.0))
    }

    pub(super) fn vespo_phi(&self) -> Option<f64> {
        (self.config.loss_type == LossType::Vespo).then(|| self.phi / self.phi_units.max(1.0))
    }
}
