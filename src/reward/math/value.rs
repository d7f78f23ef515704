//! Answers and when two of them are the same.

use super::expression::Expression;

/// What is longer is no answer
const LONGEST: usize = 1000;
/// Points at which two formulas must agree
const POINTS: u32 = 3;
/// Decimals to which a number with a decimal point is taken, as math-verify does
const DECIMALS: f64 = 1e6;

/// Relations and how they are written; `>` is `<` read from the other side
const RELATIONS: &[(&str, Relation, bool)] = &[
    ("\\leqslant", Relation::AtMost, false),
    ("\\geqslant", Relation::AtMost, true),
    ("\\leq", Relation::AtMost, false),
    ("\\geq", Relation::AtMost, true),
    ("\\neq", Relation::Unequal, false),
    ("\\lt", Relation::Less, false),
    ("\\gt", Relation::Less, true),
    ("\\ne", Relation::Unequal, false),
    ("\\le", Relation::AtMost, false),
    ("\\ge", Relation::AtMost, true),
    ("<=", Relation::AtMost, false),
    (">=", Relation::AtMost, true),
    ("\u{2264}", Relation::AtMost, false),
    ("\u{2265}", Relation::AtMost, true),
    ("<", Relation::Less, false),
    (">", Relation::Less, true),
    ("=", Relation::Equal, false),
];

/// Written differently, or without a meaning for the value
const SPELLINGS: &[(&str, &str)] = &[
    ("\\left", ""),
    ("\\right", ""),
    ("\\displaystyle", ""),
    ("\\limits", ""),
    ("\\bigl", ""),
    ("\\bigr", ""),
    ("\\dfrac", "\\frac"),
    ("\\tfrac", "\\frac"),
    ("\\cfrac", "\\frac"),
    ("{,}", ","),
    ("\\!", ""),
    ("\\,", " "),
    ("\\;", " "),
    ("\\:", " "),
    ("\\ ", " "),
    ("~", " "),
    ("\\$", ""),
    ("$", ""),
    ("\u{20ac}", ""),
    ("\u{a3}", ""),
    ("\\%", "%"),
    ("^{\\circ}", ""),
    ("^\\circ", ""),
    ("\u{b0}", ""),
    ("\\{", "\u{1}"),
    ("\\}", "\u{2}"),
    ("\u{2212}", "-"),
];

/// Units that may stand right behind a number
const UNITS: &[&str] = &["cm", "mm", "km", "kg", "mg", "ml", "mL", "mph", "dollars", "cents", "percent", "degrees"];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Relation {
    Equal,
    Unequal,
    Less,
    AtMost,
}

/// An answer by its meaning
#[derive(Debug, Clone)]
pub(super) struct Answer {
    text: String,
    meaning: Meaning,
}

#[derive(Debug, Clone)]
enum Meaning {
    Formula {
        formula: Expression,
        decimal: bool,
        percent: bool,
    },
    Relation(Relation, Box<Answer>, Box<Answer>),
    /// Members in any order
    Set(Vec<Answer>),
    /// A tuple or an interval, with its brackets
    Ordered(char, Vec<Answer>, char),
    /// Anything else
    Text,
}

impl Answer {
    pub fn new(text: &str) -> Self {
        let mut text = text.trim().trim_end_matches('.').to_owned();
        for (from, to) in SPELLINGS {
            text = text.replace(from, to);
        }
        // `x \\in [0, 1]` is the interval
        let text = text.split_once("\\in ").map_or(text.as_str(), |(_, set)| set);
        Self::of(text)
    }

    fn of(text: &str) -> Self {
        let text = text.trim();
        let meaning = if text.len() > LONGEST { Meaning::Text } else { meaning(text) };
        Self { text: normal(text), meaning }
    }

    /// Whether `given` says the same as this right answer
    pub fn equals(&self, given: &Self) -> bool {
        use Meaning::{Formula, Ordered, Set, Text};
        if self.text == given.text && !self.text.is_empty() {
            return true;
        }
        match (&self.meaning, &given.meaning) {
            (Formula { .. }, Formula { .. }) => self.same_formula(given),
            (Meaning::Relation(relation, left, right), Meaning::Relation(other, given_left, given_right)) => {
                relation == other && same_relation(*relation, (left, right), (given_left, given_right))
            }
            // `x = 5` is as good as 5
            (_, Meaning::Relation(Relation::Equal, _, value)) => self.equals(value),
            (Meaning::Relation(Relation::Equal, name, value), _) if name.is_variable() => value.equals(given),
            (Set(right), Set(members)) => same_set(right, members),
            (Set(right), _) if right.len() == 1 => right[0].equals(given),
            (_, Set(members)) if members.len() == 1 => self.equals(&members[0]),
            (Ordered(open, right, close), Ordered(given_open, members, given_close)) => {
                (open, close) == (given_open, given_close)
                    && right.len() == members.len()
                    && right.iter().zip(members).all(|(right, given)| right.equals(given))
            }
            (Text, _) | (_, Text) => is_word(&self.text) && self.text.eq_ignore_ascii_case(&given.text),
            _ => false,
        }
    }

    fn is_variable(&self) -> bool {
        matches!(&self.meaning, Meaning::Formula { formula, .. } if formula.is_variable())
    }

    fn same_formula(&self, given: &Self) -> bool {
        let (
            Meaning::Formula { formula, decimal, percent },
            Meaning::Formula { formula: other, decimal: given_decimal, percent: given_percent },
        ) = (&self.meaning, &given.meaning)
        else {
            return false;
        };
        // Beyond 2^53 neighbours have the same f64
        if is_integer(&self.text) && is_integer(&given.text) {
            return digits(&self.text) == digits(&given.text);
        }
        if formula.is_variable() && other.is_variable() {
            return self.text.eq_ignore_ascii_case(&given.text);
        }
        let rounded = *decimal || *given_decimal;
        let constant = formula.is_constant() && other.is_constant();
        let close = |a: f64, b: f64| {
            if rounded && constant {
                return (a * DECIMALS).round() == (b * DECIMALS).round();
            }
            (a - b).abs() <= 1e-9 * a.abs().max(b.abs()).max(1.0)
        };
        let same = |scale: f64| agree(formula, other, |a, b| close(a, b * scale));
        // 50 % is taken for ½ and for 50, as math-verify does
        same(1.0)
            || (*percent && same(0.01))
            || (*given_percent && same(100.0))
            || (*percent && same(100.0))
            || (*given_percent && same(0.01))
    }
}

/// Whether two formulas are close wherever both have a value, and have one somewhere
fn agree(left: &Expression, right: &Expression, close: impl Fn(f64, f64) -> bool) -> bool {
    let values = (0..POINTS).map(|point| (left.value(point), right.value(point)));
    let mut compared = values.filter(|(a, b)| a.is_finite() || b.is_finite()).peekable();
    compared.peek().is_some() && compared.all(|(a, b)| a.is_finite() && b.is_finite() && close(a, b))
}

/// left − right of both are the same, of equations with either sign; 2x = 4 is not x = 2
fn same_relation(relation: Relation, right: (&Answer, &Answer), given: (&Answer, &Answer)) -> bool {
    let difference = |(left, right): (&Answer, &Answer), point| match (&left.meaning, &right.meaning) {
        (Meaning::Formula { formula: left, .. }, Meaning::Formula { formula: right, .. }) => {
            left.value(point) - right.value(point)
        }
        _ => f64::NAN,
    };
    let close = |a: f64, b: f64| (a - b).abs() <= 1e-9 * a.abs().max(b.abs()).max(1.0);
    let same = |sign| (0..POINTS).all(|point| close(difference(right, point), sign * difference(given, point)));
    let turned = matches!(relation, Relation::Equal | Relation::Unequal);
    (right.0.equals(given.0) && right.1.equals(given.1)) || same(1.0) || (turned && same(-1.0))
}

fn same_set(right: &[Answer], given: &[Answer]) -> bool {
    let mut left: Vec<&Answer> = given.iter().collect();
    right.len() == given.len()
        && right.iter().all(|right| {
            let found = left.iter().position(|given| right.equals(given));
            found.map(|at| left.remove(at)).is_some()
        })
}

fn meaning(text: &str) -> Meaning {
    if is_word(text) && text.chars().count() > 1 {
        return Meaning::Text;
    }
    for (open, close, is_set) in
        [('(', ')', false), ('[', ')', false), ('(', ']', false), ('[', ']', false), ('\u{1}', '\u{2}', true)]
    {
        let Some(inside) = text.strip_prefix(open).and_then(|rest| rest.strip_suffix(close)) else { continue };
        let parts = split(inside);
        let Some(parts) = parts.filter(|parts| is_set || parts.len() > 1) else { continue };
        let parts = parts.into_iter().map(Answer::of).collect();
        return if is_set { Meaning::Set(parts) } else { Meaning::Ordered(open, parts, close) };
    }
    if let Some(number) = without_thousands(text) {
        return formula(&number);
    }
    if let Some(parts) = split(text).filter(|parts| parts.len() > 1) {
        return Meaning::Set(parts.into_iter().map(Answer::of).collect());
    }
    relations(text).unwrap_or_else(|| formula(text))
}

fn formula(text: &str) -> Meaning {
    let text = without_unit(text);
    let percent = text.strip_suffix('%').map(str::trim_end);
    let bare = percent.unwrap_or(text);
    Expression::parse(bare).map_or(Meaning::Text, |formula| Meaning::Formula {
        formula,
        decimal: bare.contains('.'),
        percent: percent.is_some(),
    })
}

/// Equations in a row say that the first side equals the last; inequalities in a row all hold
fn relations(text: &str) -> Option<Meaning> {
    let (mut at, mut begin) = (0, 0);
    let (mut sides, mut signs) = (Vec::new(), Vec::new());
    while let Some(c) = text[at..].chars().next() {
        let Some((sign, relation, turned)) = RELATIONS.iter().find(|(sign, ..)| text[at..].starts_with(sign)) else {
            at += c.len_utf8();
            continue;
        };
        sides.push(&text[begin..at]);
        signs.push((*relation, *turned));
        at += sign.len();
        begin = at;
    }
    sides.push(&text[begin..]);
    let relation = |(relation, turned), left: &str, right: &str| {
        let (left, right) = if turned { (right, left) } else { (left, right) };
        Meaning::Relation(relation, Box::new(Answer::of(left)), Box::new(Answer::of(right)))
    };
    if signs.iter().all(|(relation, _)| *relation == Relation::Equal) {
        return Some(relation(*signs.first()?, sides[0], sides[signs.len()]));
    }
    let whole = |meaning| Answer { text: String::new(), meaning };
    let mut chain = signs.iter().zip(sides.windows(2)).map(|(sign, sides)| relation(*sign, sides[0], sides[1]));
    if signs.len() == 1 { chain.next() } else { Some(Meaning::Ordered('<', chain.map(whole).collect(), '<')) }
}

/// The parts between commas, semicolons and `and` outside of brackets; `None` where brackets do not match
fn split(text: &str) -> Option<Vec<&str>> {
    let (mut depth, mut begin, mut parts) = (0_i32, 0, Vec::new());
    let mut skip = 0;
    for (at, c) in text.char_indices() {
        if at < skip {
            continue;
        }
        match c {
            '(' | '[' | '{' | '\u{1}' => depth += 1,
            ')' | ']' | '}' | '\u{2}' => depth -= 1,
            _ => {}
        }
        if depth < 0 {
            return None;
        }
        let rest = &text[at..];
        let separator = [",", ";", "\\text{ and }", "\\text{and}", " and ", "\\text{ or }", "\\text{or}", " or "];
        let separator = separator.iter().find(|separator| rest.starts_with(**separator));
        if let Some(separator) = separator.filter(|_| depth == 0) {
            parts.push(&text[begin..at]);
            begin = at + separator.len();
            skip = begin;
        }
    }
    parts.push(&text[begin..]);
    let parts: Vec<&str> = parts.into_iter().map(str::trim).filter(|part| !part.is_empty()).collect();
    (depth == 0).then_some(parts)
}

/// `1,234,567.8` and `1 234` without what groups their digits
fn without_thousands(text: &str) -> Option<String> {
    let number = without_unit(text);
    let (whole, rest) = number.find(['.', '%']).map_or((number, ""), |at| number.split_at(at));
    let groups: Vec<&str> = whole.trim_start_matches('-').split([',', ' ']).collect();
    let is_group = |group: &&str| group.len() == 3 && group.bytes().all(|c| c.is_ascii_digit());
    let first = groups.first()?;
    let grouped = groups.len() > 1
        && (1..=3).contains(&first.len())
        && first.bytes().all(|c| c.is_ascii_digit())
        && !first.starts_with('0')
        && groups[1..].iter().all(is_group);
    grouped.then(|| format!("{}{rest}", whole.replace([',', ' '], "")))
}

/// A number or formula without `\text{ cm}`, ` apples` or a known unit behind it
fn without_unit(text: &str) -> &str {
    let text = text.trim();
    for command in ["\\text{", "\\mathrm{", "\\textrm{", "\\mbox{", "\\,\\text{"] {
        if let Some(at) = text.rfind(command).filter(|at| *at > 0) {
            let rest = &text[at + command.len()..];
            if rest
                .find('}')
                .is_some_and(|end| rest[end + 1..].trim_start_matches(['^', '2', '3', '{', '}']).is_empty())
            {
                return without_unit(&text[..at]);
            }
        }
    }
    let word = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = &text[word.len()..];
    let behind_number = word.trim_end().ends_with(|c: char| c.is_ascii_digit() || c == '%');
    if unit.len() > 1 && behind_number && (word.ends_with(' ') || UNITS.contains(&unit)) {
        return word.trim_end();
    }
    // ` square metres`
    if unit.len() > 1 && word.ends_with(' ') && word.trim_end().ends_with(|c: char| c.is_ascii_alphabetic()) {
        let shorter = without_unit(word.trim_end());
        if shorter.len() < word.trim_end().len() {
            return shorter;
        }
    }
    text
}

/// For the comparison as text: no space, no text command, no brackets around a single letter
fn normal(text: &str) -> String {
    const COMMANDS: &[&str] = &["\\text{", "\\mathrm{", "\\textbf{", "\\mathbf{", "\\mbox{", "\\textrm{"];
    let text: String = text.chars().filter(|c| !c.is_whitespace()).collect();
    let inside = COMMANDS.iter().find_map(|command| text.strip_prefix(command)?.strip_suffix('}')).unwrap_or(&text);
    let bare = inside.strip_prefix('(').and_then(|rest| rest.strip_suffix(')')).filter(|inside| is_word(inside));
    let bare = bare.unwrap_or(inside);
    bare.strip_prefix('+').unwrap_or(bare).to_owned()
}

fn is_word(text: &str) -> bool {
    !text.is_empty() && text.chars().all(char::is_alphabetic)
}

fn is_integer(text: &str) -> bool {
    let digits = text.strip_prefix('-').unwrap_or(text);
    !digits.is_empty() && digits.bytes().all(|c| c.is_ascii_digit() || c == b',')
}

/// Sign and digits of an integer in one spelling
fn digits(text: &str) -> (bool, String) {
    let digits: String = text.chars().filter(char::is_ascii_digit).collect();
    let digits = digits.trim_start_matches('0').to_owned();
    (text.starts_with('-') && !digits.is_empty(), digits)
}
