//! Contrastive preference optimisation and its relatives, SimPO among them: DPO's losses on the log-probabilities
//! themselves, without a reference model, beside the likelihood of the chosen completions.

use candle_core::Tensor;

use super::reference_free::{self, PairLoss, ReferenceFree};
use crate::Result;
use crate::algo::preference::{alpha_reward, cdpo, hinge, ipo, simpo};
use crate::config::{CommandSpec, Context, CpoKeys, CpoLoss, TrainKeys, Values, to_yaml};
use crate::run::Metrics;

/// The command `cpo`
pub const CPO: CommandSpec = CommandSpec {
    name: "cpo",
    about: "Contrastive preference optimisation and SimPO, without a reference model",
    groups: &[TrainKeys::KEYS, CpoKeys::KEYS],
    defaults: &[("learning_rate", "1e-6"), ("disable_dropout", "true")],
    run,
};

fn run(values: &Values, context: &Context) -> Result<()> {
    let (train, keys) = (TrainKeys::from_values(values)?, CpoKeys::from_values(values)?);
    let resolved = to_yaml(train.to_values().into_iter().chain(keys.to_values()))?;
    reference_free::run(train, resolved, context, &keys)
}

impl ReferenceFree for CpoKeys {
    fn per_token(&self) -> bool {
        self.per_token()
    }

    fn nll_weight(&self) -> f64 {
        self.nll_weight()
    }

    fn nll_of_prompt(&self) -> bool {
        false
    }

    fn beta(&self) -> f64 {
        self.beta
    }

    fn loss(&self, chosen: &Tensor, rejected: &Tensor) -> Result<PairLoss> {
        let rewards = [alpha_reward(chosen, self.alpha)?, alpha_reward(rejected, self.alpha)?];
        let ([chosen, rejected], beta, smoothing) = (&rewards, self.beta, self.label_smoothing);
        let losses = match self.loss_type {
            CpoLoss::Sigmoid => cdpo(chosen, rejected, beta, smoothing)?,
            CpoLoss::Hinge => hinge(chosen, rejected, beta)?,
            CpoLoss::Ipo => ipo(chosen, rejected, beta)?,
            CpoLoss::Simpo | CpoLoss::Alphapo => simpo(chosen, rejected, beta, self.simpo_gamma, smoothing)?,
        };
        Ok(PairLoss { losses, rewards, metrics: Metrics::new() })
    }
}
