//! Batched generation: finished sequences leave the batch, waiting prompts take their place.

use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use rayon::prelude::*;

use super::bend::{Moment, Source};
use super::sampling::{Sampling, uniform};
use crate::model::gpt2::Gpt2;
use crate::model::gpt2::cached::{Decoder, Ends, NewTokens};
use crate::model::gpt2::packed::PackedGpt2;
use crate::{Error, Result};

/// What to generate
#[derive(Clone, Debug)]
pub struct Options {
    /// How tokens are chosen
    pub sampling: Sampling,
    /// Most tokens of a completion, an end-of-text token included
    pub max_new_tokens: usize,
    /// Completions of each prompt
    pub per_prompt: usize,
    /// Sequences in the cache at a time
    pub batch_size: usize,
    /// Seed of the draws
    pub seed: u64,
    /// Tokens that end a completion
    pub stop: Vec<u32>,
}

/// Why a completion ended
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finish {
    /// A stop token was drawn; it is the last token
    Stop,
    /// The limit, or the model's last position, was reached
    Length,
}

/// A completion
#[derive(Clone, Debug, PartialEq)]
pub struct Completion {
    /// Index of its prompt
    pub prompt: usize,
    /// Its tokens
    pub ids: Vec<u32>,
    /// Log-probability of each token under the distribution that it was drawn from
    pub log_probs: Vec<f32>,
    /// Why it ended
    pub finish: Finish,
}

/// Where the time went
#[derive(Clone, Copy, Debug, Default)]
pub struct Times {
    /// Running prompts
    pub prefill: Duration,
    /// Drawing tokens and running them
    pub decode: Duration,
}

/// Completions in the order of the prompts, those of one prompt together
#[derive(Clone, Debug)]
pub struct Output {
    /// The completions
    pub completions: Vec<Completion>,
    /// Where the time went
    pub times: Times,
}

/// A sequence in the batch
struct Active {
    request: usize,
    slot: usize,
    /// Prompt and completion so far
    tokens: Vec<u32>,
    completion: Completion,
}

/// Samples completions from a model as it is now, in its precision; see [`generate_packed`]
pub fn generate(
    model: &Gpt2,
    prompts: &[Vec<u32>],
    options: &Options,
    check: &dyn Fn() -> Result<()>,
) -> Result<Output> {
    generate_packed(&PackedGpt2::new(model)?, prompts, options, check)
}

/// Samples completions; what a request draws depends on its seed and index alone, not on the batch
///
/// # Errors
/// An empty prompt, or one that leaves no position for a token; what `check`, asked before every token, returned
pub fn generate_packed(
    model: &PackedGpt2,
    prompts: &[Vec<u32>],
    options: &Options,
    check: &dyn Fn() -> Result<()>,
) -> Result<Output> {
    stream(model, prompts, options, check, &mut |_, _| Ok(ControlFlow::Continue(())))
}

/// Takes each token with the index of its completion as it is drawn; a break ends that completion there
pub type OnToken<'a> = dyn FnMut(usize, u32) -> Result<ControlFlow<()>> + 'a;

/// [`generate_packed`] that hands over each token as it is drawn
pub fn stream(
    model: &PackedGpt2,
    prompts: &[Vec<u32>],
    options: &Options,
    check: &dyn Fn() -> Result<()>,
    on_token: &mut OnToken<'_>,
) -> Result<Output> {
    stream_from(&model.into(), prompts, None, options, check, on_token)
}

/// [`stream`] from bent logits; with `counts`, so many completions of each prompt in place of `per_prompt`
///
/// # Errors
/// Those of [`generate_packed`]; two models of different vocabularies; what the bend returned
pub fn stream_from(
    source: &Source<'_>,
    prompts: &[Vec<u32>],
    counts: Option<&[usize]>,
    options: &Options,
    check: &dyn Fn() -> Result<()>,
    on_token: &mut OnToken<'_>,
) -> Result<Output> {
    let config = source.model.config();
    let other = source.reference.map_or(config, PackedGpt2::config);
    if other.vocab_size != config.vocab_size {
        let message =
            format!("models of {} and {} tokens cannot be read together", config.vocab_size, other.vocab_size);
        return Err(Error::usage(message));
    }
    let positions = config.n_positions.min(other.n_positions);
    let longest = prompts.iter().map(Vec::len).max().unwrap_or(0);
    if let Some(i) = prompts.iter().position(|prompt| prompt.is_empty() || prompt.len() >= positions) {
        return Err(Error::usage(format!(
            "prompt {} has {} tokens; the model takes 1 to {}",
            i + 1,
            prompts[i].len(),
            positions - 1
        )));
    }
    let count = |prompt: usize| counts.map_or(options.per_prompt, |counts| counts[prompt]);
    let prompt_of: Vec<usize> = (0..prompts.len()).flat_map(|at| std::iter::repeat_n(at, count(at))).collect();
    let requests = prompt_of.len();
    let slots = options.batch_size.clamp(1, requests.max(1));
    let capacity = (longest + options.max_new_tokens).min(positions);
    let open = |model| Decoder::new(model, slots, capacity);
    let mut decoders = Decoders { model: open(source.model), reference: source.reference.map(open) };
    let mut run = Run {
        prompts,
        prompt_of,
        options,
        source,
        positions,
        done: (0..requests).map(|_| None).collect(),
        active: Vec::new(),
        free: (0..slots).rev().collect(),
        waiting: 0,
        times: Times::default(),
    };
    let mut said = Said::default();
    loop {
        check()?;
        run.admit(&mut decoders, &mut said)?;
        if run.active.is_empty() {
            break;
        }
        let begin = Instant::now();
        run.draw(&mut said, on_token)?;
        let new: Vec<NewTokens> = run
            .active
            .iter()
            .map(|a| NewTokens { slot: a.slot, ids: a.tokens.last().copied().into_iter().collect() })
            .collect();
        said = if new.is_empty() { Said::default() } else { decoders.forward(&new)? };
        run.times.decode += begin.elapsed();
    }
    Ok(Output { completions: run.done.into_iter().flatten().collect(), times: run.times })
}

/// The model, and beside it one that reads the same tokens
struct Decoders<'a> {
    model: Decoder<'a>,
    reference: Option<Decoder<'a>>,
}

/// What both say after the last token of each sequence
#[derive(Default)]
struct Said {
    model: Ends,
    reference: Ends,
}

impl Decoders<'_> {
    fn each(&mut self, change: impl Fn(&mut Decoder<'_>)) {
        change(&mut self.model);
        self.reference.iter_mut().for_each(&change);
    }

    fn forward(&mut self, new: &[NewTokens]) -> Result<Said> {
        let reference = self.reference.as_mut().map(|decoder| decoder.forward_ends(new)).transpose()?;
        Ok(Said { model: self.model.forward_ends(new)?, reference: reference.unwrap_or_default() })
    }
}

impl Said {
    /// Appends what was said of sequence `i` of `n`
    fn append(&mut self, from: &Self, i: usize, n: usize) {
        let copy = |to: &mut Vec<f32>, from: &[f32]| to.extend_from_slice(row(from, i, n));
        for (to, from) in [(&mut self.model, &from.model), (&mut self.reference, &from.reference)] {
            copy(&mut to.hidden, &from.hidden);
            copy(&mut to.logits, &from.logits);
        }
    }
}

/// Row `i` of `n`
fn row(values: &[f32], i: usize, n: usize) -> &[f32] {
    let width = values.len() / n;
    &values[i * width..(i + 1) * width]
}

struct Run<'a> {
    prompts: &'a [Vec<u32>],
    /// Of each request
    prompt_of: Vec<usize>,
    options: &'a Options,
    source: &'a Source<'a>,
    positions: usize,
    done: Vec<Option<Completion>>,
    active: Vec<Active>,
    free: Vec<usize>,
    /// The next request that has not begun
    waiting: usize,
    times: Times,
}

impl Run<'_> {
    /// Runs the prompts of waiting requests into free slots; appends their logits
    fn admit(&mut self, decoders: &mut Decoders<'_>, said: &mut Said) -> Result<()> {
        if self.options.max_new_tokens == 0 {
            while self.waiting < self.done.len() {
                self.done[self.waiting] = Some(self.begin(self.waiting));
                self.waiting += 1;
            }
            return Ok(());
        }
        let begin = Instant::now();
        let (mut new, mut sources) = (Vec::new(), Vec::new());
        let first = self.active.len();
        while self.waiting < self.done.len()
            && let Some(slot) = self.free.pop()
        {
            let request = self.waiting;
            self.waiting += 1;
            decoders.each(|decoder| decoder.clear(slot));
            let completion = self.begin(request);
            let prompt = &self.prompts[completion.prompt];
            // Requests of one prompt that begin together share its run
            let shared = self.active[first..].iter().position(|a| a.completion.prompt == completion.prompt);
            sources.push(if let Some(at) = shared {
                sources[at]
            } else {
                new.push(NewTokens { slot, ids: prompt.clone() });
                new.len() - 1
            });
            self.active.push(Active { request, slot, tokens: prompt.clone(), completion });
        }
        if new.is_empty() {
            return Ok(());
        }
        let fresh = decoders.forward(&new)?;
        for (active, source) in self.active[first..].iter().zip(sources) {
            if active.slot != new[source].slot {
                decoders.each(|decoder| decoder.copy(new[source].slot, active.slot));
            }
            said.append(&fresh, source, new.len());
        }
        self.times.prefill += begin.elapsed();
        Ok(())
    }

    fn begin(&self, request: usize) -> Completion {
        Completion { prompt: self.prompt_of[request], ids: Vec::new(), log_probs: Vec::new(), finish: Finish::Length }
    }

    /// Draws a token for every active sequence; finished ones leave
    fn draw(&mut self, said: &mut Said, on_token: &mut OnToken<'_>) -> Result<()> {
        let (options, bend, n) = (self.options, self.source.bend, self.active.len());
        let Said { model: Ends { hidden, logits }, reference: Ends { logits: reference, .. } } = said;
        let vocab = logits.len() / n;
        let sequences = self.active.par_iter_mut().zip(logits.par_chunks_mut(vocab)).enumerate();
        sequences.try_for_each(|(i, (active, logits))| {
            if let Some(bend) = bend {
                let (hidden, reference) = (row(hidden, i, n), row(reference, i, n));
                bend.bend(&Moment { prompt: active.completion.prompt, hidden, reference }, logits)?;
            }
            let u = uniform(options.seed, active.request as u64, active.completion.ids.len() as u64);
            let choice = options.sampling.choose(logits, &active.tokens, u);
            active.tokens.push(choice.id);
            active.completion.ids.push(choice.id);
            active.completion.log_probs.push(choice.log_prob);
            Ok::<(), Error>(())
        })?;
        let mut broken = Vec::new();
        for active in &self.active {
            let Some(&id) = active.completion.ids.last() else { continue };
            if on_token(active.request, id)?.is_break() {
                broken.push(active.request);
            }
        }
        let positions = self.positions;
        let (done, free) = (&mut self.done, &mut self.free);
        self.active.retain_mut(|active| {
            let stopped = broken.contains(&active.request)
                || active.completion.ids.last().is_some_and(|id| options.stop.contains(id));
            let full = active.completion.ids.len() >= options.max_new_tokens || active.tokens.len() >= positions;
            if !stopped && !full {
                return true;
            }
            active.completion.finish = if stopped { Finish::Stop } else { Finish::Length };
            done[active.request] = Some(active.completion.clone());
            free.push(active.slot);
            false
        });
        Ok(())
    }
}
