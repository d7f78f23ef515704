//! Vectors in the plane, in f32 as Box2D has them.

use std::ops::{Add, AddAssign, Mul, Neg, Sub, SubAssign};

#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Vec2 {
    pub(super) x: f32,
    pub(super) y: f32,
}

/// A rotation as sine and cosine
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Rotation {
    sin: f32,
    cos: f32,
}

impl Vec2 {
    pub(super) const ZERO: Self = Self { x: 0.0, y: 0.0 };

    pub(super) fn new(x: f32, y: f32) -> Self {
        Self { x, y }
    }

    pub(super) fn dot(self, other: Self) -> f32 {
        self.x * other.x + self.y * other.y
    }

    pub(super) fn cross(self, other: Self) -> f32 {
        self.x * other.y - self.y * other.x
    }

    pub(super) fn length(self) -> f32 {
        self.dot(self).sqrt()
    }

    /// The velocity of this point of a body that turns at `speed` around the origin
    pub(super) fn turning(self, speed: f32) -> Self {
        Self::new(-speed * self.y, speed * self.x)
    }
}

impl Rotation {
    pub(super) fn new(angle: f32) -> Self {
        Self { sin: angle.sin(), cos: angle.cos() }
    }

    pub(super) fn apply(self, v: Vec2) -> Vec2 {
        Vec2::new(self.cos * v.x - self.sin * v.y, self.sin * v.x + self.cos * v.y)
    }
}

impl From<(f64, f64)> for Vec2 {
    fn from((x, y): (f64, f64)) -> Self {
        Self::new(x as f32, y as f32)
    }
}

impl Add for Vec2 {
    type Output = Self;
    fn add(self, other: Self) -> Self {
        Self::new(self.x + other.x, self.y + other.y)
    }
}

impl AddAssign for Vec2 {
    fn add_assign(&mut self, other: Self) {
        *self = *self + other;
    }
}

impl Sub for Vec2 {
    type Output = Self;
    fn sub(self, other: Self) -> Self {
        Self::new(self.x - other.x, self.y - other.y)
    }
}

impl SubAssign for Vec2 {
    fn sub_assign(&mut self, other: Self) {
        *self = *self - other;
    }
}

impl Neg for Vec2 {
    type Output = Self;
    fn neg(self) -> Self {
        Self::new(-self.x, -self.y)
    }
}

impl Mul<Vec2> for f32 {
    type Output = Vec2;
    fn mul(self, v: Vec2) -> Vec2 {
        Vec2::new(self * v.x, self * v.y)
    }
}
