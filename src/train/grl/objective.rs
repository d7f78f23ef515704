//! The loss of some responses in each mode, with its gradient for every log-probability.

use crate::Result;
use crate::algo::policy::Clip;
use crate::config::{GrlKeys, GrlMode};
use crate::grl::loss::{self, Batch, Pair, Reduction};

/// What is known of a pass's responses beside their log-probabilities
pub struct Responses<'a> {
    /// R
    pub rewards: &'a [f64],
    /// V, constants
    pub values: &'a [f64],
    /// τL as it was before this update, for advantages that are constants too
    pub costs: &'a [f64],
    /// log μ of every token
    pub behaviour: &'a [f64],
    /// log μ − log π_ref of every response
    pub behaviour_ratios: &'a [f64],
    /// Positions of responses to one prompt, for `pair`
    pub pairs: &'a [(usize, usize)],
}

/// Loss, gradient, share of tokens or responses at a bound
pub struct Judged {
    /// Already divided
    pub loss: f64,
    /// ∂loss/∂log π of every token
    pub grad: Vec<f64>,
    /// Where the mode has a bound
    pub clipped: Option<f64>,
}

/// The loss of a mode
pub fn judge(keys: &GrlKeys, tau: f64, batch: &Batch<'_>, responses: &Responses<'_>) -> Result<Judged> {
    let Responses { rewards, values, .. } = *responses;
    let advantages = |costs: &dyn Fn(usize) -> f64| -> Vec<f64> {
        (0..rewards.len()).map(|i| rewards[i] - costs(i) - values[i]).collect()
    };
    Ok(match keys.mode {
        GrlMode::Pcl => {
            let path = loss::pcl(batch, rewards, values, tau, keys.huber)?;
            Judged { loss: path.loss, grad: path.grad_log_probs, clipped: None }
        }
        GrlMode::Pair => {
            let pair = loss::pair(batch, responses.pairs, Pair::Residual { rewards }, tau)?;
            Judged { loss: pair.loss, grad: pair.grad_log_probs, clipped: None }
        }
        GrlMode::Clip => {
            let advantages = advantages(&|i| responses.costs[i]);
            let bounds = Clip::symmetric(keys.cliprange);
            let clip = loss::clip(batch, responses.behaviour, &advantages, &bounds, Reduction::SequenceMean)?;
            Judged { loss: clip.loss, grad: clip.grad_log_probs, clipped: Some(clip.clipped) }
        }
        GrlMode::Awr => {
            let advantages = advantages(&|i| tau * responses.behaviour_ratios[i]);
            let awr = loss::awr(batch, &advantages, tau, keys.awr_max_weight)?;
            Judged { loss: awr.loss, grad: awr.grad_log_probs, clipped: Some(awr.clipped) }
        }
    })
}
