//! Files, for every room: writes that leave nothing half-written under a final name, and checksums.
//!
//! A file is written beside its place, brought to disk and renamed. Until then it is called `NAME.partial-XXXXXX`; what
//! a killed process leaves under such a name in a run folder is removed when the next run opens it.

use std::error::Error as StdError;
use std::ffi::{OsStr, OsString};
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{self, BufWriter, ErrorKind, Read, Write};
use std::path::Path;

use sha2::{Digest, Sha256};
use tempfile::Builder;

use crate::error::{Error, Result};

/// What stands between a name and the random end of its partial version
const PARTIAL: &str = ".partial-";

/// Replaces `path` by what `fill` writes, or leaves it untouched. Its folder is made where it is missing
pub fn write_atomic<F>(path: &Path, fill: F) -> Result<()>
where
    F: FnOnce(&mut BufWriter<File>) -> io::Result<()>,
{
    replace(path, fill).map_err(|cause| write_error(path, &cause, None))
}

/// Replaces `path` by `bytes`, or leaves it untouched. Its folder is made where it is missing
pub fn write_bytes(path: &Path, bytes: &[u8]) -> Result<()> {
    replace(path, |writer| writer.write_all(bytes)).map_err(|cause| write_error(path, &cause, Some(bytes.len() as u64)))
}

fn replace<F>(path: &Path, fill: F) -> io::Result<()>
where
    F: FnOnce(&mut BufWriter<File>) -> io::Result<()>,
{
    let folder = parent(path);
    fs::create_dir_all(folder)?;
    let prefix = partial_prefix(path)?;
    let partial = partial_builder(&prefix, 0o666).tempfile_in(folder)?;
    let mut writer = BufWriter::with_capacity(1 << 16, partial.as_file().try_clone()?);
    fill(&mut writer)?;
    writer.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()?;
    partial.persist(path).map_err(|failed| failed.error)?;
    sync_folder(folder)
}

pub(crate) fn partial_prefix(path: &Path) -> io::Result<OsString> {
    let name = path.file_name().ok_or_else(|| io::Error::new(ErrorKind::InvalidInput, "not the name of a file"))?;
    let mut prefix = name.to_os_string();
    prefix.push(PARTIAL);
    Ok(prefix)
}

/// Partial files and folders get of `mode` what the umask leaves, like any other: by default they would be private, and
/// stay so under their final name
#[cfg_attr(not(unix), expect(unused_variables, reason = "there are no modes to set"))]
pub(crate) fn partial_builder(prefix: &OsStr, mode: u32) -> Builder<'_, 'static> {
    let mut builder = Builder::new();
    builder.prefix(prefix);
    #[cfg(unix)]
    builder.permissions(<fs::Permissions as std::os::unix::fs::PermissionsExt>::from_mode(mode));
    builder
}

/// The final name of which `name` is a partial version
pub(crate) fn leftover_of(name: &OsStr) -> Option<&str> {
    let (final_name, random) = name.to_str()?.rsplit_once(PARTIAL)?;
    let is_random = random.len() == 6 && random.bytes().all(|b| b.is_ascii_alphanumeric());
    (is_random && !final_name.is_empty()).then_some(final_name)
}

/// [`Error::write`] with a hint where the cause is a full disk, however deep it lies
pub fn write_error(path: &Path, cause: &(dyn StdError + 'static), needed: Option<u64>) -> Error {
    let error = Error::write(path, cause);
    match storage_problem(cause) {
        Some(ErrorKind::StorageFull) => {
            let amount = needed.map_or_else(String::new, |bytes| format!(" ({} are needed here)", readable(bytes)));
            error.hint(format!(
                "the disk is full: free some space{amount}; a run then goes on with `resume_from_checkpoint`"
            ))
        }
        Some(ErrorKind::QuotaExceeded) => error.hint("the disk quota is used up: free some space or raise the quota"),
        Some(ErrorKind::FileTooLarge) => error.hint("the file system or `ulimit -f` allows no file of this size"),
        Some(ErrorKind::PermissionDenied) => error.hint("choose a folder that this user may write to"),
        Some(ErrorKind::ReadOnlyFilesystem) => error.hint("the file system is read-only: choose another folder"),
        _ => error,
    }
}

/// The kind of the first I/O error in the chain of causes
fn storage_problem(cause: &(dyn StdError + 'static)) -> Option<ErrorKind> {
    let mut next = Some(cause);
    while let Some(current) = next {
        if let Some(io) = current.downcast_ref::<io::Error>() {
            match (io.kind(), io.get_ref()) {
                // `io::Error::other(e)` hides the real one inside
                (ErrorKind::Other, Some(inner)) => return storage_problem(inner),
                (kind, _) => return Some(kind),
            }
        }
        next = current.source();
    }
    None
}

fn readable(bytes: u64) -> String {
    match bytes {
        0..10_000 => format!("{bytes} bytes"),
        10_000..10_000_000 => format!("{:.0} kB", bytes as f64 / 1e3),
        _ => format!("{:.0} MB", bytes as f64 / 1e6),
    }
}

/// The folder that `path` lies in
pub(crate) fn parent(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Brings the names in a folder to disk
pub(crate) fn sync_folder(folder: &Path) -> io::Result<()> {
    if cfg!(unix) { File::open(folder)?.sync_all() } else { Ok(()) }
}

/// SHA-256 of a file, in lower-case hex
pub fn sha256_file(path: &Path) -> Result<String> {
    let fail = |cause| Error::read(path, cause);
    let mut file = File::open(path).map_err(fail)?;
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 1 << 18];
    loop {
        match file.read(&mut buffer).map_err(fail)? {
            0 => return Ok(hex(&hasher.finalize())),
            n => hasher.update(&buffer[..n]),
        }
    }
}

/// Bytes in lower-case hex
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names_in(folder: &Path) -> Vec<String> {
        fs::read_dir(folder).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect()
    }

    #[test]
    fn a_failed_write_leaves_the_old_file_and_no_other() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        write_bytes(&path, b"old").unwrap();
        let error = write_atomic(&path, |writer| {
            writer.write_all(&vec![1; 1 << 20])?;
            Err(io::Error::from(ErrorKind::StorageFull))
        })
        .unwrap_err();
        assert_eq!(error.exit_code(), 1);
        assert!(error.hint_text().unwrap().contains("disk is full"));
        assert_eq!(fs::read(&path).unwrap(), b"old");
        assert_eq!(names_in(folder.path()), ["file"]);
    }

    #[test]
    fn a_full_disk_is_recognised_inside_other_errors() {
        let full = io::Error::from(ErrorKind::StorageFull);
        let wrapped = io::Error::other(safetensors::SafeTensorError::IoError(full));
        let error = write_error(Path::new("x"), &wrapped, Some(2_500_000_000));
        assert!(error.hint_text().unwrap().contains("2500 MB are needed"), "{error}");
        assert_eq!(write_error(Path::new("x"), &io::Error::other("cause"), None).hint_text(), None);
    }

    #[cfg(unix)]
    #[test]
    fn a_written_file_follows_the_umask() {
        use std::os::unix::fs::PermissionsExt;
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        let folder = tempfile::tempdir().unwrap();
        let (plain, ours) = (folder.path().join("plain"), folder.path().join("new/folder/ours"));
        File::create(&plain).unwrap();
        write_bytes(&ours, b"").unwrap();
        assert_eq!(mode(&ours), mode(&plain));
    }

    #[test]
    fn sha256_is_the_published_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("abc");
        fs::write(&path, "abc").unwrap();
        // FIPS 180-2, appendix B.1
        let expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(sha256_file(&path).unwrap(), expected);
    }
}
