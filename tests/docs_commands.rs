//! Every command that README.md and docs/*.md show is run.
//!
//! A page's commands run in their order, in a folder of their own that has the repository's `configs/`, `data/` and `scripts/`. The
//! `collimate` that they call adds flags which make runs small ([`SMALL`]), so the line as it is printed, its flags, files and
//! keys hold. What a block shows below a command is compared with what came, unless the command was made small or reads
//! what such a run left. A command that cannot run here stands in [`NOT_RUN`] with the reason; the program's own ones are still
//! parsed, and of a script it is seen that it exists and parses. Commands within sentences are parsed.

#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test, in helpers too")]

#[path = "common/pages.rs"]
mod pages;

use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::Mutex;
use std::time::Instant;

use collimate::train::registry::RECIPES;
use pages::{Page, Shown, agree, is_ours};

/// Page, beginning of the command, why no test runs it
const NOT_RUN: [(&str, &str, &str); 14] = [
    ("README.md", "cargo run --release -- demo", "tests/demo.rs runs it"),
    ("README.md", "cargo test --release", "it is running"),
    ("docs/demo.md", "collimate demo", "tests/demo.rs runs it"),
    ("docs/speed.md", "python3 scripts/bench/compare.py", "measures beside another program"),
    ("docs/grl_results.md", "collimate compare", "hours; tests/grl_baselines.rs runs all arms with one seed"),
    ("docs/grl_results.md", "python3 scripts/grl/frontier.py", "reads what hours of runs leave"),
    ("docs/grl_results.md", "python3 scripts/grl/rates.py", "reads what hours of runs leave"),
    ("docs/grl_results.md", "python3 scripts/grl/language_table.py", "reads what hours of runs leave"),
    ("docs/grl_results.md", "python3 scripts/bench/grl_memory.py", "needs a model of 124 million parameters"),
    ("docs/classical.md", "python3 scripts/bench/rl_returns.py", "hours, beside another program"),
    ("docs/classical_offpolicy.md", "python3 scripts/bench/rl.py", "measures beside another program"),
    ("docs/gymnasium.md", "collimate rl train --agent sac --env gym:HalfCheetah-v5", "needs MuJoCo"),
    ("docs/gymnasium.md", "collimate rl trace --env gym:ALE/Pong-v5", "needs Atari's games"),
    (
        "docs/bring_your_own.md",
        "collimate sft --model_name_or_path openai-community/gpt2",
        "needs the network; tests/hub.rs has a Hub of its own",
    ),
];

/// What makes a run small, by how a command begins; training commands have `--max_steps` instead
const SMALL: [(&str, &str); 2] = [
    ("rl train", "--total_timesteps 300"),
    (
        "rl tokens",
        "--seeds 1 --prompts 96 --queries 512 --learning_rates 0.08 --tuning_seeds 1 --tuning_queries 512 --calibration_seeds 0",
    ),
];

/// A comparison is as large as its file says: one seed and a tenth of the budget, in the page's own copy of the file
const SMALL_COMPARISON: &str = r#"file=$3; shift 3; set -- compare --config "$file.small" "$@"
    sed -E 's/^seeds: .*/seeds: 1/; s/^(budget: .*)0\}/\1}/' "$file" > "$file.small""#;

/// What pages take for granted, made before their first command. `MODEL` is the shipped model on every page
const GIVEN: [(&str, &[&str]); 8] = [
    (
        "README.md",
        &[
            "cp data/reviews/sft.train.jsonl train.jsonl",
            "cp data/reviews/preferences.train.jsonl preferences.jsonl",
            "cp data/reviews/sft.test.jsonl prompts.jsonl",
            "printf '#!/bin/sh\\nwhile read -r line; do echo ${#line}; done\\n' > judge && chmod +x judge",
        ],
    ),
    (
        "docs/chat.md",
        &["collimate ppo --config configs/walks/ppo.yaml --output_dir runs/compare-walks/cells/ppo/seed-0"],
    ),
    (
        "docs/compare.md",
        &[
            "for run in ppo-0 ppo-1 grpo-0 grpo-1; do collimate ${run%-*} --config configs/walks/${run%-*}.yaml --logging_steps 1 \
           --per_device_eval_batch_size 16 --eval_dataset data/walks/prompts.jsonl --eval_strategy steps --eval_steps 1 --output_dir runs/$run || exit 1; done",
        ],
    ),
    (
        "docs/classical.md",
        &[
            "for seed in 0 1 2; do collimate rl train --agent ppo --seed $seed --output_dir runs/seed-$seed || exit 1; done",
        ],
    ),
    ("docs/gymnasium.md", &["awk '/^```python/{f=1;next} /^```/{if(f)exit} f' docs/gymnasium.md > corridor.py"]),
    ("docs/convert.md", &["cp data/reviews/preferences.test.jsonl pairs.jsonl"]),
    (
        "docs/demo.md",
        &["collimate grpo --config configs/grpo.yaml --model_name_or_path data/base --output_dir collimate-demo/grpo"],
    ),
    (
        "docs/reports.md",
        &[
            "for run in ppo grpo; do collimate $run --config configs/walks/$run.yaml --output_dir runs/$run || exit 1; done",
        ],
    ),
];

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn pages() -> Vec<Page> {
    let mut names: Vec<String> = fs::read_dir(repository().join("docs"))
        .unwrap()
        .map(|entry| format!("docs/{}", entry.unwrap().file_name().to_str().unwrap()))
        .filter(|name| Path::new(name).extension().is_some_and(|extension| extension == "md"))
        .chain(["README.md".to_owned()])
        .collect();
    names.sort();
    names.iter().map(|name| Page::read(name, &fs::read_to_string(repository().join(name)).unwrap())).collect()
}

fn reason_not_to_run(page: &str, command: &str) -> Option<&'static str> {
    NOT_RUN.iter().find(|(of, begin, _)| *of == page && command.starts_with(begin)).map(|(_, _, reason)| *reason)
}

/// How a command begins, for each that is made small, with the flags that do it
fn small() -> Vec<(String, String)> {
    let recipes = RECIPES.iter().map(|recipe| (recipe.name.to_owned(), "--max_steps 2".to_owned()));
    let fixed = SMALL.iter().map(|(begin, flags)| ((*begin).to_owned(), (*flags).to_owned()));
    fixed.chain(recipes).collect()
}

/// The folder that a page's commands run in
struct Sandbox {
    folder: tempfile::TempDir,
    path: std::ffi::OsString,
    /// What runs that were made small have written
    small: Vec<String>,
}

impl Sandbox {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        for name in ["data", "scripts", "docs"] {
            symlink(repository().join(name), root.join(name)).unwrap();
        }
        symlink(repository().join("data/base"), root.join("MODEL")).unwrap();
        copy_configs(&repository().join("configs"), &root.join("configs"));
        let real = env!("CARGO_BIN_EXE_collimate");
        // Planning has no time steps, and is quick
        let mut program = format!(
            "#!/bin/sh\ncase \"$*\" in 'rl train '*_iteration*) exec '{real}' \"$@\" ;; esac\ncase \"$1 $2 \" in\n\
             'compare --config ') {SMALL_COMPARISON} ;;\n"
        );
        for (begin, flags) in small() {
            writeln!(program, "'{begin} '*) set -- \"$@\" {flags} ;;").unwrap();
        }
        writeln!(program, "esac\nexec '{real}' \"$@\"").unwrap();
        fs::create_dir(root.join(".bin")).unwrap();
        let file = root.join(".bin/collimate");
        fs::write(&file, program).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
        let rest = std::env::var_os("PATH").unwrap_or_default();
        let path = std::env::join_paths([root.join(".bin")].into_iter().chain(std::env::split_paths(&rest))).unwrap();
        Self { folder, path, small: Vec::new() }
    }

    fn sh(&self, command: &str) -> Output {
        Command::new("sh")
            .args(["-c", command])
            .current_dir(self.folder.path())
            .env("PATH", &self.path)
            // Two pages run side by side; no page asks the network
            .env("RAYON_NUM_THREADS", "1")
            .env("HF_HUB_OFFLINE", "1")
            .env("HF_HOME", self.folder.path().join(".hf"))
            .env_remove("NO_COLOR")
            .stdin(Stdio::null())
            .output()
            .unwrap()
    }

    /// Runs a command, and compares what came with what is shown
    fn run(&mut self, shown: &Shown) -> Result<(), String> {
        let output = self.sh(&shown.command);
        let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        let refusal_is_shown = shown.output.iter().any(|line| line.starts_with("error: "));
        if output.status.success() == refusal_is_shown {
            return Err(format!("{}\n{stderr}{stdout}", output.status));
        }
        let words = shlex::split(&shown.command).unwrap_or_default();
        let begins = small().into_iter().map(|(begin, _)| begin).chain(["compare --config".to_owned()]);
        let is_small = begins.into_iter().any(|begin| shown.command.contains(&format!("collimate {begin} ")));
        let reads_small = words.iter().any(|word| self.small.iter().any(|path| word.starts_with(path.as_str())));
        if is_small {
            let target = words.iter().position(|word| word == "--output_dir").and_then(|at| words.get(at + 1));
            self.small.push(target.map_or("runs", String::as_str).to_owned());
        } else if !reads_small && !shown.output.is_empty() {
            let both = format!("{stderr}{stdout}");
            agree(&shown.output, &stdout)
                .or_else(|differs| agree(&shown.output, &both).map_err(|_| differs))
                .map_err(|differs| format!("prints something else\n{differs}\n--- all of it:\n{both}"))?;
        }
        Ok(())
    }
}

fn copy_configs(from: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        if path.is_dir() {
            copy_configs(&path, &target);
        } else {
            fs::copy(&path, &target).unwrap();
        }
    }
}

fn has_python(module: &str) -> bool {
    let output = Command::new("python3").args(["-c", &format!("import {module}")]).output();
    output.is_ok_and(|output| output.status.success())
}

/// What a command needs that this machine does not have
fn missing(command: &str) -> Option<&'static str> {
    match command {
        _ if command.contains("python3") && !has_python("json") => Some("python3"),
        _ if command.contains(" gym:") && !has_python("gymnasium") => Some("a python3 with gymnasium"),
        _ => None,
    }
}

/// Of a command that is not run: whether the program would take its flags, whether the script is there and parses
fn parse(sandbox: &Sandbox, command: &str) -> Result<(), String> {
    let command = command.split(" #").next().unwrap_or_default();
    let config = command.strip_prefix("collimate compare --config ").and_then(|rest| rest.split_whitespace().next());
    let check = if config.is_some_and(|config| sandbox.folder.path().join(config).is_file()) {
        // All runs of a comparison are checked before the first one is written, which fails here
        format!(
            "{command} --output_dir /dev/null/none 2>&1 | grep ' at a time with ' || {{ {command} --output_dir /dev/null/none; }}"
        )
    } else if is_ours(command) {
        format!("{command} --help")
    } else {
        let scripts = command.split_whitespace().filter(|word| word.starts_with("scripts/"));
        scripts
            .map(|script| match script.rsplit_once('.').map(|(_, extension)| extension) {
                Some("py") if has_python("ast") => {
                    format!("python3 -c \"import ast; ast.parse(open('{script}').read())\" && ")
                }
                Some("sh") => format!("sh -n {script} && "),
                _ => format!("test -f {script} && "),
            })
            .collect::<String>()
            + "true"
    };
    let output = sandbox.sh(&check);
    if output.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&output.stderr).into_owned()) }
}

/// Everything that is wrong with a page
#[expect(clippy::print_stdout, reason = "what ran and for how long, for whoever asks with --nocapture")]
fn check(page: &Page) -> Vec<String> {
    let mut faults = Vec::new();
    let mut sandbox = Sandbox::new();
    let mut fault =
        |line: usize, command: &str, what: &str| faults.push(format!("{}:{line}: {command}\n{what}", page.name));
    for (line, span) in &page.spans {
        if let Err(what) = parse(&sandbox, &span.replace("COMMAND", "sft")) {
            fault(*line, span, &what);
        }
    }
    let given = GIVEN.iter().filter(|(of, _)| *of == page.name).flat_map(|(_, commands)| *commands);
    for command in given {
        let output = sandbox.sh(command);
        if !output.status.success() {
            fault(0, command, &String::from_utf8_lossy(&output.stderr));
        }
        sandbox.small.push("runs".to_owned());
    }
    let mut only_parse = false;
    for shown in &page.shown {
        let begin = Instant::now();
        if let (false, Some(what)) = (only_parse, missing(&shown.command)) {
            println!("{}: from line {} on, commands are only parsed: no {what} here", page.name, shown.line);
            only_parse = true;
        }
        let result = if only_parse || reason_not_to_run(&page.name, &shown.command).is_some() {
            parse(&sandbox, &shown.command)
        } else {
            sandbox.run(shown)
        };
        println!("{:5.1} s  {}:{}  {}", begin.elapsed().as_secs_f32(), page.name, shown.line, shown.command);
        if let Err(what) = result {
            fault(shown.line, &shown.command, &what);
        }
    }
    faults
}

#[test]
fn every_command_of_the_pages_runs() {
    let pages = pages();
    assert!(pages.iter().map(|page| page.shown.len()).sum::<usize>() > 30, "the pages show commands");
    let (waiting, faults) = (Mutex::new(pages.iter()), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                loop {
                    let Some(page) = waiting.lock().unwrap().next() else { break };
                    let found = check(page);
                    faults.lock().unwrap().extend(found);
                }
            });
        }
    });
    let faults = faults.into_inner().unwrap();
    assert!(faults.is_empty(), "{} commands of the pages are wrong:\n\n{}", faults.len(), faults.join("\n\n"));
}

#[test]
fn every_exception_is_needed() {
    let pages = pages();
    for (page, begin, _) in NOT_RUN {
        let page = pages.iter().find(|found| found.name == page).unwrap();
        assert!(
            page.shown.iter().any(|shown| shown.command.starts_with(begin)),
            "{} does not show `{begin}`",
            page.name
        );
    }
    for (name, _) in GIVEN {
        assert!(pages.iter().any(|page| page.name == name), "{name}");
    }
}

#[test]
fn pages_are_read_as_people_read_them() {
    let page = Page::read(
        "a.md",
        "Do `collimate doctor\n--offline` first:\n\n    collimate chat\n    a table\n\n```console\n$ printf a |\n    collimate chat\nan answer\n$ cat > x <<'EOF'\n\
         $ no\nEOF\n```\n```sh\n# why\ncollimate sft \\\n  --x 1\n```\n```python\ncollimate = 1\n```\n",
    );
    let shown: Vec<(usize, &str)> = page.shown.iter().map(|shown| (shown.line, shown.command.as_str())).collect();
    let expected = [
        (4, "collimate chat"),
        (8, "printf a |\n    collimate chat"),
        (11, "cat > x <<'EOF'\n$ no\nEOF"),
        (17, "collimate sft \\\n  --x 1"),
    ];
    assert_eq!(shown, expected);
    assert_eq!(page.shown[1].output, ["an answer"]);
    assert_eq!(page.spans, [(1, "collimate doctor --offline".to_owned())]);
}

#[test]
fn outputs_agree_but_for_rounding_and_what_is_left_out() {
    let lines = |text: &str| text.lines().map(str::to_owned).collect::<Vec<_>>();
    let real = "loss  0.30641\nrows 200\ntokens 5\n{\"a\":[1,2,3]}\n";
    for shown in [
        "loss 0.3065\nrows 200\ntokens 5\n{\"a\":[1,2,3]}\n\n",
        "...\ntokens 5\n...",
        "loss 0.30641\n...\n{\"a\":[1,2...",
    ] {
        agree(&lines(shown), real).unwrap();
    }
    for shown in
        ["loss 0.4\n...", "rows 200\n...", "loss 0.30641\nrows 200\ntokens 5", "...\nrow 200\n...", "...\n{\"b..."]
    {
        agree(&lines(shown), real).unwrap_err();
    }
}
