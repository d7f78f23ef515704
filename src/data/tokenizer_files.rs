//! The files beside `tokenizer.json` that say which tokens are special and which chat template belongs to a model.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Map, Value, json};

use super::json::object_from_file;
use crate::error::{Error, Result};

/// transformers' names for special tokens, in its order
pub(super) const SPECIAL: [&str; 7] =
    ["bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"];
const GPT2_DEFAULT: &str = "<|endoftext|>";

/// A token that is matched in the text before anything else
#[derive(Debug, Clone)]
pub(super) struct AddedToken {
    pub content: String,
    pub flags: Map<String, Value>,
    pub special: bool,
}

/// What the side files say
#[derive(Debug, Clone, Default)]
pub(super) struct SideFiles {
    /// `tokenizer_config.json` as found
    pub config: Map<String, Value>,
    /// Special tokens by name
    pub special: BTreeMap<&'static str, String>,
    /// Tokens to add where the tokeniser lacks them, in this order
    pub added: Vec<AddedToken>,
    /// Chat templates by name; the usual one is `default`
    pub templates: BTreeMap<String, String>,
    /// `eos_token_id` of the generation or model config, the last resort for EOS
    pub eos_id: Option<u32>,
}

impl SideFiles {
    pub(super) fn read(folder: &Path) -> Result<Self> {
        let config = optional_object(&folder.join("tokenizer_config.json"))?.unwrap_or_default();
        let mut files = Self { config, ..Self::default() };
        files.read_special(folder)?;
        files.read_templates(folder)?;
        for name in ["generation_config.json", "config.json"] {
            if files.eos_id.is_none()
                && let Some(config) = optional_object(&folder.join(name))?
            {
                let id = config.get("eos_token_id");
                let id = id.and_then(|id| id.as_array().map_or(Some(id), |ids| ids.first()));
                files.eos_id = id.and_then(Value::as_u64).and_then(|id| id.try_into().ok());
            }
        }
        Ok(files)
    }

    /// Whether transformers would take its class for GPT-2, as it does for a GPT-2 model that names no class
    pub(super) fn is_gpt2(&self) -> bool {
        let class = self.config.get("tokenizer_class").and_then(Value::as_str);
        class.unwrap_or("GPT2Tokenizer").starts_with("GPT2")
    }

    fn read_special(&mut self, folder: &Path) -> Result<()> {
        let mut found = self.config.clone();
        if let Some(Value::Object(decoder)) = self.config.get("added_tokens_decoder") {
            let mut tokens: Vec<(u64, &Value)> =
                decoder.iter().filter_map(|(id, token)| Some((id.parse().ok()?, token))).collect();
            tokens.sort_by_key(|(id, _)| *id);
            self.added.extend(tokens.iter().filter_map(|(_, token)| added_token(token, false)));
        } else {
            // The layout before `added_tokens_decoder`, where these two files beat the configuration
            if let Some(map) = optional_object(&folder.join("special_tokens_map.json"))? {
                found.extend(map);
            }
            if let Some(ids) = optional_object(&folder.join("added_tokens.json"))? {
                let mut tokens: Vec<(u64, String)> =
                    ids.into_iter().filter_map(|(token, id)| Some((id.as_u64()?, token))).collect();
                tokens.sort();
                self.added.extend(tokens.into_iter().filter_map(|(_, token)| added_token(&Value::from(token), false)));
            }
        }
        for name in SPECIAL {
            let token = match found.get(name) {
                Some(token) => added_token(token, true),
                // The class's own defaults, which the configuration leaves unsaid
                None if self.is_gpt2() && matches!(name, "bos_token" | "eos_token" | "unk_token") => {
                    added_token(&Value::from(GPT2_DEFAULT), true)
                }
                None => None,
            };
            if let Some(token) = token {
                self.special.insert(name, token.content.clone());
                self.added.push(token);
            }
        }
        for name in ["extra_special_tokens", "additional_special_tokens"] {
            let tokens: Vec<&Value> = match found.get(name) {
                Some(Value::Array(tokens)) => tokens.iter().collect(),
                Some(Value::Object(tokens)) => tokens.values().collect(),
                _ => Vec::new(),
            };
            self.added.extend(tokens.into_iter().filter_map(|token| added_token(token, true)));
        }
        Ok(())
    }

    fn read_templates(&mut self, folder: &Path) -> Result<()> {
        let file = folder.join("chat_template.jinja");
        if file.exists() {
            let text = std::fs::read_to_string(&file).map_err(|e| Error::read(&file, e))?;
            self.templates.insert("default".to_string(), text);
            return Ok(());
        }
        let mut add = |name: &str, template: &Value| {
            template.as_str().map(|text| self.templates.insert(name.to_string(), text.to_string()))
        };
        match self.config.get("chat_template") {
            Some(template @ Value::String(_)) => {
                add("default", template);
            }
            Some(Value::Array(list)) => {
                for entry in list {
                    if let (Some(name), Some(template)) = (entry["name"].as_str(), entry.get("template")) {
                        add(name, template);
                    }
                }
            }
            Some(Value::Object(map)) => {
                for (name, template) in map {
                    add(name, template);
                }
            }
            _ => {}
        }
        Ok(())
    }
}

fn added_token(token: &Value, special: bool) -> Option<AddedToken> {
    let (content, flags) = match token {
        Value::String(content) => (content.clone(), Map::new()),
        Value::Object(flags) => (flags.get("content")?.as_str()?.to_string(), flags.clone()),
        _ => return None,
    };
    let special = special || flags.get("special").and_then(Value::as_bool).unwrap_or(false);
    (!content.is_empty()).then_some(AddedToken { content, flags, special })
}

fn optional_object(path: &Path) -> Result<Option<Map<String, Value>>> {
    path.exists().then(|| object_from_file(path)).transpose()
}

/// A `tokenizer.json` for a byte-level BPE given as vocabulary and merges, GPT-2's original form
pub(super) fn gpt2_json(vocab: &Path, merges: &Path, add_prefix_space: bool) -> Result<Value> {
    let text = std::fs::read_to_string(merges).map_err(|e| Error::read(merges, e))?;
    let mut pairs = Vec::new();
    for (index, line) in text.lines().enumerate() {
        if line.is_empty() || (index == 0 && line.starts_with("#version")) {
            continue;
        }
        let Some((left, right)) = line.split_once(' ').filter(|(_, right)| !right.contains(' ')) else {
            return Err(Error::usage(format!(
                "{}:{}: expected two tokens with a space between them, found {line:?}",
                merges.display(),
                index + 1
            )));
        };
        pairs.push(json!([left, right]));
    }
    let vocab_object = object_from_file(vocab)?;
    if let Some((token, id)) = vocab_object.iter().find(|(_, id)| id.as_u64().is_none_or(|id| id > u32::MAX as u64)) {
        return Err(Error::usage(format!("`{}`: expected an id for the token {token:?}, found {id}", vocab.display())));
    }
    let byte_level = json!({
        "type": "ByteLevel", "add_prefix_space": add_prefix_space, "trim_offsets": true, "use_regex": true
    });
    Ok(json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": [],
        "normalizer": null,
        "pre_tokenizer": byte_level,
        "post_processor": null,
        "decoder": byte_level,
        "model": {
            "type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": "",
            "end_of_word_suffix": "", "fuse_unk": false, "byte_fallback": false, "ignore_merges": false,
            "vocab": vocab_object, "merges": pairs
        }
    }))
}
