//! How tokens are chosen: the flags of `generate` and `chat`, and text that appears as it is made.

use super::args::{count, non_negative, positive, share};
use crate::Result;
use crate::data::Tokenizer;
use crate::rollout::{Options, Sampling};

/// How tokens are chosen, and how many
#[derive(Debug, clap::Args)]
#[command(rename_all = "snake_case")]
pub struct SamplingArgs {
    /// Most tokens of a completion
    #[arg(long, value_name = "N", default_value = "256", value_parser = count)]
    pub max_new_tokens: usize,
    /// Divides the logits; 0 takes the likeliest token each time
    #[arg(long, value_name = "X", default_value = "1.0", value_parser = non_negative, allow_negative_numbers = true)]
    pub temperature: f64,
    /// Keep the likeliest tokens up to this probability together
    #[arg(long, value_name = "X", default_value = "1.0", value_parser = share, allow_negative_numbers = true)]
    pub top_p: f64,
    /// Keep this many of the likeliest tokens; 0 keeps all
    #[arg(long, value_name = "N", default_value = "0", allow_negative_numbers = true)]
    pub top_k: usize,
    /// Keep tokens of at least this share of the likeliest one's probability
    #[arg(long, value_name = "X", value_parser = share, allow_negative_numbers = true)]
    pub min_p: Option<f64>,
    /// Above 1 makes tokens that have occurred less likely
    #[arg(long, value_name = "X", default_value = "1.0", value_parser = positive, allow_negative_numbers = true)]
    pub repetition_penalty: f64,
    /// Seed of the sampling
    #[arg(long, value_name = "N", default_value = "42")]
    pub seed: u64,
    /// Strength of the token field that a `grl` run with `eta` left beside the model, in place of its own; 0 leaves the
    /// field out
    #[arg(long, value_name = "X", value_parser = non_negative, allow_negative_numbers = true)]
    pub eta: Option<f64>,
    /// Compute in bfloat16 where that is safe
    #[arg(long, value_name = "true|false", num_args = 0..=1, default_value = "false", default_missing_value = "true")]
    pub bf16: bool,
}

impl SamplingArgs {
    /// For one completion at a time
    pub fn options(&self, stop: Vec<u32>) -> Options {
        Options {
            sampling: Sampling {
                temperature: self.temperature,
                top_k: self.top_k,
                top_p: self.top_p,
                min_p: self.min_p,
                repetition_penalty: self.repetition_penalty,
            },
            max_new_tokens: self.max_new_tokens,
            per_prompt: 1,
            batch_size: 1,
            seed: self.seed,
            stop,
        }
    }
}

/// Turns tokens into text piece by piece: a piece is handed out once no later token can change it
pub struct TextStream<'t> {
    tokenizer: &'t Tokenizer,
    /// Texts that end the completion, and are no part of it
    stop: &'t [&'t str],
    ids: Vec<u32>,
    text: String,
    /// Bytes handed out
    shown: usize,
    ended: bool,
}

impl<'t> TextStream<'t> {
    /// Ends before any of `stop`
    pub fn new(tokenizer: &'t Tokenizer, stop: &'t [&'t str]) -> Self {
        Self { tokenizer, stop, ids: Vec::new(), text: String::new(), shown: 0, ended: false }
    }

    /// What this token lets be shown
    pub fn push(&mut self, id: u32) -> Result<&str> {
        self.ids.push(id);
        self.text = self.tokenizer.decode(&self.ids, true)?;
        if let Some(at) = self.stop.iter().filter_map(|stop| self.text.find(stop)).min() {
            self.text.truncate(at);
            self.ended = true;
            return Ok(self.show(at));
        }
        // Bytes of a character that is not whole yet
        let whole = self.text.trim_end_matches(char::REPLACEMENT_CHARACTER);
        let held = self.stop.iter().map(|stop| beginning(whole, stop)).max().unwrap_or(0);
        let end = whole.len() - held;
        Ok(self.show(end))
    }

    /// Whether a text that ends the completion has come
    pub fn ended(&self) -> bool {
        self.ended
    }

    /// What was held back to the end
    pub fn finish(&mut self) -> &str {
        self.show(self.text.len())
    }

    /// All of the completion
    pub fn text(&self) -> &str {
        &self.text
    }

    fn show(&mut self, end: usize) -> &str {
        let begin = self.shown.min(end);
        self.shown = self.shown.max(end);
        // A decoder that changes what it said before gets no second chance
        self.text.get(begin..end).unwrap_or_default()
    }
}

/// Bytes at the end of `text` with which `stop` begins
fn beginning(text: &str, stop: &str) -> usize {
    let ends = stop.char_indices().map(|(at, _)| at).skip(1);
    ends.filter(|&at| text.ends_with(&stop[..at])).max().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokenizer() -> Tokenizer {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("data/base");
        Tokenizer::from_folder(&folder).unwrap()
    }

    fn shown(text: &str, stop: &[&str]) -> (Vec<String>, String, bool) {
        let tokenizer = tokenizer();
        let mut stream = TextStream::new(&tokenizer, stop);
        let mut pieces = Vec::new();
        for id in tokenizer.encode(text).unwrap() {
            pieces.push(stream.push(id).unwrap().to_owned());
            if stream.ended() {
                break;
            }
        }
        pieces.push(stream.finish().to_owned());
        (pieces.clone(), pieces.concat(), stream.ended())
    }

    #[test]
    fn pieces_add_up_to_the_text() {
        for text in ["The film was good.", "naïve 東京 🙂 ok", "a\n\nb", ""] {
            let (pieces, whole, ended) = shown(text, &[]);
            assert_eq!(whole, text);
            assert!(!ended && pieces.iter().all(|piece| !piece.contains(char::REPLACEMENT_CHARACTER)), "{pieces:?}");
        }
    }

    #[test]
    fn a_stop_text_is_not_shown_nor_its_beginning() {
        let stop = ["\n\nHuman:"];
        assert_eq!(shown("yes\n\nHuman: and?", &stop).1, "yes");
        assert!(shown("yes\n\nHuman: and?", &stop).2);
        // What only looked like one is
        assert_eq!(shown("yes\n\nHumans", &stop).1, "yes\n\nHumans");
        let (pieces, ..) = shown("yes\n\nHum", &stop);
        assert_eq!(pieces.last().unwrap(), "\n\nHum");
    }
}
