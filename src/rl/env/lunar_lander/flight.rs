//! A step without contact: three bodies, two joints.

use super::joint::{Body, Joint};
use super::vector::Vec2;

const VELOCITY_ITERATIONS: usize = 180;
const POSITION_ITERATIONS: usize = 60;
/// The furthest that a body may move or turn in one step
const MAX_TRANSLATION: f32 = 2.0;
const MAX_ROTATION: f32 = 0.5 * std::f32::consts::PI;

/// Hull and legs between two steps
#[derive(Debug, Clone, Copy)]
pub(super) struct Flight {
    pub(super) hull: Body,
    pub(super) legs: [Body; 2],
    pub(super) joints: [Joint; 2],
    /// On the hull, until the next step
    pub(super) force: Vec2,
    pub(super) torque: f32,
}

impl Flight {
    pub(super) fn step(&mut self, gravity: f32, seconds: f32) {
        let none = (Vec2::ZERO, 0.0);
        let loads = [none, (self.force, self.torque), none];
        let [leg1, leg2] = &mut self.legs;
        for (body, (force, torque)) in [&mut *leg2, &mut self.hull, &mut *leg1].into_iter().zip(loads) {
            body.velocity += seconds * (Vec2::new(0.0, gravity) + body.inverse_mass * force);
            body.angular_velocity += seconds * body.inverse_inertia * torque;
        }
        (self.force, self.torque) = none;
        // Box2D goes through its joints from the last one made
        for i in [1, 0] {
            self.joints[i].start(&mut self.hull, &mut self.legs[i]);
        }
        for _ in 0..VELOCITY_ITERATIONS {
            for i in [1, 0] {
                self.joints[i].solve_velocities(&mut self.hull, &mut self.legs[i], seconds);
            }
        }
        let [leg1, leg2] = &mut self.legs;
        for body in [leg2, &mut self.hull, leg1] {
            advance(body, seconds);
        }
        for _ in 0..POSITION_ITERATIONS {
            let fits = [1, 0].map(|i| self.joints[i].solve_positions(&mut self.hull, &mut self.legs[i]));
            if fits == [true; 2] {
                break;
            }
        }
    }
}

fn advance(body: &mut Body, seconds: f32) {
    let distance = (seconds * body.velocity).length();
    if distance > MAX_TRANSLATION {
        body.velocity = (MAX_TRANSLATION / distance) * body.velocity;
    }
    let angle = (seconds * body.angular_velocity).abs();
    if angle > MAX_ROTATION {
        body.angular_velocity *= MAX_ROTATION / angle;
    }
    body.center += seconds * body.velocity;
    body.angle += seconds * body.angular_velocity;
}
