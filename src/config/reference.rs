//! The keys of trainers that hold the policy to a reference model.

use super::config_keys;
use super::keys::Range;
use crate::{Error, Result};

config_keys! {
    /// Where the reference model's log-probabilities come from
    pub struct ReferenceKeys {
        "Reference model" {
            /// Compute the reference model's log-probabilities once, before the first step
            precompute_ref_log_probs: bool = false;
            /// Rows of one forward pass of that computation; the batch size where not set
            precompute_ref_batch_size: Option<usize> = None, Range::at_least(1.0);
        }
    }
}

config_keys! {
    /// A reference model that follows the policy
    pub struct SyncKeys {
        "Reference model" {
            /// Let the reference model follow the policy
            sync_ref_model: bool = false;
            /// Share of the policy in the reference model each time that it follows
            ref_model_mixup_alpha: f64 = 0.6, Range::within(0.0, 1.0);
            /// Steps from one time to the next
            ref_model_sync_steps: usize = 512, Range::at_least(1.0);
        }
    }
}

impl ReferenceKeys {
    /// Refuses what cannot be had together
    pub fn check_with(&self, sync: &SyncKeys) -> Result<()> {
        if sync.sync_ref_model && self.precompute_ref_log_probs {
            return Err(Error::usage(
                "`sync_ref_model` and `precompute_ref_log_probs` exclude each other: what is computed once does not \
                 follow the policy",
            )
            .hint("leave out one of the two"));
        }
        Ok(())
    }

    #[expect(clippy::unused_self, clippy::unnecessary_wraps, reason = "every group of keys has this method")]
    fn check(&self) -> Result<()> {
        Ok(())
    }
}

impl SyncKeys {
    /// The share of the policy and the steps between, where the reference model follows
    pub fn sync(&self) -> Option<(f64, u64)> {
        self.sync_ref_model.then_some((self.ref_model_mixup_alpha, self.ref_model_sync_steps as u64))
    }

    #[expect(clippy::unused_self, clippy::unnecessary_wraps, reason = "every group of keys has this method")]
    fn check(&self) -> Result<()> {
        Ok(())
    }
}
