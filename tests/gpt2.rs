//! GPT-2 against transformers (`scripts/goldens/gpt2.py`): logits, loss, every parameter's gradient, greedy text.

#![allow(clippy::unwrap_used)]

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use candle_core::{DType, Device, Tensor};
use collimate::model::Trainable;
use collimate::model::config::{Activation, Gpt2Config};
use collimate::model::gpt2::Gpt2;
use collimate::ops::Ragged;

const CASES: [&str; 5] = ["tied", "untied_erf", "relu_unscaled", "silu_one_layer", "tanh"];

struct Case {
    model: Gpt2,
    sequences: Vec<Vec<u32>>,
    arrays: HashMap<String, Tensor>,
    golden: serde_json::Value,
}

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/goldens/gpt2").join(name)
}

fn ids(value: &serde_json::Value) -> Vec<u32> {
    serde_json::from_value(value.clone()).unwrap()
}

fn case(name: &str) -> Case {
    let folder = folder(name);
    let golden: serde_json::Value =
        serde_json::from_slice(&std::fs::read(folder.join("golden.json")).unwrap()).unwrap();
    Case {
        model: Gpt2::load(&folder).unwrap(),
        sequences: golden["sequences"].as_array().unwrap().iter().map(ids).collect(),
        arrays: candle_core::safetensors::load(folder.join("golden.safetensors"), &Device::Cpu).unwrap(),
        golden,
    }
}

fn flat(tensor: &Tensor) -> Vec<f32> {
    tensor.flatten_all().unwrap().to_vec1().unwrap()
}

fn assert_close(what: &str, got: &Tensor, want: &Tensor, tolerance: f32) {
    let (got, want) = (flat(got), flat(want));
    assert_eq!(got.len(), want.len(), "{what}");
    let scale = want.iter().fold(1e-6_f32, |m, x| m.max(x.abs()));
    for (i, (g, w)) in got.iter().zip(&want).enumerate() {
        assert!((g - w).abs() <= tolerance * scale, "{what}[{i}]: {g}, expected {w}");
    }
}

/// Mean negative log-likelihood of all next tokens of `sequences`
fn loss(model: &Gpt2, sequences: &[Vec<u32>]) -> Tensor {
    let layout = Arc::new(Ragged::from_lengths(sequences.iter().map(Vec::len)).unwrap());
    let (mut rows, mut targets) = (Vec::new(), Vec::new());
    for (segment, ids) in layout.segments().iter().zip(sequences) {
        for (i, &target) in ids.iter().enumerate().skip(1) {
            rows.push((segment.start + i - 1) as u32);
            targets.push(target);
        }
    }
    let hidden = model.hidden(&sequences.concat(), &layout, None).unwrap();
    let p = model.token_log_probs(&hidden, &rows, &targets, 1.0).unwrap();
    p.log_probs.mean_all().unwrap().neg().unwrap()
}

/// The summed gradient of every variable
fn gradients(model: &Gpt2) -> Vec<Vec<f32>> {
    let read = |i: usize| model.gradients().read(i, <[f32]>::to_vec);
    model
        .vars()
        .iter()
        .enumerate()
        .map(|(i, (name, _))| read(i).unwrap_or_else(|| panic!("no gradient for {name}")))
        .collect()
}

#[test]
fn hand_written_passes_equal_candles_graph() {
    for name in CASES {
        let mut config = Gpt2Config::load(&folder(name)).unwrap();
        (config.resid_pdrop, config.embd_pdrop, config.attn_pdrop) = (0.2, 0.1, 0.3);
        let model = Gpt2::from_scratch(config, 7).unwrap();
        let oracle = model.composed().unwrap();
        let mut layout = Ragged::new();
        let prompt = layout.push(4, None).unwrap();
        layout.push(5, Some(prompt)).unwrap();
        layout.push(6, Some(prompt)).unwrap();
        layout.push(3, None).unwrap();
        let layout = Arc::new(layout);
        let ids: Vec<u32> = (0..18).map(|i| i * 7 % 61).collect();
        let rows: Vec<u32> = (0..17).collect();
        let loss = |model: &Gpt2| {
            let hidden = model.hidden(&ids, &layout, Some(11)).unwrap();
            let p = model.token_log_probs(&hidden, &rows, &ids[1..], 1.0).unwrap();
            (p.log_probs.sum_all().unwrap() + p.entropy.sum_all().unwrap()).unwrap()
        };
        let (got, want) = (loss(&model), loss(&oracle));
        assert_close(name, &got, &want, 1e-6);
        got.backward().unwrap();
        let grads = want.backward().unwrap();
        for ((parameter, var), got) in oracle.vars().iter().zip(gradients(&model)) {
            let got = Tensor::from_vec(got, var.shape(), &Device::Cpu).unwrap();
            assert_close(&format!("{name} {parameter}"), &got, grads.get(var).unwrap(), 1e-5);
        }
    }
}

#[test]
fn logits_equal_transformers() {
    for name in CASES {
        let case = case(name);
        let layout = Arc::new(Ragged::from_lengths(case.sequences.iter().map(Vec::len)).unwrap());
        let hidden = case.model.hidden(&case.sequences.concat(), &layout, None).unwrap();
        let logits = hidden.matmul(&case.model.lm_head().t().unwrap()).unwrap();
        assert_close(name, &logits, &case.arrays["logits"], 1e-5);
    }
}

#[test]
fn loss_and_every_gradient_equal_transformers() {
    for name in CASES {
        let case = case(name);
        let loss = loss(&case.model, &case.sequences);
        assert_close(name, &loss.unsqueeze(0).unwrap(), &case.arrays["loss"], 1e-6);
        loss.backward().unwrap();
        assert_eq!(case.model.vars().len() + 2, case.arrays.len(), "{name}");
        for ((parameter, var), got) in case.model.vars().iter().zip(gradients(&case.model)) {
            let got = Tensor::from_vec(got, var.shape(), &Device::Cpu).unwrap();
            assert_close(&format!("{name} {parameter}"), &got, &case.arrays[&format!("grad.{parameter}")], 2e-5);
        }
    }
}

#[test]
fn every_variable_gets_a_finite_gradient_that_is_not_zero() {
    for activation in [Activation::GeluTanh, Activation::Gelu, Activation::Relu, Activation::Silu, Activation::Tanh] {
        let mut config = Gpt2Config::load(&folder("untied_erf")).unwrap();
        config.activation_function = activation;
        (config.resid_pdrop, config.embd_pdrop, config.attn_pdrop) = (0.1, 0.1, 0.1);
        let model = Gpt2::from_scratch(config, 7).unwrap();
        let layout = Arc::new(Ragged::from_lengths([9, 6]).unwrap());
        let ids: Vec<u32> = (0..15).map(|i| i * 7 % 61).collect();
        let hidden = model.hidden(&ids, &layout, Some(3)).unwrap();
        let p = model.token_log_probs(&hidden, &(0..14).collect::<Vec<_>>(), &ids[1..], 1.0).unwrap();
        p.log_probs.sum_all().unwrap().backward().unwrap();
        for ((name, _), gradient) in model.vars().iter().zip(gradients(&model)) {
            assert!(gradient.iter().all(|g| g.is_finite()), "{name}");
            assert!(gradient.iter().any(|g| *g != 0.0), "{name}");
        }
    }
}

#[test]
fn a_sequence_does_not_see_what_shares_its_batch() {
    let Case { model, sequences, .. } = case("tied");
    let hidden = |batch: &[&[u32]]| {
        let layout = Arc::new(Ragged::from_lengths(batch.iter().map(|s| s.len())).unwrap());
        flat(&model.hidden(&batch.concat(), &layout, None).unwrap())
    };
    let alone = hidden(&[&sequences[0]]);
    let long: Vec<u32> = (0..24).map(|i| i * 5 % 61).collect();
    let together = hidden(&[&long, &sequences[0], &sequences[1]]);
    let start = long.len() * 12;
    for (a, b) in alone.iter().zip(&together[start..]) {
        assert!((a - b).abs() < 1e-5);
    }
}

#[test]
fn detached_views_follow_training_and_frozen_copies_do_not() {
    let Case { model, sequences, .. } = case("tied");
    let (view, copy) = (model.detached().unwrap(), model.frozen_copy().unwrap());
    assert!(view.vars().is_empty() && copy.vars().is_empty());
    let before = loss(&model, &sequences).to_scalar::<f32>().unwrap();
    let (_, wte) = &model.vars()[0];
    wte.set(&(wte.as_tensor() * 2.0).unwrap()).unwrap();
    let after = loss(&model, &sequences).to_scalar::<f32>().unwrap();
    assert!((before - after).abs() > 1e-3);
    assert_eq!(loss(&view, &sequences).to_scalar::<f32>().unwrap(), after);
    assert_eq!(loss(&copy, &sequences).to_scalar::<f32>().unwrap(), before);
    assert!(!loss(&view, &sequences).track_op());
}

#[test]
fn random_weights_have_the_spread_of_transformers() {
    let mut config = Gpt2Config::load(&folder("tied")).unwrap();
    (config.n_embd, config.initializer_range) = (96, 0.02);
    let model = Gpt2::from_scratch(config.clone(), 1).unwrap();
    for (name, tensor) in model.weights() {
        let x = flat(tensor);
        let sd = (x.iter().map(|v| f64::from(v * v)).sum::<f64>() / x.len() as f64).sqrt();
        let want = if name.ends_with("bias") {
            0.0
        } else if name.contains("ln_") {
            1.0
        } else if name.ends_with("c_proj.weight") {
            0.02 / 2.0
        } else {
            0.02
        };
        // Five standard errors of a standard deviation
        assert!((sd - want).abs() <= want * 5.0 / (2.0 * x.len() as f64).sqrt() + 1e-12, "{name}: {sd}");
    }
    let again = Gpt2::from_scratch(config.clone(), 1).unwrap();
    let other = Gpt2::from_scratch(config, 2).unwrap();
    assert_eq!(flat(&model.weights()[0].1), flat(&again.weights()[0].1));
    assert_ne!(flat(&model.weights()[0].1), flat(&other.weights()[0].1));
}

#[test]
fn a_saved_model_is_the_same_model() {
    let case = case("untied_erf");
    let folder = tempfile::tempdir().unwrap();
    case.model.save(folder.path()).unwrap();
    let loaded = Gpt2::load(folder.path()).unwrap();
    assert_eq!(loaded.config().n_inner, Some(20));
    for ((name, a), (_, b)) in case.model.weights().iter().zip(loaded.weights()) {
        assert_eq!(a.dtype(), DType::F32);
        assert_eq!(flat(a), flat(b), "{name}");
    }
    assert!(!case.golden["transformers"].as_str().unwrap().is_empty());
}
