//! Pages that are made from the program's own tables: they say what it does, or this fails.
//!
//! `COLLIMATE_WRITE_DOCS=1 cargo test --release --test docs` writes them anew.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use collimate::config::trl::{self, Disposition};
use collimate::config::{CommandSpec, Key, Range};
use collimate::train::registry::RECIPES;

/// Compares a page with what it should be, or writes it
fn page(name: &str, text: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs").join(name);
    if std::env::var_os("COLLIMATE_WRITE_DOCS").is_some() {
        std::fs::write(&path, text).expect("the page is written");
        return;
    }
    let found = std::fs::read_to_string(&path).unwrap_or_default();
    let differs = found.lines().zip(text.lines()).position(|(a, b)| a != b);
    assert!(
        found == text,
        "docs/{name} is out of date at line {}; run `COLLIMATE_WRITE_DOCS=1 cargo test --release --test docs`",
        differs.map_or_else(|| found.lines().count().min(text.lines().count()) + 1, |line| line + 1)
    );
}

/// The commands that have a key in one way, or «all»
fn commands(names: &[&'static str]) -> String {
    if names.len() == RECIPES.len() { "all".to_owned() } else { names.join(", ") }
}

fn cell(text: &str) -> String {
    text.trim().replace('|', "\\|").replace('\n', " ")
}

fn describe(spec: &CommandSpec, key: &Key) -> (String, String) {
    let mut help = cell(key.help);
    let choices = (key.choices)();
    if !choices.is_empty() {
        let _ = write!(help, ": `{}`", choices.join("`, `"));
    }
    if key.range != Range::ANY {
        let _ = write!(help, " ({})", key.range.describe());
    }
    (help, cell(&spec.default_text(key)))
}

#[test]
fn the_page_of_keys_is_what_the_program_does() {
    // A key with the same meaning and default in several commands stands once
    let mut own: BTreeMap<(&str, String, String), Vec<&'static str>> = BTreeMap::new();
    let mut foreign: BTreeMap<(&str, String), Vec<&'static str>> = BTreeMap::new();
    for spec in RECIPES {
        for key in spec.keys() {
            let (help, default) = describe(spec, key);
            own.entry((key.name, help, default)).or_default().push(spec.name);
        }
        for key in trl::keys_of(spec.name) {
            let what = match key.disposition {
                Disposition::Ignored => format!("accepted, changes nothing: {}", key.reason),
                Disposition::Only(_) => format!("accepted where it asks for nothing else than this: {}", key.reason),
                Disposition::Renamed { to, .. } if key.reason.is_empty() => format!("another name of `{to}`"),
                Disposition::Renamed { to, .. } => format!("another name of `{to}`; {}", key.reason),
            };
            foreign.entry((key.name, what)).or_default().push(spec.name);
        }
    }
    let mut text = String::from(
        "# Every key, and what happens with it\n\n\
         Made from the program's own tables by `tests/docs.rs`. A TRL 1.16 YAML or command line for `sft`, `reward`, `dpo`, `kto`, \
         `orpo`, `cpo`, `grpo` or `rloo` runs unchanged: each of its keys stands in one of the two tables. Defaults are TRL's \
         except where [`deviations.md`](deviations.md) says so. A key that stands in neither table is an error with the nearest \
         known name.\n\n## Keys with an effect\n\n| key | default | commands | |\n|---|---|---|---|\n",
    );
    for ((name, help, default), names) in &own {
        let default = if default.is_empty() { String::new() } else { format!("`{default}`") };
        let _ = writeln!(text, "| `{name}` | {default} | {} | {help} |", commands(names));
    }
    text.push_str(
        "\n## Keys of TRL without one\n\nThey are accepted with one notice. Where a value would change a result that this program \
         does not have, it is an error that says why.\n\n| key | commands | |\n|---|---|---|\n",
    );
    for ((name, what), names) in &foreign {
        let _ = writeln!(text, "| `{name}` | {} | {} |", commands(names), cell(what));
    }
    page("keys.md", &text);
}

/// Comment blocks of a source file, each with the line of code that follows it
fn comments(text: &str) -> Vec<(String, String)> {
    let mut blocks = Vec::new();
    let mut block = String::new();
    for line in text.lines().map(str::trim_start) {
        if let Some(comment) = line.strip_prefix("//") {
            block.push_str(comment.trim_start_matches(['/', '!']).trim());
            block.push(' ');
        } else if !line.starts_with("#[") && !block.is_empty() {
            blocks.push((std::mem::take(&mut block), line.to_owned()));
        }
    }
    blocks
}

/// The name that a line of code declares, where it declares one
fn declared(line: &str) -> Option<&str> {
    let words: Vec<&str> =
        line.split(|c: char| !(c.is_alphanumeric() || c == '_')).filter(|word| !word.is_empty()).collect();
    let at = words.iter().position(|word| matches!(*word, "fn" | "struct" | "enum" | "trait" | "const"))?;
    words.get(at + 1).copied()
}

fn sources(folder: &Path, found: &mut Vec<std::path::PathBuf>) {
    let mut entries: Vec<_> =
        std::fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path()).collect();
    entries.sort();
    for path in entries {
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

#[test]
fn the_index_of_papers_is_what_the_source_cites() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let pattern = |text| fancy_regex::Regex::new(text).expect("a pattern");
    let address = pattern(r"<https://arxiv\.org/abs/(\d{4}\.\d{4,5})>");
    let name = pattern(r"(?:van |Le )?\p{Lu}[\p{L}\d'-]+(?: (?:et al\.|and \p{Lu}\p{L}+))?,? (?:19|20)\d\d");
    let mut papers: BTreeMap<String, (String, Vec<String>)> = BTreeMap::new();
    let mut files = Vec::new();
    sources(&root.join("src"), &mut files);
    for path in files {
        let text = std::fs::read_to_string(&path).expect("a source file");
        let file = path.strip_prefix(root).expect("inside").display().to_string();
        for (block, code) in comments(&text) {
            for found in address.captures_iter(&block).flatten() {
                let id = found.get(1).expect("an id").as_str().to_owned();
                let before = &block[..found.get(0).expect("a match").start()];
                // Authors and year stand shortly before the address, with an equation's number between at most
                let near = before.char_indices().rev().nth(60).map_or(before, |(at, _)| &before[at..]);
                let authors = name.find_iter(near).flatten().last().map_or("", |found| found.as_str()).to_owned();
                let place = declared(&code).map_or_else(|| format!("`{file}`"), |name| format!("`{name}` in `{file}`"));
                let entry = papers.entry(id).or_default();
                if entry.0.is_empty() {
                    entry.0 = authors;
                }
                if !entry.1.contains(&place) {
                    entry.1.push(place);
                }
            }
        }
    }
    let mut text = String::from(
        "# Papers, and where they are\n\nMade from the citations in the source by `tests/docs.rs`; equations and what departs from them stand there.\n\n\
         | paper | where |\n|---|---|\n",
    );
    for (id, (authors, places)) in &papers {
        let name = if authors.is_empty() { id } else { authors };
        let _ = writeln!(text, "| [{name}](https://arxiv.org/abs/{id}) | {} |", places.join(", "));
    }
    page("papers.md", &text);
}
