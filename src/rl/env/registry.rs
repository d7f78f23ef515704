//! The environments by id.

use super::bit_flip::BitFlip;
use super::bridge::{self, Bridge, GymOptions};
use super::classic_control::{acrobot, cartpole, mountain_car, mountain_car_continuous, pendulum};
use super::kwargs::{KwargReader, Kwargs};
use super::native::{Dynamics, NativeVec};
use super::tabular::{Tabular, TabularDynamics};
use super::toy_text::{cliff_walking, frozen_lake, grid_world, taxi};
use super::{EnvSpec, VectorEnv};
use crate::error::{Error, Result};

/// How to make environments
#[derive(Debug, Clone, Default)]
pub struct MakeOptions {
    /// Truncate episodes after so many steps, instead of what the id says
    pub max_episode_steps: Option<u32>,
    /// Arguments of the environment
    pub kwargs: Kwargs,
    /// For ids with [`bridge::PREFIX`]
    pub gym: GymOptions,
}

/// Makes the dynamics of an entry for the reader's arguments
type Build = fn(Maker<'_>) -> Result<Box<dyn VectorEnv>>;

struct Entry {
    id: &'static str,
    /// Older ids with the same dynamics
    aliases: &'static [&'static str],
    max_episode_steps: Option<u32>,
    reward_threshold: Option<f64>,
    build: Build,
}

const fn entry(id: &'static str, limit: Option<u32>, threshold: Option<f64>, build: Build) -> Entry {
    Entry { id, aliases: &[], max_episode_steps: limit, reward_threshold: threshold, build }
}

/// Gymnasium's ids, limits and thresholds, GridWorld and BitFlip
const ENTRIES: &[Entry] = &[
    entry("GridWorld-v0", Some(100), None, |mut maker| {
        // Of the outer seed where no other is asked for: that of the vector's reset
        let pinned =
            maker.kwargs.take("layout_seed", None, "a whole number from 0 up", |value| Some(Some(value.as_u64()?)))?;
        let num_envs = maker.num_envs;
        maker.finish(match pinned {
            Some(seed) => TabularDynamics::new(num_envs, grid_world::model(seed)),
            None => TabularDynamics::seeded(num_envs, grid_world::model),
        })
    }),
    // As many steps as there are bits, which is what the farthest word needs
    entry("BitFlip-v0", None, None, |mut maker| {
        let expected = "a whole number from 1 to 64";
        let parse = |value: &serde_json::Value| value.as_u64().filter(|n| (1..=64).contains(n));
        let bits = maker.kwargs.take("n_bits", 10, expected, parse)?;
        maker.spec.1 = maker.spec.1.or(Some(bits as u32));
        let dynamics = BitFlip::new(maker.num_envs, bits as usize);
        maker.finish(dynamics)
    }),
    entry("CliffWalking-v1", None, None, |maker| maker.tabular(|kwargs| cliff_walking::model(kwargs, false))),
    entry("CliffWalkingSlippery-v1", None, None, |maker| maker.tabular(|kwargs| cliff_walking::model(kwargs, true))),
    entry("FrozenLake-v1", Some(100), Some(0.7), |maker| maker.tabular(|kwargs| frozen_lake::model(kwargs, "4x4"))),
    entry("FrozenLake8x8-v1", Some(200), Some(0.85), |maker| maker.tabular(|kwargs| frozen_lake::model(kwargs, "8x8"))),
    Entry {
        aliases: &["Taxi-v3"],
        ..entry("Taxi-v4", Some(200), Some(8.0), |maker| maker.tabular(|_| Ok(taxi::model())))
    },
    entry("CartPole-v1", Some(500), Some(475.0), |mut maker| {
        let dynamics = cartpole::CartPole::new(maker.num_envs, &mut maker.kwargs)?;
        maker.finish(dynamics)
    }),
    entry("MountainCar-v0", Some(200), Some(-110.0), |mut maker| {
        let dynamics = mountain_car::MountainCar::new(maker.num_envs, &mut maker.kwargs)?;
        maker.finish(dynamics)
    }),
    entry("MountainCarContinuous-v0", Some(999), Some(90.0), |mut maker| {
        let dynamics = mountain_car_continuous::MountainCarContinuous::new(maker.num_envs, &mut maker.kwargs)?;
        maker.finish(dynamics)
    }),
    entry("Acrobot-v1", Some(500), Some(-100.0), |maker| {
        let dynamics = acrobot::Acrobot::new(maker.num_envs);
        maker.finish(dynamics)
    }),
    entry("Pendulum-v1", Some(200), None, |mut maker| {
        let dynamics = pendulum::Pendulum::new(maker.num_envs, &mut maker.kwargs)?;
        maker.finish(dynamics)
    }),
    #[cfg(feature = "box2d")]
    entry("LunarLander-v3", Some(1000), Some(200.0), |mut maker| {
        let dynamics = super::lunar_lander::LunarLander::new(maker.num_envs, &mut maker.kwargs, false)?;
        maker.finish(dynamics)
    }),
    #[cfg(feature = "box2d")]
    entry("LunarLanderContinuous-v3", Some(1000), Some(200.0), |mut maker| {
        let dynamics = super::lunar_lander::LunarLander::new(maker.num_envs, &mut maker.kwargs, true)?;
        maker.finish(dynamics)
    }),
];

/// What an entry makes its environments of
struct Maker<'a> {
    spec: (&'a str, Option<u32>, Option<f64>),
    num_envs: usize,
    kwargs: KwargReader<'a>,
}

impl Maker<'_> {
    fn finish<D: Dynamics + 'static>(self, dynamics: D) -> Result<Box<dyn VectorEnv>> {
        self.kwargs.finish()?;
        let (id, limit, threshold) = self.spec;
        Ok(Box::new(NativeVec::new(id, self.num_envs, limit, threshold, dynamics)))
    }

    fn tabular(mut self, model: impl FnOnce(&mut KwargReader<'_>) -> Result<Tabular>) -> Result<Box<dyn VectorEnv>> {
        let model = model(&mut self.kwargs)?;
        let dynamics = TabularDynamics::new(self.num_envs, model);
        self.finish(dynamics)
    }
}

/// Makes `num_envs` environments of an id: native ones, or of the real Gymnasium those of `gym:ID`
pub fn make_vec(id: &str, num_envs: usize, options: &MakeOptions) -> Result<Box<dyn VectorEnv>> {
    if num_envs == 0 {
        return Err(Error::usage("at least one environment is needed"));
    }
    let limit = options.max_episode_steps;
    if limit == Some(0) {
        return Err(Error::usage("`max_episode_steps` must be at least 1, got 0"));
    }
    if id.starts_with(bridge::PREFIX) {
        return Ok(Box::new(Bridge::new(id, num_envs, options)?));
    }
    let entry = find(id)?;
    if options.gym != GymOptions::default() {
        return Err(Error::usage(format!("`{id}` is a native environment, for which keys with `gym_` do nothing"))
            .hint(format!("leave them out, or take Gymnasium's own: `gym:{id}`")));
    }
    (entry.build)(Maker {
        spec: (entry.id, limit.or(entry.max_episode_steps), entry.reward_threshold),
        num_envs,
        kwargs: KwargReader::new(entry.id, &options.kwargs),
    })
}

/// A native environment as a list shows it
#[derive(Debug, Clone, PartialEq)]
pub struct Listing {
    /// What [`make_vec`] makes of its id
    pub spec: EnvSpec,
    /// Older ids that mean the same
    pub aliases: &'static [&'static str],
}

/// All native environments
pub fn listing() -> Result<Vec<Listing>> {
    let list = |entry: &Entry| {
        let env = make_vec(entry.id, 1, &MakeOptions::default())?;
        Ok(Listing { spec: env.spec().clone(), aliases: entry.aliases })
    };
    ENTRIES.iter().map(list).collect()
}

fn find(id: &str) -> Result<&'static Entry> {
    let found = ENTRIES.iter().find(|entry| entry.id == id || entry.aliases.contains(&id));
    found.ok_or_else(|| {
        let error = Error::usage(format!("there is no native environment `{id}`"));
        #[cfg(not(feature = "box2d"))]
        if id.starts_with("LunarLander") {
            return error.hint("this program was built without the feature `box2d`");
        }
        let other = format!("an environment of an installed Gymnasium is `gym:{id}`");
        match nearest(id) {
            Some(near) => error.hint(format!("did you mean `{near}`? {other}")),
            None => error.hint(format!("`collimate rl envs` lists them; {other}")),
        }
    })
}

/// The id that differs least, without regard to case and version, if the difference is small
fn nearest(id: &str) -> Option<&'static str> {
    let bare = |id: &str| {
        let name = id.rsplit_once("-v").map_or(id, |(name, _)| name);
        name.to_lowercase().replace(['-', '_', ' '], "")
    };
    let ids = ENTRIES.iter().map(|entry| (strsim::damerau_levenshtein(&bare(entry.id), &bare(id)), entry.id));
    let (distance, near) = ids.min_by_key(|(distance, _)| *distance)?;
    (distance <= 1 + bare(id).len() / 4).then_some(near)
}
