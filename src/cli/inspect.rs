//! `collimate inspect`

use std::path::PathBuf;

use serde_json::json;

use super::args::count;
use super::output::{Output, one_line};
use crate::Result;
use crate::train::grl::{Explanation, Kept};

/// Letters shown of a prompt or response
const LONGEST: usize = 100;

/// What the numbers are and what they are not
const NOTE: &str = "this explains the value of the prompt, which the policy was trained against; it does not explain \
                    which tokens the policy chooses";

/// The value of a prompt, and the particles behind it
///
/// Reads the particle memory of a `grl` run or checkpoint: the value V(x) that the field gives a prompt, its standard
/// deviation, over how many responses the evidence is spread, and the nearest particles with their kernel weight, mean
/// soft return (reward minus tau times the log-ratio to the reference model) and some responses. It explains values, not
/// token choices.
#[derive(Debug, clap::Args)]
#[command(rename_all = "snake_case")]
pub struct Args {
    /// Folder of a `grl` run, or one of its checkpoints
    #[arg(value_name = "RUN_DIR")]
    pub run: PathBuf,
    /// The prompt
    #[arg(long, value_name = "TEXT")]
    pub prompt: String,
    /// Particles to show
    #[arg(long, value_name = "N", default_value = "5", value_parser = count)]
    pub neighbours: usize,
    /// Reference model of the run, where it no longer lies under the name that the run was started with
    #[arg(long, value_name = "MODEL")]
    pub ref_model: Option<String>,
    /// Print one JSON object
    #[arg(long, value_name = "true|false", num_args = 0..=1, default_value = "false", default_missing_value = "true")]
    pub json: bool,
    /// Never ask the network (also HF_HUB_OFFLINE=1)
    #[arg(long, value_name = "true|false", num_args = 0..=1, default_value = "false", default_missing_value = "true")]
    pub offline: bool,
}

/// Runs the command
pub fn run(args: Args) -> Result<()> {
    let mut kept = Kept::open(&args.run, args.ref_model.as_deref(), args.offline)?;
    let found = kept.explain(&args.prompt, args.neighbours)?;
    let mut output = Output::open();
    if args.json {
        output.line(&as_json(&args.prompt, &kept, &found).to_string())?;
    } else {
        print(&mut output, &kept, &found)?;
    }
    output.flush()
}

fn as_json(prompt: &str, kept: &Kept, found: &Explanation) -> serde_json::Value {
    let known = &found.prediction;
    json!({
        "prompt": prompt,
        "known": found.known,
        "particles": kept.len(),
        "tau": kept.tau(),
        "value": known.mean,
        "variance": known.variance,
        "prior_mean": found.prior_mean,
        "prior_variance": known.prior_variance,
        "response_variance": known.spread,
        "mass": known.mass,
        "effective_count": known.effective_count,
        "confidence": found.confidence,
        "neighbours": found.neighbours,
        "note": NOTE,
    })
}

fn print(output: &mut Output, kept: &Kept, found: &Explanation) -> Result<()> {
    let known = &found.prediction;
    let number = |value: Option<f64>| value.map_or_else(|| "unknown".to_owned(), |value| format!("{value:.4}"));
    output.table(&[
        ("value", format!("{:.4}", known.mean)),
        ("standard deviation", number(known.variance.map(f64::sqrt))),
        ("spread of responses", number(known.spread.map(f64::sqrt))),
        ("effective count", format!("{:.1}", known.effective_count)),
        ("confidence", format!("{:.2}", found.confidence)),
        ("mean of all prompts", format!("{:.4}", found.prior_mean)),
        ("particles", kept.len().to_string()),
        ("in the memory itself", if found.known { "yes" } else { "no" }.to_owned()),
    ])?;
    if !found.neighbours.is_empty() {
        output.line("")?;
        output.line("  weight  likeness  count    value  mean reward  prompt")?;
    }
    for near in &found.neighbours {
        let reward = near.mean_reward.map_or_else(|| "-".to_owned(), |reward| format!("{reward:.4}"));
        let row = near.row.map_or_else(String::new, |row| format!("  (row {row})"));
        output.line(&format!(
            "{:8.4}  {:8.4}  {:5}  {:7.4}  {reward:>11}  {}{row}",
            near.weight,
            near.correlation,
            near.count,
            near.value,
            one_line(&near.prompt, LONGEST)
        ))?;
        for response in &near.responses {
            output.line(&format!(
                "{:>27.4}  {:>11.4}    {}",
                response.soft_return,
                response.reward,
                one_line(&response.text, LONGEST)
            ))?;
        }
    }
    output.line("")?;
    output.line(NOTE)
}
