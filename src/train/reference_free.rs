//! Preference optimisation without a reference model: what ORPO and CPO share.

use candle_core::Tensor;

use super::collate::Batch;
use super::objective::{Objective, Outcome, Pass, Split};
use super::pairs::{self, Pairs};
use super::scored::{Scored, Sums, halves, mean, numbers, reward_metrics, token_metrics, vector};
use super::session::Session;
use super::step_loop;
use crate::Result;
use crate::config::{Context, TrainKeys};
use crate::data::framed_preference_examples;
use crate::model::Trainable;
use crate::run::{Metrics, Part, StepClock};

/// What a recipe makes of the log-probabilities of a pass's pairs
pub struct PairLoss {
    /// Of each pair, (B,)
    pub losses: Tensor,
    /// Unscaled rewards of chosen and rejected completions, (B,) each
    pub rewards: [Tensor; 2],
    /// The recipe's own metrics
    pub metrics: Metrics,
}

/// Which log-probabilities a recipe wants, and its loss
pub trait ReferenceFree {
    /// Whether log-probabilities are means over the completion's tokens rather than sums
    fn per_token(&self) -> bool;

    /// Weight of the negative log-likelihood of the chosen sequences beside the loss
    fn nll_weight(&self) -> f64;

    /// Whether that likelihood is the prompt's as well
    fn nll_of_prompt(&self) -> bool;

    /// Scale of the logged rewards
    fn beta(&self) -> f64;

    /// Loss on the log-probabilities of chosen and rejected completions, (B,) each
    fn loss(&self, chosen: &Tensor, rejected: &Tensor) -> Result<PairLoss>;
}

/// Trains with a loss as the keys say
pub fn run(train: TrainKeys, resolved: String, context: &Context, recipe: &dyn ReferenceFree) -> Result<()> {
    let mut session = Session::open(train, resolved, context)?;
    let pairs = pairs::read(&mut session, "framed pairs", framed_preference_examples)?;
    let pairs = Pairs::new(&session, pairs)?;
    step_loop::train(&mut Run { pairs, recipe }, session)
}

struct Run<'a> {
    pairs: Pairs,
    recipe: &'a dyn ReferenceFree,
}

/// Mean −log p over the tokens of all chosen sequences of a pass: `chosen` tokens, and all after the `completions` ones
fn nll(tokens: &Tensor, chosen: usize, completions: usize) -> Result<Tensor> {
    let mut sum = tokens.narrow(0, 0, chosen)?.sum_all()?;
    let prompts = tokens.dim(0)? - completions;
    if prompts > 0 {
        sum = (sum + tokens.narrow(0, completions, prompts)?.sum_all()?)?;
    }
    Ok((sum / -((chosen + prompts) as f64))?)
}

impl Objective for Run<'_> {
    fn model(&self) -> &dyn Trainable {
        &self.pairs.model
    }

    fn lengths(&self, split: Split) -> Vec<usize> {
        self.pairs.lengths(split)
    }

    /// Pairs
    fn weight(&self, _split: Split, rows: &[usize]) -> f64 {
        rows.len() as f64
    }

    /// L = mean over pairs of the loss + weight · mean over the chosen tokens of the pass of −log p
    fn forward(&mut self, pass: &Pass<'_>, clock: &mut StepClock) -> Result<Outcome> {
        clock.time(Part::Forward, || {
            let pairs = self.pairs.of_pass(pass);
            let (mut batch, prompts) = Batch::of_pairs_and_prompts(pairs.iter().copied())?;
            let completions = batch.rows.len();
            if self.recipe.nll_of_prompt() {
                batch.rows.extend(prompts.iter().map(|(row, _)| row));
                batch.targets.extend(prompts.iter().map(|(_, target)| target));
                batch.counts.push(prompts.len());
            }
            let policy = Scored::new(self.pairs.model_for(pass.split), &batch, pass.dropout)?;
            let sums = policy.sums(None)?.narrow(0, 0, 2 * pairs.len())?; // (2B,)
            let [mut chosen, mut rejected] = halves(&sums)?;
            if self.recipe.per_token() {
                let lengths = |side: usize| policy.counts[side * pairs.len()..][..pairs.len()].iter();
                chosen = (chosen / vector(lengths(0).map(|n| *n as f64))?)?;
                rejected = (rejected / vector(lengths(1).map(|n| *n as f64))?)?;
            }
            let PairLoss { losses, rewards, metrics: own } = self.recipe.loss(&chosen, &rejected)?;

            let mut total = losses.sum_all()?;
            let mut metrics = Metrics::new();
            let weight = self.recipe.nll_weight();
            if weight > 0.0 {
                let chosen_tokens = policy.counts[..pairs.len()].iter().sum();
                let nll = nll(&policy.tokens.log_probs, chosen_tokens, completions)?;
                metrics.set("nll_loss", f64::from(nll.to_scalar::<f32>()?));
                total = (total + (nll * (weight * pairs.len() as f64))?)?;
            } else {
                metrics.set("nll_loss", 0.0);
            }
            let sequences: Vec<Sums> = policy.per_sequence()?;
            metrics.extend(token_metrics(&sequences[..pairs.len()], &sequences[pairs.len()..2 * pairs.len()]));
            let reward = |side: usize| numbers(&(rewards[side].detach() * self.recipe.beta())?);
            metrics.extend(reward_metrics(&reward(0)?, &reward(1)?));
            metrics.set("logps/chosen", mean(&numbers(&chosen)?));
            metrics.set("logps/rejected", mean(&numbers(&rejected)?));
            metrics.extend(own.iter());
            Outcome::new((total / pass.denominator)?, metrics, policy.total_tokens)
        })
    }
}
