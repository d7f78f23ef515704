//! Sentiment of a text by a list of weighted words: a reward that can be computed by hand.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;

use crate::{Error, Result};

/// Words with weights, and the words that turn them round
#[derive(Debug, Clone, Deserialize)]
pub struct Lexicon {
    /// Words after a negator that it turns round
    window: usize,
    /// Added to the sum of absolute weights, so that a single word stays away from the ends of the scale
    offset: u32,
    negators: BTreeSet<String>,
    /// Words that end a negation, as punctuation does
    breaks: BTreeSet<String>,
    weights: BTreeMap<String, i32>,
}

enum Token {
    Word(String),
    Punctuation,
}

impl Lexicon {
    /// Reads `{"window", "offset", "negators", "breaks", "weights"}`
    ///
    /// # Errors
    /// Not JSON of that shape; an offset of 0, under which a text without any word of the list has no score
    pub fn from_json(json: &[u8]) -> Result<Self> {
        let lexicon: Self =
            serde_json::from_slice(json).map_err(|cause| Error::usage(format!("not a lexicon: {cause}")))?;
        if lexicon.offset == 0 {
            return Err(Error::usage("`offset` of a lexicon must be at least 1, got `0`"));
        }
        Ok(lexicon)
    }

    /// Sentiment of a text in (−1, 1); 0 where no word of the list occurs
    ///
    /// ```text
    /// score = Σ s(w) · weight(w) / (offset + Σ |weight(w)|)
    /// ```
    /// over the different (word, negated or not) of the text: saying a word again changes nothing. s is −1 where one
    /// of the `window` words before, in the same clause, is a negator, else 1. Clauses end at `. , ; : ! ?` and at
    /// `breaks`. Words are runs of ASCII letters and apostrophes, in lower case.
    pub fn score(&self, text: &str) -> f64 {
        let mut negated_for = 0;
        let mut found = BTreeSet::new();
        for token in tokens(text) {
            let Token::Word(word) = token else {
                negated_for = 0;
                continue;
            };
            if self.breaks.contains(&word) {
                negated_for = 0;
                continue;
            }
            if let Some((word, &weight)) = self.weights.get_key_value(&word) {
                found.insert((word, weight, negated_for > 0));
            }
            negated_for = if self.negators.contains(&word) { self.window } else { negated_for.saturating_sub(1) };
        }
        let signed: i32 = found.iter().map(|&(_, weight, negated)| if negated { -weight } else { weight }).sum();
        let absolute: u32 = found.iter().map(|(_, weight, _)| weight.unsigned_abs()).sum();
        f64::from(signed) / f64::from(self.offset + absolute)
    }
}

fn tokens(text: &str) -> Vec<Token> {
    let mut tokens = Vec::new();
    let mut word = String::new();
    for character in text.chars().chain([' ']) {
        match character {
            '\'' | '\u{2019}' => word.push('\''),
            letter if letter.is_ascii_alphabetic() => word.push(letter.to_ascii_lowercase()),
            other => {
                if !word.is_empty() {
                    tokens.push(Token::Word(std::mem::take(&mut word)));
                }
                if ".,;:!?".contains(other) {
                    tokens.push(Token::Punctuation);
                }
            }
        }
    }
    tokens
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    fn reviews() -> Lexicon {
        Lexicon::from_json(include_bytes!("../../data/reviews/lexicon.json")).unwrap()
    }

    /// The rows carry the scores that scripts/data/reviews.py gave them
    #[test]
    fn scores_of_the_shipped_rows_are_the_generators() {
        let lexicon = reviews();
        let fine_tuning = include_str!("../../data/reviews/sft.train.jsonl");
        let preferences = include_str!("../../data/reviews/preferences.train.jsonl");
        let mut compared = 0;
        for line in fine_tuning.lines().chain(preferences.lines()) {
            let row: Value = serde_json::from_str(line).unwrap();
            for (text, gold) in [("completion", "gold"), ("chosen", "gold_chosen"), ("rejected", "gold_rejected")] {
                let Some(text) = row[text].as_str() else { continue };
                assert_eq!(lexicon.score(text), row[gold].as_f64().unwrap(), "{text}");
                compared += 1;
            }
        }
        assert!(compared > 1000, "{compared}");
    }

    #[test]
    fn repetition_gains_nothing_and_negation_turns_round() {
        let lexicon = reviews();
        let score = |text: &str| lexicon.score(text);
        assert_eq!(score("good"), 2.0 / 6.0);
        assert_eq!(score("Good, GOOD, good!"), score("good"));
        assert_eq!(score("It isn\u{2019}t very good"), -score("good"));
        assert_eq!(score("not here, but good"), score("good"));
        assert_eq!(score("not one of the good ones"), score("good"), "the window holds three words");
        assert_eq!(score("good, not good"), 0.0);
        assert_eq!(score("The goodness of the café is red."), 0.0);
        assert_eq!(score(""), 0.0);
    }

    #[test]
    fn what_is_no_lexicon_is_refused() {
        for json in ["{}", "[1]", "{\"window\": 3"] {
            assert!(Lexicon::from_json(json.as_bytes()).unwrap_err().message().starts_with("not a lexicon: "));
        }
        let empty = r#"{"window": 1, "offset": 0, "negators": [], "breaks": [], "weights": {}}"#;
        assert!(Lexicon::from_json(empty.as_bytes()).is_err());
    }
}
