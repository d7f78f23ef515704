//! What GRPO and RLOO share: groups of completions of one prompt, judged against each other.

use std::path::Path;

use candle_core::Tensor;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::collate::Batch;
use super::collect::{Collector, Collectors};
use super::completions::{
    completions_table, kl_metric, length_metrics, log_probs, objective_metrics, reward_metrics, sampling_metrics,
};
use super::objective::{Objective, Outcome, Pass, Split, StepContext, Updates};
use super::plan::{Plan, StepRows};
use super::reference_model::ReferenceModel;
use super::rounds::{Geometry, RoundSizes};
use super::session::Session;
use super::{reward_model, step_loop};
use crate::algo::group_loss::{MicroBatch, StepTotals};
use crate::config::{Context, OnlineKeys, SamplingStrategy, TrainKeys, to_yaml};
use crate::data::{Sampler, Strategy};
use crate::model::Trainable;
use crate::model::gpt2::Gpt2;
use crate::ops::kernels::noise::mix;
use crate::rollout::Rollout;
use crate::run::{Checkpoint, CheckpointWriter, Metrics, Part, StepClock};
use crate::{Error, Result};

/// What tells one group method from another: pure arithmetic on a rollout
pub trait GroupMethod {
    /// Weight of the KL to the frozen start, whose log-probabilities are needed where it is not 0
    fn beta(&self) -> f64;

    /// Whether log-probabilities before the first update are needed although the policy has not moved
    fn needs_old(&self) -> bool;

    /// Whether completions that were cut are left out of the loss
    fn masks_truncated(&self) -> bool;

    /// How often prompts whose completions are all rewarded alike are sampled again
    fn resamples(&self) -> usize {
        0
    }

    /// Takes in that a step is over
    fn end_step(&mut self) -> Metrics {
        Metrics::new()
    }

    /// What a checkpoint must hold of the method
    fn state(&self) -> Value {
        Value::Null
    }

    /// Puts back what [`Self::state`] gave
    fn restore(&mut self, state: Value) -> serde_json::Result<()> {
        let _ = state;
        Ok(())
    }

    /// Fills in the advantages; returns the method's own metrics
    fn advantages(&self, rollout: &mut Rollout, weights: &[f64], generations: usize) -> Metrics;

    /// Loss of a pass, its metrics, and its gradients with respect to log-probabilities and entropies
    fn loss(
        &mut self,
        batch: &MicroBatch<'_>,
        totals: &StepTotals,
        grad: &mut [f32],
        grad_entropy: &mut [f32],
    ) -> (f64, Metrics);
}

/// A whole run of a group method; `own` are its keys with their resolved values, `sync` says how the reference model
/// follows the policy
pub fn run<M: GroupMethod>(
    train: TrainKeys,
    online: &OnlineKeys,
    own: Vec<(&'static str, crate::config::Value)>,
    sizes: RoundSizes,
    sync: Option<(f64, u64)>,
    method: M,
    context: &Context,
) -> Result<()> {
    if sync.is_some() && method.beta() == 0.0 {
        return Err(Error::usage("`sync_ref_model` needs a reference model, and with a `beta` of 0 there is none")
            .hint("set `beta` above 0, or leave out `sync_ref_model`"));
    }
    let all = train.to_values().into_iter().chain(online.to_values()).chain(own);
    let mut session = Session::open(train, to_yaml(all)?, context)?;
    let reward_model = reward_model::loader(session.keys.offline, online.normalize_reward_model);
    let mut trainer = GroupTrainer::open(&mut session, online, sizes, sync, method, reward_model)?;
    step_loop::train(&mut trainer, session)
}

/// A policy that learns from groups of its own completions
pub struct GroupTrainer<M> {
    method: M,
    model: Gpt2,
    /// The same weights without gradients
    view: Gpt2,
    reference: Option<ReferenceModel>,
    train: Collector,
    eval: Option<Collector>,
    eval_generations: usize,
    geometry: Geometry,
    order: Sampler,
    seed: u64,
    temperature: f64,
    max_completion_length: f64,
    log_completions: bool,
    /// Rounds of generation that this step uses, with their numbers
    rounds: Vec<(u64, Rollout)>,
    /// Passes of the step
    passes: Vec<PassPlace>,
    /// The number of the next step's first pass
    next_pass: u64,
    /// Metrics of rounds since the last step's end
    metrics: Metrics,
}

/// Where the completions of a pass lie
#[derive(Clone, Copy)]
struct PassPlace {
    /// Index in `rounds`
    round: usize,
    /// First completion
    start: usize,
    /// Whether the policy may have moved since they were drawn
    moved: bool,
}

/// What a checkpoint must hold: rounds that are not used up
#[derive(Serialize, Deserialize)]
struct Saved {
    rounds: Vec<(u64, Rollout)>,
    method: Value,
}

impl<M: GroupMethod> GroupTrainer<M> {
    /// From a session and the keys that group methods share
    fn open(
        session: &mut Session,
        keys: &OnlineKeys,
        sizes: RoundSizes,
        sync: Option<(f64, u64)>,
        method: M,
        reward_model: impl Fn(&str) -> Result<Box<dyn crate::reward::Reward>>,
    ) -> Result<Self> {
        let geometry = Geometry::new(&session.keys, keys.num_generations, sizes)?;
        let Collectors { train, eval } = Collectors::open(session, keys, reward_model)?;
        if train.len() < geometry.prompts {
            return Err(Error::usage(format!(
                "{} prompts are not enough for one round of generation, which takes {}",
                train.len(),
                geometry.prompts
            ))
            .hint("lower `per_device_train_batch_size` or `gradient_accumulation_steps`, or raise `num_generations`"));
        }
        let eval_generations = keys.num_generations_eval.unwrap_or(keys.num_generations);
        let eval_batch = session.keys.per_device_eval_batch_size;
        if eval.is_some() && !eval_batch.is_multiple_of(eval_generations) {
            return Err(Error::usage(format!(
                "`per_device_eval_batch_size`, {eval_batch}, must be a multiple of the {eval_generations} completions \
                 of each prompt"
            )));
        }
        let random = keys.shuffle_dataset
            && session.keys.train_sampling_strategy == SamplingStrategy::Random
            && !train.replays();
        let strategy = if random { Strategy::Random } else { Strategy::Sequential };
        let model = session.load_model()?;
        Ok(Self {
            order: Sampler::new(strategy, &train.lengths(), session.keys.seed, 1),
            reference: (method.beta() != 0.0).then(|| ReferenceModel::new(&model, sync)).transpose()?,
            view: model.detached()?,
            model,
            method,
            train,
            eval,
            eval_generations,
            geometry,
            seed: session.keys.seed,
            temperature: keys.temperature,
            max_completion_length: keys.max_completion_length as f64,
            log_completions: keys.log_completions,
            rounds: Vec::new(),
            passes: Vec::new(),
            next_pass: 0,
            metrics: Metrics::new(),
        })
    }

    fn rounds_per_epoch(&self) -> usize {
        self.train.len() / self.geometry.prompts
    }

    /// The number of a step's first pass, counted from the run's beginning
    fn first_pass(&self, step: u64) -> u64 {
        let passes = self.rounds_per_epoch() as u64 * self.geometry.passes_per_round();
        let steps = passes.div_ceil(self.geometry.accumulation as u64);
        (step / steps) * passes + (step % steps) * self.geometry.accumulation as u64
    }

    /// Generates and scores a round, with everything that its passes need
    fn begin_round(&mut self, round: u64, context: &mut StepContext<'_>) -> Result<Rollout> {
        let per_epoch = self.rounds_per_epoch() as u64;
        let order = self.order.epoch(round / per_epoch);
        let rows = &order[(round % per_epoch) as usize * self.geometry.prompts..][..self.geometry.prompts];
        let seed = mix(self.seed ^ mix(round ^ 0x6772_6f75_7073)); // apart from the streams of dropout and order
        let check = context.checker();
        let mut rollout =
            self.train.collect(&self.view, rows, self.geometry.generations, seed, context.clock, &check)?;
        for attempt in 1..=self.method.resamples() as u64 {
            let flat = flat_groups(&rollout, self.geometry.generations);
            if flat.is_empty() || self.train.replays() {
                break;
            }
            let rows: Vec<usize> = flat.iter().map(|&prompt| rollout.rows[prompt]).collect();
            let seed = mix(seed ^ mix(attempt));
            let generations = self.geometry.generations;
            let again = self.train.collect(&self.view, &rows, generations, seed, context.clock, &check)?;
            replace_groups(&mut rollout, &flat, again, generations);
        }
        let weights = self.train.reward_weights();
        self.judge(&mut rollout, &weights, Split::Train, context.clock)?;
        Ok(rollout)
    }

    /// Log-probabilities that the method needs, advantages, metrics
    fn judge(
        &mut self,
        rollout: &mut Rollout,
        (names, weights): &(Vec<String>, Vec<f64>),
        split: Split,
        clock: &mut StepClock,
    ) -> Result<()> {
        let train = split == Split::Train;
        let (generations, moves) =
            if train { (self.geometry.generations, !self.geometry.aligned()) } else { (self.eval_generations, false) };
        // The same passes as in training: their log-probabilities are then equal to the last bit
        let chunk = if train { self.geometry.batch } else { rollout.len() };
        if moves || self.method.needs_old() {
            rollout.old_log_probs =
                clock.time(Part::Forward, || log_probs(&self.view, rollout, chunk, self.temperature))?;
        }
        if let Some(reference) = &self.reference {
            rollout.ref_log_probs =
                clock.time(Part::Reference, || log_probs(reference.get(), rollout, chunk, self.temperature))?;
        }
        let own = self.method.advantages(rollout, weights, generations);
        let mut metrics = Metrics::new();
        length_metrics(rollout, &mut metrics);
        reward_metrics(rollout, names, &mut metrics);
        kl_metric(rollout, &mut metrics);
        metrics.extend(own.iter());
        self.metrics = metrics;
        Ok(())
    }

    /// Loss of some completions of a rollout; with gradients where `model` has them
    fn pass_loss(
        &mut self,
        split: Split,
        rollout: &Rollout,
        completions: std::ops::Range<usize>,
        moved: bool,
        totals: &StepTotals,
        dropout: Option<u64>,
    ) -> Result<Outcome> {
        let model = if split == Split::Train { &self.model } else { &self.view };
        let batch = Batch::of_completions(completions.clone().map(|i| rollout.sequence(i)))?;
        let hidden = model.hidden(&batch.ids, &batch.layout, dropout)?; // (N, C)
        let policy = model.token_log_probs(&hidden, &batch.rows, &batch.targets, self.temperature)?; // (M,)
        let log_probs = policy.log_probs.to_vec1::<f32>()?;
        let entropies = policy.entropy.to_vec1::<f32>()?;
        let flat = |all: &[Vec<f32>]| (!all.is_empty()).then(|| all[completions.clone()].concat());
        let old = if moved { flat(&rollout.old_log_probs) } else { None };
        let reference = flat(&rollout.ref_log_probs);
        let mask = self.method.masks_truncated().then(|| token_mask(rollout, completions.clone()));
        let micro = MicroBatch {
            lengths: &batch.counts,
            log_probs: &log_probs,
            old_log_probs: old.as_deref(),
            ref_log_probs: reference.as_deref(),
            sampling_log_probs: None,
            entropies: Some(&entropies),
            advantages: &rollout.advantages[completions.clone()].concat(),
            mask: mask.as_deref(),
        };
        let (mut grad, mut grad_entropy) = (vec![0.0; log_probs.len()], vec![0.0; log_probs.len()]);
        let (loss, mut metrics) = self.method.loss(&micro, totals, &mut grad, &mut grad_entropy);
        if !moved && split == Split::Train && self.train.samples_whole_distribution() {
            sampling_metrics(&rollout.sampled_log_probs[completions].concat(), &log_probs, &mut metrics);
        }
        // A scalar with the right gradient: Σ ∂L/∂(log π) · log π, the factors being constants
        let device = hidden.device();
        let mut graph = (policy.log_probs * Tensor::new(grad, device)?)?.sum_all()?;
        if grad_entropy.iter().any(|g| *g != 0.0) {
            graph = (graph + (policy.entropy * Tensor::new(grad_entropy, device)?)?.sum_all()?)?;
        }
        Ok(Outcome { loss, graph, metrics, tokens: batch.tokens })
    }

    fn totals(&self, rollout: &Rollout, sequences: f64, passes: usize, share: f64) -> StepTotals {
        let counted = |i: &usize| !(self.method.masks_truncated() && rollout.truncated[*i]);
        let tokens: usize = (0..rollout.len()).filter(counted).map(|i| rollout.completions[i].len()).sum();
        StepTotals {
            sequences,
            tokens: tokens as f64 * share,
            micro_batches: passes as f64,
            max_completion_length: self.max_completion_length,
        }
    }
}

impl<M: GroupMethod> Objective for GroupTrainer<M> {
    fn model(&self) -> &dyn Trainable {
        &self.model
    }

    /// Completions: in training those of an epoch, in evaluation all
    fn lengths(&self, split: Split) -> Vec<usize> {
        match split {
            Split::Train => vec![1; self.rounds_per_epoch() * self.geometry.prompts * self.geometry.generations],
            Split::Eval => vec![1; self.eval.as_ref().map_or(0, Collector::len) * self.eval_generations],
        }
    }

    fn plan(&self, keys: &TrainKeys) -> Plan {
        Plan::of_passes(self.rounds_per_epoch() * self.geometry.passes_per_round() as usize, keys)
    }

    fn begin_step(&mut self, rows: &StepRows, context: &mut StepContext<'_>) -> Result<Updates> {
        let geometry = self.geometry;
        let first = self.first_pass(context.step);
        let mut generated = 0;
        let mut passes = Vec::with_capacity(rows.micro_batches.len());
        let needed = first / geometry.passes_per_round();
        self.rounds.retain(|(round, _)| *round >= needed);
        for pass in first..first + rows.micro_batches.len() as u64 {
            let (round, within) = (pass / geometry.passes_per_round(), pass % geometry.passes_per_round());
            if !self.rounds.iter().any(|(known, _)| *known == round) {
                let rollout = self.begin_round(round, context)?;
                generated += rollout.tokens();
                self.rounds.push((round, rollout));
            }
            let index = self.rounds.iter().position(|(known, _)| *known == round).unwrap_or(0);
            let start = within as usize % geometry.chunks * geometry.batch;
            passes.push(PassPlace { round: index, start, moved: !geometry.aligned() });
        }
        self.next_pass = first + passes.len() as u64;
        self.passes = passes;
        let passes = vec![(0..self.passes.len()).map(|pass| vec![pass]).collect()];
        Ok(Updates { passes, generated: Some(generated), queries: Some(self.train.take_queries()) })
    }

    /// Completions
    fn weight(&self, split: Split, rows: &[usize]) -> f64 {
        match split {
            Split::Train => self.geometry.batch as f64,
            Split::Eval => rows.len() as f64,
        }
    }

    fn forward(&mut self, pass: &Pass<'_>, clock: &mut StepClock) -> Result<Outcome> {
        if pass.split == Split::Eval {
            return self.evaluate(pass, clock);
        }
        let PassPlace { round, start, moved } = self.passes[pass.rows[0]];
        let (number, rollout) = std::mem::take(&mut self.rounds[round]);
        let share = pass.passes as f64 / self.geometry.chunks as f64;
        let totals = self.totals(&rollout, pass.denominator, pass.passes, share);
        let completions = start..start + self.geometry.batch;
        let outcome = clock
            .time(Part::Forward, || self.pass_loss(Split::Train, &rollout, completions, moved, &totals, pass.dropout));
        self.rounds[round] = (number, rollout);
        outcome
    }

    fn end_step(&mut self, step: u64) -> Result<Metrics> {
        if let Some(reference) = &mut self.reference {
            reference.end_step(&self.view, step)?;
        }
        let mut metrics = std::mem::take(&mut self.metrics);
        metrics.extend(self.method.end_step().iter());
        Ok(metrics)
    }

    fn logged(&mut self, step: u64, folder: &Path) -> Result<()> {
        let Some((_, rollout)) = self.rounds.last().filter(|_| self.log_completions) else { return Ok(()) };
        let names = self.train.reward_weights().0;
        completions_table(&self.train, rollout, &names, step, folder)
    }

    fn save_state(&self, checkpoint: &CheckpointWriter) -> Result<Value> {
        self.reference.as_ref().map_or(Ok(()), |reference| reference.save(checkpoint))?;
        let used_up = |round: u64| (round + 1) * self.geometry.passes_per_round() <= self.next_pass;
        let rounds = self.rounds.iter().filter(|(round, _)| !used_up(*round)).cloned().collect();
        let saved = Saved { rounds, method: self.method.state() };
        serde_json::to_value(saved).map_err(|cause| Error::run(format!("cannot save the rollout: {cause}")))
    }

    fn restore_state(&mut self, checkpoint: &Checkpoint, state: Value) -> Result<()> {
        self.reference.as_mut().map_or(Ok(()), |reference| reference.restore(checkpoint))?;
        let wrong = |cause| Error::usage(format!("the checkpoint's rollout cannot be read: {cause}"));
        let saved: Saved = serde_json::from_value(state).map_err(wrong)?;
        self.rounds = saved.rounds;
        self.method.restore(saved.method).map_err(wrong)
    }
}

impl<M: GroupMethod> GroupTrainer<M> {
    /// Fresh completions of held-out prompts, and the loss that they would give
    fn evaluate(&mut self, pass: &Pass<'_>, clock: &mut StepClock) -> Result<Outcome> {
        let Some(mut eval) = self.eval.take() else { return Err(Error::run("there are no held-out prompts")) };
        let result = (|| {
            let rows: Vec<usize> =
                pass.rows.iter().step_by(self.eval_generations).map(|i| i / self.eval_generations).collect();
            let seed = mix(self.seed ^ mix(pass.rows[0] as u64 ^ 0x6576_616c));
            let mut rollout = eval.collect(&self.view, &rows, self.eval_generations, seed, clock, &|| Ok(()))?;
            self.judge(&mut rollout, &eval.reward_weights(), Split::Eval, clock)?;
            let totals = self.totals(&rollout, rollout.len() as f64, 1, 1.0);
            let whole = 0..rollout.len();
            let mut outcome = self.pass_loss(Split::Eval, &rollout, whole, false, &totals, None)?;
            outcome.metrics.extend(std::mem::take(&mut self.metrics).iter());
            objective_metrics(&rollout, self.method.beta(), &mut outcome.metrics);
            Ok(outcome)
        })();
        self.eval = Some(eval);
        result
    }
}

/// False for the tokens of completions that were cut
fn token_mask(rollout: &Rollout, completions: std::ops::Range<usize>) -> Vec<bool> {
    completions.flat_map(|i| std::iter::repeat_n(!rollout.truncated[i], rollout.completions[i].len())).collect()
}

/// Prompts whose completions all have the same reward
fn flat_groups(rollout: &Rollout, generations: usize) -> Vec<usize> {
    let groups = rollout.rewards.chunks(generations).enumerate();
    groups.filter(|(_, group)| group.iter().all(|reward| *reward == group[0])).map(|(prompt, _)| prompt).collect()
}

/// Puts the completions of `fresh` in the place of those of the prompts `which`
fn replace_groups(rollout: &mut Rollout, which: &[usize], fresh: Rollout, generations: usize) {
    for (from, &prompt) in which.iter().enumerate() {
        for k in 0..generations {
            let (new, old) = (from * generations + k, prompt * generations + k);
            rollout.completions[old].clone_from(&fresh.completions[new]);
            rollout.truncated[old] = fresh.truncated[new];
            rollout.sampled_log_probs[old].clone_from(&fresh.sampled_log_probs[new]);
            rollout.rewards[old] = fresh.rewards[new];
            for (values, fresh) in rollout.rewards_by_function.iter_mut().zip(&fresh.rewards_by_function) {
                values[old] = fresh[new];
            }
        }
    }
}
