//! Which of TRL's dataset formats a row is in, and its contents in that format.

use serde::Serialize;
use serde_json::{Map, Value};

use super::reader::Dataset;
use super::record::{Row, list_names, nearest, type_name};
use crate::error::{Error, Result};

/// What the columns mean
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// `input_ids`, made elsewhere
    Tokenized,
    /// `chosen_ids`, `rejected_ids` and, where they go on from one, `prompt_ids`, made elsewhere
    TokenizedPreference,
    /// `prompt`, `chosen`, `rejected`
    Preference,
    /// `chosen`, `rejected` that share their beginning
    ImplicitPreference,
    /// `prompt`, `completion`, `label`
    UnpairedPreference,
    /// `prompt`, `completion`
    PromptCompletion,
    /// `text` or `messages`
    LanguageModeling,
    /// `prompt`
    PromptOnly,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Tokenized => "tokenised",
            Self::TokenizedPreference => "tokenised preference",
            Self::Preference => "preference",
            Self::ImplicitPreference => "preference with implicit prompt",
            Self::UnpairedPreference => "unpaired preference",
            Self::PromptCompletion => "prompt-completion",
            Self::LanguageModeling => "language modelling",
            Self::PromptOnly => "prompt-only",
        }
    }
}

/// A dataset's format: the meaning of its columns, and whether they hold messages
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Format {
    /// The meaning of the columns
    pub kind: Kind,
    /// Lists of messages rather than texts
    pub conversational: bool,
}

impl std::fmt::Display for Format {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let shape = if self.conversational { "conversational" } else { "standard" };
        match self.kind {
            Kind::Tokenized | Kind::TokenizedPreference => f.write_str(self.kind.name()),
            kind => write!(f, "{}, {shape}", kind.name()),
        }
    }
}

impl Format {
    /// The format of a dataset by its first row, for a look at it; `text_field` is the column of plain text
    pub fn of(dataset: &Dataset, text_field: &str) -> Result<Self> {
        const ANY: [Kind; 8] = [
            Kind::Tokenized,
            Kind::TokenizedPreference,
            Kind::Preference,
            Kind::ImplicitPreference,
            Kind::UnpairedPreference,
            Kind::PromptCompletion,
            Kind::LanguageModeling,
            Kind::PromptOnly,
        ];
        Self::among(
            dataset,
            &ANY,
            text_field,
            "`text`, `messages`, `prompt` with `completion`, or `chosen` and `rejected`",
        )
    }

    /// The first of `kinds` that the first row can serve; `needs` says in words which columns that takes
    pub(super) fn among(dataset: &Dataset, kinds: &[Kind], text_field: &str, needs: &str) -> Result<Self> {
        let first = &dataset.rows[0];
        let Some(kind) = kinds.iter().copied().find(|kind| serves(first, *kind, text_field)) else {
            let found: Vec<&str> = first.fields.keys().map(String::as_str).collect();
            return Err(Error::usage(format!(
                "{}: the dataset has the columns {}, but {needs} is needed",
                first.place,
                list_names(&found)
            ))
            .hint(rename_hint(&found, kinds, text_field)));
        };
        let column = leading_column(first, kind, text_field);
        let tokenised = matches!(kind, Kind::Tokenized | Kind::TokenizedPreference);
        let conversational = first.fields.get(column).is_some_and(Value::is_array) && !tokenised;
        Ok(Self { kind, conversational })
    }

    /// Refuses a row of another format than the dataset's
    pub(super) fn check(self, row: &Row, text_field: &str) -> Result<()> {
        if serves(row, self.kind, text_field) {
            // Left unsaid, a prompt that only later rows have would be passed over
            if self.kind == Kind::ImplicitPreference && present(row, "prompt") {
                return Err(Error::usage(format!("{}: has a `prompt`, which the first row lacks", row.place))
                    .hint("give each row a `prompt`, or none"));
            }
            return Ok(());
        }
        let found: Vec<&str> =
            row.fields.iter().filter(|(_, value)| !value.is_null()).map(|(n, _)| n.as_str()).collect();
        let columns = columns(self.kind, row, text_field);
        let missing: Vec<&str> = columns.into_iter().filter(|name| !found.contains(name)).collect();
        let null = missing.iter().any(|name| row.fields.contains_key(*name));
        let what = if null { "null in" } else { "no column" };
        Err(Error::usage(format!(
            "{}: {what} {}, though the dataset is in the {} format by its first row; this row has {}",
            row.place,
            list_names(&missing),
            self.kind.name(),
            list_names(&found)
        ))
        .hint("a dataset holds rows of one format; correct or remove this row"))
    }
}

fn columns<'a>(kind: Kind, row: &Row, text_field: &'a str) -> Vec<&'a str> {
    match kind {
        Kind::Tokenized => vec!["input_ids"],
        Kind::TokenizedPreference => vec!["chosen_ids", "rejected_ids"],
        Kind::Preference => vec!["prompt", "chosen", "rejected"],
        Kind::ImplicitPreference => vec!["chosen", "rejected"],
        Kind::UnpairedPreference => vec!["prompt", "completion", "label"],
        Kind::PromptCompletion => vec!["prompt", "completion"],
        Kind::PromptOnly => vec!["prompt"],
        Kind::LanguageModeling => vec![leading_column(row, kind, text_field)],
    }
}

fn present(row: &Row, column: &str) -> bool {
    row.fields.get(column).is_some_and(|value| !value.is_null())
}

fn serves(row: &Row, kind: Kind, text_field: &str) -> bool {
    columns(kind, row, text_field).into_iter().all(|column| present(row, column))
}

/// The column whose value shows whether rows hold texts or messages
pub(super) fn leading_column<'a>(row: &Row, kind: Kind, text_field: &'a str) -> &'a str {
    match kind {
        Kind::Tokenized => "input_ids",
        Kind::TokenizedPreference => "chosen_ids",
        Kind::Preference | Kind::ImplicitPreference => "chosen",
        Kind::UnpairedPreference | Kind::PromptCompletion | Kind::PromptOnly => "prompt",
        Kind::LanguageModeling if present(row, "messages") => "messages",
        Kind::LanguageModeling if present(row, "conversations") => "conversations",
        Kind::LanguageModeling => text_field,
    }
}

fn rename_hint(found: &[&str], kinds: &[Kind], text_field: &str) -> String {
    let wanted = kinds.iter().flat_map(|kind| match kind {
        Kind::Tokenized | Kind::TokenizedPreference => vec![],
        Kind::LanguageModeling => vec![text_field, "messages"],
        Kind::PromptCompletion | Kind::UnpairedPreference => vec!["prompt", "completion"],
        Kind::Preference | Kind::ImplicitPreference => vec!["prompt", "chosen", "rejected"],
        Kind::PromptOnly => vec!["prompt"],
    });
    for name in wanted {
        if let Some(near) = nearest(name, found).filter(|_| !found.contains(&name)) {
            return format!("map a column with `columns: {{{near}: {name}}}`");
        }
    }
    "map columns with `columns: {FOUND: EXPECTED}` or `collimate data convert --columns FOUND=EXPECTED`".to_string()
}

/// A text, or messages with `role` and `content`
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Content<'a> {
    Text(&'a str),
    Messages(Vec<Value>),
}

impl<'a> Content<'a> {
    /// As it stands in a row
    pub(super) fn to_value(&self) -> Value {
        match self {
            Self::Text(text) => Value::String((*text).to_owned()),
            Self::Messages(messages) => Value::Array(messages.clone()),
        }
    }

    /// The column's content, checked
    pub(super) fn of(row: &'a Row, column: &str, conversational: bool) -> Result<Self> {
        let value = row.fields.get(column).unwrap_or(&Value::Null);
        match (value, conversational) {
            (Value::String(text), false) => Ok(Self::Text(text)),
            (Value::Array(messages), true) => {
                let place = |index| format!("{}: `{column}`[{index}]", row.place);
                let messages =
                    messages.iter().enumerate().map(|(index, message)| check_message(message, || place(index)));
                Ok(Self::Messages(messages.collect::<Result<_>>()?))
            }
            (Value::String(_) | Value::Array(_), _) => {
                let (found, others) =
                    if conversational { ("a text", "lists of messages") } else { ("a list", "texts") };
                Err(Error::usage(format!(
                    "{}: `{column}` is {found}, but the other columns and rows hold {others}",
                    row.place
                ))
                .hint("a dataset is either all texts or all lists of `{\"role\", \"content\"}` messages"))
            }
            (other, _) => {
                let expected = if conversational { "a list of messages" } else { "a string" };
                Err(Error::usage(format!("{}: `{column}` is {}, expected {expected}", row.place, type_name(other))))
            }
        }
    }
}

fn check_message(message: &Value, place: impl Fn() -> String) -> Result<Value> {
    let Value::Object(fields) = message else {
        return Err(Error::usage(format!("{}: expected a message, found {}", place(), type_name(message)))
            .hint("a message is an object such as `{\"role\": \"user\", \"content\": \"…\"}`"));
    };
    let mut message = Map::with_capacity(fields.len());
    for (name, value) in fields.iter().filter(|(_, value)| !value.is_null()) {
        let name = match name.as_str() {
            "from" if !fields.contains_key("role") => "role",
            "value" if !fields.contains_key("content") => "content",
            other => other,
        };
        message.insert(name.to_string(), value.clone());
    }
    let wrong = |name: &str, found: Option<&Value>, expected: &str| {
        Err(Error::usage(format!(
            "{}: `{name}` is {}, expected {expected}",
            place(),
            found.map_or("missing", type_name)
        )))
    };
    match message.get("role") {
        Some(Value::String(_)) => {}
        other => return wrong("role", other, "a string"),
    }
    match message.get("content") {
        Some(Value::String(_) | Value::Array(_)) => {}
        None if message.contains_key("tool_calls") => {}
        other => return wrong("content", other, "a string"),
    }
    Ok(Value::Object(message))
}

/// Splits `chosen` and `rejected` at their common beginning, which is the prompt: TRL's `extract_prompt`, character for
/// character. A space before the place where they part goes with the completions. If one is the beginning of the other,
/// the last shared character stays with the completions too. `None` where one of them is empty, on which TRL fails.
pub fn extract_prompt<'a>(chosen: &'a str, rejected: &'a str) -> Option<(&'a str, &'a str, &'a str)> {
    let mut at = None;
    let mut before = None;
    for ((index, left), right) in chosen.char_indices().zip(rejected.chars()) {
        at = Some(index);
        if left != right {
            // Python's index -1 before the first character is the last one
            let previous = before.or_else(|| chosen.char_indices().next_back());
            if let Some((start, ' ')) = previous {
                if before.is_none() {
                    let cut = rejected.char_indices().next_back().map_or(0, |(cut, _)| cut);
                    return Some((&chosen[..start], &chosen[start..], &rejected[cut..]));
                }
                at = Some(start);
            }
            break;
        }
        before = Some((index, left));
    }
    at.map(|at| (&chosen[..at], &chosen[at..], &rejected[at..]))
}

/// [`extract_prompt`] for messages: the shared first messages are the prompt; `None` where one list is empty
pub(super) fn extract_messages(
    chosen: Vec<Value>,
    rejected: Vec<Value>,
) -> Option<(Vec<Value>, Vec<Value>, Vec<Value>)> {
    let shorter = chosen.len().min(rejected.len());
    let at = (0..shorter).find(|&index| chosen[index] != rejected[index]).or(shorter.checked_sub(1))?;
    Some((chosen[..at].to_vec(), chosen[at..].to_vec(), rejected[at..].to_vec()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    // Expected values are those of trl.data_utils.extract_prompt 1.16
    #[test]
    fn the_prompt_is_the_common_beginning() {
        let cases = [
            (("Q: a\nA: yes", "Q: a\nA: no"), ("Q: a\nA:", " yes", " no")),
            (("The sky is blue", "The sky is green"), ("The sky is", " blue", " green")),
            (("ab", "ac"), ("a", "b", "c")),
            (("same", "same"), ("sam", "e", "e")),
            (("abc", "abcd"), ("ab", "c", "cd")),
            (("héé x", "héé y"), ("héé", " x", " y")),
            (("x", "y"), ("", "x", "y")),
            (("yes ", "no"), ("yes", " ", "o")),
            (("a", "a b"), ("", "a", "a b")),
        ];
        for ((chosen, rejected), expected) in cases {
            assert_eq!(extract_prompt(chosen, rejected), Some(expected), "{chosen:?} {rejected:?}");
        }
        assert_eq!(extract_prompt("", "a"), None);
    }

    #[test]
    fn shared_messages_are_the_prompt() {
        let user = json!({"role": "user", "content": "q"});
        let answer = |text: &str| json!({"role": "assistant", "content": text});
        let chosen = vec![user.clone(), answer("a")];
        let rejected = vec![user.clone(), answer("b")];
        assert_eq!(
            extract_messages(chosen.clone(), rejected),
            Some((vec![user.clone()], vec![answer("a")], vec![answer("b")]))
        );
        assert_eq!(extract_messages(chosen.clone(), chosen), Some((vec![user], vec![answer("a")], vec![answer("a")])));
        assert_eq!(extract_messages(Vec::new(), vec![answer("a")]), None);
    }
}
