//! Nothing half-written under a final name: write beside, fsync, rename, fsync the folder.
//!
//! The partial file or folder is called `NAME.partial-XXXXXX`; what a killed process leaves under such a name is
//! removed when the next run opens the folder ([`remove_leftovers`]).

use std::error::Error as StdError;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::{self, BufWriter, ErrorKind, Write};
use std::path::{Path, PathBuf};

use tempfile::{Builder, TempDir};

use crate::error::{Error, Result};

/// What stands between a name and the random end of its partial version
const PARTIAL: &str = ".partial-";

/// Replaces `path` by what `fill` writes, or leaves it untouched
pub fn write_atomic<F>(path: &Path, fill: F) -> Result<()>
where
    F: FnOnce(&mut BufWriter<File>) -> io::Result<()>,
{
    replace(path, fill).map_err(|cause| write_error(path, &cause, None))
}

/// Replaces `path` by `bytes`, or leaves it untouched
pub fn write_bytes(path: &Path, bytes: &[u8]) -> Result<()> {
    replace(path, |writer| writer.write_all(bytes)).map_err(|cause| write_error(path, &cause, Some(bytes.len() as u64)))
}

fn replace<F>(path: &Path, fill: F) -> io::Result<()>
where
    F: FnOnce(&mut BufWriter<File>) -> io::Result<()>,
{
    let folder = parent(path);
    let prefix = partial_prefix(path)?;
    let mut builder = Builder::new();
    builder.prefix(&prefix);
    // A temporary file is private by default; a result of a run follows the umask like any other file
    #[cfg(unix)]
    builder.permissions(<fs::Permissions as std::os::unix::fs::PermissionsExt>::from_mode(0o666));
    let partial = builder.tempfile_in(folder)?;
    let mut writer = BufWriter::with_capacity(1 << 16, partial.as_file().try_clone()?);
    fill(&mut writer)?;
    writer.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()?;
    partial.persist(path).map_err(|e| e.error)?;
    sync_folder(folder)
}

/// A folder that appears under its final name only when everything in it is complete and on disk.
/// Dropped before [`PartialFolder::publish`], it is removed with all that is in it.
#[derive(Debug)]
pub struct PartialFolder {
    partial: TempDir,
    target: PathBuf,
}

impl PartialFolder {
    /// An empty folder beside `target`
    pub fn create(target: &Path) -> Result<Self> {
        let create = || {
            let prefix = partial_prefix(target)?;
            let mut builder = Builder::new();
            builder.prefix(&prefix);
            #[cfg(unix)]
            builder.permissions(<fs::Permissions as std::os::unix::fs::PermissionsExt>::from_mode(0o777));
            builder.tempdir_in(parent(target))
        };
        let partial = create().map_err(|cause| write_error(target, &cause, None))?;
        Ok(Self { partial, target: target.to_path_buf() })
    }

    /// Where to write
    pub fn path(&self) -> &Path {
        self.partial.path()
    }

    /// Syncs every file to disk and gives the folder its final name, which must be free
    pub fn publish(self) -> Result<()> {
        let target = self.target.clone();
        self.sync_and_rename().map_err(|cause| write_error(&target, &cause, None))
    }

    /// Syncs every file to disk and moves each into `folder` under its own name, replacing what is there
    pub fn publish_files(self, folder: &Path) -> Result<()> {
        let publish = || -> io::Result<()> {
            sync_tree(self.partial.path())?;
            for entry in fs::read_dir(self.partial.path())? {
                let entry = entry?;
                fs::rename(entry.path(), folder.join(entry.file_name()))?;
            }
            sync_folder(folder)
        };
        publish().map_err(|cause| write_error(folder, &cause, None))
    }

    fn sync_and_rename(mut self) -> io::Result<()> {
        sync_tree(self.partial.path())?;
        fs::rename(self.partial.path(), &self.target)?;
        self.partial.disable_cleanup(true);
        sync_folder(parent(&self.target))
    }
}

/// Removes a folder so that a kill in the middle leaves no half of it under its name
pub fn remove_folder(path: &Path) -> Result<()> {
    let remove = || {
        // An empty placeholder reserves the random name; renaming a folder onto an empty one is allowed
        let doomed = Builder::new().prefix(&partial_prefix(path)?).tempdir_in(parent(path))?;
        fs::rename(path, doomed.path())?;
        doomed.close()
    };
    remove().map_err(|cause: io::Error| {
        Error::run(format!("cannot remove `{}`: {cause}", path.display())).hint("remove it by hand, then start again")
    })
}

/// Removes what killed runs left in `folder` of those names for which `ours` holds
pub fn remove_leftovers(folder: &Path, ours: impl Fn(&str) -> bool) -> Result<()> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(cause) if cause.kind() == ErrorKind::NotFound => return Ok(()),
        Err(cause) => return Err(Error::read(folder, cause)),
    };
    for entry in entries {
        let entry = entry.map_err(|cause| Error::read(folder, cause))?;
        let name = entry.file_name();
        let Some(final_name) = leftover_of(&name) else { continue };
        if !ours(final_name) {
            continue;
        }
        let path = entry.path();
        let is_folder = entry.file_type().is_ok_and(|kind| kind.is_dir());
        let removed = if is_folder { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
        removed.map_err(|cause| Error::run(format!("cannot remove the leftover `{}`: {cause}", path.display())))?;
    }
    Ok(())
}

/// The final name of which `name` is a partial version
fn leftover_of(name: &OsStr) -> Option<&str> {
    let (final_name, random) = name.to_str()?.rsplit_once(PARTIAL)?;
    let is_random = random.len() == 6 && random.bytes().all(|b| b.is_ascii_alphanumeric());
    (is_random && !final_name.is_empty()).then_some(final_name)
}

/// [`Error::write`] with a hint where the cause is a full disk, however deep it lies
pub fn write_error(path: &Path, cause: &(dyn StdError + 'static), needed: Option<u64>) -> Error {
    let error = Error::write(path, cause);
    match storage_problem(cause) {
        Some(ErrorKind::StorageFull) => {
            let amount = needed.map_or_else(String::new, |bytes| format!(" ({} are needed here)", readable(bytes)));
            error.hint(format!("the disk is full: free some space{amount}, then resume with `resume_from_checkpoint`"))
        }
        Some(ErrorKind::QuotaExceeded) => error.hint("the disk quota is used up: free some space or raise the quota"),
        Some(ErrorKind::FileTooLarge) => error.hint("the file system or `ulimit -f` allows no file of this size"),
        Some(ErrorKind::PermissionDenied) => error.hint("choose an `output_dir` that this user may write to"),
        Some(ErrorKind::ReadOnlyFilesystem) => error.hint("the file system is read-only: choose another `output_dir`"),
        _ => error,
    }
}

/// The kind of the first I/O error in the chain of causes
fn storage_problem(cause: &(dyn StdError + 'static)) -> Option<ErrorKind> {
    let mut next = Some(cause);
    while let Some(current) = next {
        if let Some(io) = current.downcast_ref::<io::Error>() {
            match (io.kind(), io.get_ref()) {
                // `io::Error::other(e)` hides the real one inside
                (ErrorKind::Other, Some(inner)) => return storage_problem(inner),
                (kind, _) => return Some(kind),
            }
        }
        next = current.source();
    }
    None
}

fn readable(bytes: u64) -> String {
    match bytes {
        0..10_000 => format!("{bytes} bytes"),
        10_000..10_000_000 => format!("{:.0} kB", bytes as f64 / 1e3),
        _ => format!("{:.0} MB", bytes as f64 / 1e6),
    }
}

fn parent(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

fn partial_prefix(path: &Path) -> io::Result<OsString> {
    let name = path.file_name().ok_or_else(|| io::Error::new(ErrorKind::InvalidInput, "not the name of a file"))?;
    let mut prefix = name.to_os_string();
    prefix.push(PARTIAL);
    Ok(prefix)
}

fn sync_tree(folder: &Path) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            sync_tree(&entry.path())?;
        } else {
            File::open(entry.path())?.sync_all()?;
        }
    }
    sync_folder(folder)
}

fn sync_folder(folder: &Path) -> io::Result<()> {
    if cfg!(unix) { File::open(folder)?.sync_all() } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names_in(folder: &Path) -> Vec<String> {
        fs::read_dir(folder).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect()
    }

    #[test]
    fn a_failed_write_leaves_the_old_file_and_no_other() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        write_bytes(&path, b"old").unwrap();
        let error = write_atomic(&path, |writer| {
            writer.write_all(&vec![1; 1 << 20])?;
            Err(io::Error::from(ErrorKind::StorageFull))
        })
        .unwrap_err();
        assert_eq!(error.exit_code(), 1);
        assert!(error.hint_text().unwrap().contains("disk is full"));
        assert_eq!(fs::read(&path).unwrap(), b"old");
        assert_eq!(names_in(folder.path()), ["file"]);
    }

    #[test]
    fn a_full_disk_is_recognised_inside_other_errors() {
        let full = io::Error::from(ErrorKind::StorageFull);
        let wrapped = io::Error::other(safetensors::SafeTensorError::IoError(full));
        let error = write_error(Path::new("x"), &wrapped, Some(2_500_000_000));
        assert!(error.hint_text().unwrap().contains("2500 MB are needed"), "{error}");
        assert_eq!(write_error(Path::new("x"), &io::Error::other("cause"), None).hint_text(), None);
    }

    #[cfg(unix)]
    #[test]
    fn files_and_folders_follow_the_umask() {
        use std::os::unix::fs::PermissionsExt;
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        File::create(at("plain")).unwrap();
        fs::create_dir(at("plain-folder")).unwrap();
        write_bytes(&at("file"), b"").unwrap();
        PartialFolder::create(&at("folder")).unwrap().publish().unwrap();
        assert_eq!(mode(&at("file")), mode(&at("plain")));
        assert_eq!(mode(&at("folder")), mode(&at("plain-folder")));
    }

    #[test]
    fn a_partial_folder_appears_whole_or_not_at_all() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("checkpoint-1");
        let dropped = PartialFolder::create(&target).unwrap();
        fs::write(dropped.path().join("model"), "half").unwrap();
        drop(dropped);
        assert!(names_in(folder.path()).is_empty());

        let kept = PartialFolder::create(&target).unwrap();
        fs::create_dir(kept.path().join("inner")).unwrap();
        fs::write(kept.path().join("inner/model"), "whole").unwrap();
        assert!(!target.exists());
        kept.publish().unwrap();
        assert_eq!(names_in(folder.path()), ["checkpoint-1"]);
        assert_eq!(fs::read(target.join("inner/model")).unwrap(), b"whole");
        remove_folder(&target).unwrap();
        assert!(names_in(folder.path()).is_empty());
    }

    #[test]
    fn only_own_leftovers_go() {
        let folder = tempfile::tempdir().unwrap();
        let kept = ["notes.partial-abcdef", "metrics.jsonl.partial-draft", "metrics.jsonl", ".partial-abcdef"];
        for name in kept.iter().chain(&["metrics.jsonl.partial-Ab3xYz"]) {
            fs::write(folder.path().join(name), "").unwrap();
        }
        fs::create_dir_all(folder.path().join("checkpoint-3.partial-000000/model")).unwrap();
        remove_leftovers(folder.path(), |name| name.starts_with("checkpoint-") || name == "metrics.jsonl").unwrap();
        let mut left = names_in(folder.path());
        left.sort();
        let mut expected = kept.to_vec();
        expected.sort_unstable();
        assert_eq!(left, expected);
        remove_leftovers(&folder.path().join("absent"), |_| true).unwrap();
    }
}
