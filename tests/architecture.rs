//! Keeps the design true: which room may import which, who prints, where `unsafe` may stand, how long a file may be.
//!
//! Each rule is a function from (path, source) to findings, so that each is also shown to fail on an invented offence.

use std::fs;
use std::path::{Path, PathBuf};

/// Rooms and what each may import; `error` and `files` are free for all
const ROOMS: &[(&str, &[&str])] = &[
    ("ops", &[]),
    ("config", &[]),
    ("optim", &["ops"]),
    ("algo", &["ops"]),
    ("grl", &["ops", "algo"]),
    ("model", &["ops"]),
    ("data", &[]),
    ("rollout", &["model", "ops"]),
    ("reward", &["model", "data"]),
    ("run", &["optim", "config"]),
    ("train", &["ops", "config", "optim", "algo", "grl", "model", "data", "rollout", "reward", "run"]),
    ("rl", &["run", "algo", "grl", "optim", "ops", "model"]),
    ("report", &[]),
    (
        "cli",
        &[
            "ops", "config", "optim", "algo", "grl", "model", "data", "rollout", "reward", "run", "train", "rl",
            "report",
        ],
    ),
];

/// Of `model`, the classical half may use nothing but this
const MODEL_FOR_RL: &str = "mlp";

/// Rooms that must not know the tensor library
const WITHOUT_CANDLE: &[&str] = &["config", "report"];

/// candle's operations that cut the gradient silently or are wrong where training starts; `ops/` and `optim/` have ours
const BANNED: &[&str] = &[
    "LayerNorm",
    "layer_norm",
    "layer_norm_no_bias",
    "RmsNorm",
    "rms_norm",
    "softmax_last_dim",
    "sdpa",
    "rotary_emb",
    "AdamW",
    "binary_cross_entropy_with_logit",
];

const LONGEST_FILE: usize = 500;

/// One identifier, number or punctuation mark of Rust source, and its line
struct Token<'s> {
    text: &'s str,
    line: usize,
}

/// Splits source into tokens; comments, strings and characters are left out, so that they cannot be mistaken for code
fn tokens(source: &str) -> Vec<Token<'_>> {
    let bytes = source.as_bytes();
    let mut tokens = Vec::new();
    let (mut at, mut line) = (0, 1);
    while at < bytes.len() {
        let rest = &source[at..];
        let length = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            rest.find("*/").map_or(rest.len(), |end| end + 2)
        } else if let Some(length) = raw_string(rest) {
            length
        } else if rest.starts_with('"') {
            string(rest)
        } else if rest.starts_with('\'') {
            character_or_lifetime(rest)
        } else if rest.starts_with(|c: char| c.is_alphanumeric() || c == '_') {
            let length = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
            tokens.push(Token { text: &rest[..length], line });
            length
        } else {
            let length = rest.chars().next().map_or(1, char::len_utf8);
            if !rest.starts_with(char::is_whitespace) {
                tokens.push(Token { text: &rest[..length], line });
            }
            length
        };
        line += rest[..length].matches('\n').count();
        at += length;
    }
    tokens
}

fn raw_string(rest: &str) -> Option<usize> {
    let after = rest.strip_prefix("br").or_else(|| rest.strip_prefix('r'))?;
    let hashes = after.len() - after.trim_start_matches('#').len();
    after[hashes..].strip_prefix('"')?;
    let start = rest.len() - after.len() + hashes + 1;
    let end = format!("\"{}", "#".repeat(hashes));
    Some(rest[start..].find(&end).map_or(rest.len(), |length| start + length + end.len()))
}

fn string(rest: &str) -> usize {
    let mut escaped = false;
    for (at, c) in rest.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return at + 1,
            _ => {}
        }
    }
    rest.len()
}

fn character_or_lifetime(rest: &str) -> usize {
    let mut inner = rest[1..].chars();
    match (inner.next(), inner.next()) {
        (Some('\\'), Some(escape)) => {
            let skipped = 2 + escape.len_utf8();
            rest[skipped..].find('\'').map_or(rest.len(), |end| skipped + end + 1)
        }
        (Some(c), Some('\'')) => 2 + c.len_utf8(),
        _ => 1,
    }
}

/// The source before its tests, which stand last and may use what they like
fn without_tests(source: &str) -> &str {
    source.find("#[cfg(test)]").map_or(source, |start| &source[..start])
}

/// The first names after `prefix::`, also inside braces: `crate::{a, b::c}` gives `a` and `b`
fn names_under<'s>(tokens: &[Token<'s>], prefix: &str) -> Vec<(&'s str, Vec<&'s str>, usize)> {
    let mut found = Vec::new();
    for start in 0..tokens.len() {
        let is_path = tokens[start].text == prefix && is_path_separator(tokens, start + 1);
        if !is_path {
            continue;
        }
        let mut depth = 0_usize;
        let mut at = start + 3;
        let mut path: Vec<&str> = Vec::new();
        while let Some(token) = tokens.get(at) {
            match token.text {
                "{" => depth += 1,
                "}" if depth == 0 => break,
                "}" => depth -= 1,
                ":" if is_path_separator(tokens, at) => at += 1,
                // Outside the braces a path ends with anything that is neither a name nor a separator
                "," if depth == 1 => {
                    push(&mut found, &mut path, token.line);
                }
                "," | "*" if depth > 0 => {}
                name if name.starts_with(|c: char| c.is_alphabetic() || c == '_') => {
                    if depth == 0 && !path.is_empty() && !is_path_separator(tokens, at - 2) {
                        break;
                    }
                    path.push(name);
                }
                _ => break,
            }
            at += 1;
            if depth == 0 && tokens.get(at - 1).is_some_and(|token| token.text == "}") {
                break;
            }
        }
        push(&mut found, &mut path, tokens[start].line);
    }
    found
}

/// What `super::` reaches at the crate's root: `super::model` in `ops/mod.rs`, `super::super::model` in `ops/norm.rs`
fn names_above<'s>(tokens: &[Token<'s>], path: &str) -> Vec<(&'s str, Vec<&'s str>, usize)> {
    let depth = path.split('/').count() - usize::from(path.ends_with("/mod.rs"));
    let found = names_under(tokens, "super").into_iter().filter_map(|(_, names, line)| {
        let supers = 1 + names.iter().take_while(|name| **name == "super").count();
        let rest: Vec<_> = names.into_iter().skip(supers - 1).collect();
        (supers >= depth && !rest.is_empty()).then(|| (rest[0], rest, line))
    });
    found.collect()
}

fn push<'s>(found: &mut Vec<(&'s str, Vec<&'s str>, usize)>, path: &mut Vec<&'s str>, line: usize) {
    if let Some(first) = path.first() {
        found.push((first, std::mem::take(path), line));
    }
}

fn is_path_separator(tokens: &[Token<'_>], at: usize) -> bool {
    [at, at + 1].iter().all(|at| tokens.get(*at).is_some_and(|token| token.text == ":"))
}

/// The room of a file under `src/`; `None` for `lib.rs`, `main.rs`, `error.rs` and `files.rs`
fn room(path: &str) -> Option<&str> {
    path.split_once('/').map(|(room, _)| room)
}

fn forbidden_imports(path: &str, source: &str) -> Vec<String> {
    let Some(room) = room(path) else { return Vec::new() };
    let Some((_, allowed)) = ROOMS.iter().find(|(name, _)| *name == room) else {
        return vec![format!("{path}: `{room}` is no room of the design")];
    };
    let mut findings = Vec::new();
    let tokens = tokens(without_tests(source));
    let mut imports = names_under(&tokens, "crate");
    imports.extend(names_above(&tokens, path));
    for (name, inside, line) in imports {
        let is_room = ROOMS.iter().any(|(known, _)| *known == name);
        if is_room && name != room && !allowed.contains(&name) {
            findings.push(format!("{path}:{line}: `{room}` must not import `{name}`"));
        }
        if room == "rl" && name == "model" && inside.get(1) != Some(&MODEL_FOR_RL) {
            findings.push(format!("{path}:{line}: `rl` may use nothing of `model` but `{MODEL_FOR_RL}`"));
        }
    }
    findings
}

fn candle_where_it_does_not_belong(path: &str, source: &str) -> Vec<String> {
    if !room(path).is_some_and(|room| WITHOUT_CANDLE.contains(&room)) {
        return Vec::new();
    }
    let tokens = tokens(without_tests(source));
    let candle = tokens.iter().filter(|token| token.text.starts_with("candle_"));
    candle.map(|token| format!("{path}:{}: no candle in this room", token.line)).collect()
}

fn printing_outside_cli(path: &str, source: &str) -> Vec<String> {
    if room(path) == Some("cli") {
        return Vec::new();
    }
    let tokens = tokens(without_tests(source));
    let macros = tokens.windows(2).filter(|pair| {
        matches!(pair[0].text, "print" | "println" | "eprint" | "eprintln" | "dbg") && pair[1].text == "!"
    });
    macros.map(|pair| format!("{path}:{}: only `cli` prints, not `{}!`", pair[0].line, pair[0].text)).collect()
}

fn unsafe_outside_kernels(path: &str, source: &str) -> Vec<String> {
    // The allocator setting is one call before anything runs
    if path.starts_with("ops/kernels/") || path == "main.rs" {
        return Vec::new();
    }
    let tokens = tokens(source);
    let found = tokens.iter().filter(|token| token.text == "unsafe");
    found.map(|token| format!("{path}:{}: `unsafe` belongs in `ops/kernels`", token.line)).collect()
}

fn banned_calls(path: &str, source: &str) -> Vec<String> {
    let tokens = tokens(without_tests(source));
    let mut findings = Vec::new();
    for (_, names, line) in names_under(&tokens, "candle_nn") {
        for name in names.iter().filter(|name| BANNED.contains(name)) {
            findings.push(format!(
                "{path}:{line}: `candle_nn`'s `{name}` is not fit for training; `ops` or `optim` has one"
            ));
        }
    }
    findings
}

fn too_long(path: &str, source: &str) -> Vec<String> {
    let lines = source.lines().count();
    if lines <= LONGEST_FILE {
        return Vec::new();
    }
    vec![format!("{path}: {lines} lines, more than {LONGEST_FILE}")]
}

/// From a path under `src/` and its source to what is wrong
type Rule = fn(&str, &str) -> Vec<String>;

const RULES: &[Rule] = &[
    forbidden_imports,
    candle_where_it_does_not_belong,
    printing_outside_cli,
    unsafe_outside_kernels,
    banned_calls,
    too_long,
];

fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).expect("src can be listed") {
        let path = entry.expect("src can be listed").path();
        if path.is_dir() {
            files.extend(rust_files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files.sort();
    files
}

#[test]
fn source_keeps_the_rules() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let files = rust_files(&src);
    assert!(files.len() > ROOMS.len(), "found {} files only", files.len());
    let mut findings = Vec::new();
    for file in files {
        let source = fs::read_to_string(&file).expect("a source file can be read");
        let path = file.strip_prefix(&src).expect("it lies under src").to_string_lossy().replace('\\', "/");
        findings.extend(RULES.iter().flat_map(|rule| rule(&path, &source)));
    }
    assert!(findings.is_empty(), "{}", findings.join("\n"));
}

#[test]
fn arrows_of_the_table_point_down() {
    for (index, (room, allowed)) in ROOMS.iter().enumerate() {
        for import in *allowed {
            let below = ROOMS[..index].iter().any(|(name, _)| name == import);
            assert!(below, "`{room}` imports `{import}`, which does not stand below it");
        }
    }
}

#[test]
fn imports_are_found_in_every_spelling() {
    for source in [
        "use crate::train::Recipe;",
        "use crate::train;",
        "use crate::{error::Error, train::Recipe};",
        "use crate::{Error, model::{Gpt2, Weights}, train};",
        "fn f() -> Result<(), crate::Error> { crate::train::start(1, 2) }",
        "pub(crate) use crate :: train :: Recipe;",
    ] {
        let names: Vec<_> = names_under(&tokens(source), "crate").into_iter().map(|(name, ..)| name).collect();
        assert!(names.contains(&"train"), "{source} gives {names:?}");
        assert_eq!(forbidden_imports("ops/mod.rs", source).iter().filter(|text| text.contains("`train`")).count(), 1);
    }
}

#[test]
fn offences_are_found() {
    let offences: &[(Rule, &str, &str)] = &[
        (forbidden_imports, "config/mod.rs", "use crate::ops::Tensor;"),
        (forbidden_imports, "data/mod.rs", "fn f() { crate::model::load() }"),
        (forbidden_imports, "rl/agent.rs", "use crate::model::gpt2::Gpt2;"),
        (forbidden_imports, "rl/agent.rs", "use crate::train::Recipe;"),
        (forbidden_imports, "ops/mod.rs", "use super::train::Recipe;"),
        (forbidden_imports, "ops/norm.rs", "use super::super::train::Recipe;"),
        (forbidden_imports, "attic/mod.rs", ""),
        (candle_where_it_does_not_belong, "config/keys.rs", "use candle_core::Tensor;"),
        (printing_outside_cli, "run/mod.rs", "fn f() { println!(\"x\") }"),
        (printing_outside_cli, "main.rs", "fn f() { eprintln!(\"x\") }"),
        (unsafe_outside_kernels, "ops/mod.rs", "fn f() { unsafe { g() } }"),
        (banned_calls, "model/gpt2.rs", "use candle_nn::{Linear, LayerNorm};"),
        (banned_calls, "model/gpt2.rs", "fn f() { candle_nn::ops::softmax_last_dim(&x) }"),
        (banned_calls, "optim/mod.rs", "use candle_nn::optim::AdamW;"),
        (too_long, "ops/mod.rs", &"\n".repeat(LONGEST_FILE + 1)),
    ];
    for (rule, path, source) in offences {
        assert_eq!(rule(path, source).len(), 1, "{path}: {:?} gives {:?}", source.trim(), rule(path, source));
    }
}

#[test]
fn what_is_allowed_is_let_be() {
    for (path, source) in [
        ("cli/mod.rs", "use crate::{Error, train::Recipe, report};\nfn f() { println!(\"x\") }"),
        ("rl/agent.rs", "use crate::model::mlp::Mlp;"),
        ("error.rs", "use crate::model::x;"),
        ("ops/kernels/gemm.rs", "use super::super::model::x; use super::train;"),
        ("main.rs", "fn main() { unsafe { f() } }"),
        ("ops/kernels/gemm.rs", "unsafe fn f() {}"),
        ("ops/norm.rs", "use candle_nn::Linear; struct LayerNorm; // candle_nn::LayerNorm\n"),
        ("ops/norm.rs", "const A: &str = \"unsafe println!() crate::train::x \\\" crate::cli\"; const B: char = '\"';"),
        ("ops/norm.rs", "const A: &str = r#\"crate::train \" unsafe\"#; fn f<'a>(x: &'a str) {}"),
        ("ops/norm.rs", "fn f() {}\n#[cfg(test)]\nmod tests { use crate::train::x; fn g() { println!(\"\") } }"),
    ] {
        let findings: Vec<_> = RULES.iter().flat_map(|rule| rule(path, source)).collect();
        assert!(findings.is_empty(), "{path}: {source:?} gives {findings:?}");
    }
}
