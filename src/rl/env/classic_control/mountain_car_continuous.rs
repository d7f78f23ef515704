//! MountainCarContinuous: the same hill with a throttle, and a price on using it.

use super::mountain_car::{MAX_POSITION, MAX_SPEED, MIN_POSITION, observation_space, start};
use crate::error::Result;
use crate::rl::env::kwargs::KwargReader;
use crate::rl::env::native::{Dynamics, continuous};
use crate::rl::env::rng::Pcg64;
use crate::rl::env::{Actions, Space, VecStep};

const POWER: f64 = 0.0015;
const GRAVITY: f64 = 0.0025;
const GOAL_POSITION: f64 = 0.45;

pub(crate) struct MountainCarContinuous {
    pub(super) position: Vec<f64>,
    pub(super) velocity: Vec<f64>,
    /// Gymnasium's state is f64 after a reset and f32 from the first step on
    is_fresh: Vec<bool>,
    goal_velocity: f64,
}

impl MountainCarContinuous {
    pub(crate) fn new(num_envs: usize, kwargs: &mut KwargReader<'_>) -> Result<Self> {
        let goal_velocity = kwargs.number("goal_velocity", 0.0)?;
        let column = || vec![0.0; num_envs];
        Ok(Self { position: column(), velocity: column(), is_fresh: vec![true; num_envs], goal_velocity })
    }
}

/// What a throttle and the slope add to the velocity. Within its bounds the throttle is an f32, which makes the sum one
fn push(action: f32, slope: f64) -> f64 {
    if action < -1.0 {
        -POWER - slope
    } else if action > 1.0 {
        POWER - slope
    } else {
        f64::from(action * POWER as f32 - slope as f32)
    }
}

/// The first step after a reset, in f64
fn first(position: f64, velocity: f64, action: f32) -> (f64, f64) {
    let velocity = (velocity + push(action, GRAVITY * (3.0 * position).cos())).clamp(-MAX_SPEED, MAX_SPEED);
    let position = (position + velocity).clamp(MIN_POSITION, MAX_POSITION);
    let stopped = position == MIN_POSITION && velocity < 0.0;
    (position, if stopped { 0.0 } else { velocity })
}

/// Every other step, in f32 except for the cosine
fn later(position: f32, velocity: f32, action: f32) -> (f32, f32) {
    let (speed, lowest) = (MAX_SPEED as f32, MIN_POSITION as f32);
    let slope = GRAVITY * f64::from(3.0 * position).cos();
    let velocity = (velocity + push(action, slope) as f32).clamp(-speed, speed);
    let position = (position + velocity).clamp(lowest, MAX_POSITION as f32);
    let stopped = position == lowest && velocity < 0.0;
    (position, if stopped { 0.0 } else { velocity })
}

impl Dynamics for MountainCarContinuous {
    fn observation_space(&self) -> Space {
        observation_space()
    }

    fn action_space(&self) -> Space {
        Space::symmetric(&[1.0])
    }

    fn reset(&mut self, i: usize, rng: &mut Pcg64, observation: &mut [f32]) {
        (self.position[i], self.velocity[i]) = start(rng, observation);
        self.is_fresh[i] = true;
    }

    fn step(&mut self, actions: Actions<'_>, _rngs: &mut [Pcg64], out: &mut VecStep) {
        for (i, action) in continuous(actions).iter().copied().enumerate() {
            let (position, velocity) = (self.position[i], self.velocity[i]);
            let (seen, terminated) = if std::mem::take(&mut self.is_fresh[i]) {
                let (position, velocity) = first(position, velocity, action);
                let terminated = position >= GOAL_POSITION && velocity >= self.goal_velocity;
                ([position as f32, velocity as f32], terminated)
            } else {
                let (position, velocity) = later(position as f32, velocity as f32, action);
                let terminated = position >= GOAL_POSITION as f32 && velocity >= self.goal_velocity as f32;
                ([position, velocity], terminated)
            };
            [self.position[i], self.velocity[i]] = seen.map(f64::from);
            // The price is that of the throttle as it was asked for, beyond its bounds too
            let price = f64::from(action) * f64::from(action) * 0.1;
            out.rewards[i] = if terminated { 100.0 - price } else { 0.0 - price };
            out.terminated[i] = terminated;
            out.final_obs[2 * i..][..2].copy_from_slice(&seen);
        }
    }
}
