//! What a model wrote while it trained: the tables below `completions/`.

use std::fs::{self, File};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::record::{Field, Row};

use crate::error::{Error, Result};

/// Steps shown of a run, and completions shown of a step: enough to see the change, little enough for one page
const STEPS: usize = 8;
const ROWS: usize = 12;
/// Characters shown of a text
const CHARACTERS: usize = 2_000;

/// Some of the completions of a run
#[derive(Debug, Clone, Default, serde::Serialize)]
pub struct Completions {
    /// Tables in the folder
    pub tables: usize,
    /// The steps shown, first and last among them
    pub steps: Vec<Step>,
}

/// Completions of one step
#[derive(Debug, Clone, serde::Serialize)]
pub struct Step {
    /// Optimiser step
    pub number: i64,
    /// Rows in the table
    pub rows: usize,
    /// The rows shown
    pub shown: Vec<Completion>,
}

/// One completion
#[derive(Debug, Clone, Default, serde::Serialize)]
pub struct Completion {
    /// What was asked
    pub prompt: String,
    /// What the model wrote
    pub text: String,
    /// Rewards and advantage
    pub numbers: Vec<(String, Option<f64>)>,
}

/// Reads a few tables, spread over the run; none where the folder is missing
pub(super) fn read(folder: &Path) -> Result<Completions> {
    let Ok(entries) = fs::read_dir(folder) else { return Ok(Completions::default()) };
    let paths = entries.filter_map(|entry| Some(entry.ok()?.path()));
    let mut paths: Vec<PathBuf> = paths.filter(|path| path.extension().is_some_and(|e| e == "parquet")).collect();
    // Numbers are padded to five digits only
    paths.sort_by_key(|path| (path.as_os_str().len(), path.clone()));
    let picked = spread(paths.len(), STEPS).into_iter().map(|i| step(&paths[i]));
    Ok(Completions { tables: paths.len(), steps: picked.collect::<Result<_>>()? })
}

/// At most `most` of `count` positions at equal distances, both ends included
fn spread(count: usize, most: usize) -> Vec<usize> {
    if count <= most {
        return (0..count).collect();
    }
    (0..most).map(|i| i * (count - 1) / (most - 1)).collect()
}

fn step(path: &Path) -> Result<Step> {
    // The library panics on some damaged files
    let read = catch_unwind(AssertUnwindSafe(|| table(path)));
    let read = read.unwrap_or_else(|_| Err("the file is damaged".into()));
    read.map_err(|cause| Error::read(path, cause).hint("move the file away: the report does without it"))
}

fn table(path: &Path) -> std::result::Result<Step, Box<dyn std::error::Error>> {
    let reader = SerializedFileReader::new(File::open(path)?)?;
    let rows = reader.metadata().file_metadata().num_rows() as usize;
    let mut step = Step { number: 0, rows, shown: Vec::new() };
    for row in reader.get_row_iter(None)?.take(ROWS) {
        let completion = completion(row?, &mut step.number);
        step.shown.push(completion);
    }
    Ok(step)
}

fn completion(row: Row, step: &mut i64) -> Completion {
    let mut shown = Completion::default();
    for (name, field) in row.into_columns() {
        match (name.as_str(), field) {
            ("step", Field::Long(value)) => *step = value,
            ("prompt", Field::Str(text)) => shown.prompt = shorten(&text),
            ("completion", Field::Str(text)) => shown.text = shorten(&text),
            (_, Field::Double(value)) => shown.numbers.push((name, Some(value).filter(|value| value.is_finite()))),
            (_, Field::Null) => shown.numbers.push((name, None)),
            _ => {}
        }
    }
    shown
}

fn shorten(text: &str) -> String {
    match text.char_indices().nth(CHARACTERS) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_spread_keeps_both_ends() {
        assert_eq!(super::spread(3, 8), [0, 1, 2]);
        assert_eq!(super::spread(100, 8), [0, 14, 28, 42, 56, 70, 84, 99]);
        assert!(super::spread(0, 8).is_empty());
    }
}
