//! `collimate eval`

use serde_json::{Map, Value, json};

use super::args::{count, non_negative, precision};
use super::data::parse_columns;
use super::judge::{JudgeArgs, judge};
use super::output::Output;
use crate::data::{
    Dataset, Format, Kind, LmOptions, PreferenceOptions, ReadOptions, RowReport, Truncation, lm_examples,
    pair_examples, preference_examples, read_dataset, splits,
};
use crate::model::config::Architecture;
use crate::model::gpt2::Gpt2;
use crate::model::hub::Hub;
use crate::model::reward::RewardModel;
use crate::ops::Precision;
use crate::train::evaluate::{EvaluateOptions, Evaluation, evaluate_pairs, evaluate_texts};
use crate::train::evaluate_reward::evaluate_rewards;
use crate::train::source::ModelSource;
use crate::{Error, Result};

/// Longest sequence where the request says nothing, as in training
const MAX_LENGTH: usize = 1024;
/// The split where none is asked for
const TEST_SPLIT: &str = "test";

/// Metrics of a model on a dataset
///
/// Texts, prompts with completions and conversations give loss, perplexity, token accuracy and entropy; with a
/// reference, `log_ratio`: the mean over rows of the sum of log p - log p_ref over a row's own loss tokens (the KL
/// divergence only where the model itself wrote the rows). Pairs of chosen and rejected completions give
/// log-probabilities and how often the chosen one is likelier; with a reference, DPO's loss and implicit rewards.
/// A reward model ranks such pairs: accuracy with its 95 % interval, beside the rule that the longer answer is better.
/// With `reward_funcs` the model completes the dataset's prompts and the rewards judge it; with a reference, which
/// completes them too, the share of wins against it with its 95 % interval, and the KL divergence from it.
#[derive(Debug, clap::Args)]
#[command(rename_all = "snake_case")]
pub struct Args {
    /// Model: a folder, or an id on the Hub
    #[arg(long, alias = "model_name_or_path", value_name = "MODEL")]
    pub model: String,
    /// Branch, tag or commit on the Hub
    #[arg(long, value_name = "REVISION", default_value = "main")]
    pub model_revision: String,
    /// Dataset: a file, a folder, or an id on the Hub
    #[arg(long, alias = "dataset", value_name = "DATASET")]
    pub dataset_name: String,
    /// Configuration of a dataset on the Hub
    #[arg(long, value_name = "NAME")]
    pub dataset_config: Option<String>,
    /// Split to evaluate on
    #[arg(long, value_name = "SPLIT", default_value = TEST_SPLIT)]
    pub dataset_test_split: String,
    /// Columns to rename: found name = expected name
    #[arg(long, value_name = "NAME=VALUE", num_args = 1.., value_delimiter = ',')]
    pub columns: Vec<String>,
    /// Longest sequence in tokens, longer ones are cut; 1024, or the model's positions where those are fewer, if not set
    #[arg(long, value_name = "N", value_parser = count)]
    pub max_length: Option<usize>,
    /// Take means over batches of this many rows first, as an evaluation in training does; over all at once where not set
    #[arg(long, alias = "per_device_eval_batch_size", value_name = "N", value_parser = count)]
    pub batch_size: Option<usize>,
    /// Model to compare with: a folder, or an id on the Hub
    #[arg(long, alias = "ref_model_name_or_path", value_name = "MODEL")]
    pub ref_model: Option<String>,
    /// Branch, tag or commit of that model
    #[arg(long, value_name = "REVISION", default_value = "main", requires = "ref_model")]
    pub ref_model_revision: String,
    /// Scale of the implicit reward
    #[arg(long, value_name = "X", default_value = "0.1", value_parser = non_negative, allow_negative_numbers = true)]
    pub beta: f64,
    /// Compute in bfloat16 where that is safe
    #[arg(long, value_name = "true|false", num_args = 0..=1, default_value = "false", default_missing_value = "true")]
    pub bf16: bool,
    /// What the model writes for the prompts of the dataset is judged, in place of what the dataset holds
    #[command(flatten)]
    pub judge: JudgeArgs,
    /// Print one JSON object
    #[arg(long, value_name = "true|false", num_args = 0..=1, default_value = "false", default_missing_value = "true")]
    pub json: bool,
    /// Never ask the network (also HF_HUB_OFFLINE=1)
    #[arg(long, value_name = "true|false", num_args = 0..=1, default_value = "false", default_missing_value = "true")]
    pub offline: bool,
}

/// Runs the command
pub fn run(args: Args) -> Result<()> {
    let columns = parse_columns(&args.columns)?;
    let hub = Hub::from_env(args.offline)?;
    let source = ModelSource::find(&hub, &args.model, Some(&args.model_revision))?;
    let find = |name: &String| ModelSource::find(&hub, name, Some(&args.ref_model_revision));
    let reference = args.ref_model.as_ref().map(find).transpose()?;
    let precision = precision(args.bf16);
    let config = args.dataset_config.clone();
    let path = hub.dataset(&args.dataset_name, None, config.as_deref())?;
    // A dataset named for evaluation alone may be a plain file, whose only split is `train`; what was asked for is not changed
    let known = splits(&path, config.as_deref())?;
    let lone = known.len() == 1 && args.dataset_test_split == TEST_SPLIT && known[0] != TEST_SPLIT;
    let split = if lone { known[0].clone() } else { args.dataset_test_split.clone() };
    let dataset = read_dataset(&path, &ReadOptions { split, config, columns })?;

    if args.judge.asked() {
        let (evaluation, report) = judge(&source, reference.as_ref(), &dataset, &args.judge, precision, args.offline)?;
        return print(&evaluation, &report, args.json);
    }
    source.warn_of_token_field();
    if is_reward_model(&source) {
        return rank(&source, &dataset, precision, &args);
    }
    let sources: Vec<&ModelSource> = [&source].into_iter().chain(&reference).collect();
    let positions = sources.iter().map(|source| source.config.n_positions).min().unwrap_or(MAX_LENGTH);
    let max_length = args.max_length.unwrap_or(MAX_LENGTH).min(positions);
    if args.max_length.is_some_and(|asked| asked > max_length) {
        tracing::info!("`max_length` is {max_length}, the model's positions");
    }
    let (evaluation, report) = evaluate(&sources, &dataset, max_length, precision, &args)?;
    print(&evaluation, &report, args.json)
}

pub(super) fn is_reward_model(source: &ModelSource) -> bool {
    source.config.architectures.iter().any(|class| class == Architecture::SequenceClassification.class_name())
}

/// What `eval` does with a reward model
fn rank(source: &ModelSource, dataset: &Dataset, precision: Precision, args: &Args) -> Result<()> {
    if args.ref_model.is_some() {
        return Err(Error::usage("a reward model is not compared with a reference")
            .hint("leave out `ref_model`, and evaluate the other model by itself"));
    }
    let max_length = args.max_length.unwrap_or(usize::MAX).min(source.config.n_positions);
    let prepared = pair_examples(dataset, &source.tokenizer, max_length)?;
    source.check_tokens(prepared.examples.iter().flat_map(|pair| [&pair.chosen[..], &pair.rejected[..]]))?;
    let model = RewardModel::load(&source.folder)?.detached()?.with_precision(precision)?;
    print(&evaluate_rewards(&model, &prepared.examples)?, &prepared.report, args.json)
}

/// Prepares the rows as training would and asks the models
fn evaluate(
    sources: &[&ModelSource],
    dataset: &Dataset,
    max_length: usize,
    precision: Precision,
    args: &Args,
) -> Result<(Evaluation, RowReport)> {
    let (tokenizer, max_length) = (&sources[0].tokenizer, Some(max_length));
    let format = Format::of(dataset, "text")?;
    let pairs = match format.kind {
        Kind::TokenizedPreference | Kind::Preference | Kind::ImplicitPreference => true,
        Kind::Tokenized | Kind::PromptCompletion | Kind::LanguageModeling => false,
        Kind::PromptOnly | Kind::UnpairedPreference => {
            return Err(Error::usage(format!(
                "`{}` holds rows in the format `{format}`, which `eval` cannot measure",
                args.dataset_name
            ))
            .hint("rows with `text`, `messages`, `prompt` and `completion`, or `chosen` and `rejected` are needed"));
        }
    };
    if pairs {
        let options = PreferenceOptions { max_length, truncation: Truncation::KeepStart };
        let prepared = preference_examples(dataset, tokenizer, &options)?;
        let parts = prepared.examples.iter().flat_map(|pair| [&pair.prompt, &pair.chosen, &pair.rejected]);
        let models = load(sources, precision, &parts.map(Vec::as_slice).collect::<Vec<_>>())?;
        let options = EvaluateOptions { reference: models.get(1), beta: args.beta, batch_size: args.batch_size };
        return Ok((evaluate_pairs(&models[0], &prepared.examples, &options)?, prepared.report));
    }
    let prepared = lm_examples(dataset, tokenizer, &LmOptions { max_length, ..LmOptions::default() })?;
    let sequences: Vec<&[u32]> = prepared.examples.iter().map(|example| example.ids.as_slice()).collect();
    let models = load(sources, precision, &sequences)?;
    let options = EvaluateOptions { reference: models.get(1), beta: args.beta, batch_size: args.batch_size };
    Ok((evaluate_texts(&models[0], &prepared.examples, &options)?, prepared.report))
}

/// The models, if all of them know the tokens
fn load(sources: &[&ModelSource], precision: Precision, sequences: &[&[u32]]) -> Result<Vec<Gpt2>> {
    sources.iter().try_for_each(|source| source.check_tokens(sequences.iter().copied()))?;
    sources.iter().map(|source| source.load_frozen()?.with_precision(precision)).collect()
}

/// One JSON object, or a table
fn print(evaluation: &Evaluation, report: &RowReport, as_json: bool) -> Result<()> {
    let counts = [("rows", evaluation.rows), ("dropped", report.read - report.used), ("tokens", evaluation.tokens)];
    let mut output = Output::open();
    if as_json {
        let metrics = evaluation.metrics.iter().map(|(name, value)| (name.to_owned(), json!(value)));
        let counts = counts.iter().map(|(name, count)| ((*name).to_owned(), json!(count)));
        output.line(&Value::Object(metrics.chain(counts).collect::<Map<_, _>>()).to_string())?;
    } else {
        let digits = |name: &str| if name.ends_with("_pairs") { 0 } else { 6 };
        let metrics = evaluation.metrics.iter().map(|(name, value)| (name, format!("{value:.*}", digits(name))));
        let counts = counts.iter().map(|(name, count)| (*name, count.to_string()));
        output.table(&metrics.chain(counts).collect::<Vec<_>>())?;
    }
    output.flush()
}
