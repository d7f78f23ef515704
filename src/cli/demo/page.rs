//! The demo's report: what was found, then the runs.

use std::path::Path;

use super::measure::{CalibrationBin, Figures, Sample};
use super::runs::{BATCH, STAGES, Source};
use super::table::{COLUMNS, Results, ranking};
use crate::Result;
use crate::report::scatter::{self, Mark, Series};
use crate::report::section::{Figure, Group, Name, Section, Table, Text};
use crate::report::{Run, render_after};

/// Names under which the online runs log what the figures show
const PROXY: &str = "rewards/reward/mean";
const GOLD: &str = "rewards/lexicon/mean";
const KL: &str = "objective/kl";
const LENGTH: &str = "completions/mean_length";
/// The base model's colour: the first that no run has
const BASE: usize = STAGES.len();

/// What a run asked the judge, and what it got
struct Online<'r> {
    name: Name,
    run: &'r Run,
}

/// The run folders, in the order of the stages
pub(super) fn runs(folder: &Path) -> Result<Vec<Run>> {
    STAGES.iter().map(|stage| Run::read(&folder.join(stage.name))).collect()
}

/// The page
pub(super) fn page(results: &Results, runs: &[Run]) -> Result<String> {
    let online = online(runs);
    let sections =
        [summary(results), frontier(results, runs, &online)?, curves(&online)?, calibration(results)?, browse(results)];
    render_after("collimate demo", &sections, runs)
}

/// Where proxy and gold part: how either ranks the aligned models, and how far both moved from the second to the last third
/// of each run
pub(super) fn parting(results: &Results, runs: &[Run]) -> String {
    let ranked = |of: fn(&Figures) -> f64| {
        let aligned = results.findings.models.iter().filter(|model| !matches!(model.label, "base" | "SFT"));
        let mut aligned: Vec<&Figures> = aligned.collect();
        aligned.sort_by(|a, b| of(b).total_cmp(&of(a)));
        let shown = aligned.into_iter().map(|model| format!("{} {:+.2}", model.label, of(model)));
        shown.collect::<Vec<_>>().join(", ")
    };
    let (by_proxy, by_gold) = (ranked(|model| model.proxy.mean), ranked(|model| model.gold.mean));
    let change = |run: &Run, metric: &str| {
        let values: Vec<f64> = run.metrics.get(metric).into_iter().flatten().map(|(_, value)| *value).collect();
        let third = (values.len() / 3).max(1);
        let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
        let (before, last) = values.split_at(values.len().saturating_sub(third));
        mean(last) - mean(&before[before.len().saturating_sub(third)..])
    };
    let moved = online(runs)
        .into_iter()
        .map(|Online { name, run }| format!("{} {:+.2} and {:+.2}", name.text, change(run, PROXY), change(run, GOLD)));
    format!(
        "Where they part: by proxy {by_proxy}; by gold {by_gold}. From the second to the last third of training, proxy and \
         gold moved by {}.",
        moved.collect::<Vec<_>>().join(", ")
    )
}

fn colour(label: &str) -> usize {
    STAGES.iter().position(|stage| stage.label == label).unwrap_or(BASE)
}

fn online(runs: &[Run]) -> Vec<Online<'_>> {
    let stages = STAGES.iter().zip(runs).filter(|(stage, _)| stage.source == Source::Judge);
    stages.map(|(stage, run)| Online { name: Name::new(stage.label, colour(stage.label)), run }).collect()
}

fn figure(title: &str, note: Option<&str>, series: &[Series], axes: (&str, &str)) -> Result<Option<Figure>> {
    let svg = scatter::draw(series, axes.0, axes.1)?;
    Ok(svg.map(|svg| Figure { title: title.to_owned(), svg, note: note.map(str::to_owned) }))
}

fn summary(results: &Results) -> Section {
    let rows = results.findings.models.iter();
    let rows = rows.map(|model| (Name::new(model.label, colour(model.label)), results.cells(model).to_vec()));
    Section {
        title: "What alignment did".to_owned(),
        table: Some(Table { columns: COLUMNS.map(str::to_owned).to_vec(), rows: rows.collect() }),
        notes: results.notes().to_vec(),
        ..Section::default()
    }
}

fn frontier(results: &Results, runs: &[Run], online: &[Online<'_>]) -> Result<Section> {
    let end = |x: fn(&Figures) -> f64, y: fn(&Figures) -> f64| {
        let models = results.findings.models.iter();
        models.map(move |model| Series::new(colour(model.label), Mark::Point, vec![(x(model), y(model))]))
    };
    let way = |x: &str, y: &str| -> Vec<Series> {
        online.iter().map(|it| Series::new(it.name.colour, Mark::Way, it.run.against(x, y))).collect()
    };
    let (kl, gold, proxy) = (|it: &Figures| it.kl.mean, |it: &Figures| it.gold.mean, |it: &Figures| it.proxy.mean);
    let note = Some("lines: while training; large points: held-out prompts in the end");
    let drawn = |title, ends: Vec<Series>, x, y, axes| {
        let series: Vec<Series> = way(x, y).into_iter().chain(ends).collect();
        figure(title, note, &series, axes)
    };
    let figures = [
        drawn("Gold reward over KL", end(kl, gold).collect(), KL, GOLD, ("KL to SFT, nats a review", "gold reward"))?,
        drawn(
            "Proxy reward over KL",
            end(kl, proxy).collect(),
            KL,
            PROXY,
            ("KL to SFT, nats a review", "proxy reward"),
        )?,
        drawn("Gold against proxy", end(proxy, gold).collect(), PROXY, GOLD, ("proxy reward", "gold reward"))?,
    ];
    Ok(Section {
        title: "What reward costs, and what it is worth".to_owned(),
        notes: vec![
            "Up and to the left is better: much reward for little movement. The proxy is what the runs were paid by, the \
             gold reward what it stands for; where a line goes on to the right in the last figure without rising, the \
             reward model is being flattered."
                .to_owned(),
            parting(results, runs),
        ],
        legend: results.findings.models.iter().map(|model| Name::new(model.label, colour(model.label))).collect(),
        figures: figures.into_iter().flatten().collect(),
        ..Section::default()
    })
}

fn curves(online: &[Online<'_>]) -> Result<Section> {
    let wanted = [
        ("Proxy reward", PROXY),
        ("Gold reward", GOLD),
        ("KL to SFT, nats a review", KL),
        ("Tokens of a review", LENGTH),
    ];
    let drawn = wanted.map(|(title, metric)| {
        let asked = |(step, value): &(f64, f64)| (step * BATCH as f64, *value);
        let curve = |it: &Online<'_>| {
            let points = it.run.metrics.get(metric).into_iter().flatten().map(asked).collect();
            Series::new(it.name.colour, Mark::Way, points)
        };
        figure(title, None, &online.iter().map(curve).collect::<Vec<_>>(), ("reward queries", title))
    });
    Ok(Section {
        title: "While training".to_owned(),
        notes: vec!["Means over the reviews of each logged step, written to training prompts.".to_owned()],
        legend: online.iter().map(|it| it.name.clone()).collect(),
        figures: drawn.into_iter().collect::<Result<Vec<_>>>()?.into_iter().flatten().collect(),
        ..Section::default()
    })
}

fn calibration(results: &Results) -> Result<Section> {
    let found = &results.findings.ranking;
    let colour = colour("reward model");
    let bar = |bin: &CalibrationBin| {
        let ends = bin.interval.map(|end| (bin.predicted, end));
        Series::new(colour, Mark::Rule, ends.to_vec())
    };
    let mut series = vec![Series::new(BASE, Mark::Rule, vec![(0.5, 0.5), (1.0, 1.0)])];
    series.extend(found.bins.iter().map(bar));
    let points = found.bins.iter().map(|bin| (bin.predicted, bin.observed)).collect();
    series.push(Series::new(colour, Mark::Point, points));
    let note = format!("{} held-out pairs in {} bins; bars: 95 %", found.whole.pairs, found.bins.len());
    let axes = ("predicted: σ(difference of scores)", "observed share");
    let drawn = figure("How often the review with the higher score was the chosen one", Some(&note), &series, axes)?;
    Ok(Section {
        title: "The reward model".to_owned(),
        notes: vec![
            ranking(found),
            "On the grey line it is as sure as it may be; below it, it is surer than it is right.".to_owned(),
        ],
        figures: drawn.into_iter().collect(),
        ..Section::default()
    })
}

fn browse(results: &Results) -> Section {
    let models = &results.findings.models;
    let text = |model: &Figures, prompt: usize| {
        let Sample { text, gold, proxy } = &model.samples[prompt];
        let figures = format!("gold {gold:+.2} · proxy {proxy:+.2}");
        Text { name: Name::new(model.label, colour(model.label)), figures, text: text.clone() }
    };
    let groups = results.findings.prompts.iter().enumerate().map(|(prompt, title)| Group {
        title: title.clone(),
        texts: models.iter().map(|model| text(model, prompt)).collect(),
    });
    Section {
        title: "What each model writes".to_owned(),
        notes: vec![
            "The first review of each model to each held-out prompt, drawn with the same random numbers.".to_owned(),
        ],
        groups: groups.collect(),
        ..Section::default()
    }
}
