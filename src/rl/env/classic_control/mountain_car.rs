//! MountainCar: swing up a hill that is too steep for the engine (Moore 1990).

use crate::error::Result;
use crate::rl::env::kwargs::KwargReader;
use crate::rl::env::native::{Dynamics, discrete};
use crate::rl::env::rng::Pcg64;
use crate::rl::env::{Actions, Space, VecStep};

const FORCE: f64 = 0.001;
const GRAVITY: f64 = 0.0025;
pub(super) const MIN_POSITION: f64 = -1.2;
pub(super) const MAX_POSITION: f64 = 0.6;
pub(super) const MAX_SPEED: f64 = 0.07;
const GOAL_POSITION: f64 = 0.5;

pub(crate) struct MountainCar {
    pub(super) position: Vec<f64>,
    pub(super) velocity: Vec<f64>,
    goal_velocity: f64,
}

impl MountainCar {
    pub(crate) fn new(num_envs: usize, kwargs: &mut KwargReader<'_>) -> Result<Self> {
        let goal_velocity = kwargs.number("goal_velocity", 0.0)?;
        Ok(Self { position: vec![0.0; num_envs], velocity: vec![0.0; num_envs], goal_velocity })
    }
}

/// Position and velocity, here and with continuous actions
pub(super) fn observation_space() -> Space {
    Space::vector(&[MIN_POSITION as f32, -MAX_SPEED as f32], &[MAX_POSITION as f32, MAX_SPEED as f32])
}

/// Where an episode starts, here and with continuous actions
pub(super) fn start(rng: &mut Pcg64, observation: &mut [f32]) -> (f64, f64) {
    let position = rng.uniform(-0.6, -0.4);
    observation.copy_from_slice(&[position as f32, 0.0]);
    (position, 0.0)
}

impl Dynamics for MountainCar {
    fn observation_space(&self) -> Space {
        observation_space()
    }

    fn action_space(&self) -> Space {
        Space::Discrete { n: 3 }
    }

    fn reset(&mut self, i: usize, rng: &mut Pcg64, observation: &mut [f32]) {
        (self.position[i], self.velocity[i]) = start(rng, observation);
    }

    fn step(&mut self, actions: Actions<'_>, _rngs: &mut [Pcg64], out: &mut VecStep) {
        let states = self.position.iter_mut().zip(&mut self.velocity).zip(discrete(actions));
        let observations = out.final_obs.chunks_exact_mut(2).zip(&mut out.terminated);
        for (((position, velocity), action), (observation, terminated)) in states.zip(observations) {
            let push = (f64::from(*action) - 1.0) * FORCE + (3.0 * *position).cos() * -GRAVITY;
            *velocity = (*velocity + push).clamp(-MAX_SPEED, MAX_SPEED);
            *position = (*position + *velocity).clamp(MIN_POSITION, MAX_POSITION);
            if *position == MIN_POSITION && *velocity < 0.0 {
                *velocity = 0.0;
            }
            *terminated = *position >= GOAL_POSITION && *velocity >= self.goal_velocity;
            observation.copy_from_slice(&[*position as f32, *velocity as f32]);
        }
        out.rewards.fill(-1.0);
    }
}
