//! One page for one or more runs: it carries everything, asks no network and runs no script.

use std::collections::BTreeSet;

use minijinja::context;
use serde::Serialize;
use serde_json::Value;

use super::chart::{self, Curve, PALETTE};
use super::run::{Run, State};
use super::scatter::{self, Mark, Series};
use super::section::{Figure, Section};
use super::template::{fill, jinja};
use crate::error::Result;

/// What a reader of any trainer's run looks at first, in this order; `*` stands for a name
const MAIN: [&str; 24] = [
    "reward",
    "rewards/*/mean",
    "objective/rlhf_reward",
    "objective/scores",
    "objective/scores_margin",
    "kl",
    "objective/kl",
    "loss",
    "policy_loss",
    "loss/policy_avg",
    "loss/value_avg",
    "rewards/accuracies",
    "accuracy",
    "rewards/margins",
    "margin",
    "rewards/chosen",
    "rewards/rejected",
    "mean_token_accuracy",
    "perplexity",
    "entropy",
    "policy/entropy_avg",
    "completions/mean_length",
    "completions/clipped_ratio",
    "frac_reward_zero_std",
];
const EVAL: &str = "eval_";
/// What one of the rewards said
const JUDGE: &str = "rewards/*/mean";

#[derive(Serialize)]
struct Header<'r> {
    name: &'r str,
    folder: String,
    colour: usize,
    state: &'static str,
    reason: Option<&'r str>,
    facts: Vec<(&'static str, String)>,
    hashes: Vec<(&'r str, &'r str)>,
    config: Option<&'r str>,
    completions: &'r super::completions::Completions,
}

#[derive(Serialize)]
struct Final {
    metric: String,
    values: Vec<String>,
}

/// The page of these runs, overlaid where there are several, with what else is known of them behind their curves
pub fn render(sections: &[Section], runs: &[Run]) -> Result<String> {
    let titles: Vec<&str> = runs.iter().map(|run| run.name.as_str()).collect();
    page(&titles.join(", "), &[], runs, sections)
}

/// A page of runs that begins with what somebody found out about them, which folds the runs themselves
pub fn render_after(title: &str, sections: &[Section], runs: &[Run]) -> Result<String> {
    page(title, sections, runs, &[])
}

fn page(title: &str, before: &[Section], runs: &[Run], behind: &[Section]) -> Result<String> {
    let names: BTreeSet<&str> = runs.iter().flat_map(|run| run.metrics.keys()).map(String::as_str).collect();
    let bases: BTreeSet<&str> = names.iter().map(|name| name.strip_prefix(EVAL).unwrap_or(name)).collect();
    let main: Vec<&str> =
        MAIN.iter().flat_map(|entry| bases.iter().filter(|base| matches(entry, base)).copied()).collect();
    let rest: Vec<&str> = bases.iter().filter(|base| !main.contains(base)).copied().collect();
    let figures = |bases: &[&str]| -> Result<Vec<Figure>> {
        bases.iter().filter_map(|base| figure(runs, base).transpose()).collect()
    };
    let shown = context! {
        title => title,
        sections => jinja(before),
        behind => jinja(behind),
        version => env!("CARGO_PKG_VERSION"),
        palette => jinja(PALETTE),
        runs => jinja(runs.iter().enumerate().map(header).collect::<Vec<_>>()),
        frontiers => jinja(frontiers(runs)?),
        main => jinja(figures(&main)?),
        rest => jinja(figures(&rest)?),
        finals => jinja(finals(runs, &main)),
    };
    // What the page calls must stand before it
    fill(concat!(include_str!("sections.html"), include_str!("page.html")), shown)
}

fn matches(entry: &str, name: &str) -> bool {
    match entry.split_once('*') {
        Some((before, after)) => {
            name.len() > before.len() + after.len() && name.starts_with(before) && name.ends_with(after)
        }
        None => entry == name,
    }
}

/// Training as a line, evaluation as a line with its points marked
fn figure(runs: &[Run], base: &str) -> Result<Option<Figure>> {
    let mut curves = Vec::new();
    let evaluated = format!("{EVAL}{base}");
    for (colour, run) in runs.iter().enumerate() {
        for (name, marked) in [(base, false), (evaluated.as_str(), true)] {
            if let Some(points) = run.metrics.get(name) {
                curves.push(Curve { colour, points: points.clone(), marked });
            }
        }
    }
    let svg = chart::draw(&curves, "step", base)?;
    let note = curves.iter().any(|curve| curve.marked).then(|| "dots: evaluation".to_owned());
    Ok(svg.map(|svg| Figure { title: base.to_owned(), svg, note }))
}

fn frontiers(runs: &[Run]) -> Result<Vec<Figure>> {
    let kinds: BTreeSet<&String> = runs.iter().flat_map(|run| run.frontiers.keys()).collect();
    let mut figures = Vec::new();
    for kind in kinds {
        let of_run = |(colour, run): (usize, &Run)| {
            let points = run.frontiers.get(kind)?.clone();
            Some(Curve { colour, points, marked: true })
        };
        let curves: Vec<Curve> = runs.iter().enumerate().filter_map(of_run).collect();
        if let Some(svg) = chart::draw(&curves, kind, "reward")? {
            figures.push(Figure { title: format!("reward against {kind}"), svg, note: None });
        }
    }
    figures.extend(judges(runs)?);
    Ok(figures)
}

/// Where a run asked several judges: what each said, against what the policy was paid
fn judges(runs: &[Run]) -> Result<Vec<Figure>> {
    let judges_of = |run: &'_ Run| run.metrics.keys().filter(|name| matches(JUDGE, name)).cloned().collect::<Vec<_>>();
    let names: BTreeSet<String> = runs.iter().map(judges_of).filter(|names| names.len() > 1).flatten().collect();
    let mut figures = Vec::new();
    for name in names {
        let ways: Vec<Vec<(f64, f64)>> = runs.iter().map(|run| run.against("reward", &name)).collect();
        // Who alone decides about the pay says nothing new
        if ways.iter().flatten().all(|(paid, said)| paid == said) {
            continue;
        }
        let ways = ways.into_iter().enumerate();
        let series: Vec<Series> = ways.map(|(colour, points)| Series::new(colour, Mark::Way, points)).collect();
        if let Some(svg) = scatter::draw(&series, "reward", &name)? {
            figures.push(Figure { title: format!("{name} against reward"), svg, note: None });
        }
    }
    Ok(figures)
}

fn header((colour, run): (usize, &Run)) -> Header<'_> {
    let (state, reason) = match &run.state {
        State::Finished => ("finished", None),
        State::Open => ("running, or killed: it has not said that it ended", None),
        State::Stopped(reason) => ("stopped", Some(reason.as_str())),
    };
    let start = &run.start;
    let words = |value: &Value| {
        let words: Vec<&str> = value.as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        (!words.is_empty()).then(|| words.join(" "))
    };
    let plain = |value: &Value| match value {
        Value::Null => None,
        Value::String(text) => Some(text.clone()),
        other => Some(other.to_string()),
    };
    let config = |key: &str| {
        let lines = run.config.as_deref().unwrap_or_default().lines();
        let mut values = lines.filter_map(|line| line.strip_prefix(key)?.strip_prefix(": "));
        values.next().filter(|value| *value != "null").map(str::to_owned)
    };
    let facts = [
        ("trainer", run.trainer().map(str::to_owned)),
        ("model", config("model_name_or_path")),
        ("dataset", config("dataset_name")),
        ("seed", plain(&start["seed"])),
        ("last step", run.last_step.map(|step| step.to_string())),
        ("begun", plain(&start["start"])),
        ("ended", plain(&start["end"])),
        ("starts", (run.starts > 1).then(|| run.starts.to_string())),
        ("resumed from step", plain(&start["resumed_from_step"])),
        ("collimate", plain(&start["version"])),
        ("threads", plain(&start["threads"])),
        ("processor", words(&start["cpu_features"])),
        ("command", words(&start["command"])),
    ];
    let hashes = start["sha256"].as_object().into_iter().flatten();
    Header {
        name: &run.name,
        folder: run.folder.display().to_string(),
        colour: colour % PALETTE.len(),
        state,
        reason,
        facts: facts.into_iter().filter_map(|(name, value)| Some((name, value?))).collect(),
        hashes: hashes.filter_map(|(file, hash)| Some((file.as_str(), hash.as_str()?))).collect(),
        config: run.config.as_deref(),
        completions: &run.completions,
    }
}

/// The last logged value of what matters, then what `summary.json` adds
fn finals(runs: &[Run], main: &[&str]) -> Vec<Final> {
    let mut finals = Vec::new();
    let mut add = |metric: &str, value: &dyn Fn(&Run) -> Option<f64>| {
        let values: Vec<Option<f64>> = runs.iter().map(value).collect();
        if values.iter().any(Option::is_some) {
            let shown = values.into_iter().map(|value| value.map_or_else(|| "–".to_owned(), chart::number));
            finals.push(Final { metric: metric.to_owned(), values: shown.collect() });
        }
    };
    let last = |run: &Run, name: &str| Some(run.metrics.get(name)?.last()?.1);
    for base in main {
        let evaluated = format!("{EVAL}{base}");
        add(base, &|run| last(run, base));
        add(&evaluated, &|run| last(run, &evaluated));
    }
    let keys: BTreeSet<&String> = runs.iter().flat_map(|run| run.summary.keys()).collect();
    for key in keys {
        let logged = runs.iter().any(|run| main.contains(&key.as_str()) && run.metrics.contains_key(key));
        if !logged && !matches!(key.as_str(), "step" | "epoch") {
            add(key, &|run| run.summary.get(key)?.as_f64());
        }
    }
    finals
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_star_stands_for_a_name() {
        assert!(super::matches("rewards/*/mean", "rewards/lexicon/mean"));
        assert!(!super::matches("rewards/*/mean", "rewards/mean"));
        assert!(super::matches("kl", "kl") && !super::matches("kl", "objective/kl"));
    }
}
