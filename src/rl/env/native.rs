//! What every native environment shares: random numbers, time limit, checks of actions, autoreset.

use super::history::History;
use super::rng::Pcg64;
use super::{Actions, EnvSpec, Goals, Space, Tabular, VecStep, VectorEnv};
use crate::error::{Error, Result};

/// The laws of one environment, applied to N of them: states are columns, one per quantity
pub(super) trait Dynamics {
    fn observation_space(&self) -> Space;

    fn action_space(&self) -> Space;

    /// Learns of the seed of a seeded reset, where more than the random numbers depend on it
    fn seed(&mut self, _seed: u64) {}

    /// Puts environment `i` into a start state and writes its observation
    fn reset(&mut self, i: usize, rng: &mut Pcg64, observation: &mut [f32]);

    /// Moves all environments on; writes `final_obs`, `rewards` and `terminated`. The actions are checked
    fn step(&mut self, actions: Actions<'_>, rngs: &mut [Pcg64], out: &mut VecStep);

    fn tabular(&self) -> Option<&Tabular> {
        None
    }

    fn goals(&self) -> Option<&dyn Goals> {
        None
    }
}

/// N native environments
pub(super) struct NativeVec<D> {
    spec: EnvSpec,
    dynamics: D,
    rngs: Vec<Pcg64>,
    /// Steps of the running episode
    elapsed: Vec<u32>,
    width: usize,
    is_reset: bool,
    /// Where someone wants to come back here
    histories: Option<Vec<History>>,
}

impl<D: Dynamics> NativeVec<D> {
    /// The random numbers are those of seed 0 until a reset brings another
    pub(super) fn new(
        id: &str,
        num_envs: usize,
        max_episode_steps: Option<u32>,
        threshold: Option<f64>,
        dynamics: D,
    ) -> Self {
        let spec = EnvSpec {
            id: id.to_owned(),
            observation_space: dynamics.observation_space(),
            action_space: dynamics.action_space(),
            max_episode_steps,
            reward_threshold: threshold,
        };
        let width = spec.observation_space.len();
        Self {
            spec,
            dynamics,
            rngs: generators(0, num_envs),
            elapsed: vec![0; num_envs],
            width,
            is_reset: false,
            histories: None,
        }
    }
}

/// Refuses actions that are not those of `num_envs` such environments
pub(super) fn check_actions(spec: &EnvSpec, num_envs: usize, actions: Actions<'_>) -> Result<()> {
    let (found, each) =
        match (actions, &spec.action_space) {
            (Actions::Discrete(actions), Space::Discrete { n }) => {
                if let Some(env) = actions.iter().position(|action| action >= n) {
                    let action = actions[env];
                    return Err(Error::run(format!("action {action} of environment {env} is out of range"))
                        .hint(format!("`{}` takes 0 to {}", spec.id, n - 1)));
                }
                (actions.len(), 1)
            }
            (Actions::Continuous(actions), space @ Space::Box(_)) => {
                if let Some(at) = actions.iter().position(|number| !number.is_finite()) {
                    let (env, number) = (at / space.len(), actions[at]);
                    return Err(Error::run(format!("the action of environment {env} holds `{number}`")));
                }
                (actions.len(), space.len())
            }
            (_, space) => return Err(Error::run(format!("the actions of `{}` are {space}", spec.id))),
        };
    let expected = num_envs * each;
    if found != expected {
        return Err(Error::run(format!("expected {expected} numbers as actions, found {found}")));
    }
    Ok(())
}

/// Environment `i` draws from the generator of `seed + i`
fn generators(seed: u64, num_envs: usize) -> Vec<Pcg64> {
    (0..num_envs).map(|i| Pcg64::new(u128::from(seed) + i as u128)).collect()
}

impl<D: Dynamics> VectorEnv for NativeVec<D> {
    fn spec(&self) -> &EnvSpec {
        &self.spec
    }

    fn num_envs(&self) -> usize {
        self.rngs.len()
    }

    fn reset(&mut self, seed: Option<u64>, observations: &mut [f32]) -> Result<()> {
        let (found, expected) = (observations.len(), self.rngs.len() * self.width);
        if found != expected {
            return Err(Error::run(format!("expected room for {expected} numbers as observations, found {found}")));
        }
        if let Some(seed) = seed {
            self.rngs = generators(seed, self.rngs.len());
            self.dynamics.seed(seed);
        }
        for (i, (rng, observation)) in self.rngs.iter_mut().zip(observations.chunks_exact_mut(self.width)).enumerate() {
            if let Some(histories) = &mut self.histories {
                histories[i] = History::beginning(rng);
            }
            self.dynamics.reset(i, rng, observation);
        }
        self.elapsed.fill(0);
        self.is_reset = true;
        Ok(())
    }

    fn step(&mut self, actions: Actions<'_>, out: &mut VecStep) -> Result<()> {
        if !self.is_reset {
            return Err(Error::run("an environment must be reset before its first step"));
        }
        check_actions(&self.spec, self.rngs.len(), actions)?;
        out.check(self.rngs.len(), self.width)?;
        if let Some(histories) = &mut self.histories {
            for (i, history) in histories.iter_mut().enumerate() {
                match actions {
                    Actions::Discrete(actions) => history.actions.push(actions[i] as f32),
                    Actions::Continuous(actions) => {
                        let each = actions.len() / self.rngs.len();
                        history.actions.extend_from_slice(&actions[i * each..(i + 1) * each]);
                    }
                }
            }
        }
        self.dynamics.step(actions, &mut self.rngs, out);
        out.observations.copy_from_slice(&out.final_obs);
        let limit = self.spec.max_episode_steps.unwrap_or(u32::MAX);
        for (i, elapsed) in self.elapsed.iter_mut().enumerate() {
            *elapsed = elapsed.saturating_add(1);
            let truncated = *elapsed >= limit && limit != u32::MAX;
            out.truncated[i] = truncated;
            if truncated || out.terminated[i] {
                *elapsed = 0;
                if let Some(histories) = &mut self.histories {
                    histories[i] = History::beginning(&self.rngs[i]);
                }
                let observation = &mut out.observations[i * self.width..][..self.width];
                self.dynamics.reset(i, &mut self.rngs[i], observation);
            }
        }
        Ok(())
    }

    fn tabular(&self) -> Option<&Tabular> {
        self.dynamics.tabular()
    }

    fn goals(&self) -> Option<&dyn Goals> {
        self.dynamics.goals()
    }

    fn keep_history(&mut self) -> Result<()> {
        self.histories = Some(self.rngs.iter().map(History::beginning).collect());
        Ok(())
    }

    fn histories(&mut self) -> Result<Option<Vec<History>>> {
        Ok(self.histories.clone())
    }

    fn replay(&mut self, histories: &[History]) -> Result<()> {
        let each = self.spec.action_space.len();
        let steps: Vec<usize> = histories.iter().map(|history| history.actions.len() / each).collect();
        if steps.len() != self.rngs.len() {
            return Err(Error::run(format!("expected {} histories, found {}", self.rngs.len(), steps.len())));
        }
        let beginnings = histories.iter().map(History::native).collect::<Option<Vec<_>>>();
        let beginnings =
            beginnings.ok_or_else(|| Error::usage(format!("the checkpoint is not one of `{}`", self.spec.id)))?;
        let longest = steps.iter().copied().max().unwrap_or(0);
        let mut out = VecStep::of(&*self);
        // All environments step at once: they begin one after the other, so that all are through at the end
        for t in 0..=longest {
            for (i, beginning) in beginnings.iter().enumerate().filter(|(i, _)| t + steps[*i] <= longest) {
                self.rngs[i] = (*beginning).clone();
                let observation = &mut out.observations[i * self.width..][..self.width];
                self.dynamics.reset(i, &mut self.rngs[i], observation);
            }
            if t == longest {
                break;
            }
            // One that has not begun yet does anything
            let actions = histories.iter().zip(&steps).flat_map(|(history, steps)| {
                let at = (t + steps).checked_sub(longest).map(|at| at * each);
                (0..each).map(move |d| at.map_or(0.0, |at| history.actions[at + d]))
            });
            let actions: Vec<f32> = actions.collect();
            match self.spec.action_space {
                Space::Discrete { .. } => {
                    let actions: Vec<u32> = actions.iter().map(|action| *action as u32).collect();
                    self.dynamics.step(Actions::Discrete(&actions), &mut self.rngs, &mut out);
                }
                Space::Box(_) => self.dynamics.step(Actions::Continuous(&actions), &mut self.rngs, &mut out),
            }
        }
        self.elapsed.iter_mut().zip(&steps).for_each(|(elapsed, steps)| *elapsed = *steps as u32);
        self.is_reset = true;
        self.histories = Some(histories.to_vec());
        Ok(())
    }
}

/// The actions of a discrete space
///
/// # Panics
/// If they are not: [`NativeVec`] has checked them
pub(super) fn discrete(actions: Actions<'_>) -> &[u32] {
    match actions {
        Actions::Discrete(actions) => actions,
        Actions::Continuous(_) => unreachable!("the kind of the actions was checked"),
    }
}

/// The actions of a box
///
/// # Panics
/// If they are not: [`NativeVec`] has checked them
pub(super) fn continuous(actions: Actions<'_>) -> &[f32] {
    match actions {
        Actions::Continuous(actions) => actions,
        Actions::Discrete(_) => unreachable!("the kind of the actions was checked"),
    }
}
