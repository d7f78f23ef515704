//! Pendulum: swing up and hold. It never terminates, so the value of what follows a truncation matters.

use std::f64::consts::PI;
use std::hint::black_box;

use super::squared;
use crate::error::Result;
use crate::rl::env::kwargs::KwargReader;
use crate::rl::env::native::{Dynamics, continuous};
use crate::rl::env::rng::Pcg64;
use crate::rl::env::{Actions, Space, VecStep};

const MAX_SPEED: f64 = 8.0;
const MAX_TORQUE: f32 = 2.0;
const DT: f64 = 0.05;

pub(crate) struct Pendulum {
    pub(super) theta: Vec<f64>,
    pub(super) theta_dot: Vec<f64>,
    gravity: f64,
}

impl Pendulum {
    pub(crate) fn new(num_envs: usize, kwargs: &mut KwargReader<'_>) -> Result<Self> {
        let gravity = kwargs.number("g", 10.0)?;
        Ok(Self { theta: vec![0.0; num_envs], theta_dot: vec![0.0; num_envs], gravity })
    }
}

/// Into [-π, π). The remainder has the sign of the divisor, as Python's
fn normalized(angle: f64) -> f64 {
    let remainder = (angle + PI) % (2.0 * PI);
    (if remainder < 0.0 { remainder + 2.0 * PI } else { remainder }) - PI
}

fn observe(theta: f64, theta_dot: f64, observation: &mut [f32]) {
    observation.copy_from_slice(&[theta.cos() as f32, theta.sin() as f32, theta_dot as f32]);
}

impl Dynamics for Pendulum {
    fn observation_space(&self) -> Space {
        Space::symmetric(&[1.0, 1.0, MAX_SPEED as f32])
    }

    fn action_space(&self) -> Space {
        Space::symmetric(&[MAX_TORQUE])
    }

    fn reset(&mut self, i: usize, rng: &mut Pcg64, observation: &mut [f32]) {
        self.theta[i] = rng.uniform(-PI, PI);
        self.theta_dot[i] = rng.uniform(-1.0, 1.0);
        observe(self.theta[i], self.theta_dot[i], observation);
    }

    fn step(&mut self, actions: Actions<'_>, _rngs: &mut [Pcg64], out: &mut VecStep) {
        for (i, action) in continuous(actions).iter().enumerate() {
            let (theta, theta_dot) = (self.theta[i], self.theta_dot[i]);
            // The torque's own products are f32, as in Gymnasium; its square is the C library's, see `squared`
            let torque = action.clamp(-MAX_TORQUE, MAX_TORQUE);
            let effort = 0.001 * torque.powf(black_box(2.0));
            let cost = squared(normalized(theta)) + 0.1 * squared(theta_dot) + f64::from(effort);
            let acceleration = 3.0 * self.gravity / 2.0 * theta.sin() + f64::from(3.0 * torque);
            let theta_dot = (theta_dot + acceleration * DT).clamp(-MAX_SPEED, MAX_SPEED);
            let theta = theta + theta_dot * DT;
            (self.theta[i], self.theta_dot[i]) = (theta, theta_dot);
            observe(theta, theta_dot, &mut out.final_obs[3 * i..][..3]);
            out.rewards[i] = -cost;
        }
        out.terminated.fill(false);
    }
}
