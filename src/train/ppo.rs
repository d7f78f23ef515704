//! Proximal policy optimisation with a KL to the frozen start in the reward.
//!
//! Schulman et al. 2017, <https://arxiv.org/abs/1707.06347>; on language models Ziegler et al. 2019,
//! <https://arxiv.org/abs/1909.08593>. A token is a step of an episode, a completion an episode:
//!
//! ```text
//! r_t = −β·kl_t + [t last]·score      A = GAE(r, V)      L = clipped surrogate + vf_coef·½·clipped (V − (A + V_old))²
//! ```

use std::path::Path;

use candle_core::{Device, Tensor};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::actor::Actor;
use super::collate::Batch;
use super::collect::{Collector, Collectors};
use super::completions::{completions_table, length_metrics, log_probs, objective_metrics, reward_metrics};
use super::grl::PromptBaseline;
use super::objective::{Objective, Outcome, Pass, Split, StepContext, Updates};
use super::plan::{Plan, StepRows};
use super::session::Session;
use super::{reward_model, step_loop};
use crate::algo::advantage::{add_values, gae, token_streams, whiten};
use crate::algo::kl::{AdaptiveKl, FixedKl, KlController, KlEstimator};
use crate::algo::policy::{Clip, Surrogate, clipped_surrogate};
use crate::algo::shaping::{RewardStats, clip_scores, penalize_unfinished, token_rewards};
use crate::algo::value::{ValueLoss, value_loss};
use crate::config::{
    CommandSpec, Context, LossKl, OnlineKeys, PpoKeys, RewardKl, SamplingStrategy, TrainKeys, ValueNetwork, Values,
    to_yaml,
};
use crate::data::{Sampler, Strategy};
use crate::model::Trainable;
use crate::model::gpt2::Gpt2;
use crate::ops::kernels::noise::mix;
use crate::rollout::Rollout;
use crate::run::{Checkpoint, CheckpointWriter, Metrics, Part, StepClock};
use crate::{Error, Result};

/// The command `ppo`
pub const PPO: CommandSpec = CommandSpec {
    name: "ppo",
    about: "Proximal policy optimisation with a value model, against any reward",
    groups: &[TrainKeys::KEYS, OnlineKeys::KEYS, PpoKeys::KEYS],
    defaults: &[
        ("learning_rate", "3e-6"),
        ("disable_dropout", "true"),
        ("num_generations", "1"),
        ("max_completion_length", "53"),
        ("temperature", "0.7"),
    ],
    run,
};

fn run(values: &Values, context: &Context) -> Result<()> {
    let (train, online) = (TrainKeys::from_values(values)?, OnlineKeys::from_values(values)?);
    let keys = PpoKeys::from_values(values)?;
    let all = train.to_values().into_iter().chain(online.to_values()).chain(keys.to_values());
    let mut session = Session::open(train, to_yaml(all)?, context)?;
    let mut trainer = Ppo::open(&mut session, &online, keys)?;
    step_loop::train(&mut trainer, session)
}

/// Policy, value network and rollout of a run
struct Ppo {
    actor: Actor,
    reference: Gpt2,
    /// In place of a value network
    field: Option<PromptBaseline>,
    train: Collector,
    eval: Option<Collector>,
    keys: PpoKeys,
    online: OnlineKeys,
    /// Completions of a pass
    batch: usize,
    controller: KlController,
    order: Strategy,
    seed: u64,
    rollout: Rollout,
    tally: Tally,
    metrics: Metrics,
    /// What the field learns at the end of the step: scores, the KL weight that held for them
    judged: (Vec<f32>, f64),
}

/// What the updates of a step add up to
#[derive(Default)]
struct Tally {
    updates: f64,
    policy: f64,
    value: f64,
    approx_kl: f64,
    clip_fraction: f64,
    value_clip_fraction: f64,
    entropy: f64,
    /// Mean ratio of each update
    ratios: Vec<f64>,
    /// k3 of the update that is under way, for `target_kl`
    drift: f64,
    /// KL of the rollout in nats a completion, for the controller
    kl: f64,
}

#[derive(Serialize, Deserialize)]
struct Saved {
    controller: KlController,
    /// Head of a shared critic
    head: Vec<f32>,
    /// Of a field
    #[serde(default, skip_serializing_if = "Value::is_null")]
    field: Value,
}

impl Ppo {
    fn open(session: &mut Session, online: &OnlineKeys, mut keys: PpoKeys) -> Result<Self> {
        let load = reward_model::loader(session.keys.offline, online.normalize_reward_model);
        let Collectors { train, eval } = Collectors::open(session, online, load)?;
        if train.is_empty() {
            return Err(Error::usage("there is no prompt to train on"));
        }
        let actor = Actor::open(session, online, Some(keys.value_network), keys.value_model_name_or_path.as_ref())?;
        let reference = actor.view.frozen_copy()?;
        let field = if keys.value_network == ValueNetwork::Field {
            // There is no network that a value loss could teach
            keys.vf_coef = 0.0;
            let prompts = (0..train.len()).map(|row| train.prompt(row));
            Some(PromptBaseline::open(actor.view.frozen_copy()?, prompts)?)
        } else {
            None
        };
        let controller = match keys.kl_target {
            Some(target) => {
                KlController::Adaptive(AdaptiveKl { coefficient: keys.kl_coef, target, horizon: keys.kl_horizon })
            }
            None => KlController::Fixed(FixedKl { coefficient: keys.kl_coef }),
        };
        let random = online.shuffle_dataset
            && session.keys.train_sampling_strategy == SamplingStrategy::Random
            && !train.replays();
        Ok(Self {
            actor,
            reference,
            field,
            judged: (Vec::new(), 0.0),
            train,
            eval,
            batch: session.keys.per_device_train_batch_size,
            controller,
            order: if random { Strategy::Random } else { Strategy::Sequential },
            seed: session.keys.seed,
            rollout: Rollout::default(),
            tally: Tally::default(),
            metrics: Metrics::new(),
            keys,
            online: online.clone(),
        })
    }

    /// Everything about a fresh rollout that does not change while it is learnt from
    fn judge(&mut self, rollout: &mut Rollout, clock: &mut StepClock) -> Result<(RewardStats, Vec<f32>)> {
        rollout.drop_unjudged();
        let temperature = self.online.temperature;
        clock.time(Part::Forward, || -> Result<()> {
            for start in (0..rollout.len()).step_by(self.batch) {
                let completions = start..(start + self.batch).min(rollout.len());
                let batch = Batch::of_completions(completions.map(|i| rollout.sequence(i)))?;
                let hidden = self.actor.view.hidden(&batch.ids, &batch.layout, None)?;
                let scored = self.actor.view.token_log_probs(&hidden, &batch.rows, &batch.targets, temperature)?;
                let values = self.actor.values(true, &batch, &hidden)?.to_vec1::<f32>()?;
                let log_probs = scored.log_probs.to_vec1::<f32>()?;
                let mut at = 0;
                for &count in &batch.counts {
                    rollout.old_log_probs.push(log_probs[at..at + count].to_vec());
                    rollout.values.push(values[at..at + count].to_vec());
                    at += count;
                }
            }
            Ok(())
        })?;
        rollout.ref_log_probs =
            clock.time(Part::Reference, || log_probs(&self.reference, rollout, self.batch, temperature))?;

        if let Some(field) = &mut self.field {
            let values = field.values(rollout)?.into_iter().zip(&rollout.completions);
            rollout.values = values.map(|(value, tokens)| vec![value as f32; tokens.len()]).collect();
        }
        let lengths: Vec<usize> = rollout.completions.iter().map(Vec::len).collect();
        let (old, reference) = (rollout.old_log_probs.concat(), rollout.ref_log_probs.concat());
        let (values, n) = (rollout.values.concat(), old.len());
        let mut scores = rollout.scores();
        if let Some(penalty) = self.keys.missing_eos_penalty {
            let finished: Vec<bool> = rollout.truncated.iter().map(|cut| !cut).collect();
            penalize_unfinished(&mut scores, &finished, penalty);
        }
        if let Some([low, high]) = self.keys.reward_clip_range.as_deref() {
            clip_scores(&mut scores, *low, *high);
        }
        let estimator = match self.keys.kl_estimator {
            RewardKl::K1 => KlEstimator::K1,
            RewardKl::K3 => KlEstimator::K3,
        };
        let mut rewards = vec![0.0; n];
        let beta = self.controller.coefficient();
        let stats = token_rewards(&lengths, &old, &reference, &scores, beta, estimator, &mut rewards);
        if self.keys.whiten_rewards {
            whiten(&mut rewards, None, false);
        }
        let (mut next, mut discounts, mut traces) = (vec![0.0; n], vec![0.0; n], vec![0.0; n]);
        token_streams(&lengths, &values, self.keys.gamma, self.keys.lam, &mut next, &mut discounts, &mut traces);
        let (mut advantages, mut returns) = (vec![0.0; n], vec![0.0; n]);
        gae(&rewards, &values, &next, &discounts, &traces, &mut advantages);
        add_values(&advantages, &values, &mut returns);
        if self.keys.whiten_advantages {
            whiten(&mut advantages, None, true);
        }
        rollout.advantages = split(&advantages, &lengths);
        rollout.returns = split(&returns, &lengths);
        Ok((stats, scores))
    }

    fn rollout_metrics(&self, rollout: &Rollout, stats: &RewardStats, names: &[String]) -> Metrics {
        let mut metrics = Metrics::new();
        length_metrics(rollout, &mut metrics);
        reward_metrics(rollout, names, &mut metrics);
        let n = rollout.len().max(1) as f64;
        let entropy = -rollout.old_log_probs.iter().flatten().map(|p| f64::from(*p)).sum::<f64>() / n;
        metrics.extend([
            ("objective/kl", stats.kl),
            ("objective/kl_coef", self.controller.coefficient()),
            ("objective/entropy", entropy),
            ("objective/non_score_reward", stats.non_score_reward),
            ("objective/rlhf_reward", stats.rlhf_reward),
            ("objective/scores", stats.scores),
            ("val/num_eos_tokens", rollout.truncated.iter().filter(|cut| !**cut).count() as f64),
        ]);
        metrics
    }

    /// Held-out prompts: what completions score, and how far they are from the start
    fn evaluate(&mut self, rows: &[usize], clock: &mut StepClock) -> Result<Outcome> {
        let Some(mut eval) = self.eval.take() else { return Err(Error::run("there are no held-out prompts")) };
        let result = (|| {
            let per_prompt = self.online.num_generations_eval.unwrap_or(self.online.num_generations);
            let seed = mix(self.seed ^ mix(rows[0] as u64 ^ 0x6576_616c));
            let mut rollout = eval.collect(&self.actor.view, rows, per_prompt, seed, clock, &|| Ok(()))?;
            let (stats, _) = self.judge(&mut rollout, clock)?;
            let mut metrics = self.rollout_metrics(&rollout, &stats, &eval.reward_weights().0);
            objective_metrics(&rollout, self.controller.coefficient(), &mut metrics);
            let graph = Tensor::zeros((), candle_core::DType::F32, &Device::Cpu)?;
            Ok(Outcome { loss: -stats.rlhf_reward, graph, metrics, tokens: rollout.tokens() })
        })();
        self.eval = Some(eval);
        result
    }
}

fn split(stream: &[f32], lengths: &[usize]) -> Vec<Vec<f32>> {
    let mut at = 0;
    lengths
        .iter()
        .map(|&length| {
            at += length;
            stream[at - length..at].to_vec()
        })
        .collect()
}

impl Objective for Ppo {
    fn model(&self) -> &dyn Trainable {
        &self.actor
    }

    fn lengths(&self, split: Split) -> Vec<usize> {
        match split {
            Split::Train => self.train.lengths(),
            Split::Eval => self.eval.as_ref().map_or_else(Vec::new, Collector::lengths),
        }
    }

    fn plan(&self, keys: &TrainKeys) -> Plan {
        let order = match self.order {
            Strategy::Random => SamplingStrategy::Random,
            _ => SamplingStrategy::Sequential,
        };
        let mut plan = Plan::new(&self.train.lengths(), &TrainKeys { train_sampling_strategy: order, ..keys.clone() });
        if let Some(episodes) = self.keys.total_episodes {
            let batch = self.batch * keys.gradient_accumulation_steps * self.online.num_generations;
            plan.total_steps = episodes.div_ceil(batch) as u64;
        }
        plan
    }

    fn begin_step(&mut self, rows: &StepRows, context: &mut StepContext<'_>) -> Result<Updates> {
        let prompts = rows.micro_batches.concat();
        let seed = mix(self.seed ^ mix(context.step ^ 0x0070_706f));
        let check = context.checker();
        let per_prompt = self.online.num_generations;
        let mut rollout = self.train.collect(&self.actor.view, &prompts, per_prompt, seed, context.clock, &check)?;
        let generated = rollout.tokens();
        let beta = self.controller.coefficient();
        let (stats, scores) = self.judge(&mut rollout, context.clock)?;
        self.judged = (scores, beta);
        self.metrics = self.rollout_metrics(&rollout, &stats, &self.train.reward_weights().0);
        self.tally = Tally { kl: stats.kl, ..Tally::default() };
        let mut updates = Vec::new();
        let n = rollout.len();
        let mini_batch = n.div_ceil(self.keys.num_mini_batches).max(1);
        for epoch in 0..self.keys.num_ppo_epochs {
            // The first pass goes through the completions as they were judged: its first ratios are exactly 1
            let order = if epoch == 0 {
                (0..n).collect()
            } else {
                Sampler::new(Strategy::Random, &vec![1; n], mix(seed ^ epoch as u64), 1).epoch(0)
            };
            for rows in order.chunks(mini_batch) {
                updates.push(rows.chunks(self.batch).map(<[usize]>::to_vec).collect());
            }
        }
        self.rollout = rollout;
        Ok(Updates { passes: updates, generated: Some(generated), queries: Some(self.train.take_queries()) })
    }

    /// Completion tokens in training, prompts in evaluation
    fn weight(&self, split: Split, rows: &[usize]) -> f64 {
        match split {
            Split::Train => rows.iter().map(|&i| self.rollout.completions[i].len()).sum::<usize>() as f64,
            Split::Eval => rows.len() as f64,
        }
    }

    fn forward(&mut self, pass: &Pass<'_>, clock: &mut StepClock) -> Result<Outcome> {
        if pass.split == Split::Eval {
            return self.evaluate(pass.rows, clock);
        }
        clock.time(Part::Forward, || {
            let rollout = &self.rollout;
            let batch = Batch::of_completions(pass.rows.iter().map(|&i| rollout.sequence(i)))?;
            let policy = &self.actor.policy;
            let hidden = policy.hidden(&batch.ids, &batch.layout, pass.dropout)?; // (N, C)
            let scored = policy.token_log_probs(&hidden, &batch.rows, &batch.targets, self.online.temperature)?; // (M,)
            let values = self.actor.values(false, &batch, &hidden)?; // (M,)
            let (log_probs, entropies) = (scored.log_probs.to_vec1::<f32>()?, scored.entropy.to_vec1::<f32>()?);
            let estimates = values.to_vec1::<f32>()?;
            let pick = |all: &[Vec<f32>]| pass.rows.iter().flat_map(|&i| all[i].iter().copied()).collect::<Vec<f32>>();
            let (m, keys) = (log_probs.len(), &self.keys);

            let mut grad = vec![0.0; m];
            let clip = Clip { dual: keys.dual_clip, ..Clip::symmetric(keys.cliprange) };
            let old = pick(&rollout.old_log_probs);
            let surrogate: Surrogate = clipped_surrogate(
                &clip,
                &log_probs,
                &old,
                &pick(&rollout.advantages),
                None,
                pass.denominator,
                &mut grad,
            );
            let mut grad_values = vec![0.0; m];
            let value = value_loss(
                ValueLoss::ClippedMax { range: keys.cliprange_value },
                &estimates,
                &pick(&rollout.values),
                &pick(&rollout.returns),
                None,
                0.5 * keys.vf_coef,
                pass.denominator,
                &mut grad_values,
            );
            let mut loss = surrogate.loss + value.loss;
            if keys.kl_loss_coef > 0.0 {
                let estimator = match keys.kl_loss_estimator {
                    LossKl::K2 => KlEstimator::K2,
                    LossKl::K3 => KlEstimator::K3,
                };
                let weight = keys.kl_loss_coef / pass.denominator;
                for ((grad, log_prob), reference) in grad.iter_mut().zip(&log_probs).zip(pick(&rollout.ref_log_probs)) {
                    let (kl, slope) = estimator.value_and_grad(f64::from(*log_prob), f64::from(reference));
                    loss += weight * kl;
                    *grad += (weight * slope) as f32;
                }
            }
            let entropy = entropies.iter().map(|h| f64::from(*h)).sum::<f64>() / pass.denominator;
            let device = hidden.device();
            let mut graph = ((&scored.log_probs * Tensor::new(grad, device)?)?.sum_all()?
                + (values * Tensor::new(grad_values, device)?)?.sum_all()?)?;
            if keys.entropy_coef > 0.0 {
                loss -= keys.entropy_coef * entropy;
                graph = (graph - (scored.entropy.sum_all()? * (keys.entropy_coef / pass.denominator))?)?;
            }
            let tally = &mut self.tally;
            tally.policy += surrogate.loss;
            tally.value += if keys.vf_coef > 0.0 { value.loss / keys.vf_coef } else { 0.0 };
            tally.approx_kl += surrogate.approx_kl_k2;
            tally.drift += surrogate.approx_kl;
            tally.clip_fraction += surrogate.clip_fraction;
            tally.value_clip_fraction += value.clip_fraction;
            tally.entropy += entropy;
            tally.ratios.push(surrogate.ratio * pass.denominator / m as f64);
            Ok(Outcome { loss, graph, metrics: Metrics::new(), tokens: batch.tokens })
        })
    }

    fn stops_updates(&mut self) -> bool {
        self.tally.updates += 1.0;
        let drift = std::mem::take(&mut self.tally.drift);
        self.keys.target_kl.is_some_and(|target| drift > target)
    }

    fn end_step(&mut self, step: u64) -> Result<Metrics> {
        let tally = std::mem::take(&mut self.tally);
        // Not before: a step that a signal breaks off is begun again from the checkpoint
        self.controller.update(tally.kl, self.rollout.len());
        let mut metrics = std::mem::take(&mut self.metrics);
        if let Some(field) = &mut self.field {
            let (scores, beta) = std::mem::take(&mut self.judged);
            field.add(&self.rollout, &scores, beta, step as u32)?;
            metrics.set("memory/size", field.len() as f64);
        }
        let n = tally.updates.max(1.0);
        let ratio = tally.ratios.iter().sum::<f64>() / tally.ratios.len().max(1) as f64;
        let spread: f64 = tally.ratios.iter().map(|r| (r - ratio).powi(2)).sum();
        metrics.extend([
            ("policy/approxkl_avg", tally.approx_kl / n),
            ("policy/clipfrac_avg", tally.clip_fraction / n),
            ("policy/entropy_avg", tally.entropy / n),
            ("loss/policy_avg", tally.policy / n),
            ("loss/value_avg", tally.value / n),
            ("val/clipfrac_avg", tally.value_clip_fraction / n),
            ("val/ratio", ratio),
            ("val/ratio_var", spread / tally.ratios.len().saturating_sub(1).max(1) as f64),
            ("val/updates", tally.updates),
        ]);
        Ok(metrics)
    }

    fn logged(&mut self, step: u64, folder: &Path) -> Result<()> {
        if !self.online.log_completions {
            return Ok(());
        }
        completions_table(&self.train, &self.rollout, &self.train.reward_weights().0, step, folder)
    }

    fn save_state(&self, checkpoint: &CheckpointWriter) -> Result<Value> {
        let head = self.actor.save_critic(checkpoint.path())?;
        let field = self.field.as_ref().map_or(Ok(Value::Null), |field| field.save(checkpoint.path()))?;
        serde_json::to_value(Saved { controller: self.controller, head, field })
            .map_err(|cause| Error::run(format!("cannot save the state of the run: {cause}")))
    }

    fn restore_state(&mut self, checkpoint: &Checkpoint, state: Value) -> Result<()> {
        let saved: Saved = serde_json::from_value(state)
            .map_err(|cause| Error::usage(format!("the checkpoint's state cannot be read: {cause}")))?;
        self.controller = saved.controller;
        if let Some(field) = &mut self.field {
            field.restore(checkpoint.path(), &saved.field)?;
        }
        self.actor.restore_critic(checkpoint.path(), saved.head)
    }
}
