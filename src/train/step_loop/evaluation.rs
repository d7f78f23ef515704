//! Evaluation between the steps.

use super::StepLoop;
use crate::config::Strategy;
use crate::error::Result;
use crate::run::{Metrics, Row, RunFolder, Signals, StepClock, Window, metrics, names};
use crate::train::objective::{Pass, Split, finite};

/// What an earlier start of the run evaluated last
pub(super) fn last(folder: &RunFolder) -> Result<(Option<u64>, Metrics)> {
    let row = metrics::read(&folder.join(names::METRICS))?.into_iter().rfind(Row::is_eval);
    Ok(row.map_or_else(Default::default, |row| (Some(row.step), row.metrics)))
}

impl StepLoop<'_> {
    /// Evaluations that are still to come, after the one of this step
    fn evaluations_ahead(&self) -> u64 {
        let (step, total) = (self.state.step, self.plan.total_steps);
        match self.keys.eval_strategy {
            Strategy::No => 0,
            Strategy::Steps => {
                let every = self.keys.steps_between_evaluations().of(total as usize).max(1) as u64;
                total.div_ceil(every).saturating_sub(step.div_ceil(every))
            }
            // Before the first step nothing is known of an epoch's length
            Strategy::Epoch if step == 0 => 0,
            Strategy::Epoch => (self.state.epoch * (total - step) as f64 / step as f64).ceil() as u64,
        }
    }

    /// Mean loss weighted by rows and mean metrics over batches, as the Hugging Face Trainer reports them
    pub(super) fn evaluate(&mut self) -> Result<()> {
        let begin = std::time::Instant::now();
        let rows: Vec<usize> = (0..self.objective.lengths(Split::Eval).len()).collect();
        // Evaluation is not part of a training step's forward time
        let mut clock = StepClock::new();
        let mut window = Window::new();
        for rows in rows.chunks(self.keys.per_device_eval_batch_size) {
            let denominator = self.objective.weight(Split::Eval, rows);
            let pass = Pass { split: Split::Eval, rows, denominator, passes: 1, dropout: None };
            let outcome = self.objective.forward(&pass, &mut clock).and_then(|o| Ok((finite(o.loss)?, o.metrics)));
            let step = self.state.step;
            let (loss, metrics) = outcome.map_err(|error| {
                self.failed(error.context(format_args!("evaluation after step {step}")), step.saturating_sub(1))
            })?;
            window.add_ratio("loss", loss * rows.len() as f64, rows.len() as f64);
            window.add_all(&metrics);
            if let Some(signal) = self.signals.received() {
                self.state.evaluation_due = true;
                return Err(self.stopped(Signals::error(signal, self.state.step)));
            }
        }
        window.set("num_tokens", self.state.num_tokens as f64);
        if let Some(queries) = self.state.reward_queries {
            window.set("reward_queries", queries as f64);
        }
        let seconds = begin.elapsed().as_secs_f64();
        window.set("runtime", seconds);
        window.set("samples_per_second", rows.len() as f64 / seconds);
        let metrics = window.take().into_eval();
        self.write(&metrics)?;
        self.progress.evaluated(begin.elapsed(), self.evaluations_ahead());
        self.progress.log(self.state.step, &metrics);
        self.last_eval = (Some(self.state.step), metrics);
        Ok(())
    }
}
