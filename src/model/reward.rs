//! A reward model: a GPT-2 backbone and a head that gives a sequence one number.
//!
//! The layout in and out is transformers' `GPT2ForSequenceClassification` with one label, and the score is read where
//! transformers reads it: at the rightmost token that is not the padding token. With the end-of-text token as padding
//! that is the token before the end of the text. There is no padding here, so nothing depends on its side.

use std::path::Path;
use std::sync::Arc;

use candle_core::{Device, Tensor, Var};
use serde_json::json;

use super::config::{Architecture, Gpt2Config};
use super::gpt2::{Gpt2, init, tensors};
use super::{Trainable, weights};
use crate::ops::kernels::noise::mix;
use crate::ops::{GradientSums, Precision, Ragged};
use crate::{Error, Result};

/// The transformers class of such a model
const CLASSIFIER: Architecture = Architecture::SequenceClassification;
/// The head's tensor
const HEAD: &str = "score.weight";
/// Where `config.json` keeps the [`Statistics`]
const STATISTICS: &str = "reward_statistics";
/// Keeps a fresh head's numbers apart from those of a backbone drawn from the same seed
const HEAD_STREAM: u64 = 0x5c04e;
/// Tokens of one forward pass of [`RewardModel::scores`]; a longer family of sequences makes a pass of its own
const PASS: usize = 8192;

/// Mean and standard deviation of a model's scores on a reference set
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Statistics {
    /// Mean score
    pub mean: f64,
    /// Standard deviation of the scores, of the population
    pub std: f64,
    /// Sequences that were scored
    pub sequences: usize,
}

impl Statistics {
    /// Of these scores; None where there are none
    pub fn of(scores: &[f32]) -> Option<Self> {
        let n = scores.len() as f64;
        let values = || scores.iter().map(|score| f64::from(*score));
        let mean = values().sum::<f64>() / n;
        let variance = values().map(|score| (score - mean).powi(2)).sum::<f64>() / n;
        (!scores.is_empty()).then_some(Self { mean, std: variance.sqrt(), sequences: scores.len() })
    }

    /// (score − mean) / standard deviation; only centred where all reference scores were equal
    pub fn normalize(&self, score: f64) -> f64 {
        (score - self.mean) / if self.std > 0.0 { self.std } else { 1.0 }
    }
}

/// A GPT-2 with a score head
pub struct RewardModel {
    /// With one label; what it says of tied embeddings is kept and means nothing here
    config: Gpt2Config,
    backbone: Gpt2,
    /// (1, C)
    head: Tensor,
    /// The backbone's variables, then the head; empty for a frozen model
    vars: Vec<(String, Var)>,
    sums: Arc<GradientSums>,
    /// Whether the head was in the folder that was read
    trained: bool,
    statistics: Option<Statistics>,
}

impl RewardModel {
    /// A trainable reward model from a folder in `GPT2ForSequenceClassification` layout
    ///
    /// # Errors
    /// A folder without a score head is refused as the language model that it is
    pub fn load(folder: &Path) -> Result<Self> {
        let model = Self::load_or_init(folder, 0)?;
        if model.trained {
            return Ok(model);
        }
        Err(Error::usage(format!("`{}` is a language model, not a reward model: it has no `{HEAD}`", folder.display()))
            .hint("train a reward model from it with `collimate reward`"))
    }

    /// A trainable reward model from a reward model's folder, or from a language model's with a fresh head:
    /// N(0, `initializer_range`²) drawn from `seed`
    pub fn load_or_init(folder: &Path, seed: u64) -> Result<Self> {
        let config = Gpt2Config::load(folder)?;
        let classifies = config.architectures.iter().any(|class| class == CLASSIFIER.class_name());
        if classifies && config.num_labels != 1 {
            return Err(Error::usage(format!(
                "the model in `{}` has {} labels, and a reward model has one",
                folder.display(),
                config.num_labels
            ))
            .hint("start from the language model that it was made of"));
        }
        let inner = backbone_config(&config);
        let mut wanted = tensors(&inner);
        wanted.push((HEAD.to_owned(), vec![1, config.n_embd]));
        let mut found = weights::load(folder, &wanted, &[HEAD])?;
        wanted.pop();
        let mut list = Vec::with_capacity(wanted.len());
        for (name, _) in wanted {
            let tensor =
                found.remove(&name).ok_or_else(|| Error::usage(format!("the model has no tensor `{name}`")))?;
            list.push((name, tensor));
        }
        let statistics = stored_statistics(&config);
        let head = found.remove(HEAD);
        let trained = head.is_some();
        let head = match head {
            Some(head) => head,
            None => fresh_head(&config, seed)?,
        };
        let model = Self::trainable(config, Gpt2::trainable(inner, list)?, &head)?;
        Ok(Self { trained, statistics: statistics.filter(|_| trained), ..model })
    }

    /// A trainable reward model with random weights, as transformers initialises it, drawn from `seed`
    pub fn from_scratch(config: Gpt2Config, seed: u64) -> Result<Self> {
        let backbone = Gpt2::from_scratch(backbone_config(&config), seed)?;
        let head = fresh_head(&config, seed)?;
        Self::trainable(config, backbone, &head)
    }

    fn trainable(mut config: Gpt2Config, backbone: Gpt2, head: &Tensor) -> Result<Self> {
        config.num_labels = 1;
        config.raw.shift_remove(STATISTICS);
        let head = Var::from_tensor(head)?;
        let mut vars = backbone.vars().to_vec();
        vars.push((HEAD.to_owned(), head.clone()));
        let sums = Arc::new(GradientSums::joined(&[&**backbone.gradients(), &GradientSums::new(1)]));
        let head = head.as_tensor().clone();
        Ok(Self { config, backbone, head, vars, sums, trained: false, statistics: None })
    }

    /// The same model, whose matrix products round their operands as `precision` says; the head stays f32
    pub fn with_precision(self, precision: Precision) -> Result<Self> {
        Ok(Self { backbone: self.backbone.with_precision(precision)?, ..self })
    }

    /// The same weights in the same memory, without gradients
    pub fn detached(&self) -> Result<Self> {
        Ok(self.frozen(self.backbone.detached()?, self.head.detach()))
    }

    /// A copy of the weights as they are now, without gradients
    pub fn frozen_copy(&self) -> Result<Self> {
        Ok(self.frozen(self.backbone.frozen_copy()?, self.head.copy()?.detach()))
    }

    fn frozen(&self, backbone: Gpt2, head: Tensor) -> Self {
        Self {
            config: self.config.clone(),
            backbone,
            head,
            vars: Vec::new(),
            sums: Arc::default(),
            trained: self.trained,
            statistics: self.statistics,
        }
    }

    /// Shape and constants
    pub fn config(&self) -> &Gpt2Config {
        &self.config
    }

    /// Takes a tokenizer's padding and end tokens; the padding token decides where the score is read
    pub fn set_special_tokens(&mut self, pad: Option<u32>, eos: Option<u32>) {
        self.config.pad_token_id = pad;
        if let Some(eos) = eos {
            self.config.eos_token_ids = vec![eos];
        }
    }

    /// The network without its head
    pub fn backbone(&self) -> &Gpt2 {
        &self.backbone
    }

    /// The head's matrix, (1, C)
    pub fn head(&self) -> &Tensor {
        &self.head
    }

    /// Whether the head came from the folder that was read, and not from a seed
    pub fn is_trained(&self) -> bool {
        self.trained
    }

    /// Mean and standard deviation of the scores on a reference set, where they were stored
    pub fn statistics(&self) -> Option<Statistics> {
        self.statistics
    }

    /// Stores them with the model, or removes them
    pub fn set_statistics(&mut self, statistics: Option<Statistics>) {
        self.statistics = statistics;
    }

    /// Number of parameters
    pub fn parameter_count(&self) -> usize {
        self.backbone.parameter_count() + self.head.elem_count()
    }

    /// Which token's score is the sequence's: the rightmost that is not padding, the first where all are, and the last
    /// where the model knows no padding token
    pub fn score_position(&self, ids: &[u32]) -> usize {
        match self.config.pad_token_id {
            Some(pad) => ids.iter().rposition(|id| *id != pad).unwrap_or(0),
            None => ids.len().saturating_sub(1),
        }
    }

    /// Whether a sequence can be scored: it has a token, and no more than the model has positions
    pub fn takes(&self, ids: &[u32]) -> bool {
        !ids.is_empty() && ids.len() <= self.config.n_positions
    }

    /// Scores of whole sequences, in order; neighbours that begin alike share the computation of that beginning
    ///
    /// `dropout_key` as for [`Gpt2::hidden`].
    ///
    /// # Shapes
    /// S sequences → (S,)
    ///
    /// # Errors
    /// A sequence that the model does not [take](Self::takes)
    pub fn forward<S: AsRef<[u32]>>(&self, sequences: &[S], dropout_key: Option<u64>) -> Result<Tensor> {
        let scored = self.scored_parts(sequences)?;
        let packed = Packed::new(&scored)?;
        let hidden = self.backbone.hidden(&packed.ids, &packed.layout, dropout_key)?; // (N, C)
        self.token_scores(&hidden, &packed.last_rows)
    }

    /// Scores of whole sequences without gradients, in passes of bounded size
    ///
    /// # Errors
    /// A sequence that the model does not [take](Self::takes); a score that is no finite number
    pub fn scores<S: AsRef<[u32]>>(&self, sequences: &[S]) -> Result<Vec<f32>> {
        let plain;
        let model = if self.vars.is_empty() {
            self
        } else {
            plain = self.detached()?;
            &plain
        };
        let mut all = Vec::with_capacity(sequences.len());
        for (at, end) in passes(&self.scored_parts(sequences)?) {
            all.extend(model.forward(&sequences[at..end], None)?.to_vec1::<f32>()?);
        }
        if let Some(bad) = all.iter().position(|score| !score.is_finite()) {
            return Err(Error::run(format!("the reward model gives sequence {} the score {}", bad + 1, all[bad]))
                .hint("its weights hold NaN or are far too large: take an earlier checkpoint"));
        }
        Ok(all)
    }

    /// The head on some rows of the backbone's hidden states
    ///
    /// # Shapes
    /// hidden (N, C), M rows → (M,)
    pub fn token_scores(&self, hidden: &Tensor, rows: &[u32]) -> Result<Tensor> {
        let picked = hidden.index_select(&Tensor::new(rows, hidden.device())?, 0)?; // (M, C)
        Ok(picked.broadcast_mul(&self.head)?.sum(1)?)
    }

    /// Each sequence up to the token whose score counts: what comes after it has no influence
    fn scored_parts<'s, S: AsRef<[u32]>>(&self, sequences: &'s [S]) -> Result<Vec<&'s [u32]>> {
        let part = |(i, ids): (usize, &'s S)| {
            let ids = ids.as_ref();
            if self.takes(ids) {
                return Ok(&ids[..=self.score_position(ids)]);
            }
            Err(Error::run(format!(
                "sequence {} has {} tokens, and the reward model scores 1 to {}",
                i + 1,
                ids.len(),
                self.config.n_positions
            )))
        };
        sequences.iter().enumerate().map(part).collect()
    }
}

impl Trainable for RewardModel {
    /// Empty for a frozen model
    fn vars(&self) -> &[(String, Var)] {
        &self.vars
    }

    fn gradients(&self) -> &Arc<GradientSums> {
        &self.sums
    }

    fn save(&self, folder: &Path) -> Result<()> {
        let mut config = self.config.clone();
        if let Some(Statistics { mean, std, sequences }) = self.statistics {
            let value = json!({ "mean": mean, "std": std, "sequences": sequences });
            config.raw.insert(STATISTICS.to_owned(), value);
        }
        config.save(folder, CLASSIFIER)?;
        let mut tensors = self.backbone.weights().to_vec();
        tensors.push((HEAD.to_owned(), self.head.clone()));
        weights::save(folder, &tensors)
    }

    fn restore(&self, folder: &Path) -> Result<()> {
        let mut wanted = tensors(self.backbone.config());
        wanted.push((HEAD.to_owned(), self.head.dims().to_vec()));
        let found = weights::load(folder, &wanted, &[])?;
        for (name, var) in &self.vars {
            if let Some(tensor) = found.get(name) {
                var.set(tensor)?;
            }
        }
        Ok(())
    }
}

/// The backbone alone has no output matrix, whether the language model that it comes from ties it or not
fn backbone_config(config: &Gpt2Config) -> Gpt2Config {
    Gpt2Config { tie_word_embeddings: true, ..config.clone() }
}

fn fresh_head(config: &Gpt2Config, seed: u64) -> Result<Tensor> {
    let values = init::normal_values(mix(seed ^ HEAD_STREAM), config.n_embd, config.initializer_range);
    Ok(Tensor::from_vec(values, (1, config.n_embd), &Device::Cpu)?)
}

fn stored_statistics(config: &Gpt2Config) -> Option<Statistics> {
    let stored = config.raw.get(STATISTICS)?;
    let number = |name: &str| stored.get(name)?.as_f64();
    let sequences = stored.get("sequences")?.as_u64()? as usize;
    Some(Statistics { mean: number("mean")?, std: number("std")?, sequences })
}

/// Sequences end to end, a beginning that neighbours share once
struct Packed {
    ids: Vec<u32>,
    layout: Arc<Ragged>,
    /// The row of each sequence's last token
    last_rows: Vec<u32>,
}

impl Packed {
    fn new(sequences: &[&[u32]]) -> Result<Self> {
        let (mut ids, mut layout) = (Vec::new(), Ragged::new());
        let mut last_rows = Vec::with_capacity(sequences.len());
        for Family { start, end, shared } in families(sequences) {
            let mut prefix = None;
            if shared > 0 {
                ids.extend_from_slice(&sequences[start][..shared]);
                prefix = Some(layout.push(shared, None)?);
            }
            for sequence in &sequences[start..end] {
                ids.extend_from_slice(&sequence[shared..]);
                layout.push(sequence.len() - shared, prefix)?;
                last_rows.push((layout.rows() - 1) as u32);
            }
        }
        Ok(Self { ids, layout: Arc::new(layout), last_rows })
    }
}

/// Consecutive sequences start..end whose first `shared` tokens are the same
#[derive(Debug, PartialEq)]
struct Family {
    start: usize,
    end: usize,
    shared: usize,
}

impl Family {
    /// Tokens that sharing saves
    fn saved(&self) -> usize {
        (self.end - self.start - 1) * self.shared
    }

    /// Rows of a pass with the whole family
    fn rows(&self, sequences: &[&[u32]]) -> usize {
        sequences[self.start..self.end].iter().map(|ids| ids.len()).sum::<usize>() - self.saved()
    }
}

/// Puts each sequence into the family before it where that saves more tokens than it costs the others
fn families(sequences: &[&[u32]]) -> Vec<Family> {
    let mut families: Vec<Family> = Vec::new();
    for (i, ids) in sequences.iter().enumerate() {
        if let Some(family) = families.last_mut() {
            let first = sequences[family.start];
            // Each sequence keeps its last token to itself: that is where it is scored
            let common = first.iter().zip(ids.iter()).take_while(|(a, b)| a == b).count();
            let room = first.len().min(ids.len()) - 1;
            let alone = family.end - family.start == 1;
            let shared = common.min(room).min(if alone { usize::MAX } else { family.shared });
            let joined = Family { start: family.start, end: i + 1, shared };
            if joined.saved() > family.saved() && joined.rows(sequences) <= PASS {
                *family = joined;
                continue;
            }
        }
        families.push(Family { start: i, end: i + 1, shared: 0 });
    }
    families
}

/// Ranges of sequences for one forward pass each, families kept whole
fn passes(sequences: &[&[u32]]) -> Vec<(usize, usize)> {
    let mut passes: Vec<(usize, usize)> = Vec::new();
    let mut rows = 0;
    for family in families(sequences) {
        let more = family.rows(sequences);
        match passes.last_mut() {
            Some((_, end)) if rows + more <= PASS => {
                *end = family.end;
                rows += more;
            }
            _ => {
                passes.push((family.start, family.end));
                rows = more;
            }
        }
    }
    passes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shape() -> Gpt2Config {
        Gpt2Config {
            vocab_size: 17,
            n_positions: 16,
            n_embd: 8,
            n_layer: 2,
            n_head: 2,
            initializer_range: 0.3,
            pad_token_id: Some(16),
            ..Gpt2Config::default()
        }
    }

    #[test]
    fn neighbours_share_a_beginning_where_that_saves_tokens() {
        let share =
            |sequences: &[&[u32]]| families(sequences).iter().map(|f| (f.start, f.end, f.shared)).collect::<Vec<_>>();
        assert_eq!(share(&[&[1, 2, 3], &[1, 2, 4], &[5]]), [(0, 2, 2), (2, 3, 0)]);
        // The third shares one token with the first two, which share three: together they would save less
        assert_eq!(share(&[&[1, 2, 3, 4], &[1, 2, 3, 5], &[1, 9]]), [(0, 2, 3), (2, 3, 0)]);
        assert_eq!(share(&[&[1, 2, 3, 4], &[1, 2, 3, 5], &[1, 2, 9]]), [(0, 3, 2)]);
        // Equal sequences and beginnings of each other keep a last token each
        assert_eq!(share(&[&[1, 2], &[1, 2], &[1, 2, 3]]), [(0, 3, 1)]);
        let packed = Packed::new(&[&[1, 2, 3], &[1, 2, 4], &[5]]).unwrap();
        assert_eq!((packed.ids, packed.last_rows), (vec![1, 2, 3, 4, 5], vec![2, 3, 4]));
    }

    #[test]
    fn a_pass_takes_families_whole_and_has_a_bound() {
        let long = vec![1; PASS];
        let short: &[u32] = &[2, 3];
        assert_eq!(passes(&[short, short, &long, short, short]), [(0, 2), (2, 3), (3, 5)]);
        let other = [vec![1; PASS / 2], vec![4]].concat();
        assert_eq!(passes(&[&long, &other]), [(0, 1), (1, 2)]);
    }

    #[test]
    fn the_score_is_read_at_the_rightmost_token_that_is_not_padding() {
        let mut model = RewardModel::from_scratch(shape(), 1).unwrap();
        for (pad, ids, at) in [
            (Some(16), &[3, 16, 4, 16, 16][..], 2),
            (Some(16), &[16, 16], 0),
            (Some(15), &[3, 16], 1),
            (None, &[3, 16, 16], 2),
        ] {
            model.set_special_tokens(pad, None);
            assert_eq!(model.score_position(ids), at);
        }
        let scores = |model: &RewardModel, ids: &[u32]| model.scores(&[ids]).unwrap()[0];
        model.set_special_tokens(Some(16), None);
        assert_eq!(scores(&model, &[3, 4, 16, 16]), scores(&model, &[3, 4]));
        model.set_special_tokens(Some(15), None);
        assert_ne!(scores(&model, &[3, 4, 16, 16]), scores(&model, &[3, 4]));
    }

    #[test]
    fn sharing_changes_no_score_and_no_gradient() {
        let model = RewardModel::from_scratch(shape(), 1).unwrap();
        let sequences: [&[u32]; 4] = [&[1, 2, 3, 4], &[1, 2, 5], &[6, 7], &[1, 2, 3, 4]];
        let together = model.scores(&sequences).unwrap();
        for (ids, score) in sequences.iter().zip(&together) {
            assert!((model.scores(&[ids]).unwrap()[0] - score).abs() < 1e-5);
        }
        let gradients = |groups: &[&[&[u32]]]| {
            model.gradients().reset();
            for group in groups {
                let store = model.forward(group, None).unwrap().sum_all().unwrap().backward().unwrap();
                let head = store.get(model.head()).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
                model.gradients().add(model.vars().len() - 1, head.len(), |sum, accumulate| {
                    sum.iter_mut().zip(&head).for_each(|(s, h)| *s = if accumulate { *s + h } else { *h });
                });
            }
            let all = (0..model.vars().len()).map(|i| model.gradients().read(i, <[f32]>::to_vec));
            all.collect::<Option<Vec<_>>>().expect("each variable has a gradient")
        };
        let (whole, split) =
            (gradients(&[&sequences]), gradients(&[&sequences[..1], &sequences[1..2], &sequences[2..]]));
        for ((name, _), (whole, split)) in model.vars().iter().zip(whole.iter().zip(&split)) {
            assert!(whole.iter().any(|g| *g != 0.0), "{name}");
            assert!(whole.iter().zip(split).all(|(a, b)| (a - b).abs() < 1e-4), "{name}");
        }
    }

    #[test]
    fn sequences_that_do_not_fit_are_refused_and_statistics_normalise() {
        let mut model = RewardModel::from_scratch(shape(), 1).unwrap();
        assert!(!model.takes(&[]) && model.takes(&[1; 16]) && !model.takes(&[1; 17]));
        let error = model.scores(&[vec![1], vec![1; 17]]).unwrap_err();
        assert_eq!(error.message(), "sequence 2 has 17 tokens, and the reward model scores 1 to 16");
        let statistics = Statistics::of(&[1.0, 3.0]).unwrap();
        assert_eq!(statistics, Statistics { mean: 2.0, std: 1.0, sequences: 2 });
        assert_eq!((statistics.normalize(4.0), Statistics::of(&[])), (2.0, None));
        assert_eq!(Statistics { std: 0.0, ..statistics }.normalize(4.0), 2.0);

        let folder = tempfile::tempdir().unwrap();
        model.set_statistics(Some(statistics));
        model.save(folder.path()).unwrap();
        let read = RewardModel::load(folder.path()).unwrap();
        assert_eq!(read.statistics(), Some(statistics));
        assert_eq!(read.scores(&[[1, 2, 3]]).unwrap(), model.scores(&[[1, 2, 3]]).unwrap());
        assert_eq!((read.config().num_labels, read.config().pad_token_id), (1, Some(16)));
    }

    #[test]
    fn a_language_model_gets_a_head_from_the_seed_whether_its_own_is_tied_or_not() {
        for tie_word_embeddings in [true, false] {
            let folder = tempfile::tempdir().unwrap();
            let config = Gpt2Config { tie_word_embeddings, ..shape() };
            Gpt2::from_scratch(config, 3).unwrap().save(folder.path()).unwrap();
            let head = |seed| {
                let model = RewardModel::load_or_init(folder.path(), seed).unwrap();
                assert!(!model.is_trained());
                model.head().flatten_all().unwrap().to_vec1::<f32>().unwrap()
            };
            assert_eq!(head(1), head(1));
            assert_ne!(head(1), head(2));
            let Err(error) = RewardModel::load(folder.path()) else { panic!("a language model has no score") };
            assert!(error.message().contains("is a language model, not a reward model"), "{error}");
            assert_eq!(error.hint_text(), Some("train a reward model from it with `collimate reward`"));
        }
    }
}
