//! Rows of `.jsonl` and `.json` files, each with the line on which it begins.

use std::io::{BufRead, Read};
use std::path::Path;
use std::sync::Arc;

use serde::de::{DeserializeOwned, IgnoredAny};
use serde_json::{Deserializer, Map, Value};

use super::files::no_split;
use super::reader::{Sink, broken};
use super::record::{Place, Row, type_name};
use crate::error::{Error, Result};

/// One JSON object a line; blank lines are skipped
pub(super) fn read_lines(mut input: impl BufRead, file: &Arc<str>, sink: &mut Sink<'_>) -> Result<()> {
    let mut bytes = Vec::new();
    let mut line = 0;
    loop {
        bytes.clear();
        let read = input.read_until(b'\n', &mut bytes).map_err(|e| broken(file, line + 1, &e))?;
        if read == 0 {
            return Ok(());
        }
        line += 1;
        let text = std::str::from_utf8(&bytes).map_err(|e| not_utf8(file, line, e.valid_up_to() + 1))?;
        if text.trim().is_empty() {
            continue;
        }
        // Without the end of the line, so that what is missing is missing in a column of this line
        let value: Value =
            serde_json::from_str(text.trim_end()).map_err(|e| not_json(file, line, &e, bytes.ends_with(b"\n")))?;
        sink(row(file, line, value)?)?;
    }
}

/// A list of objects, an object whose entry `data` (or the split's name) is such a list, or one object a line
pub(super) fn read(
    path: &Path,
    input: impl Read,
    file: &Arc<str>,
    split: &str,
    single: bool,
    sink: &mut Sink<'_>,
) -> Result<()> {
    let text = read_all(input, file)?;
    let whole = || match split {
        _ if !single => Ok(()),
        "train" => Ok(()),
        _ => Err(no_split(path, split, &["train".to_string()])),
    };
    let lists = match shape(&text, file)? {
        Shape::Lines => {
            whole()?;
            return read_lines(text.as_bytes(), file, sink);
        }
        Shape::List => {
            whole()?;
            return Cursor::new(&text, file).rows(sink);
        }
        Shape::Object(lists) => lists,
    };
    let entry = lists.iter().find(|(name, ..)| name == split);
    let entry = entry.or_else(|| lists.iter().find(|(name, ..)| name == "data" && (split == "train" || !single)));
    match entry {
        Some(&(_, at, line)) => Cursor { text: &text, file, at, line }.rows(sink),
        // An object without such a list is a single row
        None if lists.iter().all(|(name, ..)| !is_split_name(name)) => {
            whole()?;
            let mut cursor = Cursor::new(&text, file);
            cursor.skip_space();
            let line = cursor.line;
            let value = cursor.value()?;
            sink(row(file, line, value)?)
        }
        None => Err(no_split(path, split, &names(&lists))),
    }
}

/// The splits of a `.json` file
pub(super) fn splits(path: &Path, input: impl Read) -> Result<Vec<String>> {
    let file: Arc<str> = path.to_string_lossy().into();
    let text = read_all(input, &file)?;
    let found = match shape(&text, &file)? {
        Shape::Object(lists) => names(&lists),
        _ => Vec::new(),
    };
    Ok(if found.is_empty() { vec!["train".to_string()] } else { found })
}

fn is_split_name(name: &str) -> bool {
    matches!(name, "data" | "train" | "validation" | "test")
}

fn names(lists: &[Entry]) -> Vec<String> {
    let named = lists.iter().filter(|(name, ..)| is_split_name(name));
    named.map(|(name, ..)| if name == "data" { "train".to_string() } else { name.clone() }).collect()
}

fn read_all(mut input: impl Read, file: &str) -> Result<String> {
    let mut bytes = Vec::new();
    input.read_to_end(&mut bytes).map_err(|e| broken(file, 1, &e))?;
    String::from_utf8(bytes).map_err(|e| {
        let good = &e.as_bytes()[..e.utf8_error().valid_up_to()];
        let line = lines_ended(good) + 1;
        let column = good.iter().rev().take_while(|byte| **byte != b'\n').count() + 1;
        not_utf8(file, line, column)
    })
}

fn lines_ended(bytes: &[u8]) -> usize {
    bytes.split(|byte| *byte == b'\n').count() - 1
}

/// A top-level entry that holds a list: its name, and the byte and line at which the list begins
type Entry = (String, usize, usize);

enum Shape {
    Lines,
    List,
    Object(Vec<Entry>),
}

fn shape(text: &str, file: &Arc<str>) -> Result<Shape> {
    let mut cursor = Cursor::new(text, file);
    match cursor.peek() {
        Some('[') => return Ok(Shape::List),
        Some('{') => {}
        // Left to the line reader, which names the line; an empty file has no rows
        _ => return Ok(Shape::Lines),
    }
    let mut lists = Vec::new();
    cursor.take('{')?;
    while cursor.peek() != Some('}') {
        let name: String = cursor.parse()?;
        cursor.take(':')?;
        if cursor.peek() == Some('[') {
            lists.push((name, cursor.at, cursor.line));
        }
        cursor.parse::<IgnoredAny>()?;
        if cursor.peek() != Some('}') {
            cursor.take(',')?;
        }
    }
    cursor.take('}')?;
    Ok(if cursor.peek().is_some() { Shape::Lines } else { Shape::Object(lists) })
}

/// Walks through JSON text value by value and knows the line it is on, which serde_json does not tell for a value
struct Cursor<'a> {
    text: &'a str,
    file: &'a Arc<str>,
    at: usize,
    line: usize,
}

impl<'a> Cursor<'a> {
    fn new(text: &'a str, file: &'a Arc<str>) -> Self {
        Self { text, file, at: 0, line: 1 }
    }

    fn advance(&mut self, bytes: usize) {
        self.line += lines_ended(&self.text.as_bytes()[self.at..self.at + bytes]);
        self.at += bytes;
    }

    fn skip_space(&mut self) {
        let rest = &self.text[self.at..];
        self.advance(rest.len() - rest.trim_start().len());
    }

    fn peek(&mut self) -> Option<char> {
        self.skip_space();
        self.text[self.at..].chars().next()
    }

    fn take(&mut self, wanted: char) -> Result<()> {
        match self.peek() {
            Some(found) if found == wanted => {
                self.advance(wanted.len_utf8());
                Ok(())
            }
            Some(found) => Err(self.error(&format!("expected `{wanted}`, found `{found}`"))),
            None => Err(self
                .error(&format!("expected `{wanted}`, but the file ends"))
                .hint("the file may have been cut off; fetch or write it again")),
        }
    }

    fn error(&self, what: &str) -> Error {
        Error::usage(format!("{}:{}: not valid JSON: {what}", self.file, self.line))
    }

    fn parse<T: DeserializeOwned>(&mut self) -> Result<T> {
        self.skip_space();
        let mut stream = Deserializer::from_str(&self.text[self.at..]).into_iter::<T>();
        match stream.next() {
            Some(Ok(value)) => {
                let bytes = stream.byte_offset();
                self.advance(bytes);
                Ok(value)
            }
            Some(Err(e)) => Err(not_json(self.file, self.line + e.line().saturating_sub(1), &e, false)),
            None => Err(self.error("expected a value, but the file ends")),
        }
    }

    fn value(&mut self) -> Result<Value> {
        self.parse()
    }

    fn rows(&mut self, sink: &mut Sink<'_>) -> Result<()> {
        self.take('[')?;
        if self.peek() == Some(']') {
            return Ok(());
        }
        loop {
            self.skip_space();
            let line = self.line;
            let value = self.value()?;
            sink(row(self.file, line, value)?)?;
            if self.peek() == Some(']') {
                return Ok(());
            }
            self.take(',')?;
        }
    }
}

fn row(file: &Arc<str>, line: usize, value: Value) -> Result<Row> {
    let place = Place { file: file.clone(), line };
    match value {
        Value::Object(fields) => Ok(Row { fields, place }),
        other => Err(Error::usage(format!("{place}: expected a JSON object, found {}", type_name(&other)))
            .hint("a row is an object of columns, such as `{\"text\": \"…\"}`")),
    }
}

fn not_utf8(file: &str, line: usize, column: usize) -> Error {
    Error::usage(format!("{file}:{line}:{column}: not valid UTF-8")).hint("convert the file to UTF-8")
}

fn not_json(file: &str, line: usize, error: &serde_json::Error, line_is_whole: bool) -> Error {
    let message = error.to_string();
    let what = message.split(" at line ").next().unwrap_or(&message);
    let column = error.column();
    if error.is_eof() {
        let hint = if line_is_whole {
            "each line of a `.jsonl` file holds one whole object; a file with objects over several lines is named `.json`"
        } else {
            "the file may have been cut off; fetch or write it again"
        };
        return Error::usage(format!("{file}:{line}:{column}: the JSON value is not finished: {what}")).hint(hint);
    }
    Error::usage(format!("{file}:{line}:{column}: not valid JSON: {what}"))
}

/// The object as a map, for callers that need one object from a whole file
pub(super) fn object_from_file(path: &Path) -> Result<Map<String, Value>> {
    let text = std::fs::read(path).map_err(|e| Error::read(path, e))?;
    serde_json::from_slice(&text)
        .map_err(|e| Error::usage(format!("`{}` is damaged: expected a JSON object: {e}", path.display())))
}
