//! The run folder: who may write into it, what a new start does to what lies there, and where everything goes.
//!
//! Opening is in two steps. [`RunFolder::open`] takes the lock, decides and finds the checkpoint, but changes nothing,
//! so that a request that proves wrong afterwards (a bad row, a missing model) costs nobody a finished run.
//! [`PendingRun::begin`] then clears the way.

use std::fs::{self, File, TryLockError};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use tracing::{info, warn};

use super::atomic::{self, PartialFolder};
use super::checkpoint::{self, Checkpoint, CheckpointWriter};
use super::metrics::{self, MetricsWriter};
use super::names;
use super::tensorboard::EventWriter;
use crate::error::{Error, Result};
use crate::files::{self, write_error};

/// `resume_from_checkpoint`
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Resume {
    /// `true`: the newest complete checkpoint in `output_dir`, or the beginning where there is none
    Newest,
    /// This checkpoint folder
    From(PathBuf),
}

/// What the request says about an earlier run in `output_dir`
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OpenMode {
    /// `overwrite_output_dir`
    pub overwrite: bool,
    /// `resume_from_checkpoint`
    pub resume: Option<Resume>,
}

/// What the new start does to what the folder holds
#[derive(Debug)]
enum Plan {
    /// Nothing of a run is there
    Fresh,
    /// Remove the earlier run
    Overwrite,
    /// Begin anew a run that has no complete checkpoint
    Restart,
    /// Go on with the earlier run after this step
    Continue(u64),
}

/// A folder that is locked and looked through, but not touched
#[derive(Debug)]
pub struct PendingRun {
    folder: RunFolder,
    plan: Plan,
    checkpoint: Option<Checkpoint>,
    created: CreatedFolders,
}

/// Folders, the innermost first, that are removed again if the request proves wrong before the run begins
#[derive(Debug)]
struct CreatedFolders(Vec<PathBuf>);

impl Drop for CreatedFolders {
    fn drop(&mut self) {
        for path in &self.0 {
            // Fails where something is in it by now, which is right
            let _ = fs::remove_dir(path);
        }
    }
}

/// A folder that this process alone writes a run into; the lock ends with the process
#[derive(Debug)]
pub struct RunFolder {
    path: PathBuf,
    resumed_from: Option<u64>,
    _lock: Option<File>,
}

impl RunFolder {
    /// Locks `path`, decides what a start may do there, and opens the checkpoint to resume from
    pub fn open(path: impl Into<PathBuf>, mode: &OpenMode) -> Result<PendingRun> {
        let path = path.into();
        let created = create(&path)?;
        let lock = lock(&path)?;
        let mut pending = PendingRun {
            folder: Self { path, resumed_from: None, _lock: lock },
            plan: Plan::Fresh,
            checkpoint: None,
            created,
        };
        pending.decide(mode)?;
        Ok(pending)
    }

    /// `output_dir`
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A file or folder of the run
    pub fn join(&self, name: impl AsRef<Path>) -> PathBuf {
        self.path.join(name)
    }

    /// The step of the checkpoint that this start goes on from
    pub fn resumed_from(&self) -> Option<u64> {
        self.resumed_from
    }

    /// Replaces a file of the run
    pub fn write(&self, name: &str, content: &[u8]) -> Result<()> {
        files::write_bytes(&self.path.join(name), content)
    }

    /// Puts the final model into the run folder: `write` fills an empty folder, whose files then move up one by one. A field
    /// that steered the model of an earlier run steers no other
    pub fn write_model(&self, write: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
        let staging = PartialFolder::create(&self.path.join("model"))?;
        write(staging.path())?;
        let field = self.path.join(names::TOKEN_FIELD);
        if !staging.path().join(names::TOKEN_FIELD).is_file() && field.is_file() {
            fs::remove_file(&field).map_err(|cause| write_error(&field, &cause, None))?;
        }
        staging.publish_files(&self.path)
    }

    /// `completions/completions_00010.parquet`, in a folder that exists
    pub fn completions(&self, step: u64) -> Result<PathBuf> {
        let folder = self.path.join(names::COMPLETIONS);
        fs::create_dir_all(&folder).map_err(|cause| write_error(&folder, &cause, None))?;
        Ok(folder.join(names::completions(step)))
    }

    /// The writer of `metrics.jsonl`
    pub fn metrics(&self) -> Result<MetricsWriter> {
        MetricsWriter::open(&self.path.join(names::METRICS))
    }

    /// The writer of a new TensorBoard event file in `runs/`
    pub fn events(&self) -> Result<EventWriter> {
        EventWriter::create(&self.path.join(names::EVENTS), self.resumed_from)
    }

    /// Starts `checkpoint-STEP`
    pub fn new_checkpoint(&self, step: u64) -> Result<CheckpointWriter> {
        CheckpointWriter::create(&self.path, step)
    }

    /// The checkpoints in the folder, oldest first
    pub fn checkpoints(&self) -> Result<Vec<(u64, PathBuf)>> {
        checkpoints(&self.path)
    }

    /// `save_total_limit`: removes the oldest checkpoints beyond the limit; called after a new one is complete
    pub fn rotate(&self, save_total_limit: Option<usize>) -> Result<()> {
        let Some(limit) = save_total_limit.filter(|&limit| limit > 0) else { return Ok(()) };
        let checkpoints = self.checkpoints()?;
        let surplus = checkpoints.len().saturating_sub(limit);
        checkpoints[..surplus].iter().try_for_each(|(_, path)| atomic::remove_folder(path))
    }
}

/// The checkpoints of a run, oldest first, complete or not
pub fn checkpoints(run_folder: &Path) -> Result<Vec<(u64, PathBuf)>> {
    let mut found: Vec<(u64, PathBuf)> = entries(run_folder)?
        .into_iter()
        .filter_map(|name| Some((names::checkpoint_step(&name)?, run_folder.join(&name))))
        .filter(|(_, path)| path.is_dir())
        .collect();
    found.sort();
    Ok(found)
}

impl PendingRun {
    /// The checkpoint to go on from
    pub fn checkpoint(&self) -> Option<&Checkpoint> {
        self.checkpoint.as_ref()
    }

    /// `output_dir`
    pub fn path(&self) -> &Path {
        &self.folder.path
    }

    fn decide(&mut self, mode: &OpenMode) -> Result<()> {
        let path = self.folder.path.clone();
        let taken = self.sign_of_a_run()?;
        match &mode.resume {
            Some(Resume::Newest) => {
                self.checkpoint = newest_complete(&path)?;
                if taken.is_some() {
                    self.plan = self.checkpoint.as_ref().map_or(Plan::Restart, |found| Plan::Continue(found.step()));
                }
            }
            Some(Resume::From(from)) => {
                let checkpoint = Checkpoint::open(from).map_err(|error| name_the_newest(error, from))?;
                if is_checkpoint_of(from, &path)? {
                    self.plan = Plan::Continue(checkpoint.step());
                }
                self.checkpoint = Some(checkpoint);
            }
            None => {}
        }
        self.folder.resumed_from = self.checkpoint.as_ref().map(Checkpoint::step);
        if let Plan::Continue(_) | Plan::Restart = self.plan {
            if mode.overwrite {
                info!("the run in `{}` is resumed; `overwrite_output_dir` changes nothing", path.display());
            }
            return Ok(());
        }
        match taken {
            _ if mode.overwrite => self.plan = Plan::Overwrite,
            Some(name) => {
                return Err(Error::usage(format!("`output_dir` holds a run already: `{}`", path.join(name).display()))
                    .hint("go on with `resume_from_checkpoint: true`, replace it with `overwrite_output_dir: true`, or choose another `output_dir`"));
            }
            None if path.join(names::MANIFEST).exists() => self.plan = Plan::Restart,
            None => self.spare_the_files_of_others()?,
        }
        Ok(())
    }

    /// What shows that there is a run to lose here. A manifest alone does not: its start failed before the first row
    fn sign_of_a_run(&self) -> Result<Option<String>> {
        let path = &self.folder.path;
        let has_rows = || path.join(names::METRICS).metadata().is_ok_and(|metadata| metadata.len() > 0);
        let is_sign = |name: &String| match name.as_str() {
            names::SUMMARY => true,
            names::METRICS => has_rows(),
            name => names::checkpoint_step(name).is_some(),
        };
        Ok(entries(path)?.into_iter().find(is_sign))
    }

    /// A run would replace files that no run wrote (a model that someone put here, a config written by hand)
    fn spare_the_files_of_others(&self) -> Result<()> {
        let path = &self.folder.path;
        match entries(path)?.into_iter().find(|name| names::is_written_by_a_run(name)) {
            None => Ok(()),
            Some(name) => Err(Error::usage(format!(
                "the run would replace `{}`, which no run of this program wrote",
                path.join(name).display()
            ))
            .hint("choose another `output_dir`, or allow it with `overwrite_output_dir: true`")),
        }
    }

    /// Makes the folder ready for the first step of this start. Everything that the request reads from it (a model, a
    /// dataset) is loaded before; the manifest is written next, for it marks the folder as one of this program
    pub fn begin(self) -> Result<(RunFolder, Option<Checkpoint>)> {
        let Self { folder, plan, checkpoint, mut created } = self;
        created.0.clear();
        clear_leftovers(&folder.path)?;
        match plan {
            Plan::Fresh => {}
            Plan::Overwrite => overwrite(&folder.path)?,
            Plan::Restart => restart(&folder.path)?,
            Plan::Continue(step) => cut_back(&folder.path, step)?,
        }
        Ok((folder, checkpoint))
    }
}

fn create(path: &Path) -> Result<CreatedFolders> {
    if path.is_dir() {
        return Ok(CreatedFolders(Vec::new()));
    }
    if path.exists() {
        return Err(Error::usage(format!("`output_dir` is a file: `{}`", path.display())).hint("name a folder"));
    }
    if let Some(file) = path.ancestors().find(|above| above.is_file()) {
        let (path, file) = (path.display(), file.display());
        return Err(Error::usage(format!("`output_dir` cannot be `{path}`: `{file}` is a file")).hint("name a folder"));
    }
    let missing = path.ancestors().take_while(|folder| !folder.as_os_str().is_empty() && !folder.exists());
    let created = CreatedFolders(missing.map(Path::to_path_buf).collect());
    fs::create_dir_all(path).map_err(|cause| write_error(path, &cause, None))?;
    Ok(created)
}

/// The folder itself carries the lock: nothing is left in it, and the system ends the lock with the process
fn lock(path: &Path) -> Result<Option<File>> {
    let folder = File::open(path).map_err(|cause| Error::read(path, cause))?;
    match folder.try_lock() {
        Ok(()) => Ok(Some(folder)),
        Err(TryLockError::WouldBlock) => Err(Error::usage(format!("another run is writing into `{}`", path.display()))
            .hint("wait for it to end, or choose another `output_dir`")),
        Err(TryLockError::Error(cause)) => {
            // Some network file systems cannot lock; that alone is no reason not to train
            warn!("cannot lock `{}` against a second run: {cause}", path.display());
            Ok(None)
        }
    }
}

fn entries(folder: &Path) -> Result<Vec<String>> {
    let read = match fs::read_dir(folder) {
        Ok(read) => read,
        Err(cause) if cause.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(cause) => return Err(Error::read(folder, cause)),
    };
    let mut names = Vec::new();
    for entry in read {
        // Names that are not UTF-8 are none of ours
        names.extend(entry.map_err(|cause| Error::read(folder, cause))?.file_name().into_string());
    }
    names.sort();
    Ok(names)
}

fn newest_complete(run_folder: &Path) -> Result<Option<Checkpoint>> {
    for (_, path) in checkpoints(run_folder)?.iter().rev() {
        match Checkpoint::open(path) {
            Ok(checkpoint) => return Ok(Some(checkpoint)),
            Err(error) => warn!("{}; trying an older one", error.message()),
        }
    }
    Ok(None)
}

/// Someone who names a run folder in place of a checkpoint gets to read which checkpoint to name
fn name_the_newest(error: Error, named: &Path) -> Error {
    match checkpoints(named).ok().and_then(|found| found.into_iter().next_back()) {
        Some((_, newest)) => error.hint(format!("its newest checkpoint is `{}`", newest.display())),
        None => error,
    }
}

/// Whether `checkpoint` is `RUN_FOLDER/checkpoint-N`. Any other place inside the run folder is refused: the start that
/// reads it might first remove it
fn is_checkpoint_of(checkpoint: &Path, run_folder: &Path) -> Result<bool> {
    let real = checkpoint.canonicalize().map_err(|cause| Error::read(checkpoint, cause))?;
    let home = run_folder.canonicalize().map_err(|cause| Error::read(run_folder, cause))?;
    let named_by_a_run = real.file_name().and_then(|name| names::checkpoint_step(name.to_str()?)).is_some();
    if named_by_a_run && real.parent() == Some(&home) {
        return Ok(true);
    }
    if real.starts_with(&home) {
        return Err(Error::usage(format!("`{}` lies in `output_dir` under a name of its own", checkpoint.display()))
            .hint("give it its name back (`checkpoint-N`), or choose another `output_dir`"));
    }
    Ok(false)
}

fn clear_leftovers(path: &Path) -> Result<()> {
    atomic::remove_leftovers(path, |name| {
        names::is_written_by_a_run(name) || names::is_superseded(name) || name == "model"
    })?;
    atomic::remove_leftovers(&path.join(names::COMPLETIONS), |name| names::completions_step(name).is_some())
}

fn overwrite(path: &Path) -> Result<()> {
    for name in entries(path)? {
        if names::checkpoint_step(&name).is_some() || names::is_superseded(&name) {
            atomic::remove_folder(&path.join(name))?;
        }
    }
    remove_matching(path, |name| names::OF_ONE_RUN.contains(&name))?;
    remove_records(path)
}

/// The manifest stays, for it tells of every start. So do checkpoints; they are damaged, but may be of use to someone
fn restart(path: &Path) -> Result<()> {
    remove_matching(path, |name| name == names::SUMMARY)?;
    set_aside(checkpoints(path)?)?;
    remove_matching(path, |name| name == names::METRICS)?;
    remove_records(path)
}

fn remove_records(path: &Path) -> Result<()> {
    remove_matching(&path.join(names::COMPLETIONS), |name| names::completions_step(name).is_some())?;
    remove_matching(&path.join(names::EVENTS), names::is_events)
}

/// Takes back what the earlier start did after `step`. Every stage may be repeated, and a kill between two of them
/// leaves a folder that resumes: checkpoints go first, lest one is taken up later whose metrics are gone
fn cut_back(path: &Path, step: u64) -> Result<()> {
    remove_matching(path, |name| name == names::SUMMARY)?;
    set_aside(checkpoints(path)?.into_iter().filter(|(at, _)| *at > step))?;
    metrics::truncate_after(&path.join(names::METRICS), step)?;
    remove_matching(&path.join(names::COMPLETIONS), |name| names::completions_step(name).is_some_and(|at| at > step))
}

fn set_aside(checkpoints: impl IntoIterator<Item = (u64, PathBuf)>) -> Result<()> {
    for (_, path) in checkpoints {
        let aside = checkpoint::set_aside(&path)?;
        warn!("`{}` is not part of the resumed run; kept as `{}`", path.display(), aside.display());
    }
    Ok(())
}

fn remove_matching(folder: &Path, matches: impl Fn(&str) -> bool) -> Result<()> {
    for name in entries(folder)?.iter().filter(|name| matches(name)) {
        let path = folder.join(name);
        fs::remove_file(&path).map_err(|cause| Error::run(format!("cannot remove `{}`: {cause}", path.display())))?;
    }
    Ok(())
}
