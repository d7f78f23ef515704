//! What chat templates expect of Python: `json.dumps`, `str()` of values, the clock, and transformers' extra tag.

use std::fmt::Write as _;
use std::time::{SystemTime, UNIX_EPOCH};

use minijinja::value::{Kwargs, Value as Jinja, ValueKind};
use minijinja::{Error, ErrorKind, Output, State};
use serde_json::Value;

/// A JSON value for the template, with the order of its keys
pub(super) fn jinja_value(value: &Value) -> Jinja {
    match value {
        Value::Null => Jinja::from(()),
        Value::Bool(value) => (*value).into(),
        Value::Number(number) => match (number.as_i64(), number.as_u64()) {
            (Some(number), _) => number.into(),
            (None, Some(number)) => number.into(),
            (None, None) => number.as_f64().into(),
        },
        Value::String(text) => text.as_str().into(),
        Value::Array(items) => items.iter().map(jinja_value).collect(),
        Value::Object(fields) => {
            Jinja::from_pairs(fields.iter().map(|(name, value)| (name.as_str(), jinja_value(value))))
        }
    }
}

/// `{{ value }}` as Python prints it
pub(super) fn format(output: &mut Output, _: &mut State, value: &Jinja) -> Result<(), Error> {
    let mut text = String::new();
    match value.as_str() {
        Some(text) => return output.write_str(text).map_err(|_| Error::from(ErrorKind::WriteFailure)),
        None if value.is_undefined() => return Ok(()),
        None => repr(value, &mut text)?,
    }
    output.write_str(&text).map_err(|_| Error::from(ErrorKind::WriteFailure))
}

fn repr(value: &Jinja, out: &mut String) -> Result<(), Error> {
    match value.kind() {
        ValueKind::Undefined => out.push_str("Undefined"),
        ValueKind::None => out.push_str("None"),
        ValueKind::Bool => out.push_str(if value.is_true() { "True" } else { "False" }),
        ValueKind::Number => number(value, out),
        ValueKind::String => string_repr(value.as_str().unwrap_or_default(), out),
        ValueKind::Map => wrap(out, value, ['{', '}'], |key, out| {
            repr(key, out)?;
            out.push_str(": ");
            repr(&value.get_item(key)?, out)
        })?,
        ValueKind::Seq | ValueKind::Iterable => wrap(out, value, ['[', ']'], repr)?,
        _ => write!(out, "{value}").map_err(|_| Error::from(ErrorKind::WriteFailure))?,
    }
    Ok(())
}

fn wrap(
    out: &mut String,
    value: &Jinja,
    [open, close]: [char; 2],
    mut item: impl FnMut(&Jinja, &mut String) -> Result<(), Error>,
) -> Result<(), Error> {
    out.push(open);
    for (index, entry) in value.try_iter()?.enumerate() {
        if index > 0 {
            out.push_str(", ");
        }
        item(&entry, out)?;
    }
    out.push(close);
    Ok(())
}

fn number(value: &Jinja, out: &mut String) {
    if value.is_integer() {
        let _ = write!(out, "{value}");
        return;
    }
    let float = f64::try_from(value.clone()).unwrap_or(f64::NAN);
    let exponent = float.abs().log10().floor();
    // Python's `repr` changes to the exponent form outside of 1e-4..1e16
    let _ = if float == 0.0 || (-4.0..16.0).contains(&exponent) {
        write!(out, "{float:?}")
    } else {
        let text = format!("{float:e}");
        let (digits, power) = text.split_once('e').unwrap_or((&text, "0"));
        let (sign, power) = power.strip_prefix('-').map_or(('+', power), |power| ('-', power));
        write!(out, "{digits}e{sign}{power:0>2}")
    };
}

fn string_repr(text: &str, out: &mut String) {
    let quote = if text.contains('\'') && !text.contains('"') { '"' } else { '\'' };
    out.push(quote);
    for c in text.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if c == quote => out.extend(['\\', c]),
            c => out.push(c),
        }
    }
    out.push(quote);
}

/// The filter `tojson`: `json.dumps` with `ensure_ascii` off unless asked for, and nothing escaped for HTML
pub(super) fn to_json(value: &Jinja, kwargs: Kwargs) -> Result<String, Error> {
    let separators: Option<Vec<String>> = kwargs.get("separators")?;
    let style = Dump {
        indent: kwargs.get("indent")?,
        sort: kwargs.get::<Option<bool>>("sort_keys")?.unwrap_or(false),
        ascii: kwargs.get::<Option<bool>>("ensure_ascii")?.unwrap_or(false),
        separators: match separators.as_deref() {
            Some([item, key]) => Some((item.clone(), key.clone())),
            Some(_) => return Err(Error::new(ErrorKind::InvalidOperation, "`separators` holds two texts")),
            None => None,
        },
    };
    kwargs.assert_all_used()?;
    let mut out = String::new();
    style.value(value, 0, &mut out)?;
    Ok(out)
}

struct Dump {
    indent: Option<usize>,
    sort: bool,
    ascii: bool,
    separators: Option<(String, String)>,
}

impl Dump {
    fn value(&self, value: &Jinja, depth: usize, out: &mut String) -> Result<(), Error> {
        match value.kind() {
            ValueKind::None => out.push_str("null"),
            ValueKind::Bool => out.push_str(if value.is_true() { "true" } else { "false" }),
            ValueKind::Number => number(value, out),
            ValueKind::String => self.string(value.as_str().unwrap_or_default(), out),
            ValueKind::Map => {
                let mut keys: Vec<Jinja> = value.try_iter()?.collect();
                if self.sort {
                    keys.sort();
                }
                self.items(['{', '}'], keys, depth, out, |dump, key, out| {
                    dump.string(&key.to_string(), out);
                    out.push_str(dump.separators.as_ref().map_or(": ", |(_, key)| key));
                    dump.value(&value.get_item(&key)?, depth + 1, out)
                })?;
            }
            ValueKind::Seq | ValueKind::Iterable => {
                let items = value.try_iter()?.collect();
                self.items(['[', ']'], items, depth, out, |dump, item, out| dump.value(&item, depth + 1, out))?;
            }
            kind => {
                return Err(Error::new(
                    ErrorKind::BadSerialization,
                    format!("`tojson` cannot write a value that is {kind}"),
                ));
            }
        }
        Ok(())
    }

    fn items(
        &self,
        [open, close]: [char; 2],
        items: Vec<Jinja>,
        depth: usize,
        out: &mut String,
        mut item: impl FnMut(&Self, Jinja, &mut String) -> Result<(), Error>,
    ) -> Result<(), Error> {
        out.push(open);
        let empty = items.is_empty();
        for (index, entry) in items.into_iter().enumerate() {
            if index > 0 {
                let default = if self.indent.is_some() { "," } else { ", " };
                out.push_str(self.separators.as_ref().map_or(default, |(item, _)| item));
            }
            self.new_line(depth + 1, out);
            item(self, entry, out)?;
        }
        if !empty {
            self.new_line(depth, out);
        }
        out.push(close);
        Ok(())
    }

    fn new_line(&self, depth: usize, out: &mut String) {
        if let Some(indent) = self.indent {
            out.push('\n');
            out.extend(std::iter::repeat_n(' ', indent * depth));
        }
    }

    fn string(&self, text: &str, out: &mut String) {
        out.push('"');
        for c in text.chars() {
            match c {
                '"' => out.push_str("\\\""),
                '\\' => out.push_str("\\\\"),
                '\n' => out.push_str("\\n"),
                '\r' => out.push_str("\\r"),
                '\t' => out.push_str("\\t"),
                '\u{8}' => out.push_str("\\b"),
                '\u{c}' => out.push_str("\\f"),
                c if c < ' ' || (self.ascii && !c.is_ascii()) => {
                    for unit in c.encode_utf16(&mut [0; 2]) {
                        let _ = write!(out, "\\u{unit:04x}");
                    }
                }
                c => out.push(c),
            }
        }
        out.push('"');
    }
}

/// The test `iterable`: not so for none, over which MiniJinja would iterate
pub(super) fn is_iterable(value: &Jinja) -> bool {
    is_sequence(value) || value.kind() == ValueKind::Iterable
}

/// The test `sequence`: whatever has a length and entries, texts and maps included
pub(super) fn is_sequence(value: &Jinja) -> bool {
    matches!(
        value.kind(),
        ValueKind::Undefined | ValueKind::String | ValueKind::Bytes | ValueKind::Seq | ValueKind::Map
    )
}

/// Marks an error as one that the template itself raised
#[derive(Debug)]
struct Raised(String);

impl std::fmt::Display for Raised {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Raised {}

/// The function `raise_exception`
pub(super) fn raise_exception(message: String) -> Result<Jinja, Error> {
    Err(Error::new(ErrorKind::InvalidOperation, message.clone()).with_source(Raised(message)))
}

/// The message given to `raise_exception`, if that is what happened
pub(super) fn raised(error: &Error) -> Option<String> {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = cause {
        if let Some(Raised(message)) = error.downcast_ref() {
            return Some(message.clone());
        }
        cause = error.source();
    }
    None
}

/// The function `strftime_now`, in UTC
pub(super) fn strftime_now(format: &str) -> Result<String, Error> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    strftime(format, now)
}

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
const DAYS: [&str; 7] = ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];

fn strftime(format: &str, seconds: u64) -> Result<String, Error> {
    let days = seconds / 86_400;
    let (year, month, day) = civil_date(days);
    let (hour, minute, second) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    let weekday = DAYS[((days + 4) % 7) as usize];
    let month_name = MONTHS[(month - 1) as usize];
    let mut out = String::new();
    let mut chars = format.chars();
    while let Some(c) = chars.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        let code = chars.next();
        let (padded, code) = if code == Some('-') { (false, chars.next()) } else { (true, code) };
        let two = |number: u64| if padded { format!("{number:02}") } else { number.to_string() };
        out.push_str(&match code {
            Some('Y') => year.to_string(),
            Some('y') => two(year % 100),
            Some('m') => two(month),
            Some('B') => month_name.to_string(),
            Some('b') => month_name[..3].to_string(),
            Some('d') => two(day),
            Some('A') => weekday.to_string(),
            Some('a') => weekday[..3].to_string(),
            Some('H') => two(hour),
            Some('I') => two((hour + 11) % 12 + 1),
            Some('p') => (if hour < 12 { "AM" } else { "PM" }).to_string(),
            Some('M') => two(minute),
            Some('S') => two(second),
            Some('%') => "%".to_string(),
            other => {
                let code = other.map(String::from).unwrap_or_default();
                return Err(Error::new(ErrorKind::InvalidOperation, format!("`strftime_now` does not know `%{code}`")));
            }
        });
    }
    Ok(out)
}

/// Year, month and day of a number of days since 1970 (Hinnant, "chrono-compatible low-level date algorithms")
fn civil_date(days: u64) -> (u64, u64, u64) {
    let shifted = days + 719_468;
    let era = shifted / 146_097;
    let day_of_era = shifted % 146_097;
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    (year_of_era + era * 400 + u64::from(month <= 2), month, day)
}

/// Where generated text begins and ends in what [`with_generation_marks`] renders: characters that no text may hold
pub(super) const MARKS: [char; 2] = ['\u{fdd0}', '\u{fdd1}'];

/// The template with transformers' `{% generation %}` pairs made into `{% with %}`, which scopes names alike and keeps
/// the white space rules of a tag
pub(super) fn without_generation_tags(source: &str) -> String {
    replace_generation_tags(source, |tag, begins| {
        if begins { tag.replace("generation", "with") } else { tag.replace("endgeneration", "endwith") }
    })
}

/// The same, writing [`MARKS`] around what stands between the pairs; `None` where there are no such pairs
pub(super) fn with_generation_marks(source: &str) -> Option<String> {
    let mut pairs = 0;
    // A tag of its own on the outer side of the mark, so that trimming meets the same white space as before
    let marked = replace_generation_tags(source, |tag, begins| {
        pairs += 1;
        let inner = &tag[2..tag.len() - 2];
        let trims = |side: Option<char>| side.filter(|c| matches!(c, '-' | '+')).map_or_else(String::new, String::from);
        let (left, right) = (trims(inner.chars().next()), trims(inner.chars().next_back()));
        let [begin, end] = MARKS;
        if begins {
            format!("{{%{left} if true %}}{{{{ '{begin}' }}}}{{% with {right}%}}")
        } else {
            format!("{{%{left} endwith %}}{{{{ '{end}' }}}}{{% endif {right}%}}")
        }
    });
    (pairs > 0).then_some(marked)
}

/// Hands every generation tag to `replace`, and whether it begins a pair
fn replace_generation_tags(source: &str, mut replace: impl FnMut(&str, bool) -> String) -> String {
    let mut out = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(start) = rest.find("{%") {
        let (before, tag) = rest.split_at(start);
        let Some(end) = tag.find("%}") else { break };
        out.push_str(before);
        let name = tag[2..end].trim_start_matches(['-', '+']).trim_end_matches(['-', '+']);
        match name.trim() {
            "generation" => out.push_str(&replace(&tag[..end + 2], true)),
            "endgeneration" => out.push_str(&replace(&tag[..end + 2], false)),
            _ => out.push_str(&tag[..end + 2]),
        }
        rest = &tag[end + 2..];
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_those_of_the_calendar() {
        // 2024-02-29 13:05:09 UTC, a Thursday
        assert_eq!(
            strftime("%d %b %Y %A %H:%M:%S %I%p %-m %y%%", 1_709_211_909).unwrap(),
            "29 Feb 2024 Thursday 13:05:09 01PM 2 24%"
        );
        assert_eq!(strftime("%Y-%m-%d %B", 0).unwrap(), "1970-01-01 January");
        assert!(strftime("%Q", 0).is_err());
    }

    #[test]
    fn generation_tags_keep_their_white_space_marks() {
        assert_eq!(
            without_generation_tags("a{%- generation -%} x {% endgeneration %}{% if y %}{{ '{%' }}"),
            "a{%- with -%} x {% endwith %}{% if y %}{{ '{%' }}"
        );
    }

    #[test]
    fn numbers_print_as_in_python() {
        for (number_, text) in [(1.0, "1.0"), (0.1, "0.1"), (1e16, "1e+16"), (1.5e-7, "1.5e-07"), (-2.0, "-2.0")] {
            let mut out = String::new();
            number(&Jinja::from(number_), &mut out);
            assert_eq!(out, text);
        }
    }
}
