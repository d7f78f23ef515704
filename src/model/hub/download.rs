//! One file from the Hub into the cache, whole or not at all.

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::cache::{RepoCache, is_inside};
use super::client::{Client, FileInfo};
use super::failure::{Attempt, Failure, text};
use super::name::Target;
use crate::Error;
use crate::files;

/// Time between two log lines about the same download
const REPORT_EVERY: Duration = Duration::from_secs(10);

/// Fetches `file` at `commit`, unless it is there already; returns its path in the snapshot.
pub(super) fn fetch(client: &Client, cache: &RepoCache, target: &Target, commit: &str, file: &str) -> Attempt<PathBuf> {
    if !is_inside(file) {
        return Err(Error::usage(format!("`{}` lists the file `{file}`, which lies outside of it", target.name)).into());
    }
    let pointer = cache.snapshot_of(commit).join(file);
    if pointer.exists() {
        return Ok(pointer);
    }
    let url = client.url(target, commit, file);
    let info = client.head(&url)?;
    let blob = cache.blob(&info.etag);
    let lock = cache.lock(&info.etag)?;
    let is_whole = fs::metadata(&blob).is_ok_and(|meta| info.size.is_none_or(|size| size == meta.len()));
    if !is_whole {
        tracing::info!(repository = target.name, file, bytes = info.size, "downloading");
        download(client, &url, file, &info, &blob)?;
    }
    let pointer = cache.link(commit, file, &info.etag)?;
    drop(lock);
    Ok(pointer)
}

/// Downloads into `ETAG.incomplete`, goes on where an earlier attempt broke off, checks, and renames.
fn download(client: &Client, url: &str, file: &str, info: &FileInfo, blob: &Path) -> Attempt<()> {
    let folder = blob.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(folder).map_err(|cause| Error::write(folder, cause))?;
    let partial = PathBuf::from(format!("{}.incomplete", blob.display()));
    client.with_retries(file, || {
        append(client, url, file, info, &partial)?;
        verify(info, &partial)
    })?;
    File::open(&partial)
        .and_then(|file| file.sync_all())
        .and_then(|()| fs::rename(&partial, blob))
        .map_err(|cause| Error::write(blob, cause))?;
    Ok(())
}

/// Adds what is missing to the end of `partial`
fn append(client: &Client, url: &str, name: &str, info: &FileInfo, partial: &Path) -> Attempt<()> {
    let write_error = |cause| Failure::Other(Error::write(partial, cause));
    let mut file = File::options().create(true).write(true).truncate(false).open(partial).map_err(write_error)?;
    let mut position = file.seek(SeekFrom::End(0)).map_err(write_error)?;
    // Without a size nothing says whether the partial file belongs to this one
    if info.size.is_none_or(|size| position > size) {
        position = 0;
    }
    if position > 0 && info.size == Some(position) {
        return Ok(());
    }
    let response = client.get(url, position)?;
    let status = response.status().as_u16();
    if status == 416 {
        file.set_len(0).map_err(write_error)?;
        return Err(Failure::Broken("the server refused to continue a download".into()));
    }
    let response = Failure::check(response)?;
    let continues = status == 206
        && text(response.headers(), "content-range")
            .is_some_and(|range| range.starts_with(&format!("bytes {position}-")));
    if !continues {
        position = 0;
    }
    file.set_len(position).map_err(write_error)?;
    file.seek(SeekFrom::Start(position)).map_err(write_error)?;
    let expected = info.size.or_else(|| response.body().content_length().map(|length| position + length));
    let mut reader = response.into_body().into_reader();
    let mut buffer = vec![0; 1 << 16];
    let mut reported = Instant::now();
    loop {
        let count = match reader.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => count,
            Err(cause) => return Err(ureq::Error::from(cause).into()),
        };
        file.write_all(&buffer[..count]).map_err(write_error)?;
        position += count as u64;
        if reported.elapsed() >= REPORT_EVERY {
            tracing::info!(file = name, bytes = position, of = expected, "downloading");
            reported = Instant::now();
        }
    }
    match expected {
        Some(size) if position < size => {
            Err(Failure::Broken(format!("the body ended after {position} of {size} bytes")))
        }
        Some(size) if position > size => {
            file.set_len(0).map_err(write_error)?;
            Err(Failure::Broken(format!("the body has {position} bytes, not {size}")))
        }
        _ => Ok(()),
    }
}

/// Large files have their SHA-256 for an etag; one that does not match is thrown away
fn verify(info: &FileInfo, partial: &Path) -> Attempt<()> {
    let is_sha256 = info.etag.len() == 64 && info.etag.bytes().all(|byte| byte.is_ascii_hexdigit());
    if !is_sha256 {
        return Ok(());
    }
    let found = files::sha256_file(partial)?;
    if found.eq_ignore_ascii_case(&info.etag) {
        return Ok(());
    }
    fs::remove_file(partial).map_err(|cause| Error::write(partial, cause))?;
    Err(Failure::Broken(format!("the checksum does not match: expected {}, found {found}", info.etag)))
}
