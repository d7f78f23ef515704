//! Numbers of the classical agents that may also be something else: falling over the run, or left to the agent.

use crate::config::{ConfigValue, Problem, Value};

/// A number, or `lin_` and a number that falls to 0 over the run, as RL-Zoo writes it
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Falling {
    /// At the start
    pub initial: f64,
    /// Whether it falls
    pub linear: bool,
}

impl Falling {
    /// One that does not fall
    pub const fn constant(initial: f64) -> Self {
        Self { initial, linear: false }
    }
}

impl ConfigValue for Falling {
    const VALUE_NAME: &'static str = "X|lin_X";

    fn expected() -> String {
        "a number above 0, or `lin_` and such a number".to_owned()
    }

    fn parse(value: &Value) -> Result<Self, Problem> {
        let parse = |text: &str| {
            let (linear, digits) = text.strip_prefix("lin_").map_or((false, text), |digits| (true, digits));
            let initial = digits.trim().parse().ok().filter(|number: &f64| number.is_finite() && *number > 0.0)?;
            Some(Self { initial, linear })
        };
        match value {
            Value::Number(text) | Value::Text(text) => parse(text.trim()),
            _ => None,
        }
        .ok_or_else(|| Problem::expected::<Self>(value))
    }

    fn to_value(&self) -> Value {
        if self.linear { Value::text(format!("lin_{:?}", self.initial)) } else { self.initial.to_value() }
    }
}

/// Weight of the entropy: a number, or `auto` (`auto_X` to start at X) where the agent finds it by itself
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum EntropyWeight {
    /// This
    Fixed(f64),
    /// Learned, from this on
    Auto {
        /// At the start
        initial: f64,
    },
}

impl ConfigValue for EntropyWeight {
    const VALUE_NAME: &'static str = "X|auto|auto_X";

    fn expected() -> String {
        "a number of at least 0, `auto`, or `auto_` and a number above 0".to_owned()
    }

    fn parse(value: &Value) -> Result<Self, Problem> {
        let number = |text: &str| text.parse().ok().filter(|number: &f64| number.is_finite() && *number >= 0.0);
        let parse = |text: &str| match text.strip_prefix("auto") {
            Some("") => Some(Self::Auto { initial: 1.0 }),
            Some(rest) => {
                let initial = number(rest.strip_prefix('_')?).filter(|initial| *initial > 0.0)?;
                Some(Self::Auto { initial })
            }
            None => number(text).map(Self::Fixed),
        };
        match value {
            Value::Number(text) | Value::Text(text) => parse(text.trim()),
            _ => None,
        }
        .ok_or_else(|| Problem::expected::<Self>(value))
    }

    fn to_value(&self) -> Value {
        match self {
            Self::Fixed(weight) => weight.to_value(),
            Self::Auto { initial } if *initial == 1.0 => Value::text("auto"),
            Self::Auto { initial } => Value::text(format!("auto_{initial:?}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schedules_are_numbers_or_fall() {
        let parse = |text: &str| Falling::parse(&Value::text(text)).ok();
        assert_eq!(parse("lin_0.001"), Some(Falling { initial: 0.001, linear: true }));
        assert_eq!(parse("3e-4"), Some(Falling::constant(3e-4)));
        for falling in [Falling::constant(0.1), Falling { initial: 2.3e-3, linear: true }] {
            assert_eq!(Falling::parse(&falling.to_value()).ok(), Some(falling));
        }
        for refused in ["lin_", "-1", "exp_0.1", "nan"] {
            assert_eq!(parse(refused), None, "{refused}");
        }
    }

    #[test]
    fn the_weight_of_the_entropy_is_a_number_or_found() {
        let parse = |text: &str| EntropyWeight::parse(&Value::text(text)).ok();
        for weight in
            [EntropyWeight::Fixed(0.0), EntropyWeight::Auto { initial: 1.0 }, EntropyWeight::Auto { initial: 0.1 }]
        {
            assert_eq!(EntropyWeight::parse(&weight.to_value()).ok(), Some(weight));
        }
        assert_eq!(parse("auto_0.5"), Some(EntropyWeight::Auto { initial: 0.5 }));
        for refused in ["auto_", "auto0.1", "auto_0", "-0.1", "nan", "automatic"] {
            assert_eq!(parse(refused), None, "{refused}");
        }
    }
}
