//! The moon, the lander's hull and its two legs.
//!
//! While nothing touches the ground, a step is [`Flight`]'s; near it, Box2D's, which then takes over the bodies as they
//! are.

use std::cell::RefCell;
use std::rc::Rc;

use box2d_rs::b2_body::{B2body, B2bodyDef, B2bodyType, BodyPtr};
use box2d_rs::b2_contact::B2contactDynTrait;
use box2d_rs::b2_fixture::{B2filter, B2fixtureDef};
use box2d_rs::b2_joint::B2JointDefEnum;
use box2d_rs::b2_math::B2vec2;
use box2d_rs::b2_shape::{B2shapeDynTrait, ShapeDefPtr};
use box2d_rs::b2_world::{B2world, B2worldPtr};
use box2d_rs::b2_world_callbacks::B2contactListener;
use box2d_rs::b2rs_common::UserDataType;
use box2d_rs::joints::b2_revolute_joint::B2revoluteJointDef;
use box2d_rs::shapes::b2_edge_shape::B2edgeShape;
use box2d_rs::shapes::b2_polygon_shape::B2polygonShape;

use super::flight::Flight;
use super::joint::{Body, Joint};
use super::terrain::Terrain;
use super::vector::Vec2;
use super::{HEIGHT, LEG_DOWN, SCALE, WIDTH};
use crate::rl::env::rng::Pcg64;

const SECONDS: f32 = 1.0 / 50.0;
const INITIAL_FORCE: f64 = 1000.0;
const HULL: [(f64, f64); 6] = [(-14.0, 17.0), (-17.0, 0.0), (-17.0, -10.0), (17.0, -10.0), (17.0, 0.0), (14.0, 17.0)];
const LEG: [(f64, f64); 4] = [(-2.0, -8.0), (2.0, -8.0), (2.0, 8.0), (-2.0, 8.0)];
const LEG_AWAY: f64 = 20.0 / SCALE;
const LEG_TORQUE: f32 = 40.0;
const LEG_SPEED: f64 = 0.3;
/// Collide with the ground alone
const GROUND: u16 = 0x001;
const VELOCITY_ITERATIONS: i32 = 180;
const POSITION_ITERATIONS: i32 = 60;

/// What a body is, as Box2D keeps it for us
#[derive(Debug, Clone, Copy, Default, PartialEq)]
enum Part {
    #[default]
    Moon,
    Hull,
    Leg(usize),
}

#[derive(Debug, Clone, Default)]
struct Parts;

impl UserDataType for Parts {
    type Fixture = ();
    type Body = Part;
    type Joint = ();
}

/// What touches the ground
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Contacts {
    /// The hull did, once
    pub(super) crashed: bool,
    /// Either leg does now
    pub(super) legs: [bool; 2],
}

impl Contacts {
    fn changed(&mut self, contact: &dyn B2contactDynTrait<Parts>, touches: bool) {
        let fixtures = [contact.get_base().get_fixture_a(), contact.get_base().get_fixture_b()];
        for fixture in fixtures {
            let part = fixture.borrow().get_body().borrow().get_user_data();
            match part {
                Some(Part::Hull) => self.crashed |= touches,
                Some(Part::Leg(i)) => self.legs[i] = touches,
                _ => {}
            }
        }
    }
}

impl B2contactListener<Parts> for Contacts {
    fn begin_contact(&mut self, contact: &mut dyn B2contactDynTrait<Parts>) {
        self.changed(contact, true);
    }

    fn end_contact(&mut self, contact: &mut dyn B2contactDynTrait<Parts>) {
        self.changed(contact, false);
    }
}

pub(super) struct World {
    gravity: f32,
    terrain: Terrain,
    shapes: Shapes,
    flight: Flight,
    /// Whether Box2D took the last step, so that its bodies are where the lander is
    is_grounded: bool,
    engine: B2worldPtr<Parts>,
    hull: BodyPtr<Parts>,
    legs: [BodyPtr<Parts>; 2],
    contacts: Rc<RefCell<Contacts>>,
}

/// The polygons of the parts
struct Shapes {
    hull: [Vec2; 6],
    leg: [Vec2; 4],
}

fn scaled((x, y): (f64, f64)) -> Vec2 {
    (x / SCALE, y / SCALE).into()
}

fn box2d(v: Vec2) -> B2vec2 {
    B2vec2::new(v.x, v.y)
}

fn ours(v: B2vec2) -> Vec2 {
    Vec2::new(v.x, v.y)
}

impl World {
    /// With a terrain and a first push from `rng`
    pub(super) fn new(gravity: f64, rng: &mut Pcg64) -> Self {
        let engine = B2world::<Parts>::new(box2d((0.0, gravity).into()));
        let contacts = Rc::new(RefCell::new(Contacts::default()));
        engine.borrow_mut().set_contact_listener(contacts.clone());
        let terrain = Terrain::new(rng);
        let moon = B2world::create_body(engine.clone(), &B2bodyDef::default());
        for (i, [start, end]) in terrain.edges().enumerate() {
            let mut shape = B2edgeShape::default();
            shape.set_two_sided(box2d(start), box2d(end));
            // The first is the floor
            let friction = if i == 0 { 0.2 } else { 0.1 };
            let fixture = B2fixtureDef { shape: Some(shared(shape)), friction, ..B2fixtureDef::default() };
            B2body::create_fixture(moon.clone(), &fixture);
        }
        let shapes = Shapes { hull: HULL.map(scaled), leg: LEG.map(scaled) };
        let hull = part(&engine, Part::Hull, &shapes.hull, (WIDTH / 2.0, HEIGHT), 0.0);
        let force = [(); 2].map(|()| rng.uniform(-INITIAL_FORCE, INITIAL_FORCE));
        // The first leg stands to the right, on side -1
        let sides = [(0, -1.0, [0.9 - 0.5, 0.9]), (1, 1.0, [-0.9, -0.9 + 0.5])];
        let [(leg1, joint1), (leg2, joint2)] = sides.map(|(i, side, limits)| {
            let angle = side * 0.05;
            let position = (WIDTH / 2.0 - side * LEG_AWAY, HEIGHT);
            let leg = part(&engine, Part::Leg(i), &shapes.leg, position, angle);
            let anchors = [Vec2::ZERO, (side * LEG_AWAY, LEG_DOWN).into()];
            let limits = limits.map(|limit: f64| limit as f32);
            let joint = Joint::new(anchors, angle as f32, limits, (LEG_SPEED * side) as f32, LEG_TORQUE);
            fasten(&engine, &joint, &hull, &leg);
            (leg, joint)
        });
        let flight = Flight {
            hull: body(&hull),
            legs: [body(&leg1), body(&leg2)],
            joints: [joint1, joint2],
            force: (force[0], force[1]).into(),
            torque: 0.0,
        };
        let legs = [leg1, leg2];
        let gravity = gravity as f32;
        Self { gravity, terrain, shapes, flight, is_grounded: false, engine, hull, legs, contacts }
    }
    pub(super) fn step(&mut self) {
        if !self.touches() {
            let mut next = self.flight;
            next.step(self.gravity, SECONDS);
            if self.is_clear(&next) {
                self.flight = next;
                self.is_grounded = false;
                return;
            }
        }
        if !self.is_grounded {
            self.land();
        }
        self.engine.borrow_mut().step(SECONDS, VELOCITY_ITERATIONS, POSITION_ITERATIONS);
        self.flight = Flight {
            hull: body(&self.hull),
            legs: [body(&self.legs[0]), body(&self.legs[1])],
            joints: self.flight.joints.map(Joint::rested),
            force: Vec2::ZERO,
            torque: 0.0,
        };
    }

    fn touches(&self) -> bool {
        let Contacts { crashed, legs } = self.contacts();
        crashed || legs.contains(&true)
    }

    fn is_clear(&self, next: &Flight) -> bool {
        let legs = self.flight.legs.iter().zip(&next.legs);
        self.terrain.is_clear(&self.shapes.hull, &self.flight.hull, &next.hull)
            && legs.into_iter().all(|(from, to)| self.terrain.is_clear(&self.shapes.leg, from, to))
    }

    /// Puts Box2D's bodies where the flight has come to
    fn land(&mut self) {
        self.engine.borrow_mut().clear_forces();
        let bodies = [
            (&self.hull, &self.flight.hull),
            (&self.legs[0], &self.flight.legs[0]),
            (&self.legs[1], &self.flight.legs[1]),
        ];
        for (target, source) in bodies {
            let mut target = target.borrow_mut();
            target.set_transform(box2d(source.origin()), source.angle);
            target.set_linear_velocity(box2d(source.velocity));
            target.set_angular_velocity(source.angular_velocity);
        }
        let mut hull = self.hull.borrow_mut();
        hull.apply_force_to_center(box2d(self.flight.force), true);
        hull.apply_torque(self.flight.torque, true);
        drop(hull);
        self.is_grounded = true;
    }

    pub(super) fn contacts(&self) -> Contacts {
        *self.contacts.borrow()
    }

    pub(super) fn is_awake(&self) -> bool {
        !self.is_grounded || self.hull.borrow().is_awake()
    }

    pub(super) fn angle(&self) -> f64 {
        f64::from(self.flight.hull.angle)
    }

    pub(super) fn angular_velocity(&self) -> f64 {
        f64::from(self.flight.hull.angular_velocity)
    }

    pub(super) fn position(&self) -> (f64, f64) {
        let at = self.flight.hull.origin();
        (f64::from(at.x), f64::from(at.y))
    }

    pub(super) fn velocity(&self) -> (f64, f64) {
        let Vec2 { x, y } = self.flight.hull.velocity;
        (f64::from(x), f64::from(y))
    }

    /// Gives the hull an impulse at a point
    pub(super) fn impulse(&mut self, impulse: (f64, f64), point: (f64, f64)) {
        let (impulse, point) = (impulse.into(), point.into());
        self.flight.hull.push_at(impulse, point);
        if self.is_grounded {
            self.hull.borrow_mut().apply_linear_impulse(box2d(impulse), box2d(point), true);
        }
    }

    /// A force from the side and a torque on the hull, until the next step
    pub(super) fn push(&mut self, force: f64, torque: f64) {
        self.flight.force += (force, 0.0).into();
        self.flight.torque += torque as f32;
        if self.is_grounded {
            let mut hull = self.hull.borrow_mut();
            hull.apply_force_to_center(box2d((force, 0.0).into()), true);
            hull.apply_torque(torque as f32, true);
        }
    }
}

fn shared(shape: impl B2shapeDynTrait + 'static) -> ShapeDefPtr {
    Rc::new(RefCell::new(shape))
}

/// A part of the lander in Box2D's world
fn part(engine: &B2worldPtr<Parts>, part: Part, corners: &[Vec2], position: (f64, f64), angle: f64) -> BodyPtr<Parts> {
    let mut shape = B2polygonShape::default();
    shape.set(&corners.iter().map(|corner| box2d(*corner)).collect::<Vec<_>>());
    let (density, friction, category_bits) = if part == Part::Hull { (5.0, 0.1, 0x0010) } else { (1.0, 0.2, 0x0020) };
    let filter = B2filter { category_bits, mask_bits: GROUND, group_index: 0 };
    let fixture = B2fixtureDef { shape: Some(shared(shape)), density, friction, filter, ..B2fixtureDef::default() };
    let definition = B2bodyDef {
        body_type: B2bodyType::B2DynamicBody,
        position: box2d(position.into()),
        angle: angle as f32,
        user_data: Some(part),
        ..B2bodyDef::default()
    };
    let body = B2world::create_body(engine.clone(), &definition);
    B2body::create_fixture(body.clone(), &fixture);
    body
}

fn fasten(engine: &B2worldPtr<Parts>, joint: &Joint, hull: &BodyPtr<Parts>, leg: &BodyPtr<Parts>) {
    let mut definition = B2revoluteJointDef::<Parts> {
        local_anchor_a: box2d(joint.anchor_hull),
        local_anchor_b: box2d(joint.anchor_leg),
        reference_angle: joint.reference_angle,
        enable_motor: true,
        max_motor_torque: joint.max_motor_torque,
        motor_speed: joint.motor_speed,
        enable_limit: true,
        lower_angle: joint.lower,
        upper_angle: joint.upper,
        ..B2revoluteJointDef::default()
    };
    definition.base.body_a = Some(hull.clone());
    definition.base.body_b = Some(leg.clone());
    engine.borrow_mut().create_joint(&B2JointDefEnum::RevoluteJoint(definition));
}

/// A body of Box2D as it is
fn body(source: &BodyPtr<Parts>) -> Body {
    let source = source.borrow();
    let local_center = ours(source.get_local_center());
    let inertia = source.get_inertia() - source.get_mass() * local_center.dot(local_center);
    Body {
        inverse_mass: 1.0 / source.get_mass(),
        inverse_inertia: 1.0 / inertia,
        local_center,
        center: ours(source.get_world_center()),
        angle: source.get_angle(),
        velocity: ours(source.get_linear_velocity()),
        angular_velocity: source.get_angular_velocity(),
    }
}
