//! From a [`Value`] to a type and back.

use super::value::Value;
use super::yaml;

/// Why a value does not fit its key; the key and the place are added by whoever knows them
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Problem {
    /// It should be this, and is that: `` must be {expected}, got {found} ``
    Expected {
        /// What would do, such as `a whole number`
        expected: String,
        /// What stood there
        found: String,
        /// The nearest value that would do
        hint: Option<String>,
    },
    /// TRL knows the value, this program does not have its effect
    Refused {
        /// The value
        found: String,
        /// Why it is refused
        reason: String,
    },
}

impl Problem {
    pub(crate) fn expected<T: ConfigValue>(found: &Value) -> Self {
        Self::Expected { expected: T::expected(), found: found.to_string(), hint: None }
    }
}

/// How many words a flag of this type takes
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// One
    One,
    /// One or none: `--key` alone means `true`
    Switch,
    /// Any number, repeated, or split by commas
    Many,
    /// `name=value` pairs, or one JSON or YAML map
    Pairs,
}

/// A type that a config key can have
pub trait ConfigValue: Sized {
    /// What its flag takes
    const SHAPE: Shape = Shape::One;

    /// What `--help` calls its value
    const VALUE_NAME: &'static str;

    /// What a value must be, as it completes «must be …»
    fn expected() -> String;

    /// The values that would do, where they can be listed
    fn choices() -> Vec<&'static str> {
        Vec::new()
    }

    /// Reads what YAML or a flag said
    fn parse(value: &Value) -> Result<Self, Problem>;

    /// What the resolved config says; [`ConfigValue::parse`] reads it back as the same value
    fn to_value(&self) -> Value;
}

impl ConfigValue for bool {
    const SHAPE: Shape = Shape::Switch;
    const VALUE_NAME: &'static str = "true|false";

    fn expected() -> String {
        "`true` or `false`".to_owned()
    }

    fn parse(value: &Value) -> Result<Self, Problem> {
        value.as_bool().ok_or_else(|| Problem::expected::<Self>(value))
    }

    fn to_value(&self) -> Value {
        Value::Bool(*self)
    }
}

/// Number types differ only in what `str::parse` takes and in their name
macro_rules! number {
    ($type:ty, $expected:literal) => {
        impl ConfigValue for $type {
            const VALUE_NAME: &'static str = "N";

            fn expected() -> String {
                $expected.to_owned()
            }

            fn parse(value: &Value) -> Result<Self, Problem> {
                match value {
                    Value::Number(text) | Value::Text(text) => text.trim().parse().ok(),
                    _ => None,
                }
                .ok_or_else(|| Problem::expected::<Self>(value))
            }

            fn to_value(&self) -> Value {
                Value::Number(self.to_string())
            }
        }
    };
}

number!(usize, "a whole number from 0 up");
number!(u64, "a whole number from 0 up");
number!(i64, "a whole number");

impl ConfigValue for f64 {
    const VALUE_NAME: &'static str = "X";

    fn expected() -> String {
        "a number".to_owned()
    }

    fn parse(value: &Value) -> Result<Self, Problem> {
        let number = match value {
            Value::Number(text) | Value::Text(text) => text.trim().parse::<f64>().ok(),
            _ => None,
        };
        // `nan` and `inf` parse, and would poison every comparison later
        number.filter(|number| number.is_finite()).ok_or_else(|| Problem::expected::<Self>(value))
    }

    fn to_value(&self) -> Value {
        Value::Number(format!("{self:?}"))
    }
}

impl ConfigValue for String {
    const VALUE_NAME: &'static str = "TEXT";

    fn expected() -> String {
        "text".to_owned()
    }

    fn parse(value: &Value) -> Result<Self, Problem> {
        match value {
            // A folder called 2024 or a revision 1.0 need no quotes
            Value::Text(text) | Value::Number(text) => Ok(text.clone()),
            _ => Err(Problem::expected::<Self>(value)),
        }
    }

    fn to_value(&self) -> Value {
        Value::text(self)
    }
}

impl<T: ConfigValue> ConfigValue for Option<T> {
    const SHAPE: Shape = T::SHAPE;
    const VALUE_NAME: &'static str = T::VALUE_NAME;

    fn expected() -> String {
        format!("{}, or `null`", T::expected())
    }

    fn choices() -> Vec<&'static str> {
        T::choices()
    }

    fn parse(value: &Value) -> Result<Self, Problem> {
        if value.is_null() {
            return Ok(None);
        }
        T::parse(value).map(Some).map_err(|problem| match problem {
            Problem::Expected { found, hint, .. } => Problem::Expected { expected: Self::expected(), found, hint },
            refused @ Problem::Refused { .. } => refused,
        })
    }

    fn to_value(&self) -> Value {
        self.as_ref().map_or(Value::Null, T::to_value)
    }
}

impl<T: ConfigValue> ConfigValue for Vec<T> {
    const SHAPE: Shape = Shape::Many;
    const VALUE_NAME: &'static str = T::VALUE_NAME;

    fn expected() -> String {
        format!("a list of values that are each {}", T::expected())
    }

    fn choices() -> Vec<&'static str> {
        T::choices()
    }

    fn parse(value: &Value) -> Result<Self, Problem> {
        match value {
            Value::List(items) => items.iter().map(T::parse).collect(),
            // `--reward_funcs '["a", "b"]'`
            Value::Text(text) if text.trim_start().starts_with('[') => match yaml::parse_inline(text) {
                Some(list @ Value::List(_)) => Self::parse(&list),
                _ => Err(Problem::expected::<Self>(value)),
            },
            Value::Null | Value::Map(_) => Err(Problem::expected::<Self>(value)),
            one => T::parse(one).map(|one| vec![one]),
        }
    }

    fn to_value(&self) -> Value {
        Value::List(self.iter().map(T::to_value).collect())
    }
}

/// Names and values in the order written
#[derive(Debug, Clone, PartialEq)]
pub struct Map<T>(pub Vec<(String, T)>);

impl<T> Default for Map<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T> Map<T> {
    /// The value under `name`
    pub fn get(&self, name: &str) -> Option<&T> {
        self.0.iter().find(|(known, _)| known == name).map(|(_, value)| value)
    }

    /// Whether nothing is in it
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Names and values in the order written
    pub fn iter(&self) -> impl Iterator<Item = (&str, &T)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value))
    }
}

impl<T: ConfigValue> ConfigValue for Map<T> {
    const SHAPE: Shape = Shape::Pairs;
    const VALUE_NAME: &'static str = "NAME=VALUE";

    fn expected() -> String {
        format!("a map of names to {}, or pairs `name=value`", T::expected())
    }

    fn parse(value: &Value) -> Result<Self, Problem> {
        let problem = || Problem::expected::<Self>(value);
        let entries = match value {
            Value::Null => Vec::new(),
            Value::Map(entries) => entries.clone(),
            Value::List(items) => {
                let mut entries = Vec::new();
                for item in items {
                    let Value::Text(text) = item else { return Err(problem()) };
                    entries.extend(pairs(text).ok_or_else(problem)?);
                }
                entries
            }
            Value::Text(text) => pairs(text).ok_or_else(problem)?,
            Value::Bool(_) | Value::Number(_) => return Err(problem()),
        };
        let mut map = Self::default();
        for (name, value) in entries {
            if map.get(&name).is_some() {
                return Err(Problem::Expected {
                    expected: "a map in which each name stands once".to_owned(),
                    found: format!("`{name}` twice"),
                    hint: None,
                });
            }
            map.0.push((name, T::parse(&value)?));
        }
        Ok(map)
    }

    fn to_value(&self) -> Value {
        Value::Map(self.0.iter().map(|(name, value)| (name.clone(), value.to_value())).collect())
    }
}

/// `found=expected`, or a whole map in braces
fn pairs(text: &str) -> Option<Vec<(String, Value)>> {
    if text.trim_start().starts_with('{') {
        return match yaml::parse_inline(text)? {
            Value::Map(entries) => Some(entries),
            _ => None,
        };
    }
    let (name, value) = text.split_once('=')?;
    let (name, value) = (name.trim(), value.trim());
    (!name.is_empty() && !value.is_empty()).then(|| vec![(name.to_owned(), Value::text(value))])
}
