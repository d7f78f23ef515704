//! How a group of keys is declared: ranges, metadata, and the two macros.

use super::convert::Shape;
use super::value::Value;

/// What the command line and the documentation need to know of a key
#[derive(Debug, Clone, Copy)]
pub struct Key {
    /// TRL's spelling
    pub name: &'static str,
    /// Under which heading of `--help` it stands
    pub heading: &'static str,
    /// The field's doc comment
    pub help: &'static str,
    /// What the flag takes
    pub shape: Shape,
    /// What `--help` calls the flag's value
    pub value_name: &'static str,
    /// The default, before a command sets its own
    pub default: fn() -> Value,
    /// The values that would do, where they can be listed
    pub choices: fn() -> Vec<&'static str>,
    /// Which numbers would do
    pub range: Range,
}

impl Key {
    /// The default as `--help` shows it; empty where there is none
    pub fn default_text(&self) -> String {
        fn text(value: &Value) -> String {
            match value {
                Value::Null | Value::Map(_) => String::new(),
                Value::List(items) => items.iter().map(text).collect::<Vec<_>>().join(" "),
                scalar => scalar.as_scalar().unwrap_or_default().trim_end_matches(".0").to_owned(),
            }
        }
        text(&(self.default)())
    }
}

/// Which numbers a key takes
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Range {
    low: f64,
    high: f64,
    low_included: bool,
    high_included: bool,
}

impl Range {
    /// Every number
    pub const ANY: Self = Self { low: f64::NEG_INFINITY, high: f64::INFINITY, low_included: true, high_included: true };

    /// `low` and more
    pub const fn at_least(low: f64) -> Self {
        Self { low, ..Self::ANY }
    }

    /// More than `low`
    pub const fn above(low: f64) -> Self {
        Self { low, low_included: false, ..Self::ANY }
    }

    /// From `low` to `high`, both included
    pub const fn within(low: f64, high: f64) -> Self {
        Self { low, high, ..Self::ANY }
    }

    /// From `low` to less than `high`
    pub const fn within_below(low: f64, high: f64) -> Self {
        Self { low, high, high_included: false, ..Self::ANY }
    }

    /// As it completes «must be …»
    pub fn describe(&self) -> String {
        let low = match (self.low.is_finite(), self.low_included) {
            (false, _) => None,
            (true, true) => Some(format!("at least {}", self.low)),
            (true, false) => Some(format!("above {}", self.low)),
        };
        let high = match (self.high.is_finite(), self.high_included) {
            (false, _) => None,
            (true, true) => Some(format!("at most {}", self.high)),
            (true, false) => Some(format!("below {}", self.high)),
        };
        low.into_iter().chain(high).collect::<Vec<_>>().join(" and ")
    }

    /// The first number in `value`, also inside a list or a map, that is outside
    pub(super) fn first_outside<'v>(&self, value: &'v Value) -> Option<&'v str> {
        match value {
            Value::Number(text) => {
                let number: f64 = text.parse().ok()?;
                let low = if self.low_included { number >= self.low } else { number > self.low };
                let high = if self.high_included { number <= self.high } else { number < self.high };
                (!(low && high)).then_some(text)
            }
            Value::List(items) => items.iter().find_map(|item| self.first_outside(item)),
            Value::Map(entries) => entries.iter().find_map(|(_, item)| self.first_outside(item)),
            Value::Null | Value::Bool(_) | Value::Text(_) => None,
        }
    }
}

/// The known name that a misspelt one was probably meant to be
pub fn nearest<'n>(name: &str, known: impl IntoIterator<Item = &'n str>) -> Option<&'n str> {
    known
        .into_iter()
        .map(|candidate| (strsim::jaro_winkler(&name.to_lowercase(), candidate), candidate))
        .filter(|(similarity, _)| *similarity > 0.8)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, candidate)| candidate)
}

/// Declares a group of config keys.
///
/// The struct must have a method `check(&self) -> Result<()>` for what one key alone cannot say (two keys that exclude
/// each other); `from_values` calls it.
///
/// ```ignore
/// config_keys! {
///     /// Keys of the trainer
///     pub struct DpoKeys {
///         "Preference loss" {
///             /// Strength of the pull towards the reference model
///             beta: f64 = 0.1, Range::at_least(0.0);
///             /// Losses, summed with `loss_weights`
///             loss_type: Vec<DpoLoss> = vec![DpoLoss::Sigmoid];
///         }
///     }
/// }
/// ```
macro_rules! config_keys {
    (
        $(#[doc = $about:expr])+
        pub struct $group:ident {
            $($heading:literal {
                $(
                    $(#[doc = $help:expr])+
                    $name:ident : $type:ty = $default:expr $(, $range:expr)? ;
                )+
            })+
        }
    ) => {
        $(#[doc = $about])+
        #[derive(Debug, Clone, PartialEq)]
        pub struct $group {
            $($(
                $(#[doc = $help])+
                pub $name: $type,
            )+)+
        }

        impl $group {
            /// What the command line and the documentation need to know of each key, in declaration order
            pub const KEYS: &'static [$crate::config::Key] = &[$($(
                $crate::config::Key {
                    name: stringify!($name),
                    heading: $heading,
                    help: concat!($($help),+),
                    shape: <$type as $crate::config::ConfigValue>::SHAPE,
                    value_name: <$type as $crate::config::ConfigValue>::VALUE_NAME,
                    default: || <$type as $crate::config::ConfigValue>::to_value(&$default),
                    choices: <$type as $crate::config::ConfigValue>::choices,
                    range: $crate::config::config_keys!(@range $($range)?),
                },
            )+)+];

            /// Reads, types and checks the group's keys
            pub fn from_values(values: &$crate::config::Values) -> $crate::Result<Self> {
                let group = Self {
                    $($(
                        $name: values.read(
                            stringify!($name),
                            $crate::config::config_keys!(@range $($range)?),
                            || $default,
                        )?,
                    )+)+
                };
                group.check()?;
                Ok(group)
            }

            /// The resolved values in declaration order, for [`to_yaml`](crate::config::to_yaml)
            pub fn to_values(&self) -> Vec<(&'static str, $crate::config::Value)> {
                vec![$($(
                    (stringify!($name), $crate::config::ConfigValue::to_value(&self.$name)),
                )+)+]
            }
        }
    };
    (@range) => { $crate::config::Range::ANY };
    (@range $range:expr) => { $range };
}

/// Declares the named values of a key.
///
/// More names for one value stand after `|`; names that TRL knows and this program refuses stand under `refused`, each
/// with the reason.
///
/// ```ignore
/// config_choice! {
///     /// Which tokens a long sequence keeps
///     pub enum TruncationMode {
///         /// The first
///         KeepStart = "keep_start",
///         /// The last
///         KeepEnd = "keep_end",
///     }
///     refused { "keep_middle" => "no trainer can want it" }
/// }
/// ```
macro_rules! config_choice {
    (
        $(#[doc = $about:expr])+
        pub enum $choice:ident {
            $(
                $(#[doc = $help:expr])+
                $variant:ident = $name:literal $(| $alias:literal)* ,
            )+
        }
        $(refused { $($refused:literal => $reason:expr),+ $(,)? })?
    ) => {
        $(#[doc = $about])+
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum $choice {
            $(
                $(#[doc = $help])+
                $variant,
            )+
        }

        impl $choice {
            /// The name that configs use
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)+
                }
            }
        }

        impl std::fmt::Display for $choice {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl $crate::config::ConfigValue for $choice {
            const VALUE_NAME: &'static str = "NAME";

            fn expected() -> String {
                $crate::config::one_of(&Self::choices())
            }

            fn choices() -> Vec<&'static str> {
                vec![$($name),+]
            }

            fn parse(value: &$crate::config::Value) -> std::result::Result<Self, $crate::config::Problem> {
                const REFUSED: &[(&str, &str)] = &[$($(($refused, $reason)),+)?];
                match $crate::config::choice_name(value) {
                    $(Some($name $(| $alias)*) => Ok(Self::$variant),)+
                    _ => Err($crate::config::choice_problem(value, &Self::choices(), REFUSED)),
                }
            }

            fn to_value(&self) -> $crate::config::Value {
                $crate::config::Value::text(self.as_str())
            }
        }
    };
}

pub(crate) use {config_choice, config_keys};

/// The name that a value stands for; YAML turns a bare `no` into `false`
pub(crate) fn choice_name(value: &Value) -> Option<&str> {
    match value {
        Value::Bool(false) => Some("no"),
        Value::Text(text) => Some(text),
        Value::Null => Some("none"),
        _ => None,
    }
}

pub(crate) fn one_of(names: &[&str]) -> String {
    match names {
        [only] => format!("`{only}`"),
        _ => format!("one of {}", names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")),
    }
}

pub(crate) fn choice_problem(
    value: &Value,
    names: &[&'static str],
    refused: &[(&'static str, &'static str)],
) -> super::Problem {
    let found = choice_name(value).unwrap_or_default();
    if let Some((name, reason)) = refused.iter().find(|(name, _)| *name == found) {
        return super::Problem::Refused { found: format!("`{name}`"), reason: (*reason).to_owned() };
    }
    let known = names.iter().chain(refused.iter().map(|(name, _)| name)).copied();
    super::Problem::Expected {
        expected: one_of(names),
        found: value.to_string(),
        hint: nearest(found, known).map(|name| format!("did you mean `{name}`?")),
    }
}
