//! Doubt about rewards: a Gaussian process over responses that were scored, and what a careful learner takes off for it.
//!
//! The variance of a prompt's value says nothing about a reward that is being exploited. That of a reward at a response says
//! how unlike it is to all that were judged: R − σ²/2τ is the reward of a learner at temperature τ that averages e^{−R/τ}.

use super::features::Features;
use super::values::Values;
use super::{Grl, Scored};
use crate::Result;
use crate::config::{GrlKeys, MemoryKernel, ValueEstimator};
use crate::grl::uncertainty::pessimistic_reward;

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

impl Grl {
    /// Takes σ²/2τ off each reward, σ² by the responses of earlier steps, and remembers these; the mean that was taken off
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
        values.make_room(&points, self.step)?;
        for (point, response) in points.into_iter().zip(&*scored) {
            values.restate(point, &[response.reward], self.step)?;
        }
        if fit_kernel {
            values.fit_kernel()?;
        }
        values.refit()?;
        // Responses do not come back: their features need not be kept
        features.forget();
        let mut taken = 0.0;
        for (response, variance) in scored.iter_mut().zip(variances) {
            let careful = pessimistic_reward(response.reward, variance, self.learnt.tau);
            taken += response.reward - careful;
            (response.reward, response.reward_variance) = (careful, variance);
        }
        Ok(taken / scored.len().max(1) as f64)
    }
}
