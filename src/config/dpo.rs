//! The keys of direct preference optimisation.

use super::keys::Range;
use super::{config_choice, config_keys};
use crate::{Error, Result};

config_choice! {
    /// Preference loss on the log-ratios of a pair
    pub enum DpoLoss {
        /// Bradley-Terry likelihood of the preference
        Sigmoid = "sigmoid",
        /// The same where labels are wrong with probability `label_smoothing` (conservative DPO; TRL has no name for it)
        Cdpo = "cdpo",
        /// Hinge on the margin (SLiC, RSO)
        Hinge = "hinge",
        /// Squared distance of the margin per token from 1/(2 beta)
        Ipo = "ipo",
        /// Reverse KL to the preference; needs `label_smoothing`
        ExoPair = "exo_pair",
        /// Noise contrast of each completion for itself
        NcaPair = "nca_pair",
        /// Unbiased where labels are flipped with probability `label_smoothing`
        Robust = "robust",
        /// A classifier of good and bad completions
        BcoPair = "bco_pair",
        /// Self-play with hard labels
        SppoHard = "sppo_hard",
        /// Optimal transport between sorted log-ratios of pairs
        Aot = "aot",
        /// Optimal transport between sorted rewards
        AotUnpaired = "aot_unpaired",
        /// Anchored, for chosen completions better than the model's own
        ApoZero = "apo_zero",
        /// Anchored, for chosen completions worse than the model's own
        ApoDown = "apo_down",
        /// Logistic and exponential loss, mixed by the margin
        Discopop = "discopop",
        /// Negative log-likelihood of the chosen completion
        Sft = "sft",
        /// `sigmoid` on log-ratios per token
        SigmoidNorm = "sigmoid_norm",
    }
}

impl DpoLoss {
    /// Whether it is built on a difference of rewards, so that `f_divergence_type` means something for it
    pub const fn takes_divergence(self) -> bool {
        matches!(
            self,
            Self::Sigmoid
                | Self::Cdpo
                | Self::SigmoidNorm
                | Self::Hinge
                | Self::Ipo
                | Self::ExoPair
                | Self::Robust
                | Self::Discopop
                | Self::Sft
        )
    }

    /// Whether `label_smoothing` has an effect on it
    pub const fn smooths(self) -> bool {
        matches!(self, Self::Cdpo | Self::ExoPair | Self::Robust | Self::Aot | Self::AotUnpaired)
    }

    /// Whether it compares the rows of a forward pass by rank
    pub const fn sorts(self) -> bool {
        matches!(self, Self::Aot | Self::AotUnpaired)
    }
}

config_choice! {
    /// Divergence from the reference model that the reward is made of
    pub enum Divergence {
        /// The log-ratio itself
        ReverseKl = "reverse_kl",
        /// 1 − π_ref/π
        ForwardKl = "forward_kl",
        /// Jensen-Shannon
        JsDivergence = "js_divergence",
        /// Between the two, by `f_alpha_divergence_coef`
        AlphaDivergence = "alpha_divergence",
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
            /// Share of labels taken to be wrong; for `cdpo`, `robust`, `exo_pair`, `aot` and `aot_unpaired`
            label_smoothing: f64 = 0.0, Range::within_below(0.0, 1.0);
            /// Weight of the tokens that the longer completion has more than the other one; all count alike where not set
            ld_alpha: Option<f64> = None, Range::within(0.0, 1.0);
            /// Divergence from the reference model that the reward is made of
            f_divergence_type: Divergence = Divergence::ReverseKl;
            /// α of `alpha_divergence`
            f_alpha_divergence_coef: f64 = 0.5;
            /// Weigh each pair by how likely the policy itself would write it
            use_weighting: bool = false;
            /// Temperature of the mixture in `discopop`
            discopop_tau: f64 = 0.05, Range::above(0.0);
        }
    }
}

/// Whether the loss divides by β
const fn divides_by_beta(loss: DpoLoss) -> bool {
    matches!(loss, DpoLoss::Ipo | DpoLoss::SppoHard)
}

impl DpoKeys {
    /// Each loss with its weight
    pub fn losses(&self) -> Vec<(DpoLoss, f64)> {
        let weight = |i: usize| self.loss_weights.as_ref().map_or(1.0, |weights| weights[i]);
        self.loss_type.iter().enumerate().map(|(i, loss)| (*loss, weight(i))).collect()
    }

    fn find(&self, wanted: impl Fn(DpoLoss) -> bool) -> Option<DpoLoss> {
        self.loss_type.iter().copied().find(|loss| wanted(*loss))
    }

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
        if let Some(loss) = self.find(divides_by_beta).filter(|_| self.beta == 0.0) {
            return Err(Error::usage(format!("`beta` must be above 0 for `loss_type {loss}`, got 0")));
        }
        let divergence = self.f_divergence_type;
        if divergence != Divergence::ReverseKl
            && let Some(loss) = self.find(|loss| !loss.takes_divergence())
        {
            return Err(Error::usage(format!(
                "`f_divergence_type {divergence}` has no meaning for `loss_type {loss}`, which is not built on a \
                 difference of rewards"
            ))
            .hint("leave out `f_divergence_type`"));
        }
        if self.use_weighting
            && let Some(loss) = self.find(DpoLoss::sorts)
        {
            return Err(Error::usage(format!(
                "`use_weighting` weighs pairs, and `loss_type {loss}` takes pairs apart by sorting"
            ))
            .hint("leave out `use_weighting`"));
        }
        self.check_label_smoothing()
    }

    fn check_label_smoothing(&self) -> Result<()> {
        let smoothing = self.label_smoothing;
        if smoothing == 0.0 && self.loss_type.contains(&DpoLoss::ExoPair) {
            return Err(Error::usage("`label_smoothing` must be above 0 for `loss_type exo_pair`, got 0")
                .hint("the EXO paper takes `label_smoothing: 0.001`"));
        }
        if smoothing >= 0.5 && self.loss_type.contains(&DpoLoss::Robust) {
            return Err(Error::usage(format!(
                "`label_smoothing` must be below 0.5 for `loss_type robust`, got {smoothing}"
            )));
        }
        if smoothing == 0.0 && self.loss_type.contains(&DpoLoss::Cdpo) {
            tracing::warn!("`loss_type cdpo` without `label_smoothing` is `sigmoid`");
        }
        if smoothing > 0.0 && self.find(DpoLoss::smooths).is_none() {
            tracing::warn!(
                "`label_smoothing` has no effect: none of the losses uses it; `cdpo` is `sigmoid` with label smoothing"
            );
        }
        Ok(())
    }
}
