//! Direct preference optimisation: a policy learns to prefer chosen over rejected completions, held to a reference.

use std::path::Path;

use candle_core::Tensor;

use super::collate::Batch;
use super::objective::{Objective, Outcome, Pass, Split};
use super::reference::{cache_file, cached};
use super::session::Session;
use super::step_loop;
use crate::Result;
use crate::algo::preference::{dpo_sigmoid, implicit_reward};
use crate::config::{CommandSpec, Context, DpoKeys, TrainKeys, Values, to_yaml};
use crate::data::{PreferenceExample, PreferenceOptions, preference_examples};
use crate::model::Trainable;
use crate::model::gpt2::Gpt2;
use crate::ops::TokenLogProbs;
use crate::run::{Metrics, Part, StepClock};

/// The command `dpo`
pub const DPO: CommandSpec = CommandSpec {
    name: "dpo",
    about: "Direct preference optimisation on chosen and rejected answers",
    groups: &[TrainKeys::KEYS, DpoKeys::KEYS],
    defaults: &[("learning_rate", "1e-6"), ("disable_dropout", "true")],
    run,
};

fn run(values: &Values, context: &Context) -> Result<()> {
    let (train, keys) = (TrainKeys::from_values(values)?, DpoKeys::from_values(values)?);
    let resolved = to_yaml(train.to_values().into_iter().chain(keys.to_values()))?;
    let mut session = Session::open(train, resolved, context)?;
    let options = PreferenceOptions { max_length: Some(session.max_length()), truncation: session.truncation() };
    let mut pairs = [Vec::new(), Vec::new()];
    let datasets = [("train", Some(session.train_rows()?)), ("eval", session.eval_rows()?)];
    for ((name, dataset), pairs) in datasets.into_iter().zip(&mut pairs) {
        let Some(dataset) = dataset else { continue };
        let prepared = preference_examples(&dataset, &session.source.tokenizer, &options)?;
        session.source.check_tokens(
            prepared.examples.iter().flat_map(|pair| [&pair.prompt[..], &pair.chosen[..], &pair.rejected[..]]),
        )?;
        session.note_rows(name, &prepared.report);
        *pairs = prepared.examples;
    }
    let model = session.load_model()?;
    let view = model.detached()?;
    let [train, eval] = pairs;
    let cache_dir = session.keys.cache_dir.clone();
    let reference = if keys.precompute_ref_log_probs || cache_dir.is_some() {
        let (train_batch, eval_batch) =
            (session.keys.per_device_train_batch_size, session.keys.per_device_eval_batch_size);
        let sums = |pairs: &[PreferenceExample], batch: usize| {
            let batch = keys.precompute_ref_batch_size.unwrap_or(batch);
            let compute = || sequence_log_probs(&view, pairs, batch);
            match &cache_dir {
                Some(folder) if !pairs.is_empty() => {
                    cached(&cache_file(Path::new(folder), &view, pairs, batch)?, pairs.len(), compute)
                }
                _ => compute(),
            }
        };
        Reference::Precomputed([sums(&train, train_batch)?, sums(&eval, eval_batch)?])
    } else {
        Reference::Model(Box::new(model.frozen_copy()?))
    };
    step_loop::train(
        &mut Dpo { model, view, reference, beta: keys.beta, pairs: [train, eval], loss_weight: loss_weight(&keys) },
        session,
    )
}

/// Weight of the one loss that there is; the same loss listed twice counts twice
fn loss_weight(keys: &DpoKeys) -> f64 {
    keys.loss_weights.as_ref().map_or(keys.loss_type.len() as f64, |weights| weights.iter().sum())
}

/// Where log π_ref comes from
enum Reference {
    /// A frozen copy of the start, asked in every step
    Model(Box<Gpt2>),
    /// (chosen, rejected) for each training and each held-out pair, computed before the first step
    Precomputed([Vec<[f32; 2]>; 2]),
}

struct Dpo {
    model: Gpt2,
    /// The same weights without gradients
    view: Gpt2,
    reference: Reference,
    beta: f64,
    loss_weight: f64,
    /// Training and held-out pairs
    pairs: [Vec<PreferenceExample>; 2],
}

/// Log-probabilities of the completions of some pairs
struct Scored {
    tokens: TokenLogProbs,
    /// Σ over a completion, all chosen ones first, (2B,)
    sums: Tensor,
    /// Completion tokens of the chosen side, which come first in `tokens`
    chosen_tokens: usize,
    total_tokens: u64,
}

fn score(model: &Gpt2, pairs: &[&PreferenceExample], dropout: Option<u64>) -> Result<Scored> {
    let batch = Batch::of_pairs(pairs.iter().copied())?;
    let hidden = model.hidden(&batch.ids, &batch.layout, dropout)?; // (N, C)
    let tokens = model.token_log_probs(&hidden, &batch.rows, &batch.targets, 1.0)?; // (M,)
    let sequence: Vec<u32> =
        batch.counts.iter().enumerate().flat_map(|(i, &count)| std::iter::repeat_n(i as u32, count)).collect();
    let index = Tensor::new(sequence, hidden.device())?;
    let zeros = Tensor::zeros(batch.counts.len(), tokens.log_probs.dtype(), hidden.device())?;
    let sums = zeros.index_add(&index, &tokens.log_probs, 0)?; // (2B,)
    let chosen_tokens = batch.counts[..pairs.len()].iter().sum();
    Ok(Scored { tokens, sums, chosen_tokens, total_tokens: batch.tokens })
}

/// log π(completion | prompt) of (chosen, rejected) for each pair, without gradients
fn sequence_log_probs(model: &Gpt2, pairs: &[PreferenceExample], batch: usize) -> Result<Vec<[f32; 2]>> {
    let mut all = Vec::with_capacity(pairs.len());
    for pairs in pairs.chunks(batch) {
        let sums = score(model, &pairs.iter().collect::<Vec<_>>(), None)?.sums.to_vec1::<f32>()?;
        all.extend((0..pairs.len()).map(|i| [sums[i], sums[pairs.len() + i]]));
    }
    Ok(all)
}

impl Dpo {
    /// log π_ref of the pass's completions, all chosen ones first, (2B,)
    fn reference(&self, pass: &Pass<'_>, pairs: &[&PreferenceExample]) -> Result<Tensor> {
        match &self.reference {
            Reference::Model(model) => Ok(score(model, pairs, None)?.sums),
            Reference::Precomputed(sums) => {
                let sums = &sums[pass.split as usize];
                let side = |side: usize| pass.rows.iter().map(move |&row| sums[row][side]);
                let values: Vec<f32> = side(0).chain(side(1)).collect();
                Ok(Tensor::new(values, &candle_core::Device::Cpu)?)
            }
        }
    }
}

impl Objective for Dpo {
    fn model(&self) -> &dyn Trainable {
        &self.model
    }

    fn lengths(&self, split: Split) -> Vec<usize> {
        let length = |pair: &PreferenceExample| pair.prompt.len() + pair.chosen.len().max(pair.rejected.len());
        self.pairs[split as usize].iter().map(length).collect()
    }

    /// Pairs
    fn weight(&self, _split: Split, rows: &[usize]) -> f64 {
        rows.len() as f64
    }

    fn forward(&mut self, pass: &Pass<'_>, clock: &mut StepClock) -> Result<Outcome> {
        let pairs: Vec<&PreferenceExample> =
            pass.rows.iter().map(|&row| &self.pairs[pass.split as usize][row]).collect();
        let reference = clock.time(Part::Reference, || self.reference(pass, &pairs))?;
        clock.time(Part::Forward, || {
            let model = if pass.split == Split::Train { &self.model } else { &self.view };
            let policy = score(model, &pairs, pass.dropout)?;
            let n = pairs.len();
            let log_ratio = (&policy.sums - &reference)?;
            let (chosen, rejected) = (log_ratio.narrow(0, 0, n)?, log_ratio.narrow(0, n, n)?);
            let losses = dpo_sigmoid(&chosen, &rejected, self.beta)?; // (B,)
            let loss = (losses.sum_all()? * (self.loss_weight / pass.denominator))?;
            let rewards = [&chosen, &rejected].map(|ratio| implicit_reward(&ratio.detach(), self.beta));
            let [chosen, rejected] = rewards;
            let metrics = metrics(&policy, &chosen?.to_vec1()?, &rejected?.to_vec1()?)?;
            Outcome::new(loss, metrics, policy.total_tokens)
        })
    }
}

fn mean(values: impl ExactSizeIterator<Item = f64>) -> f64 {
    let n = values.len() as f64;
    values.sum::<f64>() / n
}

/// TRL's metrics of a batch of pairs
fn metrics(policy: &Scored, chosen: &[f32], rejected: &[f32]) -> Result<Metrics> {
    let n = chosen.len();
    let pairs = || chosen.iter().zip(rejected).map(|(c, r)| (f64::from(*c), f64::from(*r)));
    let sums = policy.sums.to_vec1::<f32>()?;
    let tokens = &policy.tokens;
    let (chosen_logits, rejected_logits) = tokens.mean_logits.split_at(policy.chosen_tokens);
    let correct = tokens.top1[..policy.chosen_tokens].iter();
    let float = |values: &[f32]| mean(values.iter().map(|value| f64::from(*value)));
    Ok(Metrics::from_iter([
        ("entropy", f64::from(tokens.entropy.mean_all()?.to_scalar::<f32>()?)),
        ("logits/chosen", float(chosen_logits)),
        ("logits/rejected", float(rejected_logits)),
        ("mean_token_accuracy", mean(correct.map(|top1| f64::from(u8::from(*top1))))),
        ("rewards/chosen", float(chosen)),
        ("rewards/rejected", float(rejected)),
        ("rewards/accuracies", mean(pairs().map(|(c, r)| f64::from(u8::from(c > r))))),
        ("rewards/margins", mean(pairs().map(|(c, r)| c - r))),
        ("logps/chosen", float(&sums[..n])),
        ("logps/rejected", float(&sums[n..])),
    ]))
}
