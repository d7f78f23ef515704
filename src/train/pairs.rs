//! What the trainers on pairs of completions share before their loss.

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::objective::{Pass, Split};
use super::session::Session;
use crate::Result;
use crate::data::{Dataset, PreferenceExample, PreferenceOptions, Prepared, Tokenizer};
use crate::model::gpt2::Gpt2;

/// Makes examples of rows
type Prepare<E> = fn(&Dataset, &Tokenizer, &PreferenceOptions) -> Result<Prepared<E>>;

/// `max_length` and what it keeps, as the session's keys say
pub fn options(session: &Session) -> PreferenceOptions {
    PreferenceOptions { max_length: Some(session.max_length()), truncation: session.truncation() }
}

/// Training and held-out examples; `kind` names the function that makes them
pub fn read<E: Serialize + DeserializeOwned>(
    session: &mut Session,
    kind: &str,
    prepare: Prepare<E>,
) -> Result<[Vec<E>; 2]> {
    let options = options(session);
    let kind = format!("{kind} {options:?}");
    let mut read = |split| session.examples(split, &kind, |rows, tokenizer| prepare(rows, tokenizer, &options));
    Ok([read(Split::Train)?, read(Split::Eval)?])
}

/// A policy and the pairs that it learns from
pub struct Pairs {
    /// The policy
    pub model: Gpt2,
    /// The same weights without gradients
    pub view: Gpt2,
    /// Training and held-out pairs
    pub pairs: [Vec<PreferenceExample>; 2],
}

impl Pairs {
    /// Loads the session's model, whose tokens the pairs must be
    pub fn new(session: &Session, pairs: [Vec<PreferenceExample>; 2]) -> Result<Self> {
        session.source.check_tokens(
            pairs.iter().flatten().flat_map(|pair| [&pair.prompt[..], &pair.chosen[..], &pair.rejected[..]]),
        )?;
        let model = session.load_model()?;
        Ok(Self { view: model.detached()?, model, pairs })
    }

    /// The policy with gradients where they are wanted
    pub fn model_for(&self, split: Split) -> &Gpt2 {
        if split == Split::Train { &self.model } else { &self.view }
    }

    /// The pairs of a split
    pub fn of(&self, split: Split) -> &[PreferenceExample] {
        &self.pairs[usize::from(split == Split::Eval)]
    }

    /// The pairs of a pass
    pub fn of_pass(&self, pass: &Pass<'_>) -> Vec<&PreferenceExample> {
        pass.rows.iter().map(|&row| &self.of(pass.split)[row]).collect()
    }

    /// The longer sequence of each pair
    pub fn lengths(&self, split: Split) -> Vec<usize> {
        let length = |pair: &PreferenceExample| pair.prompt.len() + pair.chosen.len().max(pair.rejected.len());
        self.of(split).iter().map(length).collect()
    }
}
