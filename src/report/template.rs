//! What the pages share: their style, and values as the template library takes them.

use minijinja::{Environment, Value as Jinja};
use serde::Serialize;
use serde_json::Value;

use crate::error::{Error, Result};

/// Fills in `page`, whose text may include `style.css`. Everything that is put in is escaped
pub(super) fn fill(page: &'static str, context: Jinja) -> Result<String> {
    let failed = |cause: minijinja::Error| Error::run(format!("cannot write the page: {cause:#}"));
    let mut environment = Environment::new();
    // The name's ending makes the library escape what is put in
    environment.add_template("page.html", page).map_err(failed)?;
    environment.add_template("style.css", include_str!("style.css")).map_err(failed)?;
    environment.get_template("page.html").and_then(|template| template.render(context)).map_err(failed)
}

/// The template library is built without serde
pub(super) fn jinja(shown: impl Serialize) -> Jinja {
    fn convert(value: Value) -> Jinja {
        match value {
            Value::Null => Jinja::from(()),
            Value::Bool(value) => value.into(),
            Value::Number(value) => match value.as_i64() {
                Some(whole) => whole.into(),
                None => value.as_f64().unwrap_or(f64::NAN).into(),
            },
            Value::String(text) => text.into(),
            Value::Array(values) => values.into_iter().map(convert).collect(),
            Value::Object(fields) => Jinja::from_pairs(fields.into_iter().map(|(key, value)| (key, convert(value)))),
        }
    }
    convert(serde_json::to_value(shown).unwrap_or_default())
}
