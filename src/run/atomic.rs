//! Folders that appear whole and go whole: write beside, fsync, rename, fsync the folder above.
//!
//! What a killed process leaves under a partial name is removed when the next run opens the folder
//! ([`remove_leftovers`]).

use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use tempfile::{Builder, TempDir};

use crate::error::{Error, Result};
use crate::files::{leftover_of, parent, partial_builder, partial_prefix, sync_folder, write_error};

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
            partial_builder(&prefix, 0o777).tempdir_in(parent(target))
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

#[cfg(test)]
mod tests {
    use super::*;

    fn names_in(folder: &Path) -> Vec<String> {
        fs::read_dir(folder).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect()
    }

    #[cfg(unix)]
    #[test]
    fn folders_follow_the_umask() {
        use std::os::unix::fs::PermissionsExt;
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::create_dir(at("plain")).unwrap();
        PartialFolder::create(&at("ours")).unwrap().publish().unwrap();
        assert_eq!(mode(&at("ours")), mode(&at("plain")));
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
