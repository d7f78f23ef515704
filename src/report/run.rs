//! A run folder as a reader finds it, finished or not.

use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use super::completions::{self, Completions};
use crate::error::{Error, Result};

/// How a run stands
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// It ended well
    Finished,
    /// It has not said that it ended: it still runs, or it was killed
    Open,
    /// It stopped, for this reason
    Stopped(String),
}

/// Everything of a run folder that a report shows
#[derive(Debug, Clone)]
pub struct Run {
    /// Name under which the run is shown
    pub name: String,
    /// The folder
    pub folder: PathBuf,
    /// How it stands
    pub state: State,
    /// The last start in `manifest.json`; null where there is none
    pub start: Value,
    /// Number of starts
    pub starts: usize,
    /// `config.yaml`, as it is
    pub config: Option<String>,
    /// Metric → (step, value), evaluation rows under their prefix `eval_`
    pub metrics: BTreeMap<String, Vec<(f64, f64)>>,
    /// Rewards and divergences logged in the same row, by the name of the divergence
    pub frontiers: BTreeMap<String, Vec<(f64, f64)>>,
    /// Last optimiser step logged
    pub last_step: Option<u64>,
    /// `summary.json`
    pub summary: Map<String, Value>,
    /// What the model wrote
    pub completions: Completions,
}

/// Names under which trainers log how far the model is from its reference; they differ in unit, so never share an axis
const DIVERGENCES: [&str; 2] = ["kl", "objective/kl"];
/// What the policy is paid
const REWARD: &str = "reward";

impl Run {
    /// Reads a run folder
    pub fn read(folder: &Path) -> Result<Self> {
        let manifest = json(&folder.join("manifest.json"))?;
        let rows = rows(&folder.join("metrics.jsonl"))?;
        if manifest.is_none() && rows.is_none() {
            let found = if folder.is_dir() { "it holds neither" } else { "there is no such folder" };
            return Err(Error::usage(
                format!("`{}` is not a run folder: {found}", folder.display())
                    + if folder.is_dir() { " `manifest.json` nor `metrics.jsonl`" } else { "" },
            )
            .hint("give the `output_dir` of a training run"));
        }
        let summary = match json(&folder.join("summary.json"))? {
            Some(Value::Object(summary)) => Some(summary),
            _ => None,
        };
        let starts = manifest.as_ref().and_then(|manifest| manifest["starts"].as_array()).cloned().unwrap_or_default();
        let start = starts.last().cloned().unwrap_or(Value::Null);
        let mut run = Self {
            name: name_of(folder),
            folder: folder.to_path_buf(),
            state: state(&start, summary.is_some()),
            start,
            starts: starts.len(),
            config: text(&folder.join("config.yaml"))?,
            metrics: BTreeMap::new(),
            frontiers: BTreeMap::new(),
            last_step: None,
            summary: summary.unwrap_or_default(),
            completions: completions::read(&folder.join("completions"))?,
        };
        for row in rows.unwrap_or_default() {
            run.add(&row);
        }
        Ok(run)
    }

    fn add(&mut self, row: &Map<String, Value>) {
        let Some(step) = row.get("step").and_then(Value::as_u64) else { return };
        self.last_step = self.last_step.max(Some(step));
        for (name, value) in row.iter().filter(|(name, _)| !matches!(name.as_str(), "step" | "epoch")) {
            // JSON has no NaN: the run writes null for it, and a curve shows a gap
            let value = value.as_f64().unwrap_or(f64::NAN);
            self.metrics.entry(name.clone()).or_default().push((step as f64, value));
        }
        let number = |name: &str| row.get(name).and_then(Value::as_f64);
        for divergence in DIVERGENCES {
            if let (Some(kl), Some(reward)) = (number(divergence), number(REWARD)) {
                self.frontiers.entry(divergence.to_owned()).or_default().push((kl, reward));
            }
        }
    }

    /// The subcommand that made the run
    pub fn trainer(&self) -> Option<&str> {
        self.start["command"].get(1)?.as_str()
    }
}

/// Gives runs of one name as much of their folders as it takes to tell them apart
pub fn name_apart(runs: &mut [Run]) {
    let names = |runs: &[Run]| runs.iter().map(|run| run.name.clone()).collect::<Vec<_>>();
    // A folder given twice stays as it is
    for depth in 2..8 {
        let known = names(runs);
        for run in runs.iter_mut().filter(|run| known.iter().filter(|name| **name == run.name).count() > 1) {
            let path = run.folder.canonicalize().unwrap_or_else(|_| run.folder.clone());
            let parts: Vec<String> = path.iter().map(|part| part.to_string_lossy().into_owned()).collect();
            run.name = parts[parts.len().saturating_sub(depth)..].join("/");
        }
    }
}

fn name_of(folder: &Path) -> String {
    let own = folder.file_name().map(|name| name.to_string_lossy().into_owned());
    own.unwrap_or_else(|| folder.display().to_string())
}

fn state(start: &Value, summarised: bool) -> State {
    let exit = &start["exit"];
    match exit["code"].as_i64() {
        Some(0) => State::Finished,
        Some(code) => State::Stopped(exit["error"].as_str().map_or_else(|| format!("exit code {code}"), str::to_owned)),
        None if start.is_null() && summarised => State::Finished,
        None => State::Open,
    }
}

fn text(path: &Path) -> Result<Option<String>> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(cause) if matches!(cause.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => Ok(None),
        Err(cause) => Err(Error::read(path, cause)),
    }
}

fn json(path: &Path) -> Result<Option<Value>> {
    let parsed = text(path)?.map(|text| serde_json::from_str(&text));
    parsed.transpose().map_err(|cause| Error::read(path, cause))
}

/// The rows of `metrics.jsonl`, without a last line that is still being written
fn rows(path: &Path) -> Result<Option<Vec<Map<String, Value>>>> {
    let Some(text) = text(path)? else { return Ok(None) };
    let mut rows = Vec::new();
    for (i, line) in text.split_inclusive('\n').enumerate() {
        match serde_json::from_str(line) {
            Ok(row) => rows.push(row),
            Err(_) if !line.ends_with('\n') => {}
            Err(cause) => return Err(Error::usage(format!("{}:{}: {cause}", path.display(), i + 1))),
        }
    }
    Ok(Some(rows))
}
