//! Curves as SVG that takes its colours from the page.

use plotters::coord::Shift;
use plotters::coord::types::RangedCoordf64;
use plotters::prelude::*;

use crate::error::{Error, Result};

/// Colours of the curves, light page first. They are the drawing's own values, which the page's style replaces in the dark
pub const PALETTE: [(&str, &str); 8] = [
    ("#0072B2", "#56B4E9"),
    ("#D55E00", "#FF9A57"),
    ("#009E73", "#3DD6A8"),
    ("#AA3377", "#E48ABF"),
    ("#8A6D00", "#E6C229"),
    ("#5B4BB7", "#A99CFF"),
    ("#666666", "#BBBBBB"),
    ("#B3262E", "#FF8086"),
];

pub(super) const SIZE: (u32, u32) = (480, 290);
pub(super) const FONT: (&str, i32) = ("sans-serif", 15);
/// Width of a letter of that font, about
pub(super) const LETTER: u32 = 8;
/// Height of a line of a legend
const LINE: u32 = 22;
/// Points drawn of a curve: a screen has no more columns
const POINTS: usize = 480;
/// How much a band lets through
const BAND_OPACITY: f64 = 0.2;

/// One curve
#[derive(Debug, Clone)]
pub struct Curve {
    /// Place in [`PALETTE`]
    pub colour: usize,
    /// Points in their order; a value that is not finite leaves a gap
    pub points: Vec<(f64, f64)>,
    /// Whether the points themselves are marked
    pub marked: bool,
}

/// What lies between a lower and an upper curve: the interval around a curve of the same colour
#[derive(Debug, Clone)]
pub struct Band {
    /// Place in [`PALETTE`]
    pub colour: usize,
    /// x, lower and upper end
    pub points: Vec<(f64, f64, f64)>,
}

/// A drawing of curves
#[derive(Debug, Clone, Copy, Default)]
pub struct Plot<'a> {
    /// The curves, the last one on top
    pub curves: &'a [Curve],
    /// What lies below them
    pub bands: &'a [Band],
    /// What the x axis counts
    pub x_label: &'a str,
    /// What the y axis counts
    pub y_label: &'a str,
    /// A dashed line at this height
    pub level: Option<f64>,
}

/// Draws the curves, or nothing where no point is finite
pub fn draw(curves: &[Curve], x_label: &str, y_label: &str) -> Result<Option<String>> {
    Plot { curves, x_label, y_label, ..Plot::default() }.inline()
}

impl Plot<'_> {
    /// For a page, which has the legend; nothing where no point is finite
    pub fn inline(&self) -> Result<Option<String>> {
        Ok(self.svg(&[])?.map(|svg| inline(&svg, self.y_label)))
    }

    /// As a file of its own, with a legend on top; nothing where no point is finite
    pub fn file(&self, legend: &[(usize, &str)]) -> Result<Option<String>> {
        self.svg(legend)
    }

    fn svg(&self, legend: &[(usize, &str)]) -> Result<Option<String>> {
        let bands = || self.bands.iter().flat_map(|band| &band.points);
        let edges = bands().flat_map(|(x, low, high)| [(*x, *low), (*x, *high)]);
        let points = self.curves.iter().flat_map(|curve| curve.points.iter().copied()).chain(edges);
        let finite: Vec<(f64, f64)> = points.filter(|(x, y)| x.is_finite() && y.is_finite()).collect();
        let heights = finite.iter().map(|point| point.1).chain(self.level);
        let (Some(x), Some(y)) = (range(finite.iter().map(|point| point.0)), range(heights)) else { return Ok(None) };
        if finite.is_empty() {
            return Ok(None);
        }
        let rows = legend_rows(legend);
        let head = LINE * rows.len() as u32;
        let svg = to_svg((SIZE.0, SIZE.1 + head), |area| {
            let (top, below) = area.split_vertically(head);
            draw_legend(&top, &rows)?;
            self.fill(&below, (x, y))
        });
        svg.map(Some).map_err(|cause| Error::run(format!("cannot draw `{}`: {cause}", self.y_label)))
    }

    fn fill(&self, area: &Area<'_>, (x, y): (Range, Range)) -> Drawn {
        let mut chart = axes(area, (x, y), (self.x_label, self.y_label))?;
        for band in self.bands {
            let lower = band.points.iter().map(|(x, low, _)| (*x, *low));
            let upper = band.points.iter().rev().map(|(x, _, high)| (*x, *high));
            let edge: Vec<(f64, f64)> = lower.chain(upper).filter(|(x, y)| x.is_finite() && y.is_finite()).collect();
            let area = Polygon::new(edge, colour(band.colour).mix(BAND_OPACITY));
            chart.draw_series([area]).map_err(text)?;
        }
        if let Some(level) = self.level {
            let line = DashedLineSeries::new([(x.0, level), (x.1, level)], 6, 4, BLACK.stroke_width(1));
            chart.draw_series(line).map_err(text)?;
        }
        for curve in self.curves {
            let colour = colour(curve.colour);
            let points = thin(&curve.points);
            for run in points.split(|(x, y)| !x.is_finite() || !y.is_finite()).filter(|run| !run.is_empty()) {
                chart.draw_series(LineSeries::new(run.iter().copied(), colour.stroke_width(2))).map_err(text)?;
                // A line of one point is invisible
                if curve.marked || run.len() == 1 {
                    let dots = run.iter().map(|point| Circle::new(*point, 3, colour.filled()));
                    chart.draw_series(dots).map_err(text)?;
                }
            }
        }
        Ok(())
    }
}

pub(super) const GRID: RGBColor = RGBColor(221, 221, 221);
pub(super) type Area<'s> = DrawingArea<SVGBackend<'s>, Shift>;
pub(super) type Drawn = std::result::Result<(), String>;
pub(super) type Range = (f64, f64);

/// A plane with its two axes drawn
pub(super) type Plane<'a, 's> = ChartContext<'a, SVGBackend<'s>, Cartesian2d<RangedCoordf64, RangedCoordf64>>;

/// Draws the axes
pub(super) fn axes<'a, 's>(
    area: &'a Area<'s>,
    (x, y): (Range, Range),
    (x_label, y_label): (&str, &str),
) -> std::result::Result<Plane<'a, 's>, String> {
    let mut chart = ChartBuilder::on(area)
        .margin(8)
        .margin_top(14)
        .margin_right(16)
        .x_label_area_size(44)
        .y_label_area_size(70)
        .build_cartesian_2d(x.0..x.1, y.0..y.1)
        .map_err(text)?;
    let mesh = |value: &f64| number(*value);
    chart
        .configure_mesh()
        .label_style(FONT)
        .axis_desc_style(FONT)
        .x_desc(x_label)
        .y_desc(y_label)
        .x_labels(6)
        .y_labels(6)
        .x_label_formatter(&mesh)
        .y_label_formatter(&mesh)
        .light_line_style(TRANSPARENT)
        .bold_line_style(GRID)
        .draw()
        .map_err(text)?;
    Ok(chart)
}

/// The drawing library's error in words
pub(super) fn text<E: std::error::Error + Send + Sync>(error: DrawingAreaErrorKind<E>) -> String {
    error.to_string()
}

/// An SVG of this size
pub(super) fn to_svg(size: (u32, u32), fill: impl FnOnce(&Area<'_>) -> Drawn) -> std::result::Result<String, String> {
    let mut svg = String::new();
    let area = SVGBackend::with_string(&mut svg, size).into_drawing_area();
    let drawn = fill(&area).and_then(|()| area.present().map_err(|cause| cause.to_string()));
    drop(area);
    drawn.map(|()| svg)
}

/// The entries of a legend, as many a line as fit
fn legend_rows<'l>(legend: &[(usize, &'l str)]) -> Vec<Vec<(u32, usize, &'l str)>> {
    let mut rows: Vec<Vec<(u32, usize, &str)>> = Vec::new();
    let mut at = SIZE.0;
    for (colour, name) in legend {
        let width = 32 + LETTER * name.chars().count() as u32;
        if at + width > SIZE.0 {
            rows.push(Vec::new());
            at = 64;
        }
        rows.last_mut().into_iter().for_each(|row| row.push((at, *colour, name)));
        at += width;
    }
    rows
}

fn draw_legend(area: &Area<'_>, rows: &[Vec<(u32, usize, &str)>]) -> Drawn {
    for (line, row) in rows.iter().enumerate() {
        let y = 4 + (LINE as usize * line) as i32;
        for (x, index, name) in row {
            let x = *x as i32;
            let key = Rectangle::new([(x, y + 2), (x + 12, y + 14)], colour(*index).filled());
            area.draw(&key).map_err(text)?;
            area.draw(&Text::new((*name).to_owned(), (x + 18, y + 1), FONT)).map_err(text)?;
        }
    }
    Ok(())
}

pub(super) fn colour(index: usize) -> RGBColor {
    let hex = PALETTE[index % PALETTE.len()].0;
    let part = |at: usize| u8::from_str_radix(&hex[at..at + 2], 16).unwrap_or(0);
    RGBColor(part(1), part(3), part(5))
}

/// Lowest and highest value with a little room, or None where there are none
pub(super) fn range(values: impl Iterator<Item = f64>) -> Option<Range> {
    let (low, high) = values.fold((f64::INFINITY, f64::NEG_INFINITY), |(l, h), v| (l.min(v), h.max(v)));
    if low > high {
        return None;
    }
    let room = if high > low { 0.04 * (high - low) } else { 0.5 * low.abs().max(1e-3) };
    Some((low - room, high + room))
}

/// Means over stretches of equal length where there are more points than a screen can show
fn thin(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    if points.len() <= POINTS {
        return points.to_vec();
    }
    let mean = |part: &[(f64, f64)]| {
        let n = part.len() as f64;
        let sum = part.iter().fold((0.0, 0.0), |sum, point| (sum.0 + point.0, sum.1 + point.1));
        (sum.0 / n, sum.1 / n)
    };
    points.chunks(points.len().div_ceil(POINTS)).map(mean).collect()
}

/// A number for people: four digits
pub fn number(value: f64) -> String {
    let size = value.abs();
    if !value.is_finite() {
        return "–".to_owned();
    }
    if size != 0.0 && !(1e-3..1e6).contains(&size) {
        return format!("{value:.2e}");
    }
    let digits = if size == 0.0 { 0 } else { (3 - size.log10().floor() as i32).clamp(0, 6) as usize };
    let text = format!("{value:.digits$}");
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
}

/// Inside a page an SVG needs no namespace; a description serves those who cannot see it
pub(super) fn inline(svg: &str, label: &str) -> String {
    let label: String = label.chars().filter(|c| !matches!(c, '<' | '>' | '&' | '"')).collect();
    svg.replacen("xmlns=\"http://www.w3.org/2000/svg\"", &format!("role=\"img\" aria-label=\"{label}\""), 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short() {
        let expected = [(0.0, "0"), (0.25, "0.25"), (123_456.0, "123456"), (-1.5, "-1.5"), (3e-5, "3.00e-5")];
        for (value, text) in expected {
            assert_eq!(number(value), text);
        }
        assert_eq!(number(0.1 + 0.2), "0.3");
        assert_eq!(number(f64::NAN), "–");
    }

    #[test]
    fn a_gap_splits_a_curve() {
        let points = vec![(0.0, 1.0), (1.0, 2.0), (2.0, f64::NAN), (3.0, 4.0), (4.0, 5.0)];
        let curve = |points| [Curve { colour: 0, points, marked: false }];
        let strokes = |svg: &str| svg.matches("<polyline").filter(|_| true).count();
        let whole = draw(&curve(vec![(0.0, 1.0), (4.0, 5.0)]), "step", "loss").unwrap().unwrap();
        let split = draw(&curve(points), "step", "loss").unwrap().unwrap();
        assert_eq!(strokes(&split), strokes(&whole) + 1);
        assert!(draw(&curve(vec![(0.0, f64::NAN)]), "step", "loss").unwrap().is_none());
        assert!(!split.contains("http") && split.contains("aria-label=\"loss\""));
    }

    #[test]
    fn a_file_stands_alone() {
        let curves = [Curve { colour: 1, points: vec![(0.0, 1.0), (4.0, 5.0)], marked: false }];
        let bands = [Band { colour: 1, points: vec![(0.0, 0.5, 1.5), (4.0, 4.5, 9.5)] }];
        let plot = Plot { curves: &curves, bands: &bands, x_label: "step", y_label: "loss", level: Some(3.0) };
        let svg = plot.file(&[(1, "a & b")]).unwrap().unwrap();
        assert!(svg.contains("xmlns") && svg.contains("a &amp; b") && svg.contains("<polygon"), "{svg}");
        let inline = plot.inline().unwrap().unwrap();
        assert!(!inline.contains("xmlns") && !inline.contains("a &amp; b"));
        // The band reaches higher than the curve
        assert!(svg.contains(">\n8\n<"), "{svg}");
    }

    #[test]
    fn a_long_curve_keeps_its_mean() {
        let points: Vec<_> = (0..10_000).map(|i| (f64::from(i), f64::from(i % 7))).collect();
        let thinned = thin(&points);
        assert!(thinned.len() <= POINTS);
        assert!((thinned[0].0 - 10.0).abs() < 1e-9, "{:?}", thinned[0]);
    }
}
