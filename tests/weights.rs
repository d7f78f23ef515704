//! Weights against files that transformers wrote (`scripts/goldens/weights.py`), and every way such a file can be wrong.

#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test, in helpers too")]

use std::fs;
use std::path::{Path, PathBuf};

use candle_core::{Device, Tensor};
use collimate::Error;
use collimate::files::hex;
use collimate::model::config::{Architecture, Gpt2Config};
use collimate::model::weights;
use serde_json::Value;
use sha2::{Digest, Sha256};
use tempfile::TempDir;

type Wanted = Vec<(String, Vec<usize>)>;

fn golden(folder: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/goldens/weights").join(folder)
}

fn expected(folder: &str) -> Wanted {
    checksums(folder).into_iter().map(|(name, shape, _)| (name, shape)).collect()
}

fn checksums(folder: &str) -> Vec<(String, Vec<usize>, String)> {
    let text = fs::read_to_string(golden("expected.json")).unwrap();
    let value: Value = serde_json::from_str(&text).unwrap();
    let tensors = value["folders"][folder].as_object().unwrap();
    tensors
        .iter()
        .map(|(name, entry)| {
            let shape = entry[0].as_array().unwrap().iter().map(|size| size.as_u64().unwrap() as usize).collect();
            (name.clone(), shape, entry[1].as_str().unwrap().to_owned())
        })
        .collect()
}

fn sha256(tensor: &Tensor) -> String {
    let values: Vec<f32> = tensor.flatten_all().unwrap().to_vec1().unwrap();
    let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    hex(&Sha256::digest(bytes))
}

/// A copy of a golden folder to damage
fn copy(folder: &str) -> TempDir {
    let copy = tempfile::tempdir().unwrap();
    for entry in fs::read_dir(golden(folder)).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), copy.path().join(entry.file_name())).unwrap();
    }
    copy
}

fn load_error(folder: &Path, wanted: &Wanted) -> Error {
    weights::load(folder, wanted, &[]).map(|tensors| tensors.len()).unwrap_err()
}

fn assert_usage(error: &Error, expected: &str) {
    assert!(error.message().contains(expected), "expected `{expected}` in: {error}");
    assert_eq!(error.exit_code(), 2, "{error}");
    assert!(error.hint_text().is_some(), "no hint: {error}");
}

#[test]
fn every_format_holds_the_values_that_pytorch_wrote() {
    let folders =
        ["safetensors", "sharded", "bin", "sharded_bin", "no_prefix", "bf16", "f16", "f64", "untied", "reward"];
    for folder in folders {
        let tensors = weights::load(&golden(folder), &expected(folder), &[]).unwrap();
        let checksums = checksums(folder);
        assert_eq!(tensors.len(), checksums.len(), "{folder}");
        for (name, shape, checksum) in checksums {
            let tensor = &tensors[&name];
            assert_eq!(tensor.dims(), shape, "{folder}: {name}");
            assert_eq!(sha256(tensor), checksum, "{folder}: {name}");
        }
    }
}

#[test]
fn names_may_be_asked_for_without_the_prefix() {
    let bare: Wanted = expected("safetensors")
        .into_iter()
        .map(|(name, shape)| (name.trim_start_matches("transformer.").to_owned(), shape))
        .collect();
    let tensors = weights::load(&golden("safetensors"), &bare, &[]).unwrap();
    assert_eq!(tensors["wte.weight"].dims(), [11, 4]);
}

#[test]
fn saved_bytes_are_those_that_transformers_writes() {
    let folder = tempfile::tempdir().unwrap();
    for (source, architecture) in [
        ("safetensors", Architecture::LmHead),
        ("untied", Architecture::LmHead),
        ("reward", Architecture::SequenceClassification),
    ] {
        // Bare names and a map's arbitrary order: neither may show in the file
        let tensors: Vec<(String, Tensor)> = weights::load(&golden(source), &expected(source), &[])
            .unwrap()
            .into_iter()
            .map(|(name, tensor)| (name.trim_start_matches("transformer.").to_owned(), tensor))
            .collect();
        weights::save(folder.path(), &tensors).unwrap();
        let file = weights::WEIGHTS_FILE;
        let ours = fs::read(folder.path().join(file)).unwrap();
        let theirs = fs::read(golden(source).join(file)).unwrap();
        assert!(ours == theirs, "{source}: {} bytes, expected {}", ours.len(), theirs.len());

        let config = Gpt2Config::load(&golden(source)).unwrap();
        config.save(folder.path(), architecture).unwrap();
        let read = |folder: &Path| -> Value {
            serde_json::from_str(&fs::read_to_string(folder.join("config.json")).unwrap()).unwrap()
        };
        assert_eq!(read(folder.path()), read(&golden(source)), "{source}");
    }
}

#[test]
fn views_are_saved_by_value() {
    let folder = tempfile::tempdir().unwrap();
    let whole = Tensor::arange(0f32, 12f32, &Device::Cpu).unwrap().reshape((3, 4)).unwrap();
    let views = [whole.t().unwrap(), whole.narrow(0, 1, 1).unwrap(), whole.narrow(1, 1, 2).unwrap()];
    let named: Vec<_> = views.iter().enumerate().map(|(i, view)| (format!("v{i}"), view.clone())).collect();
    weights::save(folder.path(), &named).unwrap();
    let wanted: Wanted = named.iter().map(|(name, view)| (name.clone(), view.dims().to_vec())).collect();
    let read = weights::load(folder.path(), &wanted, &[]).unwrap();
    for (name, view) in &named {
        let values = |tensor: &Tensor| tensor.to_vec2::<f32>().unwrap();
        assert_eq!(values(&read[name]), values(view), "{name}");
    }
}

#[test]
fn a_base_model_may_lack_the_head_of_a_reward_model() {
    let wanted = expected("reward");
    let tensors = weights::load(&golden("safetensors"), &wanted, &["score.weight"]).unwrap();
    assert_eq!(tensors.len(), wanted.len() - 1);
    assert!(!tensors.contains_key("score.weight"));
    assert_usage(&load_error(&golden("safetensors"), &wanted), "1 tensor missing: `score.weight` [1, 4]");
}

#[test]
fn everything_that_does_not_fit_stands_in_one_message() {
    let mut wanted = expected("reward");
    wanted.retain(|(name, _)| name != "score.weight");
    wanted[0].1 = vec![7];
    let name = wanted[0].0.clone();
    wanted.push(("transformer.h.2.ln_1.bias".into(), vec![4]));
    let error = load_error(&golden("reward"), &wanted);
    assert_usage(&error, "1 tensor missing: `transformer.h.2.ln_1.bias` [4]");
    assert_usage(&error, &format!("1 tensor of another shape: `{name}` expected [7], found [12]"));
    assert_usage(&error, "1 tensor unexpected: `score.weight` [1, 4]");
    assert!(error.message().contains("model.safetensors` does not fit the model"), "{error}");
}

#[test]
fn a_repeated_head_of_another_shape_is_not_a_tied_one() {
    let folder = tempfile::tempdir().unwrap();
    let zeros = |shape: &[usize]| Tensor::zeros(shape, candle_core::DType::F32, &Device::Cpu).unwrap();
    let save = |head: &[usize]| {
        let tensors = [("wte.weight".to_owned(), zeros(&[11, 4])), ("lm_head.weight".to_owned(), zeros(head))];
        weights::save(folder.path(), &tensors).unwrap();
    };
    let wanted = vec![("wte.weight".to_owned(), vec![11, 4])];
    save(&[11, 4]);
    assert_eq!(weights::load(folder.path(), &wanted, &[]).unwrap().len(), 1);
    save(&[12, 4]);
    assert_usage(&load_error(folder.path(), &wanted), "`lm_head.weight` has [12, 4], not the shape of the embedding");
}

#[test]
fn a_damaged_safetensors_file_is_refused_at_any_length() {
    let wanted = expected("safetensors");
    let folder = copy("safetensors");
    let path = folder.path().join("model.safetensors");
    let whole = fs::read(&path).unwrap();
    for length in [1, 7, 8, 100, whole.len() - 1] {
        fs::write(&path, &whole[..length]).unwrap();
        assert_usage(&load_error(folder.path(), &wanted), "is not a whole safetensors file");
    }
    fs::write(&path, [whole.as_slice(), b"more"].concat()).unwrap();
    assert_usage(&load_error(folder.path(), &wanted), "is not a whole safetensors file: its header describes");
    fs::write(&path, [&u64::MAX.to_le_bytes(), &whole[8..]].concat()).unwrap();
    assert_usage(&load_error(folder.path(), &wanted), "its header claims 18446744073709551615 bytes");
    let mut garbled = whole.clone();
    garbled[9] = b'!';
    fs::write(&path, garbled).unwrap();
    assert_usage(&load_error(folder.path(), &wanted), "bad header");
}

#[test]
fn files_that_are_not_weights_are_recognised() {
    let wanted = expected("safetensors");
    let folder = tempfile::tempdir().unwrap();
    let pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 548105171\n";
    for file in ["model.safetensors", "pytorch_model.bin"] {
        let path = folder.path().join(file);
        fs::write(&path, "").unwrap();
        assert_usage(&load_error(folder.path(), &wanted), "is empty (0 bytes)");
        fs::write(&path, pointer).unwrap();
        assert_usage(&load_error(folder.path(), &wanted), "is a git-lfs pointer");
        fs::remove_file(&path).unwrap();
    }
    let path = folder.path().join("pytorch_model.bin");
    for (bytes, expected) in [
        (b"\x80\x02\x8a\x0a".as_slice(), "is in the format of PyTorch before 1.6"),
        (b"hello", "is not a whole PyTorch file"),
        (b"PK\x03\x04", "is not a whole PyTorch file"),
    ] {
        fs::write(&path, bytes).unwrap();
        assert_usage(&load_error(folder.path(), &wanted), expected);
    }
    fs::write(&path, &fs::read(golden("bin").join("pytorch_model.bin")).unwrap()[..9000]).unwrap();
    assert_usage(&load_error(folder.path(), &wanted), "is not a whole PyTorch file");
}

#[test]
fn nan_and_inf_name_their_tensor() {
    let folder = tempfile::tempdir().unwrap();
    for (value, name) in [(f32::NAN, "NaN"), (f32::NEG_INFINITY, "-inf")] {
        let tensor = Tensor::from_vec(vec![0., value, 0.], 3, &Device::Cpu).unwrap();
        weights::save(folder.path(), &[("h.0.ln_1.bias".to_owned(), tensor)]).unwrap();
        let error = load_error(folder.path(), &vec![("h.0.ln_1.bias".to_owned(), vec![3])]);
        assert_usage(&error, &format!("tensor `transformer.h.0.ln_1.bias` holds {name} at element 1"));
    }
}

#[test]
fn shards_must_be_there_and_stay_in_their_folder() {
    let wanted = expected("sharded");
    let folder = copy("sharded");
    fs::remove_file(folder.path().join("model-00002-of-00002.safetensors")).unwrap();
    assert_usage(&load_error(folder.path(), &wanted), "1 of them do not exist, such as `model-00002-of-00002");

    let index = folder.path().join("model.safetensors.index.json");
    fs::write(&index, r#"{"weight_map": {"wte.weight": "../model.safetensors"}}"#).unwrap();
    let error = load_error(folder.path(), &wanted);
    assert!(error.message().contains("is not a plain file name"), "{error}");
    fs::write(&index, "{}").unwrap();
    assert!(load_error(folder.path(), &wanted).message().contains("expected an object `weight_map`"));
}

#[test]
fn a_folder_without_weights_says_what_it_has_instead() {
    let folder = tempfile::tempdir().unwrap();
    let wanted = expected("safetensors");
    let error = load_error(folder.path(), &wanted);
    assert_usage(&error, "no weights in `");
    assert!(error.hint_text().unwrap().contains("expected `model.safetensors`"));
    fs::create_dir(folder.path().join("checkpoint-100")).unwrap();
    assert!(load_error(folder.path(), &wanted).hint_text().unwrap().contains("checkpoint-100`?"));
    fs::write(folder.path().join("tf_model.h5"), "x").unwrap();
    assert!(load_error(folder.path(), &wanted).hint_text().unwrap().contains("`tf_model.h5` is not supported"));
    fs::write(folder.path().join("adapter_model.safetensors"), "x").unwrap();
    assert!(load_error(folder.path(), &wanted).hint_text().unwrap().contains("LoRA adapter"));
}
