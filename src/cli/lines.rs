//! Files of rows whose answers pair up with their lines.

use std::path::Path;

use crate::data::{Dataset, ReadOptions, read_dataset};
use crate::{Error, Result};

/// The rows of a file, one for each of its lines; None for an empty file
pub(super) fn read_lines(path: &Path) -> Result<Option<Dataset>> {
    let metadata = std::fs::metadata(path).map_err(|cause| Error::read(path, cause))?;
    if metadata.is_dir() {
        return Err(Error::usage(format!("`{}` is a folder, expected a file of rows", path.display())));
    }
    if metadata.is_file() && metadata.len() == 0 {
        return Ok(None);
    }
    let dataset = read_dataset(path, &ReadOptions::default())?;
    let name = path.to_string_lossy();
    let has_lines = [".jsonl", ".jsonl.gz"].iter().any(|end| name.to_ascii_lowercase().ends_with(end));
    // A reader who pairs the lines of both files must not be one off after a line without a row
    let skipped = dataset.rows.iter().enumerate().find(|(i, row)| has_lines && row.place.line != i + 1);
    match skipped {
        None => Ok(Some(dataset)),
        Some((i, _)) => Err(Error::usage(format!("{name}:{}: the line is empty, expected an object", i + 1))
            .hint("an empty text is `{\"text\": \"\"}`")),
    }
}
