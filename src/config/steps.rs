//! Types of single keys that are neither plain nor a choice.

use super::convert::{ConfigValue, Problem, Shape};
use super::value::Value;

/// A number of optimiser steps: whole from 1 up, or below 1 a share of all steps
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Steps(pub f64);

impl Steps {
    /// How many of `total` steps, rounded up as the HF Trainer does
    pub fn of(self, total: usize) -> usize {
        if self.0 < 1.0 { (self.0 * total as f64).ceil() as usize } else { self.0 as usize }
    }
}

impl ConfigValue for Steps {
    const VALUE_NAME: &'static str = "STEPS";

    fn expected() -> String {
        "a whole number from 1 up, or a share of all steps above 0 and below 1".to_owned()
    }

    fn parse(value: &Value) -> Result<Self, Problem> {
        match f64::parse(value) {
            Ok(steps) if steps > 0.0 && (steps < 1.0 || steps.fract() == 0.0) => Ok(Self(steps)),
            _ => Err(Problem::expected::<Self>(value)),
        }
    }

    fn to_value(&self) -> Value {
        // A whole number reads better without its `.0`
        if self.0 >= 1.0 { Value::Number(self.0.to_string()) } else { self.0.to_value() }
    }
}

/// Where a run goes on
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Resume {
    /// Nowhere: it starts at the beginning
    No,
    /// At the newest checkpoint of `output_dir`, at the beginning where there is none
    Newest,
    /// At this checkpoint
    Folder(String),
}

impl ConfigValue for Resume {
    const SHAPE: Shape = Shape::Switch;
    const VALUE_NAME: &'static str = "true|FOLDER";

    fn expected() -> String {
        "`true`, `false` or a checkpoint folder".to_owned()
    }

    fn parse(value: &Value) -> Result<Self, Problem> {
        match (value, value.as_bool()) {
            (_, Some(true)) => Ok(Self::Newest),
            (_, Some(false)) => Ok(Self::No),
            (value, None) if value.is_null() => Ok(Self::No),
            (Value::Text(folder), None) if !folder.is_empty() => Ok(Self::Folder(folder.clone())),
            _ => Err(Problem::expected::<Self>(value)),
        }
    }

    fn to_value(&self) -> Value {
        match self {
            Self::No => Value::Null,
            Self::Newest => Value::Bool(true),
            Self::Folder(folder) => Value::text(folder),
        }
    }
}
