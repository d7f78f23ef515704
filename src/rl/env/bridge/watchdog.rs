//! Ends workers that do not answer.
//!
//! Whoever waits for an answer reads from a pipe, which costs least and cannot be interrupted. So a thread watches the
//! clock instead: past the deadline it ends the workers, and the pipe with them.

use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Pid;

use crate::process::kill;

/// How often it looks at the clock
const SLICE: Duration = Duration::from_millis(50);

#[derive(Debug, Default)]
struct Watched {
    deadline: Option<Instant>,
    has_ended_them: bool,
}

/// Watches some process groups until it is dropped
#[derive(Debug)]
pub(super) struct Watchdog {
    watched: Arc<Mutex<Watched>>,
    /// Its end is the thread's
    _alive: Sender<()>,
}

impl Watchdog {
    pub(super) fn new(groups: Vec<Pid>) -> Self {
        let watched: Arc<Mutex<Watched>> = Arc::default();
        let (alive, ends) = mpsc::channel::<()>();
        let shared = Arc::clone(&watched);
        thread::spawn(move || {
            while ends.recv_timeout(SLICE) == Err(RecvTimeoutError::Timeout) {
                // Under the lock: nobody collects the dead before the deadline is taken away, so the numbers are theirs
                let mut watched = lock(&shared);
                if watched.deadline.is_some_and(|deadline| deadline <= Instant::now()) {
                    watched.deadline = None;
                    watched.has_ended_them = true;
                    groups.iter().copied().for_each(kill);
                }
            }
        });
        Self { watched, _alive: alive }
    }

    /// From now on there is so much time
    pub(super) fn arm(&self, patience: Duration) {
        lock(&self.watched).deadline = Some(Instant::now() + patience);
    }

    /// All is well; whether it was in time
    pub(super) fn disarm(&self) -> bool {
        let mut watched = lock(&self.watched);
        watched.deadline = None;
        !watched.has_ended_them
    }
}

fn lock(watched: &Mutex<Watched>) -> MutexGuard<'_, Watched> {
    watched.lock().unwrap_or_else(PoisonError::into_inner)
}
