//! The dataset column that a completion is compared with.

use serde_json::{Map, Value};

use crate::{Error, Result};

/// Where the right answer stands unless the reward says so: the first of these that a row has
const USUAL: &[&str] = &["answer", "solution", "ground_truth", "target", "label"];

/// The column of the right answer
#[derive(Debug, Clone)]
pub(super) enum Column {
    Named(String),
    Usual,
}

impl Column {
    pub fn new(name: Option<&str>) -> Self {
        name.map_or(Self::Usual, |name| Self::Named(name.to_owned()))
    }

    fn find<'a>(&self, reward: &str, row: &'a Map<String, Value>) -> Result<&'a Value> {
        let names: Vec<&str> = match self {
            Self::Named(name) => vec![name],
            Self::Usual => USUAL.to_vec(),
        };
        names.iter().find_map(|name| row.get(*name)).ok_or_else(|| {
            let found: Vec<&str> = row.keys().map(String::as_str).collect();
            let expected = names.join("`, `");
            let any = if names.len() > 1 { "one of the columns" } else { "the column" };
            Error::usage(format!("reward `{reward}` needs {any} `{expected}`, found `{}`", found.join("`, `")))
                .hint(format!("name the column of the right answer: `{reward}:COLUMN`"))
        })
    }

    /// Whether a row has the column
    pub fn check(&self, reward: &str, row: &Map<String, Value>) -> Result<()> {
        self.find(reward, row).map(drop)
    }

    /// The accepted answers of a row; none where the column is null
    pub fn answers(&self, reward: &str, row: &Map<String, Value>) -> Result<Vec<String>> {
        let scalar = |value: &Value| match value {
            Value::String(text) => Some(text.clone()),
            Value::Number(_) | Value::Bool(_) => Some(value.to_string()),
            _ => None,
        };
        let answers = match self.find(reward, row)? {
            Value::Null => Some(Vec::new()),
            Value::Array(items) => items.iter().map(scalar).collect(),
            one => scalar(one).map(|answer| vec![answer]),
        };
        answers.ok_or_else(|| {
            Error::usage(format!("reward `{reward}`: a right answer is a text or a number, or a list of them"))
        })
    }
}
