//! What off-policy agents share: environments that are stepped, and a replay that remembers.

use crate::rl::env::rng::Pcg64;
use crate::rl::env::{Actions, Episode, EpisodeStatistics, VecStep, VectorEnv};
use crate::rl::hindsight::Hindsight;
use crate::rl::n_step::{NStep, Seen};
use crate::rl::observer::Observer;
use crate::rl::replay::{ActionNumber, Replay};
use crate::rl::state::State;
use crate::{Error, Result};

/// Settings of the replay, whichever agent it serves
#[derive(Debug, Clone, PartialEq)]
pub struct ReplayOptions {
    /// Transitions kept
    pub buffer_size: usize,
    /// Random steps before the first update
    pub learning_starts: u64,
    /// Transitions of an update
    pub batch_size: usize,
    /// γ
    pub gamma: f64,
    /// Steps of each environment before updates
    pub train_freq: usize,
    /// Updates then; as many as there were steps where not set
    pub gradient_steps: Option<usize>,
    /// Steps that a transition spans
    pub n_steps: usize,
    /// Goals in hindsight for every transition; 0 for none
    pub n_sampled_goal: usize,
}

impl Default for ReplayOptions {
    fn default() -> Self {
        Self {
            buffer_size: 1_000_000,
            learning_starts: 100,
            batch_size: 256,
            gamma: 0.99,
            train_freq: 1,
            gradient_steps: Some(1),
            n_steps: 1,
            n_sampled_goal: 0,
        }
    }
}

/// Between a step and the replay
#[derive(Debug)]
enum Recorder<A> {
    Steps(NStep<A>),
    Hindsight(Hindsight<A>),
}

/// Environments and the replay of what was done in them
pub(super) struct Collector<A> {
    pub(super) options: ReplayOptions,
    pub(super) observer: Observer,
    pub(super) replay: Replay<A>,
    pub(super) timesteps: u64,
    pub(super) episodes: Vec<Episode>,
    env: Box<dyn VectorEnv>,
    recorder: Recorder<A>,
    step: VecStep,
    statistics: EpisodeStatistics,
    features: Vec<f32>,
    next_features: Vec<f32>,
    action_width: usize,
}

impl<A: ActionNumber> Collector<A> {
    /// Resets the environments with `seed`; actions are `action_width` numbers to learn from
    ///
    /// # Errors
    /// Goals in hindsight where there are none, or together with returns over several steps
    pub(super) fn new(
        mut env: Box<dyn VectorEnv>,
        options: ReplayOptions,
        action_width: usize,
        seed: u64,
    ) -> Result<Self> {
        let observer = Observer::new(&env.spec().observation_space, false);
        let (n, width) = (env.num_envs(), observer.width());
        let recorder = if options.n_sampled_goal > 0 {
            if env.goals().is_none() {
                let message = format!("`{}` has no goals, which `n_sampled_goal` needs", env.spec().id);
                return Err(Error::usage(message).hint("leave out `n_sampled_goal`; `BitFlip-v0` has goals"));
            }
            if options.n_steps > 1 {
                return Err(Error::usage("`n_sampled_goal` and `n_steps` above 1 exclude each other"));
            }
            Recorder::Hindsight(Hindsight::new(options.n_sampled_goal, options.gamma, n))
        } else {
            Recorder::Steps(NStep::new(options.n_steps, options.gamma, n))
        };
        let replay = Replay::new(options.buffer_size, width, action_width);
        let mut step = VecStep::of(&*env);
        env.reset(Some(seed), &mut step.observations)?;
        Ok(Self {
            options,
            observer,
            replay,
            timesteps: 0,
            episodes: Vec::new(),
            env,
            recorder,
            step,
            statistics: EpisodeStatistics::new(n),
            features: vec![0.0; n * width],
            next_features: vec![0.0; n * width],
            action_width,
        })
    }

    /// How many environments there are
    pub(super) fn num_envs(&self) -> usize {
        self.env.num_envs()
    }

    /// What the next actions answer to, row by row
    pub(super) fn look(&mut self) -> &[f32] {
        self.observer.features(&self.step.observations, &mut self.features);
        &self.features
    }

    /// Whether actions are still random
    pub(super) fn is_warming_up(&self) -> bool {
        self.timesteps < self.options.learning_starts
    }

    /// Takes `actions` after [`Collector::look`], and remembers them as `learned`
    pub(super) fn advance(&mut self, actions: Actions<'_>, learned: &[A], rng: &mut Pcg64) -> Result<()> {
        self.env.step(actions, &mut self.step)?;
        self.observer.features(&self.step.final_obs, &mut self.next_features);
        let (width, n) = (self.observer.width(), self.env.num_envs());
        for env in 0..n {
            let row = env * width..(env + 1) * width;
            let seen = Seen {
                features: &self.features[row.clone()],
                action: &learned[env * self.action_width..(env + 1) * self.action_width],
                reward: self.step.rewards[env],
                next_features: &self.next_features[row],
                terminated: self.step.terminated[env],
                ended: self.step.ended(env),
            };
            let replay = &mut self.replay;
            match (&mut self.recorder, self.env.goals()) {
                (Recorder::Hindsight(hindsight), Some(goals)) => {
                    hindsight.record(env, &seen, goals, rng, |transition| replay.push(transition));
                }
                (Recorder::Steps(steps), _) => steps.record(env, &seen, |transition| replay.push(transition)),
                (Recorder::Hindsight(_), None) => unreachable!("`new` refuses environments without goals"),
            }
        }
        let episodes = &mut self.episodes;
        self.statistics.record(&self.step, |episode| episodes.push(episode));
        self.timesteps += n as u64;
        Ok(())
    }

    /// Takes out what the next step depends on, or puts it back
    pub(super) fn persist(&mut self, state: &mut State) -> Result<()> {
        state.part("replay", |state| self.replay.persist(state))?;
        state.part("recorder", |state| match &mut self.recorder {
            Recorder::Steps(steps) => steps.persist(state),
            Recorder::Hindsight(hindsight) => hindsight.persist(state),
        })?;
        state.tensor("observations", &mut self.step.observations)?;
        state.value("running_episodes", &mut self.statistics)?;
        state.value("timesteps", &mut self.timesteps)?;
        state.environments(&mut *self.env)
    }

    /// Updates that are due after `train_freq` steps: none while nothing is known
    pub(super) fn updates_due(&self) -> usize {
        // n-step returns and hindsight keep the first transitions back
        if self.timesteps <= self.options.learning_starts || self.replay.is_empty() {
            return 0;
        }
        self.options.gradient_steps.unwrap_or(self.options.train_freq * self.num_envs())
    }
}
