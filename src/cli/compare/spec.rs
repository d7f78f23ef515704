//! The file of a comparison: algorithms × tasks × seeds at one budget, each cell the config of an ordinary run.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::budget::Budget;
use crate::cli::rl::TRAIN;
use crate::config::{CommandSpec, Entry, Place, Range, Value, Values, nearest, to_yaml};
use crate::train::registry::RECIPES;
use crate::{Error, Result};

const KEYS: [&str; 9] =
    ["output_dir", "seeds", "budget", "metric", "threshold", "failed_score", "common", "tasks", "runs"];
/// Keys that the comparison sets itself
const OWN: [&str; 7] = [
    "seed",
    "output_dir",
    "overwrite_output_dir",
    "resume_from_checkpoint",
    "max_steps",
    "total_episodes",
    "total_timesteps",
];
/// Rows of metrics in a run of a language model, where nothing else is said: enough for a curve
const LOGGING_STEPS: &str = "0.02";

type Map = Vec<(String, Value)>;

/// What the file asks for
#[derive(Debug)]
pub struct Spec {
    /// Folder of the comparison
    pub output_dir: PathBuf,
    /// What every cell may spend
    pub budget: Budget,
    /// Column of `metrics.jsonl`
    pub metric: Option<String>,
    /// The score to reach
    pub threshold: Option<f64>,
    /// The score of a run that failed
    pub failed_score: Option<f64>,
    /// The cells, algorithm by algorithm
    pub cells: Vec<Cell>,
}

/// One run of a comparison
#[derive(Debug, Clone)]
pub struct Cell {
    /// Name of the algorithm
    pub algorithm: String,
    /// Name of the task; empty where there is only one
    pub task: String,
    /// Lowest and highest score of the task
    pub range: Option<(f64, f64)>,
    /// The seed
    pub seed: u64,
    /// The command: `ppo`, or `rl train`
    pub command: &'static str,
    /// The run folder
    pub folder: PathBuf,
    /// The text of its config
    pub config: String,
}

impl Cell {
    /// As people read it
    pub fn name(&self) -> String {
        let task = if self.task.is_empty() { String::new() } else { format!(" on {}", self.task) };
        format!("{}{task}, seed {}", self.algorithm, self.seed)
    }

    /// The config file: beside the run folder, which only the run itself writes into
    pub fn config_file(&self) -> PathBuf {
        self.beside("yaml")
    }

    /// What the run says on stderr
    pub fn log_file(&self) -> PathBuf {
        self.beside("log")
    }

    fn beside(&self, ending: &str) -> PathBuf {
        let name = self.folder.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        self.folder.with_file_name(format!("{name}.{ending}"))
    }

    /// Whether it is a run of the classical half
    pub fn is_classical(&self) -> bool {
        self.command == TRAIN.name
    }
}

/// A task, and what its scores may lie between
struct Task {
    name: String,
    keys: Map,
    /// Keys that one run has in this task only: its tuned learning rate, say
    runs: Vec<(String, Map)>,
    range: Option<(f64, f64)>,
}

impl Task {
    fn of_run(&self, name: &str) -> Option<&Map> {
        self.runs.iter().find(|(run, _)| run == name).map(|(_, keys)| keys)
    }
}

impl Spec {
    /// Reads the file; `output_dir`, where given, beats the file's
    pub fn read(path: &Path, output_dir: Option<&Path>) -> Result<Self> {
        let values = Values::from_yaml_file(path)?;
        let file = path.display().to_string();
        for entry in values.entries() {
            if !KEYS.contains(&entry.key.as_str()) {
                return Err(unknown(entry));
            }
        }
        let text = |key: &str| values.read(key, Range::ANY, || None::<String>);
        let number = |key: &str| values.read(key, Range::ANY, || None::<f64>);
        let output_dir = match output_dir {
            Some(folder) => folder.to_path_buf(),
            None => text("output_dir")?.map(PathBuf::from).ok_or_else(|| {
                Error::usage(format!("{file}: `output_dir` is not set")).hint("for example `output_dir: runs/compare`")
            })?,
        };
        let budget = Budget::read(&values, &file)?;
        let (common_command, common) = command_of(map(&values, "common")?.unwrap_or_default());
        let runs = map(&values, "runs")?.filter(|runs| !runs.is_empty()).ok_or_else(|| {
            Error::usage(format!("{file}: `runs` is not set")).hint("for example `runs: {ppo: {}, grpo: {beta: 0.04}}`")
        })?;
        let tasks = tasks(&values)?;
        for (task, run) in tasks.iter().flat_map(|task| task.runs.iter().map(move |(run, _)| (&task.name, run))) {
            if !runs.iter().any(|(name, _)| name == run) {
                let error =
                    Error::usage(format!("{file}: task `{task}` has keys for a run `{run}`, which is not in `runs`"));
                let names = runs.iter().map(|(name, _)| name.as_str());
                return Err(match nearest(run, names) {
                    Some(near) => error.hint(format!("did you mean `{near}`?")),
                    None => error.hint("the names under a task's `runs` are those of the comparison's `runs`"),
                });
            }
        }
        let seeds = seeds(&values)?;
        let mut cells = Vec::new();
        let mut folders = BTreeSet::new();
        for (name, keys) in runs {
            let located = |error: Error| error.context(format_args!("{file}: run `{name}`"));
            let keys = as_map(keys).map_err(|found| located(expected_map(&found)))?;
            let (own_command, keys) = command_of(keys);
            let wanted = own_command.as_ref().or(common_command.as_ref()).and_then(Value::as_scalar).unwrap_or(&name);
            let command = command(wanted).map_err(located)?;
            budget.admits(command.name).map_err(located)?;
            for task in &tasks {
                let merged = merge([&common, &task.keys, &keys].into_iter().chain(task.of_run(&name)));
                refuse_own(&merged).map_err(located)?;
                let keys = at_budget(command, merged, &budget).map_err(located)?;
                for &seed in &seeds {
                    let folder =
                        [folder_name(&name), folder_name(&task.name)].into_iter().filter(|part| !part.is_empty());
                    let folder = folder.fold(output_dir.join("cells"), |path, part| path.join(part));
                    let folder = folder.join(format!("seed-{seed}"));
                    if !folders.insert(folder.clone()) {
                        return Err(located(
                            Error::usage(format!("its folder `{}` is another run's too", folder.display()))
                                .hint("names that differ in more than special characters have folders of their own"),
                        ));
                    }
                    let config = config(command, &keys, seed, &folder).map_err(located)?;
                    cells.push(Cell {
                        algorithm: name.clone(),
                        task: task.name.clone(),
                        range: task.range,
                        seed,
                        command: command.name,
                        folder,
                        config,
                    });
                }
            }
        }
        Ok(Self {
            output_dir,
            budget,
            metric: text("metric")?,
            threshold: number("threshold")?,
            failed_score: number("failed_score")?,
            cells,
        })
    }
}

fn unknown(entry: &Entry) -> Error {
    let error = Error::usage(format!("unknown key `{}` for `compare`", entry.key));
    entry.key_place.locate(match nearest(&entry.key, KEYS) {
        Some(near) => error.hint(format!("did you mean `{near}`?")),
        None => {
            error.hint(format!("it takes `{}`; keys of the runs stand under `common` or `runs`", KEYS.join("`, `")))
        }
    })
}

fn expected_map(found: &Value) -> Error {
    Error::usage(format!("must be a map of keys to values, got {found}")).hint("`{}` where nothing differs")
}

/// A map, or nothing at all
fn as_map(value: Value) -> std::result::Result<Map, Value> {
    match value {
        Value::Map(entries) => Ok(entries),
        value if value.is_null() => Ok(Vec::new()),
        other => Err(other),
    }
}

fn map(values: &Values, key: &str) -> Result<Option<Map>> {
    let Some((value, place)) = values.get(key) else { return Ok(None) };
    let located = |error: Error| place.locate(error.context(format_args!("`{key}`")));
    as_map(value.clone()).map(Some).map_err(|found| located(expected_map(&found)))
}

/// A list of seeds, or how many there are, from 0
fn seeds(values: &Values) -> Result<Vec<u64>> {
    let Some((value, place)) = values.get("seeds") else { return Ok(vec![0, 1, 2]) };
    let parse = |value: &Value| value.as_scalar().and_then(|text| text.parse::<u64>().ok());
    let seeds: Option<Vec<u64>> = match value {
        Value::List(items) => items.iter().map(parse).collect(),
        one => parse(one).map(|count| (0..count).collect()),
    };
    let located = |error: Error| Err(place.locate(error));
    match seeds {
        None => located(Error::usage(format!("`seeds` must be a list of whole numbers, or how many, got {value}"))),
        Some(seeds) if seeds.is_empty() => located(Error::usage("`seeds` must name at least one seed")),
        Some(seeds) if seeds.iter().collect::<BTreeSet<_>>().len() < seeds.len() => {
            located(Error::usage("`seeds` names a seed twice"))
        }
        Some(seeds) => Ok(seeds),
    }
}

fn tasks(values: &Values) -> Result<Vec<Task>> {
    let Some(found) = map(values, "tasks")? else {
        return Ok(vec![Task { name: String::new(), keys: Vec::new(), runs: Vec::new(), range: None }]);
    };
    let place = values.get("tasks").map_or(Place::Default, |(_, place)| place.clone());
    if found.is_empty() {
        return Err(place.locate(Error::usage("`tasks` must name at least one task").hint("leave out `tasks`")));
    }
    let task = |(name, keys): (String, Value)| {
        let located = |error: Error| place.locate(error.context(format_args!("task `{name}`")));
        let keys = as_map(keys).map_err(|found| located(expected_map(&found)))?;
        let (ranges, keys): (Map, Map) = keys.into_iter().partition(|(key, _)| key == "range");
        let (runs, keys): (Map, Map) = keys.into_iter().partition(|(key, _)| key == "runs");
        let runs = runs.into_iter().map(|(_, runs)| as_map(runs)).next().unwrap_or(Ok(Vec::new()));
        let runs = runs.and_then(|runs| runs.into_iter().map(|(run, keys)| Ok((run, as_map(keys)?))).collect());
        let runs = runs.map_err(|found: Value| located(expected_map(&found).context("`runs`")))?;
        let range = match ranges.first() {
            None => None,
            Some((_, value)) => Some(range(value).map_err(located)?),
        };
        Ok(Task { name, keys, runs, range })
    };
    let tasks = found.into_iter().map(task).collect::<Result<Vec<_>>>()?;
    let with_range = tasks.iter().filter(|task| task.range.is_some()).count();
    if tasks.len() > 1 && with_range < tasks.len() {
        return Err(place.locate(
            Error::usage("every task must have a `range`: scores of several tasks are averaged as shares of it")
                .hint("for example `range: [0, 500]`, what an untrained and what a perfect policy score"),
        ));
    }
    Ok(tasks)
}

fn range(value: &Value) -> Result<(f64, f64)> {
    let number = |value: &Value| value.as_scalar()?.parse::<f64>().ok().filter(|number| number.is_finite());
    let ends = match value {
        Value::List(ends) => ends.iter().map(number).collect::<Option<Vec<_>>>(),
        _ => None,
    };
    match ends.as_deref() {
        Some([low, high]) if low < high => Ok((*low, *high)),
        _ => {
            Err(Error::usage("`range` must be two numbers, the lower one first").hint("for example `range: [0, 500]`"))
        }
    }
}

/// The key `command`, and the others
fn command_of(keys: Map) -> (Option<Value>, Map) {
    let (commands, keys): (Map, Map) = keys.into_iter().partition(|(key, _)| key == "command");
    (commands.into_iter().next().map(|(_, value)| value), keys)
}

/// The command of this name
fn command(wanted: &str) -> Result<&'static CommandSpec> {
    let specs = || RECIPES.iter().chain([&TRAIN]);
    specs().find(|spec| spec.name == wanted).ok_or_else(|| {
        let error = Error::usage(format!("`command` must be a training command, got `{wanted}`"));
        match nearest(wanted, specs().map(|spec| spec.name)) {
            Some(near) => error.hint(format!("did you mean `{near}`?")),
            None => error.hint("for example `command: ppo`, or `command: rl train`"),
        }
    })
}

/// All keys, a later map before an earlier one
fn merge<'m>(maps: impl IntoIterator<Item = &'m Map>) -> Map {
    let mut merged: Map = Vec::new();
    for (key, value) in maps.into_iter().flatten() {
        match merged.iter_mut().find(|(known, _)| known == key) {
            Some((_, old)) => *old = value.clone(),
            None => merged.push((key.clone(), value.clone())),
        }
    }
    merged
}

fn refuse_own(keys: &Map) -> Result<()> {
    match keys.iter().find(|(key, _)| OWN.contains(&key.as_str())) {
        Some((key, _)) => Err(Error::usage(format!("`{key}` is set by the comparison"))
            .hint("leave it out: `seeds`, `budget` and `output_dir` of the comparison decide")),
        None => Ok(()),
    }
}

/// The keys of a run that spends the budget; they are known to its command
fn at_budget(command: &CommandSpec, mut keys: Map, budget: &Budget) -> Result<Map> {
    if command.name != TRAIN.name && !keys.iter().any(|(key, _)| key == "logging_steps") {
        keys.push(("logging_steps".to_owned(), Value::Number(LOGGING_STEPS.to_owned())));
    }
    let (values, _) = command.load(None, keys.iter().cloned())?;
    keys.push(budget.key(command.name, &values)?);
    Ok(keys)
}

/// The config of one cell
fn config(command: &CommandSpec, keys: &Map, seed: u64, folder: &Path) -> Result<String> {
    let mut keys = keys.clone();
    keys.push(("seed".to_owned(), Value::Number(seed.to_string())));
    keys.push(("output_dir".to_owned(), Value::text(folder.display().to_string())));
    Ok(format!("# collimate {} --config THIS_FILE\n{}", command.name, to_yaml(keys)?))
}

/// A name as that of a folder
fn folder_name(name: &str) -> String {
    let plain = |c: char| if c.is_alphanumeric() || "-_.=+".contains(c) { c } else { '-' };
    let name: String = name.chars().map(plain).collect();
    // Neither hidden nor the folder above
    name.trim_start_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `PROMPTS` stands for a file of ten
    fn read(text: &str) -> Result<Spec> {
        let folder = tempfile::tempdir().unwrap();
        let prompts = folder.path().join("prompts.jsonl");
        std::fs::write(&prompts, "{\"prompt\": \"p\"}\n".repeat(10)).unwrap();
        let text = text.replace("PROMPTS", prompts.to_str().unwrap());
        let path = folder.path().join("compare.yaml");
        std::fs::write(&path, text).unwrap();
        Spec::read(&path, None)
    }

    const LANGUAGE: &str = "output_dir: out\nseeds: [3, 5]\nbudget: {reward_queries: 100}\n\
        common: {model_name_or_path: m, dataset_name: PROMPTS, reward_funcs: length, per_device_train_batch_size: 4}\n";

    #[test]
    fn cells_are_ordinary_configs_at_one_budget() {
        let text = "runs:\n  ppo: {num_generations: 2}\n  twice: {command: grpo, num_generations: 4, num_iterations: 2, \
                    learning_rate: 3e-5}\n  grl:\n";
        let spec = read(&format!("{LANGUAGE}{text}")).unwrap();
        let names: Vec<_> = spec.cells.iter().map(|cell| (cell.command, cell.algorithm.as_str(), cell.seed)).collect();
        assert_eq!(
            names,
            [
                ("ppo", "ppo", 3),
                ("ppo", "ppo", 5),
                ("grpo", "twice", 3),
                ("grpo", "twice", 5),
                ("grl", "grl", 3),
                ("grl", "grl", 5)
            ]
        );
        assert_eq!(spec.cells[3].folder, Path::new("out/cells/twice/seed-5"));
        assert_eq!(spec.cells[3].config_file(), Path::new("out/cells/twice/seed-5.yaml"));
        // PPO asks 4, 4 and 2 prompts twice each: five epochs of 20. GRPO asks 4 completions every other step, GRL 2 prompts
        // twice each
        for (cell, steps) in [(1, 15), (3, 50), (5, 25)] {
            let values = Values::from_yaml(&spec.cells[cell].config, "cell").unwrap();
            assert_eq!(values.get("max_steps").unwrap().0.as_scalar(), Some(steps.to_string().as_str()));
            assert_eq!(values.get("seed").unwrap().0.as_scalar(), Some("5"));
        }
        assert!(spec.cells[2].config.contains("learning_rate: 3e-5") || spec.cells[2].config.contains("0.00003"));
    }

    #[test]
    fn classical_cells_take_their_steps() {
        let text = "output_dir: out\nseeds: 2\nbudget: {timesteps: 500}\nruns: {a: {command: rl train, agent: ppo}}\n\
                    tasks: {pole: {env: CartPole-v1, range: [0, 500]}, bot: {env: Acrobot-v1, range: [-500, 0]}}";
        let spec = read(text).unwrap();
        assert_eq!(spec.cells.len(), 4);
        assert_eq!(spec.cells[2].folder, Path::new("out/cells/a/bot/seed-0"));
        assert_eq!(spec.cells[2].range, Some((-500.0, 0.0)));
        assert!(spec.cells[2].config.contains("total_timesteps: 500") && !spec.cells[2].config.contains("range"));
    }

    #[test]
    fn a_task_may_change_keys_of_one_run() {
        let text = "runs: {ppo: {learning_rate: 1e-3}, grpo: {num_generations: 4}}\n\
                    tasks: {one: {range: [0, 1]}, two: {range: [0, 1], runs: {ppo: {learning_rate: 1e-4}}}}";
        let spec = read(&format!("{LANGUAGE}{text}")).unwrap();
        let rates: Vec<_> = [0, 2, 6]
            .map(|cell: usize| {
                let values = Values::from_yaml(&spec.cells[cell].config, "cell").unwrap();
                values.get("learning_rate").map(|(rate, _)| rate.as_scalar().unwrap().parse::<f64>().unwrap())
            })
            .into();
        assert_eq!(rates, [Some(1e-3), Some(1e-4), None]);
    }

    #[test]
    fn what_cannot_be_is_refused_with_its_place() {
        for (text, expected) in [
            ("runs: {ppo: {seed: 3}}", "compare.yaml: run `ppo`: `seed` is set by the comparison"),
            ("runs: {pop: {}}", "run `pop`: `command` must be a training command, got `pop`"),
            ("runs: {ppo: {lerning_rate: 1}}", "unknown key `lerning_rate` for `ppo`"),
            ("runs: {dpo: {beta: 1}}", "run `dpo`: `dpo` asks no rewards while it trains"),
            ("runs: {ppo: 3}", "run `ppo`: must be a map of keys to values, got `3`"),
            ("runs: {ppo: {}}\nruns_: 3", "compare.yaml:6:1: unknown key `runs_` for `compare`"),
            ("runs: {a b: {command: ppo}, a-b: {command: ppo}}", "is another run's too"),
            ("runs: {ppo: {num_generations: 1000}}", "100 reward queries are less than the first step takes"),
            (
                "runs: {ppo: {}}\ntasks: {t: {runs: {pop: {}}}}",
                "task `t` has keys for a run `pop`, which is not in `runs`",
            ),
            (
                "runs: {ppo: {}}\ntasks: {t: {runs: {ppo: 3}}}",
                "task `t`: `runs`: must be a map of keys to values, got `3`",
            ),
            ("seed: 3", "unknown key `seed` for `compare`"),
            ("metric: reward", "`runs` is not set"),
        ] {
            let error = read(&format!("{LANGUAGE}{text}")).unwrap_err();
            assert!(error.to_string().contains(expected), "{text}: {error}");
            assert_eq!(error.exit_code(), 2);
        }
    }
}
