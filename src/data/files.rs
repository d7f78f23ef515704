//! Which files of a dataset path belong to a split.

use std::path::{Path, PathBuf};

use super::record::list_names;
use crate::error::{Error, Result};

/// How a data file is read
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FileKind {
    JsonLines,
    Json,
    Csv,
    Parquet,
}

const KNOWN: &str = "known are `.jsonl`, `.json`, `.csv` (each also with `.gz`) and `.parquet`";

impl FileKind {
    /// From the file's name, `None` for other files
    fn of(path: &Path) -> Option<Self> {
        let name = path.file_name()?.to_str()?.to_ascii_lowercase();
        let name = name.strip_suffix(".gz").unwrap_or(&name);
        match Path::new(name).extension()?.to_str()? {
            "jsonl" => Some(Self::JsonLines),
            "json" => Some(Self::Json),
            "csv" => Some(Self::Csv),
            "parquet" => Some(Self::Parquet),
            _ => None,
        }
    }

    /// From the file's name, or an error that says which names are known
    pub(super) fn require(path: &Path) -> Result<Self> {
        Self::of(path).ok_or_else(|| {
            Error::usage(format!("cannot tell the format of `{}` from its name", path.display())).hint(KNOWN)
        })
    }
}

/// Files of a folder by split; the splits in alphabetical order with `train` first
pub(super) struct Folder {
    splits: Vec<(String, Vec<PathBuf>)>,
}

impl Folder {
    /// Looks through `root`, or through its subfolder `config` where one is asked for
    pub(super) fn open(root: &Path, config: Option<&str>) -> Result<Self> {
        let root = match config {
            Some(config) if root.join(config).is_dir() => root.join(config),
            Some(config) => {
                let subfolders = subfolders(root)?;
                return Err(Error::usage(format!("`{}` has no configuration `{config}`", root.display()))
                    .hint(format!("subfolders found: {}", list_names(&subfolders))));
            }
            None => root.to_path_buf(),
        };
        let mut found = Vec::new();
        walk(&root, 0, &mut found)?;
        found.sort();
        if found.is_empty() {
            let arrow = root.join("state.json").exists();
            let hint = if arrow {
                "this is a folder of `save_to_disk` (Arrow); write it with `to_json` or `to_parquet` instead"
            } else {
                KNOWN
            };
            return Err(Error::usage(format!("no data file in `{}`", root.display())).hint(hint));
        }
        let named: Vec<(Option<String>, PathBuf)> =
            found.into_iter().map(|path| (split_of(path.strip_prefix(&root).unwrap_or(&path)), path)).collect();
        // As in `datasets`: once any file carries a split, files without one belong to none
        let any_named = named.iter().any(|(split, _)| split.is_some());
        let mut splits: Vec<(String, Vec<PathBuf>)> = Vec::new();
        for (split, path) in named {
            let split = match split {
                Some(split) => split,
                None if any_named => continue,
                None => "train".to_string(),
            };
            match splits.iter_mut().find(|(name, _)| *name == split) {
                Some((_, files)) => files.push(path),
                None => splits.push((split, vec![path])),
            }
        }
        splits.sort_by(|a, b| (a.0 != "train", &a.0).cmp(&(b.0 != "train", &b.0)));
        Ok(Self { splits })
    }

    /// Names of the splits
    pub(super) fn names(&self) -> Vec<String> {
        self.splits.iter().map(|(name, _)| name.clone()).collect()
    }

    /// The files of one split in order of their names
    pub(super) fn files(mut self, root: &Path, split: &str) -> Result<Vec<PathBuf>> {
        let wanted = canonical(split).unwrap_or(split);
        if let Some(index) = self.splits.iter().position(|(name, _)| name == split || name == wanted) {
            return Ok(self.splits.swap_remove(index).1);
        }
        Err(no_split(root, split, &self.names()))
    }
}

/// The error for a split that is not there
pub(super) fn no_split(path: &Path, split: &str, found: &[String]) -> Error {
    Error::usage(format!("`{}` has no split `{split}`, it has {}", path.display(), list_names(found)))
        .hint("set `dataset_train_split` or `dataset_test_split` to one of these")
}

fn entries(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(|e| Error::read(folder, e))? {
        let path = entry.map_err(|e| Error::read(folder, e))?.path();
        let hidden = path.file_name().and_then(|name| name.to_str()).is_none_or(|name| name.starts_with(['.', '_']));
        if !hidden {
            paths.push(path);
        }
    }
    Ok(paths)
}

fn subfolders(root: &Path) -> Result<Vec<String>> {
    let mut names: Vec<String> = entries(root)?
        .iter()
        .filter(|path| path.is_dir())
        .filter_map(|path| Some(path.file_name()?.to_str()?.to_string()))
        .collect();
    names.sort();
    Ok(names)
}

fn walk(folder: &Path, depth: usize, found: &mut Vec<PathBuf>) -> Result<()> {
    /// Deep enough for `data/<config>/<split>/`, shallow enough to stop in a circle of links
    const MAX_DEPTH: usize = 6;
    // Descriptions of a dataset that are JSON but not data
    const NOT_DATA: [&str; 4] = ["dataset_info.json", "dataset_infos.json", "dataset_dict.json", "state.json"];
    for path in entries(folder)? {
        if path.is_dir() {
            if depth < MAX_DEPTH {
                walk(&path, depth + 1, found)?;
            }
        } else if FileKind::of(&path).is_some()
            && !NOT_DATA.iter().any(|name| path.file_name().is_some_and(|found| found == *name))
        {
            found.push(path);
        }
    }
    Ok(())
}

/// The split that a path inside a dataset folder names: a shard `NAME-00000-of-00003`, a word of a folder's name, a
/// word of the file's name (the order in which `datasets` looks)
fn split_of(relative: &Path) -> Option<String> {
    let file = relative.file_name()?.to_str()?;
    let stem = without_extensions(file);
    if let Some(name) = shard_name(stem) {
        return Some(canonical(name).unwrap_or(name).to_string());
    }
    let folders = relative.parent().into_iter().flat_map(Path::components).filter_map(|part| part.as_os_str().to_str());
    folders.flat_map(words).find_map(canonical).or_else(|| words(stem).find_map(canonical)).map(str::to_string)
}

/// The name without `.gz` and the format's extension; other dots separate words, as in `helpful.test.jsonl.gz`
fn without_extensions(file: &str) -> &str {
    let plain = file.strip_suffix(".gz").unwrap_or(file);
    plain.rsplit_once('.').map_or(plain, |(stem, _)| stem)
}

fn words(name: &str) -> impl Iterator<Item = &str> {
    name.split(|c: char| !c.is_ascii_alphabetic())
}

fn shard_name(stem: &str) -> Option<&str> {
    let (before, after) = stem.split_once("-of-")?;
    let (name, index) = before.rsplit_once('-')?;
    let total = after.split('-').next()?;
    let digits = |text: &str| text.len() == 5 && text.bytes().all(|byte| byte.is_ascii_digit());
    (digits(index) && digits(total) && !name.is_empty()).then_some(name)
}

/// The usual name of a split for the words that `datasets` takes for it
fn canonical(word: &str) -> Option<&'static str> {
    match word {
        "train" | "training" => Some("train"),
        "validation" | "valid" | "val" | "dev" => Some("validation"),
        "test" | "testing" | "eval" | "evaluation" => Some("test"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn splits_are_read_from_names_as_datasets_does() {
        let cases = [
            ("train.jsonl", Some("train")),
            ("data/train-00000-of-00003.parquet", Some("train")),
            ("data/train_prefs-00000-of-00001-abc.parquet", Some("train_prefs")),
            ("helpful/test.jsonl.gz", Some("test")),
            ("validation/part1.csv", Some("validation")),
            ("harmless-base.test.jsonl.gz", Some("test")),
            ("my_dev_2.json", Some("validation")),
            ("constraints.jsonl", None),
            ("pairs.jsonl", None),
        ];
        for (path, split) in cases {
            assert_eq!(split_of(Path::new(path)).as_deref(), split, "{path}");
        }
    }
}
