//! GRL: the policy's log-ratio is a neural field, and the value of prompts lies in a particle memory.
//!
//! ```text
//! L = Σ log π − log π_ref      b = R − τL      V(x) from the particles (x, mean b)      loss = mean ½(R − τL − V)²
//! ```
//!
//! Path consistency (Nachum et al. 2017, <https://arxiv.org/abs/1702.08892>) holds for responses of any policy, so that
//! scored ones are replayed without weights; `V` must follow the policy for that, and the particles are restated from the
//! replayed responses after each update.

mod baseline;
mod draw;
mod features;
mod fresh;
mod frozen;
mod keep;
mod keep_field;
mod kept;
mod landscape;
mod learn;
mod measure;
mod objective;
mod responses;
mod state;
mod steering;
mod values;

use std::collections::HashMap;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::Value;

pub use self::baseline::PromptBaseline;
pub use self::keep::Response;
pub use self::keep_field::KeptField;
pub use self::kept::{Abstention, Explanation, Kept, Neighbour};
pub use self::landscape::{Landscape, Part as LandscapePart, Place};
pub use self::steering::FieldBend;

use self::features::{Features, key};
use self::measure::imputation_metrics;
use self::state::Learnt;
use self::steering::Steering;
use super::actor::Actor;
use super::collect::{Collector, Collectors};
use super::completions::completions_table;
use super::objective::{Objective, Outcome, Pass, Split, StepContext, Updates};
use super::plan::{Plan, StepRows};
use super::session::Session;
use super::{reward_model, step_loop};
use crate::config::{
    CommandSpec, Context, GrlKeys, GrlMode, MemoryKernel, OnlineKeys, SamplingStrategy, TrainKeys, ValueEstimator,
    Values as ConfigValues, to_yaml,
};
use crate::grl::importance::effective_sample_size;
use crate::grl::replay::Rollout as Scored;
use crate::model::Trainable;
use crate::ops::kernels::noise::mix;
use crate::rollout::{Bend, Policy, Rollout};
use crate::run::{Checkpoint, CheckpointWriter, Metrics, Part, StepClock};
use crate::{Error, Result};

/// The command `grl`
pub const GRL: CommandSpec = CommandSpec {
    name: "grl",
    about: "Reinforcement field with particle memory and replay, against any reward",
    groups: &[TrainKeys::KEYS, OnlineKeys::KEYS, GrlKeys::KEYS],
    defaults: &[
        ("learning_rate", "1e-6"),
        ("disable_dropout", "true"),
        ("num_generations", "2"),
        ("max_completion_length", "64"),
    ],
    run,
};

fn run(values: &ConfigValues, context: &Context) -> Result<()> {
    let (train, online) = (TrainKeys::from_values(values)?, OnlineKeys::from_values(values)?);
    let keys = GrlKeys::from_values(values)?;
    let all = train.to_values().into_iter().chain(online.to_values()).chain(keys.to_values());
    let mut session = Session::open(train, to_yaml(all)?, context)?;
    let mut trainer = Grl::open(&mut session, &online, keys)?;
    step_loop::train(&mut trainer, session)
}

/// Policy, reference, memory and store of a run
struct Grl {
    /// With a value network where `estimator` is one
    actor: Actor,
    features: Features,
    /// Of responses, where doubt about their rewards counts; fitted to the first ones
    responses: Option<Features>,
    /// How states are read, where a field learns in place of the weights; fitted to the first completions
    steering: Option<Steering>,
    train: Collector,
    eval: Option<Collector>,
    /// The first row of each prompt
    rows: HashMap<u64, usize>,
    keys: GrlKeys,
    online: OnlineKeys,
    /// What the reference is called, for those who look at the memory later
    reference_name: (String, String),
    /// Completions of a pass
    batch: usize,
    order: SamplingStrategy,
    seed: u64,
    step: u32,
    learnt: Learnt,
    /// As it was before the step that is under way: weights that have not moved yet are saved with this
    before: Option<Box<Learnt>>,
    fresh: Rollout,
    update: Update,
    tally: Tally,
    metrics: Metrics,
    in_memory: Duration,
}

/// What the passes of the present update have seen
struct Update {
    /// Position in the store and L of each response
    seen: Vec<(usize, f64)>,
    log_probs: Vec<f64>,
    behaviour: Vec<f64>,
    kl: f64,
    /// What became of the refresh after it
    refreshed: Result<()>,
}

impl Default for Update {
    fn default() -> Self {
        Self { seen: Vec::new(), log_probs: Vec::new(), behaviour: Vec::new(), kl: 0.0, refreshed: Ok(()) }
    }
}

/// What the updates of a step add up to
#[derive(Default)]
struct Tally {
    updates: f64,
    replays: f64,
    /// Of replayed updates
    sample_size: f64,
    behaviour_kl: f64,
    passes: f64,
    clipped: Option<f64>,
    residuals: (f64, f64),
    /// Of a token field
    errors: (f64, f64),
}

impl Grl {
    fn open(session: &mut Session, online: &OnlineKeys, keys: GrlKeys) -> Result<Self> {
        let (batch, generations) = (session.keys.per_device_train_batch_size, online.num_generations);
        if !batch.is_multiple_of(generations) {
            return Err(Error::usage(format!(
                "`per_device_train_batch_size`, {batch} completions, must be a multiple of `num_generations`, \
                 {generations}"
            )));
        }
        if keys.needs_groups() && generations < 2 {
            return Err(Error::usage(format!(
                "{} compares the completions of a prompt, and `num_generations` is 1",
                if keys.mode == GrlMode::Pair { "mode `pair`" } else { "estimator `group`" }
            )));
        }
        let load = reward_model::loader(session.keys.offline, online.normalize_reward_model);
        let Collectors { train, eval } = Collectors::open(session, online, load)?;
        if train.is_empty() {
            return Err(Error::usage("there is no prompt to train on"));
        }
        if !train.samples_whole_distribution() && !train.replays() {
            tracing::warn!(
                "`top_k`, `top_p`, `min_p` or `repetition_penalty` keep tokens from being drawn: the best policy need \
                 not be found"
            );
        }
        if let Some(most) = keys.adaptive_generations {
            if most < generations {
                return Err(Error::usage(format!(
                    "`adaptive_generations`, {most}, must be at least `num_generations`, {generations}"
                )));
            }
            if train.replays() {
                return Err(Error::usage(
                    "`adaptive_generations` cannot ask `replay_completions` for more completions",
                ));
            }
        }
        if keys.eta > 0.0 {
            tracing::info!("`learning_rate` changes nothing with `eta` above 0: the weights stay as they are");
        }
        let network = (keys.estimator == ValueEstimator::Network).then_some(keys.value_network);
        let actor = Actor::open(session, online, network, None)?;
        let mut rows = HashMap::new();
        for row in 0..train.len() {
            rows.entry(key(train.prompt(row))).or_insert(row);
        }
        let wanted = if keys.kernel == MemoryKernel::Delta { 0 } else { keys.feature_dim };
        let prompts = (0..train.len()).map(|row| train.prompt(row));
        // Weights that do not move need no copy
        let reference = if keys.eta > 0.0 { actor.view.detached()? } else { actor.view.frozen_copy()? };
        let mut features = Features::fit(reference, prompts.clone(), wanted, keys.feature_prompts)?;
        if keys.feature_permutation {
            features.permute(prompts, session.keys.seed);
        }
        let random = online.shuffle_dataset
            && session.keys.train_sampling_strategy == SamplingStrategy::Random
            && !train.replays();
        Ok(Self {
            learnt: Learnt::new(&keys, features.dim())?,
            actor,
            features,
            responses: None,
            steering: None,
            train,
            eval,
            rows,
            reference_name: (session.keys.model()?.to_owned(), session.keys.model_revision.clone()),
            batch,
            order: if random { SamplingStrategy::Random } else { SamplingStrategy::Sequential },
            seed: session.keys.seed,
            step: 0,
            before: None,
            fresh: Rollout::default(),
            update: Update::default(),
            tally: Tally::default(),
            metrics: Metrics::new(),
            in_memory: Duration::ZERO,
            keys,
            online: online.clone(),
        })
    }
}

impl Objective for Grl {
    fn model(&self) -> &dyn Trainable {
        // The view has no variables: nothing can move its weights
        if self.is_frozen() { &self.actor.view } else { &self.actor }
    }

    /// Prompts
    fn lengths(&self, split: Split) -> Vec<usize> {
        match split {
            Split::Train => self.train.lengths(),
            Split::Eval => self.eval.as_ref().map_or_else(Vec::new, Collector::lengths),
        }
    }

    fn plan(&self, keys: &TrainKeys) -> Plan {
        let keys = TrainKeys {
            train_sampling_strategy: self.order,
            per_device_train_batch_size: self.batch / self.online.num_generations,
            ..keys.clone()
        };
        Plan::new(&self.train.lengths(), &keys)
    }

    fn begin_step(&mut self, rows: &StepRows, context: &mut StepContext<'_>) -> Result<Updates> {
        self.step = context.step as u32;
        let begin = Instant::now();
        let prompts = self.prompts(rows.micro_batches.concat())?;
        self.in_memory = begin.elapsed();
        let seed = mix(self.seed ^ mix(context.step ^ 0x0067_726c));
        let check = context.checker();
        let counts = self.counts(&prompts)?;
        let bend = self.bend_rows(&prompts, Split::Train)?;
        let policy = Policy { model: &self.actor.view, bend: bend.as_ref().map(|bend| bend as &dyn Bend) };
        let mut rollout = self.train.write(&policy, &prompts, &counts, seed, context.clock, &check)?;
        let guesses = self.guesses(&rollout)?;
        let asked: Vec<bool> = guesses.iter().map(Option::is_none).collect();
        self.train.judge(&mut rollout, &asked, context.clock, &check)?;
        let mut scored = self.scored(&mut rollout, &guesses, context.clock)?;
        let begin = Instant::now();
        self.before = Some(Box::new(self.learnt.clone()));
        let due = context.step.is_multiple_of(self.keys.kernel_fit_steps as u64);
        let doubted = if self.remembers_responses() { Some(self.doubt_rewards(&mut scored, due)?) } else { None };
        self.metrics = self.rollout_metrics(&rollout, &scored, &self.train.reward_weights().0)?;
        if let Some(doubted) = doubted.filter(|_| self.keys.reward_pessimism) {
            self.metrics.set("reward_pessimism", doubted);
        }
        if self.keys.imputation.is_some() {
            self.metrics.extend(imputation_metrics(&guesses).iter());
        }
        if self.keys.adaptive_generations.is_some() {
            self.metrics.set("generations/min", counts.iter().min().map_or(0.0, |count| *count as f64));
            self.metrics.set("generations/max", counts.iter().max().map_or(0.0, |count| *count as f64));
        }
        let (kl, judged) = (self.metrics.get("kl").unwrap_or(f64::NAN), scored.len());
        self.learnt.next_group = self.learnt.next_group.wrapping_add(prompts.len() as u32);
        let fresh = self.learnt.add(scored, &self.features, self.step, due)?;
        self.fit_states(fresh)?;
        self.metrics.extend(self.memory_metrics(fresh)?.iter());
        if judged < rollout.len() {
            self.metrics.set("unjudged", (rollout.len() - judged) as f64);
        }
        if judged > 0 {
            self.learnt.controller.update(kl, judged);
        }
        self.in_memory += begin.elapsed();
        self.tally = Tally::default();
        self.update = Update::default();
        let (passes, generated) = (self.passes(fresh), rollout.tokens());
        self.fresh = rollout;
        Ok(Updates { passes, generated: Some(generated), queries: Some(self.train.take_queries()) })
    }

    /// Responses, or pairs where these are compared
    fn weight(&self, split: Split, rows: &[usize]) -> f64 {
        match (split, self.keys.mode) {
            (Split::Train, GrlMode::Pair) => self.pairs(rows).len() as f64,
            _ => rows.len() as f64,
        }
    }

    fn forward(&mut self, pass: &Pass<'_>, clock: &mut StepClock) -> Result<Outcome> {
        match pass.split {
            Split::Train if self.is_frozen() => clock.time(Part::Forward, || self.learn_field(pass)),
            Split::Train => clock.time(Part::Forward, || self.loss(pass)),
            Split::Eval => self.evaluate(pass.rows, clock),
        }
    }

    /// Never; the memory learns here what the passes have found
    fn stops_updates(&mut self) -> bool {
        let begin = Instant::now();
        let update = std::mem::take(&mut self.update);
        let n = update.log_probs.len().max(1) as f64;
        if self.tally.updates > 0.0 {
            self.tally.replays += 1.0;
            self.tally.sample_size += effective_sample_size(&update.log_probs, &update.behaviour) / n;
            self.tally.behaviour_kl += update.kl / update.seen.len().max(1) as f64;
        }
        self.tally.updates += 1.0;
        let refreshed = self.learnt.refresh(&update.seen, &self.features, self.step);
        self.update.refreshed = update.refreshed.and(refreshed);
        self.in_memory += begin.elapsed();
        false
    }

    fn end_step(&mut self, _step: u64) -> Result<Metrics> {
        std::mem::take(&mut self.update).refreshed?;
        self.before = None;
        let tally = std::mem::take(&mut self.tally);
        let mut metrics = std::mem::take(&mut self.metrics);
        metrics.set("residual", (tally.residuals.0 / tally.residuals.1.max(1.0)).sqrt());
        if let Some(particles) = &self.learnt.particles {
            metrics.set("field/error", (tally.errors.0 / tally.errors.1.max(1.0)).sqrt());
            metrics.set("field/size", particles.len() as f64);
        }
        if tally.replays > 0.0 {
            metrics.set("replay/effective_sample_size", tally.sample_size / tally.replays);
            metrics.set("replay/kl", tally.behaviour_kl / tally.replays);
        }
        if let Some(clipped) = tally.clipped {
            metrics.set("clip_ratio", clipped / tally.passes);
        }
        metrics.set("time/memory", self.in_memory.as_secs_f64());
        Ok(metrics)
    }

    fn logged(&mut self, step: u64, folder: &Path) -> Result<()> {
        if !self.online.log_completions {
            return Ok(());
        }
        completions_table(&self.train, &self.fresh, &self.train.reward_weights().0, step, folder)
    }

    fn save_beside(&self, folder: &Path) -> Result<()> {
        self.keep(folder, &self.learnt)
    }

    fn save_state(&self, checkpoint: &CheckpointWriter) -> Result<Value> {
        let learnt = self.before.as_deref().unwrap_or(&self.learnt);
        self.keep(checkpoint.path(), learnt)?;
        let head = self.actor.save_critic(checkpoint.path())?;
        keep::save(checkpoint.path(), learnt, &self.features, self.responses.as_ref(), head)
    }

    fn restore_state(&mut self, checkpoint: &Checkpoint, state: Value) -> Result<()> {
        let head = keep::restore(checkpoint.path(), &state, &mut self.learnt, &mut self.features)?;
        self.restore_field(checkpoint.path())?;
        if self.remembers_responses() {
            let reference = self.features.reference().detached()?;
            let found = keep::restore_responses(checkpoint.path(), &state, &mut self.learnt, &self.keys, reference)?;
            self.responses = found;
        }
        self.actor.restore_critic(checkpoint.path(), head)
    }
}
