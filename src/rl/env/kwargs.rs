//! The keyword arguments that Gymnasium's `make` hands to an environment.

use serde_json::{Map, Value};

use crate::error::{Error, Result};

/// Keyword arguments by name, as in `env_kwargs: {is_slippery: false}`
pub type Kwargs = Map<String, Value>;

/// Hands keyword arguments to an environment, which takes them one by one
pub(super) struct KwargReader<'a> {
    id: &'a str,
    given: Kwargs,
    known: Vec<&'static str>,
}

impl<'a> KwargReader<'a> {
    pub(super) fn new(id: &'a str, given: &Kwargs) -> Self {
        Self { id, given: given.clone(), known: Vec::new() }
    }

    pub(super) fn bool(&mut self, name: &'static str, default: bool) -> Result<bool> {
        self.take(name, default, "`true` or `false`", Value::as_bool)
    }

    pub(super) fn number(&mut self, name: &'static str, default: f64) -> Result<f64> {
        self.take(name, default, "a number", Value::as_f64)
    }

    /// A number from 0 to 1
    pub(super) fn probability(&mut self, name: &'static str, default: f64) -> Result<f64> {
        self.take(name, default, "a number from 0 to 1", |value| value.as_f64().filter(|p| (0.0..=1.0).contains(p)))
    }

    /// What `parse` makes of the value, or `default` where there is none
    pub(super) fn take<T>(
        &mut self,
        name: &'static str,
        default: T,
        expected: &str,
        parse: impl FnOnce(&Value) -> Option<T>,
    ) -> Result<T> {
        self.known.push(name);
        let Some(value) = self.given.shift_remove(name) else { return Ok(default) };
        parse(&value)
            .ok_or_else(|| Error::usage(format!("`{name}` of `{}` must be {expected}, got `{value}`", self.id)))
    }

    /// Refuses what nobody took
    pub(super) fn finish(self) -> Result<()> {
        let Some(name) = self.given.keys().next() else { return Ok(()) };
        let error = Error::usage(format!("`{}` takes no argument `{name}`", self.id));
        Err(if self.known.is_empty() {
            error.hint("it takes none")
        } else {
            error.hint(format!("it takes `{}`", self.known.join("`, `")))
        })
    }
}
