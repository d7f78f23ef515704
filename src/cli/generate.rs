//! `collimate generate`

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::args::{count, non_negative, positive, share};
use super::output::Output;
use crate::data::{Place, ReadOptions, read_dataset};
use crate::files::write_bytes;
use crate::model::hub::Hub;
use crate::ops::Precision;
use crate::ops::kernels::bf16;
use crate::rollout::{Finish, Options, Output as GeneratedOutput, Sampling, generate_packed};
use crate::run::clock::peak_rss_mb;
use crate::train::source::ModelSource;
use crate::{Error, Result};

/// Completions of prompts
#[derive(Debug, clap::Args)]
#[command(rename_all = "snake_case", group(clap::ArgGroup::new("input").required(true)))]
pub struct Args {
    /// Model: a folder, or an id on the Hub
    #[arg(long, alias = "model_name_or_path", value_name = "MODEL")]
    pub model: String,
    /// Branch, tag or commit on the Hub
    #[arg(long, value_name = "REVISION", default_value = "main")]
    pub model_revision: String,
    /// One prompt
    #[arg(long, value_name = "TEXT", group = "input", allow_hyphen_values = true)]
    pub prompt: Option<String>,
    /// File of prompts, `{"prompt": …}` a line
    #[arg(long, value_name = "FILE.jsonl", group = "input")]
    pub prompts: Option<PathBuf>,
    /// Most tokens of a completion
    #[arg(long, value_name = "N", default_value = "256", value_parser = count)]
    pub max_new_tokens: usize,
    /// Divides the logits; 0 takes the likeliest token each time
    #[arg(long, value_name = "X", default_value = "1.0", value_parser = non_negative, allow_negative_numbers = true)]
    pub temperature: f64,
    /// Keep the likeliest tokens up to this probability together
    #[arg(long, value_name = "X", default_value = "1.0", value_parser = share, allow_negative_numbers = true)]
    pub top_p: f64,
    /// Keep this many of the likeliest tokens; 0 keeps all
    #[arg(long, value_name = "N", default_value = "0", allow_negative_numbers = true)]
    pub top_k: usize,
    /// Keep tokens of at least this share of the likeliest one's probability
    #[arg(long, value_name = "X", value_parser = share, allow_negative_numbers = true)]
    pub min_p: Option<f64>,
    /// Above 1 makes tokens that have occurred less likely
    #[arg(long, value_name = "X", default_value = "1.0", value_parser = positive, allow_negative_numbers = true)]
    pub repetition_penalty: f64,
    /// Completions of each prompt
    #[arg(long, value_name = "N", default_value = "1", value_parser = count)]
    pub num_return_sequences: usize,
    /// Sequences that are generated together
    #[arg(long, value_name = "N", default_value = "8", value_parser = count)]
    pub batch_size: usize,
    /// Seed of the sampling
    #[arg(long, value_name = "N", default_value = "42")]
    pub seed: u64,
    /// Go on after the end-of-text token
    #[arg(long, value_name = "true|false", num_args = 0..=1, default_value = "false", default_missing_value = "true")]
    pub ignore_eos: bool,
    /// Compute in bfloat16 where that is safe
    #[arg(long, value_name = "true|false", num_args = 0..=1, default_value = "false", default_missing_value = "true")]
    pub bf16: bool,
    /// Print one JSON object a completion, in the order of the prompts
    #[arg(long, value_name = "true|false", num_args = 0..=1, default_value = "false", default_missing_value = "true")]
    pub json: bool,
    /// Write rows, tokens, times and memory to this file
    #[arg(long, value_name = "FILE")]
    pub metrics: Option<PathBuf>,
    /// Never ask the network (also HF_HUB_OFFLINE=1)
    #[arg(long, value_name = "true|false", num_args = 0..=1, default_value = "false", default_missing_value = "true")]
    pub offline: bool,
}

/// Runs the command
pub fn run(args: Args) -> Result<()> {
    let precision = if args.bf16 { bf16_or_warn() } else { Precision::F32 };
    let source = ModelSource::find(&Hub::from_env(args.offline)?, &args.model, Some(&args.model_revision))?;
    let texts = prompts(&args)?;
    let mut ids = Vec::with_capacity(texts.len());
    for (text, place) in &texts {
        ids.push(encode(text, &source).map_err(|error| match place {
            Some(place) => error.context(place),
            None => error,
        })?);
    }
    let options = Options {
        sampling: Sampling {
            temperature: args.temperature,
            top_k: args.top_k,
            top_p: args.top_p,
            min_p: args.min_p,
            repetition_penalty: args.repetition_penalty,
        },
        max_new_tokens: args.max_new_tokens,
        per_prompt: args.num_return_sequences,
        batch_size: args.batch_size,
        seed: args.seed,
        stop: if args.ignore_eos { Vec::new() } else { source.stop_tokens() },
    };
    let output = generate_packed(&source.load_packed(precision)?, &ids, &options, &|| Ok(()))?;
    let mut out = Output::open();
    for completion in &output.completions {
        let prompt = &texts[completion.prompt].0;
        let text = source.tokenizer.decode(&completion.ids, true)?;
        if args.json {
            let finish = match completion.finish {
                Finish::Stop => "stop",
                Finish::Length => "length",
            };
            let line = json!({
                "prompt": prompt, "completion": text, "token_ids": completion.ids, "finish_reason": finish,
            });
            out.line(&line.to_string())?;
        } else {
            out.line(&format!("{prompt}{text}"))?;
        }
    }
    out.flush()?;
    match &args.metrics {
        Some(path) => write_metrics(path, &output),
        None => Ok(()),
    }
}

/// bfloat16 where the processor has it
fn bf16_or_warn() -> Precision {
    if bf16::supported() {
        return Precision::Bf16;
    }
    tracing::warn!("`bf16` falls back to f32: this processor does not multiply bfloat16 (avx512_bf16)");
    Precision::F32
}

/// Prompts with the line of the file that they come from
fn prompts(args: &Args) -> Result<Vec<(String, Option<Place>)>> {
    let Some(path) = &args.prompts else {
        return Ok(args.prompt.iter().map(|prompt| (prompt.clone(), None)).collect());
    };
    let rows = read_dataset(path, &ReadOptions::default())?.rows;
    rows.into_iter()
        .map(|row| match row.fields.get("prompt") {
            Some(Value::String(prompt)) => Ok((prompt.clone(), Some(row.place))),
            Some(other) => Err(Error::usage(format!("{}: `prompt` must be text, got `{other}`", row.place))),
            None => Err(Error::usage(format!("{}: the row has no `prompt`", row.place))
                .hint("each line is an object such as `{\"prompt\": \"Once upon a time\"}`")),
        })
        .collect()
}

/// An empty prompt begins with the token that begins a text, as in transformers
fn encode(text: &str, source: &ModelSource) -> Result<Vec<u32>> {
    let ModelSource { config, tokenizer, .. } = source;
    let mut ids = tokenizer.encode(text)?;
    if ids.is_empty() {
        let begin = tokenizer.bos_id().or(config.bos_token_id).or(tokenizer.eos_id());
        ids.push(
            begin.ok_or_else(|| Error::usage("the prompt is empty, and the model has no token that begins a text"))?,
        );
    }
    source.check_tokens([ids.as_slice()])?;
    if ids.len() >= config.n_positions {
        return Err(Error::usage(format!(
            "the prompt has {} tokens, which leaves no room in the model's {} positions",
            ids.len(),
            config.n_positions
        )));
    }
    Ok(ids)
}

fn write_metrics(path: &Path, output: &GeneratedOutput) -> Result<()> {
    let tokens: usize = output.completions.iter().map(|completion| completion.ids.len()).sum();
    let (prefill, decode) = (output.times.prefill.as_secs_f64(), output.times.decode.as_secs_f64());
    let metrics = json!({
        "rows": output.completions.len(),
        "tokens": tokens,
        "time/prefill": prefill,
        "time/decode": decode,
        "tokens_per_second": tokens as f64 / (prefill + decode),
        "peak_rss_mb": peak_rss_mb(),
    });
    write_bytes(path, format!("{metrics}\n").as_bytes())
}
