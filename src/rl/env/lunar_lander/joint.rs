//! The joint between hull and leg, with motor and limits, as Box2D 2.3 solves it.
//!
//! Box2D 2.4 solves motor, limit and point one after the other, 2.3 the limit and the point as one system of three
//! equations. The legs start outside their limits, so the first steps show the difference.

use super::vector::{Rotation, Vec2};

const LINEAR_SLOP: f32 = 0.005;
const ANGULAR_SLOP: f32 = 2.0 / 180.0 * std::f32::consts::PI;
const MAX_ANGULAR_CORRECTION: f32 = 8.0 / 180.0 * std::f32::consts::PI;

/// A rigid body in flight
#[derive(Debug, Clone, Copy)]
pub(super) struct Body {
    pub(super) inverse_mass: f32,
    pub(super) inverse_inertia: f32,
    /// Of the centre of mass, seen from the body's origin
    pub(super) local_center: Vec2,
    pub(super) center: Vec2,
    pub(super) angle: f32,
    pub(super) velocity: Vec2,
    pub(super) angular_velocity: f32,
}

impl Body {
    pub(super) fn origin(&self) -> Vec2 {
        self.center - Rotation::new(self.angle).apply(self.local_center)
    }

    fn push(&mut self, impulse: Vec2, angular_impulse: f32) {
        self.velocity += self.inverse_mass * impulse;
        self.angular_velocity += self.inverse_inertia * angular_impulse;
    }

    /// Changes the velocities as an impulse at a point does
    pub(super) fn push_at(&mut self, impulse: Vec2, point: Vec2) {
        self.push(impulse, (point - self.center).cross(impulse));
    }
}

/// Which of the limits a joint stands at
#[derive(Debug, Clone, Copy, Default, PartialEq)]
enum Limit {
    #[default]
    Neither,
    Lower,
    Upper,
}

/// What two bodies put up against a push at the joint: a symmetric matrix of three rows, for two coordinates and the
/// angle
#[derive(Debug, Clone, Copy, Default)]
struct Mass {
    rows: [[f32; 3]; 3],
    /// The cross product of the last two rows
    cofactors: [f32; 3],
    /// One over the determinants, of the coordinates alone and of everything
    inverse_point: f32,
    inverse: f32,
}

impl Mass {
    fn new(hull: &Body, leg: &Body, arm_hull: Vec2, arm_leg: Vec2) -> Self {
        let (ih, il) = (hull.inverse_inertia, leg.inverse_inertia);
        let mass = hull.inverse_mass + leg.inverse_mass;
        let xx = mass + arm_hull.y * arm_hull.y * ih + arm_leg.y * arm_leg.y * il;
        let xy = -arm_hull.y * arm_hull.x * ih - arm_leg.y * arm_leg.x * il;
        let xa = -arm_hull.y * ih - arm_leg.y * il;
        let yy = mass + arm_hull.x * arm_hull.x * ih + arm_leg.x * arm_leg.x * il;
        let ya = arm_hull.x * ih + arm_leg.x * il;
        let rows = [[xx, xy, xa], [xy, yy, ya], [xa, ya, ih + il]];
        let cofactors = cross(rows[1], rows[2]);
        Self { rows, cofactors, inverse_point: 1.0 / (xx * yy - xy * xy), inverse: 1.0 / dot(rows[0], cofactors) }
    }

    /// Without the angle
    fn solve_point(&self, right: Vec2) -> Vec2 {
        let [[xx, xy, _], [_, yy, _], _] = self.rows;
        let (x, y) = (yy * right.x - xy * right.y, xx * right.y - xy * right.x);
        Vec2::new(self.inverse_point * x, self.inverse_point * y)
    }

    /// By Cramer's rule
    fn solve(&self, right: Vec2, angular: f32) -> (Vec2, f32) {
        let right = [right.x, right.y, angular];
        let x = self.inverse * dot(right, self.cofactors);
        let y = self.inverse * dot(self.rows[0], cross(right, self.rows[2]));
        (Vec2::new(x, y), self.inverse * dot(self.rows[0], cross(self.rows[1], right)))
    }
}

fn dot(a: [f32; 3], b: [f32; 3]) -> f32 {
    a[0] * b[0] + a[1] * b[1] + a[2] * b[2]
}

fn cross(a: [f32; 3], b: [f32; 3]) -> [f32; 3] {
    [a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]]
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Joint {
    pub(super) anchor_hull: Vec2,
    pub(super) anchor_leg: Vec2,
    /// The leg's angle against the hull that counts as 0
    pub(super) reference_angle: f32,
    pub(super) lower: f32,
    pub(super) upper: f32,
    pub(super) motor_speed: f32,
    pub(super) max_motor_torque: f32,
    state: State,
}

/// What a joint remembers from step to step, and within one
#[derive(Debug, Clone, Copy, Default)]
struct State {
    impulse: Vec2,
    limit_impulse: f32,
    motor_impulse: f32,
    limit: Limit,
    arm_hull: Vec2,
    arm_leg: Vec2,
    mass: Mass,
    motor_mass: f32,
}

impl Joint {
    pub(super) fn new(
        [anchor_hull, anchor_leg]: [Vec2; 2],
        reference_angle: f32,
        [lower, upper]: [f32; 2],
        motor_speed: f32,
        max_motor_torque: f32,
    ) -> Self {
        let state = State::default();
        Self { anchor_hull, anchor_leg, reference_angle, lower, upper, motor_speed, max_motor_torque, state }
    }

    /// Without what it remembers
    pub(super) fn rested(self) -> Self {
        Self { state: State::default(), ..self }
    }

    fn arms(&self, hull: &Body, leg: &Body) -> [Vec2; 2] {
        [
            Rotation::new(hull.angle).apply(self.anchor_hull - hull.local_center),
            Rotation::new(leg.angle).apply(self.anchor_leg - leg.local_center),
        ]
    }

    fn push(&self, hull: &mut Body, leg: &mut Body, impulse: Vec2, angular: f32) {
        hull.push(-impulse, -(self.state.arm_hull.cross(impulse) + angular));
        leg.push(impulse, self.state.arm_leg.cross(impulse) + angular);
    }

    /// Starts a step with the impulses of the last one
    pub(super) fn start(&mut self, hull: &mut Body, leg: &mut Body) {
        [self.state.arm_hull, self.state.arm_leg] = self.arms(hull, leg);
        self.state.mass = Mass::new(hull, leg, self.state.arm_hull, self.state.arm_leg);
        self.state.motor_mass = 1.0 / (hull.inverse_inertia + leg.inverse_inertia);
        let angle = leg.angle - hull.angle - self.reference_angle;
        let limit = if angle <= self.lower {
            Limit::Lower
        } else if angle >= self.upper {
            Limit::Upper
        } else {
            Limit::Neither
        };
        if limit != self.state.limit || limit == Limit::Neither {
            self.state.limit_impulse = 0.0;
        }
        self.state.limit = limit;
        self.push(hull, leg, self.state.impulse, self.state.motor_impulse + self.state.limit_impulse);
    }

    /// One iteration on the velocities
    pub(super) fn solve_velocities(&mut self, hull: &mut Body, leg: &mut Body, seconds: f32) {
        self.solve_motor(hull, leg, seconds);
        let State { arm_hull, arm_leg, mass, limit, .. } = self.state;
        let drift = leg.velocity + arm_leg.turning(leg.angular_velocity)
            - hull.velocity
            - arm_hull.turning(hull.angular_velocity);
        if limit == Limit::Neither {
            let impulse = mass.solve_point(-drift);
            self.state.impulse += impulse;
            self.push(hull, leg, impulse, 0.0);
            return;
        }
        let (impulse, angular) = mass.solve(drift, leg.angular_velocity - hull.angular_velocity);
        let (mut impulse, mut angular) = (-impulse, -angular);
        let total = self.state.limit_impulse + angular;
        // A limit pushes, but does not pull
        let pulls = if limit == Limit::Lower { total < 0.0 } else { total > 0.0 };
        if pulls {
            let held = self.state.limit_impulse;
            impulse = mass.solve_point(-drift + held * Vec2::new(mass.rows[0][2], mass.rows[1][2]));
            angular = -held;
            self.state.limit_impulse = 0.0;
        } else {
            self.state.limit_impulse = total;
        }
        self.state.impulse += impulse;
        self.push(hull, leg, impulse, angular);
    }

    fn solve_motor(&mut self, hull: &mut Body, leg: &mut Body, seconds: f32) {
        let drift = leg.angular_velocity - hull.angular_velocity - self.motor_speed;
        let before = self.state.motor_impulse;
        let largest = seconds * self.max_motor_torque;
        self.state.motor_impulse = (before - self.state.motor_mass * drift).clamp(-largest, largest);
        let impulse = self.state.motor_impulse - before;
        hull.angular_velocity -= hull.inverse_inertia * impulse;
        leg.angular_velocity += leg.inverse_inertia * impulse;
    }

    /// One iteration on the positions; whether they fit together now
    pub(super) fn solve_positions(&self, hull: &mut Body, leg: &mut Body) -> bool {
        let angle = leg.angle - hull.angle - self.reference_angle;
        let (error, correction) = match self.state.limit {
            Limit::Neither => (0.0, 0.0),
            Limit::Lower => {
                let beyond = angle - self.lower;
                (-beyond, (beyond + ANGULAR_SLOP).clamp(-MAX_ANGULAR_CORRECTION, 0.0))
            }
            Limit::Upper => {
                let beyond = angle - self.upper;
                (beyond, (beyond - ANGULAR_SLOP).clamp(0.0, MAX_ANGULAR_CORRECTION))
            }
        };
        let turn = -self.state.motor_mass * correction;
        hull.angle -= hull.inverse_inertia * turn;
        leg.angle += leg.inverse_inertia * turn;

        let [arm_hull, arm_leg] = self.arms(hull, leg);
        let gap = leg.center + arm_leg - hull.center - arm_hull;
        let impulse = -Mass::new(hull, leg, arm_hull, arm_leg).solve_point(gap);
        hull.center -= hull.inverse_mass * impulse;
        hull.angle -= hull.inverse_inertia * arm_hull.cross(impulse);
        leg.center += leg.inverse_mass * impulse;
        leg.angle += leg.inverse_inertia * arm_leg.cross(impulse);
        gap.length() <= LINEAR_SLOP && error <= ANGULAR_SLOP
    }
}
