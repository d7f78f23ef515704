//! Metrics: a row of them, their means over a logging window, and `metrics.jsonl`.

use std::collections::HashSet;
use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Write as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::error::{Error, Result};
use crate::files::{self, write_error};

/// The prefix of the names of an evaluation row
pub const EVAL_PREFIX: &str = "eval_";

/// Named numbers in the order in which they were first set
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Metrics(Vec<(String, f64)>);

impl Metrics {
    /// No metrics
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets one; a name that is there keeps its place
    pub fn set(&mut self, name: impl Into<String>, value: f64) {
        let name = name.into();
        match self.0.iter_mut().find(|(known, _)| *known == name) {
            Some((_, old)) => *old = value,
            None => self.0.push((name, value)),
        }
    }

    /// One by its name
    pub fn get(&self, name: &str) -> Option<f64> {
        self.0.iter().find(|(known, _)| known == name).map(|&(_, value)| value)
    }

    /// All in order
    pub fn iter(&self) -> impl Iterator<Item = (&str, f64)> {
        self.0.iter().map(|(name, value)| (name.as_str(), *value))
    }

    /// Whether there are none
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The same under `eval_NAME`
    #[must_use]
    pub fn into_eval(self) -> Self {
        self.0.into_iter().map(|(name, value)| (format!("{EVAL_PREFIX}{name}"), value)).collect()
    }
}

impl<N: Into<String>> Extend<(N, f64)> for Metrics {
    fn extend<I: IntoIterator<Item = (N, f64)>>(&mut self, metrics: I) {
        for (name, value) in metrics {
            self.set(name, value);
        }
    }
}

impl<N: Into<String>> FromIterator<(N, f64)> for Metrics {
    fn from_iter<I: IntoIterator<Item = (N, f64)>>(metrics: I) -> Self {
        let mut all = Self::new();
        all.extend(metrics);
        all
    }
}

/// Means since the last logged step. Part of a checkpoint, so that a resume in mid-window logs what the uninterrupted
/// run would have logged, to the last bit
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Window(Vec<Mean>);

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Mean {
    name: String,
    #[serde(with = "bits")]
    sum: f64,
    #[serde(with = "bits")]
    weight: f64,
}

/// JSON has no NaN, which a mean may well be (a group without a single scored sample)
mod bits {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for a reference")]
    pub fn serialize<S: Serializer>(value: &f64, serializer: S) -> Result<S::Ok, S::Error> {
        value.to_bits().serialize(serializer)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
        u64::deserialize(deserializer).map(f64::from_bits)
    }
}

impl Window {
    /// An empty window
    pub fn new() -> Self {
        Self::default()
    }

    /// One observation among equals
    pub fn add(&mut self, name: &str, value: f64) {
        self.add_ratio(name, value, 1.0);
    }

    /// One observation each
    pub fn add_all(&mut self, metrics: &Metrics) {
        for (name, value) in metrics.iter() {
            self.add(name, value);
        }
    }

    /// A share of a mean that is the ratio of two sums: tokens and seconds, summed loss and token count
    pub fn add_ratio(&mut self, name: &str, numerator: f64, denominator: f64) {
        let mean = self.entry(name);
        mean.sum += numerator;
        mean.weight += denominator;
    }

    /// The last value counts alone (totals such as `num_tokens`)
    pub fn set(&mut self, name: &str, value: f64) {
        let mean = self.entry(name);
        (mean.sum, mean.weight) = (value, 1.0);
    }

    /// Whether nothing was added
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The means, in the order in which the names first came
    pub fn means(&self) -> Metrics {
        self.0.iter().map(|mean| (mean.name.clone(), mean.sum / mean.weight)).collect()
    }

    /// The means; the window is empty afterwards
    pub fn take(&mut self) -> Metrics {
        let means = self.means();
        self.0.clear();
        means
    }

    fn entry(&mut self, name: &str) -> &mut Mean {
        let at = self.0.iter().position(|mean| mean.name == name).unwrap_or_else(|| {
            self.0.push(Mean { name: name.to_owned(), sum: 0.0, weight: 0.0 });
            self.0.len() - 1
        });
        &mut self.0[at]
    }
}

/// One line of `metrics.jsonl`
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    /// Optimiser steps done
    pub step: u64,
    /// Passes over the data done
    pub epoch: Option<f64>,
    /// Everything else
    pub metrics: Metrics,
}

impl Row {
    /// Whether this is an evaluation row
    pub fn is_eval(&self) -> bool {
        is_eval(&self.metrics)
    }

    fn parse(line: &[u8]) -> std::result::Result<Self, String> {
        let object: Map<String, Value> = serde_json::from_slice(line).map_err(|cause| cause.to_string())?;
        let step = object.get("step").and_then(Value::as_u64).ok_or("no whole number under `step`")?;
        let mut row = Self { step, epoch: None, metrics: Metrics::new() };
        for (name, value) in object {
            let number = match &value {
                Value::Null => f64::NAN,
                other => other.as_f64().ok_or_else(|| format!("expected a number under `{name}`, found {other}"))?,
            };
            match name.as_str() {
                "step" => {}
                "epoch" => row.epoch = Some(number),
                _ => row.metrics.set(name, number),
            }
        }
        Ok(row)
    }
}

fn is_eval(metrics: &Metrics) -> bool {
    metrics.iter().any(|(name, _)| name.starts_with(EVAL_PREFIX))
}

/// Appends rows to `metrics.jsonl`, each on disk for other readers as soon as it is written
#[derive(Debug)]
pub struct MetricsWriter {
    path: PathBuf,
    file: File,
    logged: HashSet<u64>,
}

impl MetricsWriter {
    /// Opens the file to go on behind its last row
    pub fn open(path: &Path) -> Result<Self> {
        let logged = match path.metadata() {
            Ok(metadata) if metadata.is_file() => {
                // A line that a kill has torn would swallow the next one
                truncate_after(path, u64::MAX)?;
                read(path)?.into_iter().filter(|row| !row.is_eval()).map(|row| row.step).collect()
            }
            _ => HashSet::new(),
        };
        let file = OpenOptions::new().create(true).append(true).open(path);
        let file = file.map_err(|cause| write_error(path, &cause, None))?;
        Ok(Self { path: path.to_path_buf(), file, logged })
    }

    /// Writes a row. Numbers that JSON does not have (NaN, infinities) become `null`, which pandas reads as NaN.
    /// A training step can be logged only once; evaluations of several datasets may share one
    pub fn write(&mut self, step: u64, epoch: f64, metrics: &Metrics) -> Result<()> {
        if !is_eval(metrics) && !self.logged.insert(step) {
            return Err(Error::run(format!("step {step} is in `{}` already", self.path.display())));
        }
        let mut row = Map::new();
        row.insert("step".to_owned(), step.into());
        row.insert("epoch".to_owned(), epoch.into());
        row.extend(metrics.iter().map(|(name, value)| (name.to_owned(), value.into())));
        let mut line = Value::Object(row).to_string();
        line.push('\n');
        let length = self.file.metadata().map(|metadata| metadata.len());
        self.file.write_all(line.as_bytes()).map_err(|cause| {
            // Half a line is worth less than none; where even this fails, the next start removes it
            if let Ok(length) = length {
                let _ = self.file.set_len(length);
            }
            write_error(&self.path, &cause, Some(line.len() as u64))
        })
    }

    /// Brings the rows to disk for good; called before a checkpoint of the same step is published
    pub fn sync(&self) -> Result<()> {
        self.file.sync_data().map_err(|cause| write_error(&self.path, &cause, None))
    }
}

/// The rows of a finished or running run; a last line still being written is left out
pub fn read(path: &Path) -> Result<Vec<Row>> {
    let bytes = fs::read(path).map_err(|cause| Error::read(path, cause))?;
    let lines: Vec<&[u8]> = bytes.split_inclusive(|&b| b == b'\n').collect();
    let mut rows = Vec::with_capacity(lines.len());
    for (i, line) in lines.iter().enumerate() {
        match Row::parse(line) {
            Ok(row) => rows.push(row),
            Err(_) if !line.ends_with(b"\n") => {}
            Err(cause) => return Err(Error::usage(format!("{}:{}: {cause}", path.display(), i + 1))),
        }
    }
    Ok(rows)
}

/// Removes the rows after `step` and torn lines; the other rows stay byte for byte
pub fn truncate_after(path: &Path, step: u64) -> Result<()> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(cause) if cause.kind() == ErrorKind::NotFound => return Ok(()),
        Err(cause) => return Err(Error::read(path, cause)),
    };
    let mut kept = Vec::with_capacity(bytes.len());
    for line in bytes.split_inclusive(|&b| b == b'\n') {
        if Row::parse(line).is_ok_and(|row| row.step <= step) {
            kept.extend_from_slice(line);
            if !line.ends_with(b"\n") {
                kept.push(b'\n');
            }
        }
    }
    if kept == bytes { Ok(()) } else { files::write_bytes(path, &kept) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_is_the_mean_of_what_came_in() {
        let mut window = Window::new();
        for x in [1.0, 2.0, 6.0] {
            window.add("loss", x);
            window.set("num_tokens", 100.0 * x);
        }
        window.add_ratio("tokens_per_second", 100.0, 1.0);
        window.add_ratio("tokens_per_second", 100.0, 4.0);
        let expected = [("loss", 3.0), ("num_tokens", 600.0), ("tokens_per_second", 40.0)];
        assert_eq!(window.take(), expected.into_iter().collect());
        assert!(window.is_empty());
    }

    #[test]
    fn rows_read_as_they_were_written() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("metrics.jsonl");
        let mut writer = MetricsWriter::open(&path).unwrap();
        let metrics: Metrics = [("loss", 0.1 + 0.2), ("learning_rate", 5e-7)].into_iter().collect();
        writer.write(10, 0.25, &metrics).unwrap();
        writer.write(10, 0.25, &[("x", f64::NAN)].into_iter().collect::<Metrics>().into_eval()).unwrap();
        let text = fs::read_to_string(&path).unwrap();
        let expected = "{\"step\":10,\"epoch\":0.25,\"loss\":0.30000000000000004,\"learning_rate\":5e-7}\n\
                        {\"step\":10,\"epoch\":0.25,\"eval_x\":null}\n";
        assert_eq!(text, expected);
        let rows = read(&path).unwrap();
        assert_eq!(rows[0], Row { step: 10, epoch: Some(0.25), metrics: metrics.clone() });
        assert!(rows[1].is_eval() && rows[1].metrics.get("eval_x").unwrap().is_nan());

        let error = MetricsWriter::open(&path).unwrap().write(10, 0.25, &metrics).unwrap_err();
        assert!(error.message().contains("step 10 is in"), "{error}");
        assert_eq!(fs::read_to_string(&path).unwrap(), text);
    }

    #[test]
    fn a_bad_line_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("metrics.jsonl");
        for bad in ["{\"loss\":1}\n", "{\"step\":2,\"loss\":\"x\"}\n", "nonsense\n"] {
            fs::write(&path, format!("{{\"step\":1}}\n{bad}")).unwrap();
            assert!(read(&path).unwrap_err().message().contains("metrics.jsonl:2: "));
        }
    }
}
