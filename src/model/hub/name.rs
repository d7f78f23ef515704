//! What a `name_or_path` means: something on this disk, or a repository on the Hub.

use std::path::{Path, PathBuf};

use hf_hub::{Repo, RepoType};

use super::settings::expand_home;
use crate::{Error, Result};

/// Model or dataset
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Model,
    Dataset,
}

impl Kind {
    pub fn noun(self) -> &'static str {
        match self {
            Self::Model => "model",
            Self::Dataset => "dataset",
        }
    }

    fn repo_type(self) -> RepoType {
        match self {
            Self::Model => RepoType::Model,
            Self::Dataset => RepoType::Dataset,
        }
    }
}

/// One revision of one repository
#[derive(Debug, Clone)]
pub(super) struct Target {
    pub kind: Kind,
    pub name: String,
    pub revision: String,
}

impl Target {
    pub fn new(kind: Kind, name: &str, revision: Option<&str>) -> Result<Self> {
        check_name(kind, name)?;
        let revision = revision.unwrap_or("main");
        // A revision becomes a path below `refs` and part of an address
        let is_plain = !revision.is_empty()
            && !revision.split('/').any(|part| part.is_empty() || part.starts_with('.'))
            && revision.bytes().all(|byte| byte.is_ascii_graphic() && !b"?#%\\".contains(&byte));
        if !is_plain {
            return Err(Error::usage(format!("`{revision}` is not a revision"))
                .hint("a revision is a branch, a tag or a full commit hash"));
        }
        Ok(Self { kind, name: name.to_owned(), revision: revision.to_owned() })
    }

    /// The same repository, at `revision`, in the terms of the hf-hub crate
    pub fn repo_at(&self, revision: &str) -> Repo {
        Repo::with_revision(self.name.clone(), self.kind.repo_type(), revision.to_owned())
    }
}

/// Whether the revision names a commit, which can never come to mean anything else
pub(super) fn is_commit(revision: &str) -> bool {
    revision.len() == 40 && revision.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// The local path that is meant, or None for a repository name
pub(super) fn local_path(kind: Kind, name: &str) -> Result<Option<PathBuf>> {
    if name.trim().is_empty() {
        return Err(Error::usage(format!("the name of the {} is empty", kind.noun())));
    }
    let home = std::env::var_os("HOME").map(PathBuf::from);
    let path = expand_home(name, home.as_deref());
    if path.exists() {
        return Ok(Some(path));
    }
    if path.is_symlink() {
        let target = std::fs::read_link(&path).map_err(|cause| Error::read(&path, cause))?;
        return Err(Error::usage(format!("`{name}` is a link to `{}`, which does not exist", target.display())));
    }
    if looks_local(name) {
        return Err(Error::usage(format!("`{name}` does not exist")).hint(nearest_hint(&path)));
    }
    Ok(None)
}

fn looks_local(name: &str) -> bool {
    const EXTENSIONS: [&str; 11] =
        [".json", ".jsonl", ".csv", ".tsv", ".parquet", ".gz", ".txt", ".yaml", ".arrow", ".safetensors", ".bin"];
    name.starts_with(['.', '/', '~', '\\'])
        || name.ends_with('/')
        || name.matches('/').count() > 1
        || EXTENSIONS.iter().any(|extension| name.ends_with(extension))
}

/// The entry of the same folder that is spelled most like the one that is not there
fn nearest_hint(path: &Path) -> String {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if !folder.is_dir() {
        return format!("the folder `{}` does not exist either", folder.display());
    }
    let wanted = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let names = std::fs::read_dir(folder)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned());
    match nearest(&wanted, names) {
        Some(near) => format!("did you mean `{}`?", folder.join(near).display()),
        None => "a name on the Hub has the form `organisation/name`; a path must exist".to_owned(),
    }
}

/// The candidate most like `wanted`, if one is alike at all
pub(super) fn nearest(wanted: &str, candidates: impl Iterator<Item = String>) -> Option<String> {
    candidates
        .map(|candidate| (strsim::jaro_winkler(wanted, &candidate), candidate))
        .filter(|(similarity, _)| *similarity > 0.8)
        // The first in name order among equals, so that a message does not depend on the order of a folder
        .max_by(|a, b| a.0.total_cmp(&b.0).then_with(|| b.1.cmp(&a.1)))
        .map(|(_, candidate)| candidate)
}

fn check_name(kind: Kind, name: &str) -> Result<()> {
    let parts: Vec<_> = name.split('/').collect();
    let is_part = |part: &&str| {
        !part.is_empty()
            && part.len() <= 96
            && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte))
            && !part.starts_with(['-', '.'])
            && !part.ends_with(['-', '.'])
            && !part.contains("--")
            && !part.contains("..")
    };
    if parts.len() <= 2 && parts.iter().all(is_part) {
        return Ok(());
    }
    Err(Error::usage(format!("`{name}` is neither a path that exists nor the name of a {} on the Hub", kind.noun()))
        .hint("a name on the Hub has the form `organisation/name`, with letters, digits, `-`, `.` and `_`"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_paths_are_told_apart() {
        for name in ["gpt2", "openai-community/gpt2", "EleutherAI/pythia-1.4b", "a/b_c.d"] {
            assert_eq!(local_path(Kind::Model, name).unwrap(), None, "{name}");
            assert!(Target::new(Kind::Model, name, None).is_ok(), "{name}");
        }
        for path in ["./gpt2", "../x", "/no/such/folder", "~/no-such-model", "data/train.jsonl", "x.json.gz", "a/b/c"] {
            let error = local_path(Kind::Dataset, path).unwrap_err();
            assert_eq!(error.message(), format!("`{path}` does not exist"));
        }
        for name in ["a b", "a--b", "-a", "a/b..c", "ä"] {
            assert!(Target::new(Kind::Model, name, None).is_err(), "{name}");
        }
    }

    #[test]
    fn a_path_that_exists_is_local_whatever_it_looks_like() {
        let folder = tempfile::tempdir().unwrap();
        let name = folder.path().to_str().unwrap();
        assert_eq!(local_path(Kind::Model, name).unwrap().as_deref(), Some(folder.path()));
    }

    #[test]
    fn a_misspelt_file_gets_its_neighbour_suggested() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("train.jsonl"), "").unwrap();
        let error = local_path(Kind::Dataset, folder.path().join("trian.jsonl").to_str().unwrap()).unwrap_err();
        assert!(error.hint_text().unwrap().ends_with("train.jsonl`?"), "{error}");
    }

    #[test]
    fn revisions_cannot_leave_the_cache() {
        for revision in ["main", "v1.0", "refs/pr/1", "refs/convert/parquet"] {
            assert!(Target::new(Kind::Model, "a/b", Some(revision)).is_ok(), "{revision}");
        }
        for revision in ["", "../x", "a//b", "/a", "a b", "a?b", "a/../b"] {
            assert!(Target::new(Kind::Model, "a/b", Some(revision)).is_err(), "{revision}");
        }
    }
}
