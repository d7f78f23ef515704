//! YAML in and out; the only file that knows the YAML crate.

use serde::Serialize;
use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::ser::{SerializeMap, Serializer};
use serde_saphyr::{Location, MessageFormatter, Spanned};

use super::value::Value;
use super::values::{Entry, Place};
use crate::{Error, Result};

/// Reads a config file's text; `name` is what messages call the file
pub(super) fn parse_document(text: &str, name: &str) -> Result<Vec<Entry>> {
    let entries = match serde_saphyr::from_str(text).map_err(|error| syntax_error(&error, name))? {
        Document::Map(entries) => entries,
        Document::Other(found) => {
            return Err(Error::usage(format!("{name}:1: a config is a map of keys to values, got {found}"))
                .hint("write `key: value`, one a line"));
        }
    };
    let entries = entries.into_iter().map(|(key, value)| Entry {
        key_place: place(name, &key.referenced),
        key: key.value,
        place: place(name, &value.referenced),
        value: as_written(value, text),
    });
    Ok(entries.collect())
}

/// Reads one value that a flag carries, such as `{"a": "b"}`
pub(super) fn parse_inline(text: &str) -> Option<Value> {
    serde_saphyr::from_str(text).ok()
}

/// The resolved config as the text of `config.yaml`, one key a line in the order given
pub fn to_yaml<N: Serialize>(values: impl IntoIterator<Item = (N, Value)>) -> Result<String> {
    let resolved = Resolved(values.into_iter().collect());
    serde_saphyr::to_string(&resolved).map_err(|error| Error::run(format!("cannot write the config as YAML: {error}")))
}

struct Resolved<N>(Vec<(N, Value)>);

impl<N: Serialize> Serialize for Resolved<N> {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (key, value) in &self.0 {
            map.serialize_entry(key, value)?;
        }
        map.end()
    }
}

/// The top-level map with the place of each key and value
enum Document {
    Map(Vec<(Spanned<String>, Spanned<Value>)>),
    Other(Value),
}

impl<'de> Deserialize<'de> for Document {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        struct DocumentVisitor;

        impl<'de> Visitor<'de> for DocumentVisitor {
            type Value = Document;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a map of keys to values")
            }

            // An empty file sets nothing
            fn visit_unit<E>(self) -> std::result::Result<Document, E> {
                Ok(Document::Map(Vec::new()))
            }

            fn visit_str<E>(self, text: &str) -> std::result::Result<Document, E> {
                Ok(Document::Other(Value::text(text)))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> std::result::Result<Document, A::Error> {
                while access.next_element::<IgnoredAny>()?.is_some() {}
                Ok(Document::Other(Value::List(Vec::new())))
            }

            fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> std::result::Result<Document, A::Error> {
                let mut entries = Vec::new();
                while let Some(entry) = access.next_entry()? {
                    entries.push(entry);
                }
                Ok(Document::Map(entries))
            }
        }

        deserializer.deserialize_any(DocumentVisitor)
    }
}

/// Gives a number the digits of the file, which are what messages and text keys want
fn as_written(value: Spanned<Value>, text: &str) -> Value {
    let span = value.defined.span();
    let written = span
        .byte_offset()
        .zip(span.byte_len())
        .and_then(|(start, length)| text.get(start as usize..(start + length) as usize))
        .map(str::trim);
    match (value.value, written) {
        (Value::Number(_), Some(written)) if written.parse::<f64>().is_ok() => Value::Number(written.to_owned()),
        (value, _) => value,
    }
}

fn place(name: &str, location: &Location) -> Place {
    Place::File { name: name.to_owned(), line: location.line(), column: location.column() }
}

/// `file:line:column: what is wrong`
fn syntax_error(error: &serde_saphyr::Error, name: &str) -> Error {
    let error = error.without_snippet();
    let formatter = serde_saphyr::UserMessageFormatter;
    let error_text = match error {
        serde_saphyr::Error::DuplicateMappingKey { key: Some(key), .. } => {
            Error::usage(format!("`{key}` is set twice")).hint("keep one of the two")
        }
        serde_saphyr::Error::NonFiniteFloat { value, .. } => {
            Error::usage(format!("a number must be finite, got `{value}`"))
        }
        other => {
            let message = formatter.format_message(other);
            Error::usage(format!("not valid as YAML: {}", message.trim_end_matches('.')))
        }
    };
    match error.location() {
        Some(location) => error_text.context(format!("{name}:{}:{}", location.line(), location.column())),
        None => error_text.context(name),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::config::ConfigValue;

    fn through_yaml<T: ConfigValue>(value: &T) -> T {
        let text = to_yaml([("key", value.to_value())]).unwrap();
        let entries = parse_document(&text, "config.yaml").unwrap_or_else(|error| panic!("{error} in {text:?}"));
        T::parse(&entries[0].value).unwrap_or_else(|problem| panic!("{problem:?} in {text:?}"))
    }

    #[test]
    fn words_that_yaml_reads_otherwise_stay_words() {
        for word in
            ["no", "yes", "on", "null", "~", "", " ", "1e5", "0x1f", "1_000", "- a", "a: b", "#", "'", "\"", "\n"]
        {
            assert_eq!(through_yaml(&word.to_owned()), word);
        }
        assert_eq!(through_yaml(&vec!["no".to_owned(), "a, b".to_owned()]), ["no", "a, b"]);
    }

    proptest! {
        #[test]
        fn any_text_survives(text in any::<String>()) {
            prop_assert_eq!(through_yaml(&text), text);
        }

        #[test]
        fn any_number_survives_to_the_bit(number in any::<f64>().prop_filter("finite", |number| number.is_finite())) {
            prop_assert_eq!(through_yaml(&number).to_bits(), number.to_bits());
        }
    }
}
