//! Direct preference optimisation: a policy learns to prefer chosen over rejected completions, held to a reference.

use candle_core::Tensor;

use super::collate::Batch;
use super::objective::{Objective, Outcome, Pass, Split};
use super::pairs::{self, Pairs};
use super::reference::Reference;
use super::scored::{Scored, halves, mean, numbers, reward_metrics, token_metrics, vector};
use super::session::Session;
use super::step_loop;
use crate::Result;
use crate::algo::preference::{self, alpha_divergence, forward_kl, implicit_reward, js_divergence, ld_weights};
use crate::config::{
    CommandSpec, Context, Divergence, DpoKeys, DpoLoss, ReferenceKeys, SyncKeys, TrainKeys, Values, to_yaml,
};
use crate::data::{PreferenceExample, preference_examples};
use crate::model::Trainable;
use crate::model::gpt2::Gpt2;
use crate::run::{Checkpoint, CheckpointWriter, Metrics, Part, StepClock};

/// The command `dpo`
pub const DPO: CommandSpec = CommandSpec {
    name: "dpo",
    about: "Direct preference optimisation on chosen and rejected answers",
    groups: &[TrainKeys::KEYS, DpoKeys::KEYS, ReferenceKeys::KEYS, SyncKeys::KEYS],
    defaults: &[("learning_rate", "1e-6"), ("disable_dropout", "true")],
    run,
};

fn run(values: &Values, context: &Context) -> Result<()> {
    let (train, keys) = (TrainKeys::from_values(values)?, DpoKeys::from_values(values)?);
    let (reference_keys, sync) = (ReferenceKeys::from_values(values)?, SyncKeys::from_values(values)?);
    reference_keys.check_with(&sync)?;
    let all =
        train.to_values().into_iter().chain(keys.to_values()).chain(reference_keys.to_values()).chain(sync.to_values());
    let mut session = Session::open(train, to_yaml(all)?, context)?;
    let pairs = pairs::read(&mut session, "pairs", preference_examples)?;
    let pairs = Pairs::new(&session, pairs)?;
    let alpha = keys.ld_alpha;
    let reference = Reference::new(
        &pairs.model,
        &reference_keys,
        sync.sync(),
        &session,
        [pairs.of(Split::Train), pairs.of(Split::Eval)],
        &format!("pairs, ld_alpha {alpha:?}"),
        &|model, pairs| reference_sums(model, pairs, alpha),
    )?;
    step_loop::train(&mut Dpo { pairs, reference, losses: keys.losses(), keys }, session)
}

struct Dpo {
    pairs: Pairs,
    reference: Reference,
    losses: Vec<(DpoLoss, f64)>,
    keys: DpoKeys,
}

/// Weights of the loss tokens of pairs, where they do not all count alike
fn token_weights(counts: &[usize], alpha: Option<f64>) -> Option<Vec<f32>> {
    let (chosen, rejected) = counts.split_at(counts.len() / 2);
    let weights = |alpha: f64| {
        let pairs =
            chosen.iter().zip(rejected).map(|(&chosen, &rejected)| ld_weights([chosen, rejected], alpha as f32));
        let (chosen, rejected): (Vec<_>, Vec<_>) = pairs.map(|[chosen, rejected]| (chosen, rejected)).unzip();
        chosen.into_iter().chain(rejected).flatten().collect()
    };
    alpha.map(weights)
}

/// Weighted Σ log π_ref of the completions, all chosen ones first, (2B,)
fn reference_sums(model: &Gpt2, pairs: &[&PreferenceExample], alpha: Option<f64>) -> Result<Tensor> {
    let scored = Scored::new(model, &Batch::of_pairs(pairs.iter().copied())?, None)?;
    scored.sums(token_weights(&scored.counts, alpha).as_deref())
}

/// What the losses are made of, each (B,)
struct Terms {
    /// log π of chosen and rejected completions
    policy: [Tensor; 2],
    /// log π_ref
    reference: [Tensor; 2],
    /// Log-ratios, or what another divergence has in their place
    scores: [Tensor; 2],
    /// Tokens of the completions
    lengths: [Tensor; 2],
    /// Mean log π of all chosen tokens of the pass
    chosen_mean: Tensor,
}

impl Terms {
    /// One loss of the pass's pairs, (B,)
    fn loss(&self, loss: DpoLoss, keys: &DpoKeys) -> Result<Tensor> {
        let ([chosen, rejected], beta, smoothing) = (&self.scores, keys.beta, keys.label_smoothing);
        let per_token =
            || -> Result<[Tensor; 2]> { Ok([(chosen / &self.lengths[0])?, (rejected / &self.lengths[1])?]) };
        Ok(match loss {
            DpoLoss::Sigmoid => preference::dpo_sigmoid(chosen, rejected, beta)?,
            DpoLoss::Cdpo => preference::cdpo(chosen, rejected, beta, smoothing)?,
            DpoLoss::Hinge => preference::hinge(chosen, rejected, beta)?,
            DpoLoss::Ipo => {
                let [chosen, rejected] = per_token()?;
                preference::ipo(&chosen, &rejected, beta)?
            }
            DpoLoss::ExoPair => preference::exo_pair(chosen, rejected, beta, smoothing)?,
            DpoLoss::NcaPair => preference::nca_pair(chosen, rejected, beta)?,
            DpoLoss::Robust => preference::robust(chosen, rejected, beta, smoothing)?,
            DpoLoss::BcoPair => preference::bco_pair(chosen, rejected, beta)?,
            DpoLoss::SppoHard => preference::sppo_hard(chosen, rejected, beta)?,
            DpoLoss::Aot => {
                let ([chosen, rejected], [ref_chosen, ref_rejected]) = (&self.policy, &self.reference);
                preference::aot(chosen, rejected, ref_chosen, ref_rejected, beta, smoothing)?
            }
            DpoLoss::AotUnpaired => preference::aot_unpaired(chosen, rejected, beta, smoothing)?,
            DpoLoss::ApoZero => preference::apo_zero(chosen, rejected, beta)?,
            DpoLoss::ApoDown => preference::apo_down(chosen, rejected, beta)?,
            DpoLoss::Discopop => preference::discopop(chosen, rejected, beta, keys.discopop_tau)?,
            // A mean over the tokens of the pass, as in TRL: long completions count more
            DpoLoss::Sft => self.chosen_mean.neg()?.broadcast_as(chosen.shape())?,
            DpoLoss::SigmoidNorm => {
                let [chosen, rejected] = per_token()?;
                preference::dpo_sigmoid(&chosen, &rejected, beta)?
            }
        })
    }
}

impl Dpo {
    /// What takes the place of a log-ratio in the losses
    fn score(&self, log_ratio: &Tensor) -> Result<Tensor> {
        Ok(match self.keys.f_divergence_type {
            Divergence::ReverseKl => log_ratio.clone(),
            Divergence::ForwardKl => forward_kl(log_ratio)?,
            Divergence::JsDivergence => js_divergence(log_ratio)?,
            Divergence::AlphaDivergence => alpha_divergence(log_ratio, self.keys.f_alpha_divergence_coef)?,
        })
    }

    /// WPO's weight of each pair, (B,)
    fn weights(&self, policy: &Scored, batch: &Batch) -> Result<Tensor> {
        // Under a temperature of ½ log p(t) is 2·log p(t) − log Σ_v p(v)², so that what is wanted, log p(t) − log Σ p²,
        // is the difference of the two
        let hidden = policy.hidden.detach();
        let sharp = self.pairs.view.token_log_probs(&hidden, &batch.rows, &batch.targets, 0.5)?;
        let (sharp, plain) = (numbers(&sharp.log_probs)?, numbers(&policy.tokens.log_probs.detach())?);
        let mut start = 0;
        let means: Vec<f64> = policy
            .counts
            .iter()
            .map(|count| {
                let range = start..start + count;
                start += count;
                let aligned = sharp[range.clone()].iter().zip(&plain[range]).map(|(sharp, plain)| sharp - plain);
                aligned.sum::<f64>() / (*count).max(1) as f64
            })
            .collect();
        let (chosen, rejected) = means.split_at(means.len() / 2);
        vector(chosen.iter().zip(rejected).map(|(chosen, rejected)| preference::wpo_weight([*chosen, *rejected])))
    }

    fn terms(&self, policy: &Scored, pairs: &[&PreferenceExample], reference: &Tensor) -> Result<Terms> {
        let sums = policy.sums(token_weights(&policy.counts, self.keys.ld_alpha).as_deref())?; // (2B,)
        let ratio = (&sums - reference)?;
        let chosen_tokens = policy.counts[..pairs.len()].iter().sum();
        Ok(Terms {
            policy: halves(&sums)?,
            reference: halves(reference)?,
            scores: halves(&self.score(&ratio)?)?,
            lengths: [
                vector(pairs.iter().map(|pair| pair.chosen.len() as f64))?,
                vector(pairs.iter().map(|pair| pair.rejected.len() as f64))?,
            ],
            chosen_mean: policy.tokens.log_probs.narrow(0, 0, chosen_tokens)?.mean_all()?,
        })
    }

    /// TRL's metrics
    fn metrics(&self, policy: &Scored, terms: &Terms) -> Result<Metrics> {
        let sequences = policy.per_sequence()?;
        let (chosen, rejected) = sequences.split_at(sequences.len() / 2);
        let mut metrics = Metrics::from_iter(token_metrics(chosen, rejected));
        let reward = |side: usize| -> Result<Vec<f64>> {
            let ratio = (terms.policy[side].detach() - &terms.reference[side])?;
            numbers(&implicit_reward(&ratio, self.keys.beta)?)
        };
        metrics.extend(reward_metrics(&reward(0)?, &reward(1)?));
        metrics.set("logps/chosen", mean(&numbers(&terms.policy[0])?));
        metrics.set("logps/rejected", mean(&numbers(&terms.policy[1])?));
        Ok(metrics)
    }
}

impl Objective for Dpo {
    fn model(&self) -> &dyn Trainable {
        &self.pairs.model
    }

    fn lengths(&self, split: Split) -> Vec<usize> {
        self.pairs.lengths(split)
    }

    /// Pairs
    fn weight(&self, _split: Split, rows: &[usize]) -> f64 {
        rows.len() as f64
    }

    /// L = Σ_k w_k · mean over pairs of loss k
    fn forward(&mut self, pass: &Pass<'_>, clock: &mut StepClock) -> Result<Outcome> {
        let pairs = self.pairs.of_pass(pass);
        let score = |model: &Gpt2, pairs: &[&PreferenceExample]| reference_sums(model, pairs, self.keys.ld_alpha);
        let reference = clock.time(Part::Reference, || self.reference.sums(pass, &pairs, &score))?; // (2B,)
        clock.time(Part::Forward, || {
            let batch = Batch::of_pairs(pairs.iter().copied())?;
            let policy = Scored::new(self.pairs.model_for(pass.split), &batch, pass.dropout)?;
            let terms = self.terms(&policy, &pairs, &reference)?;
            let mut losses = reference.narrow(0, 0, pairs.len())?.zeros_like()?; // (B,)
            for (loss, weight) in &self.losses {
                losses = (losses + (terms.loss(*loss, &self.keys)? * *weight)?)?;
            }
            if self.keys.use_weighting {
                losses = (losses * self.weights(&policy, &batch)?)?;
            }
            let loss = (losses.sum_all()? / pass.denominator)?;
            Outcome::new(loss, self.metrics(&policy, &terms)?, policy.total_tokens)
        })
    }

    fn end_step(&mut self, step: u64) -> Result<Metrics> {
        self.reference.end_step(&self.pairs.view, step)?;
        Ok(Metrics::new())
    }

    fn save_state(&self, checkpoint: &CheckpointWriter) -> Result<serde_json::Value> {
        self.reference.save(checkpoint)?;
        Ok(serde_json::Value::Null)
    }

    fn restore_state(&mut self, checkpoint: &Checkpoint, _state: serde_json::Value) -> Result<()> {
        self.reference.restore(checkpoint)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_that_one_completion_has_more_count_less() {
        assert_eq!(token_weights(&[1, 3, 2, 2], None), None);
        let weights = token_weights(&[1, 3, 2, 2], Some(0.5)).unwrap();
        assert_eq!(weights, [1.0, 1.0, 1.0, 0.5, 1.0, 0.5, 1.0, 1.0]);
    }
}
