//! Kahneman-Tversky optimisation: single completions that were liked or not, against an estimate of how far the policy
//! has moved from the reference.

use candle_core::Tensor;

use super::collate::Batch;
use super::objective::{Objective, Outcome, Pass, Split};
use super::pairs::{self, Pairs};
use super::reference::Reference;
use super::scored::{Scored, Sums, mean, numbers, vector};
use super::session::Session;
use super::step_loop;
use crate::Result;
use crate::algo::preference::{implicit_reward, kto_desirable, kto_undesirable};
use crate::config::{CommandSpec, Context, KtoKeys, ReferenceKeys, SyncKeys, TrainKeys, Values, to_yaml};
use crate::data::{PreferenceExample, PreferenceOptions, UnpairedExample, unpaired_examples};
use crate::model::Trainable;
use crate::model::gpt2::Gpt2;
use crate::run::{Checkpoint, CheckpointWriter, Metrics, Part, StepClock};

/// The command `kto`
pub const KTO: CommandSpec = CommandSpec {
    name: "kto",
    about: "Kahneman-Tversky optimisation on single answers that were liked or not",
    groups: &[TrainKeys::KEYS, KtoKeys::KEYS, ReferenceKeys::KEYS, SyncKeys::KEYS],
    defaults: &[("learning_rate", "1e-6"), ("disable_dropout", "true"), ("train_sampling_strategy", "sequential")],
    run,
};

fn run(values: &Values, context: &Context) -> Result<()> {
    let (train, keys) = (TrainKeys::from_values(values)?, KtoKeys::from_values(values)?);
    let (reference_keys, sync) = (ReferenceKeys::from_values(values)?, SyncKeys::from_values(values)?);
    reference_keys.check_with(&sync)?;
    keys.check_batches(&train)?;
    let all =
        train.to_values().into_iter().chain(keys.to_values()).chain(reference_keys.to_values()).chain(sync.to_values());
    let mut session = Session::open(train, to_yaml(all)?, context)?;
    let examples = pairs::read(&mut session, "unpaired", unpaired_examples)?;
    warn_of_imbalance(&examples[0], &keys);
    let options = pairs::options(&session);
    let block = session.keys.per_device_train_batch_size;
    let labels = [0, 1].map(|split: usize| examples[split].iter().map(|example| example.label).collect());
    let [train, eval] = examples;
    let pairs = [with_neighbours(&train, block, &options)?, with_neighbours(&eval, block, &options)?];
    let pairs = Pairs::new(&session, pairs)?;
    let estimates_kl = keys.estimates_kl();
    let reference = Reference::new(
        &pairs.model,
        &reference_keys,
        sync.sync(),
        &session,
        [pairs.of(Split::Train), pairs.of(Split::Eval)],
        if estimates_kl { "completions and mismatched ones" } else { "completions" },
        &|model, pairs| reference_sums(model, pairs, estimates_kl),
    )?;
    step_loop::train(&mut Kto { pairs, labels, reference, keys }, session)
}

/// Each example with the completion of the one before it in its block, the first with that of the last: the mismatched
/// completions of a batch are the matched ones, after other prompts. A block is a training batch in sequential order,
/// also of held-out rows, as in TRL
fn with_neighbours(
    examples: &[UnpairedExample],
    block: usize,
    options: &PreferenceOptions,
) -> Result<Vec<PreferenceExample>> {
    let neighbour = |block: &[UnpairedExample], i: usize| i.checked_sub(1).unwrap_or(block.len() - 1);
    examples
        .chunks(block)
        .flat_map(|block| (0..block.len()).map(move |i| block[i].with_neighbour(&block[neighbour(block, i)], options)))
        .collect()
}

/// Ethayarajh et al. 2024, eq. 8: weight · count should lie within a factor of 4/3 of each other
fn warn_of_imbalance(examples: &[UnpairedExample], keys: &KtoKeys) {
    let desirable = examples.iter().filter(|example| example.label).count();
    let undesirable = examples.len() - desirable;
    if desirable == undesirable {
        return;
    }
    if desirable.min(undesirable) == 0 {
        let only = if desirable == 0 { "disliked" } else { "liked" };
        tracing::warn!("all {} completions are {only} ones: there is nothing to tell apart", examples.len());
        return;
    }
    let ratio = keys.desirable_weight * desirable as f64 / (keys.undesirable_weight * undesirable as f64);
    if !(1.0..=4.0 / 3.0).contains(&ratio) {
        let even = keys.undesirable_weight * undesirable as f64 / desirable as f64;
        tracing::warn!(
            "{desirable} completions are liked and {undesirable} are not; the KTO paper wants `desirable_weight` between \
             {even:.2} and {:.2} then",
            even * 4.0 / 3.0
        );
    }
}

struct Kto {
    /// In place of a rejected completion stands another row's
    pairs: Pairs,
    /// Which training and held-out completions were liked
    labels: [Vec<bool>; 2],
    reference: Reference,
    keys: KtoKeys,
}

/// Σ log π of the completions, or of the mismatched ones, (B,). Policy and reference go through the same passes, so that
/// their difference at the start is exactly 0
fn sums(model: &Gpt2, pairs: &[&PreferenceExample], mismatched: bool, dropout: Option<u64>) -> Result<Tensor> {
    let batch = if mismatched {
        Batch::of_sequences(pairs.iter().map(|pair| pair.rejected_sequence()))?
    } else {
        Batch::of_sequences(pairs.iter().map(|pair| pair.chosen_sequence()))?
    };
    Scored::new(model, &batch, dropout)?.sums(None)
}

/// Both for the reference model, (2B,); zeros where no one asks for the mismatched ones
fn reference_sums(model: &Gpt2, pairs: &[&PreferenceExample], both: bool) -> Result<Tensor> {
    let matched = sums(model, pairs, false, None)?;
    let mismatched = if both { sums(model, pairs, true, None)? } else { matched.zeros_like()? };
    Ok(Tensor::cat(&[matched, mismatched], 0)?)
}

impl Kto {
    /// The reference point: how much likelier than the reference the policy finds mismatched completions, at least 0
    fn kl(&self, pass: &Pass<'_>, pairs: &[&PreferenceExample], reference: &Tensor) -> Result<f64> {
        if !self.keys.estimates_kl() {
            return Ok(0.0);
        }
        let sums = sums(&self.pairs.view, pairs, true, pass.dropout)?;
        Ok(mean(&numbers(&(sums - reference)?)?).max(0.0))
    }

    /// TRL's metrics; those of a side are left out where the pass has none of it
    fn metrics(policy: &Scored, labels: &[bool], sums: &[f64], rewards: &[f64], kl: f64) -> Result<Metrics> {
        let sequences = policy.per_sequence()?;
        let all = Sums::total(&sequences);
        let mut metrics = Metrics::from_iter([("kl", kl), ("entropy", all.per_token(all.entropy))]);
        for (name, liked) in [("chosen", true), ("rejected", false)] {
            let rows: Vec<usize> = (0..labels.len()).filter(|&i| labels[i] == liked).collect();
            if rows.is_empty() {
                continue;
            }
            let tokens = Sums::total(rows.iter().map(|&i| &sequences[i]));
            let of = |values: &[f64]| mean(&rows.iter().map(|&i| values[i]).collect::<Vec<_>>());
            metrics.set(format!("logits/{name}"), tokens.per_token(tokens.logits));
            metrics.set(format!("rewards/{name}"), of(rewards));
            metrics.set(format!("logps/{name}"), of(sums));
        }
        if let (Some(chosen), Some(rejected)) = (metrics.get("rewards/chosen"), metrics.get("rewards/rejected")) {
            metrics.set("rewards/margins", chosen - rejected);
        }
        Ok(metrics)
    }
}

impl Objective for Kto {
    fn model(&self) -> &dyn Trainable {
        &self.pairs.model
    }

    fn lengths(&self, split: Split) -> Vec<usize> {
        self.pairs.of(split).iter().map(|pair| pair.prompt.len() + pair.chosen.len()).collect()
    }

    /// Completions
    fn weight(&self, _split: Split, rows: &[usize]) -> f64 {
        rows.len() as f64
    }

    /// L = mean over completions of w_y·(1 − σ(±β(Δ − z₀))), z₀ the estimate of this pass
    fn forward(&mut self, pass: &Pass<'_>, clock: &mut StepClock) -> Result<Outcome> {
        let pairs = self.pairs.of_pass(pass);
        let both = self.keys.estimates_kl();
        let score = |model: &Gpt2, pairs: &[&PreferenceExample]| reference_sums(model, pairs, both);
        let reference = clock.time(Part::Reference, || self.reference.sums(pass, &pairs, &score))?; // (2B,)
        let [reference, mismatched] = super::scored::halves(&reference)?;
        clock.time(Part::Forward, || {
            let kl = self.kl(pass, &pairs, &mismatched)?;
            let batch = Batch::of_sequences(pairs.iter().map(|pair| pair.chosen_sequence()))?;
            let policy = Scored::new(self.pairs.model_for(pass.split), &batch, pass.dropout)?;
            let sums = policy.sums(None)?; // (B,)
            let ratio = (&sums - &reference)?;
            let labels = &self.labels[usize::from(pass.split == Split::Eval)];
            let labels: Vec<bool> = pass.rows.iter().map(|&row| labels[row]).collect();
            let weights =
                |liked: bool, weight: f64| vector(labels.iter().map(|label| f64::from(*label == liked) * weight));
            let (keys, beta) = (&self.keys, self.keys.beta);
            let desirable = (kto_desirable(&ratio, kl, beta)? * weights(true, keys.desirable_weight)?)?;
            let undesirable = (kto_undesirable(&ratio, kl, beta)? * weights(false, keys.undesirable_weight)?)?;
            let loss = ((desirable + undesirable)?.sum_all()? / pass.denominator)?;
            let rewards = numbers(&implicit_reward(&ratio.detach(), beta)?)?;
            let metrics = Self::metrics(&policy, &labels, &numbers(&sums)?, &rewards, kl)?;
            Outcome::new(loss, metrics, policy.total_tokens)
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
    fn each_prompt_meets_the_completion_before_its_own_within_its_batch() {
        let example = |i: u32| UnpairedExample { prompt: vec![i], completion: vec![10 + i, 20 + i], label: true };
        let examples: Vec<_> = (0..5).map(example).collect();
        let options = PreferenceOptions::default();
        let pairs = with_neighbours(&examples, 3, &options).unwrap();
        let mismatched: Vec<u32> = pairs.iter().map(|pair| pair.rejected[0] - 10).collect();
        assert_eq!(mismatched, [2, 0, 1, 4, 3]);
        assert!(pairs.iter().zip(&examples).all(|(pair, example)| pair.chosen == example.completion));
        let options = PreferenceOptions { max_length: Some(2), ..options };
        assert_eq!(with_neighbours(&examples, 5, &options).unwrap()[0].rejected, [14]);
    }
}
