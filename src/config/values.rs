//! What the config file and the flags said, and where each value came from.

use std::path::Path;

use super::convert::{ConfigValue, Problem};
use super::keys::Range;
use super::value::Value;
use super::yaml;
use crate::{Error, Result};

/// Where a value came from
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// A line of the config file
    File {
        /// The file as the user named it
        name: String,
        /// From 1
        line: u64,
        /// From 1
        column: u64,
    },
    /// The command line
    Flag,
    /// The command's own default
    Default,
}

impl Place {
    /// Puts the place before a message, where it has a line; a flag is found by its name
    pub fn locate(&self, error: Error) -> Error {
        match self {
            Self::File { name, line, column } => error.context(format!("{name}:{line}:{column}")),
            Self::Flag | Self::Default => error,
        }
    }
}

/// One key that was set
#[derive(Debug, Clone)]
pub struct Entry {
    /// The key, in TRL's spelling
    pub key: String,
    /// Where the key stands
    pub key_place: Place,
    /// What it was set to
    pub value: Value,
    /// Where the value stands
    pub place: Place,
}

/// Everything that was set, a flag in place of the file's value, both in place of a command's default
#[derive(Debug, Clone, Default)]
pub struct Values {
    entries: Vec<Entry>,
}

impl Values {
    /// Reads a config file
    pub fn from_yaml_file(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).map_err(|cause| Error::read(path, cause))?;
        Self::from_yaml(&text, &path.display().to_string())
    }

    /// Reads a config file's text; `name` is what messages call the file
    pub fn from_yaml(text: &str, name: &str) -> Result<Self> {
        let entries = yaml::parse_document(text, name)?;
        Ok(Self { entries })
    }

    /// Sets a flag, which beats the file
    pub fn set_flag(&mut self, key: &str, value: Value) {
        self.remove(key);
        self.push(key, value, Place::Flag);
    }

    /// Sets a command's own default, which everything beats
    pub fn set_default(&mut self, key: &str, text: &str) {
        if self.get(key).is_none() {
            self.push(key, Value::text(text), Place::Default);
        }
    }

    fn push(&mut self, key: &str, value: Value, place: Place) {
        self.entries.push(Entry { key: key.to_owned(), key_place: place.clone(), value, place });
    }

    /// The value of a key, where it was set
    pub fn get(&self, key: &str) -> Option<(&Value, &Place)> {
        self.entries.iter().find(|entry| entry.key == key).map(|entry| (&entry.value, &entry.place))
    }

    /// All keys that were set: those of the file in its order, then the flags
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    pub(super) fn remove(&mut self, key: &str) {
        self.entries.retain(|entry| entry.key != key);
    }

    pub(super) fn rename(&mut self, from: &str, to: &str) {
        for entry in &mut self.entries {
            if entry.key == from {
                to.clone_into(&mut entry.key);
            }
        }
    }

    /// The typed and checked value of a key; what `config_keys!` calls for each field
    pub fn read<T: ConfigValue>(&self, key: &str, range: Range, default: impl FnOnce() -> T) -> Result<T> {
        let Some((value, place)) = self.get(key) else { return Ok(default()) };
        let typed = T::parse(value).map_err(|problem| place.locate(describe(key, problem, &T::choices())))?;
        match range.first_outside(&typed.to_value()) {
            Some(number) => {
                // The digits that the user wrote, where there is only one number
                let found = value.as_scalar().unwrap_or(number);
                Err(place.locate(Error::usage(format!("`{key}` must be {}, got `{found}`", range.describe()))))
            }
            None => Ok(typed),
        }
    }
}

fn describe(key: &str, problem: Problem, choices: &[&str]) -> Error {
    match problem {
        Problem::Expected { expected, found, hint } => {
            let error = Error::usage(format!("`{key}` must be {expected}, got {found}"));
            match hint {
                Some(hint) => error.hint(hint),
                None => error,
            }
        }
        Problem::Refused { found, reason } => {
            Error::usage(format!("`{key}` cannot be {found} here: {reason}")).hint(match choices {
                [] => format!("leave out `{key}`"),
                choices => format!("`{key}` takes `{}`", choices.join("`, `")),
            })
        }
    }
}
