//! `checkpoint-N/`: model files, named tensors and one JSON value, under a checksum each.
//!
//! What they mean is the business of those who write them; here lies only that a checkpoint is complete or refused.
//! The checksums (CRC-32C, which notices every change of up to 32 neighbouring bits) stand in `checksums.txt`, written
//! last, with a line for its own content.

use std::fs::{self, File};
use std::io::{self, Read, Write as _};
use std::path::{Path, PathBuf};

use rayon::prelude::*;
use safetensors::tensor::View;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::atomic::{self, PartialFolder};
use super::names;
use super::tensors::TensorFile;
use crate::error::{Error, Result};
use crate::files::{self, write_error};

const STATE: &str = "trainer_state.json";
const CHECKSUMS: &str = "checksums.txt";

/// Raised when a change makes older checkpoints unreadable
const FORMAT: u32 = 1;

#[derive(Serialize)]
struct StateOut<'a, T> {
    format: u32,
    version: &'a str,
    step: u64,
    state: &'a T,
}

#[derive(Deserialize)]
struct StateIn<T> {
    state: T,
}

#[derive(Deserialize)]
struct Head {
    format: u32,
    version: String,
    step: u64,
}

/// A checkpoint in the making, invisible until [`CheckpointWriter::publish`]
#[derive(Debug)]
pub struct CheckpointWriter {
    folder: PartialFolder,
    target: PathBuf,
    step: u64,
}

impl CheckpointWriter {
    /// Starts `checkpoint-STEP` in `run_folder`
    pub fn create(run_folder: &Path, step: u64) -> Result<Self> {
        let target = run_folder.join(names::checkpoint(step));
        Ok(Self { folder: PartialFolder::create(&target)?, target, step })
    }

    /// Where the model files go
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Writes everything of the run that is not a tensor. Finite floats come back bit for bit; JSON has no others
    pub fn write_state<T: Serialize>(&self, state: &T) -> Result<()> {
        let out = StateOut { format: FORMAT, version: env!("CARGO_PKG_VERSION"), step: self.step, state };
        let path = self.path().join(STATE);
        let mut json = serde_json::to_vec_pretty(&out).map_err(|cause| Error::write(&path, cause))?;
        json.push(b'\n');
        files::write_bytes(&path, &json)
    }

    /// Writes named tensors into `file` (`optimizer.safetensors`). A view is asked for its bytes when its turn comes, so
    /// a [`Slice`](super::Slice) is never copied and of candle's tensors only one at a time
    pub fn write_tensors<N, V>(&self, file: &str, tensors: impl IntoIterator<Item = (N, V)>) -> Result<()>
    where
        N: AsRef<str> + Ord + std::fmt::Display,
        V: View,
    {
        let path = self.path().join(file);
        let tensors: Vec<(N, V)> = tensors.into_iter().collect();
        let needed = tensors.iter().map(|(_, view)| view.data_len() as u64).sum();
        let fail = |cause: &(dyn std::error::Error + 'static)| write_error(&path, cause, Some(needed));
        // The library makes the file readable by its owner alone; a checkpoint follows the umask like any other file
        let permissions = File::create(&path).and_then(|f| f.metadata()).map_err(|e| fail(&e))?.permissions();
        safetensors::serialize_to_file(tensors, None, &path).map_err(|e| fail(&e))?;
        fs::set_permissions(&path, permissions).map_err(|e| fail(&e))
    }

    /// Seals the checkpoint and gives it its name. One of the same step that is already there is replaced
    pub fn publish(self) -> Result<PathBuf> {
        let sums = self.path().join(CHECKSUMS);
        let text = checksums(self.path()).map_err(|cause| write_error(&self.target, &cause, None))?;
        File::create(&sums)
            .and_then(|mut file| file.write_all(text.as_bytes()))
            .map_err(|cause| write_error(&sums, &cause, Some(text.len() as u64)))?;
        if self.target.exists() {
            // Two folders cannot be exchanged in one move; set aside under this name, the old one outlives a kill
            let aside = set_aside(&self.target)?;
            self.folder.publish()?;
            atomic::remove_folder(&aside)?;
        } else {
            self.folder.publish()?;
        }
        Ok(self.target)
    }
}

/// Renames a checkpoint to `checkpoint-N.superseded`, in place of an older one of that name
pub(super) fn set_aside(checkpoint: &Path) -> Result<PathBuf> {
    let mut aside = checkpoint.as_os_str().to_owned();
    aside.push(names::SUPERSEDED);
    let aside = PathBuf::from(aside);
    if aside.exists() {
        atomic::remove_folder(&aside)?;
    }
    fs::rename(checkpoint, &aside).map_err(|cause| write_error(&aside, &cause, None))?;
    Ok(aside)
}

/// A complete and unaltered checkpoint
#[derive(Debug, Clone)]
pub struct Checkpoint {
    path: PathBuf,
    step: u64,
    state: Vec<u8>,
}

impl Checkpoint {
    /// Opens a checkpoint after comparing every file with its checksum
    pub fn open(path: impl Into<PathBuf>) -> Result<Self> {
        let path = path.into();
        verify(&path)?;
        let state_path = path.join(STATE);
        let state = fs::read(&state_path).map_err(|cause| Error::read(&state_path, cause))?;
        let head: Head = serde_json::from_slice(&state).map_err(|cause| Error::read(&state_path, cause))?;
        if head.format != FORMAT {
            let (found, version) = (head.format, head.version);
            return Err(Error::usage(format!(
                "`{}` has checkpoint format {found} (written by version {version}), expected {FORMAT}",
                path.display()
            ))
            .hint(format!("resume with version {version}, or start a new run from the checkpoint's weights")));
        }
        Ok(Self { path, step: head.step, state })
    }

    /// The folder, for those who read the model files
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Optimiser steps done
    pub fn step(&self) -> u64 {
        self.step
    }

    /// What [`CheckpointWriter::write_state`] was given
    pub fn state<T: DeserializeOwned>(&self) -> Result<T> {
        let parsed: StateIn<T> = serde_json::from_slice(&self.state).map_err(|cause| {
            Error::read(self.path.join(STATE), cause).hint("was this checkpoint written by another command or version?")
        })?;
        Ok(parsed.state)
    }

    /// What [`CheckpointWriter::write_tensors`] was given under this name
    pub fn tensors(&self, file: &str) -> Result<TensorFile> {
        TensorFile::open(&self.path.join(file))
    }
}

/// One line a file and a last one for the lines above it
fn checksums(folder: &Path) -> io::Result<String> {
    let mut files = Vec::new();
    list_files(folder, "", &mut files)?;
    files.retain(|name| name != CHECKSUMS);
    files.sort();
    let lines: io::Result<Vec<String>> = files.par_iter().map(|name| line_of_file(folder, name)).collect();
    let mut text = lines?.concat();
    text.push_str(&line(CHECKSUMS, crc32c::crc32c(text.as_bytes()), text.len() as u64));
    Ok(text)
}

/// Compares every file with its line, by making the line anew: a change of any byte of the list shows as well
fn verify(folder: &Path) -> Result<()> {
    let shown = folder.display();
    if !folder.is_dir() {
        return Err(Error::usage(format!("no checkpoint folder `{shown}`"))
            .hint("`resume_from_checkpoint: true` takes the newest one in `output_dir`"));
    }
    let sums = folder.join(CHECKSUMS);
    let text = match fs::read(&sums) {
        Ok(bytes) => String::from_utf8(bytes).map_err(|_| damaged(folder, format!("`{CHECKSUMS}` was altered")))?,
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => {
            return Err(Error::usage(format!("`{shown}` is not a complete checkpoint: it has no `{CHECKSUMS}`")).hint(
                "name a `checkpoint-N` folder of this program; the weights of any other model folder are taken with `model_name_or_path`",
            ));
        }
        Err(cause) => return Err(Error::read(&sums, cause)),
    };
    let lines: Vec<&str> = text.split_inclusive('\n').collect();
    let (last, files) = lines.split_last().ok_or_else(|| damaged(folder, format!("`{CHECKSUMS}` is empty")))?;
    let listed = text.len() - last.len();
    if **last != *line(CHECKSUMS, crc32c::crc32c(&text.as_bytes()[..listed]), listed as u64) {
        return Err(damaged(folder, format!("`{CHECKSUMS}` was cut or altered")));
    }
    files.par_iter().try_for_each(|expected| {
        let name = expected.trim_end().splitn(3, ' ').nth(2).unwrap_or_default();
        match line_of_file(folder, name) {
            Ok(found) if found == **expected => Ok(()),
            Ok(_) => Err(damaged(folder, format!("`{name}` was cut or altered"))),
            Err(cause) => Err(damaged(folder, format!("cannot read `{name}`: {cause}"))),
        }
    })
}

fn damaged(folder: &Path, what: String) -> Error {
    Error::usage(format!("the checkpoint `{}` is damaged: {what}", folder.display()))
        .hint("resume from an older one; `resume_from_checkpoint: true` takes the newest that is complete")
}

fn line(name: &str, crc: u32, length: u64) -> String {
    format!("{crc:08x} {length} {name}\n")
}

fn line_of_file(folder: &Path, name: &str) -> io::Result<String> {
    let mut file = File::open(folder.join(name))?;
    let mut buffer = vec![0; 1 << 18];
    let (mut crc, mut length) = (0, 0);
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(line(name, crc, length)),
            n => {
                crc = crc32c::crc32c_append(crc, &buffer[..n]);
                length += n as u64;
            }
        }
    }
}

/// Paths relative to the checkpoint, with `/` between folders
fn list_files(folder: &Path, prefix: &str, into: &mut Vec<String>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name().into_string().map_err(|_| io::Error::other("a file name is not UTF-8"))?;
        let name = format!("{prefix}{name}");
        if entry.file_type()?.is_dir() {
            list_files(&entry.path(), &format!("{name}/"), into)?;
        } else {
            into.push(name);
        }
    }
    Ok(())
}
