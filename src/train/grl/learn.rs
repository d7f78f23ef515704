//! One pass of an update: the loss of some stored responses, and what is to be remembered of it.

use std::time::Instant;

use candle_core::Tensor;

use super::objective::{Responses, judge};
use super::{Grl, Outcome, Pass, Scored};
use crate::config::ValueEstimator;
use crate::grl::importance::sequence_kl;
use crate::grl::loss::{self, Whole, group_means};
use crate::run::Metrics;
use crate::train::collate::Batch;
use crate::{Error, Result};

/// V of the responses of a pass, constants in the loss, and what its own learning adds to the graph
struct Baseline {
    values: Vec<f64>,
    graph: Option<Tensor>,
}

impl Grl {
    pub(super) fn loss(&mut self, pass: &Pass<'_>) -> Result<Outcome> {
        let mut responses: Vec<&Scored> = Vec::with_capacity(pass.rows.len());
        for &position in pass.rows {
            let found = self.learnt.store.get(position);
            responses.push(found.ok_or_else(|| Error::run(format!("the replay store has no response {position}")))?);
        }
        let batch = Batch::of_completions(sequences(&responses))?;
        let model = &self.actor.policy;
        let hidden = model.hidden(&batch.ids, &batch.layout, pass.dropout)?; // (N, C)
        let policy = model.token_log_probs(&hidden, &batch.rows, &batch.targets, self.online.temperature)?; // (M,)
        let log_probs: Vec<f64> = policy.log_probs.to_vec1::<f32>()?.into_iter().map(f64::from).collect();
        let concat = |of: fn(&Scored) -> &Vec<f32>| -> Vec<f64> {
            responses.iter().flat_map(|response| of(response).iter().map(|x| f64::from(*x))).collect()
        };
        let (behaviour, reference) =
            (concat(|response| &response.log_probs_behaviour), concat(|response| &response.log_probs_ref));
        let tau = self.learnt.tau;
        let numbers = |of: &dyn Fn(&Scored) -> f64| responses.iter().map(|response| of(response)).collect::<Vec<f64>>();
        let (rewards, costs) = (numbers(&|response| response.reward), numbers(&|response| tau * response.log_ratio));
        let items = pass.denominator as usize;
        let whole = Whole { responses: items, tokens: batch.targets.len(), items };
        let ragged = loss::Batch::new(&log_probs, &reference, &batch.counts)?.part_of(whole);
        let ratios = ragged.log_ratios();
        // Under the policy as it is in this very pass
        let soft_returns: Vec<f64> = rewards.iter().zip(&ratios).map(|(reward, ratio)| reward - tau * ratio).collect();
        let begin = Instant::now();
        let Baseline { values, graph: value_graph } =
            self.baseline(&responses, &soft_returns, &batch, &hidden, pass.denominator)?;
        let in_memory = begin.elapsed();
        let known = Responses {
            rewards: &rewards,
            values: &values,
            costs: &costs,
            behaviour: &behaviour,
            behaviour_ratios: &numbers(&Scored::behaviour_log_ratio),
            pairs: &self.pairs(pass.rows),
        };
        let judged = judge(&self.keys, tau, &ragged, &known)?;
        if self.keys.estimator != ValueEstimator::Network {
            self.in_memory += in_memory;
        }
        let tally = &mut self.tally;
        tally.passes += 1.0;
        if let Some(clipped) = judged.clipped {
            tally.clipped = Some(tally.clipped.unwrap_or(0.0) + clipped);
        }
        for (b, value) in soft_returns.iter().zip(&values) {
            tally.residuals.0 += (b - value).powi(2);
            tally.residuals.1 += 1.0;
        }
        let update = &mut self.update;
        update.kl +=
            ragged.spans().iter().map(|at| sequence_kl(&log_probs[at.clone()], &behaviour[at.clone()])).sum::<f64>();
        update.seen.extend(pass.rows.iter().copied().zip(ratios));
        update.log_probs.extend(&log_probs);
        update.behaviour.extend(behaviour);
        let grad: Vec<f32> = judged.grad.iter().map(|grad| *grad as f32).collect();
        // A scalar with the right gradient: Σ ∂L/∂(log π) · log π, the factors being constants
        let mut graph = (policy.log_probs * Tensor::new(grad, hidden.device())?)?.sum_all()?;
        if let Some(of_values) = value_graph {
            graph = (graph + of_values)?;
        }
        Ok(Outcome { loss: judged.loss, graph, metrics: Metrics::new(), tokens: batch.tokens })
    }

    /// V from the field, from the response's own group, or from the value network, which learns it at once:
    /// `vf_coef` · mean ½(V − b)²
    fn baseline(
        &self,
        responses: &[&Scored],
        soft_returns: &[f64],
        batch: &Batch,
        hidden: &Tensor,
        denominator: f64,
    ) -> Result<Baseline> {
        let values = match self.keys.estimator {
            ValueEstimator::Group => {
                let groups: Vec<u32> = responses.iter().map(|response| response.group).collect();
                group_means(soft_returns, &groups, self.keys.leave_one_out.unwrap_or(false))
            }
            ValueEstimator::Network => {
                // Of each response, the value of the state before its first token
                let firsts = batch.counts.iter().scan(0_u32, |at, count| {
                    let first = *at;
                    *at += *count as u32;
                    Some(first)
                });
                let firsts = Tensor::new(firsts.collect::<Vec<u32>>(), hidden.device())?;
                let values = self.actor.values(false, batch, hidden)?.index_select(&firsts, 0)?; // (responses,)
                let numbers: Vec<f64> = values.to_vec1::<f32>()?.into_iter().map(f64::from).collect();
                let scale = self.keys.vf_coef / denominator;
                let slopes = numbers.iter().zip(soft_returns).map(|(value, b)| (scale * (value - b)) as f32);
                let slopes = Tensor::new(slopes.collect::<Vec<f32>>(), hidden.device())?;
                return Ok(Baseline { values: numbers, graph: Some((values * slopes)?.sum_all()?) });
            }
            _ => {
                let tau = self.learnt.tau;
                let of_field = responses.iter().map(|response| {
                    let point = self.features.point(response.prompt)?;
                    Ok(self.learnt.values.baseline(point, response.soft_return(tau)))
                });
                of_field.collect::<Result<Vec<f64>>>()?
            }
        };
        Ok(Baseline { values, graph: None })
    }
}

/// Prompt and tokens of each response; those of one prompt side by side name the same slice, which is laid down once
pub(super) fn sequences<'a>(responses: &[&'a Scored]) -> Vec<(&'a [u32], &'a [u32])> {
    let mut prompt: Option<&Scored> = None;
    let of = |response: &&'a Scored| {
        let same = prompt.filter(|known| known.prompt == response.prompt).unwrap_or(response);
        prompt = Some(same);
        (&same.prompt_tokens[..], &response.tokens[..])
    };
    responses.iter().map(of).collect()
}
