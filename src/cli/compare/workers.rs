//! The cells of a comparison as child processes of this program, some side by side.

use std::fs::{self, File};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use signal_hook::consts::SIGTERM;

use super::spec::Cell;
use crate::files::write_bytes;
use crate::run::{Signals, names};
use crate::{Error, Result};

/// How often the children are looked after
const PATIENCE: Duration = Duration::from_millis(50);

/// How many run side by side, and the threads of each
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Share {
    /// Side by side
    pub jobs: usize,
    /// Threads of each
    pub threads: usize,
}

impl Share {
    /// Of `threads` in all. Where nothing is said, language models run one after the other with all threads, and classical
    /// runs, whose networks use one thread, as many at a time as there are threads
    pub fn new(jobs: Option<usize>, threads: usize, classical: bool, cells: usize) -> Self {
        let jobs = jobs.unwrap_or(if classical { threads } else { 1 }).clamp(1, cells.max(1));
        Self { jobs, threads: if classical { 1 } else { (threads / jobs).max(1) } }
    }
}

/// A cell that runs
struct Running<'c> {
    cell: &'c Cell,
    child: Child,
    begin: Instant,
}

/// How a cell ended: nothing, or why it failed
pub type Outcome = Option<String>;

/// Runs every cell that has not finished; the outcomes are in the order of the cells
///
/// # Errors
/// A cell whose folder holds a run of another config; a signal, once the children have ended
pub fn run(cells: &[Cell], share: Share) -> Result<Vec<Outcome>> {
    let mut waiting = Vec::new();
    for (i, cell) in cells.iter().enumerate() {
        check_config(cell)?;
        if !cell.folder.join(names::SUMMARY).is_file() {
            waiting.push(i);
        }
    }
    let kept = cells.len() - waiting.len();
    if kept > 0 {
        tracing::info!("{kept} of {} runs are done already", cells.len());
    }
    waiting.reverse();
    let signals = Signals::install()?;
    let mut outcomes: Vec<Outcome> = vec![None; cells.len()];
    let mut running: Vec<(usize, Running<'_>)> = Vec::new();
    let mut done = kept;
    let mut stopping = None;
    while !running.is_empty() || (stopping.is_none() && !waiting.is_empty()) {
        while stopping.is_none() && running.len() < share.jobs {
            let Some(i) = waiting.pop() else { break };
            match start(&cells[i], share.threads) {
                Ok(child) => running.push((i, child)),
                Err(error) => {
                    // Those that run would go on without anyone to look after them
                    for (_, other) in &mut running {
                        other.stop(SIGTERM);
                        // What it says by now is in its log
                        let _ = other.child.wait();
                    }
                    return Err(error);
                }
            }
        }
        thread::sleep(PATIENCE);
        if let (None, Some(signal)) = (stopping, signals.received()) {
            tracing::warn!("stopping: the runs under way write their checkpoints");
            for (_, running) in &running {
                running.stop(signal);
            }
            stopping = Some(signal);
        }
        let mut still = Vec::with_capacity(running.len());
        for (i, mut entry) in running {
            let waited =
                entry.child.try_wait().map_err(|cause| Error::run(format!("cannot wait for a run: {cause}")))?;
            let Some(status) = waited else {
                still.push((i, entry));
                continue;
            };
            done += usize::from(status.success());
            outcomes[i] = entry.ended(status.success(), stopping.is_some(), (done, cells.len()));
        }
        running = still;
    }
    match stopping {
        None => Ok(outcomes),
        Some(signal) => Err(Error::signal(signal, format!("stopped with {done} of {} runs done", cells.len()))
            .hint("the same command goes on from there")),
    }
}

impl Running<'_> {
    /// The first signal lets a run write its checkpoint
    fn stop(&self, signal: i32) {
        let signal = if signal == SIGTERM { Signal::TERM } else { Signal::INT };
        // It may have ended by itself meanwhile
        let _ = kill_process(Pid::from_child(&self.child), signal);
    }

    fn ended(&self, well: bool, stopping: bool, (done, all): (usize, usize)) -> Outcome {
        let (name, seconds) = (self.cell.name(), self.begin.elapsed().as_secs_f64());
        if well {
            tracing::info!("[{done}/{all}] {name}: {seconds:.1} s");
            return None;
        }
        if stopping {
            return None;
        }
        let said = last_words(&self.cell.log_file());
        tracing::warn!("{name} failed after {seconds:.1} s: {said}");
        Some(said)
    }
}

/// The cells of a comparison keep the config they began with
fn check_config(cell: &Cell) -> Result<()> {
    let path = cell.config_file();
    match fs::read_to_string(&path) {
        Ok(found) if found == cell.config => Ok(()),
        Ok(found) => {
            let differing = cell.config.lines().find(|line| !found.lines().any(|other| other == *line));
            let key = differing.and_then(|line| line.split(':').next()).unwrap_or("a key");
            Err(Error::usage(format!("`{}` is a run with another `{key}`", cell.folder.display())).hint(format!(
                "choose another `output_dir`, or remove `{}` and `{}`",
                cell.folder.display(),
                path.display()
            )))
        }
        Err(cause) if cause.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(cause) => Err(Error::read(&path, cause)),
    }
}

fn start(cell: &Cell, threads: usize) -> Result<Running<'_>> {
    let config = cell.config_file();
    write_bytes(&config, cell.config.as_bytes())?;
    let log = cell.log_file();
    let stderr = File::create(&log).map_err(|cause| Error::write(&log, cause))?;
    let program = std::env::current_exe().map_err(|cause| Error::run(format!("cannot find this program: {cause}")))?;
    let mut command = Command::new(program);
    command.args(cell.command.split(' ')).arg("--config").arg(&config).args(["--threads", &threads.to_string()]);
    // What an interrupted comparison left
    if cell.is_classical() {
        command.args(["--overwrite_output_dir", "true"]);
    } else {
        command.args(["--resume_from_checkpoint", "true"]);
    }
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(stderr);
    // A group of its own: Ctrl-C reaches the children once, through this process, and not twice
    #[cfg(unix)]
    std::os::unix::process::CommandExt::process_group(&mut command, 0);
    let child = command.spawn().map_err(|cause| Error::run(format!("cannot start a run: {cause}")))?;
    tracing::info!("{} begins", cell.name());
    Ok(Running { cell, child, begin: Instant::now() })
}

/// The error that a run ended with, else its last line
fn last_words(log: &Path) -> String {
    let text = fs::read(log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
    let error = text.lines().rfind(|line| line.starts_with("error: ")).map(|line| &line["error: ".len()..]);
    error.or_else(|| text.lines().last()).unwrap_or("it said nothing").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_are_shared_out() {
        let share = |jobs, threads, classical| {
            let share = Share::new(jobs, threads, classical, 6);
            (share.jobs, share.threads)
        };
        assert_eq!(share(None, 8, false), (1, 8));
        assert_eq!(share(Some(3), 8, false), (3, 2));
        assert_eq!(share(Some(16), 4, false), (6, 1));
        assert_eq!(share(None, 4, true), (4, 1));
        assert_eq!(share(None, 16, true), (6, 1));
    }

    #[test]
    fn the_last_error_of_a_log_is_its_last_word() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        fs::write(&path, "step 1\nerror: the loss is NaN\nhint: lower it\n").unwrap();
        assert_eq!(last_words(&path), "the loss is NaN");
        fs::write(&path, "killed\n").unwrap();
        assert_eq!(last_words(&path), "killed");
        assert_eq!(last_words(&folder.path().join("none")), "it said nothing");
    }
}
