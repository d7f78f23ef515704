//! What the demo measures on what no model was trained on: what each model writes, and how the reward model ranks pairs.

use std::collections::BTreeSet;
use std::path::Path;

use super::files;
use super::runs::{SEED, STAGES, Source, Stage};
use crate::data::{Dataset, PromptExample, PromptOptions, ReadOptions, pair_examples, prompt_examples, read_dataset};
use crate::error::Kind;
use crate::model::hub::Hub;
use crate::model::reward::RewardModel;
use crate::reward::{Lexicon, Options as RewardOptions, Rewards};
use crate::rollout::Sampling;
use crate::run::Signals;
use crate::train::collect::Collector;
use crate::train::evaluate_completions::Mean;
use crate::train::evaluate_policy::{PolicyEvaluation, evaluate_policy};
pub(super) use crate::train::evaluate_reward::CalibrationBin;
use crate::train::evaluate_reward::calibration;
use crate::train::reward_model;
use crate::train::source::ModelSource;
use crate::{Error, Result};

/// Prompts that the models write to
pub(super) const PROMPTS: usize = 64;
/// Reviews of each
pub(super) const PER_PROMPT: usize = 8;
/// Bins of the reward model's calibration
const BINS: usize = 8;
/// Places of proxy and gold in `reward_funcs`
const PROXY: usize = 0;
const GOLD: usize = 1;

/// A review and its scores
pub(super) struct Sample {
    pub text: String,
    pub gold: f64,
    pub proxy: f64,
}

/// Figures of one model
pub(super) struct Figures {
    /// Its name in tables and figures
    pub label: &'static str,
    /// What the lexicon says
    pub gold: Mean,
    /// What the reward model says
    pub proxy: Mean,
    /// Divergence from the fine-tuned model in nats a review
    pub kl: Mean,
    /// Tokens of a review
    pub length: f64,
    /// Share of reviews that ended by themselves
    pub ended: f64,
    /// Share of reviews that are unlike all others
    pub different: f64,
    /// The first review to each prompt
    pub samples: Vec<Sample>,
}

/// How the reward model ranks held-out pairs
pub(super) struct Ranking {
    /// All pairs in one bin: accuracy, and what the model expects
    pub whole: CalibrationBin,
    /// By confidence
    pub bins: Vec<CalibrationBin>,
    /// Share of pairs whose label is the order of their gold scores: the most that can be expected of a model
    pub gold_accuracy: f64,
}

/// All that was measured
pub(super) struct Findings {
    /// The prompts
    pub prompts: Vec<String>,
    /// Base model, then each aligned one in the order of the stages
    pub models: Vec<Figures>,
    /// The reward model
    pub ranking: Ranking,
}

/// Measures every model of the demo
pub(super) fn measure(folder: &Path) -> Result<Findings> {
    let rows = read_dataset(&folder.join("default/reviews/preferences.test.jsonl"), &ReadOptions::default())?;
    let find = |name: &str| ModelSource::find(&Hub::from_env(true)?, &folder.join(name).display().to_string(), None);
    let start = find("sft")?;
    let judged = STAGES.iter().find(|stage| stage.source == Source::Judge);
    let keys = judged.ok_or_else(|| Error::run("no run of the demo asks a judge"))?.online_keys(folder)?;
    let prompts = different_prompts(&rows, &start)?;
    let shown = prompts.iter().map(|prompt| prompt.row.fields["prompt"].as_str().unwrap_or_default().to_owned());
    let shown = shown.collect();
    let judge = reward_model::loader(true, false);
    let rewards =
        Rewards::from_config(&keys.rewards(), keys.reward_weights.as_deref(), RewardOptions::default(), judge)?;
    let sampling = Sampling { temperature: keys.temperature, ..Sampling::default() };
    let mut collector = Collector::new(prompts, &start, sampling, keys.max_completion_length, rewards)?;

    // Signals are caught since the first run
    let signals = Signals::install()?;
    let check = || match signals.received() {
        Some(signal) => Err(Error::signal(signal, "stopped while measuring").hint("`collimate demo` begins anew")),
        None => Ok(()),
    };
    let reference = start.load_frozen()?;
    let writers = STAGES.iter().filter(|stage| stage.writes());
    let names = [("default/base", "base")].into_iter().chain(writers.map(|stage: &Stage| (stage.name, stage.label)));
    let mut models = Vec::new();
    for (name, label) in names {
        let model = find(name)?.load_frozen()?;
        let found = evaluate_policy(&model, &reference, &mut collector, PER_PROMPT, SEED, &check);
        let found = found.map_err(|error| match error.kind() {
            Kind::Signal(_) => error,
            _ => error.context(format_args!("measuring `{}`", folder.join(name).display())),
        })?;
        models.push(Figures::of(label, &found)?);
    }
    Ok(Findings { prompts: shown, models, ranking: Ranking::of(&find("reward")?, &rows)? })
}

/// The first prompts of the rows, each once
fn different_prompts(rows: &Dataset, source: &ModelSource) -> Result<Vec<PromptExample>> {
    let options = PromptOptions { max_prompt_length: Some(source.config.n_positions - 1) };
    let mut seen = BTreeSet::new();
    let all = prompt_examples(rows, &source.tokenizer, &options)?.examples.into_iter();
    Ok(all.filter(|prompt| seen.insert(prompt.ids.clone())).take(PROMPTS).collect())
}

impl Figures {
    fn of(label: &'static str, found: &PolicyEvaluation) -> Result<Self> {
        let by_function = &found.rollout.rewards_by_function;
        let sample = |i: usize| Sample {
            text: found.texts[i].1.trim().to_owned(),
            gold: by_function[GOLD][i].unwrap_or(f64::NAN),
            proxy: by_function[PROXY][i].unwrap_or(f64::NAN),
        };
        Ok(Self {
            label,
            gold: found.reward(GOLD)?,
            proxy: found.reward(PROXY)?,
            kl: found.kl()?,
            length: found.length(),
            ended: found.ended(),
            different: found.different(),
            samples: (0..found.rollout.len()).step_by(PER_PROMPT).map(sample).collect(),
        })
    }
}

impl Ranking {
    fn of(source: &ModelSource, rows: &Dataset) -> Result<Self> {
        let pairs = pair_examples(rows, &source.tokenizer, source.config.n_positions)?.examples;
        let sequences: Vec<&[u32]> = pairs.iter().flat_map(|pair| [&pair.chosen[..], &pair.rejected[..]]).collect();
        let scores = RewardModel::load(&source.folder)?.scores(&sequences)?;
        let margins: Vec<f64> = scores.chunks_exact(2).map(|pair| f64::from(pair[0]) - f64::from(pair[1])).collect();
        let lexicon = Lexicon::from_json(files::LEXICON)?;
        let gold = rows.rows.iter().map(|row| {
            let score = |column: &str| row.fields.get(column).and_then(|text| text.as_str()).map(|t| lexicon.score(t));
            score("chosen").unwrap_or_default() - score("rejected").unwrap_or_default()
        });
        let whole = |margins: &[f64]| calibration(margins, 1).first().copied();
        let empty = || Error::run("there are no held-out pairs");
        Ok(Self {
            whole: whole(&margins).ok_or_else(empty)?,
            bins: calibration(&margins, BINS),
            gold_accuracy: whole(&gold.collect::<Vec<_>>()).ok_or_else(empty)?.observed,
        })
    }
}
