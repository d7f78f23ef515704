//! Examples kept between runs, so that a second start neither reads nor tokenises anything.

use std::path::Path;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::report::{Prepared, RowReport};
use crate::error::{Error, Result};
use crate::files;

/// Bytes of the checksum at the end of a file
const CHECKSUM: usize = 4;

/// Examples from `file`, or from `make`, whose result is then written there. The name of the file must say all that
/// decides over its contents; `dataset` is what messages call the rows
pub fn cached_examples<T: Serialize + DeserializeOwned>(
    file: &Path,
    dataset: &str,
    make: impl FnOnce() -> Result<Prepared<T>>,
) -> Result<Prepared<T>> {
    if let Ok(bytes) = std::fs::read(file) {
        if let Some((examples, report)) = decode::<T>(&bytes) {
            tracing::info!("{} tokenised rows of `{dataset}` come from `{}`", report.used, file.display());
            report.warn(dataset);
            return Ok(Prepared { examples, report });
        }
        tracing::warn!("`{}` is damaged and is made again", file.display());
    }
    let prepared = make()?;
    let mut bytes =
        postcard::to_stdvec(&(&prepared.examples, &prepared.report)).map_err(|cause| Error::write(file, cause))?;
    bytes.extend(crc32c::crc32c(&bytes).to_le_bytes());
    files::write_bytes(file, &bytes)?;
    Ok(prepared)
}

fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Option<(Vec<T>, RowReport)> {
    let (body, checksum) = bytes.split_at_checked(bytes.len().checked_sub(CHECKSUM)?)?;
    (crc32c::crc32c(body).to_le_bytes() == *checksum).then_some(())?;
    postcard::from_bytes(body).ok()
}

#[cfg(test)]
mod tests {
    use super::super::report::Dropped;
    use super::super::tokenize::LmExample;
    use super::*;

    #[test]
    fn what_was_made_once_is_read_again_and_damage_is_noticed() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("examples");
        let dropped =
            vec![Dropped { reason: "short".to_owned(), count: 2, first: vec!["a:b.jsonl:7".parse().unwrap()] }];
        let made = || {
            let examples = vec![LmExample { ids: vec![1, 50_256, 70_000], loss: vec![false, true, true] }];
            Ok(Prepared {
                examples,
                report: RowReport { read: 3, used: 1, dropped: dropped.clone(), ..RowReport::default() },
            })
        };
        let first = cached_examples(&file, "rows", made).unwrap();
        let second = cached_examples::<LmExample>(&file, "rows", || panic!("made twice")).unwrap();
        assert_eq!((&first.examples, &first.report), (&second.examples, &second.report));
        assert_eq!(second.report.dropped, dropped);
        let whole = std::fs::read(&file).unwrap();
        for damage in
            [Vec::new(), whole[..whole.len() - 1].to_vec(), [&whole[..3], &[whole[3] ^ 1], &whole[4..]].concat()]
        {
            std::fs::write(&file, damage).unwrap();
            assert_eq!(cached_examples(&file, "rows", made).unwrap().examples, first.examples);
            assert_eq!(std::fs::read(&file).unwrap(), whole);
        }
    }
}
