//! Points in a plane: what one figure of a run is worth in another, and how a prediction compares with what happened.

use plotters::prelude::*;

use super::chart::{Area, Drawn, Range, SIZE, axes, colour, inline, range, text, to_svg};
use crate::error::{Error, Result};

/// How a series is drawn
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mark {
    /// Large points, each by itself
    Point,
    /// Many small points
    Dot,
    /// Small points, joined in their order by a thin line: the way that a run took
    Way,
    /// A thin line alone: a rule to compare with, an interval
    Rule,
}

/// Points of one colour
#[derive(Debug, Clone)]
pub struct Series {
    /// Place in [`super::chart::PALETTE`]
    pub colour: usize,
    /// Points in their order; one that is not finite is left out
    pub points: Vec<(f64, f64)>,
    /// How they are drawn
    pub mark: Mark,
}

impl Series {
    /// Points of one colour
    pub fn new(colour: usize, mark: Mark, points: Vec<(f64, f64)>) -> Self {
        Self { colour, points, mark }
    }
}

/// Draws the series in their order, or nothing where no point is finite
pub fn draw(series: &[Series], x_label: &str, y_label: &str) -> Result<Option<String>> {
    let finite = |series: &Series| {
        let points = series.points.iter().copied().filter(|(x, y)| x.is_finite() && y.is_finite());
        Series::new(series.colour, series.mark, points.collect())
    };
    let series: Vec<Series> = series.iter().map(finite).collect();
    let points = || series.iter().flat_map(|series| &series.points);
    let (Some(x), Some(y)) = (range(points().map(|point| point.0)), range(points().map(|point| point.1))) else {
        return Ok(None);
    };
    let svg = to_svg(SIZE, |area| fill(area, &series, (x, y), (x_label, y_label)));
    let svg = svg.map_err(|cause| Error::run(format!("cannot draw `{y_label}`: {cause}")))?;
    Ok(Some(inline(&svg, y_label)))
}

fn fill(area: &Area<'_>, series: &[Series], ranges: (Range, Range), labels: (&str, &str)) -> Drawn {
    let mut chart = axes(area, ranges, labels)?;
    for series in series {
        let colour = colour(series.colour);
        let points = || series.points.iter().copied();
        if matches!(series.mark, Mark::Way | Mark::Rule) {
            chart.draw_series(LineSeries::new(points(), colour.stroke_width(1))).map_err(text)?;
        }
        let radius = match series.mark {
            Mark::Point => 6,
            Mark::Dot => 3,
            Mark::Way => 2,
            Mark::Rule => continue,
        };
        chart.draw_series(points().map(|point| Circle::new(point, radius, colour.filled()))).map_err(text)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_mark_is_drawn_its_own_way() {
        let points = vec![(0.0, 1.0), (1.0, f64::NAN), (2.0, 3.0)];
        let of = |mark| draw(&[Series::new(0, mark, points.clone())], "KL", "gold").unwrap().unwrap();
        let (point, way, rule) = (of(Mark::Point), of(Mark::Way), of(Mark::Rule));
        // A point that is no number is neither drawn nor waited for
        let circles = |svg: &str| svg.matches("<circle").count();
        assert_eq!((circles(&point), circles(&way), circles(&rule)), (2, 2, 0));
        let lines = |svg: &str| svg.matches("stroke=\"#0072B2\"").count();
        assert_eq!((lines(&way), lines(&rule)), (1, 1));
        assert!(draw(&[Series::new(0, Mark::Point, vec![(f64::NAN, 1.0)])], "x", "y").unwrap().is_none());
    }
}
