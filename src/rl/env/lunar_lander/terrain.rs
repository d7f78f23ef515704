//! The ground, and how far a lander is from it.

use super::joint::Body;
use super::vector::{Rotation, Vec2};
use super::{HEIGHT, HELIPAD_Y, WIDTH};
use crate::rl::env::rng::Pcg64;

const CHUNKS: usize = 11;
/// Box2D lets polygons touch at twice the radius of their skins, and looks that far ahead
const REACH: f32 = 0.03;

/// The corners of the ground from left to right
#[derive(Debug, Clone, Copy)]
pub(super) struct Terrain {
    pub(super) corners: [Vec2; CHUNKS],
}

impl Terrain {
    pub(super) fn new(rng: &mut Pcg64) -> Self {
        let mut height = [(); CHUNKS + 1].map(|()| rng.uniform(0.0, HEIGHT / 2.0));
        // Level around the middle, where the flags are
        height[CHUNKS / 2 - 2..=CHUNKS / 2 + 2].fill(HELIPAD_Y);
        let corner = |i: usize| {
            let before = height[i.checked_sub(1).unwrap_or(CHUNKS)];
            (WIDTH / (CHUNKS - 1) as f64 * i as f64, 0.33 * (before + height[i] + height[i + 1])).into()
        };
        Self { corners: std::array::from_fn(corner) }
    }

    /// The line at height 0 that closes the world below, and the ground above it
    pub(super) fn edges(&self) -> impl Iterator<Item = [Vec2; 2]> {
        let floor = [Vec2::ZERO, (WIDTH, 0.0).into()];
        let ground = self.corners.windows(2).map(|pair| [pair[0], pair[1]]);
        std::iter::once(floor).chain(ground)
    }

    /// Whether a polygon that moves from one place to another comes nowhere near
    pub(super) fn is_clear(&self, polygon: &[Vec2], from: &Body, to: &Body) -> bool {
        let moved = place(polygon, from).zip(place(polygon, to)).map(|(from, to)| (to - from).length());
        let reach = REACH + moved.fold(0.0, f32::max);
        let x = || place(polygon, to).map(|corner| corner.x);
        let (left, right) = (x().fold(f32::INFINITY, f32::min) - reach, x().fold(f32::NEG_INFINITY, f32::max) + reach);
        let bottom = place(polygon, to).map(|corner| corner.y).fold(f32::INFINITY, f32::min) - reach;
        self.edges().all(|[start, end]| {
            let beside = end.x < left || start.x > right;
            let below = start.y.max(end.y) < bottom;
            beside || below || distance(polygon, to, [start, end]) > reach
        })
    }
}

/// The corners of a polygon where its body is
fn place<'a>(polygon: &'a [Vec2], body: &Body) -> impl Iterator<Item = Vec2> + Clone + use<'a> {
    let (origin, rotation) = (body.origin(), Rotation::new(body.angle));
    polygon.iter().map(move |corner| origin + rotation.apply(*corner))
}

/// Between a polygon and a segment that lie apart; 0 where the polygon reaches below the segment's line over its length
fn distance(polygon: &[Vec2], body: &Body, [start, end]: [Vec2; 2]) -> f32 {
    let below = |corner: Vec2| (start.x..=end.x).contains(&corner.x) && (end - start).cross(corner - start) <= 0.0;
    let corners = place(polygon, body);
    if corners.clone().any(below) {
        return 0.0;
    }
    let sides = corners.clone().zip(corners.clone().cycle().skip(1));
    let of_corners = corners.map(|corner| to_segment(corner, start, end)).fold(f32::INFINITY, f32::min);
    let of_ends = sides.map(|(a, b)| to_segment(start, a, b).min(to_segment(end, a, b)));
    of_ends.fold(of_corners, f32::min)
}

/// From a point to the segment between two others
fn to_segment(point: Vec2, start: Vec2, end: Vec2) -> f32 {
    let along = end - start;
    let share = ((point - start).dot(along) / along.dot(along)).clamp(0.0, 1.0);
    (point - start - share * along).length()
}
