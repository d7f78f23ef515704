//! The run of an agent: iterations, metrics, evaluations, checkpoints, the saved policy, the summary.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::time::Instant;

use serde::{Deserialize, Serialize};
use serde_json::json;

use super::agents::Agent;
use super::env::{Episode, VectorEnv, make_vec};
use super::evaluate::play;
use super::saved::{self, Origin, save};
use super::state::State;
use crate::run::atomic::{PartialFolder, remove_folder};
use crate::run::{
    Checkpoint, Manifest, Metrics, MetricsWriter, OpenMode, Progress, Resume, RunFolder, Signals, Start, names,
};
use crate::{Error, Result, files};

/// Episodes over which return and length are averaged
const RECENT: usize = 100;

/// Folder of the best policy of a run's evaluations
pub const BEST: &str = "best";

/// Environments that an evaluation plays at once
const AT_ONCE: usize = 10;

/// From a run's seed to that of its evaluations, far from those that training and `rl eval` use
const EVALUATION_SEED: u64 = 1 << 40;

/// What a run must know besides its agent
#[derive(Debug, Clone)]
pub struct RunOptions {
    /// Folder of the run
    pub output_dir: PathBuf,
    /// Whether it may replace an earlier one
    pub overwrite: bool,
    /// Where it goes on
    pub resume: Option<Resume>,
    /// Environment steps
    pub total_timesteps: u64,
    /// Iterations between two rows of metrics
    pub log_interval: usize,
    /// Evaluations during training
    pub evaluation: Option<Evaluation>,
    /// Checkpoints
    pub checkpoints: Option<Checkpoints>,
    /// For the manifest
    pub seed: u64,
    /// The command line, for the manifest
    pub command: Vec<String>,
    /// The resolved config, for `config.yaml`
    pub config: String,
    /// No progress on stderr
    pub quiet: bool,
}

/// When the policy is evaluated, and on how much
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Evaluation {
    /// Environment steps between two evaluations
    pub every: u64,
    /// Episodes of each
    pub episodes: usize,
}

/// When a checkpoint is written, and how many stay
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Checkpoints {
    /// Environment steps between two checkpoints
    pub every: u64,
    /// The newest so many
    pub keep: Option<usize>,
}

/// What a run counts, and what a checkpoint keeps of it
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct Tally {
    iteration: usize,
    episodes: u64,
    recent: VecDeque<Episode>,
    best: Option<Best>,
}

/// The best evaluation
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
struct Best {
    #[serde(rename = "return")]
    mean: f64,
    timesteps: u64,
}

/// A run under way
struct Run<'r> {
    agent: &'r mut dyn Agent,
    folder: &'r RunFolder,
    origin: &'r Origin,
    options: &'r RunOptions,
    evaluator: Option<(Box<dyn VectorEnv>, Evaluation)>,
    writer: MetricsWriter,
    progress: Progress,
    tally: Tally,
    begin: (Instant, u64),
}

/// Trains an agent and writes its run folder
///
/// # Errors
/// A folder that holds a run already; a checkpoint of another agent; what the environments report; a signal, after the
/// policy is written
pub fn train(agent: &mut dyn Agent, origin: &Origin, options: &RunOptions) -> Result<()> {
    let mode = OpenMode { overwrite: options.overwrite, resume: options.resume.clone() };
    let pending = RunFolder::open(&options.output_dir, &mode)?;
    let tally = pending.checkpoint().map(|checkpoint| restore(agent, origin, checkpoint)).transpose()?;
    let (folder, _) = pending.begin()?;
    let start = Start {
        command: options.command.clone(),
        seed: options.seed,
        threads: rayon::current_num_threads(),
        resumed_from_step: folder.resumed_from(),
        ..Start::default()
    };
    let mut manifest = Manifest::start(folder.join(names::MANIFEST), start)?;
    let outcome = folder.write(names::CONFIG, options.config.as_bytes()).and_then(|()| {
        if tally.is_none() {
            forget_best(&folder)?;
        }
        Run::new(agent, &folder, origin, options, tally.unwrap_or_default())?.steps()
    });
    manifest.finish(outcome.as_ref().copied())?;
    outcome
}

fn restore(agent: &mut dyn Agent, origin: &Origin, checkpoint: &Checkpoint) -> Result<Tally> {
    let saved = saved::origin(checkpoint.path())?;
    if !saved.continues(origin) {
        if (&saved.agent, &saved.env) == (&origin.agent, &origin.env) {
            return Err(Error::usage(format!(
                "`{}` is a checkpoint of a run in `{}` with another `env_kwargs`, `max_episode_steps` or `gym_` key",
                checkpoint.path().display(),
                origin.env
            ))
            .hint("resume with the config of the run"));
        }
        return Err(Error::usage(format!(
            "`{}` is a checkpoint of `{}` in `{}`, and this is a run of `{}` in `{}`",
            checkpoint.path().display(),
            saved.agent,
            saved.env,
            origin.agent,
            origin.env
        ))
        .hint("resume with the config of the run"));
    }
    let (mut state, tally) = State::read(checkpoint)?;
    agent.persist(&mut state)?;
    Ok(tally)
}

/// The best policy of an earlier run in this folder is not this run's
fn forget_best(folder: &RunFolder) -> Result<()> {
    let best = folder.join(BEST);
    if saved::origin(&best).is_ok() { remove_folder(&best) } else { Ok(()) }
}

/// Whether a multiple of `every` lies behind `before` and not behind `now`
fn passed(every: u64, before: u64, now: u64) -> bool {
    before / every != now / every
}

impl<'r> Run<'r> {
    fn new(
        agent: &'r mut dyn Agent,
        folder: &'r RunFolder,
        origin: &'r Origin,
        options: &'r RunOptions,
        tally: Tally,
    ) -> Result<Self> {
        let evaluator = options.evaluation.map(|evaluation| -> Result<_> {
            Ok((make_vec(&origin.env, evaluation.episodes.min(AT_ONCE), &origin.make_options())?, evaluation))
        });
        let done = agent.timesteps();
        Ok(Self {
            evaluator: evaluator.transpose()?,
            writer: folder.metrics()?,
            progress: Progress::new(options.total_timesteps, done, options.quiet),
            begin: (Instant::now(), done),
            agent,
            folder,
            origin,
            options,
            tally,
        })
    }

    fn steps(mut self) -> Result<()> {
        let signals = Signals::install()?;
        let total = self.options.total_timesteps;
        let mut stopped = None;
        while !self.agent.is_done(total) && stopped.is_none() {
            let before = self.agent.timesteps();
            let figures = self.agent.iterate(total)?;
            self.tally.iteration += 1;
            if let Some((name, value)) =
                figures.iter().find(|(name, value)| name.contains("loss") && !value.is_finite())
            {
                return Err(Error::run(format!("`{name}` became {value} after {} steps", self.agent.timesteps()))
                    .hint("a smaller `learning_rate` may help"));
            }
            self.count_episodes();
            stopped = signals.received();
            let (done, is_done) = (self.agent.timesteps(), self.agent.is_done(total));
            self.progress.step(done.min(total));
            if is_done || self.tally.iteration.is_multiple_of(self.options.log_interval) {
                self.log(figures)?;
            }
            if let Some(evaluation) = self.options.evaluation
                && (is_done || passed(evaluation.every, before, done))
            {
                self.evaluate()?;
            }
            if let Some(checkpoints) = self.options.checkpoints
                && (is_done || stopped.is_some() || passed(checkpoints.every, before, done))
            {
                self.checkpoint(checkpoints)?;
            }
        }
        self.finish(stopped)
    }

    fn count_episodes(&mut self) {
        let tally = &mut self.tally;
        for episode in self.agent.take_episodes() {
            tally.episodes += 1;
            if tally.recent.len() == RECENT {
                tally.recent.pop_front();
            }
            tally.recent.push_back(episode);
        }
    }

    /// Mean over the last episodes; none where no episode has ended
    fn recent(&self, of: fn(&Episode) -> f64) -> Option<f64> {
        let recent = &self.tally.recent;
        (!recent.is_empty()).then(|| recent.iter().map(of).sum::<f64>() / recent.len() as f64)
    }

    /// Environment steps of this start in a second
    fn speed(&self) -> f64 {
        (self.agent.timesteps() - self.begin.1) as f64 / self.begin.0.elapsed().as_secs_f64()
    }

    fn write(&mut self, metrics: &Metrics) -> Result<()> {
        let (done, total) = (self.agent.timesteps(), self.options.total_timesteps);
        self.writer.write(done, done as f64 / total as f64, metrics)?;
        self.progress.log(done.min(total), metrics);
        Ok(())
    }

    fn log(&mut self, figures: Vec<(&'static str, f64)>) -> Result<()> {
        let mut metrics = Metrics::new();
        if let (Some(mean), Some(length)) = (self.recent(|e| e.episode_return), self.recent(|e| f64::from(e.length))) {
            metrics.extend([("return", mean), ("length", length)]);
        }
        if self.tally.episodes > 0 {
            metrics.set("episodes", self.tally.episodes as f64);
        }
        metrics.extend(figures);
        metrics.set("steps_per_second", self.speed());
        self.write(&metrics)
    }

    /// Plays the policy as it is now, each time the same episodes, and keeps the best one
    fn evaluate(&mut self) -> Result<()> {
        let Some((env, evaluation)) = &mut self.evaluator else { return Ok(()) };
        let policy = self.agent.policy();
        let seed = self.options.seed.wrapping_add(EVALUATION_SEED);
        let summary = play(&policy, &mut **env, evaluation.episodes, true, seed)?.summary();
        let metrics: Metrics = [("return", summary.mean), ("return_std", summary.std), ("length", summary.mean_length)]
            .into_iter()
            .collect();
        self.write(&metrics.into_eval())?;
        if self.tally.best.is_none_or(|best| summary.mean > best.mean) {
            let folder = self.folder.join(BEST);
            let staging = PartialFolder::create(&folder)?;
            save(staging.path(), &policy, self.origin)?;
            std::fs::create_dir_all(&folder).map_err(|cause| files::write_error(&folder, &cause, None))?;
            staging.publish_files(&folder)?;
            self.tally.best = Some(Best { mean: summary.mean, timesteps: self.agent.timesteps() });
        }
        Ok(())
    }

    fn checkpoint(&mut self, Checkpoints { keep, .. }: Checkpoints) -> Result<()> {
        self.writer.sync()?;
        let checkpoint = self.folder.new_checkpoint(self.agent.timesteps())?;
        save(checkpoint.path(), &self.agent.policy(), self.origin)?;
        let mut state = State::new();
        self.agent.persist(&mut state)?;
        state.write(&checkpoint, &self.tally)?;
        checkpoint.publish()?;
        self.folder.rotate(keep)
    }

    fn finish(self, stopped: Option<i32>) -> Result<()> {
        self.writer.sync()?;
        let (seconds, steps_per_second) = (self.begin.0.elapsed().as_secs_f64(), self.speed());
        self.folder.write_model(|path| save(path, &self.agent.policy(), self.origin))?;
        if let Some(signal) = stopped {
            let error = Signals::error(signal, self.agent.timesteps());
            return Err(match self.options.checkpoints {
                Some(_) => error,
                None => error.hint("a run with `save_steps` goes on from there; this one begins anew"),
            });
        }
        let summary = json!({
            "agent": self.origin.agent,
            "env": self.origin.env,
            "seed": self.options.seed,
            "timesteps": self.agent.timesteps(),
            "episodes": self.tally.episodes,
            "return": self.recent(|episode| episode.episode_return),
            "length": self.recent(|episode| f64::from(episode.length)),
            "best": self.tally.best,
            "seconds": seconds,
            "steps_per_second": steps_per_second,
        });
        self.folder.write(names::SUMMARY, format!("{summary:#}\n").as_bytes())
    }
}
