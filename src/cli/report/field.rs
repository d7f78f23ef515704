//! What a report shows of a reinforcement field: where its prompts lie, how it grew, whether its doubt was right.

use crate::Result;
use crate::cli::output::one_line;
use crate::report::Run;
use crate::report::chart::{self, Curve};
use crate::report::scatter::{self, Mark, Series};
use crate::report::section::{Figure, Name, Section, Table};
use crate::train::grl::{Landscape, Place};

/// Thirds of the particles by their value, with their place in the palette: low, middle, high
const THIRDS: [(&str, usize); 3] = [("lowest third", 0), ("middle third", 6), ("highest third", 1)];
/// Prompts shown of a part
const EXAMPLES: usize = 3;
/// Letters of such a prompt
const LONGEST: usize = 60;
/// Intervals that a run says the coverage of
const LEVELS: [u32; 3] = [50, 80, 95];
/// Colours of curves that are no run
const MEMORY: usize = 2;
const STORE: usize = 5;

/// A section for each run that has a particle memory
pub fn sections(runs: &[Run]) -> Result<Vec<Section>> {
    let sections = runs.iter().map(section).collect::<Result<Vec<_>>>()?;
    Ok(sections.into_iter().flatten().collect())
}

fn section(run: &Run) -> Result<Option<Section>> {
    let Some(size) = run.metrics.get("memory/size") else { return Ok(None) };
    let landscape = Landscape::read(&run.folder)?;
    let mut section = Section { title: format!("The field over prompts: {}", run.name), ..Section::default() };
    if let Some(landscape) = &landscape {
        add_landscape(&mut section, landscape)?;
    } else {
        section
            .notes
            .push("Its prompts have no features, or it has not written its memory yet: no map of them.".to_owned());
    }
    section.figures.extend(growth(run, size)?);
    section.figures.extend(calibration(run)?);
    Ok(Some(section))
}

fn add_landscape(section: &mut Section, landscape: &Landscape) -> Result<()> {
    section.notes.push(
        "A point is a prompt in memory, in the plane in which the features of the prompts vary most; its colour is what the \
         field expects there, R − τL. It explains the value of prompts, not which tokens the policy chooses."
            .to_owned(),
    );
    let thirds = thirds(&landscape.places);
    let named = THIRDS.iter().zip(&thirds).filter(|(_, places)| !places.is_empty());
    section.legend = named
        .map(|((name, colour), places)| {
            let (low, high) = (places[0].value, places[places.len() - 1].value);
            Name::new(format!("{name}: {} to {}", chart::number(low), chart::number(high)), *colour)
        })
        .collect();
    let series = THIRDS
        .iter()
        .zip(&thirds)
        .map(|((_, colour), places)| Series::new(*colour, Mark::Dot, places.iter().map(|place| place.at).collect()));
    let series: Vec<Series> = series.collect();
    if let Some(svg) = scatter::draw(&series, "first direction", "second direction")? {
        let note = format!("{:.0} % of the features' variance", 100.0 * landscape.shown);
        section.figures.push(Figure { title: "value of prompts".to_owned(), svg, note: Some(note) });
    }
    if landscape.parts.len() > 1 {
        section.table = Some(parts(landscape));
    }
    Ok(())
}

/// The places by value, cut into three
fn thirds(places: &[Place]) -> [Vec<&Place>; 3] {
    let mut ordered: Vec<&Place> = places.iter().collect();
    ordered.sort_by(|a, b| a.value.total_cmp(&b.value));
    let n = ordered.len();
    [0, 1, 2].map(|third| ordered[n * third / 3..n * (third + 1) / 3].to_vec())
}

fn parts(landscape: &Landscape) -> Table {
    let row = |(i, part): (usize, &crate::train::grl::LandscapePart)| {
        let places = || part.members.iter().map(|at| &landscape.places[*at]);
        let mean = places().map(|place| place.value).sum::<f64>() / part.members.len().max(1) as f64;
        // Those nearest to the part's own mean say best what it is
        let mut typical: Vec<&Place> = places().collect();
        typical.sort_by(|a, b| (a.value - mean).abs().total_cmp(&(b.value - mean).abs()));
        let prompts: Vec<String> =
            typical.iter().take(EXAMPLES).map(|place| one_line(&place.prompt, LONGEST)).collect();
        let cells = vec![
            part.members.len().to_string(),
            format!("{:.0} %", 100.0 * part.share),
            chart::number(mean),
            prompts.join(" · "),
        ];
        (Name::new(format!("part {}", i + 1), 6), cells)
    };
    Table {
        columns: ["prompts", "share of the field's norm", "mean value", "for example"].map(str::to_owned).into(),
        rows: landscape.parts.iter().enumerate().map(row).collect(),
    }
}

/// Particles and stored responses, step by step: neither grows without bound
fn growth(run: &Run, size: &[(f64, f64)]) -> Result<Option<Figure>> {
    let mut curves = vec![Curve { colour: MEMORY, points: size.to_vec(), marked: false }];
    if let Some(points) = run.metrics.get("replay/size") {
        curves.push(Curve { colour: STORE, points: points.clone(), marked: false });
    }
    let svg = chart::draw(&curves, "step", "particles, stored responses")?;
    let note = Some("the lower curve is the particles".to_owned());
    Ok(svg.map(|svg| Figure { title: "memory and replay store".to_owned(), svg, note }))
}

/// How many truths the intervals of the last evaluation held, against what they promised
fn calibration(run: &Run) -> Result<Option<Figure>> {
    let held = LEVELS.iter().filter_map(|level| {
        let (_, share) = run.metrics.get(&format!("eval_value/coverage_{level}"))?.last()?;
        Some((f64::from(*level) / 100.0, *share))
    });
    let held: Vec<(f64, f64)> = held.collect();
    if held.is_empty() {
        return Ok(None);
    }
    let rule = Series::new(6, Mark::Rule, vec![(0.0, 0.0), (1.0, 1.0)]);
    let series = [rule, Series::new(MEMORY, Mark::Point, held)];
    let svg = scatter::draw(&series, "promised share", "share of held-out values inside")?;
    let note = Some("on the line: the doubt is right; below: too sure".to_owned());
    Ok(svg.map(|svg| Figure { title: "is the field's doubt right?".to_owned(), svg, note }))
}
