//! Which files of a repository make up a model.

use std::path::PathBuf;

use super::cache::is_inside;
use super::failure::Attempt;
use super::glob;
use crate::Error;
use crate::model::config::{CONFIG_FILE, Gpt2Config};
use crate::model::weights::{WEIGHTS_CANDIDATES, is_foreign, is_index, shards};

const TOKENIZER_FILES: [&str; 8] = [
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "chat_template.jinja",
    "chat_template.json",
];
const GENERATION_CONFIG: &str = "generation_config.json";

/// How a file of the repository comes to lie on the disk: downloaded, or looked up
pub(super) type Fetch<'a> = dyn FnMut(&str) -> Attempt<PathBuf> + 'a;

/// Fetches the files of a model: configuration, tokenizer, and weights in the first form there is.
///
/// `place` is what the files are listed from, for messages.
pub(super) fn fetch_model(place: &str, listed: &[String], fetch: &mut Fetch) -> Attempt<()> {
    let has = |name: &str| listed.iter().any(|listed| listed == name);
    if !has(CONFIG_FILE) {
        let error = Error::usage(format!("{place} has no `{CONFIG_FILE}`"));
        return Err(error.hint("a model in Hugging Face layout is needed").into());
    }
    // Before gigabytes are fetched for a model that cannot be loaded
    Gpt2Config::from_file(&fetch(CONFIG_FILE)?)?;
    let Some(weights) = WEIGHTS_CANDIDATES.into_iter().find(|name| has(name)) else {
        return Err(no_weights(place, listed).into());
    };
    if has(GENERATION_CONFIG) {
        fetch(GENERATION_CONFIG)?;
    }
    fetch_tokenizer(listed, fetch)?;
    let path = fetch(weights)?;
    if is_index(weights) {
        for shard in shards(&path)? {
            fetch(&shard)?;
        }
    }
    Ok(())
}

/// Fetches the files of a tokenizer
pub(super) fn fetch_tokenizer(listed: &[String], fetch: &mut Fetch) -> Attempt<()> {
    let is_template = |name: &str| glob::matches("additional_chat_templates/*.jinja", name);
    for name in listed.iter().filter(|name| TOKENIZER_FILES.contains(&name.as_str()) || is_template(name)) {
        fetch(name)?;
    }
    Ok(())
}

fn no_weights(place: &str, listed: &[String]) -> Error {
    let error = Error::usage(format!("{place} has no weights that can be read"));
    let found = listed.iter().find(|name| is_inside(name) && is_foreign(name));
    let instead = found.map(|name| format!(", found `{name}`")).unwrap_or_default();
    error.hint(format!("expected `model.safetensors` or `pytorch_model.bin`, whole or in shards{instead}"))
}
