//! A model's tokeniser, read from and written to a folder in Hugging Face layout.
//!
//! Everything that makes a text longer or shorter behind the caller's back (truncation and padding stored in
//! `tokenizer.json`) is switched off; masks come from lengths, never from ids.

use std::ops::Range;
use std::path::Path;
use std::sync::OnceLock;

use rayon::prelude::*;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tokenizers::{AddedToken, PreTokenizerWrapper};

use super::template::ChatTemplate;
use super::tokenizer_files::{SPECIAL, SideFiles, gpt2_json};
use crate::error::{Error, Result};
use crate::files;

/// Text to token ids and back
#[derive(Debug, Clone)]
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    /// The same with special tokens read as plain text, made when first asked for
    plain: OnceLock<Box<tokenizers::Tokenizer>>,
    files: SideFiles,
    eos: Option<(u32, String)>,
    pad: Option<u32>,
}

/// File names of a vocabulary and its merges: Hugging Face's and OpenAI's
const VOCAB_AND_MERGES: [(&str, &str); 2] = [("vocab.json", "merges.txt"), ("encoder.json", "vocab.bpe")];

impl Tokenizer {
    /// Reads `tokenizer.json`, or a vocabulary with merges, and what lies beside it
    pub fn from_folder(folder: &Path) -> Result<Self> {
        let files = SideFiles::read(folder)?;
        let mut inner = load(folder, &files)?;
        inner
            .with_truncation(None)
            .map_err(|e| Error::usage(format!("cannot switch off the truncation in `{}`: {e}", folder.display())))?
            .with_padding(None);
        for token in &files.added {
            let known = inner.get_added_vocabulary().get_vocab().contains_key(&token.content);
            if known {
                continue;
            }
            let flag = |name: &str| token.flags.get(name).and_then(Value::as_bool);
            let added = AddedToken::from(token.content.clone(), token.special)
                .single_word(flag("single_word").unwrap_or(false))
                .lstrip(flag("lstrip").unwrap_or(false))
                .rstrip(flag("rstrip").unwrap_or(false))
                .normalized(flag("normalized").unwrap_or(!token.special));
            inner.add_tokens([added]).map_err(|e| {
                Error::usage(format!("cannot add the token {:?} of `{}`: {e}", token.content, folder.display()))
            })?;
        }
        let mut tokenizer = Self { inner, plain: OnceLock::new(), files, eos: None, pad: None };
        let named = tokenizer.files.special.get("eos_token").cloned();
        let by_id = || tokenizer.inner.id_to_token(tokenizer.files.eos_id?);
        tokenizer.eos = named.or_else(by_id).and_then(|token| Some((tokenizer.inner.token_to_id(&token)?, token)));
        let pad = tokenizer.files.special.get("pad_token").and_then(|token| tokenizer.inner.token_to_id(token));
        tokenizer.pad = pad.or(tokenizer.eos_id());
        Ok(tokenizer)
    }

    /// Ids of a text as transformers' `tokenizer(text)` gives them: special tokens in the text are recognised, and those
    /// that the tokeniser itself puts around a text are there
    pub fn encode(&self, text: &str) -> Result<Vec<u32>> {
        encode(&self.inner, text, true)
    }

    /// Ids of a text that a chat template has written: special tokens recognised, none added
    pub fn encode_rendered(&self, text: &str) -> Result<Vec<u32>> {
        encode(&self.inner, text, false)
    }

    /// [`Self::encode_rendered`], and which tokens hold a byte of one of these spans of the text
    pub fn encode_spans(&self, text: &str, spans: &[Range<usize>]) -> Result<(Vec<u32>, Vec<bool>)> {
        let encoding =
            self.inner.encode(text, false).map_err(|e| Error::usage(format!("cannot tokenise a text: {e}")))?;
        let touches = |&(start, end): &(usize, usize)| spans.iter().any(|span| start < span.end && end > span.start);
        Ok((encoding.get_ids().to_vec(), encoding.get_offsets().iter().map(touches).collect()))
    }

    /// Ids of a text in which special tokens are plain text
    pub fn encode_plain(&self, text: &str) -> Result<Vec<u32>> {
        let plain = self.plain.get_or_init(|| {
            let mut plain = Box::new(self.inner.clone());
            plain.set_encode_special_tokens(true);
            plain
        });
        encode(plain, text, false)
    }

    /// [`Self::encode`] for many texts on all threads, in order
    pub fn encode_batch<S: AsRef<str> + Sync>(&self, texts: &[S]) -> Result<Vec<Vec<u32>>> {
        texts.par_iter().map(|text| self.encode(text.as_ref())).collect()
    }

    /// The text of some ids; bytes that are not UTF-8 become U+FFFD
    pub fn decode(&self, ids: &[u32], skip_special: bool) -> Result<String> {
        self.inner.decode(ids, skip_special).map_err(|e| Error::run(format!("cannot decode tokens: {e}")))
    }

    /// Id of the token that ends a text
    pub fn eos_id(&self) -> Option<u32> {
        self.eos.as_ref().map(|(id, _)| *id)
    }

    /// The token that ends a text
    pub fn eos_token(&self) -> Option<&str> {
        self.eos.as_ref().map(|(_, token)| token.as_str())
    }

    /// Id of the padding token; EOS where there is none
    pub fn pad_id(&self) -> Option<u32> {
        self.pad
    }

    /// Id of the token that begins a text
    pub fn bos_id(&self) -> Option<u32> {
        self.inner.token_to_id(self.files.special.get("bos_token")?)
    }

    /// One more than the largest id (added tokens included): what a model's embedding must have at least
    pub fn vocab_size(&self) -> usize {
        let largest = self.inner.get_vocab(true).into_values().max();
        largest.map_or(0, |id| id as usize + 1)
    }

    /// The longest text that the model was made for, where the files say it
    pub fn model_max_length(&self) -> Option<usize> {
        // transformers writes 1e30 for "not known"
        let length = self.files.config.get("model_max_length")?.as_f64()?;
        (1.0..1e9).contains(&length).then_some(length as usize)
    }

    /// Special tokens by transformers' names, pad included where it falls back to EOS
    pub fn special_tokens(&self) -> Vec<(String, String)> {
        let token = |name: &str| match name {
            "eos_token" => self.eos_token().map(str::to_string),
            "pad_token" => self.files.special.get(name).cloned().or_else(|| self.eos_token().map(str::to_string)),
            _ => self.files.special.get(name).cloned(),
        };
        SPECIAL.iter().filter_map(|name| Some(((*name).to_string(), token(name)?))).collect()
    }

    /// The source of the chat template (the one for tools where `tools` and there is one)
    pub fn chat_template_source(&self, tools: bool) -> Option<&str> {
        let templates = &self.files.templates;
        let for_tools = tools.then(|| templates.get("tool_use")).flatten();
        for_tools.or_else(|| templates.get("default")).map(String::as_str)
    }

    /// The compiled chat template, or an error that says how to get one
    pub fn chat_template(&self, tools: bool) -> Result<ChatTemplate> {
        let Some(source) = self.chat_template_source(tools) else {
            return Err(Error::usage("the rows are conversations, but the tokenizer has no chat template")
                .hint("put a `chat_template.jinja` beside the model, or use rows of plain text"));
        };
        ChatTemplate::new(source, self.special_tokens())
    }

    /// Takes another chat template, which [`Self::save`] then writes
    pub fn set_chat_template(&mut self, source: &str) -> Result<()> {
        ChatTemplate::new(source, Vec::new())?;
        self.files.templates.clear();
        self.files.templates.insert("default".to_string(), source.to_string());
        self.files.config.remove("chat_template");
        Ok(())
    }

    /// Takes another end-of-text token, which must be in the vocabulary
    pub fn set_eos_token(&mut self, token: &str) -> Result<()> {
        self.eos = Some((self.known("eos_token", token)?, token.to_owned()));
        self.files.special.insert("eos_token", token.to_owned());
        // Else the saved files would keep the old one
        self.files.config.remove("eos_token");
        Ok(())
    }

    /// Takes another padding token, which must be in the vocabulary
    pub fn set_pad_token(&mut self, token: &str) -> Result<()> {
        self.pad = Some(self.known("pad_token", token)?);
        self.files.special.insert("pad_token", token.to_owned());
        self.files.config.remove("pad_token");
        Ok(())
    }

    fn known(&self, key: &str, token: &str) -> Result<u32> {
        self.inner
            .token_to_id(token)
            .ok_or_else(|| Error::usage(format!("`{key}` must be a token of the tokenizer, got `{token}`")))
    }

    /// SHA-256 of all that decides over ids: the tokeniser, its special tokens and chat templates
    pub fn fingerprint(&self) -> Result<[u8; 32]> {
        let mut hash = Sha256::new().chain_update(self.json(false)?);
        let templates = self.files.templates.iter().map(|(name, text)| (name.clone(), text.clone()));
        for (name, text) in self.special_tokens().into_iter().chain(templates) {
            // Lengths keep the parts apart
            for part in [name, text] {
                hash.update((part.len() as u64).to_le_bytes());
                hash.update(part);
            }
        }
        Ok(hash.finalize().into())
    }

    /// Writes `tokenizer.json`, `tokenizer_config.json` and, where there is one, the chat template, such that
    /// transformers' `AutoTokenizer` loads them with the same special tokens; keys that were found stay
    pub fn save(&self, folder: &Path) -> Result<()> {
        files::write_bytes(&folder.join("tokenizer.json"), self.json(true)?.as_bytes())?;
        let mut config = self.files.config.clone();
        for (name, token) in self.special_tokens() {
            // An entry that was found keeps its form (a text, or an object with flags)
            if config.get(&name).is_none_or(Value::is_null) {
                config.insert(name, token.into());
            }
        }
        if !config.contains_key("tokenizer_class") {
            config.insert("tokenizer_class".to_string(), "PreTrainedTokenizerFast".into());
        }
        let single = self.files.templates.len() == 1 && !matches!(config.get("chat_template"), Some(Value::Array(_)));
        if let (true, Some(template)) = (single, self.chat_template_source(false)) {
            // In both places: transformers before 4.51 reads only the configuration
            files::write_bytes(&folder.join("chat_template.jinja"), template.as_bytes())?;
            config.insert("chat_template".to_string(), template.into());
        }
        let mut text = serde_json::to_string_pretty(&Value::Object(config)).map_err(|e| Error::write(folder, e))?;
        text.push('\n');
        files::write_bytes(&folder.join("tokenizer_config.json"), text.as_bytes())
    }

    fn json(&self, pretty: bool) -> Result<String> {
        self.inner.to_string(pretty).map_err(|e| Error::run(format!("cannot write the tokenizer as JSON: {e}")))
    }
}

fn encode(tokenizer: &tokenizers::Tokenizer, text: &str, add_special: bool) -> Result<Vec<u32>> {
    let encoding = tokenizer.encode_fast(text, add_special);
    Ok(encoding.map_err(|e| Error::usage(format!("cannot tokenise a text: {e}")))?.get_ids().to_vec())
}

fn load(folder: &Path, files: &SideFiles) -> Result<tokenizers::Tokenizer> {
    let damaged = |path: &Path, e: tokenizers::Error| {
        Error::usage(format!("`{}` is not a readable tokenizer: {e}", path.display()))
            .hint("fetch it again, or write it with a current `tokenizers`")
    };
    let flag = |name: &str| files.config.get(name).and_then(Value::as_bool);
    let path = folder.join("tokenizer.json");
    if path.exists() {
        let bytes = std::fs::read(&path).map_err(|e| Error::read(&path, e))?;
        let mut tokenizer = tokenizers::Tokenizer::from_bytes(bytes).map_err(|e| damaged(&path, e))?;
        // transformers builds GPT-2's pre-tokeniser from the configuration, whatever `tokenizer.json` says
        if let (true, Some(space)) = (files.is_gpt2(), flag("add_prefix_space"))
            && let Some(PreTokenizerWrapper::ByteLevel(byte_level)) = tokenizer.get_pre_tokenizer()
        {
            let byte_level = byte_level.add_prefix_space(space);
            tokenizer.with_pre_tokenizer(Some(byte_level));
        }
        return Ok(tokenizer);
    }
    for (vocab, merges) in VOCAB_AND_MERGES {
        let (vocab, merges) = (folder.join(vocab), folder.join(merges));
        if !vocab.exists() {
            continue;
        }
        if !merges.exists() {
            return Err(Error::usage(format!("`{}` is missing beside `{}`", merges.display(), vocab.display())));
        }
        let mut json = gpt2_json(&vocab, &merges, flag("add_prefix_space").unwrap_or(false))?;
        if flag("add_bos_token").unwrap_or(false) {
            json["post_processor"] = bos_processor(&json, files);
        }
        return tokenizers::Tokenizer::from_bytes(json.to_string()).map_err(|e| damaged(&vocab, e));
    }
    let here = if folder.is_dir() { "" } else { ", which is not a folder" };
    Err(Error::usage(format!("no tokenizer in `{}`{here}", folder.display()))
        .hint("expected `tokenizer.json`, or `vocab.json` with `merges.txt`"))
}

/// Puts BOS before a text; null where there is no such token
fn bos_processor(json: &Value, files: &SideFiles) -> Value {
    let bos = files.special.get("bos_token");
    let Some((bos, id)) = bos.and_then(|bos| Some((bos, json["model"]["vocab"].get(bos)?))) else { return Value::Null };
    let text = |name: &str, type_id: u8| json!({"Sequence": {"id": name, "type_id": type_id}});
    let start = |type_id: u8| json!({"SpecialToken": {"id": bos, "type_id": type_id}});
    json!({
        "type": "TemplateProcessing",
        "single": [start(0), text("A", 0)],
        "pair": [start(0), text("A", 0), start(1), text("B", 1)],
        "special_tokens": {bos.as_str(): {"id": bos, "ids": [id], "tokens": [bos]}}
    })
}
