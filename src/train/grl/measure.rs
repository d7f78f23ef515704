//! What a step of GRL reports.

use super::{Grl, Scored};
use crate::Result;
use crate::rollout::Rollout;
use crate::run::Metrics;
use crate::train::completions::{length_metrics, reward_metrics};

impl Grl {
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
