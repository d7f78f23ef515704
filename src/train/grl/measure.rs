//! What a step of GRL reports.

use super::responses::Guess;
use super::{Grl, Scored};
use crate::Result;
use crate::grl::calibration::{Forecast, LEVELS, calibration};
use crate::rollout::Rollout;
use crate::run::Metrics;
use crate::train::completions::{length_metrics, reward_metrics};

/// Responses to a prompt from which its value is known well enough to judge a forecast by
const FOR_CALIBRATION: usize = 8;

impl Grl {
    /// Whether the field's doubt is right, from held-out prompts with many responses each: the forecast V(x) ± σ(x), with the
    /// error of their mean soft return added to its variance. Nothing where there are too few
    pub(super) fn calibration_metrics(&self, scored: &[Scored]) -> Result<Metrics> {
        let mut forecasts = Vec::new();
        for group in scored.chunk_by(|a, b| a.group == b.group) {
            let n = group.len();
            let known = self.learnt.values.predict(self.features.point(group[0].prompt)?);
            let Some((mean, variance)) = known.and_then(|known| Some((known.mean, known.variance?))) else { continue };
            if n < FOR_CALIBRATION {
                continue;
            }
            let returns = group.iter().map(|response| response.soft_return(self.learnt.tau));
            let truth = returns.clone().sum::<f64>() / n as f64;
            let squares: f64 = returns.map(|b| (b - truth).powi(2)).sum();
            let variance = variance + squares / ((n - 1) * n) as f64;
            // Equal rewards and a field that is sure leave nothing to judge
            if variance > 0.0 {
                forecasts.push(Forecast { mean, variance, truth });
            }
        }
        let mut metrics = Metrics::new();
        if forecasts.is_empty() {
            return Ok(metrics);
        }
        let figures = calibration(&forecasts)?;
        metrics.set("value/nll", figures.negative_log_likelihood);
        metrics.set("value/crps", figures.crps);
        metrics.set("value/risk_coverage", figures.risk_coverage);
        for (level, share) in LEVELS.iter().zip(figures.coverage) {
            metrics.set(format!("value/coverage_{:.0}", 100.0 * level), share);
        }
        Ok(metrics)
    }

    /// Of completions, before they are taken into the memory
    pub(super) fn rollout_metrics(&self, rollout: &Rollout, scored: &[Scored], names: &[String]) -> Result<Metrics> {
        let mut metrics = Metrics::new();
        length_metrics(rollout, &mut metrics);
        reward_metrics(rollout, names, &mut metrics);
        let n = scored.len().max(1) as f64;
        let (mut kl, mut entropy, mut off, mut squares, mut mean) = (0.0, 0.0, 0.0, 0.0, 0.0);
        let (mut count, mut deviation) = (0.0, 0.0);
        for response in scored {
            kl += response.log_ratio / n;
            entropy -= response.log_probs_behaviour.iter().map(|p| f64::from(*p)).sum::<f64>() / n;
            let b = response.soft_return(self.learnt.tau);
            mean += b / n;
            squares += b * b / n;
            let Some(known) = self.learnt.values.predict(self.features.point(response.prompt)?) else { continue };
            off += (b - known.mean).powi(2) / n;
            count += known.effective_count / n;
            deviation += known.variance.unwrap_or(0.0).sqrt() / n;
        }
        metrics.extend([
            ("kl", kl),
            // The name under which every online trainer has it
            ("objective/kl", kl),
            ("entropy", entropy),
            ("soft_return", mean),
            ("soft_return_std", (squares - mean * mean).max(0.0).sqrt()),
        ]);
        if !self.learnt.values.memory().is_empty() {
            // Before these responses were taken in: an honest error
            metrics.extend([
                ("value/prediction_error", off.sqrt()),
                ("value/deviation", deviation),
                ("memory/effective_count", count),
            ]);
        }
        Ok(metrics)
    }

    /// Of memory and store, with the newest `fresh` responses in them
    pub(super) fn memory_metrics(&self, fresh: usize) -> Result<Metrics> {
        let (learnt, fitted) = (&self.learnt, self.learnt.values.fitted());
        Ok(Metrics::from_iter([
            ("value/error", learnt.value_error(fresh, &self.features)?),
            ("value/mean", learnt.values.memory().mean().unwrap_or(0.0)),
            ("memory/size", learnt.values.memory().len() as f64),
            ("memory/smooth", fitted.smooth),
            ("memory/length", fitted.length),
            ("memory/delta", fitted.delta),
            ("memory/noise", fitted.noise),
            ("replay/size", learnt.store.len() as f64),
            ("replay/mean_age", learnt.store.mean_age(self.step)),
            ("tau", learnt.tau),
        ]))
    }
}

/// Of rewards that were not asked for
pub(super) fn imputation_metrics(guesses: &[Option<Guess>]) -> Metrics {
    let made: Vec<&Guess> = guesses.iter().flatten().collect();
    let n = made.len() as f64;
    let mut metrics = Metrics::from_iter([("imputed/share", n / guesses.len().max(1) as f64)]);
    if !made.is_empty() {
        metrics.set("imputed/reward", made.iter().map(|guess| guess.mean).sum::<f64>() / n);
    }
    metrics
}
