//! `config.json` of a GPT-2: read as transformers reads it, and written so that transformers loads it.

use std::path::Path;

use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

use crate::files;
pub use crate::ops::Activation;
use crate::{Error, Result};

/// Name of the file in a model folder
pub const CONFIG_FILE: &str = "config.json";

impl Activation {
    const NAMES: [(&str, Self); 8] = [
        ("gelu_new", Self::GeluTanh),
        ("gelu", Self::Gelu),
        ("gelu_fast", Self::GeluTanh),
        ("gelu_pytorch_tanh", Self::GeluTanh),
        ("relu", Self::Relu),
        ("silu", Self::Silu),
        ("swish", Self::Silu),
        ("tanh", Self::Tanh),
    ];

    /// The activation of that name in transformers
    pub fn from_name(name: &str) -> Option<Self> {
        Self::NAMES.iter().find(|(known, _)| *known == name).map(|(_, activation)| *activation)
    }

    /// The name written for a configuration that was not read from a file
    fn canonical_name(self) -> &'static str {
        Self::NAMES.iter().find(|(_, activation)| *activation == self).map_or("gelu_new", |(name, _)| name)
    }
}

/// The transformers class that a saved folder is for
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Architecture {
    /// Next-token prediction
    LmHead,
    /// One score a label for a whole sequence: a reward model has one label
    SequenceClassification,
}

impl Architecture {
    /// The class name, as it stands under `architectures`
    pub fn class_name(self) -> &'static str {
        match self {
            Self::LmHead => "GPT2LMHeadModel",
            Self::SequenceClassification => "GPT2ForSequenceClassification",
        }
    }
}

/// Shape and constants of a GPT-2
///
/// Keys that this program does not use are kept and written back unchanged.
#[derive(Debug, Clone, PartialEq)]
pub struct Gpt2Config {
    /// Rows of the token embedding
    pub vocab_size: usize,
    /// Rows of the position embedding: the longest sequence
    pub n_positions: usize,
    /// Width
    pub n_embd: usize,
    /// Blocks
    pub n_layer: usize,
    /// Attention heads
    pub n_head: usize,
    /// Width of the feed-forward block; None is 4 · `n_embd`
    pub n_inner: Option<usize>,
    /// Activation of the feed-forward block
    pub activation_function: Activation,
    /// Dropout on what each block adds to the residual stream
    pub resid_pdrop: f64,
    /// Dropout on the embeddings
    pub embd_pdrop: f64,
    /// Dropout on the attention weights
    pub attn_pdrop: f64,
    /// Added to the variance in layer norm
    pub layer_norm_epsilon: f64,
    /// Standard deviation of fresh weights
    pub initializer_range: f64,
    /// Divide attention scores by the square root of the head width
    pub scale_attn_weights: bool,
    /// Divide attention scores of block i (from 0) by i + 1 as well
    pub scale_attn_by_inverse_layer_idx: bool,
    /// A precision setting of transformers; attention here is f32 throughout, so it changes nothing
    pub reorder_and_upcast_attn: bool,
    /// The output matrix is the token embedding
    pub tie_word_embeddings: bool,
    /// Begin-of-text token
    pub bos_token_id: Option<u32>,
    /// End-of-text tokens; empty where there is none
    pub eos_token_ids: Vec<u32>,
    /// Padding token
    pub pad_token_id: Option<u32>,
    /// Outputs of a classification head
    pub num_labels: usize,
    /// Class names under `architectures`
    pub architectures: Vec<String>,
    /// The object that was read; what it holds beyond the fields above is written back unchanged
    pub raw: Map<String, Value>,
}

impl Default for Gpt2Config {
    /// What transformers assumes for a file that says nothing: the 124M model
    fn default() -> Self {
        Self {
            vocab_size: 50257,
            n_positions: 1024,
            n_embd: 768,
            n_layer: 12,
            n_head: 12,
            n_inner: None,
            activation_function: Activation::GeluTanh,
            resid_pdrop: 0.1,
            embd_pdrop: 0.1,
            attn_pdrop: 0.1,
            layer_norm_epsilon: 1e-5,
            initializer_range: 0.02,
            scale_attn_weights: true,
            scale_attn_by_inverse_layer_idx: false,
            reorder_and_upcast_attn: false,
            tie_word_embeddings: true,
            bos_token_id: Some(50256),
            eos_token_ids: vec![50256],
            pad_token_id: None,
            num_labels: 2,
            architectures: Vec::new(),
            raw: Map::new(),
        }
    }
}

impl Gpt2Config {
    /// Reads `config.json` of a model folder
    pub fn load(folder: &Path) -> Result<Self> {
        Self::from_file(&folder.join(CONFIG_FILE))
    }

    /// Reads a configuration file
    pub fn from_file(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).map_err(|cause| {
            let error = Error::read(path, &cause);
            if cause.kind() == std::io::ErrorKind::NotFound {
                error.hint("a model folder holds `config.json`, weights (`model.safetensors`) and tokenizer files")
            } else {
                error
            }
        })?;
        let value: Value = serde_json::from_str(&text).map_err(|cause| {
            Error::usage(format!("{}:{}:{}: not valid JSON: {cause}", path.display(), cause.line(), cause.column()))
        })?;
        let Value::Object(raw) = value else {
            return Err(Error::usage(format!("{}: expected a JSON object", path.display())));
        };
        Self::from_map(raw).map_err(|error| error.context(path.display()))
    }

    /// Reads a configuration from the object that `config.json` holds
    pub fn from_map(raw: Map<String, Value>) -> Result<Self> {
        check_model_type(&raw)?;
        let default = Self::default();
        let activation_name: String =
            field(&raw, "activation_function", default.activation_function.canonical_name().into())?;
        let activation_function = Activation::from_name(&activation_name).ok_or_else(|| {
            let known: Vec<_> = Activation::NAMES.iter().map(|(name, _)| format!("`{name}`")).collect();
            Error::usage(format!("unknown `activation_function`: `{activation_name}`"))
                .hint(format!("one of {}", known.join(", ")))
        })?;
        let config = Self {
            vocab_size: field(&raw, "vocab_size", default.vocab_size)?,
            n_positions: field(&raw, "n_positions", default.n_positions)?,
            n_embd: field(&raw, "n_embd", default.n_embd)?,
            n_layer: field(&raw, "n_layer", default.n_layer)?,
            n_head: field(&raw, "n_head", default.n_head)?,
            n_inner: field(&raw, "n_inner", default.n_inner)?,
            activation_function,
            resid_pdrop: field(&raw, "resid_pdrop", default.resid_pdrop)?,
            embd_pdrop: field(&raw, "embd_pdrop", default.embd_pdrop)?,
            attn_pdrop: field(&raw, "attn_pdrop", default.attn_pdrop)?,
            layer_norm_epsilon: field(&raw, "layer_norm_epsilon", default.layer_norm_epsilon)?,
            initializer_range: field(&raw, "initializer_range", default.initializer_range)?,
            scale_attn_weights: field(&raw, "scale_attn_weights", default.scale_attn_weights)?,
            scale_attn_by_inverse_layer_idx: field(&raw, "scale_attn_by_inverse_layer_idx", false)?,
            reorder_and_upcast_attn: field(&raw, "reorder_and_upcast_attn", false)?,
            tie_word_embeddings: field(&raw, "tie_word_embeddings", default.tie_word_embeddings)?,
            bos_token_id: field(&raw, "bos_token_id", default.bos_token_id)?,
            eos_token_ids: eos_token_ids(&raw, default.eos_token_ids)?,
            pad_token_id: field(&raw, "pad_token_id", default.pad_token_id)?,
            num_labels: num_labels(&raw, default.num_labels)?,
            architectures: field::<Option<Vec<String>>>(&raw, "architectures", None)?.unwrap_or_default(),
            raw,
        };
        config.validate()?;
        Ok(config)
    }

    /// Width of the feed-forward block
    pub fn inner_size(&self) -> usize {
        self.n_inner.unwrap_or(4 * self.n_embd)
    }

    /// Width of one attention head
    pub fn head_size(&self) -> usize {
        self.n_embd / self.n_head
    }

    /// Refuses shapes that no GPT-2 can have
    pub fn validate(&self) -> Result<()> {
        let sizes = [
            ("vocab_size", self.vocab_size),
            ("n_positions", self.n_positions),
            ("n_embd", self.n_embd),
            ("n_layer", self.n_layer),
            ("n_head", self.n_head),
            ("n_inner", self.inner_size()),
            ("num_labels", self.num_labels),
        ];
        for (key, size) in sizes {
            if size == 0 {
                return Err(Error::usage(format!("`{key}` must be at least 1, found 0")));
            }
        }
        if !self.n_embd.is_multiple_of(self.n_head) {
            return Err(Error::usage(format!(
                "`n_embd` ({}) must be divisible by `n_head` ({})",
                self.n_embd, self.n_head
            )));
        }
        let dropouts =
            [("resid_pdrop", self.resid_pdrop), ("embd_pdrop", self.embd_pdrop), ("attn_pdrop", self.attn_pdrop)];
        for (key, rate) in dropouts {
            if !(0.0..1.0).contains(&rate) {
                return Err(Error::usage(format!("`{key}` must be at least 0 and below 1, found {rate}")));
            }
        }
        for (key, number) in
            [("layer_norm_epsilon", self.layer_norm_epsilon), ("initializer_range", self.initializer_range)]
        {
            if !(number > 0.0 && number.is_finite()) {
                return Err(Error::usage(format!("`{key}` must be above 0, found {number}")));
            }
        }
        Ok(())
    }

    /// The object that `config.json` holds: every key of the file that was read, with today's values
    pub fn to_map(&self, architecture: Architecture) -> Map<String, Value> {
        let mut map = self.raw.clone();
        let activation = match map.get("activation_function").and_then(Value::as_str) {
            Some(name) if Activation::from_name(name) == Some(self.activation_function) => name.to_owned(),
            _ => self.activation_function.canonical_name().to_owned(),
        };
        let eos = match self.eos_token_ids.as_slice() {
            [] => Value::Null,
            [one] => json!(one),
            several => json!(several),
        };
        let entries = [
            ("model_type", json!("gpt2")),
            ("architectures", json!([architecture.class_name()])),
            ("vocab_size", json!(self.vocab_size)),
            ("n_positions", json!(self.n_positions)),
            ("n_embd", json!(self.n_embd)),
            ("n_layer", json!(self.n_layer)),
            ("n_head", json!(self.n_head)),
            ("n_inner", json!(self.n_inner)),
            ("activation_function", json!(activation)),
            ("resid_pdrop", json!(self.resid_pdrop)),
            ("embd_pdrop", json!(self.embd_pdrop)),
            ("attn_pdrop", json!(self.attn_pdrop)),
            ("layer_norm_epsilon", json!(self.layer_norm_epsilon)),
            ("initializer_range", json!(self.initializer_range)),
            ("scale_attn_weights", json!(self.scale_attn_weights)),
            ("scale_attn_by_inverse_layer_idx", json!(self.scale_attn_by_inverse_layer_idx)),
            ("reorder_and_upcast_attn", json!(self.reorder_and_upcast_attn)),
            ("tie_word_embeddings", json!(self.tie_word_embeddings)),
            ("bos_token_id", json!(self.bos_token_id)),
            ("eos_token_id", eos),
            ("pad_token_id", json!(self.pad_token_id)),
            // Saved weights are f32 whatever the file that was read said
            ("dtype", json!("float32")),
        ];
        for (key, value) in entries {
            map.insert(key.to_owned(), value);
        }
        map.shift_remove("torch_dtype");
        map.shift_remove("num_labels");
        if architecture == Architecture::SequenceClassification {
            self.write_labels(&mut map);
        }
        map
    }

    /// Writes `config.json` into `folder`
    pub fn save(&self, folder: &Path, architecture: Architecture) -> Result<()> {
        self.validate()?;
        let mut text = serde_json::to_string_pretty(&self.to_map(architecture))
            .map_err(|cause| Error::run(format!("cannot write the model configuration: {cause}")))?;
        text.push('\n');
        files::write_bytes(&folder.join(CONFIG_FILE), text.as_bytes())
    }

    /// transformers reads the number of labels off the size of `id2label`
    fn write_labels(&self, map: &mut Map<String, Value>) {
        let known = map.get("id2label").and_then(Value::as_object).map(Map::len);
        if known == Some(self.num_labels) {
            return;
        }
        let names = || (0..self.num_labels).map(|label| (label, format!("LABEL_{label}")));
        let by_id: Map<_, _> = names().map(|(label, name)| (label.to_string(), json!(name))).collect();
        let by_name: Map<_, _> = names().map(|(label, name)| (name, json!(label))).collect();
        map.insert("id2label".to_owned(), Value::Object(by_id));
        map.insert("label2id".to_owned(), Value::Object(by_name));
    }
}

/// The value under `key`, or `default` where the file does not have it; `null` is only taken where None is a value.
fn field<T: DeserializeOwned>(raw: &Map<String, Value>, key: &str, default: T) -> Result<T> {
    match raw.get(key) {
        None => Ok(default),
        Some(value) => serde_json::from_value(value.clone()).map_err(|cause| Error::usage(format!("`{key}`: {cause}"))),
    }
}

fn check_model_type(raw: &Map<String, Value>) -> Result<()> {
    let unsupported = |found: String| {
        Error::usage(found).hint(
            "supported: `gpt2` (GPT2LMHeadModel, GPT2ForSequenceClassification), such as `openai-community/gpt2`, \
             `distilbert/distilgpt2` and models of the same shape",
        )
    };
    match raw.get("model_type") {
        Some(Value::String(name)) if name == "gpt2" => {}
        Some(other) => {
            let name = other.as_str().map_or_else(|| other.to_string(), str::to_owned);
            return Err(unsupported(format!("`model_type` `{name}` is not supported")));
        }
        // Files older than the key name the class
        None => {
            let class = raw.get("architectures").and_then(|list| list.get(0)).and_then(Value::as_str).unwrap_or("");
            if !class.starts_with("GPT2") {
                return Err(unsupported("no `model_type`".into()));
            }
        }
    }
    if field::<Option<bool>>(raw, "add_cross_attention", None)? == Some(true) {
        return Err(unsupported("`add_cross_attention` is not supported".into()));
    }
    if raw.get("quantization_config").is_some_and(|value| !value.is_null()) {
        return Err(unsupported("quantised weights (`quantization_config`) are not supported".into()));
    }
    Ok(())
}

fn eos_token_ids(raw: &Map<String, Value>, default: Vec<u32>) -> Result<Vec<u32>> {
    match raw.get("eos_token_id") {
        None => Ok(default),
        Some(Value::Null) => Ok(Vec::new()),
        Some(Value::Array(_)) => field(raw, "eos_token_id", default),
        Some(_) => Ok(vec![field(raw, "eos_token_id", 0)?]),
    }
}

/// `id2label` decides, as in transformers; older files say `num_labels`
fn num_labels(raw: &Map<String, Value>, default: usize) -> Result<usize> {
    let written: Option<usize> = field(raw, "num_labels", None)?;
    let named = field::<Option<Map<String, Value>>>(raw, "id2label", None)?.map(|labels| labels.len());
    match (named, written) {
        (Some(named), Some(written)) if named != written => {
            Err(Error::usage(format!("`num_labels` is {written}, but `id2label` names {named}")))
        }
        (named, written) => Ok(named.or(written).unwrap_or(default)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(value: Value) -> Result<Gpt2Config> {
        let Value::Object(map) = value else { panic!("not an object") };
        Gpt2Config::from_map(map)
    }

    #[test]
    fn a_file_that_says_nothing_is_the_small_model() {
        let config = read(json!({"model_type": "gpt2"})).unwrap();
        let bare = Gpt2Config { raw: config.raw.clone(), ..Gpt2Config::default() };
        assert_eq!(config, bare);
        assert_eq!((config.inner_size(), config.head_size()), (3072, 64));
    }

    #[test]
    fn null_is_a_value_only_where_none_is() {
        let config = read(json!({
            "model_type": "gpt2", "n_inner": null, "bos_token_id": null, "eos_token_id": null, "pad_token_id": null
        }))
        .unwrap();
        assert_eq!((config.n_inner, config.bos_token_id, config.pad_token_id), (None, None, None));
        assert!(config.eos_token_ids.is_empty());
        let error = read(json!({"model_type": "gpt2", "n_embd": null})).unwrap_err();
        assert!(error.message().starts_with("`n_embd`: "), "{error}");
    }

    #[test]
    fn several_end_tokens() {
        let config = read(json!({"model_type": "gpt2", "eos_token_id": [3, 5]})).unwrap();
        assert_eq!(config.eos_token_ids, [3, 5]);
        assert_eq!(config.to_map(Architecture::LmHead)["eos_token_id"], json!([3, 5]));
    }

    #[test]
    fn every_activation_name_survives_a_round_trip() {
        for (name, activation) in Activation::NAMES {
            let config = read(json!({"model_type": "gpt2", "activation_function": name})).unwrap();
            assert_eq!(config.activation_function, activation);
            assert_eq!(config.to_map(Architecture::LmHead)["activation_function"], name);
        }
    }

    #[test]
    fn saving_keeps_unknown_keys_and_states_what_is_written() {
        let config =
            read(json!({"model_type": "gpt2", "torch_dtype": "bfloat16", "task_specific_params": {"a": 1}})).unwrap();
        let map = config.to_map(Architecture::LmHead);
        assert_eq!(map["task_specific_params"], json!({"a": 1}));
        assert_eq!(map["architectures"], json!(["GPT2LMHeadModel"]));
        assert_eq!(map["dtype"], "float32");
        assert!(!map.contains_key("torch_dtype"));
    }

    #[test]
    fn a_reward_model_has_one_label_after_a_round_trip() {
        let config = Gpt2Config { num_labels: 1, ..Gpt2Config::default() };
        let map = config.to_map(Architecture::SequenceClassification);
        assert_eq!(map["id2label"], json!({"0": "LABEL_0"}));
        assert_eq!(map["label2id"], json!({"LABEL_0": 0}));
        assert_eq!(Gpt2Config::from_map(map).unwrap().num_labels, 1);
    }

    #[test]
    fn wrong_requests_are_named() {
        let cases = [
            (json!({"model_type": "llama"}), "`model_type` `llama` is not supported"),
            (json!({}), "no `model_type`"),
            (json!({"model_type": "gpt2", "n_embd": 10, "n_head": 4}), "`n_embd` (10) must be divisible by"),
            (json!({"model_type": "gpt2", "n_layer": 0}), "`n_layer` must be at least 1, found 0"),
            (json!({"model_type": "gpt2", "n_inner": 0}), "`n_inner` must be at least 1, found 0"),
            (json!({"model_type": "gpt2", "n_head": -1}), "`n_head`: "),
            (json!({"model_type": "gpt2", "activation_function": "mish"}), "unknown `activation_function`: `mish`"),
            (json!({"model_type": "gpt2", "attn_pdrop": 1.5}), "`attn_pdrop` must be at least 0 and below 1"),
            (json!({"model_type": "gpt2", "layer_norm_epsilon": 0}), "`layer_norm_epsilon` must be above 0"),
            (json!({"model_type": "gpt2", "add_cross_attention": true}), "`add_cross_attention` is not supported"),
            (json!({"model_type": "gpt2", "quantization_config": {}}), "quantised weights"),
            (json!({"model_type": "gpt2", "num_labels": 3, "id2label": {"0": "a"}}), "`num_labels` is 3, but"),
        ];
        for (config, expected) in cases {
            let error = read(config.clone()).unwrap_err();
            assert!(error.message().starts_with(expected), "{config}: {error}");
            assert_eq!(error.exit_code(), 2);
        }
    }

    #[test]
    fn a_class_name_stands_for_a_missing_model_type() {
        assert!(read(json!({"architectures": ["GPT2LMHeadModel"]})).is_ok());
    }

    #[test]
    fn broken_json_names_file_line_and_column() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join(CONFIG_FILE), "{\n  \"n_embd\": ,\n}").unwrap();
        let error = Gpt2Config::load(folder.path()).unwrap_err();
        assert!(error.message().contains("config.json:2:13: not valid JSON"), "{error}");
    }
}
