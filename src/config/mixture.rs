//! One dataset of a mixture: an entry of `datasets`.

use super::convert::{ConfigValue, Problem};
use super::keys::nearest;
use super::value::Value;
use super::yaml;

const NAMES: [&str; 7] = ["path", "name", "data_dir", "data_files", "split", "columns", "fraction"];

/// One dataset of a mixture, with TRL's names
#[derive(Debug, Clone, PartialEq)]
pub struct DatasetPart {
    /// A file, a folder, an id on the Hub, or a format (`json`, `csv`, `parquet`) beside `data_files`
    pub path: String,
    /// Configuration of a dataset on the Hub, or a subfolder
    pub name: Option<String>,
    /// Subfolder with the files
    pub data_dir: Option<String>,
    /// Files in the folder `path`, or paths of their own where `path` is a format; all that are found where empty
    pub data_files: Vec<String>,
    /// Split, or a part of one such as `train[:10%]`
    pub split: String,
    /// Columns to keep; all where empty
    pub columns: Vec<String>,
    /// Share of the mixture
    pub fraction: Option<f64>,
}

impl DatasetPart {
    fn from_entries(entries: &[(String, Value)]) -> Result<Self, Problem> {
        let known = |name: &str| NAMES.contains(&name);
        if let Some((name, _)) = entries.iter().find(|(name, _)| !known(name)) {
            return Err(Problem::Expected {
                expected: format!("a dataset with `{}`", NAMES.join("`, `")),
                found: format!("`{name}`"),
                hint: nearest(name, NAMES).map(|near| format!("did you mean `{near}`?")),
            });
        }
        let value =
            |name: &str| entries.iter().find(|(known, _)| known == name).map_or(&Value::Null, |(_, value)| value);
        let texts = |value: &Value| match value {
            Value::Null => Ok(Vec::new()),
            given => Vec::<String>::parse(given),
        };
        let split = Option::parse(value("split"))?.unwrap_or_else(|| "train".to_owned());
        let data_files = match value("data_files") {
            // Files by split, of which one is asked for
            Value::Map(files) => {
                let name = split.split('[').next().unwrap_or_default().trim();
                let found = files.iter().find(|(known, _)| known == name).ok_or_else(|| Problem::Expected {
                    expected: format!("a dataset whose `data_files` have the split `{name}`"),
                    found: files.iter().map(|(known, _)| format!("`{known}`")).collect::<Vec<_>>().join(", "),
                    hint: None,
                })?;
                texts(&found.1)?
            }
            files => texts(files)?,
        };
        let fraction = Option::<f64>::parse(value("fraction"))?;
        if let Some(fraction) = fraction.filter(|fraction| *fraction < 0.0) {
            return Err(Problem::Expected {
                expected: "a dataset whose `fraction` is at least 0".to_owned(),
                found: format!("`{fraction}`"),
                hint: None,
            });
        }
        let path = Option::<String>::parse(value("path"))?.filter(|path| !path.is_empty());
        Ok(Self {
            path: path.ok_or_else(|| Problem::Expected {
                expected: Self::expected(),
                found: "a map without `path`".to_owned(),
                hint: None,
            })?,
            name: Option::parse(value("name"))?,
            data_dir: Option::parse(value("data_dir"))?,
            data_files,
            split,
            columns: texts(value("columns"))?,
            fraction,
        })
    }
}

impl ConfigValue for DatasetPart {
    const VALUE_NAME: &'static str = "{path: ..}";

    fn expected() -> String {
        "a map with at least the `path` of a dataset".to_owned()
    }

    fn parse(value: &Value) -> Result<Self, Problem> {
        match value {
            Value::Map(entries) => Self::from_entries(entries),
            // `--datasets '{path: a.jsonl, fraction: 0.3}'`
            Value::Text(text) if text.trim_start().starts_with('{') => match yaml::parse_inline(text) {
                Some(Value::Map(entries)) => Self::from_entries(&entries),
                _ => Err(Problem::expected::<Self>(value)),
            },
            _ => Err(Problem::expected::<Self>(value)),
        }
    }

    fn to_value(&self) -> Value {
        let entries = [
            ("path", self.path.to_value()),
            ("name", self.name.to_value()),
            ("data_dir", self.data_dir.to_value()),
            ("data_files", self.data_files.to_value()),
            ("split", self.split.to_value()),
            ("columns", self.columns.to_value()),
            ("fraction", self.fraction.to_value()),
        ];
        let given = |value: &Value| !matches!(value, Value::Null) && *value != Value::List(Vec::new());
        Value::Map(entries.into_iter().filter(|(_, v)| given(v)).map(|(name, v)| (name.to_owned(), v)).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<DatasetPart, Problem> {
        DatasetPart::parse(&Value::text(text))
    }

    #[test]
    fn entries_are_read_and_written_back() {
        let part = parse("{path: a.jsonl, split: 'train[:10%]', columns: [text], fraction: 0.25}").unwrap();
        assert_eq!((part.path.as_str(), part.split.as_str(), part.fraction), ("a.jsonl", "train[:10%]", Some(0.25)));
        assert_eq!(DatasetPart::parse(&part.to_value()).unwrap(), part);
        let files = parse("{path: json, data_files: b.jsonl}").unwrap();
        assert_eq!((files.data_files, files.split.as_str()), (vec!["b.jsonl".to_owned()], "train"));
        let by_split = parse("{path: json, data_files: {train: a.jsonl, test: [b.jsonl]}, split: 'test[:3]'}").unwrap();
        assert_eq!(by_split.data_files, ["b.jsonl"]);
    }

    #[test]
    fn what_is_no_dataset_is_told() {
        let told = |text: &str| match parse(text).unwrap_err() {
            Problem::Expected { found, hint, .. } => (found, hint.unwrap_or_default()),
            Problem::Refused { .. } => panic!("refused: {text}"),
        };
        assert_eq!(told("{split: train}").0, "a map without `path`");
        assert_eq!(told("{path: a, fracton: 1}"), ("`fracton`".to_owned(), "did you mean `fraction`?".to_owned()));
        assert_eq!(told("{path: a, fraction: -1}").0, "`-1`");
        assert_eq!(told("a.jsonl").0, "`a.jsonl`");
        assert_eq!(told("{path: json, data_files: {train: a}, split: test}").0, "`train`");
    }
}
