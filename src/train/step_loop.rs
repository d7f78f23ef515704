//! The step loop that all recipes share: batches, accumulation, clipping, AdamW, evaluation, logging, checkpoints.

mod evaluation;

use serde::{Deserialize, Serialize};

use super::objective::{LOWER_THE_RATE, Objective, Pass, Split, StepContext, finite};
use super::plan::{Plan, StepRows};
use super::session::Session;
use super::source::ModelSource;
use crate::config::{LrScheduler, Strategy, TrainKeys};
use crate::error::{Error, Kind, Result};
use crate::model::Trainable;
use crate::ops::kernels::noise::mix;
use crate::optim::gradients::{self, clip_factor};
use crate::optim::{AdamW, AdamWConfig, Moments, Schedule};
use crate::run::clock::since_process_start;
use crate::run::{
    Checkpoint, EventWriter, Manifest, Metrics, MetricsWriter, Part, Progress, RunFolder, Signals, Slice, StepClock,
    Window, names,
};

const OPTIMIZER: &str = "optimizer.safetensors";

/// All of a run that is neither weights nor moments: what a checkpoint must hold for an exact resume
#[derive(Default, Serialize, Deserialize)]
struct State {
    /// Steps done
    step: u64,
    /// Updates of the weights done; more than one a step where a recipe reuses what it generated
    updates: u64,
    /// Epochs done
    epoch: f64,
    /// Real tokens trained on
    num_tokens: u64,
    /// Completions that the rewards judged; None where none are asked
    #[serde(default)]
    reward_queries: Option<u64>,
    /// Sum of all steps' losses
    loss_sum: f64,
    /// Metrics since the last logged step
    window: Window,
    /// Whether a signal broke off the evaluation after this step
    evaluation_due: bool,
    /// What the recipe keeps
    objective: serde_json::Value,
}

struct StepLoop<'a> {
    objective: &'a mut dyn Objective,
    keys: TrainKeys,
    plan: Plan,
    schedule: Schedule,
    warmup: u64,
    optimizer: AdamW,
    state: State,
    folder: RunFolder,
    source: ModelSource,
    metrics: MetricsWriter,
    events: Option<EventWriter>,
    progress: Progress,
    signals: Signals,
    clock: StepClock,
    /// The step of the last evaluation, and what it gave
    last_eval: (Option<u64>, Metrics),
    /// Whether it was said that equal rewards teach nothing
    told_of_equal_rewards: bool,
}

/// What the passes of a step add up to
#[derive(Default)]
struct Seen {
    /// Sum of the losses of all updates
    loss: f64,
    updates: u32,
    tokens: u64,
    /// Gradient norm of the last update
    norm: f64,
    metrics: Vec<Metrics>,
}

/// Trains `objective` as the session's keys say, from the beginning or from a checkpoint, and writes the run folder
pub fn train(objective: &mut dyn Objective, session: Session) -> Result<()> {
    let keys = session.keys.clone();
    let plan = objective.plan(&keys);
    let schedule = schedule(&keys)?;
    let warmup = keys.warmup(plan.total_steps as usize) as u64;
    let (folder, checkpoint, mut manifest, source) = session.begin()?;
    let result = (|| {
        let mut optimizer = optimizer(objective.model(), &keys);
        let metrics = folder.metrics()?;
        let state = match &checkpoint {
            Some(checkpoint) => restore(checkpoint, objective, &mut optimizer)?,
            None => State::default(),
        };
        let mut run = StepLoop {
            progress: Progress::new(plan.total_steps, state.step, keys.quiet),
            last_eval: evaluation::last(&folder)?,
            metrics,
            events: if keys.tensorboard() { Some(folder.events()?) } else { None },
            signals: Signals::install()?,
            clock: StepClock::new(),
            objective,
            keys,
            plan,
            schedule,
            warmup,
            optimizer,
            state,
            folder,
            source,
            told_of_equal_rewards: false,
        };
        run.run()
    })();
    finish(&mut manifest, result)
}

/// Notes in the manifest how the run ended
fn finish(manifest: &mut Manifest, result: Result<()>) -> Result<()> {
    let noted = manifest.finish(result.as_ref().copied());
    result.and(noted)
}

fn optimizer(model: &dyn Trainable, keys: &TrainKeys) -> AdamW {
    let config = AdamWConfig {
        beta1: keys.adam_beta1,
        beta2: keys.adam_beta2,
        epsilon: keys.adam_epsilon,
        weight_decay: keys.weight_decay,
    };
    AdamW::new(model.vars().iter().map(|(name, var)| (name, var)), config)
}

fn schedule(keys: &TrainKeys) -> Result<Schedule> {
    let number = |name: &str| keys.lr_scheduler_kwargs.get(name).copied();
    let share = |value: f64| if keys.learning_rate > 0.0 { value / keys.learning_rate } else { 0.0 };
    Ok(match keys.lr_scheduler_type {
        LrScheduler::Linear => Schedule::Linear,
        LrScheduler::Constant => Schedule::Constant,
        LrScheduler::ConstantWithWarmup => Schedule::ConstantWithWarmup,
        LrScheduler::Cosine => Schedule::Cosine { cycles: number("num_cycles").unwrap_or(0.5), floor: 0.0 },
        LrScheduler::CosineWithRestarts => Schedule::CosineWithRestarts { cycles: number("num_cycles").unwrap_or(1.0) },
        LrScheduler::Polynomial => {
            Schedule::Polynomial { end: share(number("lr_end").unwrap_or(1e-7)), power: number("power").unwrap_or(1.0) }
        }
        LrScheduler::InverseSqrt => Schedule::InverseSqrt { timescale: number("timescale") },
        LrScheduler::CosineWithMinLr => {
            let floor = match (number("min_lr"), number("min_lr_rate")) {
                (Some(rate), None) => share(rate),
                (None, Some(share)) => share,
                _ => {
                    return Err(Error::usage(
                        "`lr_scheduler_kwargs` must hold one of `min_lr` and `min_lr_rate` for `cosine_with_min_lr`",
                    ));
                }
            };
            Schedule::Cosine { cycles: number("num_cycles").unwrap_or(0.5), floor }
        }
    })
}

/// Puts a checkpoint's weights and moments back
fn restore(checkpoint: &Checkpoint, objective: &mut dyn Objective, optimizer: &mut AdamW) -> Result<State> {
    let place = |error: Error| error.context(format_args!("cannot resume from `{}`", checkpoint.path().display()));
    let mut state: State = checkpoint.state().map_err(place)?;
    objective.model().restore(checkpoint.path()).map_err(place)?;
    objective.restore_state(checkpoint, state.objective.take()).map_err(place)?;
    let mut saved = checkpoint.tensors(OPTIMIZER).map_err(place)?;
    let moments = |name: &str| {
        let mut read = |kind: &str| saved.read::<f32>(&format!("{kind}.{name}")).ok();
        Some(Moments { first: read("first")?, second: read("second")? })
    };
    optimizer.restore(state.updates, moments).map_err(|error| place(error.into()))?;
    Ok(state)
}

impl StepLoop<'_> {
    fn run(&mut self) -> Result<()> {
        let due = self.state.evaluation_due || (self.keys.eval_on_start && self.state.step == 0);
        self.state.evaluation_due = false;
        if due && self.last_eval.0 != Some(self.state.step) {
            self.evaluate()?;
        }
        self.clock = StepClock::new();
        while self.state.step < self.plan.total_steps {
            let rows = self.plan.step(self.state.step);
            if let Err(error) = self.step(&rows) {
                return Err(match error.kind() {
                    Kind::Signal(_) => self.stopped(error),
                    _ => error.context(format_args!("step {}", self.state.step + 1)),
                });
            }
            self.after_step(&rows)?;
            if let Some(signal) = self.signals.received() {
                return Err(self.stopped(Signals::error(signal, self.state.step)));
            }
        }
        self.end()
    }

    /// One step: for each of its updates forward and backward for each pass, then clip and update
    fn step(&mut self, rows: &StepRows) -> Result<()> {
        let step = self.state.step;
        let lr = self.keys.learning_rate * self.schedule.factor(step, self.warmup, self.plan.total_steps);
        let mut context = StepContext { step, clock: &mut self.clock, signals: &self.signals };
        let updates = match self.objective.begin_step(rows, &mut context) {
            Ok(updates) => updates,
            // A reward that failed, a signal: the weights are those of the last step, and worth keeping
            Err(error) => return Err(self.stopped(error)),
        };
        let mut seen = Seen::default();
        for (update, passes) in updates.passes.iter().enumerate() {
            let loss = self.passes(update, passes, &mut seen)?;
            if self.objective.stops_updates() {
                break;
            }
            seen.loss += loss;
            seen.updates += 1;
            let begin = std::time::Instant::now();
            seen.norm = self.update(lr, seen.updates == 0)?;
            self.clock.add(Part::Optimizer, begin.elapsed());
        }
        let own = self.objective.end_step(step)?;

        let loss = seen.loss / f64::from(seen.updates.max(1));
        let state = &mut self.state;
        state.step += 1;
        state.updates += u64::from(seen.updates);
        state.epoch = rows.epoch_after;
        state.num_tokens += updates.generated.unwrap_or(seen.tokens);
        if let Some(queries) = updates.queries {
            *state.reward_queries.get_or_insert(0) += queries;
        }
        state.loss_sum += loss;
        state.window.add("loss", loss);
        state.window.set("grad_norm", seen.norm);
        state.window.set("learning_rate", lr);
        for metrics in seen.metrics.iter().chain([&own]) {
            state.window.add_all(metrics);
        }
        state.window.set("num_tokens", state.num_tokens as f64);
        if let Some(queries) = state.reward_queries {
            state.window.set("reward_queries", queries as f64);
        }
        self.clock.finish_step(seen.tokens, &mut state.window);
        Ok(())
    }

    /// Sums the gradients of one update's passes and returns its loss
    fn passes(&mut self, update: usize, passes: &[Vec<usize>], seen: &mut Seen) -> Result<f64> {
        let step = self.state.step;
        let total: f64 = passes.iter().map(|rows| self.objective.weight(Split::Train, rows)).sum();
        self.objective.model().gradients().reset();
        let mut loss = 0.0;
        for (i, rows) in passes.iter().enumerate() {
            // Weights that moved within a step belong to no checkpoint: such a step is done to its end
            if let (Some(signal), 0) = (self.signals.received(), seen.updates) {
                return Err(Signals::error(signal, step));
            }
            let key = mix(self.keys.seed ^ mix(mix(step) ^ i as u64 ^ (update as u64) << 32));
            let dropout = (!self.keys.disable_dropout).then_some(key);
            let pass = Pass { split: Split::Train, rows, denominator: total, passes: passes.len(), dropout };
            let outcome = self.objective.forward(&pass, &mut self.clock)?;
            loss += finite(outcome.loss).map_err(|error| self.failed(error, step.saturating_sub(1)))?;
            let model = self.objective.model();
            self.clock.time(Part::Backward, || -> Result<()> {
                let store = outcome.graph.backward()?;
                Ok(gradients::collect(model.gradients(), &store, model.vars().iter().map(|(_, var)| var))?)
            })?;
            seen.tokens += outcome.tokens;
            seen.metrics.push(outcome.metrics);
        }
        Ok(loss)
    }

    /// Clips the summed gradients and moves the weights; returns the norm before clipping. `first` of its step or not
    fn update(&mut self, lr: f64, first: bool) -> Result<f64> {
        let sums = self.objective.model().gradients();
        let norm = gradients::norm(sums);
        if !norm.is_finite() {
            let error = Error::run(format!("the norm of the gradient is {norm}")).hint(LOWER_THE_RATE);
            // The weights gave a finite loss: they are worth keeping, unless they moved within this step
            let error = if first { self.stopped(error) } else { error };
            return Err(self.failed(error, self.state.step));
        }
        self.optimizer.step(sums, lr, clip_factor(norm, self.keys.max_grad_norm))?;
        Ok(norm)
    }

    /// Logs, evaluates and saves where the keys say so; in the order of the Hugging Face Trainer
    fn after_step(&mut self, rows: &StepRows) -> Result<()> {
        let (step, total) = (self.state.step, self.plan.total_steps);
        let every = |interval: usize| step.is_multiple_of(interval.max(1) as u64);
        let total_steps = total as usize;
        let last = step == total;
        let due = |strategy: Strategy, interval: usize| match strategy {
            Strategy::No => false,
            Strategy::Steps => every(interval),
            Strategy::Epoch => rows.ends_epoch || last,
        };
        let first = step == 1 && self.keys.logging_first_step;
        let log = first || due(self.keys.logging_strategy, self.keys.logging_steps.of(total_steps));
        let evaluate = due(self.keys.eval_strategy, self.keys.steps_between_evaluations().of(total_steps))
            || (last && self.keys.eval_strategy == Strategy::Steps);
        let save = due(self.keys.save_strategy, self.keys.save_steps.of(total_steps))
            || (last && self.keys.save_strategy == Strategy::Steps);
        self.progress.step(step);
        if log {
            self.log()?;
        }
        if evaluate {
            self.evaluate()?;
        }
        if save {
            self.save_checkpoint()?;
        }
        Ok(())
    }

    fn log(&mut self) -> Result<()> {
        let mut metrics = self.state.window.take();
        metrics.set("time/since_start", since_process_start());
        self.write(&metrics)?;
        self.progress.log(self.state.step, &metrics);
        if metrics.get("frac_reward_zero_std") == Some(1.0) && !std::mem::replace(&mut self.told_of_equal_rewards, true)
        {
            tracing::warn!(
                "step {}: all completions of each prompt have had the same reward since the last row of metrics, and teach nothing: \
                 `collimate eval --reward_funcs` shows what the reward says of a model, `log_completions` keeps what it judged",
                self.state.step
            );
        }
        self.objective.logged(self.state.step, self.folder.path())
    }

    fn write(&mut self, metrics: &Metrics) -> Result<()> {
        let (step, epoch) = (self.state.step, self.state.epoch);
        self.metrics.write(step, epoch, metrics)?;
        match &mut self.events {
            Some(events) => events.write(step, epoch, metrics),
            None => Ok(()),
        }
    }

    fn save_checkpoint(&mut self) -> Result<()> {
        self.check_weights()?;
        self.metrics.sync()?;
        let writer = self.folder.new_checkpoint(self.state.step)?;
        self.source.save(self.objective.model(), writer.path())?;
        self.state.objective = self.objective.save_state(&writer)?;
        writer.write_state(&self.state)?;
        self.state.objective = serde_json::Value::Null;
        let tensors = self.optimizer.state().flat_map(|(name, moments)| {
            [
                (format!("first.{name}"), Slice::flat(&moments.first)),
                (format!("second.{name}"), Slice::flat(&moments.second)),
            ]
        });
        writer.write_tensors(OPTIMIZER, tensors)?;
        writer.publish()?;
        self.folder.rotate(self.keys.save_total_limit)
    }

    /// No file ever holds weights that are NaN or infinite
    fn check_weights(&self) -> Result<()> {
        for (name, var) in self.objective.model().vars() {
            if !var.as_tensor().sum_all()?.to_scalar::<f32>()?.is_finite() {
                let error = Error::run(format!("step {}: `{name}` is no longer finite", self.state.step));
                return Err(self.failed(error.hint(LOWER_THE_RATE), self.state.step.saturating_sub(1)));
            }
        }
        Ok(())
    }

    /// Says which checkpoint is left of a run whose weights were sound up to this step
    fn failed(&self, error: Error, sound: u64) -> Error {
        let newest = self.folder.checkpoints().ok().and_then(|found| found.into_iter().rfind(|(at, _)| *at <= sound));
        let Some((_, path)) = newest else { return error };
        let hint = error.hint_text().map_or_else(String::new, |hint| format!("{hint}; "));
        error.hint(format!("{hint}the newest checkpoint before that is `{}`", path.display()))
    }

    /// A run that is stopped leaves a checkpoint of its last step; `error` says why it ended
    fn stopped(&mut self, error: Error) -> Error {
        let step = self.state.step;
        let saved = self.folder.join(names::checkpoint(step)).is_dir();
        if step == 0 || saved {
            return error;
        }
        match self.save_checkpoint() {
            Ok(()) => error,
            Err(failed) => error.hint(format!("the checkpoint of step {step} could not be written: {failed}")),
        }
    }

    /// The final model and figures
    fn end(&mut self) -> Result<()> {
        self.check_weights()?;
        self.objective.finish()?;
        let (source, objective) = (&self.source, &*self.objective);
        self.folder.write_model(|folder| {
            source.save(objective.model(), folder)?;
            objective.save_beside(folder)
        })?;
        let state = &self.state;
        let mut summary = Metrics::new();
        summary.set("step", state.step as f64);
        summary.set("epoch", state.epoch);
        summary.set("train_loss", state.loss_sum / state.step.max(1) as f64);
        summary.set("num_tokens", state.num_tokens as f64);
        if let Some(queries) = state.reward_queries {
            summary.set("reward_queries", queries as f64);
        }
        summary.set("train_runtime", since_process_start());
        summary.extend(self.last_eval.1.iter());
        let text: serde_json::Map<_, _> =
            summary.iter().map(|(name, value)| (name.to_owned(), serde_json::json!(value))).collect();
        let mut json = serde_json::to_vec_pretty(&text).unwrap_or_default();
        json.push(b'\n');
        self.metrics.sync()?;
        self.folder.write(names::SUMMARY, &json)?;
        tracing::info!("{} steps done, the model is in `{}`", self.state.step, self.folder.path().display());
        Ok(())
    }
}
