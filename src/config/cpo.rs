//! The keys of contrastive preference optimisation and SimPO.

use super::keys::Range;
use super::{config_choice, config_keys};
use crate::{Error, Result};

config_choice! {
    /// Preference loss on log-probabilities, without a reference model
    pub enum CpoLoss {
        /// Bradley-Terry likelihood of the preference
        Sigmoid = "sigmoid",
        /// Hinge on the margin
        Hinge = "hinge",
        /// Squared distance of the margin per token from 1/(2 beta)
        Ipo = "ipo",
        /// `sigmoid` per token with a target margin (`simpo_gamma`); SimPO itself has `cpo_alpha: 0`
        Simpo = "simpo",
        /// `simpo` with `cpo_alpha: 0` and the reward that `alpha` shapes
        Alphapo = "alphapo",
    }
    refused { "kto_pair" => "TRL has dropped it; see the command `kto`" }
}

config_keys! {
    /// The keys of contrastive preference optimisation
    pub struct CpoKeys {
        "Contrastive preference optimisation" {
            /// Loss
            loss_type: CpoLoss = CpoLoss::Sigmoid;
            /// Scale of the margin
            beta: f64 = 0.1, Range::at_least(0.0);
            /// Weight of the negative log-likelihood of the chosen completion
            cpo_alpha: f64 = 1.0, Range::at_least(0.0);
            /// Target margin of `simpo`
            simpo_gamma: f64 = 0.5;
            /// Shape of the reward, (1 − p^−alpha)/alpha; 0 is the log-probability
            alpha: f64 = 0.0;
            /// Share of labels taken to be wrong; for `sigmoid` and `simpo`
            label_smoothing: f64 = 0.0, Range::within_below(0.0, 1.0);
        }
    }
}

impl CpoKeys {
    /// The weight of the negative log-likelihood, which AlphaPO has not
    pub fn nll_weight(&self) -> f64 {
        if self.loss_type == CpoLoss::Alphapo { 0.0 } else { self.cpo_alpha }
    }

    /// Whether log-probabilities are means over the completion's tokens
    pub fn per_token(&self) -> bool {
        matches!(self.loss_type, CpoLoss::Ipo | CpoLoss::Simpo | CpoLoss::Alphapo)
    }

    fn check(&self) -> Result<()> {
        if self.loss_type == CpoLoss::Ipo && self.beta == 0.0 {
            return Err(Error::usage("`beta` must be above 0 for `loss_type ipo`, got 0"));
        }
        if self.label_smoothing > 0.0 && matches!(self.loss_type, CpoLoss::Hinge | CpoLoss::Ipo) {
            tracing::warn!("`label_smoothing` has no effect: the loss `{}` does not use it", self.loss_type);
        }
        Ok(())
    }
}
