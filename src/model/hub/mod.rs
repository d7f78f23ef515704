//! Models and datasets by name: a folder on this disk, the cache that Python's `huggingface_hub` shares, or the Hub.

mod cache;
mod client;
mod dataset_files;
mod download;
mod failure;
mod glob;
mod model_files;
mod name;
mod settings;

use std::path::{Path, PathBuf};

use hf_hub::api::RepoInfo;

use cache::RepoCache;
use client::Client;
use failure::{Attempt, Failure};
use name::{Kind, Target};
pub use settings::Settings;

use crate::model::config::CONFIG_FILE;
use crate::{Error, Result};

/// Access to models and datasets by name
pub struct Hub {
    settings: Settings,
    client: Client,
}

/// One data file and the split it belongs to
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DataFile {
    /// `train`, `test`, or whatever the dataset calls it
    pub split: String,
    /// Where the file lies on this disk
    pub path: PathBuf,
}

/// What a function that picks files needs: the name of the place, its files, and how to get at one
type Pick<'a, T> = dyn Fn(&str, &[String], &mut model_files::Fetch) -> Attempt<T> + 'a;

impl Hub {
    /// With the settings of the environment; `offline` forbids requests
    pub fn from_env(offline: bool) -> Result<Self> {
        Self::new(Settings::from_env(offline)?)
    }

    /// With these settings
    pub fn new(settings: Settings) -> Result<Self> {
        Ok(Self { client: Client::new(&settings)?, settings })
    }

    /// The settings in force
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// The folder that holds configuration, tokenizer and weights of a model
    pub fn model(&self, name_or_path: &str, revision: Option<&str>) -> Result<PathBuf> {
        if let Some(folder) = local_model(name_or_path)? {
            return Ok(folder);
        }
        let target = Target::new(Kind::Model, name_or_path, revision)?;
        let (folder, ()) =
            self.gather(&target, &|place, listed, fetch| model_files::fetch_model(place, listed, fetch))?;
        Ok(folder)
    }

    /// The folder that holds the tokenizer of a model; weights are not fetched
    pub fn tokenizer(&self, name_or_path: &str, revision: Option<&str>) -> Result<PathBuf> {
        if let Some(folder) = name::local_path(Kind::Model, name_or_path)? {
            return Ok(folder);
        }
        let target = Target::new(Kind::Model, name_or_path, revision)?;
        let (folder, ()) = self.gather(&target, &|_, listed, fetch| model_files::fetch_tokenizer(listed, fetch))?;
        Ok(folder)
    }

    /// The file, or the folder that holds the files, of a dataset
    pub fn dataset(&self, name_or_path: &str, revision: Option<&str>, config: Option<&str>) -> Result<PathBuf> {
        if let Some(path) = name::local_path(Kind::Dataset, name_or_path)? {
            return Ok(path);
        }
        Ok(self.remote_dataset(name_or_path, revision, config, &[])?.0)
    }

    /// The file or folder on this disk that a dataset's name means; None for a name on the Hub
    pub fn local_dataset(&self, name_or_path: &str) -> Result<Option<PathBuf>> {
        name::local_path(Kind::Dataset, name_or_path)
    }

    /// The splits of a dataset on the Hub, in its own order; no data is fetched
    pub fn dataset_splits(&self, name: &str, revision: Option<&str>, config: Option<&str>) -> Result<Vec<String>> {
        let target = Target::new(Kind::Dataset, name, revision)?;
        let (_, chosen) =
            self.gather(&target, &|place, listed, fetch| choose_data_files(place, listed, config, fetch))?;
        let mut splits: Vec<String> = Vec::new();
        for (split, _) in chosen {
            if !splits.contains(&split) {
                splits.push(split);
            }
        }
        Ok(splits)
    }

    /// The data files of a dataset by split, splits in the order in which the dataset names them.
    ///
    /// `config` picks one of the configurations of the dataset's card (or a folder of it). Only the splits named in
    /// `splits` are fetched; an empty list means all. A single local file is the split `train`.
    pub fn dataset_files(
        &self,
        name_or_path: &str,
        revision: Option<&str>,
        config: Option<&str>,
        splits: &[&str],
    ) -> Result<Vec<DataFile>> {
        let Some(path) = name::local_path(Kind::Dataset, name_or_path)? else {
            return Ok(self.remote_dataset(name_or_path, revision, config, splits)?.1);
        };
        if path.is_file() {
            return Ok(vec![DataFile { split: "train".to_owned(), path }]);
        }
        let place = format!("`{name_or_path}`");
        let listed = cache::list_files(&path)?;
        let mut fetch = |file: &str| Ok(path.join(file));
        pick_data_files(&place, &listed, config, splits, &mut fetch).map_err(|failure| match failure {
            Failure::Other(error) => error,
            other => Error::run(other.summary()),
        })
    }

    fn remote_dataset(
        &self,
        name: &str,
        revision: Option<&str>,
        config: Option<&str>,
        splits: &[&str],
    ) -> Result<(PathBuf, Vec<DataFile>)> {
        let target = Target::new(Kind::Dataset, name, revision)?;
        self.gather(&target, &|place, listed, fetch| pick_data_files(place, listed, config, splits, fetch))
    }

    /// Picks files of a repository, from the Hub or, without it, from the cache
    fn gather<T>(&self, target: &Target, pick: &Pick<T>) -> Result<(PathBuf, T)> {
        let repo_cache = RepoCache::new(&self.settings.cache, target);
        if self.settings.offline {
            return match self.look_in_cache(target, &repo_cache, pick) {
                Some(found) => found,
                None => Err(Error::usage(format!(
                    "{} `{}` at revision `{}` is not in the cache `{}`",
                    target.kind.noun(),
                    target.name,
                    target.revision,
                    self.settings.cache.display()
                ))
                .hint(match cache::nearest_name(&self.settings.cache, target) {
                    Some(near) => format!("did you mean `{near}`? Otherwise run once without `--offline`"),
                    None => "run once without `--offline` (and without HF_HUB_OFFLINE)".to_owned(),
                })),
            };
        }
        match self.ask_hub(target, &repo_cache, pick) {
            Ok(found) => Ok(found),
            Err((failure, file)) => {
                // What was there last time serves while the Hub does not answer, as in Python's client
                if failure.is_network()
                    && let Some(Ok(found)) = self.look_in_cache(target, &repo_cache, pick)
                {
                    tracing::warn!(
                        name = target.name,
                        cause = failure.summary(),
                        "the Hub does not answer; taking what is in the cache"
                    );
                    return Ok(found);
                }
                Err(failure.into_error(target, file.as_deref(), &self.settings))
            }
        }
    }

    /// The failure comes with the file it was about
    fn ask_hub<T>(
        &self,
        target: &Target,
        repo_cache: &RepoCache,
        pick: &Pick<T>,
    ) -> std::result::Result<(PathBuf, T), (Failure, Option<String>)> {
        let RepoInfo { siblings, sha: commit } = self.client.list(target).map_err(|failure| (failure, None))?;
        if !name::is_commit(&commit) {
            let error = Error::run(format!("{} sent `{commit}` for a commit hash", self.settings.endpoint));
            return Err((error.hint("check HF_ENDPOINT: this does not answer like a Hub").into(), None));
        }
        let listed: Vec<String> = siblings.into_iter().map(|file| file.rfilename).collect();
        let place = format!("{} `{}`", target.kind.noun(), target.name);
        let mut current = None;
        let mut fetch = |file: &str| {
            current = Some(file.to_owned());
            let path = download::fetch(&self.client, repo_cache, target, &commit, file)?;
            current = None;
            Ok(path)
        };
        let picked = pick(&place, &listed, &mut fetch);
        let picked = picked.map_err(|failure| (failure, current))?;
        repo_cache.write_ref(&target.revision, &commit).map_err(|error| (error.into(), None))?;
        Ok((repo_cache.snapshot_of(&commit), picked))
    }

    /// None where the revision is not in the cache at all
    fn look_in_cache<T>(
        &self,
        target: &Target,
        repo_cache: &RepoCache,
        pick: &Pick<T>,
    ) -> Option<Result<(PathBuf, T)>> {
        let snapshot = repo_cache.snapshot(&target.revision)?;
        let place = format!("the cached copy of {} `{}`", target.kind.noun(), target.name);
        let mut fetch = |file: &str| {
            let path = snapshot.join(file);
            if path.exists() {
                Ok(path)
            } else {
                Err(Error::usage(format!("{place} has no `{file}`"))
                    .hint("run once without `--offline` to fetch what is missing")
                    .into())
            }
        };
        let picked = cache::list_files(&snapshot)
            .map_err(Failure::from)
            .and_then(|listed| pick(&place, &listed, &mut fetch))
            .map_err(|failure| failure.into_error(target, None, &self.settings));
        Some(picked.map(|picked| (snapshot, picked)))
    }
}

/// The local folder that is meant, or None for a repository name
fn local_model(name: &str) -> Result<Option<PathBuf>> {
    let Some(path) = name::local_path(Kind::Model, name)? else { return Ok(None) };
    if path.join(CONFIG_FILE).is_file() {
        return Ok(Some(path));
    }
    if !path.is_dir() {
        return Err(Error::usage(format!("`{name}` is a file, expected the folder of a model"))
            .hint("a model folder holds `config.json`, weights and tokenizer files"));
    }
    let error = Error::usage(format!("the folder `{name}` holds no model: it has no `{CONFIG_FILE}`"));
    Err(match newest_checkpoint(&path) {
        Some(checkpoint) => error.hint(format!("did you mean `{}`?", checkpoint.display())),
        None => error.hint("if a model on the Hub is meant, run from another folder or rename this one"),
    })
}

/// `checkpoint-N` with the greatest N
fn newest_checkpoint(folder: &Path) -> Option<PathBuf> {
    let step = |path: &PathBuf| path.file_name()?.to_str()?.strip_prefix("checkpoint-")?.parse::<u64>().ok();
    let entries = std::fs::read_dir(folder).ok()?.flatten().map(|entry| entry.path());
    entries.filter_map(|path| Some((step(&path)?, path))).max().map(|(_, path)| path)
}

/// (split, file) for each data file
fn choose_data_files(
    place: &str,
    listed: &[String],
    config: Option<&str>,
    fetch: &mut model_files::Fetch,
) -> Attempt<Vec<(String, String)>> {
    let card = if listed.iter().any(|file| file == dataset_files::CARD) {
        let path = fetch(dataset_files::CARD)?;
        Some(std::fs::read_to_string(&path).map_err(|cause| Error::read(&path, cause))?)
    } else {
        None
    };
    Ok(dataset_files::select(place, listed, card.as_deref(), config)?)
}

fn pick_data_files(
    place: &str,
    listed: &[String],
    config: Option<&str>,
    splits: &[&str],
    fetch: &mut model_files::Fetch,
) -> Attempt<Vec<DataFile>> {
    let chosen = choose_data_files(place, listed, config, fetch)?;
    if let Some(unknown) = splits.iter().find(|split| !chosen.iter().any(|(known, _)| known == *split)) {
        let mut known: Vec<_> = chosen.iter().map(|(split, _)| format!("`{split}`")).collect();
        known.dedup();
        let error = Error::usage(format!("{place} has no split `{unknown}`"));
        return Err(error.hint(format!("one of {}", known.join(", "))).into());
    }
    chosen
        .into_iter()
        .filter(|(split, _)| splits.is_empty() || splits.contains(&split.as_str()))
        .map(|(split, file)| Ok(DataFile { split, path: fetch(&file)? }))
        .collect()
}
