//! The keys of direct preference optimisation.

use super::keys::Range;
use super::{config_choice, config_keys};
use crate::{Error, Result};

const NOT_BUILT: &str = "this loss is not built yet; `sigmoid` is";

config_choice! {
    /// Preference loss on the difference of log-ratios
    pub enum DpoLoss {
        /// Bradley-Terry likelihood of the preference
        Sigmoid = "sigmoid",
    }
    refused {
        "hinge" => NOT_BUILT,
        "ipo" => NOT_BUILT,
        "exo_pair" => NOT_BUILT,
        "nca_pair" => NOT_BUILT,
        "robust" => NOT_BUILT,
        "bco_pair" => NOT_BUILT,
        "sppo_hard" => NOT_BUILT,
        "aot" => NOT_BUILT,
        "aot_unpaired" => NOT_BUILT,
        "apo_zero" => NOT_BUILT,
        "apo_down" => NOT_BUILT,
        "discopop" => NOT_BUILT,
        "sft" => NOT_BUILT,
        "sigmoid_norm" => NOT_BUILT,
    }
}

config_keys! {
    /// The keys of direct preference optimisation
    pub struct DpoKeys {
        "Direct preference optimisation" {
            /// Strength of the pull towards the reference model
            beta: f64 = 0.1, Range::at_least(0.0);
            /// Losses; several are summed
            loss_type: Vec<DpoLoss> = vec![DpoLoss::Sigmoid];
            /// Weights of the losses; 1 each where not set
            loss_weights: Option<Vec<f64>> = None;
            /// Share of labels taken to be wrong; `sigmoid` does not use it
            label_smoothing: f64 = 0.0, Range::within_below(0.0, 0.5);
            /// Compute the reference model's log-probabilities once, before the first step
            precompute_ref_log_probs: bool = false;
            /// Rows of one forward pass of that computation; the batch size where not set
            precompute_ref_batch_size: Option<usize> = None, Range::at_least(1.0);
        }
    }
}

impl DpoKeys {
    fn check(&self) -> Result<()> {
        if self.loss_type.is_empty() {
            return Err(Error::usage("`loss_type` must name at least one loss, got an empty list"));
        }
        if let Some(weights) = &self.loss_weights
            && weights.len() != self.loss_type.len()
        {
            return Err(Error::usage(format!(
                "`loss_weights` must hold one weight for each loss of `loss_type` ({}), got {}",
                self.loss_type.len(),
                weights.len()
            )));
        }
        if self.label_smoothing > 0.0 && self.loss_type.iter().all(|loss| *loss == DpoLoss::Sigmoid) {
            tracing::warn!("`label_smoothing` has no effect: the loss `sigmoid` does not use it");
        }
        Ok(())
    }
}
