//! Figures with their intervals below each other, a line for each.

use plotters::prelude::*;

use super::chart::{Drawn, FONT, GRID, LETTER, colour, inline, number, range, text, to_svg};
use super::statistics::Estimate;
use crate::error::{Error, Result};

const WIDTH: u32 = 480;
const ROW: u32 = 28;
/// Axis and its name, and the margin on top
const FRAME: u32 = 60;
/// Names longer than this are cut in the drawing
const LONGEST_NAME: usize = 28;

/// One line of the drawing
#[derive(Debug, Clone)]
pub struct Interval {
    /// What it is of
    pub name: String,
    /// Place in the palette
    pub colour: usize,
    /// Point and ends
    pub estimate: Estimate,
}

/// Draws the intervals from top to bottom, with a dashed line at `level`; nothing where there are none. `in_page` leaves
/// out what only a file of its own needs
pub fn draw(rows: &[Interval], x_label: &str, level: Option<f64>, in_page: bool) -> Result<Option<String>> {
    let ends = rows.iter().flat_map(|row| [row.estimate.low, row.estimate.point, row.estimate.high]);
    let Some(x) = range(ends.chain(level).filter(|end| end.is_finite())) else { return Ok(None) };
    if rows.is_empty() {
        return Ok(None);
    }
    let svg = to_svg((WIDTH, FRAME + ROW * rows.len() as u32), |area| {
        let longest = rows.iter().map(|row| row.name.chars().count().min(LONGEST_NAME)).max().unwrap_or(0);
        let mut chart = ChartBuilder::on(area)
            .margin_top(8)
            .margin_left(16 + LETTER * longest as u32)
            .margin_right(24)
            .x_label_area_size(44)
            .build_cartesian_2d(x.0..x.1, 0.0..rows.len() as f64)
            .map_err(text)?;
        chart
            .configure_mesh()
            .disable_y_mesh()
            .y_labels(0)
            .label_style(FONT)
            .axis_desc_style(FONT)
            .x_desc(x_label)
            .x_labels(5)
            .x_label_formatter(&|value| number(*value))
            .light_line_style(TRANSPARENT)
            .bold_line_style(GRID)
            .draw()
            .map_err(text)?;
        if let Some(level) = level {
            let line = [(level, 0.0), (level, rows.len() as f64)];
            chart.draw_series(DashedLineSeries::new(line, 6, 4, BLACK.stroke_width(1))).map_err(text)?;
        }
        for (i, row) in rows.iter().enumerate() {
            let (y, Estimate { point, low, high }) = (rows.len() as f64 - i as f64 - 0.5, row.estimate);
            let colour = colour(row.colour);
            if low.is_finite() && high.is_finite() {
                chart.draw_series(LineSeries::new([(low, y), (high, y)], colour.stroke_width(3))).map_err(text)?;
            }
            if point.is_finite() {
                chart.draw_series([Circle::new((point, y), 5, colour.filled())]).map_err(text)?;
            }
            let height = chart.backend_coord(&(x.0, y)).1 - FONT.1 / 2;
            area.draw(&Text::new(shorten(&row.name), (8, height), FONT)).map_err(text)?;
        }
        Drawn::Ok(())
    });
    let svg = svg.map_err(|cause| Error::run(format!("cannot draw `{x_label}`: {cause}")))?;
    Ok(Some(if in_page { inline(&svg, x_label) } else { svg }))
}

fn shorten(name: &str) -> String {
    if name.chars().count() <= LONGEST_NAME {
        return name.to_owned();
    }
    name.chars().take(LONGEST_NAME - 1).chain(['…']).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_row_has_its_name_point_and_bar() {
        let row = |name: &str, point| Interval {
            name: name.to_owned(),
            colour: 0,
            estimate: Estimate { point, low: point - 0.1, high: point + 0.2 },
        };
        let rows = [row("a < b", 0.5), row("second", 0.75)];
        let svg = draw(&rows, "P(better)", Some(0.5), true).unwrap().unwrap();
        assert!(
            svg.contains("a &lt; b") && svg.contains("second") && svg.contains("aria-label=\"P(better)\""),
            "{svg}"
        );
        assert_eq!(svg.matches("<circle").count(), 2);
        assert!(draw(&[], "x", None, true).unwrap().is_none());
        assert!(draw(&[row("nothing", f64::NAN)], "x", None, true).unwrap().is_none());
        assert!(draw(&rows, "x", None, false).unwrap().unwrap().contains("xmlns"));
    }

    #[test]
    fn long_names_are_cut() {
        assert_eq!(shorten(&"x".repeat(LONGEST_NAME)).chars().count(), LONGEST_NAME);
        assert!(shorten(&"x".repeat(99)).ends_with('…'));
    }
}
