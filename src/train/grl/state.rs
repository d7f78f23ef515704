//! Everything that a run of GRL learns beside the weights: replay store, particle memory, KL weight.

use std::collections::{BTreeMap, BTreeSet};

use super::features::Features;
use super::values::Values;
use crate::Result;
use crate::algo::kl::{AdaptiveKl, FixedKl, KlController};
use crate::config::GrlKeys;
use crate::grl::kernel::Point;
use crate::grl::memory::TokenMemory;
use crate::grl::replay::{ReplayStore, Rollout};

/// What is learnt beside the weights
#[derive(Clone)]
pub struct Learnt {
    /// Scored responses
    pub store: ReplayStore,
    /// Particles and field
    pub values: Values,
    /// Rewards of responses, where doubt about them counts
    pub responses: Option<Values>,
    /// Tokens at states, where a field steers the decoder
    pub particles: Option<TokenMemory>,
    /// What steers τ
    pub controller: KlController,
    /// The τ that soft returns are stated with
    pub tau: f64,
    /// The number of the next group of responses to one prompt
    pub next_group: u32,
}

impl Learnt {
    /// Nothing yet
    pub fn new(keys: &GrlKeys, dim: usize) -> Result<Self> {
        let controller = match keys.kl_target {
            Some(target) => {
                KlController::Adaptive(AdaptiveKl { coefficient: keys.tau, target, horizon: keys.kl_horizon })
            }
            None => KlController::Fixed(FixedKl { coefficient: keys.tau }),
        };
        Ok(Self {
            store: ReplayStore::new(keys.replay_capacity, keys.replay_max_age as u32)?,
            values: Values::new(keys, dim)?,
            responses: None,
            particles: None,
            controller,
            tau: keys.tau,
            next_group: 0,
        })
    }

    /// Takes in a step's responses and fits the field anew; gives how many of them are in the store
    pub fn add(&mut self, fresh: Vec<Rollout>, features: &Features, now: u32, fit_kernel: bool) -> Result<usize> {
        let tau = self.controller.coefficient();
        let all_move = tau.to_bits() != self.tau.to_bits();
        self.tau = tau;
        let kept = fresh.len();
        let coming: BTreeSet<u64> = fresh.iter().map(|rollout| rollout.prompt).collect();
        let mut touched: BTreeSet<u64> = self.store.expire(now).into_iter().map(|old| old.prompt).collect();
        if all_move {
            touched.extend(self.values.memory().iter().map(|particle| particle.point.key));
        }
        for rollout in fresh {
            touched.extend(self.store.push(rollout)?.map(|leaving| leaving.prompt));
        }
        self.restate(&touched, features, now)?;
        let points = coming.iter().map(|key| features.point(*key)).collect::<Result<Vec<Point<'_>>>>()?;
        self.values.make_room(&points, now)?;
        let returns = self.soft_returns(&coming);
        for point in points {
            self.values.restate(point, returns.get(&point.key).map_or(&[], Vec::as_slice), now)?;
        }
        if fit_kernel {
            self.values.fit_kernel()?;
        }
        self.values.refit()?;
        Ok(kept.min(self.store.len()))
    }

    /// Records L of responses under the policy that has just been asked, and fits the field anew
    pub fn refresh(&mut self, seen: &[(usize, f64)], features: &Features, now: u32) -> Result<()> {
        let mut touched = BTreeSet::new();
        for &(position, log_ratio) in seen {
            self.store.set_log_ratio(position, log_ratio)?;
            touched.extend(self.store.get(position).map(|rollout| rollout.prompt));
        }
        self.restate(&touched, features, now)?;
        self.values.refit()
    }

    /// Restates those of these prompts that have a particle: one that was evicted does not come back by replay
    fn restate(&mut self, keys: &BTreeSet<u64>, features: &Features, now: u32) -> Result<()> {
        let returns = self.soft_returns(keys);
        for key in keys.iter().filter(|key| self.values.memory().position(**key).is_some()).copied().collect::<Vec<_>>()
        {
            let returns = returns.get(&key).map_or(&[][..], Vec::as_slice);
            self.values.restate(features.point(key)?, returns, now)?;
        }
        Ok(())
    }

    fn soft_returns(&self, keys: &BTreeSet<u64>) -> BTreeMap<u64, Vec<f64>> {
        let mut returns: BTreeMap<u64, Vec<f64>> = BTreeMap::new();
        for rollout in self.store.iter().filter(|rollout| keys.contains(&rollout.prompt)) {
            returns.entry(rollout.prompt).or_default().push(rollout.soft_return(self.tau));
        }
        returns
    }

    /// Root of the mean square of b − V without b, over the newest `count` responses
    pub fn value_error(&self, count: usize, features: &Features) -> Result<f64> {
        let start = self.store.len().saturating_sub(count);
        let mut sum = 0.0;
        for rollout in self.store.iter().skip(start) {
            let b = rollout.soft_return(self.tau);
            sum += (b - self.values.without(features.point(rollout.prompt)?, b)).powi(2);
        }
        Ok((sum / (self.store.len() - start).max(1) as f64).sqrt())
    }
}
