//! The rows of a run, as its keys name them: one dataset, a mixture, or the part of either that is held out.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::config::{DatasetPart, Strategy, TrainKeys};
use crate::data::{Dataset, Located, ReadOptions, locate, mix, split_names, splits};
use crate::model::hub::Hub;
use crate::{Error, Result};

/// Names of `load_dataset` for files that are given one by one
const FORMATS: [&str; 3] = ["csv", "json", "parquet"];

/// Rows that were found and are not read yet
pub struct Rows {
    parts: Vec<Part>,
    /// Found column → expected column
    columns: BTreeMap<String, String>,
    held_out: Option<HeldOut>,
}

struct Part {
    located: Located,
    /// Columns that are kept; all where empty
    columns: Vec<String>,
    fraction: Option<f64>,
}

/// Which side of a split made here
#[derive(Debug)]
struct HeldOut {
    size: f64,
    seed: u64,
    /// The rows held out, or those that stay
    test: bool,
}

impl Rows {
    /// The rows to train on
    pub fn train(hub: &Hub, keys: &TrainKeys) -> Result<Self> {
        Self::of(hub, keys, false)
    }

    /// The rows to evaluate on, where the request evaluates
    pub fn eval(hub: &Hub, keys: &TrainKeys) -> Result<Option<Self>> {
        if keys.eval_strategy == Strategy::No && !keys.eval_on_start {
            return Ok(None);
        }
        let (asked, config) = (&keys.dataset_test_split, keys.dataset_config.as_deref());
        if let Some(name) = &keys.eval_dataset {
            // A dataset named for evaluation alone may be a plain file, whose only split is `train`
            let known = known_splits(hub, name, config)?;
            let found = split_names(asked)?.iter().all(|split| known.contains(split));
            let split = if found || known.len() != 1 { asked } else { &known[0] };
            return Self::single(hub, keys, name, split).map(Some);
        }
        if keys.test_split_size.is_some() {
            return Self::of(hub, keys, true).map(Some);
        }
        if keys.mixture().is_some() {
            return Err(Error::usage("`eval_strategy` needs held-out rows, and `datasets` are all for training")
                .hint("set `test_split_size`, or `eval_dataset`, or `eval_strategy: no`"));
        }
        let name = keys.dataset()?;
        let known = known_splits(hub, name, config)?;
        if let Some(split) = split_names(asked)?.iter().find(|split| !known.contains(split)) {
            return Err(Error::usage(format!(
                "`eval_strategy` needs held-out rows, and `{name}` has no split `{split}`"
            ))
            .hint("set `eval_dataset`, or `test_split_size`, or `dataset_test_split`, or `eval_strategy: no`"));
        }
        Self::single(hub, keys, name, asked).map(Some)
    }

    fn of(hub: &Hub, keys: &TrainKeys, test: bool) -> Result<Self> {
        let held_out = keys.test_split_size.map(|size| HeldOut { size, seed: keys.seed, test });
        let Some(mixture) = keys.mixture() else {
            let rows = Self::single(hub, keys, keys.dataset()?, &keys.dataset_train_split)?;
            return Ok(Self { held_out, ..rows });
        };
        if keys.dataset_name.is_some() {
            tracing::warn!("`dataset_name` is not read, since there are `datasets`");
        }
        let parts = mixture.iter().map(|part| Part::of_mixture(hub, part)).collect::<Result<_>>()?;
        Ok(Self { parts, columns: renamed(keys), held_out })
    }

    fn single(hub: &Hub, keys: &TrainKeys, name: &str, split: &str) -> Result<Self> {
        let options =
            ReadOptions { split: split.to_owned(), config: keys.dataset_config.clone(), columns: BTreeMap::new() };
        let part = Part { located: find(hub, name, &options)?, columns: Vec::new(), fraction: None };
        Ok(Self { parts: vec![part], columns: renamed(keys), held_out: None })
    }

    /// The files that will be read
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        self.parts.iter().flat_map(|part| part.located.files())
    }

    /// What messages call them
    pub fn name(&self) -> String {
        self.parts.iter().map(|part| part.located.path().display().to_string()).collect::<Vec<_>>().join(" + ")
    }

    /// All that decides which rows of the files are taken, and as what
    pub fn describe(&self) -> String {
        let parts: Vec<_> = self.parts.iter().map(|part| (&part.located, &part.columns, part.fraction)).collect();
        format!("{parts:?} {:?} {:?}", self.columns, self.held_out)
    }

    /// Reads them
    pub fn read(&self) -> Result<Dataset> {
        let read = |part: &Part| Ok((part.located.read()?.select_columns(&part.columns)?, part.fraction));
        let dataset = match &self.parts[..] {
            [part] => read(part)?.0,
            parts => mix(parts.iter().map(read).collect::<Result<_>>()?)?,
        };
        let dataset = dataset.rename_columns(&self.columns)?;
        match &self.held_out {
            None => Ok(dataset),
            Some(HeldOut { size, seed, test }) => {
                let [train, held] = dataset.hold_out(*size, *seed)?;
                Ok(if *test { held } else { train })
            }
        }
    }
}

impl Part {
    fn of_mixture(hub: &Hub, part: &DatasetPart) -> Result<Self> {
        let mut options =
            ReadOptions { split: part.split.clone(), config: part.name.clone(), columns: BTreeMap::new() };
        let located = match (hub.local_dataset(&part.path), &part.data_files[..]) {
            (_, files) if FORMATS.contains(&part.path.as_str()) && !files.is_empty() => {
                let files: Vec<_> = files.iter().map(PathBuf::from).collect();
                Located::new(&files[0], &options, |_| Ok(files.clone()))?
            }
            (Ok(Some(folder)), []) => {
                let folder = part.data_dir.as_ref().map_or(folder.clone(), |below| folder.join(below));
                locate(&folder, &options)?
            }
            (Ok(Some(folder)), files) => {
                let folder = part.data_dir.as_ref().map_or(folder.clone(), |below| folder.join(below));
                let files: Vec<_> = files.iter().map(|file| folder.join(file)).collect();
                Located::new(&folder, &options, |_| Ok(files.clone()))?
            }
            (Ok(None), []) => {
                // A folder of a repository is chosen like a configuration
                options.config = options.config.or_else(|| part.data_dir.clone());
                find(hub, &part.path, &options)?
            }
            (Ok(None), _) => {
                return Err(Error::usage(format!(
                    "`data_files` of `{}`: files of a repository cannot be named one by one",
                    part.path
                ))
                .hint("use `data_dir` or `split`, or a folder on this disk"));
            }
            (Err(error), _) => return Err(error),
        };
        Ok(Self { located, columns: part.columns.clone(), fraction: part.fraction })
    }
}

fn renamed(keys: &TrainKeys) -> BTreeMap<String, String> {
    keys.columns.iter().map(|(found, expected)| (found.to_owned(), expected.clone())).collect()
}

fn known_splits(hub: &Hub, name: &str, config: Option<&str>) -> Result<Vec<String>> {
    match hub.local_dataset(name)? {
        Some(path) => splits(&path, config),
        None => hub.dataset_splits(name, None, config),
    }
}

/// On this disk, or on the Hub, of which nothing but the splits asked for is fetched
fn find(hub: &Hub, name: &str, options: &ReadOptions) -> Result<Located> {
    if let Some(path) = hub.local_dataset(name)? {
        return locate(&path, options);
    }
    // The card of a dataset on the Hub says which file is which split
    Located::new(Path::new(name), options, |split| {
        let files = hub.dataset_files(name, None, options.config.as_deref(), &[split])?;
        Ok(files.into_iter().map(|file| file.path).collect())
    })
}
