//! What a judge outside of this program is told about a sample, and how its answer is read.

use serde_json::{Map, Value, json};

use super::Sample;
use crate::process::excerpt;

/// `{"prompt", "completion", "completion_ids", "truncated", ...columns}`: these four beat columns of the same names
pub(super) fn sample_json(sample: &Sample<'_>) -> Value {
    let mut object = Map::new();
    object.insert("prompt".to_owned(), sample.prompt.clone());
    object.insert("completion".to_owned(), sample.completion.clone());
    object.insert("completion_ids".to_owned(), json!(sample.completion_ids));
    object.insert("truncated".to_owned(), Value::Bool(sample.truncated));
    for (name, value) in sample.columns {
        object.entry(name).or_insert_with(|| value.clone());
    }
    Value::Object(object)
}

/// What was said is neither a number nor null
#[derive(Debug, PartialEq, Eq)]
pub(super) struct NoValue;

/// A number or null; NaN and infinities in the spellings of Python and JavaScript, for the caller to refuse with the
/// sample's name
pub(super) fn parse_value(text: &str) -> Result<Option<f64>, NoValue> {
    match text {
        "NaN" | "nan" => return Ok(Some(f64::NAN)),
        "Infinity" | "inf" => return Ok(Some(f64::INFINITY)),
        "-Infinity" | "-inf" => return Ok(Some(f64::NEG_INFINITY)),
        _ => {}
    }
    match serde_json::from_str(text) {
        Ok(Value::Null) => Ok(None),
        Ok(Value::Number(number)) => number.as_f64().map(Some).ok_or(NoValue),
        _ => Err(NoValue),
    }
}

/// A sample as a message names it
pub(super) fn describe(sample: &Sample<'_>) -> String {
    let prompt = match sample.prompt {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    format!("prompt `{}`, completion `{}`", excerpt(&prompt), excerpt(&sample.completion_text()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_numbers_and_null_are_answers() {
        for (text, value) in [("1", 1.0), ("-0.5", -0.5), ("1e3", 1000.0), ("0", 0.0)] {
            assert_eq!(parse_value(text), Ok(Some(value)), "{text}");
        }
        assert_eq!(parse_value("null"), Ok(None));
        for text in ["", "true", "\"1\"", "[1]", "one", "1 2", "0x1", "None", "+1", "1e999"] {
            assert_eq!(parse_value(text), Err(NoValue), "{text}");
        }
        assert!(parse_value("NaN").unwrap().unwrap().is_nan());
        assert_eq!(parse_value("-Infinity"), Ok(Some(f64::NEG_INFINITY)));
    }

    #[test]
    fn a_column_cannot_pass_for_the_completion() {
        let columns = json!({"completion": "forged", "answer": 3, "prompt": "p"});
        let (prompt, completion) = (json!("p"), json!("c"));
        let columns = columns.as_object().unwrap();
        let sample =
            Sample { prompt: &prompt, completion: &completion, completion_ids: &[1, 2], columns, truncated: true };
        let expected = r#"{"prompt":"p","completion":"c","completion_ids":[1,2],"truncated":true,"answer":3}"#;
        assert_eq!(sample_json(&sample).to_string(), expected);
    }
}
