//! One row of a dataset and the place it came from.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use serde_json::{Map, Value};

/// Where a row stands: a file and its line (for Parquet the row number), both counted from 1
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The file as the user would name it
    pub file: Arc<str>,
    /// Line, or row number where the format has no lines
    pub line: usize,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file, self.line)
    }
}

impl FromStr for Place {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (file, line) = text.rsplit_once(':').ok_or("a place is FILE:LINE")?;
        Ok(Self { file: file.into(), line: line.parse().map_err(|_| "the line of a place is a number")? })
    }
}

impl<'de> Deserialize<'de> for Place {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

impl Serialize for Place {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// One row: its columns in the order of the file, and its place
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    /// Column name to value
    pub fields: Map<String, Value>,
    /// Where the row stands
    pub place: Place,
}

/// What kind of JSON value this is, as a message names it
pub(super) fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

/// `` `a`, `b` and `c` `` for messages
pub(super) fn list_names<S: AsRef<str>>(names: &[S]) -> String {
    match names {
        [] => "none".to_string(),
        [one] => format!("`{}`", one.as_ref()),
        [head @ .., last] => {
            let head: Vec<String> = head.iter().map(|name| format!("`{}`", name.as_ref())).collect();
            format!("{} and `{}`", head.join(", "), last.as_ref())
        }
    }
}

/// The name in `names` closest to `wanted`, if one is close enough to be a slip of the pen
pub(super) fn nearest<'a, S: AsRef<str>>(wanted: &str, names: &'a [S]) -> Option<&'a str> {
    names
        .iter()
        .map(|name| (strsim::jaro_winkler(wanted, name.as_ref()), name.as_ref()))
        .filter(|(score, name)| *score > 0.8 && *name != wanted)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, name)| name)
}
