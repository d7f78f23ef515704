//! `manifest.json`: where a run came from, so that it can be repeated and trusted.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use serde_json::{Map, Value, json};

use crate::error::{Error, Kind, Result};
use crate::files;

const VERSION: &str = env!("CARGO_PKG_VERSION");

/// What is known when a start begins
#[derive(Debug, Clone, Default)]
pub struct Start {
    /// The command line, program name first
    pub command: Vec<String>,
    /// `seed`
    pub seed: u64,
    /// Threads of the computation
    pub threads: usize,
    /// The step of the checkpoint this start goes on from
    pub resumed_from_step: Option<u64>,
    /// File → SHA-256 of the model files and datasets read
    pub sha256: Map<String, Value>,
    /// Rows used, rows dropped and why
    pub rows: Value,
}

/// The manifest of a run, with an entry for every start. A start that was killed has no `end` and no `exit`
#[derive(Debug)]
pub struct Manifest {
    path: PathBuf,
    starts: Vec<Value>,
}

impl Manifest {
    /// Adds an entry to the manifest at `path`, or begins one
    pub fn start(path: impl Into<PathBuf>, start: Start) -> Result<Self> {
        let path = path.into();
        let mut starts = read_starts(&path)?;
        let mut entry = json!({
            "version": VERSION,
            "command": start.command,
            "seed": start.seed,
            "threads": start.threads,
            "cpu_features": cpu_features(),
            "start": now(),
            "resumed_from_step": start.resumed_from_step,
            "sha256": start.sha256,
        });
        if !start.rows.is_null() {
            entry["rows"] = start.rows;
        }
        starts.push(entry);
        let manifest = Self { path, starts };
        manifest.write()?;
        Ok(manifest)
    }

    /// Adds to the entry of this start what became known later
    pub fn set(&mut self, key: &str, value: Value) -> Result<()> {
        self.current()[key] = value;
        self.write()
    }

    /// Closes the entry of this start with its end and its exit
    pub fn finish(&mut self, outcome: std::result::Result<(), &Error>) -> Result<()> {
        let exit = match outcome {
            Ok(()) => json!({ "code": 0 }),
            Err(error) => {
                let mut exit = json!({ "code": error.exit_code(), "error": error.message() });
                if let Kind::Signal(signal) = error.kind() {
                    exit["signal"] = signal.into();
                }
                exit
            }
        };
        let entry = self.current();
        entry["end"] = now().into();
        entry["exit"] = exit;
        self.write()
    }

    fn current(&mut self) -> &mut Value {
        self.starts.last_mut().expect("an entry was pushed when the manifest was started")
    }

    fn write(&self) -> Result<()> {
        let whole = json!({ "program": "collimate", "version": VERSION, "starts": self.starts });
        files::write_bytes(&self.path, format!("{whole:#}\n").as_bytes())
    }
}

fn read_starts(path: &Path) -> Result<Vec<Value>> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(cause) if cause.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(cause) => return Err(Error::read(path, cause)),
    };
    let hint = "move it away; the run then begins a new one";
    let mut whole: Value = serde_json::from_slice(&bytes).map_err(|cause| Error::read(path, cause).hint(hint))?;
    match whole.get_mut("starts").map(Value::take) {
        Some(Value::Array(starts)) => Ok(starts),
        _ => Err(Error::read(path, "it has no list `starts`").hint(hint)),
    }
}

fn now() -> String {
    humantime::format_rfc3339_millis(SystemTime::now()).to_string()
}

/// The instruction sets of this processor that numeric code may pick between: another one may round differently
pub fn cpu_features() -> Vec<&'static str> {
    let mut found = Vec::new();
    #[cfg(target_arch = "x86_64")]
    {
        macro_rules! detect {
            ($($feature:tt),*) => { $(if is_x86_feature_detected!($feature) { found.push($feature); })* };
        }
        detect!(
            "sse4.1",
            "sse4.2",
            "avx",
            "avx2",
            "fma",
            "f16c",
            "avxvnni",
            "avx512f",
            "avx512bw",
            "avx512cd",
            "avx512dq",
            "avx512vl",
            "avx512vnni",
            "avx512bf16",
            "avx512fp16"
        );
    }
    #[cfg(target_arch = "aarch64")]
    {
        macro_rules! detect {
            ($($feature:tt),*) => { $(if std::arch::is_aarch64_feature_detected!($feature) { found.push($feature); })* };
        }
        detect!("neon", "dotprod", "fp16", "bf16", "i8mm", "sve", "sve2");
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_start_has_an_entry_and_a_killed_one_no_end() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("manifest.json");
        let start = Start { command: vec!["collimate".into(), "sft".into()], seed: 7, threads: 2, ..Start::default() };
        drop(Manifest::start(&path, start.clone()).unwrap());
        let mut second = Manifest::start(&path, Start { resumed_from_step: Some(20), ..start }).unwrap();
        second.set("rows", json!({ "used": 10 })).unwrap();
        second.finish(Err(&Error::signal(2, "stopped"))).unwrap();

        let whole: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        let [first, second] = whole["starts"].as_array().unwrap().as_slice() else { panic!("two starts") };
        assert_eq!((&first["resumed_from_step"], first.get("end"), first.get("exit")), (&Value::Null, None, None));
        assert_eq!((&second["resumed_from_step"], &second["rows"]["used"]), (&json!(20), &json!(10)));
        assert_eq!(second["exit"], json!({ "code": 130, "error": "stopped", "signal": 2 }));
        humantime::parse_rfc3339(second["end"].as_str().unwrap()).unwrap();
    }

    #[test]
    fn an_altered_manifest_is_not_thrown_away() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("manifest.json");
        for content in ["{", "{\"starts\": 3}", "[]"] {
            fs::write(&path, content).unwrap();
            assert_eq!(Manifest::start(&path, Start::default()).unwrap_err().exit_code(), 2);
            assert_eq!(fs::read_to_string(&path).unwrap(), content);
        }
    }
}
