//! Prompts to a scored [`Rollout`]: what every online trainer begins its step with.

use std::ops::ControlFlow;
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

use super::objective::Split;
use super::session::Session;
use super::source::ModelSource;
use crate::config::{OnlineKeys, TruncationMode};
use crate::data::{Dataset, PromptExample, PromptOptions, ReadOptions, Tokenizer, prompt_examples, read_dataset};
use crate::model::gpt2::packed::PackedGpt2;
use crate::reward::{Options as RewardOptions, Reward, Rewards, Sample, Scores};
use crate::rollout::{Finish, Options, Policy, Rollout, Sampling, Source, stream_from};
use crate::run::{Part, StepClock};
use crate::{Error, Result};

/// Largest key-value cache of one round of generation
const CACHE_BYTES: usize = 1 << 30;

/// Prompts, how they are completed, and what judges the completions
pub struct Collector {
    prompts: Vec<PromptExample>,
    /// Completions of each prompt that take the place of sampling
    replay: Option<Vec<Replayed>>,
    tokenizer: Tokenizer,
    sampling: Sampling,
    stop: Vec<u32>,
    max_new_tokens: usize,
    /// None where every replayed row brings its rewards
    rewards: Option<Rewards>,
    /// Completions judged since somebody asked
    queries: u64,
}

/// Whether every row has what the rewards need
fn check_rows(rewards: &Rewards, prompts: &[PromptExample]) -> Result<()> {
    prompts
        .iter()
        .try_for_each(|prompt| rewards.check_row(&prompt.row.fields).map_err(|error| error.context(&prompt.row.place)))
}

/// A row of `replay_completions`
struct Replayed {
    completions: Vec<Vec<u32>>,
    rewards: Option<Vec<Option<f64>>>,
}

/// Prompts of a run by split: training, and evaluation where there is one
pub struct Collectors {
    /// To train on
    pub train: Collector,
    /// To evaluate on
    pub eval: Option<Collector>,
}

impl Collectors {
    /// Reads prompts and rewards as the keys say
    pub fn open(
        session: &mut Session,
        keys: &OnlineKeys,
        reward_model: impl Fn(&str) -> Result<Box<dyn Reward>>,
    ) -> Result<Self> {
        if session.keys.cache_dir.is_some() {
            tracing::info!("`cache_dir` changes nothing: fresh completions have no log-probabilities to keep");
        }
        if session.keys.max_length != Some(1024) || session.keys.truncation_mode != TruncationMode::KeepStart {
            tracing::info!(
                "`max_length` and `truncation_mode` change nothing: prompts are never cut, and `max_completion_length` \
                 holds for completions"
            );
        }
        let open = |session: &mut Session, dataset: Dataset, split: Split, replayed: bool| {
            Collector::open(session, &dataset, split, keys, replayed, &reward_model)
        };
        let replayed = keys.replay_completions.as_ref();
        let dataset = match replayed {
            Some(path) => read_dataset(Path::new(path), &ReadOptions::default())?,
            None => session.train_rows()?,
        };
        let train = open(session, dataset, Split::Train, replayed.is_some())?;
        let eval = session.eval_rows()?;
        let eval = eval.map(|dataset| open(session, dataset, Split::Eval, false)).transpose()?;
        Ok(Self { train, eval })
    }
}

impl Collector {
    /// Prompts to sample completions of, `max_new_tokens` long at most, and what judges them
    ///
    /// # Errors
    /// A row without the columns that a reward needs
    pub fn new(
        prompts: Vec<PromptExample>,
        source: &ModelSource,
        sampling: Sampling,
        max_new_tokens: usize,
        rewards: Rewards,
    ) -> Result<Self> {
        check_rows(&rewards, &prompts)?;
        let (tokenizer, stop) = (source.tokenizer.clone(), source.stop_tokens());
        let rewards = Some(rewards);
        Ok(Self { prompts, replay: None, tokenizer, sampling, stop, max_new_tokens, rewards, queries: 0 })
    }

    fn open(
        session: &mut Session,
        dataset: &Dataset,
        split: Split,
        keys: &OnlineKeys,
        replayed: bool,
        reward_model: &dyn Fn(&str) -> Result<Box<dyn Reward>>,
    ) -> Result<Self> {
        let positions = session.source.config.n_positions;
        let options = PromptOptions { max_prompt_length: Some(positions - 1) };
        let prepared = prompt_examples(dataset, &session.source.tokenizer, &options)?;
        session.source.check_tokens(prepared.examples.iter().map(|prompt| &prompt.ids[..]))?;
        session.note_rows(split, &prepared.report);
        let prompts = prepared.examples;
        let tokenizer = session.source.tokenizer.clone();
        let limit = |prompt: &PromptExample| keys.max_completion_length.min(positions - prompt.ids.len());
        let replay = if replayed {
            let rows = prompts.iter().map(|prompt| Replayed::of(prompt, &tokenizer, limit(prompt)));
            let rows = rows.collect::<Result<Vec<_>>>()?;
            session.source.check_tokens(rows.iter().flat_map(|row| row.completions.iter().map(|ids| &ids[..])))?;
            Some(rows)
        } else {
            None
        };
        let rewarded = replay.as_ref().is_some_and(|rows| rows.iter().all(|row| row.rewards.is_some()));
        let rewards = if rewarded {
            None
        } else {
            let options = RewardOptions {
                timeout: Duration::from_secs_f64(keys.reward_timeout),
                retries: keys.reward_retries as u32,
                ..RewardOptions::default()
            };
            let functions = keys.rewards();
            let rewards = Rewards::from_config(&functions, keys.reward_weights.as_deref(), options, reward_model)?;
            check_rows(&rewards, &prompts)?;
            Some(rewards)
        };
        let mut stop = session.source.stop_tokens();
        for token in &keys.stop_tokens {
            stop.push(stop_token(&tokenizer, token)?);
        }
        let sampling = Sampling {
            temperature: keys.temperature,
            top_k: keys.top_k,
            top_p: keys.top_p,
            min_p: keys.min_p,
            repetition_penalty: keys.repetition_penalty,
        };
        Ok(Self {
            prompts,
            replay,
            tokenizer,
            sampling,
            stop,
            max_new_tokens: keys.max_completion_length,
            rewards,
            queries: 0,
        })
    }

    /// Prompts there are
    pub fn len(&self) -> usize {
        self.prompts.len()
    }

    /// Whether there is none
    pub fn is_empty(&self) -> bool {
        self.prompts.is_empty()
    }

    /// Whether completions come from a file
    pub fn replays(&self) -> bool {
        self.replay.is_some()
    }

    /// Completions judged since the last call: what a comparison at equal reward queries counts
    pub fn take_queries(&mut self) -> u64 {
        std::mem::take(&mut self.queries)
    }

    /// Token ids of a prompt
    pub fn prompt(&self, row: usize) -> &[u32] {
        &self.prompts[row].ids
    }

    /// A prompt as it stands in its row; a conversation as JSON
    pub fn prompt_text(&self, row: usize) -> String {
        let prompt = self.prompts[row].row.fields.get("prompt").unwrap_or(&Value::Null);
        prompt.as_str().map_or_else(|| prompt.to_string(), ToOwned::to_owned)
    }

    /// Tokens as text, special ones left out
    pub fn decode(&self, ids: &[u32]) -> Result<String> {
        self.tokenizer.decode(ids, true)
    }

    /// Tokens of each prompt
    pub fn lengths(&self) -> Vec<usize> {
        self.prompts.iter().map(|prompt| prompt.ids.len()).collect()
    }

    /// Names and weights of the rewards
    pub fn reward_weights(&self) -> (Vec<String>, Vec<f64>) {
        match &self.rewards {
            Some(rewards) => (rewards.names().to_vec(), rewards.weights().to_vec()),
            None => (vec!["replay".to_owned()], vec![1.0]),
        }
    }

    /// Whether the sampler draws from the very distribution that training sees
    pub fn samples_whole_distribution(&self) -> bool {
        let Sampling { top_k, top_p, min_p, repetition_penalty, .. } = self.sampling;
        top_k == 0 && top_p >= 1.0 && min_p.is_none_or(|p| p == 0.0) && repetition_penalty == 1.0 && !self.replays()
    }

    /// Completes the prompts in `rows`, `per_prompt` times each, and asks the rewards
    ///
    /// What is drawn depends on `seed` and the place in `rows` alone.
    pub fn collect<'p>(
        &mut self,
        policy: impl Into<Policy<'p>>,
        rows: &[usize],
        per_prompt: usize,
        seed: u64,
        clock: &mut StepClock,
        check: &dyn Fn() -> Result<()>,
    ) -> Result<Rollout> {
        let mut rollout = self.write(&policy.into(), rows, &vec![per_prompt; rows.len()], seed, clock, check)?;
        let all = vec![true; rollout.len()];
        self.judge(&mut rollout, &all, clock, check)?;
        Ok(rollout)
    }

    /// The first half of [`Self::collect`]: so many completions of each prompt, without rewards
    pub fn write(
        &self,
        policy: &Policy<'_>,
        rows: &[usize],
        counts: &[usize],
        seed: u64,
        clock: &mut StepClock,
        check: &dyn Fn() -> Result<()>,
    ) -> Result<Rollout> {
        let prompt_of = counts.iter().enumerate().flat_map(|(prompt, count)| std::iter::repeat_n(prompt, *count));
        let mut rollout = Rollout {
            rows: rows.to_vec(),
            prompts: rows.iter().map(|&row| self.prompts[row].ids.clone()).collect(),
            prompt_of: prompt_of.collect(),
            ..Rollout::default()
        };
        match &self.replay {
            Some(replay) => {
                for (&row, &count) in rows.iter().zip(counts) {
                    let found = &replay[row].completions;
                    if found.len() != count {
                        let place = &self.prompts[row].row.place;
                        return Err(Error::usage(format!(
                            "{place}: {} completions, expected {count} (`num_generations`)",
                            found.len()
                        )));
                    }
                    rollout.completions.extend(found.iter().cloned());
                }
                let cut = |ids: &Vec<u32>| ids.last().is_none_or(|last| !self.stop.contains(last));
                rollout.truncated = rollout.completions.iter().map(cut).collect();
            }
            None => clock.time(Part::Generate, || self.sample(policy, counts, seed, check, &mut rollout))?,
        }
        Ok(rollout)
    }

    /// The second half: asks the rewards about those completions that `asked` says, and about no other
    pub fn judge(
        &mut self,
        rollout: &mut Rollout,
        asked: &[bool],
        clock: &mut StepClock,
        check: &dyn Fn() -> Result<()>,
    ) -> Result<()> {
        let which: Vec<usize> = (0..rollout.len()).filter(|i| asked[*i]).collect();
        let scores = clock.time(Part::Score, || self.score(rollout, &which, check))?;
        self.queries += which.len() as u64;
        let spread = |values: Vec<Option<f64>>| {
            let mut all = vec![None; rollout.len()];
            which.iter().zip(values).for_each(|(i, value)| all[*i] = value);
            all
        };
        (rollout.rewards, rollout.rewards_by_function) =
            (spread(scores.total), scores.by_function.into_iter().map(spread).collect());
        Ok(())
    }

    fn sample(
        &self,
        policy: &Policy<'_>,
        counts: &[usize],
        seed: u64,
        check: &dyn Fn() -> Result<()>,
        rollout: &mut Rollout,
    ) -> Result<()> {
        let config = policy.model.config();
        let longest = rollout.prompts.iter().map(Vec::len).max().unwrap_or(0) + self.max_new_tokens;
        let per_slot = 2 * 4 * config.n_layer * config.n_embd * longest.min(config.n_positions);
        let options = Options {
            sampling: self.sampling,
            max_new_tokens: self.max_new_tokens,
            per_prompt: 1,
            batch_size: (CACHE_BYTES / per_slot).max(1),
            seed,
            stop: self.stop.clone(),
        };
        let model = PackedGpt2::new(policy.model)?;
        let source = Source { bend: policy.bend, ..(&model).into() };
        let on_token = &mut |_, _| Ok(ControlFlow::Continue(()));
        for completion in stream_from(&source, &rollout.prompts, Some(counts), &options, check, on_token)?.completions {
            rollout.truncated.push(completion.finish == Finish::Length);
            rollout.completions.push(completion.ids);
            rollout.sampled_log_probs.push(completion.log_probs);
        }
        Ok(())
    }

    fn score(&mut self, rollout: &Rollout, which: &[usize], check: &dyn Fn() -> Result<()>) -> Result<Scores> {
        let row_of = |i: usize| rollout.rows[rollout.prompt_of[i]];
        if self.rewards.is_none() {
            let mut total: Vec<Option<f64>> = Vec::with_capacity(rollout.len());
            for &row in &rollout.rows {
                let replayed = self.replay.as_ref().and_then(|rows| rows[row].rewards.as_ref());
                total.extend(replayed.into_iter().flatten());
            }
            let total: Vec<Option<f64>> = which.iter().map(|i| total[*i]).collect();
            return Ok(Scores { by_function: vec![total.clone()], total });
        }
        let answers = which.iter().map(|&i| self.answer(row_of(i), &rollout.completions[i]));
        let answers = answers.collect::<Result<Vec<Value>>>()?;
        let samples: Vec<Sample<'_>> = which
            .iter()
            .zip(&answers)
            .map(|(&i, completion)| {
                let columns = &self.prompts[row_of(i)].row.fields;
                Sample {
                    prompt: columns.get("prompt").unwrap_or(&Value::Null),
                    completion,
                    completion_ids: &rollout.completions[i],
                    columns,
                    truncated: rollout.truncated[i],
                }
            })
            .collect();
        match &mut self.rewards {
            Some(rewards) => rewards.score(&samples, check),
            None => Ok(Scores { by_function: Vec::new(), total: Vec::new() }),
        }
    }

    /// A completion as rewards see it: a text, or the assistant's message where the prompt is a conversation
    fn answer(&self, row: usize, ids: &[u32]) -> Result<Value> {
        let text = self.tokenizer.decode(ids, true)?;
        let conversational = self.prompts[row].row.fields.get("prompt").is_some_and(Value::is_array);
        Ok(if conversational { json!([{"role": "assistant", "content": text}]) } else { Value::String(text) })
    }

    /// Prompt and completion of each sequence as text
    pub fn texts(&self, rollout: &Rollout) -> Result<Vec<(String, String)>> {
        let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), ToOwned::to_owned);
        (0..rollout.len())
            .map(|i| {
                let row = rollout.rows[rollout.prompt_of[i]];
                let prompt = self.prompts[row].row.fields.get("prompt").unwrap_or(&Value::Null);
                Ok((text(prompt), text(&self.answer(row, &rollout.completions[i])?)))
            })
            .collect()
    }
}

/// A token that ends a completion, by its text or its id
fn stop_token(tokenizer: &Tokenizer, token: &str) -> Result<u32> {
    if let Ok(id) = token.parse::<u32>() {
        return Ok(id);
    }
    match tokenizer.encode_rendered(token)?.as_slice() {
        [id] => Ok(*id),
        ids => Err(Error::usage(format!("`stop_tokens`: `{token}` is {} tokens, expected one", ids.len()))),
    }
}

impl Replayed {
    fn of(prompt: &PromptExample, tokenizer: &Tokenizer, limit: usize) -> Result<Self> {
        let place = &prompt.row.place;
        let wrong = |what: &str| Err(Error::usage(format!("{place}: {what}")));
        let Some(Value::Array(found)) = prompt.row.fields.get("completions") else {
            return wrong("`completions` must be a list of texts or of lists of token ids");
        };
        let mut completions = Vec::with_capacity(found.len());
        for value in found {
            let mut ids = match value {
                Value::String(text) => {
                    let mut ids = tokenizer.encode_rendered(text)?;
                    ids.extend(tokenizer.eos_id().filter(|eos| ids.last() != Some(eos)));
                    ids
                }
                Value::Array(ids) => {
                    let ids: Option<Vec<u32>> =
                        ids.iter().map(|id| id.as_u64().and_then(|id| u32::try_from(id).ok())).collect();
                    match ids {
                        Some(ids) => ids,
                        None => return wrong("a list in `completions` must hold token ids"),
                    }
                }
                _ => return wrong("`completions` must be a list of texts or of lists of token ids"),
            };
            ids.truncate(limit);
            if ids.is_empty() {
                return wrong("a completion without tokens");
            }
            completions.push(ids);
        }
        let rewards = match prompt.row.fields.get("rewards") {
            None | Some(Value::Null) => None,
            Some(Value::Array(values)) if values.len() == completions.len() => {
                let number = |value: &Value| match value {
                    Value::Null => Some(None),
                    other => other.as_f64().map(Some),
                };
                match values.iter().map(number).collect::<Option<Vec<_>>>() {
                    Some(rewards) => Some(rewards),
                    None => return wrong("`rewards` must hold numbers or null"),
                }
            }
            Some(_) => return wrong("`rewards` must be a list of as many numbers as `completions`"),
        };
        Ok(Self { completions, rewards })
    }
}
