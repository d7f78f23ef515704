//! Learning with weights that stay as they are: what scored completions teach the token field.

use candle_core::{DType, Device, Tensor};

use super::steering::{FieldBend, Steering};
use super::{Grl, Outcome, Pass, Scored};
use crate::config::FieldBackup;
use crate::grl::importance::sequence_kl;
use crate::grl::memory::TokenMemory;
use crate::grl::target::Backup;
use crate::grl::token_td::{Steps, TokenTd};
use crate::model::gpt2::Gpt2;
use crate::rollout::Rollout;
use crate::run::Metrics;
use crate::train::collate::Batch;
use crate::train::objective::Split;
use crate::{Error, Result};

/// States of a frozen model at which tokens were chosen, flat, and how many of each sequence
struct Chosen {
    hidden: Tensor,
    counts: Vec<usize>,
}

impl Chosen {
    fn of<'a>(model: &Gpt2, sequences: impl IntoIterator<Item = (&'a [u32], &'a [u32])>) -> Result<Self> {
        let batch = Batch::of_completions(sequences)?;
        let hidden = model.hidden(&batch.ids, &batch.layout, None)?; // (N, C)
        let rows = Tensor::new(&batch.rows[..], hidden.device())?;
        Ok(Self { hidden: hidden.index_select(&rows, 0)?, counts: batch.counts })
    }

    /// States (T, C) and logits (T, V) of each sequence in turn
    fn each(
        &self,
        model: &Gpt2,
        temperature: f64,
        mut take: impl FnMut(usize, &[f32], &[f32]) -> Result<()>,
    ) -> Result<()> {
        let head = model.lm_head().t()?;
        let mut at = 0;
        for (i, count) in self.counts.iter().enumerate() {
            let hidden = self.hidden.narrow(0, at, *count)?.contiguous()?;
            let logits = (hidden.matmul(&head)? / temperature)?;
            take(i, &hidden.flatten_all()?.to_vec1::<f32>()?, &logits.flatten_all()?.to_vec1::<f32>()?)?;
            at += count;
        }
        Ok(())
    }
}

impl Grl {
    /// Whether a field learns in place of the weights
    pub(super) fn is_frozen(&self) -> bool {
        self.keys.eta > 0.0
    }

    /// The field as it is now, for completions of the prompts in these rows; none before anything is known
    pub(super) fn bend_rows(&mut self, rows: &[usize], split: Split) -> Result<Option<FieldBend>> {
        let (Some(steering), Some(particles)) = (&self.steering, &self.learnt.particles) else { return Ok(None) };
        let (steering, particles) = (steering.clone(), particles.clone());
        let collector = match (split, &self.eval) {
            (Split::Eval, Some(eval)) => eval,
            _ => &self.train,
        };
        let ids: Vec<Vec<u32>> = rows.iter().map(|row| collector.prompt(*row).to_vec()).collect();
        let prompts = ids.iter().map(|ids| self.prompt_features(ids)).collect::<Result<_>>()?;
        Ok(Some(FieldBend { steering, particles, prompts, eta: self.keys.eta, tau: self.learnt.tau }))
    }

    fn prompt_features(&mut self, ids: &[u32]) -> Result<Vec<f32>> {
        let key = self.features.learn(ids)?;
        Ok(self.features.point(key)?.phi.to_vec())
    }

    /// Fits the features of states to the newest completions, where that is still to be done
    pub(super) fn fit_states(&mut self, fresh: usize) -> Result<()> {
        if !self.is_frozen() || self.steering.is_some() || fresh == 0 {
            return Ok(());
        }
        let model = &self.actor.view;
        let newest: Vec<&Scored> = self.learnt.store.iter().skip(self.learnt.store.len() - fresh).collect();
        let chosen = Chosen::of(model, newest.iter().map(|own| (&own.prompt_tokens[..], &own.tokens[..])))?;
        let mut prompts = Vec::new();
        for (own, count) in newest.iter().zip(&chosen.counts) {
            prompts.extend(std::iter::repeat_n(self.features.point(own.prompt)?.phi.to_vec(), *count));
        }
        let hidden = chosen.hidden.flatten_all()?.to_vec1::<f32>()?;
        let steering = Steering::fit(model, &self.features, &hidden, &prompts, &self.keys)?;
        let dim = steering.dim(self.features.dim());
        self.learnt.particles = Some(TokenMemory::new(dim, self.keys.field_capacity)?);
        self.steering = Some(steering);
        Ok(())
    }

    fn rule(&self) -> TokenTd {
        let backup = match self.keys.field_backup {
            FieldBackup::ExpectedSarsa => Backup::ExpectedSarsa,
            FieldBackup::Sarsa => Backup::Sarsa,
            FieldBackup::SoftQ => Backup::SoftQ,
            FieldBackup::HardQ => Backup::HardQ,
        };
        let eta = self.keys.eta / self.online.temperature;
        TokenTd { backup, rate: self.keys.field_rate, eta, tau: self.learnt.tau, merge: self.keys.field_merge }
    }

    /// log π of the tokens of completions that the sampler did not draw from the whole of π
    pub(super) fn steered_log_probs(&mut self, rollout: &Rollout) -> Result<Vec<Vec<f32>>> {
        let prompts: Vec<Vec<f32>> =
            rollout.prompts.iter().map(|ids| self.prompt_features(ids)).collect::<Result<_>>()?;
        let (rule, temperature) = (self.rule(), self.online.temperature);
        let (Some(steering), Some(particles)) = (&self.steering, &self.learnt.particles) else {
            return crate::train::completions::log_probs(&self.actor.view, rollout, self.batch, temperature);
        };
        let mut all = Vec::with_capacity(rollout.len());
        for start in (0..rollout.len()).step_by(self.batch) {
            let part = start..(start + self.batch).min(rollout.len());
            let chosen = Chosen::of(&self.actor.view, part.map(|i| rollout.sequence(i)))?;
            chosen.each(&self.actor.view, temperature, |i, hidden, logits| {
                let i = start + i;
                let states = states(steering, &prompts[rollout.prompt_of[i]], hidden)?;
                let bounds = (f64::NEG_INFINITY, f64::INFINITY);
                let tokens = &rollout.completions[i];
                let steps = Steps { states: &states, logits, tokens, advantage: 0.0, bounds };
                let log_probs = rule.log_probs(steering.field(), particles, &steps)?;
                all.push(log_probs.into_iter().map(|x| x as f32).collect());
                Ok(())
            })?;
        }
        Ok(all)
    }

    /// A pass of an update: each response in turn changes the particles. The loss is the mean over responses of the mean
    /// ½δ² of their tokens
    pub(super) fn learn_field(&mut self, pass: &Pass<'_>) -> Result<Outcome> {
        let (rule, temperature, tau) = (self.rule(), self.online.temperature, self.learnt.tau);
        let model = &self.actor.view;
        let mut responses: Vec<&Scored> = Vec::with_capacity(pass.rows.len());
        for &position in pass.rows {
            let found = self.learnt.store.get(position);
            responses.push(found.ok_or_else(|| Error::run(format!("the replay store has no response {position}")))?);
        }
        let (Some(steering), Some(particles)) = (&self.steering, &mut self.learnt.particles) else {
            return Err(Error::run("the token field has no features of states yet"));
        };
        let chosen = Chosen::of(model, super::learn::sequences(&responses))?;
        let (update, tally, values) = (&mut self.update, &mut self.tally, &self.learnt.values);
        let (features, now) = (&self.features, self.step);
        let (least, most) = reward_bounds(self.learnt.store.iter().map(|response| response.reward), tau);
        let (mut loss, mut tokens) = (0.0, 0);
        chosen.each(model, temperature, |i, hidden, logits| {
            let response = responses[i];
            let point = features.point(response.prompt)?;
            let states = states(steering, point.phi, hidden)?;
            let value = values.baseline(point, response.soft_return(tau));
            let advantage = response.reward - value;
            let bounds = (least - value, most - value);
            let steps = Steps { states: &states, logits, tokens: &response.tokens, advantage, bounds };
            let log_probs = rule.log_probs(steering.field(), particles, &steps)?;
            let errors = rule.learn(steering.field(), particles, &steps, now)?;
            let squares: f64 = errors.iter().map(|error| error * error).sum();
            loss += 0.5 * squares / errors.len() as f64 / pass.denominator;
            tally.errors.0 += squares;
            tally.errors.1 += errors.len() as f64;
            let pairs = log_probs.iter().zip(&response.log_probs_ref);
            let ratio: f64 = pairs.map(|(policy, reference)| policy - f64::from(*reference)).sum();
            tally.residuals.0 += (response.reward - tau * ratio - value).powi(2);
            tally.residuals.1 += 1.0;
            let behaviour: Vec<f64> = response.log_probs_behaviour.iter().map(|x| f64::from(*x)).collect();
            update.kl += sequence_kl(&log_probs, &behaviour);
            update.seen.push((pass.rows[i], ratio));
            update.log_probs.extend(log_probs);
            update.behaviour.extend(behaviour);
            tokens += (response.prompt_tokens.len() + response.tokens.len()) as u64;
            Ok(())
        })?;
        tally.passes += 1.0;
        // Nothing to differentiate: there is no weight that moves
        let graph = Tensor::zeros((), DType::F32, &Device::Cpu)?;
        Ok(Outcome { loss, graph, metrics: Metrics::new(), tokens })
    }
}

/// The least and the largest reward, each further out by their distance: the cost of leaving the reference may take a value
/// below all rewards
fn reward_bounds(rewards: impl Iterator<Item = f64>, tau: f64) -> (f64, f64) {
    let (least, most) = rewards.fold((f64::INFINITY, f64::NEG_INFINITY), |(a, b), r| (a.min(r), b.max(r)));
    let room = (most - least).max(tau);
    (least - room, most + room)
}

/// Features of the states (T, C) of one response
fn states(steering: &Steering, prompt: &[f32], hidden: &[f32]) -> Result<Vec<Vec<f32>>> {
    hidden.chunks_exact(steering.states().width()).map(|state| steering.features(prompt, state)).collect()
}
