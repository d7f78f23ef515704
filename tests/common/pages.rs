//! The commands that the documentation's pages show, in their order, with what the pages say that comes out.

use fancy_regex::Regex;

/// A command, as it is printed
#[derive(Debug)]
pub struct Shown {
    /// Line of its page
    pub line: usize,
    /// Its words; several lines where it goes on
    pub command: String,
    /// What is printed below it in a `console` block
    pub output: Vec<String>,
}

/// What a page shows
#[derive(Debug, Default)]
pub struct Page {
    /// Path from the repository's root
    pub name: String,
    /// Commands in blocks, to be run
    pub shown: Vec<Shown>,
    /// Command lines within sentences, with their lines
    pub spans: Vec<(usize, String)>,
}

#[derive(Clone, Copy, PartialEq)]
enum Block {
    /// Sentences
    None,
    /// `$ command`, and its output
    Console,
    /// Every line is a command or its continuation
    Script,
    /// Something else
    Other,
}

impl Page {
    /// Reads one
    pub fn read(name: &str, text: &str) -> Self {
        let mut page = Self { name: name.to_owned(), ..Self::default() };
        let mut block = Block::None;
        let mut sentences = String::new();
        let mut lines = text.lines().enumerate().map(|(i, line)| (i + 1, line)).peekable();
        while let Some((number, line)) = lines.next() {
            let fence = line.trim_start().strip_prefix("```");
            // Sentences keep their lines, so that a span knows its own
            sentences.push_str(if block == Block::None && fence.is_none() { line } else { "" });
            sentences.push('\n');
            if let Some(language) = fence {
                block = match (block, language.trim()) {
                    (Block::None, "console") => Block::Console,
                    (Block::None, "sh" | "bash" | "shell") => Block::Script,
                    (Block::None, _) => Block::Other,
                    _ => Block::None,
                };
                continue;
            }
            let begins = match block {
                Block::Console => line.strip_prefix("$ "),
                Block::Script => Some(line).filter(|line| !line.trim().is_empty() && !line.starts_with('#')),
                Block::None => line.strip_prefix("    ").filter(|line| is_ours(line)),
                Block::Other => None,
            };
            if let Some(begin) = begins {
                let mut command = begin.to_owned();
                while goes_on(&command) {
                    let Some((_, next)) = lines.next() else { break };
                    sentences.push('\n');
                    command.push('\n');
                    command.push_str(next);
                }
                page.shown.push(Shown { line: number, command, output: Vec::new() });
            } else if block == Block::Console
                && let Some(shown) = page.shown.last_mut()
            {
                shown.output.push(line.to_owned());
            }
        }
        let span = Regex::new("`(collimate [^`]+)`").expect("a pattern");
        for found in span.captures_iter(&sentences).flatten() {
            let words = found.get(1).expect("a span");
            let line = 1 + sentences[..words.start()].matches('\n').count();
            page.spans.push((line, words.as_str().replace('\n', " ")));
        }
        page
    }
}

/// Whether a line calls the program, as an indented command does
pub fn is_ours(line: &str) -> bool {
    line.split_whitespace().next() == Some("collimate")
}

/// Whether a command does not end with this line
fn goes_on(command: &str) -> bool {
    if command.ends_with('\\') || command.ends_with('|') {
        return true;
    }
    let here = Regex::new(r"<<-?\s*'?(\w+)'?").expect("a pattern");
    here.captures(command).ok().flatten().is_some_and(|found| {
        let end = found.get(1).expect("a word").as_str();
        command.lines().skip(1).all(|line| line != end)
    })
}

/// Whether a page's lines are what came out: `...` alone stands for any lines, `...` at an end for the rest of a line, and
/// numbers that differ by rounding are the same
pub fn agree(shown: &[String], real: &str) -> Result<(), String> {
    let real: Vec<&str> = real.lines().map(str::trim_end).collect();
    let shown: Vec<&str> = shown.iter().map(|line| line.trim_end()).collect();
    let trimmed = |lines: &[&str]| lines.iter().rposition(|line| !line.is_empty()).map_or(0, |last| last + 1);
    let (shown, real) = (&shown[..trimmed(&shown)], &real[..trimmed(&real)]);
    let (mut at, mut skips) = (0, false);
    for line in shown {
        if *line == "..." {
            skips = true;
            continue;
        }
        match real[at..].iter().position(|found| same_line(line, found)) {
            Some(0) => at += 1,
            Some(further) if skips => at += further + 1,
            _ => return Err(format!("shown: {line}\nfound: {}", real.get(at).unwrap_or(&"nothing"))),
        }
        skips = false;
    }
    if skips || at == real.len() { Ok(()) } else { Err(format!("not shown: {}", real[at])) }
}

fn same_line(shown: &str, real: &str) -> bool {
    let number = Regex::new(r"\d+(\.\d+)?([eE][-+]?\d+)?").expect("a pattern");
    let numbers = |text: &str| -> Vec<f64> {
        number.find_iter(text).flatten().map(|found| found.as_str().parse().expect("a number")).collect()
    };
    let words = |text: &str| {
        // Wider numbers have fewer spaces before them
        let text = number.replace_all(text, "#").into_owned();
        text.split_whitespace().collect::<Vec<_>>().join(" ")
    };
    let (shown_words, real_words) = (words(shown.trim_end_matches("...")), words(real));
    let alike = if shown.ends_with("...") {
        real_words.starts_with(shown_words.trim_end_matches('#'))
    } else {
        shown_words == real_words
    };
    let (mut shown_numbers, real_numbers) = (numbers(shown), numbers(real));
    if shown.ends_with("...") {
        // The last one may be cut
        shown_numbers.pop();
    }
    alike && shown_numbers.iter().zip(&real_numbers).all(|(a, b)| (a - b).abs() <= 1e-3 + 0.01 * b.abs())
}
