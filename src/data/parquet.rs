//! Rows of a Parquet file through the record interface: nested lists and structs included, Arrow left out.

use std::fs::File;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;

use ::parquet::file::reader::{FileReader, SerializedFileReader};
use ::parquet::record::{Field, Row as ParquetRow};
use serde_json::{Map, Number, Value};

use super::reader::Sink;
use super::record::{Place, Row};
use crate::error::{Error, Result};

/// Hands over every row; the place counts rows from 1
pub(super) fn read(path: &Path, file: &Arc<str>, sink: &mut Sink<'_>) -> Result<()> {
    let damaged = |cause: String| {
        Error::usage(format!("`{file}` is not a readable Parquet file: {cause}"))
            .hint("known compressions are none, snappy, gzip and zstd; fetch a damaged file again")
    };
    let input = File::open(path).map_err(|e| Error::read(path, e))?;
    let reader = guarded(|| SerializedFileReader::new(input)).map_err(damaged)?;
    let mut rows = guarded(|| reader.get_row_iter(None)).map_err(damaged)?;
    let mut read = 0;
    while let Some(row) = guarded(|| rows.next().transpose()).map_err(|cause| {
        Error::usage(format!("{file}:{}: cannot read the row: {cause}", read + 1)).hint("fetch the file again")
    })? {
        read += 1;
        let place = Place { file: file.clone(), line: read };
        let fields = object(row).map_err(|column| {
            Error::usage(format!("{place}: column `{column}` holds bytes that are not text"))
                .hint("leave that column out when writing the file")
        })?;
        sink(Row { fields, place })?;
    }
    let promised = reader.metadata().file_metadata().num_rows();
    if read as i64 != promised {
        return Err(damaged(format!("expected {promised} rows, found {read}")));
    }
    Ok(())
}

/// Runs a step of the Parquet reader, which panics on some damaged files
fn guarded<T>(step: impl FnOnce() -> ::parquet::errors::Result<T>) -> std::result::Result<T, String> {
    match catch_unwind(AssertUnwindSafe(step)) {
        Ok(result) => result.map_err(|e| e.to_string()),
        Err(panic) => {
            let text = panic.downcast_ref::<String>().map(String::as_str);
            Err(text.or_else(|| panic.downcast_ref().copied()).unwrap_or("the reader gave up").to_string())
        }
    }
}

/// The row as JSON, or the name of the column that has no such form
fn object(row: ParquetRow) -> std::result::Result<Map<String, Value>, String> {
    let mut fields = Map::with_capacity(row.len());
    for (name, field) in row.into_columns() {
        let value = json(field).map_err(|NotText| name.clone())?;
        fields.insert(name, value);
    }
    Ok(fields)
}

struct NotText;

fn json(field: Field) -> std::result::Result<Value, NotText> {
    let float = |number: f64| Number::from_f64(number).map_or(Value::Null, Value::Number);
    Ok(match field {
        Field::Null => Value::Null,
        Field::Bool(value) => value.into(),
        Field::Byte(value) => value.into(),
        Field::Short(value) => value.into(),
        Field::Int(value) | Field::Date(value) | Field::TimeMillis(value) => value.into(),
        Field::Long(value)
        | Field::TimeMicros(value)
        | Field::TimestampMillis(value)
        | Field::TimestampMicros(value) => value.into(),
        Field::UByte(value) => value.into(),
        Field::UShort(value) => value.into(),
        Field::UInt(value) => value.into(),
        Field::ULong(value) => value.into(),
        Field::Float16(value) => float(value.to_f64()),
        Field::Float(value) => float(value.into()),
        Field::Double(value) => float(value),
        Field::Str(text) => Value::String(text),
        Field::Bytes(bytes) => match std::str::from_utf8(bytes.data()) {
            Ok(text) => text.into(),
            Err(_) => return Err(NotText),
        },
        Field::Group(row) => Value::Object(object(row).map_err(|_| NotText)?),
        Field::ListInternal(list) => {
            Value::Array(list.elements().iter().cloned().map(json).collect::<std::result::Result<_, _>>()?)
        }
        Field::MapInternal(map) => {
            let mut fields = Map::new();
            for (key, value) in map.entries() {
                let key = match json(key.clone())? {
                    Value::String(text) => text,
                    other => other.to_string(),
                };
                fields.insert(key, json(value.clone())?);
            }
            Value::Object(fields)
        }
        // As text, because a float would lose digits
        decimal @ Field::Decimal(_) => Value::String(decimal.to_string()),
    })
}
