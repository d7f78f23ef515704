//! The curve of one run: its metric against what it has spent.

use std::collections::BTreeMap;

use super::run::Run;

/// Points in the order of what was spent
#[derive(Debug, Clone, PartialEq, Default)]
pub struct LearningCurve(Vec<(f64, f64)>);

impl LearningCurve {
    /// From points in any order; of several at one place the last counts, and what is not finite is left out
    pub fn new(points: impl IntoIterator<Item = (f64, f64)>) -> Self {
        let mut points: Vec<(f64, f64)> = points.into_iter().filter(|(x, y)| x.is_finite() && y.is_finite()).collect();
        points.sort_by(|a, b| a.0.total_cmp(&b.0));
        // `dedup_by` keeps the first of equals
        points.reverse();
        points.dedup_by(|a, b| a.0 == b.0);
        points.reverse();
        Self(points)
    }

    /// `metric` of a run against its column `x`; `step` is one too. Where a row of evaluation has no `x` of its own, that
    /// of the training row before it counts
    pub fn of_run(run: &Run, metric: &str, x: &str) -> Self {
        let Some(values) = run.metrics.get(metric) else { return Self::default() };
        if x == "step" {
            return Self::new(values.iter().copied());
        }
        let evaluated = format!("eval_{x}");
        let spent = [x, &evaluated].into_iter().filter_map(|name| run.metrics.get(name)).flatten();
        // Steps are whole numbers
        let spent: BTreeMap<u64, f64> = spent.map(|(step, spent)| (*step as u64, *spent)).collect();
        let at = |step: f64| spent.range(..=step as u64).next_back().map(|(_, spent)| *spent);
        Self::new(values.iter().filter_map(|(step, value)| Some((at(*step)?, *value))))
    }

    /// The same for a score between `low` and `high` as a number from 0 to 1
    #[must_use]
    pub fn normalised(self, (low, high): (f64, f64)) -> Self {
        Self(self.0.into_iter().map(|(x, y)| (x, (y - low) / (high - low))).collect())
    }

    /// The points
    pub fn points(&self) -> &[(f64, f64)] {
        &self.0
    }

    /// First and last place
    pub fn span(&self) -> Option<(f64, f64)> {
        Some((self.0.first()?.0, self.0.last()?.0))
    }

    /// The value at a place, in a straight line between the points around it; None before the first and after the last
    pub fn at(&self, x: f64) -> Option<f64> {
        let after = self.0.partition_point(|point| point.0 < x);
        let (right_x, right) = *self.0.get(after)?;
        if right_x == x {
            return Some(right);
        }
        let (left_x, left) = *self.0.get(after.checked_sub(1)?)?;
        Some(left + (right - left) * (x - left_x) / (right_x - left_x))
    }

    /// The first place where the curve is at `threshold` or above it
    pub fn reaches(&self, threshold: f64) -> Option<f64> {
        let first = self.0.iter().position(|point| point.1 >= threshold)?;
        let (x, y) = self.0[first];
        let Some((left_x, left)) = first.checked_sub(1).map(|before| self.0[before]) else { return Some(x) };
        Some(left_x + (x - left_x) * (threshold - left) / (y - left))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_curve_is_straight_between_its_points() {
        let curve = LearningCurve::new([(10.0, 1.0), (0.0, 0.0), (20.0, 0.0), (20.0, 3.0), (15.0, f64::NAN)]);
        assert_eq!(curve.points(), [(0.0, 0.0), (10.0, 1.0), (20.0, 3.0)]);
        assert_eq!(curve.span(), Some((0.0, 20.0)));
        let places = [-1.0, 0.0, 5.0, 10.0, 12.5, 20.0, 20.1];
        let values = places.map(|x| curve.at(x));
        assert_eq!(values, [None, Some(0.0), Some(0.5), Some(1.0), Some(1.5), Some(3.0), None]);
    }

    #[test]
    fn a_threshold_is_reached_between_two_points_or_never() {
        let curve = LearningCurve::new([(5.0, 0.0), (10.0, 1.0), (20.0, 0.5), (30.0, 2.0)]);
        assert_eq!(
            [-1.0, 0.0, 0.5, 1.0, 1.5, 3.0].map(|threshold| curve.reaches(threshold)),
            [Some(5.0), Some(5.0), Some(7.5), Some(10.0), Some(20.0 + 10.0 * 1.0 / 1.5), None]
        );
    }

    #[test]
    fn a_range_makes_scores_comparable() {
        let curve = LearningCurve::new([(0.0, -200.0), (1.0, -100.0)]).normalised((-200.0, 0.0));
        assert_eq!(curve.points(), [(0.0, 0.0), (1.0, 0.5)]);
    }
}
