//! CartPole: keep a pole upright on a cart (Barto, Sutton & Anderson 1983).

use std::f64::consts::PI;

use crate::error::Result;
use crate::rl::env::kwargs::KwargReader;
use crate::rl::env::native::{Dynamics, discrete};
use crate::rl::env::rng::Pcg64;
use crate::rl::env::{Actions, Space, VecStep};

const GRAVITY: f64 = 9.8;
const MASS_POLE: f64 = 0.1;
const TOTAL_MASS: f64 = MASS_POLE + 1.0;
/// Half the pole's
const LENGTH: f64 = 0.5;
const POLE_MASS_LENGTH: f64 = MASS_POLE * LENGTH;
const FORCE: f64 = 10.0;
const TAU: f64 = 0.02;
const X_LIMIT: f64 = 2.4;
const THETA_LIMIT: f64 = 12.0 * 2.0 * PI / 360.0;

pub(crate) struct CartPole {
    pub(super) x: Vec<f64>,
    pub(super) x_dot: Vec<f64>,
    pub(super) theta: Vec<f64>,
    pub(super) theta_dot: Vec<f64>,
    /// Sutton & Barto's: 0 a step and -1 at the fall, instead of 1 a step
    sutton_barto_reward: bool,
}

impl CartPole {
    pub(crate) fn new(num_envs: usize, kwargs: &mut KwargReader<'_>) -> Result<Self> {
        let column = || vec![0.0; num_envs];
        let sutton_barto_reward = kwargs.bool("sutton_barto_reward", false)?;
        Ok(Self { x: column(), x_dot: column(), theta: column(), theta_dot: column(), sutton_barto_reward })
    }
}

impl Dynamics for CartPole {
    fn observation_space(&self) -> Space {
        Space::symmetric(&[(X_LIMIT * 2.0) as f32, f32::INFINITY, (THETA_LIMIT * 2.0) as f32, f32::INFINITY])
    }

    fn action_space(&self) -> Space {
        Space::Discrete { n: 2 }
    }

    fn reset(&mut self, i: usize, rng: &mut Pcg64, observation: &mut [f32]) {
        let columns = [&mut self.x, &mut self.x_dot, &mut self.theta, &mut self.theta_dot];
        for (column, observed) in columns.into_iter().zip(observation) {
            column[i] = rng.uniform(-0.05, 0.05);
            *observed = column[i] as f32;
        }
    }

    fn step(&mut self, actions: Actions<'_>, _rngs: &mut [Pcg64], out: &mut VecStep) {
        let (going, fallen) = if self.sutton_barto_reward { (0.0, -1.0) } else { (1.0, 1.0) };
        let states = self.x.iter_mut().zip(&mut self.x_dot).zip(&mut self.theta).zip(&mut self.theta_dot);
        let outs = out.final_obs.chunks_exact_mut(4).zip(&mut out.rewards).zip(&mut out.terminated);
        for (((((x, x_dot), theta), theta_dot), action), ((observation, reward), terminated)) in
            states.zip(discrete(actions)).zip(outs)
        {
            let force = if *action == 1 { FORCE } else { -FORCE };
            let (sin, cos) = (theta.sin(), theta.cos());
            let temp = (force + POLE_MASS_LENGTH * (*theta_dot * *theta_dot) * sin) / TOTAL_MASS;
            let theta_acc =
                (GRAVITY * sin - cos * temp) / (LENGTH * (4.0 / 3.0 - MASS_POLE * (cos * cos) / TOTAL_MASS));
            let x_acc = temp - POLE_MASS_LENGTH * theta_acc * cos / TOTAL_MASS;
            // Explicit Euler: positions move by the old velocities
            *x += TAU * *x_dot;
            *x_dot += TAU * x_acc;
            *theta += TAU * *theta_dot;
            *theta_dot += TAU * theta_acc;
            *terminated = *x < -X_LIMIT || *x > X_LIMIT || *theta < -THETA_LIMIT || *theta > THETA_LIMIT;
            *reward = if *terminated { fallen } else { going };
            observation.copy_from_slice(&[*x as f32, *x_dot as f32, *theta as f32, *theta_dot as f32]);
        }
    }
}
