//! The cache on disk, in the layout that Python's `huggingface_hub` shares.
//!
//! ```text
//! models--org--name/
//!   refs/main                  the commit that `main` meant last time
//!   blobs/ETAG                 the files
//!   snapshots/COMMIT/FILE      relative links to the blobs
//! ```

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Component, Path, PathBuf};

use hf_hub::{Cache, CacheRepo};

use super::name::{Kind, Target, is_commit, nearest};
use crate::files;
use crate::{Error, Result};

/// One repository's part of the cache
pub(super) struct RepoCache {
    root: PathBuf,
    folder_name: String,
    repo: CacheRepo,
}

impl RepoCache {
    pub fn new(root: &Path, target: &Target) -> Self {
        let repo = target.repo_at(&target.revision);
        Self { root: root.to_owned(), folder_name: repo.folder_name(), repo: Cache::new(root.to_owned()).repo(repo) }
    }

    fn folder(&self) -> PathBuf {
        self.root.join(&self.folder_name)
    }

    /// The folder of this revision, as far as it was fetched
    pub fn snapshot(&self, revision: &str) -> Option<PathBuf> {
        let commit = if is_commit(revision) {
            revision.to_owned()
        } else {
            let text = fs::read_to_string(self.folder().join("refs").join(revision)).ok()?;
            text.trim().to_owned()
        };
        // A damaged ref must not name some other folder
        let is_plain = !commit.is_empty() && commit.bytes().all(|byte| byte.is_ascii_alphanumeric());
        let snapshot = self.snapshot_of(&commit);
        (is_plain && snapshot.is_dir()).then_some(snapshot)
    }

    pub fn snapshot_of(&self, commit: &str) -> PathBuf {
        self.repo.pointer_path(commit)
    }

    pub fn blob(&self, etag: &str) -> PathBuf {
        self.repo.blob_path(etag)
    }

    /// Notes what a branch or tag means; last of all, so that a ref never points at files still to come
    pub fn write_ref(&self, revision: &str, commit: &str) -> Result<()> {
        let path = self.folder().join("refs").join(revision);
        // An unchanged ref is left alone: the cache may be readable only
        if revision == commit || fs::read_to_string(&path).is_ok_and(|text| text.trim() == commit) {
            return Ok(());
        }
        files::write_bytes(&path, commit.as_bytes())
    }

    /// Waits until no other process, Python's included, downloads the same blob
    pub fn lock(&self, etag: &str) -> Result<File> {
        let folder = self.root.join(".locks").join(&self.folder_name);
        let path = folder.join(format!("{etag}.lock"));
        let lock = || -> io::Result<File> {
            fs::create_dir_all(&folder)?;
            let file = File::options().create(true).write(true).truncate(false).open(&path)?;
            if file.try_lock().is_err() {
                tracing::info!(lock = %path.display(), "waiting for another download of the same file");
                file.lock()?;
            }
            Ok(file)
        };
        lock().map_err(|cause| Error::write(&path, cause))
    }

    /// Lets `file` of the snapshot point at a blob
    pub fn link(&self, commit: &str, file: &str, etag: &str) -> Result<PathBuf> {
        let pointer = self.snapshot_of(commit).join(file);
        if pointer.exists() {
            return Ok(pointer);
        }
        let link = || -> io::Result<()> {
            if let Some(parent) = pointer.parent() {
                fs::create_dir_all(parent)?;
            }
            // From the folder of the file: out of its own folders, then out of `snapshots/COMMIT`
            let depth = Path::new(file).components().count() - 1;
            let blob: PathBuf = std::iter::repeat_n("..", depth + 2).chain(["blobs", etag]).collect();
            // A link to a blob that was deleted
            if pointer.symlink_metadata().is_ok() {
                fs::remove_file(&pointer)?;
            }
            match symlink(&blob, &pointer) {
                Err(cause) if cause.kind() == io::ErrorKind::AlreadyExists && pointer.exists() => Ok(()),
                linked => linked,
            }
        };
        link().map_err(|cause| Error::write(&pointer, cause))?;
        Ok(pointer)
    }
}

/// Files below `folder`, as `/`-separated paths relative to it, in name order; links count as what they lead to.
pub(super) fn list_files(folder: &Path) -> Result<Vec<String>> {
    let mut found = Vec::new();
    let mut pending = vec![PathBuf::new()];
    while let Some(relative) = pending.pop() {
        let here = folder.join(&relative);
        for entry in fs::read_dir(&here).map_err(|cause| Error::read(&here, cause))? {
            let name = entry.map_err(|cause| Error::read(&here, cause))?.file_name();
            let path = relative.join(&name);
            let is_hidden = name.to_string_lossy().starts_with('.');
            match fs::metadata(folder.join(&path)) {
                // A linked folder may lead back to this one
                Ok(meta) if meta.is_dir() && !is_hidden && !folder.join(&path).is_symlink() => pending.push(path),
                Ok(meta) if meta.is_file() => found.extend(path.to_str().map(str::to_owned)),
                _ => {}
            }
        }
    }
    found.sort();
    Ok(found)
}

/// Whether a path from elsewhere stays inside the folder it is put into
pub(super) fn is_inside(file: &str) -> bool {
    !file.is_empty()
        && !file.contains('\\')
        && Path::new(file).components().all(|part| matches!(part, Component::Normal(_)))
}

/// The repository in the cache whose name is most like the one that is asked for
pub(super) fn nearest_name(root: &Path, target: &Target) -> Option<String> {
    let prefix = match target.kind {
        Kind::Model => "models--",
        Kind::Dataset => "datasets--",
    };
    let names = fs::read_dir(root)
        .ok()?
        .flatten()
        .filter_map(|entry| Some(entry.file_name().to_str()?.strip_prefix(prefix)?.replace("--", "/")));
    nearest(&target.name, names.filter(|name| *name != target.name))
}
