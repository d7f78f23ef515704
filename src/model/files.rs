//! Small things that every model file needs: whole-or-nothing writes, checksums, recognising a file that is not one.

use std::fmt::Write as _;
use std::fs::{File, Permissions};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use sha2::{Digest, Sha256};

use crate::{Error, Result};

/// First bytes of the text that git checks out in place of a large file when git-lfs is not installed
const LFS_POINTER: &[u8] = b"version https://git-lfs";

/// Writes `path` so that a reader sees the old file or the whole new one: beside, fsync, rename, fsync of the folder.
pub fn write_whole(path: &Path, write: impl FnOnce(&mut File) -> Result<()>) -> Result<()> {
    let folder = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    std::fs::create_dir_all(folder).map_err(|cause| Error::write(folder, cause))?;
    // A temporary file is private by default; under its final name it gets what the umask allows, like any other file
    let mut beside = tempfile::Builder::new()
        .prefix(".tmp-")
        .permissions(Permissions::from_mode(0o666))
        .tempfile_in(folder)
        .map_err(|cause| Error::write(path, cause))?;
    write(beside.as_file_mut())?;
    beside.as_file().sync_all().map_err(|cause| Error::write(path, cause))?;
    beside.persist(path).map_err(|failed| Error::write(path, failed.error))?;
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(|cause| Error::write(folder, cause))
}

/// Writes `bytes` as the whole of `path`
pub fn write_bytes(path: &Path, bytes: &[u8]) -> Result<()> {
    write_whole(path, |file| file.write_all(bytes).map_err(|cause| Error::write(path, cause)))
}

/// The SHA-256 of a file, in lower-case hex
pub fn sha256_file(path: &Path) -> Result<String> {
    let file = File::open(path).map_err(|cause| Error::read(path, cause))?;
    let mut reader = BufReader::with_capacity(1 << 20, file);
    let mut hasher = Sha256::new();
    loop {
        let block = reader.fill_buf().map_err(|cause| Error::read(path, cause))?;
        if block.is_empty() {
            break;
        }
        hasher.update(block);
        let length = block.len();
        reader.consume(length);
    }
    Ok(hex(&hasher.finalize()))
}

/// Bytes in lower-case hex
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// Opens a file that must hold data, and says so where it is empty or only a git-lfs pointer; also returns its length.
pub(crate) fn open_data(path: &Path) -> Result<(File, u64)> {
    let mut file = File::open(path).map_err(|cause| Error::read(path, cause))?;
    let length = file.metadata().map_err(|cause| Error::read(path, cause))?.len();
    if length == 0 {
        return Err(Error::usage(format!("`{}` is empty (0 bytes)", path.display()))
            .hint("the download or the copy broke off: fetch the file again"));
    }
    let mut start = vec![0; LFS_POINTER.len().min(length as usize)];
    file.read_exact(&mut start).map_err(|cause| Error::read(path, cause))?;
    if start == LFS_POINTER {
        return Err(Error::usage(format!(
            "`{}` is a git-lfs pointer ({length} bytes of text), not the file itself",
            path.display()
        ))
        .hint("run `git lfs install` and `git lfs pull` in that folder"));
    }
    Ok((file, length))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_write_leaves_the_old_file_and_nothing_beside_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config.json");
        write_bytes(&path, b"old").unwrap();
        let failed = write_whole(&path, |file| {
            file.write_all(b"half").unwrap();
            Err(Error::run("disk full"))
        });
        assert!(failed.is_err());
        assert_eq!(std::fs::read(&path).unwrap(), b"old");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_written_file_is_as_readable_as_the_umask_allows() {
        let folder = tempfile::tempdir().unwrap();
        let plain = folder.path().join("plain");
        std::fs::write(&plain, b"").unwrap();
        let ours = folder.path().join("ours");
        write_bytes(&ours, b"").unwrap();
        let mode = |path: &Path| path.metadata().unwrap().permissions().mode();
        assert_eq!(mode(&ours), mode(&plain));
    }

    #[test]
    fn sha256_of_a_known_text() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("abc");
        std::fs::write(&path, b"abc").unwrap();
        // FIPS 180-2, appendix B.1
        let expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(sha256_file(&path).unwrap(), expected);
    }
}
