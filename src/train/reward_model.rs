//! Reward models as judges of completions.

use std::path::Path;

use super::source::ModelSource;
use crate::data::{SequenceEncoder, Tokenizer};
use crate::model::hub::Hub;
use crate::model::reward::{RewardModel, Statistics};
use crate::reward::{Check, Reward, Sample};
use crate::{Error, Result};

/// Sequences between two looks at whether the user wants to stop
const CHUNK: usize = 16;

/// A reward model behind the one reward interface
struct ModelReward {
    name: String,
    model: RewardModel,
    tokenizer: Tokenizer,
    /// Where scores are to be normalised
    statistics: Option<Statistics>,
}

/// What loads a reward model by folder or Hub id
pub fn loader(offline: bool, normalize: bool) -> impl Fn(&str) -> Result<Box<dyn Reward>> {
    move |name: &str| {
        let source = ModelSource::find(&Hub::from_env(offline)?, name, None)?;
        let model = RewardModel::load(&source.folder)?.detached()?;
        let statistics = model.statistics().filter(|_| normalize);
        if normalize && statistics.is_none() {
            return Err(Error::usage(format!(
                "`normalize_reward_model` needs the mean and standard deviation of scores, which `{name}` does not keep"
            ))
            .hint("train it with `reward_statistics_rows` above 0"));
        }
        let last = Path::new(name).file_name().and_then(|name| name.to_str()).unwrap_or(name);
        Ok(Box::new(ModelReward { name: last.to_owned(), model, tokenizer: source.tokenizer, statistics }))
    }
}

impl Reward for ModelReward {
    fn name(&self) -> &str {
        &self.name
    }

    fn score(&mut self, samples: &[Sample<'_>], check: Check<'_>) -> Result<Vec<Option<f64>>> {
        let Some(first) = samples.first() else { return Ok(Vec::new()) };
        let encoder = SequenceEncoder::new(&self.tokenizer, first.completion.is_array())?;
        let ids = |s: &Sample<'_>| encoder.ids(s.prompt, s.completion, s.columns, !s.truncated);
        let sequences = samples.iter().map(ids).collect::<Result<Vec<_>>>()?;
        let mut scores = Vec::with_capacity(samples.len());
        for sequences in sequences.chunks(CHUNK) {
            check()?;
            // A sequence longer than the model's positions cannot be judged
            let fitting: Vec<&[u32]> =
                sequences.iter().map(Vec::as_slice).filter(|ids| self.model.takes(ids)).collect();
            let mut found = self.model.scores(&fitting)?.into_iter().map(f64::from);
            for ids in sequences {
                let score = if self.model.takes(ids) { found.next() } else { None };
                scores.push(score.map(|score| self.statistics.map_or(score, |known| known.normalize(score))));
            }
        }
        Ok(scores)
    }
}
