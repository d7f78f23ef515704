//! A small table as a Parquet file: `completions/`.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use parquet::basic::Compression;
use parquet::data_type::{ByteArray, ByteArrayType, DoubleType, Int64Type};
use parquet::errors::Result as ParquetResult;
use parquet::file::properties::WriterProperties;
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;

use crate::error::{Error, Result};
use crate::files::write_bytes;

/// One column of a table
#[derive(Debug, Clone)]
pub enum Column {
    /// Whole numbers
    Integers(Vec<i64>),
    /// Numbers, some of which may be missing
    Numbers(Vec<Option<f64>>),
    /// Texts
    Texts(Vec<String>),
}

/// Writes named columns of one length
pub fn write_table(path: &Path, columns: &[(&str, Column)]) -> Result<()> {
    let bytes = encode(columns).map_err(|cause| Error::write(path, cause))?;
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).map_err(|cause| Error::write(folder, cause))?;
    }
    write_bytes(path, &bytes)
}

fn encode(columns: &[(&str, Column)]) -> ParquetResult<Vec<u8>> {
    let fields: String = columns
        .iter()
        .map(|(name, column)| {
            // The schema's grammar splits names at white space and brackets
            let name = name.replace(|c: char| c.is_whitespace() || "(){};=,".contains(c), "_");
            match column {
                Column::Integers(_) => format!("REQUIRED INT64 {name}; "),
                Column::Numbers(_) => format!("OPTIONAL DOUBLE {name}; "),
                Column::Texts(_) => format!("REQUIRED BYTE_ARRAY {name} (UTF8); "),
            }
        })
        .collect();
    let schema = Arc::new(parse_message_type(&format!("message table {{ {fields} }}"))?);
    let properties = Arc::new(WriterProperties::builder().set_compression(Compression::SNAPPY).build());
    let mut writer = SerializedFileWriter::new(Vec::new(), schema, properties)?;
    let mut group = writer.next_row_group()?;
    for (_, column) in columns {
        let Some(mut out) = group.next_column()? else { break };
        match column {
            Column::Integers(values) => out.typed::<Int64Type>().write_batch(values, None, None)?,
            Column::Numbers(values) => {
                let present: Vec<f64> = values.iter().flatten().copied().collect();
                let levels: Vec<i16> = values.iter().map(|value| i16::from(value.is_some())).collect();
                out.typed::<DoubleType>().write_batch(&present, Some(&levels), None)?
            }
            Column::Texts(values) => {
                let values: Vec<ByteArray> = values.iter().map(|text| ByteArray::from(text.as_str())).collect();
                out.typed::<ByteArrayType>().write_batch(&values, None, None)?
            }
        };
        out.close()?;
    }
    group.close()?;
    writer.into_inner()
}

#[cfg(test)]
mod tests {
    use parquet::file::reader::{FileReader, SerializedFileReader};

    use super::*;

    #[test]
    fn what_is_written_is_read_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("completions").join("completions_00010.parquet");
        let columns = [
            ("step", Column::Integers(vec![10, 10])),
            ("prompt", Column::Texts(vec!["Müller".to_owned(), String::new()])),
            ("regex:a (b)", Column::Numbers(vec![Some(0.5), None])),
        ];
        write_table(&path, &columns).unwrap();
        let reader = SerializedFileReader::new(fs::File::open(&path).unwrap()).unwrap();
        let rows: Vec<String> = reader.get_row_iter(None).unwrap().map(|row| row.unwrap().to_string()).collect();
        assert_eq!(
            rows,
            ["{step: 10, prompt: \"Müller\", regex:a__b_: 0.5}", "{step: 10, prompt: \"\", regex:a__b_: null}"]
        );
    }
}
