//! `collimate generate`

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::args::{count, precision, share};
use super::output::{Output, one_line};
use super::sampling::{SamplingArgs, TextStream};
use super::speaker::{Bends, Speaker};
use crate::data::{Place, ReadOptions, read_dataset};
use crate::files::write_bytes;
use crate::model::hub::Hub;
use crate::rollout::{Completion, Finish, Options, Output as GeneratedOutput, stream_from};
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
    /// A second model, whose completions are shown beside those of the first
    #[arg(long, value_name = "MODEL", conflicts_with_all = ["stream", "metrics"])]
    pub model_b: Option<String>,
    /// One prompt
    #[arg(long, value_name = "TEXT", group = "input", allow_hyphen_values = true)]
    pub prompt: Option<String>,
    /// File of prompts, `{"prompt": …}` a line
    #[arg(long, value_name = "FILE.jsonl", group = "input")]
    pub prompts: Option<PathBuf>,
    /// How tokens are chosen
    #[command(flatten)]
    pub sampling: SamplingArgs,
    /// Completions of each prompt
    #[arg(long, value_name = "N", default_value = "1", value_parser = count)]
    pub num_return_sequences: usize,
    /// Sequences that are generated together
    #[arg(long, value_name = "N", default_value = "8", value_parser = count)]
    pub batch_size: usize,
    /// Go on after the end-of-text token
    #[arg(long, value_name = "true|false", num_args = 0..=1, default_value = "false", default_missing_value = "true")]
    pub ignore_eos: bool,
    /// Print one JSON object a completion, in the order of the prompts
    #[arg(long, value_name = "true|false", num_args = 0..=1, default_value = "false", default_missing_value = "true")]
    pub json: bool,
    /// Print the completion of one prompt as it is made
    #[arg(long, value_name = "true|false", num_args = 0..=1, default_value = "false", default_missing_value = "true")]
    pub stream: bool,
    /// Write rows, tokens, times and memory to this file
    #[arg(long, value_name = "FILE")]
    pub metrics: Option<PathBuf>,
    /// Draw a model of a `grl` run back to its reference where the run's memory does not know the prompt:
    /// log p_ref + g (log p - log p_ref), with g from 1, as sure as the memory can be, to 0, nothing known
    #[arg(long, value_name = "true|false", num_args = 0..=1, default_value = "false", default_missing_value = "true",
          conflicts_with = "model_b")]
    pub abstention: bool,
    /// Reference model of that run, where it no longer lies under the name that the run was started with
    #[arg(long, value_name = "MODEL", requires = "abstention")]
    pub ref_model: Option<String>,
    /// A g below this is reported as a warning, and as `uncertain` with `json`
    #[arg(long, value_name = "X", default_value = "0.5", value_parser = share, allow_negative_numbers = true)]
    pub g_min: f64,
    /// Never ask the network (also HF_HUB_OFFLINE=1)
    #[arg(long, value_name = "true|false", num_args = 0..=1, default_value = "false", default_missing_value = "true")]
    pub offline: bool,
}

/// A model, and its completions
struct Generated<'n> {
    name: &'n str,
    source: ModelSource,
    output: GeneratedOutput,
    /// g of each prompt, where the model abstains
    confidences: Option<Vec<f64>>,
}

/// Runs the command
pub fn run(args: Args) -> Result<()> {
    let hub = Hub::from_env(args.offline)?;
    let texts = prompts(&args)?;
    if args.stream {
        return streamed(&args, &ModelSource::find(&hub, &args.model, Some(&args.model_revision))?, &texts);
    }
    let first = generated(&args, &hub, &args.model, Some(&args.model_revision), &texts)?;
    let second = args.model_b.as_deref().map(|name| generated(&args, &hub, name, None, &texts)).transpose()?;
    print(&args, &texts, &first, second.as_ref())?;
    match &args.metrics {
        Some(path) => write_metrics(path, &first.output),
        None => Ok(()),
    }
}

fn generated<'n>(
    args: &Args,
    hub: &Hub,
    name: &'n str,
    revision: Option<&str>,
    texts: &[(String, Option<Place>)],
) -> Result<Generated<'n>> {
    let source = ModelSource::find(hub, name, revision)?;
    let mut ids = Vec::with_capacity(texts.len());
    for (text, place) in texts {
        ids.push(encode(text, &source).map_err(|error| match place {
            Some(place) => error.context(place),
            None => error,
        })?);
    }
    let mut speaker = speaker(args, &source, args.sampling.eta.filter(|eta| name == args.model || *eta == 0.0))?;
    let bends = speaker.prepare(&ids)?;
    report(args, texts, &bends);
    let no_stop = &mut |_, _| Ok(ControlFlow::Continue(()));
    let output = stream_from(&speaker.source(&bends), &ids, None, &options(args, &source), &|| Ok(()), no_stop)?;
    Ok(Generated { name, source, output, confidences: bends.confidences().map(<[f64]>::to_vec) })
}

/// The model, with all that bends its logits
fn speaker(args: &Args, source: &ModelSource, eta: Option<f64>) -> Result<Speaker> {
    let precision = precision(args.sampling.bf16);
    let speaker = Speaker::open(source, precision, eta)?;
    if !args.abstention {
        return Ok(speaker);
    }
    speaker.abstaining(&source.folder, args.ref_model.as_deref(), precision, args.offline)
}

/// Says how well the memory knows each prompt
fn report(args: &Args, texts: &[(String, Option<Place>)], bends: &Bends) {
    for (g, (text, place)) in bends.confidences().into_iter().flatten().zip(texts) {
        let name = place.as_ref().map_or_else(|| format!("`{}`", one_line(text, 40)), ToString::to_string);
        if *g < args.g_min {
            tracing::warn!("{name}: g is {g:.3}, below `g_min`: the memory does not know such prompts");
        } else {
            tracing::info!("{name}: g is {g:.3}");
        }
    }
}

fn options(args: &Args, source: &ModelSource) -> Options {
    Options {
        per_prompt: args.num_return_sequences,
        batch_size: args.batch_size,
        ..args.sampling.options(if args.ignore_eos { Vec::new() } else { source.stop_tokens() })
    }
}

fn print(
    args: &Args,
    texts: &[(String, Option<Place>)],
    first: &Generated<'_>,
    second: Option<&Generated<'_>>,
) -> Result<()> {
    let mut out = Output::open();
    let each = args.num_return_sequences;
    for (i, (prompt, _)) in texts.iter().enumerate() {
        if second.is_some() && !args.json {
            out.line(prompt)?;
        }
        for (mark, model) in [("A", Some(first)), ("B", second)] {
            let Some(Generated { name, source, output, confidences }) = model else { continue };
            for completion in &output.completions[i * each..(i + 1) * each] {
                let text = source.tokenizer.decode(&completion.ids, true)?;
                if args.json {
                    let model = second.is_some().then_some(*name);
                    let mut object = object(prompt, &text, completion, model);
                    if let Some(g) = confidences.as_ref().map(|all| all[i]) {
                        object["confidence"] = g.into();
                        object["uncertain"] = (g < args.g_min).into();
                    }
                    out.line(&object.to_string())?;
                } else if second.is_some() {
                    out.line(&format!("{mark} |{}", text.replace('\n', "\n  |")))?;
                } else {
                    out.line(&format!("{prompt}{text}"))?;
                }
            }
        }
        if second.is_some() && !args.json && i + 1 < texts.len() {
            out.line("")?;
        }
    }
    out.flush()
}

/// A completion as JSON; with the model's name where there are two
fn object(prompt: &str, text: &str, completion: &Completion, model: Option<&str>) -> Value {
    let finish = match completion.finish {
        Finish::Stop => "stop",
        Finish::Length => "length",
    };
    let mut object =
        json!({"prompt": prompt, "completion": text, "token_ids": completion.ids, "finish_reason": finish});
    if let Some(model) = model {
        object["model"] = model.into();
    }
    object
}

/// One completion of one prompt, piece by piece
fn streamed(args: &Args, source: &ModelSource, texts: &[(String, Option<Place>)]) -> Result<()> {
    let [(prompt, _)] = texts else {
        return Err(Error::usage(format!("`stream` takes one prompt, got {}", texts.len())).hint("use `--prompt TEXT`"));
    };
    if args.json || args.num_return_sequences > 1 {
        return Err(Error::usage(
            "`stream` prints one text as it is made: it excludes `json` and `num_return_sequences`",
        ));
    }
    let ids = encode(prompt, source)?;
    let mut speaker = speaker(args, source, args.sampling.eta)?;
    let prompts = [ids];
    let bends = speaker.prepare(&prompts)?;
    report(args, texts, &bends);
    let mut out = Output::open();
    out.piece(prompt)?;
    let mut text = TextStream::new(&source.tokenizer, &[]);
    let mut show = |_, id| {
        out.piece(text.push(id)?)?;
        Ok(ControlFlow::Continue(()))
    };
    let options = options(args, source);
    let output = stream_from(&speaker.source(&bends), &prompts, None, &options, &|| Ok(()), &mut show)?;
    out.piece(text.finish())?;
    out.line("")?;
    out.flush()?;
    match &args.metrics {
        Some(path) => write_metrics(path, &output),
        None => Ok(()),
    }
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
pub(super) fn tokens(text: &str, source: &ModelSource) -> Result<Vec<u32>> {
    let ModelSource { config, tokenizer, .. } = source;
    let mut ids = tokenizer.encode(text)?;
    if ids.is_empty() {
        let begin = tokenizer.bos_id().or(config.bos_token_id).or(tokenizer.eos_id());
        ids.push(
            begin.ok_or_else(|| Error::usage("the prompt is empty, and the model has no token that begins a text"))?,
        );
    }
    source.check_tokens([ids.as_slice()])?;
    Ok(ids)
}

/// The same for a prompt that a completion can follow
fn encode(text: &str, source: &ModelSource) -> Result<Vec<u32>> {
    let ids = tokens(text, source)?;
    let config = &source.config;
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
