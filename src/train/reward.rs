//! Reward modelling: a score for each answer, learnt from pairs of a chosen and a rejected one.

use candle_core::{Device, Tensor};

use super::objective::{Objective, Outcome, Pass, Split};
use super::session::Session;
use super::step_loop;
use crate::Result;
use crate::algo::bradley_terry::{bradley_terry, centering};
use crate::config::{CommandSpec, Context, RewardKeys, TrainKeys, TruncationMode, Values, to_yaml};
use crate::data::{PairExample, pair_examples};
use crate::model::Trainable;
use crate::model::reward::{RewardModel, Statistics};
use crate::run::{Metrics, Part, StepClock};

/// The command `reward`
pub const REWARD: CommandSpec = CommandSpec {
    name: "reward",
    about: "Train a reward model on chosen and rejected answers",
    groups: &[TrainKeys::KEYS, RewardKeys::KEYS],
    defaults: &[("learning_rate", "1e-4"), ("disable_dropout", "true")],
    run,
};

fn run(values: &Values, context: &Context) -> Result<()> {
    let (train, keys) = (TrainKeys::from_values(values)?, RewardKeys::from_values(values)?);
    let resolved = to_yaml(train.to_values().into_iter().chain(keys.to_values()))?;
    let mut session = Session::open(train, resolved, context)?;
    if session.keys.truncation_mode != TruncationMode::KeepStart {
        tracing::info!("`truncation_mode` changes nothing: pairs beyond `max_length` are dropped, not cut");
    }
    session.adapt_tokenizer(keys.eos_token.as_deref(), keys.chat_template_path.as_deref())?;
    let max_length = session.max_length();
    let kind = format!("whole sequences {max_length}");
    let mut read = |split| session.examples(split, &kind, |rows, tokenizer| pair_examples(rows, tokenizer, max_length));
    let pairs = [read(Split::Train)?, read(Split::Eval)?];
    let sequences = pairs.iter().flatten().flat_map(|pair| [&pair.chosen[..], &pair.rejected[..]]);
    session.source.check_tokens(sequences)?;
    let model = load(&session, keys.eos_token.is_some())?;
    let view = model.detached()?;
    let centering = keys.center_rewards_coefficient;
    step_loop::train(
        &mut RewardModelling { model, view, pairs, centering, statistics_rows: keys.reward_statistics_rows },
        session,
    )
}

/// The model with the tokenizer's padding and, where the request set one, end token: what it is trained with is what
/// its config must say
fn load(session: &Session, eos_is_set: bool) -> Result<RewardModel> {
    let (source, seed) = (&session.source, session.keys.seed);
    let model = if session.keys.from_scratch {
        RewardModel::from_scratch(source.config.clone(), seed)?
    } else {
        let model = RewardModel::load_or_init(&source.folder, seed)?;
        if !model.is_trained() {
            tracing::info!("the score head is new: random numbers from `seed`");
        }
        model
    };
    let mut model = model.with_precision(session.precision())?;
    let tokenizer = &source.tokenizer;
    model.set_special_tokens(tokenizer.pad_id(), tokenizer.eos_id().filter(|_| eos_is_set));
    // They would be those of other weights
    model.set_statistics(None);
    Ok(model)
}

struct RewardModelling {
    model: RewardModel,
    /// The same weights without gradients
    view: RewardModel,
    /// Training and held-out pairs
    pairs: [Vec<PairExample>; 2],
    /// Weight of the centring penalty
    centering: Option<f64>,
    /// Pairs behind the stored statistics
    statistics_rows: usize,
}

impl Objective for RewardModelling {
    fn model(&self) -> &dyn Trainable {
        &self.model
    }

    fn lengths(&self, split: Split) -> Vec<usize> {
        self.pairs[split as usize].iter().map(|pair| pair.chosen.len().max(pair.rejected.len())).collect()
    }

    /// Pairs
    fn weight(&self, _split: Split, rows: &[usize]) -> f64 {
        rows.len() as f64
    }

    fn forward(&mut self, pass: &Pass<'_>, clock: &mut StepClock) -> Result<Outcome> {
        clock.time(Part::Forward, || {
            let model = if pass.split == Split::Train { &self.model } else { &self.view };
            let pairs: Vec<&PairExample> = pass.rows.iter().map(|&row| &self.pairs[pass.split as usize][row]).collect();
            // Neighbours share the computation of their common beginning
            let sequences: Vec<&[u32]> = pairs.iter().flat_map(|pair| [&pair.chosen[..], &pair.rejected[..]]).collect();
            let rewards = model.forward(&sequences, pass.dropout)?.reshape((pairs.len(), 2))?; // (B, 2)
            let (chosen, rejected) = (rewards.narrow(1, 0, 1)?.squeeze(1)?, rewards.narrow(1, 1, 1)?.squeeze(1)?);
            let margins: Option<Vec<f32>> = pairs.iter().map(|pair| pair.margin).collect();
            let margins = margins.map(|margins| Tensor::new(margins, &Device::Cpu)).transpose()?;
            let mut losses = bradley_terry(&chosen, &rejected, margins.as_ref())?; // (B,)
            if let Some(coefficient) = self.centering {
                losses = (losses + (centering(&chosen, &rejected)? * coefficient)?)?;
            }
            let loss = (losses.sum_all()? / pass.denominator)?;
            let tokens = sequences.iter().map(|ids| ids.len() as u64).sum();
            Outcome::new(loss, metrics(&rewards.detach().to_vec2()?), tokens)
        })
    }

    /// Mean and standard deviation of the final model's scores
    fn finish(&mut self) -> Result<()> {
        let [train, eval] = &self.pairs;
        let reference = if eval.is_empty() { train } else { eval };
        let pairs = &reference[..reference.len().min(self.statistics_rows)];
        let sequences: Vec<&[u32]> = pairs.iter().flat_map(|pair| [&pair.chosen[..], &pair.rejected[..]]).collect();
        self.model.set_statistics(Statistics::of(&self.view.scores(&sequences)?));
        Ok(())
    }
}

/// TRL's metrics of a batch of (chosen, rejected) rewards
fn metrics(rewards: &[Vec<f32>]) -> Metrics {
    let all = || rewards.iter().flatten().map(|reward| f64::from(*reward));
    let difference = |pair: &Vec<f32>| f64::from(pair[0]) - f64::from(pair[1]);
    let won = rewards.iter().filter(|pair| pair[0] > pair[1]).count();
    let n = rewards.len() as f64;
    Metrics::from_iter([
        ("min_reward", all().fold(f64::INFINITY, f64::min)),
        ("mean_reward", all().sum::<f64>() / (2.0 * n)),
        ("max_reward", all().fold(f64::NEG_INFINITY, f64::max)),
        ("accuracy", won as f64 / n),
        ("margin", rewards.iter().map(difference).sum::<f64>() / n),
    ])
}
