//! What a Python has of Gymnasium, for `collimate doctor`.

use std::io::Read;
use std::process::Command;
use std::time::Duration;

use serde::Deserialize;

use super::worker::no_python;
use crate::process::{Group, describe_status};
use crate::{Error, Result};

/// How long it may take to import Gymnasium on a busy machine
const PATIENCE: Duration = Duration::from_secs(30);

/// Versions without importing what only might be there; Gymnasium itself must be importable
const SCRIPT: &str = r#"
import importlib.metadata, importlib.util, json, sys
def version(module, *names):
    if importlib.util.find_spec(module) is None:
        return None
    for name in names:
        try:
            return importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            pass
    return "of unknown version"
about = {"python": sys.version.split()[0], "executable": sys.executable, "gymnasium": None}
if importlib.util.find_spec("gymnasium") is not None:
    import gymnasium
    about["gymnasium"] = gymnasium.__version__
about["others"] = [
    ("mujoco", version("mujoco", "mujoco")),
    ("ale_py", version("ale_py", "ale-py")),
    ("cv2", version("cv2", "opencv-python", "opencv-python-headless")),
]
print(json.dumps(about))
"#;

/// A Python as the bridge sees it
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Probe {
    /// Its version
    pub python: String,
    /// Its path
    pub executable: String,
    /// Gymnasium's version, where it is installed
    pub gymnasium: Option<String>,
    /// MuJoCo, Atari's emulator, what resizes images: name, and version where it is installed
    pub others: Vec<(String, Option<String>)>,
}

/// Asks a Python what it has
///
/// # Errors
/// A program that cannot be started, takes too long, or does not answer like a Python
pub fn probe(python: &str) -> Result<Probe> {
    let mut group =
        Group::start(Command::new(python).args(["-c", SCRIPT]), |_| {}).map_err(|cause| no_python(python, &cause))?;
    let failed = |group: &Group, what: &str| {
        let said = group.last_words().pop().map(|line| format!(": {}", line.trim())).unwrap_or_default();
        Error::run(format!("`{python}` {what}{said}"))
    };
    let Some(status) = group.wait(PATIENCE) else {
        return Err(failed(&group, &format!("did not answer within {} s", PATIENCE.as_secs())));
    };
    if !status.success() {
        return Err(failed(&group, &describe_status(status)));
    }
    let mut text = String::new();
    // What it may have started does not count, and might hold the pipe for ever
    group.end(Duration::ZERO);
    if let Some(mut stdout) = group.stdout() {
        stdout.read_to_string(&mut text).ok();
    }
    let last = text.lines().last().unwrap_or_default();
    serde_json::from_str(last).map_err(|_| failed(&group, "does not answer like a Python"))
}
