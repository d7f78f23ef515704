//! Which files of a dataset repository or folder hold which split.
//!
//! The card decides (`configs:` in the YAML head of README.md); without it, names do, by the rules of the `datasets`
//! library: `data/SPLIT-00000-of-00001…`, then folders, then files named after a split, else everything is `train`.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::glob;
use crate::{Error, Result};

/// The file that may carry the card
pub(super) const CARD: &str = "README.md";
const TRAIN: &str = "train";

/// Words that mark a split, in the order in which the splits are listed
const KEYWORDS: [(&str, &[&str]); 3] = [
    (TRAIN, &["train", "training"]),
    ("validation", &["validation", "valid", "dev", "val"]),
    ("test", &["test", "testing", "eval", "evaluation"]),
];

/// JSON files of a data folder that hold no rows
const NOT_DATA: [&str; 6] =
    ["config.json", "dataset_info.json", "dataset_infos.json", "dataset_dict.json", "state.json", "package.json"];

#[derive(Deserialize)]
struct Card {
    #[serde(default)]
    configs: Vec<Config>,
}

#[derive(Deserialize)]
struct Config {
    #[serde(rename = "config_name")]
    name: String,
    data_files: Option<DataFiles>,
    data_dir: Option<String>,
    #[serde(default)]
    default: bool,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum DataFiles {
    One(String),
    Several(Vec<Entry>),
    BySplit(BTreeMap<String, Patterns>),
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Entry {
    Pattern(String),
    Split { split: String, path: Patterns },
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Patterns {
    One(String),
    Several(Vec<String>),
}

impl Patterns {
    fn as_slice(&self) -> &[String] {
        match self {
            Self::One(pattern) => std::slice::from_ref(pattern),
            Self::Several(patterns) => patterns,
        }
    }
}

/// Split and path of every data file that `config` means; `place` is what the files are listed from, for messages.
pub(super) fn select(
    place: &str,
    listed: &[String],
    card: Option<&str>,
    config: Option<&str>,
) -> Result<Vec<(String, String)>> {
    let configs = card.map(|text| read_card(place, text)).unwrap_or_default();
    let folder_of = |config: &Config| config.data_dir.as_ref().map(|dir| dir.trim_matches('/').to_owned());
    let files = match choose(place, listed, &configs, config)? {
        Chosen::Config(config) => match (&config.data_files, folder_of(config)) {
            (Some(files), folder) => by_patterns(place, listed, files, folder.as_deref().unwrap_or(""))?,
            (None, folder) => by_names(listed, folder.as_deref().unwrap_or("")),
        },
        Chosen::Folder(folder) => by_names(listed, folder),
    };
    if files.is_empty() {
        let error = Error::usage(format!("{place} has no data files"));
        let script = listed.iter().find(|name| glob::matches("*.py", name));
        return Err(match script {
            Some(script) => error.hint(format!(
                "the dataset is made by a script (`{script}`), which is not run here; many such datasets have files at \
                 revision `refs/convert/parquet`"
            )),
            None => error.hint("files must end in .jsonl, .json, .csv or .parquet, each also with .gz"),
        });
    }
    Ok(files)
}

enum Chosen<'a> {
    Config(&'a Config),
    Folder(&'a str),
}

fn choose<'a>(place: &str, listed: &[String], configs: &'a [Config], wanted: Option<&'a str>) -> Result<Chosen<'a>> {
    let names = || configs.iter().map(|config| format!("`{}`", config.name)).collect::<Vec<_>>().join(", ");
    match (wanted, configs) {
        (None | Some("default"), []) => Ok(Chosen::Folder("")),
        (None, [only]) => Ok(Chosen::Config(only)),
        (None, _) => configs
            .iter()
            .find(|config| config.default)
            .or_else(|| configs.iter().find(|config| config.name == "default"))
            .map(Chosen::Config)
            .ok_or_else(|| {
                Error::usage(format!("{place} has several configurations and no default"))
                    .hint(format!("set `dataset_config` to one of {}", names()))
            }),
        (Some(wanted), _) => {
            if let Some(config) = configs.iter().find(|config| config.name == wanted) {
                return Ok(Chosen::Config(config));
            }
            // Datasets older than cards keep one configuration to a folder
            let folder = wanted.trim_matches('/');
            if listed.iter().any(|file| is_below(file, folder) && format_of(file).is_some()) {
                return Ok(Chosen::Folder(folder));
            }
            let error = Error::usage(format!("{place} has no configuration `{wanted}`"));
            Err(if configs.is_empty() {
                error.hint("its card names none; leave `dataset_config` out, or name a folder of the repository")
            } else {
                error.hint(format!("one of {}", names()))
            })
        }
    }
}

/// The configurations in the YAML between the first two lines of `---`
fn read_card(place: &str, text: &str) -> Vec<Config> {
    let text = text.trim_start_matches('\u{feff}');
    let Some(rest) = text.strip_prefix("---") else { return Vec::new() };
    let Some(end) = rest.find("\n---") else { return Vec::new() };
    match serde_saphyr::from_str::<Card>(&rest[..end]) {
        Ok(card) => card.configs,
        Err(cause) => {
            tracing::warn!(%cause, "the card of {place} is not readable; data files are chosen by their names");
            Vec::new()
        }
    }
}

fn by_patterns(place: &str, listed: &[String], files: &DataFiles, folder: &str) -> Result<Vec<(String, String)>> {
    let splits: Vec<(&str, Vec<&String>)> = match files {
        DataFiles::One(pattern) => vec![(TRAIN, vec![pattern])],
        DataFiles::BySplit(splits) => {
            splits.iter().map(|(split, patterns)| (split.as_str(), patterns.as_slice().iter().collect())).collect()
        }
        DataFiles::Several(entries) => {
            let mut splits: Vec<(&str, Vec<&String>)> = Vec::new();
            for entry in entries {
                let (split, patterns): (&str, Vec<&String>) = match entry {
                    Entry::Pattern(pattern) => (TRAIN, vec![pattern]),
                    Entry::Split { split, path } => (split, path.as_slice().iter().collect()),
                };
                match splits.iter_mut().find(|(known, _)| *known == split) {
                    Some((_, known)) => known.extend(patterns),
                    None => splits.push((split, patterns)),
                }
            }
            splits
        }
    };
    let mut found: Vec<(String, String)> = Vec::new();
    for (split, patterns) in splits {
        for pattern in patterns {
            let whole = if folder.is_empty() { pattern.clone() } else { format!("{folder}/{pattern}") };
            let before = found.len();
            for file in listed.iter().filter(|file| glob::matches(&whole, file)) {
                let entry = (split.to_owned(), file.clone());
                if !found.contains(&entry) {
                    found.push(entry);
                }
            }
            if found.len() == before && !listed.iter().any(|file| glob::matches(&whole, file)) {
                return Err(Error::usage(format!(
                    "no file of {place} matches `{whole}`, which its card names for split `{split}`"
                )));
            }
        }
    }
    if let Some((_, file)) = found.iter().find(|(_, file)| format_of(file).is_none()) {
        return Err(Error::usage(format!("`{file}` of {place} is in a format that is not supported"))
            .hint("files must end in .jsonl, .json, .csv or .parquet, each also with .gz"));
    }
    Ok(found)
}

fn by_names(listed: &[String], folder: &str) -> Vec<(String, String)> {
    let candidates: Vec<&String> = listed.iter().filter(|file| is_below(file, folder) && is_data(file)).collect();
    // One dataset is in one format; what is left over are notes and statistics
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for format in candidates.iter().filter_map(|file| format_of(file)) {
        *counts.entry(format).or_default() += 1;
    }
    let Some(format) = counts.iter().max_by_key(|(_, count)| **count).map(|(format, _)| *format) else {
        return Vec::new();
    };
    let files: Vec<&String> = candidates.into_iter().filter(|file| format_of(file) == Some(format)).collect();
    let relative = |file: &str| file[folder.len()..].trim_start_matches('/').to_owned();

    let sharded: Vec<_> =
        files.iter().filter_map(|file| Some((shard_split(&relative(file))?, (*file).clone()))).collect();
    if !sharded.is_empty() {
        return in_split_order(sharded);
    }
    let by_word = |is_marked: &dyn Fn(&str, &str) -> bool| -> Vec<(String, String)> {
        KEYWORDS
            .iter()
            .flat_map(|(split, words)| {
                let files = files.iter().filter(|file| words.iter().any(|word| is_marked(&relative(file), word)));
                files.map(|file| ((*split).to_owned(), (*file).clone())).collect::<Vec<_>>()
            })
            .collect()
    };
    let in_folders = by_word(&|file, word| {
        let mut folders: Vec<_> = file.split('/').collect();
        folders.pop();
        folders.iter().any(|folder| has_word(folder, word))
    });
    if !in_folders.is_empty() {
        return in_folders;
    }
    let in_names = by_word(&|file, word| has_word(file.rsplit('/').next().unwrap_or(file), word));
    if !in_names.is_empty() {
        return in_names;
    }
    files.into_iter().map(|file| (TRAIN.to_owned(), file.clone())).collect()
}

/// The split of `data/SPLIT-00000-of-00001….parquet`
fn shard_split(file: &str) -> Option<String> {
    let name = file.strip_prefix("data/").filter(|name| !name.contains('/'))?;
    let numbers = "[0-9][0-9][0-9][0-9][0-9]";
    if !glob::matches(&format!("*-{numbers}-of-{numbers}*.*"), name) {
        return None;
    }
    let (before, _) = name.rsplit_once("-of-")?;
    Some(before.rsplit_once('-')?.0.to_owned())
}

/// The three usual splits first, then the others by name
fn in_split_order(mut files: Vec<(String, String)>) -> Vec<(String, String)> {
    let rank = |split: &str| KEYWORDS.iter().position(|(known, _)| *known == split).unwrap_or(KEYWORDS.len());
    files.sort_by(|a, b| (rank(&a.0), a).cmp(&(rank(&b.0), b)));
    files
}

/// Whether `word` stands alone in `name`, between its ends, digits and `-._ `
fn has_word(name: &str, word: &str) -> bool {
    let is_separator = |byte: u8| byte.is_ascii_digit() || b"-._ ".contains(&byte);
    name.match_indices(word).any(|(at, _)| {
        let bytes = name.as_bytes();
        let after = at + word.len();
        (at == 0 || is_separator(bytes[at - 1])) && (after == bytes.len() || is_separator(bytes[after]))
    })
}

fn is_below(file: &str, folder: &str) -> bool {
    folder.is_empty() || file.strip_prefix(folder).is_some_and(|rest| rest.starts_with('/'))
}

fn is_data(file: &str) -> bool {
    let name = file.rsplit('/').next().unwrap_or(file);
    let is_hidden = |part: &str| part.starts_with('.') || part.starts_with("__");
    !file.split('/').any(is_hidden) && !NOT_DATA.contains(&name) && format_of(file).is_some()
}

/// The format that the name tells
fn format_of(file: &str) -> Option<&'static str> {
    let name = file.strip_suffix(".gz").unwrap_or(file);
    [(".jsonl", "json"), (".json", "json"), (".csv", "csv"), (".parquet", "parquet")]
        .into_iter()
        .find(|(extension, _)| name.ends_with(extension))
        .map(|(_, format)| format)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn select_from(listed: &[&str], card: Option<&str>, config: Option<&str>) -> Result<String> {
        let listed: Vec<String> = listed.iter().map(|file| (*file).to_owned()).collect();
        let found = select("dataset `a/b`", &listed, card, config)?;
        Ok(found.iter().map(|(split, file)| format!("{split}={file}")).collect::<Vec<_>>().join(" "))
    }

    #[test]
    fn names_tell_the_split() {
        let cases: [(&[&str], &str); 8] = [
            (
                &["data/test-00000-of-00001.parquet", "data/train_sft-00000-of-00001-abc.parquet", "README.md"],
                "test=data/test-00000-of-00001.parquet train_sft=data/train_sft-00000-of-00001-abc.parquet",
            ),
            (&["test.jsonl", "train.jsonl"], "train=train.jsonl test=test.jsonl"),
            (&["a/train/x.csv", "a/eval/y.csv"], "train=a/train/x.csv test=a/eval/y.csv"),
            (&["rows.jsonl.gz", "notes.txt"], "train=rows.jsonl.gz"),
            (&["x.parquet", "y.parquet", "stats.json"], "train=x.parquet train=y.parquet"),
            (&["constrained.csv", "other.csv"], "train=constrained.csv train=other.csv"),
            (&["my_dev_set.json", "my-train2.json"], "train=my-train2.json validation=my_dev_set.json"),
            (&["dataset_infos.json", ".hidden.json", "__old/x.json", "rows.json"], "train=rows.json"),
        ];
        for (listed, expected) in cases {
            assert_eq!(select_from(listed, None, None).unwrap(), expected, "{listed:?}");
        }
    }

    #[test]
    fn the_card_tells_configurations_and_splits() {
        let card = "---\nlicense: mit\nconfigs:\n- config_name: binarized\n  data_files:\n  - split: train_prefs\n    \
                    path: data/train_*\n  - split: test_prefs\n    path:\n    - data/test_a.csv\n    - data/test_b.csv\n\
                    - config_name: plain\n  default: true\n  data_files: plain.csv\n- config_name: listed\n  data_dir: \
                    data\n  data_files:\n  - test_a.csv\n  - test_b.csv\n- config_name: folder\n  data_dir: data\n\
                    dataset_info:\n- config_name: x\n---\n# Text\n";
        let listed = ["data/test_a.csv", "data/test_b.csv", "data/train_1.csv", "plain.csv"];
        let cases = [
            (Some("binarized"), "train_prefs=data/train_1.csv test_prefs=data/test_a.csv test_prefs=data/test_b.csv"),
            (None, "train=plain.csv"),
            (Some("listed"), "train=data/test_a.csv train=data/test_b.csv"),
            (Some("folder"), "train=data/train_1.csv test=data/test_a.csv test=data/test_b.csv"),
        ];
        for (config, expected) in cases {
            assert_eq!(select_from(&listed, Some(card), config).unwrap(), expected, "{config:?}");
        }
        let error = select_from(&listed, Some(card), Some("other")).unwrap_err();
        assert_eq!(error.hint_text(), Some("one of `binarized`, `plain`, `listed`, `folder`"));
        let error = select_from(&listed[..1], Some(card), None).unwrap_err();
        assert!(error.message().contains("matches `plain.csv`"), "{error}");
    }

    #[test]
    fn several_configurations_need_a_choice() {
        let card = "---\nconfigs:\n- config_name: a\n  data_files: a.csv\n- config_name: b\n  data_files: b.csv\n---";
        let error = select_from(&["a.csv", "b.csv"], Some(card), None).unwrap_err();
        assert_eq!(error.hint_text(), Some("set `dataset_config` to one of `a`, `b`"));
        assert_eq!(select_from(&["a.csv", "b.csv"], Some(card), Some("b")).unwrap(), "train=b.csv");
    }

    #[test]
    fn a_folder_serves_as_a_configuration() {
        let listed = ["helpful-base/test.jsonl.gz", "helpful-base/train.jsonl.gz", "harmless-base/train.jsonl.gz"];
        let found = select_from(&listed, Some("no head"), Some("helpful-base")).unwrap();
        assert_eq!(found, "train=helpful-base/train.jsonl.gz test=helpful-base/test.jsonl.gz");
        assert!(select_from(&listed, None, Some("help")).unwrap_err().message().contains("no configuration `help`"));
    }

    #[test]
    fn what_cannot_be_read_is_refused() {
        let card = "---\nconfigs:\n- config_name: a\n  data_files: a.arrow\n---";
        let error = select_from(&["a.arrow"], Some(card), None).unwrap_err();
        assert!(error.message().contains("`a.arrow` of dataset `a/b` is in a format"), "{error}");
        let error = select_from(&["b.py", "README.md"], None, None).unwrap_err();
        assert!(error.hint_text().unwrap().contains("refs/convert/parquet"), "{error}");
    }

    #[test]
    fn a_card_that_is_no_yaml_leaves_the_names() {
        let card = "---\nconfigs: [oh: {\n---\n";
        assert_eq!(select_from(&["a.csv"], Some(card), None).unwrap(), "train=a.csv");
    }
}
