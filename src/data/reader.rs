//! Reading a dataset path (a file or a folder) into rows.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use flate2::bufread::MultiGzDecoder;
use serde_json::{Map, Value};

use super::files::{FileKind, Folder, no_split};
use super::record::{Place, Row, list_names, nearest};
use super::split::{self, SplitPart};
use super::{json, parquet};
use crate::error::{Error, Result};

/// What to read of a dataset path
#[derive(Debug, Clone)]
pub struct ReadOptions {
    /// The split, or parts of splits such as `train[:10%]`; a file without split names is all `train`
    pub split: String,
    /// A subfolder that holds one configuration of the dataset
    pub config: Option<String>,
    /// Found column → expected column
    pub columns: BTreeMap<String, String>,
}

impl Default for ReadOptions {
    fn default() -> Self {
        Self { split: "train".to_string(), config: None, columns: BTreeMap::new() }
    }
}

/// The rows of one split, never empty
#[derive(Debug, Clone)]
pub struct Dataset {
    /// The path that was asked for
    pub path: PathBuf,
    /// The files that were read, in this order
    pub files: Vec<PathBuf>,
    /// Every column that some row has, after renaming, in order of appearance
    pub columns: Vec<String>,
    /// The rows
    pub rows: Vec<Row>,
}

/// Takes each row as it is read
pub(super) type Sink<'a> = dyn FnMut(Row) -> Result<()> + 'a;

/// Rows that were found and are not read yet
#[derive(Debug, Clone)]
pub struct Located {
    path: PathBuf,
    pieces: Vec<Piece>,
    columns: BTreeMap<String, String>,
}

/// A split, or a part of it, in its files
#[derive(Debug, Clone)]
struct Piece {
    part: SplitPart,
    files: Vec<PathBuf>,
    /// A path that is a file itself
    single: bool,
}

/// Finds the files of the splits that are asked for in a file or folder
pub fn locate(path: &Path, options: &ReadOptions) -> Result<Located> {
    let single = !exists(path)?.is_dir();
    let located = Located::new(path, options, |split| {
        if single {
            // A single file is all training data whatever its name says, as `datasets` has it; a `.json` file may say
            // otherwise
            if split != "train" && FileKind::require(path)? != FileKind::Json {
                return Err(no_split(path, split, &["train".to_string()]));
            }
            return Ok(vec![path.to_path_buf()]);
        }
        Folder::open(path, options.config.as_deref())?.files(path, split)
    })?;
    let pieces = located.pieces.into_iter().map(|piece| Piece { single, ..piece });
    Ok(Located { pieces: pieces.collect(), ..located })
}

/// Reads what [`locate`] finds
pub fn read_dataset(path: &Path, options: &ReadOptions) -> Result<Dataset> {
    locate(path, options)?.read()
}

impl Located {
    /// Rows in the files that `files` names for each split of the dataset `path`
    pub fn new(
        path: &Path,
        options: &ReadOptions,
        mut files: impl FnMut(&str) -> Result<Vec<PathBuf>>,
    ) -> Result<Self> {
        let parts = split::parse(&options.split)?;
        let piece = |part: SplitPart| Ok(Piece { files: files(&part.name)?, part, single: false });
        let pieces = parts.into_iter().map(piece).collect::<Result<_>>()?;
        Ok(Self { path: path.to_path_buf(), pieces, columns: options.columns.clone() })
    }

    /// The path that was asked for
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The files, in the order in which they are read
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        self.pieces.iter().flat_map(|piece| piece.files.iter().map(PathBuf::as_path))
    }

    /// Reads them
    pub fn read(&self) -> Result<Dataset> {
        let mut dataset = Dataset { path: self.path.clone(), files: Vec::new(), columns: Vec::new(), rows: Vec::new() };
        for piece in &self.pieces {
            let before = dataset.rows.len();
            for file in &piece.files {
                read_file(file, &piece.part.name, piece.single, &mut |row: Row| {
                    for name in row.fields.keys() {
                        if !dataset.columns.iter().any(|known| known == name) {
                            dataset.columns.push(name.clone());
                        }
                    }
                    dataset.rows.push(row);
                    Ok(())
                })?;
            }
            if dataset.rows.len() == before {
                return Err(Error::usage(format!("`{}` holds no rows", self.path.display())));
            }
            if !piece.part.is_whole() {
                let range = piece.part.range(dataset.rows.len() - before)?;
                dataset.rows.truncate(before + range.end);
                dataset.rows.drain(before..before + range.start);
            }
            dataset.files.extend(piece.files.iter().cloned());
        }
        dataset.rename_columns(&self.columns)
    }
}

impl Dataset {
    /// Its columns under other names, found → expected
    ///
    /// # Errors
    /// A column that no row has; two columns with one name
    pub fn rename_columns(mut self, columns: &BTreeMap<String, String>) -> Result<Self> {
        if let Some(wanted) = columns.keys().find(|wanted| !self.columns.contains(wanted)) {
            let hint = match nearest(wanted, &self.columns) {
                Some(name) => format!("did you mean `{name}`?"),
                None => "`columns` maps a column of the file to the name that is expected".to_string(),
            };
            return Err(Error::usage(format!(
                "`columns`: `{}` has no column `{wanted}`, it has {}",
                self.path.display(),
                list_names(&self.columns)
            ))
            .hint(hint));
        }
        self.rows.iter_mut().try_for_each(|row| rename(row, columns))?;
        self.columns = self.columns.into_iter().map(|name| columns.get(&name).cloned().unwrap_or(name)).collect();
        Ok(self)
    }
}

/// The splits of a dataset path, `train` first
pub fn splits(path: &Path, config: Option<&str>) -> Result<Vec<String>> {
    if exists(path)?.is_dir() {
        return Ok(Folder::open(path, config)?.names());
    }
    if FileKind::require(path)? == FileKind::Json {
        return json::splits(path, open(path)?);
    }
    Ok(vec!["train".to_string()])
}

fn exists(path: &Path) -> Result<std::fs::Metadata> {
    std::fs::metadata(path).map_err(|e| match e.kind() {
        io::ErrorKind::NotFound => Error::usage(format!("there is no dataset at `{}`", path.display())),
        _ => Error::read(path, e),
    })
}

fn read_file(path: &Path, split: &str, single: bool, sink: &mut Sink<'_>) -> Result<()> {
    let name: Arc<str> = path.to_string_lossy().into();
    match FileKind::require(path)? {
        FileKind::JsonLines => json::read_lines(open(path)?, &name, sink),
        FileKind::Json => json::read(path, open(path)?, &name, split, single, sink),
        FileKind::Csv => read_csv(open(path)?, &name, sink),
        FileKind::Parquet => parquet::read(path, &name, sink),
    }
}

/// A buffered reader that undoes gzip (told by its first bytes, not by the name) and skips a byte order mark
fn open(path: &Path) -> Result<Box<dyn BufRead>> {
    const GZIP: [u8; 2] = [0x1f, 0x8b];
    let mut file = BufReader::with_capacity(1 << 18, File::open(path).map_err(|e| Error::read(path, e))?);
    let head = file.fill_buf().map_err(|e| Error::read(path, e))?;
    let named_gz = path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("gz"));
    let mut input: Box<dyn BufRead> = if head.starts_with(&GZIP) {
        Box::new(BufReader::with_capacity(1 << 18, MultiGzDecoder::new(file)))
    } else if named_gz {
        let what = if head.is_empty() { "is empty" } else { "is not compressed" };
        return Err(Error::usage(format!("`{}` {what}, though its name ends in `.gz`", path.display())));
    } else {
        Box::new(file)
    };
    let head = input.fill_buf().map_err(|e| broken(&path.to_string_lossy(), 1, &e))?;
    if head.starts_with(b"\xef\xbb\xbf") {
        input.consume(3);
    }
    Ok(input)
}

/// The error for input that stops or breaks while it is read
pub(super) fn broken(file: &str, line: usize, cause: &io::Error) -> Error {
    match cause.kind() {
        io::ErrorKind::UnexpectedEof => {
            Error::usage(format!("{file}:{line}: the compressed file ends too early")).hint("fetch or write it again")
        }
        io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput => {
            Error::usage(format!("{file}:{line}: the compressed file is damaged: {cause}"))
                .hint("fetch or write it again")
        }
        _ => Error::usage(format!("{file}:{line}: cannot read on: {cause}")),
    }
}

/// Rows of a CSV file with a header; every cell stays the text that it is
fn read_csv(input: impl Read, file: &Arc<str>, sink: &mut Sink<'_>) -> Result<()> {
    let mut reader = csv::Reader::from_reader(input);
    let header = reader.headers().map_err(|e| csv_error(file, &e))?.clone();
    for (index, name) in header.iter().enumerate() {
        if header.iter().take(index).any(|before| before == name) {
            return Err(Error::usage(format!("{file}:1: the header names the column `{name}` twice")));
        }
    }
    let mut record = csv::StringRecord::new();
    while reader.read_record(&mut record).map_err(|e| csv_error(file, &e))? {
        let line = record.position().map_or(0, |position| position.line() as usize);
        let fields: Map<String, Value> =
            header.iter().zip(&record).map(|(name, cell)| (name.to_string(), Value::from(cell))).collect();
        sink(Row { fields, place: Place { file: file.clone(), line } })?;
    }
    Ok(())
}

fn csv_error(file: &str, error: &csv::Error) -> Error {
    let line = error.position().map_or(1, |position| position.line() as usize);
    match error.kind() {
        csv::ErrorKind::Io(cause) => broken(file, line, cause),
        csv::ErrorKind::UnequalLengths { expected_len, len, .. } => {
            Error::usage(format!("{file}:{line}: expected {expected_len} fields as in the header, found {len}"))
                .hint("a field with a comma, a quote or a line break in it stands in double quotes")
        }
        csv::ErrorKind::Utf8 { err, .. } => {
            Error::usage(format!("{file}:{line}: field {} is not valid UTF-8", err.field() + 1))
                .hint("convert the file to UTF-8")
        }
        _ => Error::usage(format!("{file}:{line}: {error}")),
    }
}

fn rename(row: &mut Row, columns: &BTreeMap<String, String>) -> Result<()> {
    if columns.is_empty() {
        return Ok(());
    }
    let mut fields = Map::with_capacity(row.fields.len());
    for (name, value) in std::mem::take(&mut row.fields) {
        let name = columns.get(&name).cloned().unwrap_or(name);
        if fields.contains_key(&name) {
            return Err(Error::usage(format!("{}: `columns` makes two columns named `{name}`", row.place))
                .hint(format!("map the other `{name}` to a name of its own")));
        }
        fields.insert(name, value);
    }
    row.fields = fields;
    Ok(())
}
