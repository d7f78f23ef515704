//! The default model and data, which are part of the program.

use std::path::Path;

use crate::Result;
use crate::files::write_bytes;

/// Each file's name under `data/`, and what it holds
macro_rules! embedded {
    ($($name:literal),* $(,)?) => {
        &[$(($name, include_bytes!(concat!(env!("CARGO_MANIFEST_DIR"), "/data/", $name)))),*]
    };
}

pub(super) const LEXICON: &[u8] = include_bytes!("../../../data/reviews/lexicon.json");

const FILES: &[(&str, &[u8])] = embedded![
    "README.md",
    "base/README.md",
    "base/config.json",
    "base/generation_config.json",
    "base/model.safetensors",
    "base/tokenizer.json",
    "base/tokenizer_config.json",
    "reviews/corpus.jsonl",
    "reviews/corpus.test.jsonl",
    "reviews/lexicon.json",
    "reviews/preferences.test.jsonl",
    "reviews/preferences.train.jsonl",
    "reviews/sft.test.jsonl",
    "reviews/sft.train.jsonl",
];

/// Writes them all, under the names that they have in `data/`
pub(super) fn write(folder: &Path) -> Result<()> {
    FILES.iter().try_for_each(|(name, bytes)| write_bytes(&folder.join(name), bytes))
}
