//! Generation: equal to transformers, to the full forward pass, and to itself in any batch.

#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};
use std::process::{Command, Output as ProcessOutput};
use std::sync::Arc;

use collimate::data::Tokenizer;
use collimate::model::gpt2::Gpt2;
use collimate::model::gpt2::cached::{Decoder, NewTokens};
use collimate::model::gpt2::packed::PackedGpt2;
use collimate::ops::kernels::bf16_supported;
use collimate::ops::{Precision, Ragged};
use collimate::rollout::{Completion, Finish, Options, Output, Sampling};

fn generate(model: &Gpt2, prompts: &[Vec<u32>], options: &Options) -> collimate::Result<Output> {
    collimate::rollout::generate(model, prompts, options, &|| Ok(()))
}

fn goldens(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/goldens").join(name)
}

fn model(name: &str) -> Gpt2 {
    Gpt2::load(&goldens("gpt2").join(name)).unwrap()
}

fn options(sampling: Sampling) -> Options {
    Options { sampling, max_new_tokens: 10, per_prompt: 1, batch_size: 4, seed: 7, stop: Vec::new() }
}

const GREEDY: Sampling = Sampling { temperature: 0.0, top_k: 0, top_p: 1.0, min_p: None, repetition_penalty: 1.0 };

#[test]
fn greedy_text_equals_transformers() {
    for name in ["tied", "untied_erf", "relu_unscaled", "silu_one_layer", "tanh"] {
        let text = std::fs::read(goldens("gpt2").join(name).join("golden.json")).unwrap();
        let golden: serde_json::Value = serde_json::from_slice(&text).unwrap();
        let ids = |key: &str| serde_json::from_value::<Vec<u32>>(golden[key].clone()).unwrap();
        let output =
            generate(&model(name), &[ids("prompt")], &Options { max_new_tokens: 16, ..options(GREEDY) }).unwrap();
        assert_eq!(output.completions[0].ids, ids("greedy"), "{name}");
    }
}

#[test]
fn cached_logits_equal_the_full_forward_pass() {
    for name in ["tied", "untied_erf", "silu_one_layer"] {
        let model = model(name);
        let ids: Vec<u32> = (0..20).map(|i| i * 11 % 61).collect();
        let full = |n: usize| {
            let layout = Arc::new(Ragged::from_lengths([n]).unwrap());
            let hidden = model.hidden(&ids[..n], &layout, None).unwrap();
            let logits = hidden.matmul(&model.lm_head().t().unwrap()).unwrap();
            logits.get(n - 1).unwrap().to_vec1::<f32>().unwrap()
        };
        let packed = PackedGpt2::new(&model).unwrap();
        let mut decoder = Decoder::new(&packed, 2, 24);
        let mut at = 0;
        // A prompt, a block, then single tokens; slot 1 runs something else beside it
        for n in [5, 3, 1, 1, 10] {
            let new = [
                NewTokens { slot: 1, ids: vec![(at % 61) as u32] },
                NewTokens { slot: 0, ids: ids[at..at + n].to_vec() },
            ];
            let logits = decoder.forward(&new).unwrap();
            at += n;
            for (got, want) in logits[61..].iter().zip(full(at)) {
                assert!((got - want).abs() < 1e-4, "{name} after {at}: {got} {want}");
            }
        }
        assert_eq!((decoder.len(0), decoder.len(1)), (20, 5));
        assert!(decoder.forward(&[NewTokens { slot: 0, ids: vec![1; 5] }]).is_err(), "longer than the cache");
        assert!(decoder.forward(&[NewTokens { slot: 1, ids: vec![61] }]).is_err(), "not in the vocabulary");
    }
}

#[test]
fn weights_packed_while_they_are_read_are_those_of_the_model() {
    for name in ["tied", "untied_erf"] {
        let models = [PackedGpt2::new(&model(name)), PackedGpt2::load(&goldens("gpt2").join(name), Precision::F32)]
            .map(Result::unwrap);
        let [one, other] = models.each_ref().map(|model| {
            let new = [NewTokens { slot: 0, ids: vec![3, 1, 4] }, NewTokens { slot: 1, ids: vec![7] }];
            Decoder::new(model, 2, 8).forward(&new).unwrap()
        });
        assert_eq!(one, other, "{name}");
    }
}

#[test]
fn a_completion_does_not_depend_on_its_batch() {
    let model = model("tied");
    let prompts: Vec<Vec<u32>> = (1..8).map(|n| (0..n).map(|i| (i * 17 + n) % 61).collect()).collect();
    let run = |batch_size: usize| {
        let sampled = Options { per_prompt: 3, batch_size, stop: vec![4, 9], ..options(Sampling::default()) };
        generate(&model, &prompts, &sampled).unwrap().completions
    };
    let one = run(1);
    assert_eq!(one.len(), 21);
    assert_eq!(one.iter().map(|c| c.prompt).collect::<Vec<_>>(), (0..21).map(|i| i / 3).collect::<Vec<_>>());
    let ends = |c: &Completion| c.ids.last().is_some_and(|id| [4, 9].contains(id));
    assert!(one.iter().all(|c| (c.finish == Finish::Stop) == ends(c)));
    assert!(one.iter().any(|c| c.finish == Finish::Stop) && one.iter().any(|c| c.finish == Finish::Length));
    assert_ne!(one[0].ids, one[1].ids, "completions of one prompt are drawn apart");
    for batch_size in [2, 5, 32] {
        let ids = |completions: &[Completion]| completions.iter().map(|c| c.ids.clone()).collect::<Vec<_>>();
        assert_eq!(ids(&run(batch_size)), ids(&one));
    }
}

#[test]
fn log_probs_of_the_sampler_are_those_of_the_model() {
    let model = model("untied_erf");
    let prompt = vec![3, 1, 4, 1, 5];
    let sampled = Options { sampling: Sampling { temperature: 0.7, ..Sampling::default() }, ..options(GREEDY) };
    let completion = generate(&model, std::slice::from_ref(&prompt), &sampled).unwrap().completions.remove(0);
    let ids = [prompt.clone(), completion.ids.clone()].concat();
    let layout = Arc::new(Ragged::from_lengths([ids.len()]).unwrap());
    let hidden = model.hidden(&ids, &layout, None).unwrap();
    let rows: Vec<u32> = (4..14).collect();
    let p = model.token_log_probs(&hidden, &rows, &ids[5..], 0.7).unwrap();
    for (got, want) in completion.log_probs.iter().zip(p.log_probs.to_vec1::<f32>().unwrap()) {
        assert!((got - want).abs() < 1e-5, "{got} {want}");
    }
}

/// log softmax of each row of logits
fn log_probs(logits: &[f32], vocab: usize) -> impl Iterator<Item = Vec<f64>> {
    logits.chunks(vocab).map(|row| {
        let max = row.iter().fold(f32::NEG_INFINITY, |m, z| m.max(*z));
        let sum: f64 = row.iter().map(|z| f64::from(z - max).exp()).sum();
        row.iter().map(|z| f64::from(z - max) - sum.ln()).collect()
    })
}

#[test]
fn bfloat16_changes_the_log_probs_of_a_trained_model_by_thousandths() {
    if !bf16_supported() {
        println!("skipped: no avx512_bf16 on this processor");
        return;
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("data");
    let tokenizer = Tokenizer::from_folder(&root.join("base")).unwrap();
    let text = std::fs::read_to_string(root.join("reviews/corpus.test.jsonl")).unwrap();
    let texts: Vec<Vec<u32>> = text
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap())
        .map(|row| tokenizer.encode(row["text"].as_str().unwrap()).unwrap())
        .collect();
    let models = [Precision::F32, Precision::Bf16].map(|p| PackedGpt2::load(&root.join("base"), p).unwrap());
    let vocab = models[0].config().vocab_size;
    let longest = texts.iter().map(Vec::len).max().unwrap().min(models[0].config().n_positions);
    let mut decoders = models.each_ref().map(|model| Decoder::new(model, texts.len(), longest));
    // Of the tokens that stand in the texts: differences, their squares, the divergence, and how often both agree
    let (mut n, mut sum, mut squares, mut worst, mut divergence, mut agree) = (0.0, 0.0, 0.0, 0.0_f64, 0.0, 0.0);
    for at in 0..longest - 1 {
        let new: Vec<NewTokens> = (0..texts.len())
            .filter(|i| texts[*i].len() > at + 1)
            .map(|slot| NewTokens { slot, ids: vec![texts[slot][at]] })
            .collect();
        let [exact, rounded] = decoders.each_mut().map(|decoder| decoder.forward(&new).unwrap());
        for ((tokens, p), q) in new.iter().zip(log_probs(&exact, vocab)).zip(log_probs(&rounded, vocab)) {
            let target = texts[tokens.slot][at + 1] as usize;
            let difference = q[target] - p[target];
            n += 1.0;
            sum += difference;
            squares += difference * difference;
            worst = worst.max(difference.abs());
            divergence += p.iter().zip(&q).map(|(p, q)| p.exp() * (p - q)).sum::<f64>();
            let best = |p: &[f64]| (0..vocab).max_by(|a, b| p[*a].total_cmp(&p[*b]));
            agree += f64::from(u8::from(best(&p) == best(&q)));
        }
    }
    let (mean, spread, divergence, agree) = (sum / n, (squares / n).sqrt(), divergence / n, agree / n);
    println!("{n} tokens: mean {mean:.1e}, root mean square {spread:.4}, largest {worst:.3}");
    println!("KL {divergence:.1e} nats a token, same likeliest token {agree:.4}");
    assert!(mean.abs() < 1e-3 && spread < 0.005 && divergence < 1e-5 && agree > 0.99);
    assert!(spread > 1e-5, "the weights were not rounded");
}

#[test]
fn generation_ends_at_the_last_position() {
    let completion = &generate(&model("tied"), &[vec![1; 20]], &options(GREEDY)).unwrap().completions[0];
    assert_eq!((completion.ids.len(), completion.finish), (4, Finish::Length));
    assert!(generate(&model("tied"), &[vec![1; 24]], &options(GREEDY)).is_err());
    let none = generate(&model("tied"), &[vec![1]], &Options { max_new_tokens: 0, ..options(GREEDY) }).unwrap();
    assert_eq!(none.completions[0].ids, [] as [u32; 0]);
}

fn collimate(args: &[&str]) -> ProcessOutput {
    Command::new(env!("CARGO_BIN_EXE_collimate")).arg("generate").args(args).output().unwrap()
}

#[test]
fn the_command_prints_one_object_a_line_in_order() {
    let folder = tempfile::tempdir().unwrap();
    let (prompts, metrics) = (folder.path().join("prompts.jsonl"), folder.path().join("metrics.json"));
    std::fs::write(&prompts, "{\"prompt\":\"Question: where\"}\n{\"prompt\":\"\"}\n").unwrap();
    let model = goldens("trl/model");
    let (model, prompts, metrics) = (model.to_str().unwrap(), prompts.to_str().unwrap(), metrics.to_str().unwrap());
    let base = ["--model", model, "--prompts", prompts, "--max_new_tokens", "5", "--json", "--metrics", metrics];
    let run = || collimate(&[&base[..], &["--num-return-sequences", "2", "--ignore_eos"]].concat());
    let output = run();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let lines: Vec<serde_json::Value> = output
        .stdout
        .split(|b| *b == b'\n')
        .filter(|l| !l.is_empty())
        .map(|l| serde_json::from_slice(l).unwrap())
        .collect();
    assert_eq!(lines.len(), 4);
    assert_eq!((&lines[1]["prompt"], &lines[2]["prompt"]), (&"Question: where".into(), &"".into()));
    assert!(
        lines.iter().all(|line| line["token_ids"].as_array().unwrap().len() == 5 && line["finish_reason"] == "length")
    );
    let figures: serde_json::Value = serde_json::from_slice(&std::fs::read(metrics).unwrap()).unwrap();
    assert_eq!((&figures["rows"], &figures["tokens"]), (&4.into(), &20.into()));
    assert!(figures["peak_rss_mb"].as_f64().unwrap() > 1.0);
    assert_eq!(run().stdout, output.stdout, "same seed, same text");
}

#[test]
fn a_bad_prompt_is_named_by_file_and_line() {
    let folder = tempfile::tempdir().unwrap();
    let prompts = folder.path().join("prompts.jsonl");
    let model = goldens("trl/model");
    let long = format!("{{\"prompt\":\"a\"}}\n{{\"prompt\":\"{}\"}}\n", "where is the otter ".repeat(40));
    for (text, place, cause) in [
        ("{\"prompt\":\"a\"}\n{\"text\":\"b\"}\n", "prompts.jsonl:2", "no `prompt`"),
        ("{\"prompt\":3}\n", "prompts.jsonl:1", "must be text"),
        (long.as_str(), "prompts.jsonl:2", "128 positions"),
    ] {
        std::fs::write(&prompts, text).unwrap();
        let output = collimate(&["--model", model.to_str().unwrap(), "--prompts", prompts.to_str().unwrap()]);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{stderr}");
        assert!(stderr.contains(place) && stderr.contains(cause), "{stderr}");
    }
}
