//! Formulas as far as an answer needs them: real numbers, variables, the usual functions; in LaTeX or plain.
//!
//! Two formulas are equal where they have the same values at fixed points, which needs no algebra.

/// Brackets within brackets beyond this are no answer: a policy writes whatever it likes, and the stack is finite
const DEEPEST: usize = 40;

#[derive(Debug, Clone)]
pub(super) enum Expression {
    Number(f64),
    Variable(String),
    Binary(char, Box<Expression>, Box<Expression>),
    Function(&'static str, Box<Expression>),
}

use Expression::{Binary, Function, Number, Variable};

/// Functions of one argument
const FUNCTIONS: &[&str] =
    &["sqrt", "arcsin", "arccos", "arctan", "sinh", "cosh", "tanh", "sin", "cos", "tan", "cot", "ln", "log", "exp"];

/// Commands that are names of variables
const LETTERS: &[&str] = &[
    "alpha", "beta", "gamma", "delta", "epsilon", "theta", "lambda", "mu", "nu", "rho", "sigma", "tau", "phi",
    "varphi", "psi", "omega", "ell",
];

#[derive(Debug, Clone, PartialEq)]
enum Token {
    Number(f64),
    Letter(char),
    Command(String),
    Sign(char),
}

impl Expression {
    /// Reads all of a text; `None` where it is no formula
    pub fn parse(text: &str) -> Option<Self> {
        let tokens = tokens(text)?;
        let mut parser = Parser { tokens: &tokens, at: 0, depth: 0 };
        let expression = parser.sum()?;
        (parser.at == tokens.len()).then_some(expression)
    }

    /// Whether it is a single variable
    pub fn is_variable(&self) -> bool {
        matches!(self, Variable(_))
    }

    /// Whether no variable occurs in it
    pub fn is_constant(&self) -> bool {
        match self {
            Number(_) => true,
            Variable(_) => false,
            Binary(_, left, right) => left.is_constant() && right.is_constant(),
            Function(_, argument) => argument.is_constant(),
        }
    }

    /// The value where each variable has one that follows from its name and the number of the point
    pub fn value(&self, point: u32) -> f64 {
        match self {
            Number(value) => *value,
            Variable(name) => {
                let seed =
                    name.bytes().fold(f64::from(point) + 1.0, |seed, byte| seed * 1.618 + f64::from(byte) * 0.731);
                // Between 1 and 3, where roots and logarithms have values
                1.0 + 2.0 * (seed * 12.9898).sin().mul_add(43_758.545, 0.5).rem_euclid(1.0)
            }
            Binary(sign, left, right) => {
                let (left, right) = (left.value(point), right.value(point));
                match sign {
                    '+' => left + right,
                    '-' => left - right,
                    '*' => left * right,
                    '/' => left / right,
                    _ => left.powf(right),
                }
            }
            Function(name, argument) => apply(name, argument.value(point)),
        }
    }
}

fn apply(name: &str, x: f64) -> f64 {
    match name {
        "sqrt" => x.sqrt(),
        "sin" => x.sin(),
        "cos" => x.cos(),
        "tan" => x.tan(),
        "cot" => 1.0 / x.tan(),
        "arcsin" => x.asin(),
        "arccos" => x.acos(),
        "arctan" => x.atan(),
        "sinh" => x.sinh(),
        "cosh" => x.cosh(),
        "tanh" => x.tanh(),
        // As sympy, for which the logarithm without a base is the natural one
        "ln" | "log" => x.ln(),
        "exp" => x.exp(),
        "abs" => x.abs(),
        "!" if x >= 0.0 && x.fract() == 0.0 && x <= 170.0 => (1..=x as u32).map(f64::from).product(),
        _ => f64::NAN,
    }
}

fn tokens(text: &str) -> Option<Vec<Token>> {
    let mut tokens = Vec::new();
    let mut rest = text.trim_start();
    while let Some(first) = rest.chars().next() {
        let length = if first.is_ascii_digit() || first == '.' {
            let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
            let end = if is_fraction_half(&tokens) { 1 } else { end };
            tokens.push(Token::Number(rest[..end].trim_end_matches('.').parse().ok()?));
            end
        } else if first == '\\' {
            let end = rest[1..].find(|c: char| !c.is_ascii_alphabetic()).map_or(rest.len(), |end| end + 1);
            if end == 1 {
                return None;
            }
            tokens.push(Token::Command(rest[1..end].to_owned()));
            end
        } else if first.is_alphabetic() {
            let word = FUNCTIONS.iter().find(|name| rest.starts_with(**name));
            tokens.push(word.map_or(Token::Letter(first), |name| Token::Command((*name).to_owned())));
            word.map_or(first.len_utf8(), |name| name.len())
        } else {
            let sign = match first {
                '\u{d7}' | '\u{b7}' => '*',
                '\u{f7}' => '/',
                '\u{2212}' => '-',
                '[' => '(',
                ']' => ')',
                other => other,
            };
            if !"+-*/^!(){}|_".contains(sign) {
                return None;
            }
            tokens.push(Token::Sign(sign));
            first.len_utf8()
        };
        rest = rest[length..].trim_start();
    }
    Some(tokens)
}

/// `\\frac12` is ½: without braces LaTeX takes a digit
fn is_fraction_half(before: &[Token]) -> bool {
    let is_frac = |token: &Token| matches!(token, Token::Command(name) if name == "frac");
    match before {
        [.., last] if is_frac(last) => true,
        [.., frac, Token::Number(_)] => is_frac(frac),
        _ => false,
    }
}

struct Parser<'t> {
    tokens: &'t [Token],
    at: usize,
    depth: usize,
}

impl Parser<'_> {
    fn peek(&self) -> Option<&Token> {
        self.tokens.get(self.at)
    }

    fn is_sign(&self, sign: char) -> bool {
        self.peek() == Some(&Token::Sign(sign))
    }

    fn is_command(&self, names: &[&str]) -> bool {
        matches!(self.peek(), Some(Token::Command(name)) if names.contains(&name.as_str()))
    }

    fn take(&mut self, sign: char) -> bool {
        let found = self.is_sign(sign);
        self.at += usize::from(found);
        found
    }

    fn sum(&mut self) -> Option<Expression> {
        let mut left = self.product()?;
        loop {
            let sign = if self.take('+') {
                '+'
            } else if self.take('-') {
                '-'
            } else {
                return Some(left);
            };
            left = binary(sign, left, self.product()?);
        }
    }

    fn product(&mut self) -> Option<Expression> {
        let mut left = self.signed()?;
        loop {
            if self.take('*') || self.take_command(&["cdot", "times", "ast"]) {
                left = binary('*', left, self.signed()?);
            } else if self.take('/') || self.take_command(&["div"]) {
                left = binary('/', left, self.signed()?);
            } else if self.begins_factor() {
                left = binary('*', left, self.power()?);
            } else {
                return Some(left);
            }
        }
    }

    fn take_command(&mut self, names: &[&str]) -> bool {
        let found = self.is_command(names);
        self.at += usize::from(found);
        found
    }

    /// Whether the next token can follow a factor without a sign between them; no number follows another
    fn begins_factor(&self) -> bool {
        match self.peek() {
            Some(Token::Number(_)) => !matches!(self.tokens[self.at - 1], Token::Number(_)),
            Some(Token::Letter(_) | Token::Sign('(' | '{')) => true,
            Some(Token::Command(_)) => !self.is_command(&["cdot", "times", "ast", "div"]),
            _ => false,
        }
    }

    fn signed(&mut self) -> Option<Expression> {
        let mut negative = false;
        while self.is_sign('-') || self.is_sign('+') {
            negative ^= self.is_sign('-');
            self.at += 1;
        }
        let factor = self.power()?;
        Some(if negative { binary('-', Number(0.0), factor) } else { factor })
    }

    fn power(&mut self) -> Option<Expression> {
        let whole = match self.peek() {
            Some(Token::Number(value)) if value.fract() == 0.0 => Some(*value),
            _ => None,
        };
        let mut base = self.atom()?;
        // A mixed number: 3\frac{1}{2}
        if whole.is_some() && self.is_command(&["frac"]) {
            let fraction = self.atom()?;
            let sign = if fraction.is_constant() { '+' } else { '*' };
            base = binary(sign, base, fraction);
        }
        while self.take('!') {
            base = Function("!", Box::new(base));
        }
        if self.take('^') || self.take_stars() {
            let exponent = if self.is_sign('-') || self.is_sign('+') { self.signed()? } else { self.atom()? };
            base = binary('^', base, exponent);
        }
        Some(base)
    }

    /// Python's `**`
    fn take_stars(&mut self) -> bool {
        let found = self.tokens[self.at.min(self.tokens.len())..].starts_with(&[Token::Sign('*'), Token::Sign('*')]);
        self.at += 2 * usize::from(found);
        found
    }

    fn group(&mut self, close: char) -> Option<Expression> {
        let inside = self.sum()?;
        self.take(close).then_some(inside)
    }

    fn atom(&mut self) -> Option<Expression> {
        self.depth += 1;
        let atom = if self.depth > DEEPEST { None } else { self.shallow_atom() };
        self.depth -= 1;
        atom
    }

    fn shallow_atom(&mut self) -> Option<Expression> {
        let token = self.peek()?.clone();
        self.at += 1;
        match token {
            Token::Number(value) => Some(Number(value)),
            Token::Letter('e') => Some(Number(std::f64::consts::E)),
            Token::Letter('\u{3c0}') => Some(Number(std::f64::consts::PI)),
            Token::Letter(letter) => Some(Variable(self.with_index(letter.to_string())?)),
            Token::Sign('(') => self.group(')'),
            Token::Sign('{') => self.group('}'),
            Token::Sign('|') => Some(Function("abs", Box::new(self.group('|')?))),
            Token::Sign(_) => None,
            Token::Command(name) => self.command(&name),
        }
    }

    /// `x_1`, `x_{12}`: a variable of its own
    fn with_index(&mut self, mut name: String) -> Option<String> {
        if !self.take('_') {
            return Some(name);
        }
        name.push('_');
        let braced = self.take('{');
        loop {
            match self.peek()? {
                Token::Letter(letter) => name.push(*letter),
                Token::Number(number) => name.push_str(&number.to_string()),
                _ => return None,
            }
            self.at += 1;
            if !braced || self.take('}') {
                return Some(name);
            }
        }
    }

    fn command(&mut self, name: &str) -> Option<Expression> {
        match name {
            "pi" => Some(Number(std::f64::consts::PI)),
            "frac" => {
                let above = self.atom()?;
                Some(binary('/', above, self.atom()?))
            }
            "sqrt" if self.is_sign('(') && self.tokens[self.at..].contains(&Token::Sign('{')) => {
                // `[` was read as `(`: \sqrt[3]{8}
                let begin = self.at;
                let root = self.atom()?;
                if !self.is_sign('{') {
                    self.at = begin;
                    return Some(Function("sqrt", Box::new(self.atom()?)));
                }
                Some(binary('^', self.atom()?, binary('/', Number(1.0), root)))
            }
            "log" if self.take('_') => {
                let base = Function("ln", Box::new(self.atom()?));
                Some(binary('/', Function("ln", Box::new(self.function_argument()?)), base))
            }
            _ => {
                if let Some(function) = FUNCTIONS.iter().find(|function| **function == name) {
                    let power = if self.take('^') { Some(self.atom()?) } else { None };
                    let value = Function(function, Box::new(self.function_argument()?));
                    return Some(power.map_or(value.clone(), |power| binary('^', value, power)));
                }
                LETTERS.contains(&name).then_some(())?;
                Some(Variable(self.with_index(name.to_owned())?))
            }
        }
    }

    /// `\sin 2x` goes as far as `\sin(2x)`
    fn function_argument(&mut self) -> Option<Expression> {
        let bracketed = self.is_sign('(') || self.is_sign('{');
        let mut argument = if bracketed { self.atom()? } else { self.power()? };
        while !bracketed && matches!(self.peek(), Some(Token::Letter(_))) {
            argument = binary('*', argument, self.power()?);
        }
        Some(argument)
    }
}

fn binary(sign: char, left: Expression, right: Expression) -> Expression {
    Binary(sign, Box::new(left), Box::new(right))
}
