//! Odds ratio preference optimisation: fine-tuning on the chosen answers and a penalty on the odds of the rejected ones,
//! in one stage and without a reference model.

use candle_core::Tensor;

use super::reference_free::{self, PairLoss, ReferenceFree};
use super::scored::{mean, numbers};
use crate::Result;
use crate::algo::preference::{log_odds_ratio, orpo};
use crate::config::{CommandSpec, Context, OrpoKeys, TrainKeys, Values, to_yaml};
use crate::ops::log_sigmoid;
use crate::run::Metrics;

/// The command `orpo`
pub const ORPO: CommandSpec = CommandSpec {
    name: "orpo",
    about: "Odds ratio preference optimisation, without a reference model",
    groups: &[TrainKeys::KEYS, OrpoKeys::KEYS],
    defaults: &[("learning_rate", "1e-6"), ("disable_dropout", "true")],
    run,
};

fn run(values: &Values, context: &Context) -> Result<()> {
    let (train, keys) = (TrainKeys::from_values(values)?, OrpoKeys::from_values(values)?);
    let resolved = to_yaml(train.to_values().into_iter().chain(keys.to_values()))?;
    reference_free::run(train, resolved, context, &keys)
}

impl ReferenceFree for OrpoKeys {
    fn per_token(&self) -> bool {
        true
    }

    fn nll_weight(&self) -> f64 {
        1.0
    }

    fn nll_of_prompt(&self) -> bool {
        true
    }

    fn beta(&self) -> f64 {
        self.beta
    }

    fn loss(&self, chosen: &Tensor, rejected: &Tensor) -> Result<PairLoss> {
        let log_odds = log_odds_ratio(chosen, rejected)?;
        let mut metrics = Metrics::new();
        metrics.set("log_odds_ratio", mean(&numbers(&log_sigmoid(&log_odds.detach())?)?));
        metrics.set("log_odds_chosen", mean(&numbers(&log_odds)?));
        Ok(PairLoss { losses: orpo(&log_odds, self.beta)?, rewards: [chosen.clone(), rejected.clone()], metrics })
    }
}
