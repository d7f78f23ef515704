//! The workers of a bridge: all are asked before any is read, and one clock runs for all.

use std::time::Duration;

use super::hello::Hello;
use super::options::GymOptions;
use super::watchdog::Watchdog;
use super::worker::Worker;
use crate::{Error, Result};

pub(super) struct Crew {
    id: String,
    workers: Vec<Worker>,
    watchdog: Watchdog,
    patience: Duration,
}

impl Crew {
    /// Starts the processes and shares the environments out
    pub(super) fn start(id: &str, num_envs: usize, options: &GymOptions) -> Result<Self> {
        let patience = options.patience()?;
        if options.workers == 0 {
            return Err(Error::usage("`gym_workers` must be at least 1, got 0"));
        }
        let count = options.workers.min(num_envs);
        let begin = |worker: usize| worker * (num_envs / count) + worker.min(num_envs % count);
        let start = |worker: usize| Worker::start(id, &options.python, begin(worker)..begin(worker + 1));
        let workers = (0..count).map(start).collect::<Result<Vec<_>>>()?;
        let watchdog = Watchdog::new(workers.iter().map(Worker::group).collect());
        Ok(Self { id: id.to_owned(), workers, watchdog, patience })
    }

    /// Asks every worker, then reads every answer, within so many times the usual patience
    pub(super) fn exchange<T>(
        &mut self,
        times: u32,
        ask: impl FnMut(&mut Worker),
        read: impl FnMut(&mut Worker) -> Result<T>,
    ) -> Result<Vec<T>> {
        if !self.workers.iter().all(Worker::is_well) {
            return Err(Error::run(format!("`{}`: its workers have ended", self.id)));
        }
        let patience = self.patience.saturating_mul(times);
        self.watchdog.arm(patience);
        self.workers.iter_mut().for_each(ask);
        let answers = self.workers.iter_mut().map(read).collect::<Result<Vec<_>>>();
        let in_time = self.watchdog.disarm();
        answers.map_err(|error| {
            // The first that has not answered; the others may be in the middle of an answer
            let culprit = self.workers.iter().position(|worker| !worker.is_well()).unwrap_or(0);
            let late = (!in_time).then(|| {
                let what = format!("did not answer within {} s", patience.as_secs_f64());
                self.workers[culprit].failure(&what).hint("`gym_timeout` is the longest wait for an answer")
            });
            self.workers.iter_mut().for_each(Worker::give_up);
            late.unwrap_or(error)
        })
    }

    /// What all workers say of their environments
    pub(super) fn agreed(&mut self, hellos: Vec<Hello>) -> Result<Hello> {
        if let Some(at) = hellos.iter().position(|hello| *hello != hellos[0]) {
            return Err(self.workers[at].failure("made other environments than the first one"));
        }
        hellos.into_iter().next().ok_or_else(|| Error::run(format!("`{}`: there are no workers", self.id)))
    }
}

impl Drop for Crew {
    fn drop(&mut self) {
        // All of them end at the same time, then each is waited for
        self.workers.iter_mut().for_each(Worker::close);
    }
}
