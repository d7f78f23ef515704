//! Where the final answer stands in a text.

/// How far an answer may stand behind the word `answer`
const REACH: usize = 50;

/// The final answer of a text: the last `\boxed{}`, else what follows the last `####`, else the last `<answer>`, else
/// the formula or number behind the last `answer is` or `answer:`, else the last formula or number
pub(super) fn final_answer(text: &str) -> Option<&str> {
    boxed(text)
        .or_else(|| hashes(text))
        .or_else(|| tagged(text))
        .or_else(|| announced(text))
        .or_else(|| last_number(text))
}

/// A text without mathematics as an answer of its own: `Paris`, `(B)`
pub(super) fn whole(text: &str) -> Option<&str> {
    Some(text.trim()).filter(|text| !text.is_empty())
}

/// The answer of a completion as math-verify finds it under TRL's settings: in a box, else LaTeX soon after `answer`
pub(super) fn latex_answer(text: &str) -> Option<&str> {
    boxed(text).or_else(|| {
        environments(text).into_iter().rev().find(|(start, _)| follows_answer(text, *start)).map(|(_, inside)| inside)
    })
}

/// The answer of a solution, where LaTeX needs no announcement and a plain number or sum will do
pub(super) fn solution(text: &str) -> Option<&str> {
    boxed(text)
        .or_else(|| environments(text).pop().map(|(_, inside)| inside))
        .or_else(|| hashes(text))
        .or_else(|| whole(text).filter(|text| is_arithmetic(text)))
        .or_else(|| numbers(text).filter(|number| stands_alone(text, number)).last())
}

/// Not part of a formula or a word: `x+1`, `A4`
fn stands_alone(text: &str, number: &str) -> bool {
    let before = text[..offset(text, number)].chars().next_back();
    before.is_none_or(|c| c.is_whitespace() || "=*$\u{20ac}\u{a3}".contains(c))
}

fn is_arithmetic(text: &str) -> bool {
    text.contains(|c: char| c.is_ascii_digit()) && text.chars().all(|c| c.is_ascii_digit() || " .,+-*/^()".contains(c))
}

/// What stands in the last `\boxed{}` or `\fbox{}`, braces matched
fn boxed(text: &str) -> Option<&str> {
    let opening = |name: &str| text.rfind(name).map(|at| at + name.len());
    let start = opening("\\boxed{").max(opening("\\fbox{"))?;
    let mut depth = 1;
    let mut escaped = false;
    for (at, c) in text[start..].char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '{' => depth += 1,
            '}' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return whole(&text[start..start + at]);
        }
    }
    None
}

/// GSM8K's form: `#### 72`
fn hashes(text: &str) -> Option<&str> {
    let (_, rest) = text.rsplit_once("####")?;
    whole(rest.trim_start().lines().next()?)
}

fn tagged(text: &str) -> Option<&str> {
    let start = text.rfind("<answer>")? + "<answer>".len();
    let end = text[start..].find("</answer>")?;
    let inside = &text[start..start + end];
    boxed(inside).or_else(|| whole(inside))
}

fn announced(text: &str) -> Option<&str> {
    let start = ["answer is", "answer:"].iter().filter_map(|words| rfind_ignoring_case(text, words)).max()?;
    let rest = &text[start..];
    let sentence = rest.find(['\n', '!', '?']).map_or(rest, |end| &rest[..end]);
    let latex = environments(sentence).first().map(|(_, inside)| *inside);
    // `the answer is 3 + 4 = 7`
    let result = sentence.rsplit_once('=').map_or(sentence, |(_, result)| result);
    latex.or_else(|| numbers(result).next())
}

/// The end of the last occurrence of some words in ASCII
fn rfind_ignoring_case(text: &str, words: &str) -> Option<usize> {
    let at = text.as_bytes().windows(words.len()).rposition(|window| window.eq_ignore_ascii_case(words.as_bytes()))?;
    Some(at + words.len())
}

/// The last formula, unless a number stands behind it
fn last_number(text: &str) -> Option<&str> {
    let number = numbers(text).last();
    // The money of `$5 and then $7` is no formula
    let formulas = environments(text).into_iter().filter(|(_, inside)| !is_prose(inside));
    let formula = formulas.map(|(_, inside)| inside).next_back();
    match (formula, number) {
        (Some(formula), Some(number)) if offset(text, number) >= offset(text, formula) + formula.len() => Some(number),
        (Some(formula), _) => Some(formula),
        (None, number) => number,
    }
}

fn is_prose(text: &str) -> bool {
    text.split_whitespace().any(|word| word.len() > 1 && word.chars().all(char::is_alphabetic))
}

/// Numbers with sign, thousands, decimals, a fraction's other half, per cent
fn numbers(text: &str) -> impl Iterator<Item = &str> {
    let bytes = text.as_bytes();
    let digit = |at: usize| bytes.get(at).is_some_and(u8::is_ascii_digit);
    let mut at = 0;
    std::iter::from_fn(move || {
        while at < bytes.len() {
            let begins = digit(at) || (bytes[at] == b'.' && digit(at + 1) && (at == 0 || !digit(at - 1)));
            if !begins {
                at += 1;
                continue;
            }
            let mut start = at;
            while digit(at) || (at < bytes.len() && b".,/".contains(&bytes[at]) && digit(at + 1)) {
                at += 1;
            }
            if bytes.get(at) == Some(&b'%') {
                at += 1;
            }
            // A minus after a word or number joins or subtracts: `7-3`, `top-3`
            if start > 0 && bytes[start - 1] == b'$' {
                start -= 1;
            }
            let before = start.checked_sub(2).map(|at| bytes[at]);
            if start > 0 && bytes[start - 1] == b'-' && !before.is_some_and(|c| c.is_ascii_alphanumeric() || c == b')')
            {
                start -= 1;
            }
            return Some(&text[start..at]);
        }
        None
    })
}

/// What stands between `$$`, `$`, `\[ \]` and `\( \)`, with the place where each opens
fn environments(text: &str) -> Vec<(usize, &str)> {
    let mut found = Vec::new();
    let mut at = 0;
    while at < text.len() {
        let rest = &text[at..];
        let ends = [("$$", "$$"), ("\\[", "\\]"), ("\\(", "\\)"), ("$", "$")];
        let opened = ends.iter().find(|(open, _)| rest.starts_with(open));
        if let Some((open, close)) = opened {
            let inside = &rest[open.len()..];
            if let Some(end) = inside.find(close).filter(|end| !inside[..*end].trim().is_empty()) {
                found.push((at, inside[..end].trim()));
                at += open.len() + end + close.len();
                continue;
            }
        }
        if let Some(length) = fraction(rest) {
            found.push((at, &rest[..length]));
            at += length;
            continue;
        }
        // A backslash takes the next character with it: `\$` opens nothing
        let step = rest.chars().take(if rest.starts_with('\\') { 2 } else { 1 }).map(char::len_utf8).sum::<usize>();
        at += step;
    }
    joined(text, found)
}

/// Joins `$2$ and $3$` to one answer
fn joined<'t>(text: &'t str, environments: Vec<(usize, &'t str)>) -> Vec<(usize, &'t str)> {
    let mut joined: Vec<(usize, &str)> = Vec::new();
    for (start, inside) in environments {
        if let Some((_, before)) = joined.last_mut() {
            let begin = offset(text, before);
            let between = text[begin + before.len()..start].trim_start_matches(['$', '\\', ')', ']']).trim();
            if ["and", ",and", ", and", "or", ",or", ", or", ","].contains(&between) {
                *before = &text[begin..offset(text, inside) + inside.len()];
                continue;
            }
        }
        joined.push((start, inside));
    }
    joined
}

/// Where a part of a text begins in it
fn offset(text: &str, part: &str) -> usize {
    part.as_ptr() as usize - text.as_ptr() as usize
}

/// The length of `\frac{NUMBER}{NUMBER}` at the beginning, which needs no environment
fn fraction(text: &str) -> Option<usize> {
    let mut rest = text.strip_prefix('-').unwrap_or(text).strip_prefix("\\frac")?;
    for _ in 0..2 {
        let (number, after) = rest.strip_prefix('{')?.split_once('}')?;
        number.replace(',', ".").parse::<f64>().ok()?;
        rest = after;
    }
    Some(text.len() - rest.len())
}

fn follows_answer(text: &str, start: usize) -> bool {
    let before = &text[..start];
    rfind_ignoring_case(before, "answer").is_some_and(|end| before[end..].chars().count() <= REACH)
}
