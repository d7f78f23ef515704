//! Plays a policy and sums up its returns.

use serde::Serialize;

use super::env::{EpisodeStatistics, VecStep, VectorEnv};
use super::policy::Policy;
use crate::{Error, Result};

/// Returns and lengths of played episodes
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Played {
    /// Undiscounted returns, environment by environment
    pub returns: Vec<f64>,
    /// Steps
    pub lengths: Vec<u32>,
}

/// What is said of a set of returns
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Summary {
    /// How many
    pub episodes: usize,
    /// Mean return
    pub mean: f64,
    /// Standard deviation over episodes
    pub std: f64,
    /// Interquartile mean: of the middle half
    pub iqm: f64,
    /// Worst return
    pub min: f64,
    /// Best return
    pub max: f64,
    /// Mean length
    pub mean_length: f64,
}

/// Plays so many episodes. Each environment plays its share, so that short episodes do not count more than long ones
///
/// # Errors
/// An environment that the policy does not fit
pub fn play(
    policy: &Policy,
    env: &mut dyn VectorEnv,
    episodes: usize,
    deterministic: bool,
    seed: u64,
) -> Result<Played> {
    if !policy.fits(env.spec()) {
        return Err(Error::usage(format!("the policy does not fit the spaces of `{}`", env.spec().id)));
    }
    let n = env.num_envs();
    let share = |env: usize| episodes / n + usize::from(env < episodes % n);
    let mut played = vec![Played::default(); n];
    let mut step = VecStep::of(env);
    let mut statistics = EpisodeStatistics::new(n);
    // Not the seed itself: the environments draw from it already
    let mut actor = policy.actor(n, deterministic, seed.wrapping_add(1 << 32));
    env.reset(Some(seed), &mut step.observations)?;
    let mut missing = episodes;
    while missing > 0 {
        env.step(actor.act(&step.observations), &mut step)?;
        statistics.record(&step, |episode| {
            let of_env = &mut played[episode.env];
            if of_env.returns.len() < share(episode.env) {
                of_env.returns.push(episode.episode_return);
                of_env.lengths.push(episode.length);
                missing -= 1;
            }
        });
    }
    Ok(played.into_iter().fold(Played::default(), |mut all, of_env| {
        all.returns.extend(of_env.returns);
        all.lengths.extend(of_env.lengths);
        all
    }))
}

impl Played {
    /// Sums up
    ///
    /// # Panics
    /// If nothing was played
    pub fn summary(&self) -> Summary {
        let n = self.returns.len();
        assert!(n > 0, "no episode was played");
        let mean = self.returns.iter().sum::<f64>() / n as f64;
        let variance = self.returns.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / n as f64;
        let mut sorted = self.returns.clone();
        sorted.sort_by(f64::total_cmp);
        let middle = &sorted[n / 4..n - n / 4];
        Summary {
            episodes: n,
            mean,
            std: variance.sqrt(),
            iqm: middle.iter().sum::<f64>() / middle.len() as f64,
            min: sorted[0],
            max: sorted[n - 1],
            mean_length: self.lengths.iter().map(|length| f64::from(*length)).sum::<f64>() / n as f64,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_interquartile_mean_leaves_the_ends_out() {
        let played = Played { returns: vec![100.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, -100.0], lengths: vec![2; 8] };
        let summary = played.summary();
        // The middle four of eight: 2, 3, 4, 5
        assert_eq!((summary.iqm, summary.min, summary.max, summary.mean_length), (3.5, -100.0, 100.0, 2.0));
    }
}
