//! The run of an agent: iterations, metrics, the saved policy, the summary.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::time::Instant;

use serde_json::json;

use super::agents::Agent;
use super::env::Episode;
use super::saved::{Origin, save};
use crate::run::{Manifest, Metrics, OpenMode, Progress, RunFolder, Signals, Start, names};
use crate::{Error, Result};

/// Episodes over which return and length are averaged
const RECENT: usize = 100;

/// What a run must know besides its agent
#[derive(Debug, Clone)]
pub struct RunOptions {
    /// Folder of the run
    pub output_dir: PathBuf,
    /// Whether it may replace an earlier one
    pub overwrite: bool,
    /// Environment steps
    pub total_timesteps: u64,
    /// Iterations between two rows of metrics
    pub log_interval: usize,
    /// For the manifest
    pub seed: u64,
    /// The command line, for the manifest
    pub command: Vec<String>,
    /// The resolved config, for `config.yaml`
    pub config: String,
    /// No progress on stderr
    pub quiet: bool,
}

/// Trains an agent and writes its run folder
///
/// # Errors
/// A folder that holds a run already; what the environments report; a signal, after the policy is written
pub fn train(agent: &mut dyn Agent, origin: &Origin, options: &RunOptions) -> Result<()> {
    let mode = OpenMode { overwrite: options.overwrite, resume: None };
    let (folder, _) = RunFolder::open(&options.output_dir, &mode)?.begin()?;
    let start = Start { command: options.command.clone(), seed: options.seed, threads: 1, ..Start::default() };
    let mut manifest = Manifest::start(folder.join(names::MANIFEST), start)?;
    let outcome =
        folder.write(names::CONFIG, options.config.as_bytes()).and_then(|()| steps(agent, &folder, origin, options));
    manifest.finish(outcome.as_ref().copied())?;
    outcome
}

fn steps(agent: &mut dyn Agent, folder: &RunFolder, origin: &Origin, options: &RunOptions) -> Result<()> {
    let signals = Signals::install()?;
    let mut writer = folder.metrics()?;
    let total = options.total_timesteps;
    let mut progress = Progress::new(total, 0, options.quiet);
    let mut recent: VecDeque<Episode> = VecDeque::with_capacity(RECENT);
    let mut episodes = 0;
    let begin = Instant::now();
    let mut iteration = 0;
    let mut stopped = None;
    while !agent.is_done(total) && stopped.is_none() {
        let figures = agent.iterate(total)?;
        iteration += 1;
        if let Some((name, value)) = figures.iter().find(|(name, value)| name.contains("loss") && !value.is_finite()) {
            return Err(Error::run(format!("`{name}` became {value} after {} steps", agent.timesteps()))
                .hint("a smaller `learning_rate` may help"));
        }
        for episode in agent.take_episodes() {
            episodes += 1;
            if recent.len() == RECENT {
                recent.pop_front();
            }
            recent.push_back(episode);
        }
        stopped = signals.received();
        let done = agent.timesteps();
        progress.step(done.min(total));
        if iteration % options.log_interval == 0 || agent.is_done(total) || stopped.is_some() {
            let mut metrics = Metrics::new();
            if !recent.is_empty() {
                metrics.set("return", mean(&recent, |episode| episode.episode_return));
                metrics.set("length", mean(&recent, |episode| f64::from(episode.length)));
            }
            metrics.set("episodes", f64::from(episodes));
            metrics.extend(figures);
            metrics.set("steps_per_second", done as f64 / begin.elapsed().as_secs_f64());
            writer.write(done, done as f64 / total as f64, &metrics)?;
            progress.log(done.min(total), &metrics);
        }
    }
    writer.sync()?;
    let seconds = begin.elapsed().as_secs_f64();
    folder.write_model(|path| save(path, &agent.policy(), origin))?;
    if let Some(signal) = stopped {
        return Err(Signals::error(signal, agent.timesteps()));
    }
    let last = |of: fn(&Episode) -> f64| if recent.is_empty() { None } else { Some(mean(&recent, of)) };
    let summary = json!({
        "agent": origin.agent,
        "env": origin.env,
        "seed": options.seed,
        "timesteps": agent.timesteps(),
        "episodes": episodes,
        "return": last(|episode| episode.episode_return),
        "length": last(|episode| f64::from(episode.length)),
        "seconds": seconds,
        "steps_per_second": agent.timesteps() as f64 / seconds,
    });
    folder.write(names::SUMMARY, format!("{summary:#}\n").as_bytes())
}

fn mean(episodes: &VecDeque<Episode>, of: impl Fn(&Episode) -> f64) -> f64 {
    episodes.iter().map(of).sum::<f64>() / episodes.len() as f64
}
