//! The new completions of a step: which prompts they are of, what the store keeps of them, and held-out ones.

use candle_core::{DType, Device, Tensor};
use rand::SeedableRng;
use rand::rngs::Xoshiro256PlusPlus;

use super::responses::Guess;
use super::{Grl, Scored};
use crate::config::PromptAcquisition;
use crate::grl::replay::RewardKind;
use crate::grl::uncertainty::{acquisition_weights, adaptive_counts, draw_by_weight};
use crate::ops::kernels::noise::mix;
use crate::rollout::{Bend, Policy, Rollout};
use crate::run::{Part, StepClock};
use crate::train::completions::{log_probs, objective_metrics};
use crate::train::objective::{Outcome, Split};
use crate::{Error, Result};

impl Grl {
    pub(super) fn rng(&self, what: u64) -> Xoshiro256PlusPlus {
        Xoshiro256PlusPlus::seed_from_u64(mix(self.seed ^ mix(u64::from(self.step) ^ mix(what ^ 0x67_726c))))
    }

    /// The rows of a step: those of the plan, or from a pool those whose value is least known
    pub(super) fn prompts(&mut self, planned: Vec<usize>) -> Result<Vec<usize>> {
        if self.keys.prompt_acquisition == PromptAcquisition::None || self.learnt.values.memory().is_empty() {
            return Ok(planned);
        }
        let mut rng = self.rng(1);
        let even = vec![1.0; self.train.len()];
        let pool = draw_by_weight(&even, planned.len() * self.keys.acquisition_pool, &mut rng);
        let (mut deviations, mut costs) = (Vec::new(), Vec::new());
        for &row in &pool {
            let ids = self.train.prompt(row);
            let key = self.features.learn(ids)?;
            let known = self.learnt.values.predict(self.features.point(key)?);
            deviations.push(known.and_then(|known| known.variance).unwrap_or(0.0).sqrt());
            costs.push(ids.len() as f64);
        }
        let weights = acquisition_weights(&deviations, &costs)?;
        Ok(draw_by_weight(&weights, planned.len(), &mut rng).into_iter().map(|i| pool[i]).collect())
    }

    /// How many completions each prompt of a step gets: `num_generations`, or more where the value is least known
    pub(super) fn counts(&mut self, rows: &[usize]) -> Result<Vec<usize>> {
        let even = vec![self.online.num_generations; rows.len()];
        let Some(most) = self.keys.adaptive_generations else { return Ok(even) };
        let mut variances = Vec::with_capacity(rows.len());
        for row in rows {
            let key = self.features.learn(self.train.prompt(*row))?;
            let known = self.learnt.values.predict(self.features.point(key)?);
            let Some(variance) = known.and_then(|known| known.variance) else { return Ok(even) };
            variances.push(variance);
        }
        let fewest = if self.keys.needs_groups() { 2 } else { 1 };
        adaptive_counts(&variances, even.iter().sum(), (fewest, most))
    }

    /// Judged completions as the store keeps them, `guesses` in the place of rewards that were not asked for
    pub(super) fn scored(
        &mut self,
        rollout: &mut Rollout,
        guesses: &[Option<Guess>],
        clock: &mut StepClock,
    ) -> Result<Vec<Scored>> {
        let temperature = self.online.temperature;
        rollout.ref_log_probs =
            clock.time(Part::Reference, || log_probs(self.features.reference(), rollout, self.batch, temperature))?;
        let exact = rollout.sampled_log_probs.len() == rollout.len();
        // Where the sampler drew from π itself, its log-probabilities are π's
        let policy = if exact && self.train.samples_whole_distribution() {
            rollout.sampled_log_probs.clone()
        } else {
            clock.time(Part::Forward, || {
                if self.is_frozen() {
                    return self.steered_log_probs(rollout);
                }
                log_probs(&self.actor.view, rollout, self.batch, temperature)
            })?
        };
        let behaviour = if exact { &rollout.sampled_log_probs } else { &policy };
        let below_zero = |values: &[f32]| values.iter().map(|x| x.min(0.0)).collect::<Vec<f32>>();
        let mut scored = Vec::with_capacity(rollout.len());
        for i in 0..rollout.len() {
            let ids = &rollout.prompts[rollout.prompt_of[i]];
            let prompt = self.features.learn(ids)?;
            // A completion that no reward can judge says nothing
            let (reward, reward_kind, reward_variance) = match (guesses.get(i), rollout.rewards[i]) {
                (Some(Some(guess)), _) => (guess.mean, RewardKind::Imputed, guess.variance),
                (_, Some(reward)) => (reward, RewardKind::Gold, 0.0),
                (_, None) => continue,
            };
            let log_probs_ref = below_zero(&rollout.ref_log_probs[i]);
            let pairs = policy[i].iter().zip(&log_probs_ref);
            scored.push(Scored {
                prompt,
                prompt_tokens: ids.clone(),
                tokens: rollout.completions[i].clone(),
                reward,
                reward_kind,
                reward_variance,
                log_ratio: pairs.map(|(policy, reference)| f64::from(*policy) - f64::from(*reference)).sum(),
                log_probs_behaviour: below_zero(&behaviour[i]),
                log_probs_ref,
                born: self.step,
                group: self.learnt.next_group.wrapping_add(rollout.prompt_of[i] as u32),
            });
        }
        Ok(scored)
    }

    /// Fresh completions of held-out prompts: what they score, and how well the field foresaw it
    pub(super) fn evaluate(&mut self, rows: &[usize], clock: &mut StepClock) -> Result<Outcome> {
        let bend = self.bend_rows(rows, Split::Eval)?;
        let Some(mut eval) = self.eval.take() else { return Err(Error::run("there are no held-out prompts")) };
        let result = (|| {
            let per_prompt = self.online.num_generations_eval.unwrap_or(self.online.num_generations);
            let seed = mix(self.seed ^ mix(rows[0] as u64 ^ 0x6576_616c));
            let policy = Policy { model: &self.actor.view, bend: bend.as_ref().map(|bend| bend as &dyn Bend) };
            let mut rollout = eval.collect(policy, rows, per_prompt, seed, clock, &|| Ok(()))?;
            let scored = self.scored(&mut rollout, &[], clock)?;
            let mut metrics = self.rollout_metrics(&rollout, &scored, &eval.reward_weights().0)?;
            metrics.extend(self.calibration_metrics(&scored)?.iter());
            objective_metrics(&rollout, self.learnt.tau, &mut metrics);
            let graph = Tensor::zeros((), DType::F32, &Device::Cpu)?;
            let loss = -metrics.get("soft_return").unwrap_or(0.0);
            Ok(Outcome { loss, graph, metrics, tokens: rollout.tokens() })
        })();
        self.eval = Some(eval);
        result
    }
}
