//! The tokeniser against the real GPT-2's cases, its files, and what it writes.

#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test, in helpers too")]

use std::io::Read as _;
use std::path::{Path, PathBuf};

use collimate::data::Tokenizer;
use flate2::read::GzDecoder;
use serde_json::{Value, json};

fn tiny() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/goldens/data/tokenizer")
}

fn tiny_copy(skip: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for name in ["tokenizer.json", "tokenizer_config.json", "chat_template.jinja"] {
        if name != skip {
            std::fs::copy(tiny().join(name), folder.path().join(name)).unwrap();
        }
    }
    folder
}

fn ids(value: &Value) -> Vec<u32> {
    value.as_array().unwrap().iter().map(|id| id.as_u64().unwrap() as u32).collect()
}

#[test]
fn the_real_gpt2_encodes_every_case_from_either_form() {
    let Some(data) = std::env::var_os("COLLIMATE_TEST_DATA") else {
        println!("skipped: COLLIMATE_TEST_DATA is not set");
        return;
    };
    let source = Path::new(&data).join("gpt2_tokenizer");
    let mut cases = String::new();
    let file = std::fs::File::open(source.join("encode_cases.jsonl.gz")).unwrap();
    GzDecoder::new(file).read_to_string(&mut cases).unwrap();
    for files in [&["tokenizer.json"][..], &["encoder.json", "vocab.bpe"]] {
        let folder = tempfile::tempdir().unwrap();
        for name in files {
            std::fs::copy(source.join(name), folder.path().join(name)).unwrap();
        }
        let tokenizer = Tokenizer::from_folder(folder.path()).unwrap();
        assert_eq!(
            (tokenizer.eos_id(), tokenizer.pad_id(), tokenizer.bos_id()),
            (Some(50256), Some(50256), Some(50256))
        );
        assert_eq!(tokenizer.vocab_size(), 50257);
        let mut texts = Vec::new();
        let mut expected = Vec::new();
        for line in cases.lines() {
            let case: Value = serde_json::from_str(line).unwrap();
            let text = case["text"].as_str().unwrap().to_string();
            assert_eq!(tokenizer.encode_plain(&text).unwrap(), ids(&case["ids"]), "{text:?}");
            assert_eq!(tokenizer.decode(&ids(&case["ids"]), false).unwrap(), text);
            expected.push(ids(case.get("ids_special").unwrap_or(&case["ids"])));
            texts.push(text);
        }
        assert_eq!(texts.len(), 300);
        assert_eq!(tokenizer.encode_batch(&texts).unwrap(), expected);
    }
}

#[test]
fn vocabulary_with_merges_is_the_same_tokeniser() {
    let json: Value = serde_json::from_slice(&std::fs::read(tiny().join("tokenizer.json")).unwrap()).unwrap();
    let folder = tempfile::tempdir().unwrap();
    std::fs::copy(tiny().join("tokenizer_config.json"), folder.path().join("tokenizer_config.json")).unwrap();
    std::fs::write(folder.path().join("vocab.json"), json["model"]["vocab"].to_string()).unwrap();
    let merges = json["model"]["merges"].as_array().unwrap().iter().map(|pair| {
        let token = |index: usize| pair[index].as_str().unwrap();
        format!("{} {}\n", token(0), token(1))
    });
    std::fs::write(folder.path().join("merges.txt"), format!("#version: 0.2\n{}", merges.collect::<String>())).unwrap();
    std::fs::write(folder.path().join("added_tokens.json"), r#"{"<|im_start|>": 1, "<|im_end|>": 2}"#).unwrap();
    let (made, read) = (Tokenizer::from_folder(folder.path()).unwrap(), Tokenizer::from_folder(&tiny()).unwrap());
    for text in ["", " The sky is blue<|endoftext|>x", "<|im_start|>user\nhéllo 🙂", "a  b\n\n c\t"] {
        assert_eq!(made.encode(text).unwrap(), read.encode(text).unwrap(), "{text:?}");
    }
}

#[test]
fn truncation_and_padding_of_the_file_do_not_count() {
    let folder = tiny_copy("");
    let path = folder.path().join("tokenizer.json");
    let mut json: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    json["truncation"] = json!({"direction": "Right", "max_length": 3, "strategy": "LongestFirst", "stride": 0});
    json["padding"] = json!({
        "strategy": {"Fixed": 50}, "direction": "Right", "pad_to_multiple_of": null,
        "pad_id": 0, "pad_type_id": 0, "pad_token": "<|endoftext|>"
    });
    std::fs::write(&path, json.to_string()).unwrap();
    let (changed, plain) = (Tokenizer::from_folder(folder.path()).unwrap(), Tokenizer::from_folder(&tiny()).unwrap());
    for text in ["a", "The sky is blue and the sea is green"] {
        assert_eq!(changed.encode(text).unwrap(), plain.encode(text).unwrap());
    }
    assert_eq!(changed.fingerprint().unwrap(), plain.fingerprint().unwrap());
}

#[test]
fn special_tokens_come_from_the_files_in_transformers_order() {
    let folder = tiny_copy("chat_template.jinja");
    let config = folder.path().join("tokenizer_config.json");
    let load = |text: Value| {
        std::fs::write(&config, text.to_string()).unwrap();
        Tokenizer::from_folder(folder.path()).unwrap()
    };
    let tokenizer = load(json!({"eos_token": {"content": "<|im_end|>", "lstrip": false}, "pad_token": "[PAD]"}));
    assert_eq!(tokenizer.eos_token(), Some("<|im_end|>"));
    // A pad token that is not in the vocabulary gets the next id, as in transformers
    assert_eq!((tokenizer.pad_id(), tokenizer.vocab_size()), (Some(340), 341));
    assert_eq!(tokenizer.encode("[PAD]<|im_end|>").unwrap(), [340, 2]);

    std::fs::write(folder.path().join("generation_config.json"), r#"{"eos_token_id": [1, 2]}"#).unwrap();
    let tokenizer = load(json!({"tokenizer_class": "PreTrainedTokenizerFast"}));
    assert_eq!((tokenizer.eos_token(), tokenizer.pad_id()), (Some("<|im_start|>"), Some(1)));

    std::fs::write(folder.path().join("special_tokens_map.json"), r#"{"eos_token": "<|im_end|>"}"#).unwrap();
    let tokenizer = load(json!({"eos_token": "<|endoftext|>", "model_max_length": 1024}));
    assert_eq!((tokenizer.eos_id(), tokenizer.model_max_length()), (Some(2), Some(1024)));
}

#[test]
fn the_configuration_decides_over_a_first_space_for_gpt2() {
    let folder = tiny_copy("");
    let config = json!({"tokenizer_class": "GPT2Tokenizer", "add_prefix_space": true});
    std::fs::write(folder.path().join("tokenizer_config.json"), config.to_string()).unwrap();
    let (spaced, plain) = (Tokenizer::from_folder(folder.path()).unwrap(), Tokenizer::from_folder(&tiny()).unwrap());
    assert_eq!(spaced.encode("sky").unwrap(), plain.encode(" sky").unwrap());
}

#[test]
fn chat_templates_are_found_in_every_form() {
    let folder = tiny_copy("chat_template.jinja");
    let config = folder.path().join("tokenizer_config.json");
    let load = |template: Value| {
        std::fs::write(&config, json!({"chat_template": template}).to_string()).unwrap();
        Tokenizer::from_folder(folder.path()).unwrap()
    };
    assert_eq!(load(json!("one")).chat_template_source(true), Some("one"));
    let list = json!([{"name": "tool_use", "template": "tools"}, {"name": "default", "template": "plain"}]);
    for named in [list, json!({"default": "plain", "tool_use": "tools"})] {
        let tokenizer = load(named);
        assert_eq!(tokenizer.chat_template_source(false), Some("plain"));
        assert_eq!(tokenizer.chat_template_source(true), Some("tools"));
    }
    assert!(load(Value::Null).chat_template(false).unwrap_err().message().contains("has no chat template"));
    std::fs::write(folder.path().join("chat_template.jinja"), "file").unwrap();
    assert_eq!(load(json!("one")).chat_template_source(false), Some("file"));
}

#[test]
fn what_is_saved_reads_back_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let mut tokenizer = Tokenizer::from_folder(&tiny()).unwrap();
    tokenizer.save(folder.path()).unwrap();
    let again = Tokenizer::from_folder(folder.path()).unwrap();
    assert_eq!(again.special_tokens(), tokenizer.special_tokens());
    assert_eq!(again.fingerprint().unwrap(), tokenizer.fingerprint().unwrap());
    let read = |path: &Path| serde_json::from_slice::<Value>(&std::fs::read(path).unwrap()).unwrap();
    let (before, after) =
        (read(&tiny().join("tokenizer_config.json")), read(&folder.path().join("tokenizer_config.json")));
    for (key, value) in before.as_object().unwrap() {
        assert_eq!(&after[key], value, "{key}");
    }
    assert_eq!(after["pad_token"], "<|endoftext|>");

    tokenizer.set_chat_template("{{ messages[0].content }}").unwrap();
    tokenizer.save(folder.path()).unwrap();
    let again = Tokenizer::from_folder(folder.path()).unwrap();
    assert_eq!(again.chat_template_source(false), Some("{{ messages[0].content }}"));
    assert_ne!(again.fingerprint().unwrap(), Tokenizer::from_folder(&tiny()).unwrap().fingerprint().unwrap());
    let mut names: Vec<_> = std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["chat_template.jinja", "tokenizer.json", "tokenizer_config.json"]);
}

#[test]
fn damaged_files_are_named() {
    let cases: [(&[(&str, &str)], &str); 7] = [
        (&[], "no tokenizer in"),
        (&[("tokenizer.json", "{")], "tokenizer.json` is not a readable tokenizer"),
        (&[("vocab.json", "{}")], "merges.txt` is missing beside"),
        (&[("vocab.json", "[]"), ("merges.txt", "")], "vocab.json` is damaged"),
        (&[("vocab.json", "{\"a\": -1}"), ("merges.txt", "")], "expected an id for the token \"a\", found -1"),
        (&[("vocab.json", "{\"a\": 0}"), ("merges.txt", "#version: 0.2\na\n")], "merges.txt:2: expected two tokens"),
        (&[("vocab.json", "{\"a\": 0}"), ("merges.txt", "a b\n")], "vocab.json` is not a readable tokenizer"),
    ];
    for (files, expected) in cases {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in files {
            std::fs::write(folder.path().join(name), text).unwrap();
        }
        let error = Tokenizer::from_folder(folder.path()).unwrap_err();
        assert!(error.message().contains(expected), "{error}");
        assert_eq!(error.exit_code(), 2);
    }
    let folder = tiny_copy("tokenizer_config.json");
    std::fs::write(folder.path().join("tokenizer_config.json"), "{\"eos").unwrap();
    assert!(Tokenizer::from_folder(folder.path()).unwrap_err().message().contains("tokenizer_config.json` is damaged"));
}
