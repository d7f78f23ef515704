//! Answers to numbers: in which form observations come, and what they must be.

use bytemuck::cast_slice_mut;

use super::frame::answer;
use super::worker::Worker;
use crate::Result;
use crate::rl::env::{Space, VecStep};

/// How observations are read
pub(super) struct Form {
    width: usize,
    /// Bytes, which become numbers from 0 to 1
    is_image: bool,
    /// How many states there are, where observations are their numbers
    states: Option<u32>,
    bytes: Vec<u8>,
}

impl Form {
    pub(super) fn new(space: &Space, is_image: bool) -> Self {
        Self { width: space.len(), is_image, states: space.discrete(), bytes: Vec::new() }
    }

    /// Numbers of an observation
    pub(super) fn width(&self) -> usize {
        self.width
    }

    /// Bytes of an observation
    fn row(&self) -> usize {
        if self.is_image { self.width } else { self.width * size_of::<f32>() }
    }

    /// An answer that holds an observation of each environment of the worker
    pub(super) fn read_all(&mut self, worker: &mut Worker, into: &mut [f32]) -> Result<()> {
        let length = worker.expect(answer::OBSERVATIONS)?;
        let envs = worker.environments();
        worker.expect_length(length, envs.len() * self.row())?;
        self.read(worker, envs.start, into)
    }

    /// An answer to a step
    pub(super) fn read_step(&mut self, worker: &mut Worker, out: &mut VecStep) -> Result<()> {
        let (envs, row, width) = (worker.environments(), self.row(), self.width);
        let n = envs.len();
        let fixed = n * (row + size_of::<f64>() + 2);
        let length = worker.expect(answer::STEP)?;
        if length < fixed {
            return worker.expect_length(length, fixed);
        }
        let rows = envs.start * width..envs.end * width;
        self.read(worker, envs.start, &mut out.observations[rows.clone()])?;
        worker.read(cast_slice_mut(&mut out.rewards[envs.clone()]))?;
        self.bytes.resize(2 * n, 0);
        worker.read(&mut self.bytes)?;
        for (i, env) in envs.clone().enumerate() {
            (out.terminated[env], out.truncated[env]) = (self.bytes[i] != 0, self.bytes[n + i] != 0);
            if !out.rewards[env].is_finite() {
                return Err(worker.misbehaved(env, &format!("gave the reward `{}`", out.rewards[env])));
            }
        }
        let ended = envs.clone().filter(|env| out.ended(*env)).count();
        worker.expect_length(length, fixed + ended * row)?;
        out.final_obs[rows.clone()].copy_from_slice(&out.observations[rows]);
        for env in envs {
            if out.ended(env) {
                self.read(worker, env, &mut out.final_obs[env * width..(env + 1) * width])?;
            }
        }
        Ok(())
    }

    /// Observations of the environments from `first` on
    fn read(&mut self, worker: &mut Worker, first: usize, into: &mut [f32]) -> Result<()> {
        if self.is_image {
            self.bytes.resize(into.len(), 0);
            worker.read(&mut self.bytes)?;
            into.iter_mut().zip(&self.bytes).for_each(|(number, byte)| *number = f32::from(*byte) / 255.0);
            return Ok(());
        }
        worker.read(cast_slice_mut(into))?;
        match self.states {
            Some(states) => {
                let is_state = |number: &f32| (0.0..states as f32).contains(number) && number.fract() == 0.0;
                match into.iter().position(|number| !is_state(number)) {
                    Some(at) => {
                        let what = format!("is in the state `{}`, and there are {states} from 0 on", into[at]);
                        Err(worker.misbehaved(first + at, &what))
                    }
                    None => Ok(()),
                }
            }
            None => match into.iter().position(|number| !number.is_finite()) {
                Some(at) => {
                    let (env, place) = (first + at / self.width, at % self.width);
                    let what = format!("gave an observation whose number {place} is `{}`", into[at]);
                    Err(worker.misbehaved(env, &what))
                }
                None => Ok(()),
            },
        }
    }
}
