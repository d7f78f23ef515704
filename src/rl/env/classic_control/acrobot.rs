//! Acrobot: swing the tip of two links above a line by a torque at their joint (Sutton & Barto, section 11.2 of 1998).

use std::f64::consts::PI;

use super::squared;
use crate::rl::env::native::{Dynamics, discrete};
use crate::rl::env::rng::Pcg64;
use crate::rl::env::{Actions, Space, VecStep};

const DT: f64 = 0.2;
const GRAVITY: f64 = 9.8;
/// Masses, lengths and moments of inertia are 1; the centres of mass lie half-way
const CENTRE: f64 = 0.5;
const MAX_SPEEDS: [f64; 2] = [4.0 * PI, 9.0 * PI];

/// Both angles and their velocities
type State = [f64; 4];

pub(crate) struct Acrobot {
    angles: [Vec<f64>; 2],
    speeds: [Vec<f64>; 2],
}

impl Acrobot {
    pub(crate) fn new(num_envs: usize) -> Self {
        let columns = || [vec![0.0; num_envs], vec![0.0; num_envs]];
        Self { angles: columns(), speeds: columns() }
    }

    pub(super) fn state(&self, i: usize) -> State {
        [self.angles[0][i], self.angles[1][i], self.speeds[0][i], self.speeds[1][i]]
    }

    pub(super) fn set_state(&mut self, i: usize, state: State) {
        [self.angles[0][i], self.angles[1][i], self.speeds[0][i], self.speeds[1][i]] = state;
    }
}

fn observe([theta1, theta2, dtheta1, dtheta2]: State, observation: &mut [f32]) {
    let seen = [theta1.cos(), theta1.sin(), theta2.cos(), theta2.sin(), dtheta1, dtheta2];
    observation.copy_from_slice(&seen.map(|number| number as f32));
}

/// The book's equations of motion
fn derivative([theta1, theta2, dtheta1, dtheta2]: State, torque: f64) -> State {
    let (sin2, cos2) = (theta2.sin(), theta2.cos());
    let d1 = CENTRE * CENTRE + (1.0 + CENTRE * CENTRE + 2.0 * CENTRE * cos2) + 1.0 + 1.0;
    let d2 = (CENTRE * CENTRE + CENTRE * cos2) + 1.0;
    let phi2 = CENTRE * GRAVITY * (theta1 + theta2 - PI / 2.0).cos();
    let phi1 = -CENTRE * squared(dtheta2) * sin2 - 2.0 * CENTRE * dtheta2 * dtheta1 * sin2
        + (CENTRE + 1.0) * GRAVITY * (theta1 - PI / 2.0).cos()
        + phi2;
    let ddtheta2 = (torque + d2 / d1 * phi1 - CENTRE * squared(dtheta1) * sin2 - phi2)
        / (CENTRE * CENTRE + 1.0 - squared(d2) / d1);
    let ddtheta1 = -(d2 * ddtheta2 + phi1) / d1;
    [dtheta1, dtheta2, ddtheta1, ddtheta2]
}

/// One step of the classical Runge-Kutta method
fn runge_kutta(state: State, torque: f64) -> State {
    let along = |slope: State, time: f64| std::array::from_fn(|j| state[j] + time * slope[j]);
    let k1 = derivative(state, torque);
    let k2 = derivative(along(k1, DT / 2.0), torque);
    let k3 = derivative(along(k2, DT / 2.0), torque);
    let k4 = derivative(along(k3, DT), torque);
    std::array::from_fn(|j| state[j] + DT / 6.0 * (k1[j] + 2.0 * k2[j] + 2.0 * k3[j] + k4[j]))
}

/// Into [-π, π], by whole turns
fn wrap(mut angle: f64) -> f64 {
    while angle > PI {
        angle -= 2.0 * PI;
    }
    while angle < -PI {
        angle += 2.0 * PI;
    }
    angle
}

impl Dynamics for Acrobot {
    fn observation_space(&self) -> Space {
        Space::symmetric(&[1.0, 1.0, 1.0, 1.0, MAX_SPEEDS[0] as f32, MAX_SPEEDS[1] as f32])
    }

    fn action_space(&self) -> Space {
        Space::Discrete { n: 3 }
    }

    fn reset(&mut self, i: usize, rng: &mut Pcg64, observation: &mut [f32]) {
        // Gymnasium rounds the start to f32
        let state = [(); 4].map(|()| f64::from(rng.uniform(-0.1, 0.1) as f32));
        self.set_state(i, state);
        observe(state, observation);
    }

    fn step(&mut self, actions: Actions<'_>, _rngs: &mut [Pcg64], out: &mut VecStep) {
        for (i, action) in discrete(actions).iter().enumerate() {
            let [theta1, theta2, dtheta1, dtheta2] = runge_kutta(self.state(i), f64::from(*action) - 1.0);
            let (theta1, theta2) = (wrap(theta1), wrap(theta2));
            let state = [
                theta1,
                theta2,
                dtheta1.clamp(-MAX_SPEEDS[0], MAX_SPEEDS[0]),
                dtheta2.clamp(-MAX_SPEEDS[1], MAX_SPEEDS[1]),
            ];
            self.set_state(i, state);
            observe(state, &mut out.final_obs[6 * i..][..6]);
            out.terminated[i] = -theta1.cos() - (theta2 + theta1).cos() > 1.0;
            out.rewards[i] = if out.terminated[i] { 0.0 } else { -1.0 };
        }
    }
}
