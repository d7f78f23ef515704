//! `collimate demo`

mod files;
mod measure;

use std::path::{Path, PathBuf};
use std::time::Instant;

use serde_json::{Value as Json, json};

use self::measure::{Figures, HeldOut, Sample};
use super::output::Output;
use crate::config::{CommandSpec, Context, Value};
use crate::files::write_bytes;
use crate::reward::Lexicon;
use crate::train::{dpo::DPO, sft::SFT};
use crate::{Error, Result};

/// Marks the folder as one that the demo may replace; when all is done, it holds the figures
const RECORD: &str = "demo.json";
/// Prompts that the models write from
const PROMPTS: usize = 64;
/// Prompts whose samples are shown
const SHOWN: usize = 3;
const SEED: u64 = 42;
/// Columns of a shown text
const WIDTH: usize = 92;

/// The whole pipeline on the model and data that ship with the program: fine-tuning, then DPO, on 2 cores within 2 minutes
#[derive(Debug, clap::Args)]
#[command(rename_all = "snake_case")]
pub struct Args {
    /// Folder for the runs, the default model and its data; an earlier demo in it is replaced
    #[arg(long, value_name = "FOLDER", default_value = "collimate-demo")]
    pub output_dir: PathBuf,
}

/// Runs the command
pub fn run(args: Args) -> Result<()> {
    let begin = Instant::now();
    let folder = args.output_dir.as_path();
    claim(folder)?;
    let data = folder.join("default");
    files::write(&data)?;
    let (base, sft, dpo) = (data.join("base"), folder.join("sft"), folder.join("dpo"));
    let reviews = data.join("reviews");

    tracing::info!("1/3 supervised fine-tuning on reviews, into `{}`", sft.display());
    train(&SFT, &sft, &base, &reviews, "sft", &[("learning_rate", "5e-4"), ("num_train_epochs", "2")])?;
    tracing::info!("2/3 direct preference optimisation on pairs of reviews, into `{}`", dpo.display());
    train(
        &DPO,
        &dpo,
        &sft,
        &reviews,
        "preferences",
        &[("beta", "0.3"), ("learning_rate", "5e-4"), ("num_train_epochs", "2"), ("precompute_ref_log_probs", "true")],
    )?;

    tracing::info!("3/3 measuring the three models on what they were not trained on");
    let lexicon = Lexicon::from_json(files::LEXICON)?;
    let held_out = HeldOut::read(&reviews, &base, PROMPTS, &lexicon)?;
    let measure = |model, reference| held_out.measure(model, reference, &lexicon, SEED);
    let report = Report {
        base: measure(&base, None)?,
        sft: measure(&sft, None)?,
        dpo: measure(&dpo, Some(&sft))?,
        held_out: &held_out,
    };
    record(folder, &report.json())?;
    report.print(folder)?;
    tracing::info!("the demo took {:.0} s", begin.elapsed().as_secs_f64());
    Ok(())
}

/// Takes a new or empty folder, or one that an earlier demo made
fn claim(folder: &Path) -> Result<()> {
    let taken = match std::fs::read_dir(folder) {
        Ok(mut entries) => entries.next().is_some(),
        Err(cause) if cause.kind() == std::io::ErrorKind::NotFound => false,
        Err(cause) => return Err(Error::read(folder, cause)),
    };
    if taken && !folder.join(RECORD).is_file() {
        return Err(Error::usage(format!("`{}` holds files that no demo made", folder.display()))
            .hint("name another folder with `--output_dir`"));
    }
    record(folder, &json!({"finished": false}))
}

fn record(folder: &Path, figures: &Json) -> Result<()> {
    write_bytes(&folder.join(RECORD), format!("{figures:#}\n").as_bytes())
}

/// One run as the command line would start it; the manifest shows that command
fn train(
    spec: &CommandSpec,
    output: &Path,
    model: &Path,
    reviews: &Path,
    data: &str,
    own: &[(&str, &str)],
) -> Result<()> {
    let text = |path: &Path| path.display().to_string();
    let seed = SEED.to_string();
    let paths = [
        ("model_name_or_path", text(model)),
        ("dataset_name", text(&reviews.join(format!("{data}.train.jsonl")))),
        ("eval_dataset", text(&reviews.join(format!("{data}.test.jsonl")))),
        ("output_dir", text(output)),
    ];
    let common = [
        ("overwrite_output_dir", "true"),
        ("max_length", "128"),
        ("per_device_train_batch_size", "16"),
        ("per_device_eval_batch_size", "16"),
        ("eval_strategy", "epoch"),
        ("save_strategy", "no"),
        ("logging_steps", "5"),
        ("offline", "true"),
        ("seed", &seed),
    ];
    let keys: Vec<(&str, &str)> =
        paths.iter().map(|(key, path)| (*key, path.as_str())).chain(own.iter().copied()).chain(common).collect();
    let words = keys.iter().flat_map(|(key, value)| [format!("--{key}"), (*value).to_owned()]);
    let command_line = ["collimate".to_owned(), spec.name.to_owned()].into_iter().chain(words).collect();
    // Whoever hides the log lines hides the progress as well
    let quiet = (!tracing::enabled!(tracing::Level::INFO)).then(|| ("quiet".to_owned(), Value::Bool(true)));
    let values = keys.iter().map(|(key, value)| ((*key).to_owned(), Value::text(*value)));
    let (values, _) = spec.load(None, values.chain(quiet))?;
    (spec.run)(&values, &Context { command_line })
}

/// What the demo found
struct Report<'a> {
    base: Figures,
    sft: Figures,
    dpo: Figures,
    held_out: &'a HeldOut,
}

impl Report<'_> {
    fn json(&self) -> Json {
        let figures = |figures: &Figures| {
            let (gold, error) = figures.gold();
            json!({
                "perplexity": figures.perplexity,
                "logps/accuracies": figures.likelier,
                "rewards/accuracies": figures.rewarded,
                "gold": gold,
                "gold_standard_error": error,
                "samples": figures.samples.len(),
                "samples_different": figures.different(),
                "samples_ended": figures.ended(),
            })
        };
        json!({
            "finished": true,
            "version": env!("CARGO_PKG_VERSION"),
            "pairs": self.held_out.pairs.len(),
            "gold_accuracy": self.held_out.gold_accuracy,
            "base": figures(&self.base),
            "sft": figures(&self.sft),
            "dpo": figures(&self.dpo),
        })
    }

    fn print(&self, folder: &Path) -> Result<()> {
        let mut out = Output::open();
        let models = [&self.base, &self.sft, &self.dpo];
        let percent = |share: f64| format!("{:.0} %", 100.0 * share);
        let row =
            |name: &str, cells: [String; 3]| format!("{name:<44}{:>10}{:>10}{:>10}", cells[0], cells[1], cells[2]);
        let reward = |model: &Figures| model.rewarded.map_or_else(|| "-".to_owned(), percent);
        for line in [
            format!(
                "Held out: {} reviews and {} pairs of reviews, of things that SFT and DPO never met.",
                self.held_out.texts.len(),
                self.held_out.pairs.len()
            ),
            format!(
                "{} of the pairs are labelled in the order of their gold score; the labels of the others are noise.",
                percent(self.held_out.gold_accuracy)
            ),
            String::new(),
            row("", ["base", "SFT", "DPO"].map(str::to_owned)),
            row("perplexity of a review, per token", models.map(|model| format!("{:.2}", model.perplexity))),
            row("pairs whose chosen review is likelier", models.map(|model| percent(model.likelier))),
            row("pairs whose chosen review has more reward", models.map(reward)),
            row("sentiment of its own reviews, from -1 to 1", models.map(|model| format!("{:+.2}", model.gold().0))),
            row("    standard error", models.map(|model| format!("{:.2}", model.gold().1))),
            row("    that come to an end", models.map(|model| percent(model.ended()))),
            row("    that differ, out of", models.map(|m| format!("{}/{}", m.different(), m.samples.len()))),
        ] {
            out.line(line.trim_end())?;
        }
        out.line("")?;
        for prompt in 0..SHOWN.min(self.held_out.prompts.len()) {
            out.line(&self.held_out.prompts[prompt])?;
            for (name, figures) in [("SFT", &self.sft), ("DPO", &self.dpo)] {
                for sample in figures.samples_of(prompt) {
                    show(&mut out, name, sample)?;
                }
            }
            out.line("")?;
        }
        let at = |name: &str| folder.join(name).display().to_string();
        for line in [
            "Next:".to_owned(),
            format!("  collimate generate --model {} --prompt \"{}\"", at("dpo"), self.held_out.prompts[0]),
            format!(
                "  collimate dpo --config {} --beta 0.05 --output_dir {}",
                at("dpo/config.yaml"),
                at("dpo-beta-0.05")
            ),
            "  collimate sft --model_name_or_path openai-community/gpt2 --dataset_name YOUR.jsonl --output_dir my-run"
                .to_owned(),
        ] {
            out.line(&line)?;
        }
        out.flush()
    }
}

/// A text with its score, broken into lines
fn show(out: &mut Output, name: &str, sample: &Sample) -> Result<()> {
    let mut line = format!("  {name} {:+.2} ", sample.gold);
    for word in sample.text.split_whitespace() {
        if line.chars().count() + 1 + word.chars().count() > WIDTH {
            out.line(&line)?;
            line = " ".repeat(12);
        }
        line.push(' ');
        line.push_str(word);
    }
    out.line(&line)
}
