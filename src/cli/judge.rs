//! What `collimate eval` does with `reward_funcs`: completions of prompts, judged.

use super::args::{count, non_negative, share};
use super::eval::is_reward_model;
use super::speaker::token_field;
use crate::data::{Dataset, PromptOptions, RowReport, prompt_examples};
use crate::ops::Precision;
use crate::reward::{Options as RewardOptions, Rewards};
use crate::rollout::{Bend, Policy, Sampling};
use crate::train::collect::Collector;
use crate::train::evaluate::Evaluation;
use crate::train::evaluate_completions::{JudgeOptions, evaluate_completions};
use crate::train::reward_model;
use crate::train::source::ModelSource;
use crate::{Error, Result};

/// How completions are made and judged
#[derive(Debug, clap::Args)]
#[command(rename_all = "snake_case", next_help_heading = "Judging completions")]
pub struct JudgeArgs {
    /// Rewards that judge what the model writes, as the online trainers take them
    #[arg(long, value_name = "REWARD", num_args = 1..)]
    pub reward_funcs: Vec<String>,
    /// Weight of each; 1 where not set
    #[arg(long, value_name = "X", num_args = 1.., value_delimiter = ',', requires = "reward_funcs",
          allow_negative_numbers = true)]
    pub reward_weights: Vec<f64>,
    /// Completions of each prompt
    #[arg(long, alias = "num_return_sequences", value_name = "N", default_value = "1", value_parser = count)]
    pub num_generations: usize,
    /// Longest completion in tokens
    #[arg(long, alias = "max_completion_length", value_name = "N", default_value = "256", value_parser = count)]
    pub max_new_tokens: usize,
    /// Divisor of the logits; 0 always takes the likeliest token
    #[arg(long, value_name = "X", default_value = "1.0", value_parser = non_negative, allow_negative_numbers = true)]
    pub temperature: f64,
    /// Keep the likeliest tokens up to this probability together
    #[arg(long, value_name = "X", default_value = "1.0", value_parser = share, allow_negative_numbers = true)]
    pub top_p: f64,
    /// Strength of the token field that a `grl` run with `eta` left beside the model, in place of its own; 0 leaves the
    /// field out
    #[arg(long, value_name = "X", value_parser = non_negative, allow_negative_numbers = true, requires = "reward_funcs")]
    pub eta: Option<f64>,
    /// Seed of the sampling
    #[arg(long, value_name = "N", default_value = "42")]
    pub seed: u64,
}

impl JudgeArgs {
    /// Whether completions are to be judged
    pub(super) fn asked(&self) -> bool {
        !self.reward_funcs.is_empty()
    }
}

pub(super) fn judge(
    source: &ModelSource,
    reference: Option<&ModelSource>,
    dataset: &Dataset,
    args: &JudgeArgs,
    precision: Precision,
    offline: bool,
) -> Result<(Evaluation, RowReport)> {
    for source in [Some(source), reference].into_iter().flatten() {
        if is_reward_model(source) {
            return Err(Error::usage(format!("`{}` is a reward model, which writes nothing", source.folder.display()))
                .hint("name it in `reward_funcs`, and the model that it judges in `model`"));
        }
    }
    if let Some(other) = reference
        && other.tokenizer.fingerprint()? != source.tokenizer.fingerprint()?
    {
        return Err(Error::usage("the two models have different tokenizers, so that their tokens cannot be compared")
            .hint("evaluate each by itself, and compare their rewards"));
    }
    let positions = [Some(source), reference].into_iter().flatten().map(|source| source.config.n_positions).min();
    let options = PromptOptions { max_prompt_length: positions.map(|positions| positions - 1) };
    let prepared = prompt_examples(dataset, &source.tokenizer, &options)?;
    source.check_tokens(prepared.examples.iter().map(|prompt| &prompt.ids[..]))?;
    let weights = (!args.reward_weights.is_empty()).then_some(&args.reward_weights[..]);
    let model = reward_model::loader(offline, false);
    let rewards = Rewards::from_config(&args.reward_funcs, weights, RewardOptions::default(), model)?;
    let sampling = Sampling { temperature: args.temperature, top_p: args.top_p, ..Sampling::default() };
    let mut collector = Collector::new(prepared.examples, source, sampling, args.max_new_tokens, rewards)?;
    let options = JudgeOptions {
        per_prompt: args.num_generations,
        seed: args.seed,
        whole_distribution: args.temperature == 1.0 && args.top_p >= 1.0,
    };
    let load = |source: &ModelSource| source.load_frozen()?.with_precision(precision);
    if let Some(reference) = reference {
        reference.warn_of_token_field();
    }
    let reference = reference.map(load).transpose()?;
    let model = load(source)?;
    let mut field = token_field(source, args.eta)?;
    let prompts: Vec<Vec<u32>> = (0..collector.len()).map(|row| collector.prompt(row).to_vec()).collect();
    let bend = field.as_mut().map(|field| field.bend(&prompts)).transpose()?;
    let policy = Policy { model: &model, bend: bend.as_ref().map(|bend| bend as &dyn Bend) };
    let evaluation = evaluate_completions(&mut collector, policy, reference.as_ref(), &options, &|| Ok(()))?;
    Ok((evaluation, prepared.report))
}
