//! The field over prompts as a baseline for a trainer that keeps its own loss.

use std::path::Path;

use serde_json::Value;

use super::features::{Features, key};
use super::keep;
use super::state::Learnt;
use crate::Result;
use crate::algo::kl::{FixedKl, KlController};
use crate::config::{GrlKeys, Values};
use crate::grl::replay::{RewardKind, Rollout as Scored};
use crate::model::gpt2::Gpt2;
use crate::rollout::Rollout;

/// Values of prompts from a particle memory with GRL's default keys. Soft returns stay as they were when they were sampled,
/// under the policy of that time: nothing is replayed
pub struct PromptBaseline {
    features: Features,
    learnt: Learnt,
    keys: GrlKeys,
}

impl PromptBaseline {
    /// Nothing is known yet; features are those of `reference`, fitted to the prompts
    pub fn open<'a>(reference: Gpt2, prompts: impl Iterator<Item = &'a [u32]>) -> Result<Self> {
        let keys = GrlKeys::from_values(&Values::default())?;
        let features = Features::fit(reference, prompts, keys.feature_dim, keys.feature_prompts)?;
        Ok(Self { learnt: Learnt::new(&keys, features.dim())?, features, keys })
    }

    /// V(x) of the prompt of each completion; 0 before anything is known
    pub fn values(&mut self, rollout: &Rollout) -> Result<Vec<f64>> {
        let mut of_prompts = Vec::with_capacity(rollout.prompts.len());
        for ids in &rollout.prompts {
            let key = self.features.learn(ids)?;
            of_prompts.push(self.learnt.values.predict(self.features.point(key)?).map_or(0.0, |known| known.mean));
        }
        Ok(rollout.prompt_of.iter().map(|prompt| of_prompts[*prompt]).collect())
    }

    /// Takes in completions with their scores and the KL weight that held for them
    pub fn add(&mut self, rollout: &Rollout, scores: &[f32], tau: f64, step: u32) -> Result<()> {
        let below_zero = |values: &[f32]| values.iter().map(|x| x.min(0.0)).collect::<Vec<f32>>();
        let scored = (0..rollout.len()).map(|i| {
            let ids = &rollout.prompts[rollout.prompt_of[i]];
            let (old, reference) = (below_zero(&rollout.old_log_probs[i]), below_zero(&rollout.ref_log_probs[i]));
            Scored {
                prompt: key(ids),
                prompt_tokens: ids.clone(),
                tokens: rollout.completions[i].clone(),
                reward: f64::from(scores[i]),
                reward_kind: RewardKind::Gold,
                reward_variance: 0.0,
                log_ratio: old
                    .iter()
                    .zip(&reference)
                    .map(|(old, reference)| f64::from(*old) - f64::from(*reference))
                    .sum(),
                log_probs_behaviour: old,
                log_probs_ref: reference,
                born: step,
                group: 0,
            }
        });
        let scored = scored.collect();
        self.learnt.controller = KlController::Fixed(FixedKl { coefficient: tau });
        let due = u64::from(step).is_multiple_of(self.keys.kernel_fit_steps as u64);
        self.learnt.add(scored, &self.features, step, due)?;
        Ok(())
    }

    /// Prompts that are remembered
    pub fn len(&self) -> usize {
        self.learnt.values.memory().len()
    }

    /// Whether there is none
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Writes everything that a resume needs
    pub fn save(&self, folder: &Path) -> Result<Value> {
        keep::write_memory(folder, &self.learnt, &self.features)?;
        keep::save(folder, &self.learnt, &self.features, None, Vec::new())
    }

    /// Puts back what [`Self::save`] wrote
    pub fn restore(&mut self, folder: &Path, state: &Value) -> Result<()> {
        keep::restore(folder, state, &mut self.learnt, &mut self.features).map(drop)
    }
}
