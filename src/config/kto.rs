//! The keys of Kahneman-Tversky optimisation.

use super::keys::Range;
use super::train::{SamplingStrategy, TrainKeys};
use super::{config_choice, config_keys};
use crate::{Error, Result};

config_choice! {
    /// Loss on completions that were liked or not
    pub enum KtoLoss {
        /// Against a reference point, which is an estimate of the KL divergence
        Kto = "kto",
        /// Without one
        ApoZeroUnpaired = "apo_zero_unpaired",
    }
}

config_keys! {
    /// The keys of Kahneman-Tversky optimisation
    pub struct KtoKeys {
        "Kahneman-Tversky optimisation" {
            /// Loss
            loss_type: KtoLoss = KtoLoss::Kto;
            /// Strength of the pull towards the reference model
            beta: f64 = 0.1, Range::at_least(0.0);
            /// Weight of the liked completions
            desirable_weight: f64 = 1.0, Range::at_least(0.0);
            /// Weight of the disliked completions
            undesirable_weight: f64 = 1.0, Range::at_least(0.0);
        }
    }
}

const WITHOUT_ESTIMATE: &str = "`loss_type apo_zero_unpaired` needs no such estimate";

impl KtoKeys {
    /// Whether the loss needs an estimate of the KL divergence
    pub fn estimates_kl(&self) -> bool {
        self.loss_type == KtoLoss::Kto
    }

    /// What the loss asks of the order and number of rows
    pub fn check_batches(&self, train: &TrainKeys) -> Result<()> {
        if !self.estimates_kl() {
            return Ok(());
        }
        if train.train_sampling_strategy != SamplingStrategy::Sequential {
            return Err(Error::usage(format!(
                "`train_sampling_strategy` must be `sequential` for `loss_type kto`, got `{}`: the KL estimate pairs \
                 each prompt with its neighbour's completion",
                train.train_sampling_strategy
            ))
            .hint(WITHOUT_ESTIMATE));
        }
        if train.per_device_train_batch_size < 2 {
            return Err(Error::usage(
                "`per_device_train_batch_size` must be at least 2 for `loss_type kto`, got 1: the KL estimate needs a \
                 neighbour",
            )
            .hint(WITHOUT_ESTIMATE));
        }
        Ok(())
    }

    #[expect(clippy::unused_self, clippy::unnecessary_wraps, reason = "every group of keys has this method")]
    fn check(&self) -> Result<()> {
        Ok(())
    }
}
