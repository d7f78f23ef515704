//! Rows as a file: JSON lines, one JSON list, CSV or Parquet, by the file's name.

use std::io::Write;
use std::path::Path;

use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::{Map, Value};

use super::files::FileKind;
use super::parquet_write;
use super::reader::Dataset;
use super::record::type_name;
use crate::error::{Error, Result};
use crate::files::write_atomic;

/// Writes the rows under a name that ends in `.jsonl`, `.json`, `.csv` (each also with `.gz`) or `.parquet`
///
/// # Errors
/// Another name; values that the format cannot hold
pub fn write_dataset(path: &Path, dataset: &Dataset) -> Result<()> {
    let rows: Vec<&Map<String, Value>> = dataset.rows.iter().map(|row| &row.fields).collect();
    let packed = path.extension().is_some_and(|ending| ending.eq_ignore_ascii_case("gz"));
    let content = match FileKind::require(path)? {
        FileKind::JsonLines => lines(&rows),
        FileKind::Json => list(&rows),
        FileKind::Csv => csv(&rows, dataset)?,
        FileKind::Parquet if packed => {
            return Err(
                Error::usage(format!("`{}`: Parquet is compressed already", path.display())).hint("leave out `.gz`")
            );
        }
        FileKind::Parquet => parquet_write::encode(&rows, &dataset.columns)?,
    };
    write_atomic(path, |file| {
        if packed {
            let mut file = GzEncoder::new(file, Compression::default());
            file.write_all(&content)?;
            return file.finish().map(|_| ());
        }
        file.write_all(&content)
    })
}

fn lines(rows: &[&Map<String, Value>]) -> Vec<u8> {
    let mut text = Vec::new();
    for row in rows {
        // Values that came from JSON can be written as JSON
        let _ = serde_json::to_writer(&mut text, row);
        text.push(b'\n');
    }
    text
}

fn list(rows: &[&Map<String, Value>]) -> Vec<u8> {
    let mut text = Vec::from(b"[".as_slice());
    for (i, row) in rows.iter().enumerate() {
        text.extend_from_slice(if i == 0 { b"\n" } else { b",\n" });
        let _ = serde_json::to_writer(&mut text, row);
    }
    text.extend_from_slice(b"\n]\n");
    text
}

fn csv(rows: &[&Map<String, Value>], dataset: &Dataset) -> Result<Vec<u8>> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    let failed = |cause: csv::Error| Error::run(format!("cannot write CSV: {cause}"));
    writer.write_record(&dataset.columns).map_err(failed)?;
    for (row, from) in rows.iter().zip(&dataset.rows) {
        let cell = |column: &String| match row.get(column) {
            None | Some(Value::Null) => Ok(String::new()),
            Some(Value::String(text)) => Ok(text.clone()),
            Some(value @ (Value::Bool(_) | Value::Number(_))) => Ok(value.to_string()),
            Some(other) => Err(Error::usage(format!(
                "{}: `{column}` is {}, which a CSV file cannot hold",
                from.place,
                type_name(other)
            ))
            .hint("write `.jsonl` or `.parquet`")),
        };
        let record = dataset.columns.iter().map(cell).collect::<Result<Vec<_>>>()?;
        writer.write_record(record).map_err(failed)?;
    }
    writer.into_inner().map_err(|cause| Error::run(format!("cannot write CSV: {}", cause.into_error())))
}
