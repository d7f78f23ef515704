//! Runs that exist already, grouped into algorithms by their names.

use std::path::{Path, PathBuf};

use super::{Args, curve_of};
use crate::report::Run;
use crate::report::comparison::{Algorithm, Cell, Question};
use crate::report::run::State;
use crate::run::names;
use crate::{Error, Result};

/// Columns taken where nothing is said, the first that every run has
const METRICS: [&str; 2] = ["reward", "return"];
const QUERIES: &str = "reward_queries";

/// The runs behind `--runs`, and the question that they can answer
pub fn read(args: &Args) -> Result<(Vec<Algorithm>, Question)> {
    let mut found: Vec<(String, Vec<Run>)> = Vec::new();
    for word in &args.runs {
        let (name, path) = match word.split_once('=') {
            // A folder may have such a sign in its own name
            Some((name, path)) if !Path::new(word).exists() => (Some(name.to_owned()), Path::new(path)),
            _ => (None, Path::new(word)),
        };
        let folders = run_folders(path);
        if folders.is_empty() {
            // Says what is wrong with it
            Run::read(path)?;
        }
        for folder in folders {
            let name = name.clone().unwrap_or_else(|| group(path, &folder));
            let run = Run::read(&folder)?;
            match found.iter_mut().find(|(known, _)| *known == name) {
                Some((_, runs)) => runs.push(run),
                None => found.push((name, vec![run])),
            }
        }
    }
    let every = |column: &str| found.iter().flat_map(|(_, runs)| runs).all(|run| run.metrics.contains_key(column));
    let metric = args.metric.clone().or_else(|| METRICS.iter().find(|name| every(name)).map(|name| (*name).to_owned()));
    let Some(metric) = metric else {
        return Err(Error::usage("`metric` is not set, and the runs do not all log `reward` or `return`")
            .hint("add `--metric COLUMN`, a column of `metrics.jsonl` of which more is better"));
    };
    let x = args.x.clone().unwrap_or_else(|| if every(QUERIES) { QUERIES } else { "step" }.to_owned());
    let algorithm = |(name, runs): (String, Vec<Run>)| {
        let cells = runs.iter().map(|run| cell(run, &metric, &x)).collect::<Result<_>>()?;
        Ok(Algorithm { name, cells })
    };
    let algorithms = found.into_iter().map(algorithm).collect::<Result<Vec<_>>>()?;
    let question = Question {
        metric,
        x_label: x.replace('_', " "),
        x,
        threshold: args.threshold,
        normalised: false,
        failed_score: None,
        budget: None,
    };
    Ok((algorithms, question))
}

fn cell(run: &Run, metric: &str, x: &str) -> Result<Cell> {
    let failure = match &run.state {
        State::Finished => None,
        State::Open => Some("it has not ended".to_owned()),
        State::Stopped(reason) => Some(reason.clone()),
    };
    let seed = run.start["seed"].as_u64();
    Ok(Cell {
        task: String::new(),
        label: seed.map_or_else(|| run.name.clone(), |seed| format!("seed {seed}")),
        folder: run.folder.clone(),
        curve: curve_of(run, metric, x)?,
        failure,
    })
}

/// The folder itself where it is a run, else the runs in it, down to `NAME/TASK/seed-S` in the folder of a comparison
fn run_folders(path: &Path) -> Vec<PathBuf> {
    fn walk(folder: &Path, depth: usize, found: &mut Vec<PathBuf>) {
        if folder.join(names::METRICS).is_file() {
            found.push(folder.to_path_buf());
        } else if depth > 0
            && let Ok(entries) = std::fs::read_dir(folder)
        {
            let mut folders: Vec<PathBuf> =
                entries.filter_map(|entry| Some(entry.ok()?.path())).filter(|path| path.is_dir()).collect();
            folders.sort_by_key(|path| (path.as_os_str().len(), path.clone()));
            for folder in folders {
                walk(&folder, depth - 1, found);
            }
        }
    }
    let mut found = Vec::new();
    walk(path, 4, &mut found);
    found
}

/// The algorithm of a run: its folder's name without a seed at the end, or the folder around it where that leaves nothing
fn group(given: &Path, folder: &Path) -> String {
    let own = |path: &Path| {
        // `.` has no name of its own
        let path = path.canonicalize().unwrap_or_else(|_| path.to_path_buf());
        path.file_name().map_or_else(String::new, |name| without_seed(&name.to_string_lossy()).to_owned())
    };
    let mut candidates = folder.ancestors().take_while(|path| path.starts_with(given)).map(own);
    let found = candidates.find(|name| !name.is_empty());
    found.or_else(|| folder.parent().map(own)).filter(|name| !name.is_empty()).unwrap_or_else(|| "runs".to_owned())
}

/// `ppo-seed-3`, `ppo_seed3`, `ppo-3` → `ppo`; `seed-3` → nothing
fn without_seed(name: &str) -> &str {
    let digits = name.trim_end_matches(|c: char| c.is_ascii_digit());
    if digits.len() == name.len() {
        return name;
    }
    let separators = ['-', '_', '.', '='];
    let short = digits.trim_end_matches(separators);
    match short.strip_suffix("seed") {
        Some(before) if before.is_empty() || before.ends_with(separators) => before.trim_end_matches(separators),
        // `gpt2` ends in a digit that is no seed
        _ if short.len() == digits.len() && !short.is_empty() => name,
        _ => short,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_seed_is_no_part_of_the_name() {
        let cases = [
            ("ppo-seed-3", "ppo"),
            ("ppo_seed3", "ppo"),
            ("ppo-12", "ppo"),
            ("seed-3", ""),
            ("seed=3", ""),
            ("3", ""),
            ("gpt2", "gpt2"),
            ("dpo-beta", "dpo-beta"),
            ("linseed3", "linseed3"),
        ];
        for (name, expected) in cases {
            assert_eq!(without_seed(name), expected, "{name}");
        }
    }

    #[test]
    fn runs_are_found_below_a_folder_and_named_after_it() {
        let root = tempfile::tempdir().unwrap();
        for run in ["all/ppo/seed-0", "all/ppo/seed-10", "all/ppo/seed-9", "all/grpo-1"] {
            std::fs::create_dir_all(root.path().join(run)).unwrap();
            std::fs::write(root.path().join(run).join(names::METRICS), "").unwrap();
        }
        let given = root.path().join("all");
        let names =
            |given: &Path| -> Vec<String> { run_folders(given).iter().map(|folder| group(given, folder)).collect() };
        assert_eq!(names(&given), ["ppo", "ppo", "ppo", "grpo"]);
        assert_eq!(names(&given.join("ppo")), ["ppo"; 3]);
        assert_eq!(names(&given.join("ppo/seed-9")), ["ppo"]);
        assert!(run_folders(&root.path().join("none")).is_empty());
        let order: Vec<_> =
            run_folders(&given.join("ppo")).iter().map(|path| path.file_name().unwrap().to_owned()).collect();
        assert_eq!(order, ["seed-0", "seed-9", "seed-10"]);
    }
}
