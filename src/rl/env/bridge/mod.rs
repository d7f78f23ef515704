//! Environments of the real Gymnasium, stepped by Python processes: MuJoCo, Atari, a user's own.
//!
//! Each worker process steps some of the environments; all of them are asked before any is read. What passes through the
//! pipes is written down in `scripts/gym_worker.py`, which ships inside this program.

mod crew;
mod form;
mod frame;
mod hello;
mod options;
mod probe;
mod watchdog;
mod worker;

use bytemuck::cast_slice;
use serde_json::json;
use sha2::{Digest, Sha256};
use tracing::info;

pub use options::GymOptions;
pub use probe::{Probe, probe};

use self::crew::Crew;
use self::form::Form;
use self::frame::{answer, request};
use self::hello::Hello;
use super::history::History;
use super::native::check_actions;
use super::{Actions, EnvSpec, MakeOptions, VecStep, VectorEnv};
use crate::error::{Error, Result};
use crate::files::hex;

/// What stands before the id of an environment that Gymnasium steps
pub const PREFIX: &str = "gym:";

/// A replay takes as long as the episodes took, which nobody knows beforehand
const REPLAY_PATIENCE: u32 = 20;

/// N environments in other processes
pub struct Bridge {
    spec: EnvSpec,
    crew: Crew,
    form: Form,
    num_envs: usize,
    is_reset: bool,
    /// Discrete actions as numpy has them
    wide: Vec<i64>,
    record: Option<Record>,
}

/// What leads back where the environments are
struct Record {
    /// Of the running episode of each
    actions: Vec<Vec<f32>>,
    /// (N, D): what they show
    shown: Vec<f32>,
}

impl Bridge {
    /// Makes `num_envs` environments of `gym:ID`
    ///
    /// # Errors
    /// No Python, no Gymnasium or one too old, an unknown id, spaces without a fixed number of numbers; a worker that
    /// crashes, does not answer in time, or does not speak the protocol
    pub fn new(id: &str, num_envs: usize, options: &MakeOptions) -> Result<Self> {
        let gym = &options.gym;
        let mut crew = Crew::start(id, num_envs, gym)?;
        let mut make = json!({
            "id": id.strip_prefix(PREFIX).unwrap_or(id),
            "kwargs": options.kwargs,
            "max_episode_steps": options.max_episode_steps,
            "wrappers": gym.wrappers,
            "frame_skip": gym.frame_skip,
            "grayscale": gym.grayscale,
            "resize": gym.resize,
            "frame_stack": gym.frame_stack,
        });
        let hellos = crew.exchange(
            1,
            |worker| {
                make["num_envs"] = worker.environments().len().into();
                worker.send(request::MAKE, &[make.to_string().as_bytes()]);
            },
            |worker| {
                let length = worker.expect(answer::HELLO)?;
                let payload = worker.text(length)?;
                Hello::parse(&payload).map_err(|what| worker.failure(&what))
            },
        )?;
        let hello = crew.agreed(hellos)?;
        info!("`{id}`: Gymnasium {} under Python {}", hello.gymnasium, hello.python);
        let form = Form::new(&hello.observation_space, hello.is_image);
        let spec = EnvSpec {
            id: id.to_owned(),
            observation_space: hello.observation_space,
            action_space: hello.action_space,
            max_episode_steps: hello.max_episode_steps,
            reward_threshold: hello.reward_threshold,
        };
        Ok(Self { spec, crew, form, num_envs, is_reset: false, wide: Vec::new(), record: None })
    }

    fn check_room(&self, observations: &[f32]) -> Result<()> {
        let (found, expected) = (observations.len(), self.num_envs * self.spec.observation_space.len());
        if found == expected {
            return Ok(());
        }
        Err(Error::run(format!("expected room for {expected} numbers as observations, found {found}")))
    }
}

impl VectorEnv for Bridge {
    fn spec(&self) -> &EnvSpec {
        &self.spec
    }

    fn num_envs(&self) -> usize {
        self.num_envs
    }

    fn reset(&mut self, seed: Option<u64>, observations: &mut [f32]) -> Result<()> {
        self.check_room(observations)?;
        // Without any seed there would be no second run like the first
        let seed = seed.or_else(|| (!self.is_reset).then_some(0));
        let width = self.form.width();
        self.crew.exchange(
            1,
            |worker| {
                let first = seed.map_or(0, u128::from) + worker.environments().start as u128;
                worker.send(request::RESET, &[&[u8::from(seed.is_some())], &first.to_le_bytes()]);
            },
            |worker| {
                let envs = worker.environments();
                self.form.read_all(worker, &mut observations[envs.start * width..envs.end * width])
            },
        )?;
        if let Some(record) = &mut self.record {
            record.actions.iter_mut().for_each(Vec::clear);
            record.shown.copy_from_slice(observations);
        }
        self.is_reset = true;
        Ok(())
    }

    fn step(&mut self, actions: Actions<'_>, out: &mut VecStep) -> Result<()> {
        if !self.is_reset {
            return Err(Error::run("an environment must be reset before its first step"));
        }
        check_actions(&self.spec, self.num_envs, actions)?;
        out.check(self.num_envs, self.form.width())?;
        let Self { crew, form, wide, spec, .. } = self;
        let (rows, row) = action_rows(wide, actions, spec.action_space.len());
        crew.exchange(
            1,
            |worker| {
                let envs = worker.environments();
                worker.send(request::STEP, &[&rows[envs.start * row..envs.end * row]]);
            },
            |worker| form.read_step(worker, out),
        )?;
        if let Some(record) = &mut self.record {
            record.add(actions, out);
        }
        Ok(())
    }

    fn keep_history(&mut self) -> Result<()> {
        self.crew.exchange(
            1,
            |worker| worker.send(request::KEEP, &[]),
            |worker| {
                let length = worker.expect(answer::KEPT)?;
                worker.expect_length(length, 0)
            },
        )?;
        self.record = Some(Record {
            actions: vec![Vec::new(); self.num_envs],
            shown: vec![0.0; self.num_envs * self.form.width()],
        });
        Ok(())
    }

    fn histories(&mut self) -> Result<Option<Vec<History>>> {
        let Some(record) = &self.record else { return Ok(None) };
        let beginnings = self.crew.exchange(
            1,
            |worker| worker.send(request::HISTORY, &[]),
            |worker| {
                let length = worker.expect(answer::HISTORY)?;
                let text = worker.text(length)?;
                let count = worker.environments().len();
                let parsed = serde_json::from_slice::<Vec<String>>(&text).ok().filter(|starts| starts.len() == count);
                parsed.ok_or_else(|| worker.failure("does not know how its episodes began"))
            },
        )?;
        let shown = record.shown.chunks_exact(self.form.width());
        let histories = beginnings.into_iter().flatten().zip(&record.actions).zip(shown);
        Ok(Some(
            histories.map(|((start, actions), shown)| History::of(start, actions.clone(), digest(shown))).collect(),
        ))
    }

    fn replay(&mut self, histories: &[History]) -> Result<()> {
        if histories.len() != self.num_envs {
            return Err(Error::run(format!("expected {} histories, found {}", self.num_envs, histories.len())));
        }
        let each = self.spec.action_space.len();
        let starts =
            histories.iter().map(|history| history.foreign().map(|(start, _)| start)).collect::<Option<Vec<_>>>();
        let starts = starts.ok_or_else(|| Error::usage(format!("the checkpoint is not one of `{}`", self.spec.id)))?;
        let is_discrete = self.spec.action_space.discrete().is_some();
        let mut shown = vec![0.0; self.num_envs * self.form.width()];
        let Self { crew, form, wide, .. } = self;
        crew.exchange(
            REPLAY_PATIENCE,
            |worker| {
                let envs = worker.environments();
                let steps = |env: usize| histories[env].actions.len() / each;
                let episodes: Vec<_> = envs.clone().map(|env| (starts[env], steps(env))).collect();
                let text = json!(episodes).to_string();
                let numbers: Vec<f32> =
                    histories[envs].iter().flat_map(|history| history.actions.iter().copied()).collect();
                let whole: Vec<u32> = numbers.iter().filter(|_| is_discrete).map(|number| *number as u32).collect();
                let actions = if is_discrete { Actions::Discrete(&whole) } else { Actions::Continuous(&numbers) };
                let (rows, _) = action_rows(wide, actions, each);
                worker.send(request::REPLAY, &[&(text.len() as u32).to_le_bytes(), text.as_bytes(), rows]);
            },
            |worker| {
                let envs = worker.environments();
                let width = form.width();
                form.read_all(worker, &mut shown[envs.start * width..envs.end * width])
            },
        )?;
        for (env, (shown, history)) in shown.chunks_exact(self.form.width()).zip(histories).enumerate() {
            if history.foreign().is_none_or(|(_, seen)| seen != digest(shown)) {
                return Err(Error::usage(format!(
                    "environment {env} of `{}` cannot be led back where it was: the same actions show something else",
                    self.spec.id
                ))
                .hint("it depends on more than its `np_random` and its actions; begin anew, without `save_steps`"));
            }
        }
        let actions = histories.iter().map(|history| history.actions.clone()).collect();
        self.record = Some(Record { actions, shown });
        self.is_reset = true;
        Ok(())
    }
}

impl Record {
    fn add(&mut self, actions: Actions<'_>, out: &VecStep) {
        let n = self.actions.len();
        for (env, episode) in self.actions.iter_mut().enumerate() {
            if out.ended(env) {
                episode.clear();
                continue;
            }
            match actions {
                Actions::Discrete(actions) => episode.push(actions[env] as f32),
                Actions::Continuous(actions) => {
                    let each = actions.len() / n;
                    episode.extend_from_slice(&actions[env * each..(env + 1) * each]);
                }
            }
        }
        self.shown.copy_from_slice(&out.observations);
    }
}

/// The bytes of actions, and how many each environment has
fn action_rows<'a>(wide: &'a mut Vec<i64>, actions: Actions<'a>, width: usize) -> (&'a [u8], usize) {
    match actions {
        Actions::Discrete(actions) => {
            wide.clear();
            wide.extend(actions.iter().map(|action| i64::from(*action)));
            (cast_slice(wide), size_of::<i64>())
        }
        Actions::Continuous(actions) => (cast_slice(actions), width * size_of::<f32>()),
    }
}

/// What an environment shows, as a few letters
fn digest(shown: &[f32]) -> String {
    hex(&Sha256::digest(cast_slice::<f32, u8>(shown))[..16])
}
