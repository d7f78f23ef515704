//! Doubt about rewards: a Gaussian process over responses that were scored, what a careful learner takes off for it, and
//! rewards that need not be asked for because it foretells them.
//!
//! The variance of a prompt's value says nothing about a reward that is being exploited. That of a reward at a response says
//! how unlike it is to all that were judged: R − σ²/2τ is the reward of a learner at temperature τ that averages e^{−R/τ}.

use super::features::Features;
use super::values::Values;
use super::{Grl, Scored};
use crate::Result;
use crate::config::{GrlKeys, MemoryKernel, ValueEstimator};
use crate::grl::replay::RewardKind;
use crate::grl::uncertainty::{can_impute, pessimistic_reward};
use crate::grl::value::Prediction;
use crate::rollout::Rollout;

/// The memory of responses: a smooth process, for no response comes twice
pub(super) fn response_values(keys: &GrlKeys, dim: usize) -> Result<Values> {
    let keys = GrlKeys {
        kernel: MemoryKernel::Rbf,
        estimator: ValueEstimator::GaussianProcess,
        leave_one_out: Some(false),
        kappa: 0.0,
        ..keys.clone()
    };
    Values::new(&keys, dim)
}

/// A reward that was not asked for
#[derive(Debug, Clone, Copy)]
pub(super) struct Guess {
    /// What the process over responses expects
    pub mean: f64,
    /// Of its mean, the noise of a single reward left out
    pub variance: f64,
}

impl Grl {
    /// Whether rewards of responses are remembered
    pub(super) fn remembers_responses(&self) -> bool {
        self.keys.reward_pessimism || self.keys.imputation.is_some()
    }

    /// For each completion the reward that need not be asked for, where the process is sure enough of it: its own doubt and
    /// the noise of a reward together. A process that takes all rewards for noise is sure of its mean everywhere, and of no
    /// reward
    pub(super) fn guesses(&mut self, rollout: &Rollout) -> Result<Vec<Option<Guess>>> {
        let none = vec![None; rollout.len()];
        let Some(largest) = self.keys.imputation else { return Ok(none) };
        let (Some(features), Some(values)) = (&mut self.responses, &self.learnt.responses) else { return Ok(none) };
        let mut all = Vec::with_capacity(rollout.len());
        for i in 0..rollout.len() {
            let (prompt, completion) = rollout.sequence(i);
            let key = features.learn(&[prompt, completion].concat())?;
            let known = values.predict(features.point(key)?);
            let sure = known.filter(|known| {
                let noisy = Prediction { variance: known.variance.map(|v| v + values.fitted().noise), ..*known };
                can_impute(&noisy, largest)
            });
            all.push(sure.and_then(|known| Some(Guess { mean: known.mean, variance: known.variance? })));
        }
        Ok(all)
    }

    /// Remembers rewards that were asked for and, where it is wanted, takes σ²/2τ off each reward, σ² by the responses of
    /// earlier steps; the mean that was taken off
    pub(super) fn doubt_rewards(&mut self, scored: &mut [Scored], fit_kernel: bool) -> Result<f64> {
        let sequences: Vec<Vec<u32>> =
            scored.iter().map(|response| [&response.prompt_tokens[..], &response.tokens].concat()).collect();
        if self.responses.is_none() {
            let reference = self.features.reference().detached()?;
            let (dim, most) = (self.keys.feature_dim, self.keys.feature_prompts);
            self.responses = Some(Features::fit(reference, sequences.iter().map(Vec::as_slice), dim, most)?);
        }
        let Some(features) = &mut self.responses else { return Ok(0.0) };
        if self.learnt.responses.is_none() {
            self.learnt.responses = Some(response_values(&self.keys, features.dim())?);
        }
        let Some(values) = &mut self.learnt.responses else { return Ok(0.0) };
        let keys = sequences.iter().map(|ids| features.learn(ids)).collect::<Result<Vec<u64>>>()?;
        let points = keys.iter().map(|key| features.point(*key)).collect::<Result<Vec<_>>>()?;
        let variances: Vec<f64> =
            points.iter().map(|point| values.predict(*point).and_then(|known| known.variance).unwrap_or(0.0)).collect();
        // What the process said itself teaches it nothing
        let asked: Vec<_> =
            points.into_iter().zip(&*scored).filter(|(_, own)| own.reward_kind != RewardKind::Imputed).collect();
        values.make_room(&asked.iter().map(|(point, _)| *point).collect::<Vec<_>>(), self.step)?;
        for (point, response) in asked {
            values.restate(point, &[response.reward], self.step)?;
        }
        if fit_kernel {
            values.fit_kernel()?;
        }
        values.refit()?;
        // Responses do not come back: their features need not be kept
        features.forget();
        if !self.keys.reward_pessimism {
            return Ok(0.0);
        }
        let mut taken = 0.0;
        for (response, variance) in scored.iter_mut().zip(variances) {
            let careful = pessimistic_reward(response.reward, variance, self.learnt.tau);
            taken += response.reward - careful;
            (response.reward, response.reward_variance) = (careful, variance);
        }
        Ok(taken / scored.len().max(1) as f64)
    }
}
