//! The keys of odds ratio preference optimisation.

use super::config_keys;
use super::keys::Range;
use crate::Result;

config_keys! {
    /// The keys of odds ratio preference optimisation
    pub struct OrpoKeys {
        "Odds ratio preference optimisation" {
            /// Weight of the odds ratio loss beside the likelihood of the chosen text (the paper's λ)
            beta: f64 = 0.1, Range::at_least(0.0);
        }
    }
}

impl OrpoKeys {
    #[expect(clippy::unused_self, clippy::unnecessary_wraps, reason = "every group of keys has this method")]
    fn check(&self) -> Result<()> {
        Ok(())
    }
}
