//! SIGINT and SIGTERM: the step loop finishes its step, writes a checkpoint and ends; who cannot wait presses Ctrl-C again.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;

use crate::error::{Error, Result};

/// What was received so far
#[derive(Debug, Clone)]
pub struct Signals {
    last: Arc<AtomicUsize>,
}

impl Signals {
    /// Begins to catch the signals; once per process
    pub fn install() -> Result<Self> {
        let last = Arc::new(AtomicUsize::new(0));
        let seen = Arc::new(AtomicBool::new(false));
        let register = || {
            // Actions run in the order of their registration: the first signal finds `seen` unset and sets it
            flag::register_conditional_default(SIGINT, Arc::clone(&seen))?;
            for signal in [SIGINT, SIGTERM] {
                flag::register(signal, Arc::clone(&seen))?;
                flag::register_usize(signal, Arc::clone(&last), signal as usize)?;
            }
            Ok(())
        };
        register().map_err(|cause: std::io::Error| Error::run(format!("cannot catch signals: {cause}")))?;
        Ok(Self { last })
    }

    /// The signal that asks the run to end
    pub fn received(&self) -> Option<i32> {
        match self.last.load(Ordering::SeqCst) {
            0 => None,
            signal => Some(signal as i32),
        }
    }

    /// The error that ends a run after `signal`, its checkpoint of `step` written (exit code 130 or 143)
    pub fn error(signal: i32, step: u64) -> Error {
        let name = match signal {
            SIGINT => "SIGINT",
            SIGTERM => "SIGTERM",
            _ => "a signal",
        };
        Error::signal(signal, format!("stopped by {name} after step {step}"))
            .hint("the same command with `--resume_from_checkpoint true` goes on from there")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_codes_are_those_of_a_shell() {
        assert_eq!(Signals::error(SIGINT, 3).exit_code(), 130);
        assert_eq!(Signals::error(SIGTERM, 3).exit_code(), 143);
    }
}
