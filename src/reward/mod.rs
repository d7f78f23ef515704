//! Rewards: what judges a finished text.

mod lexicon;

pub use lexicon::Lexicon;
