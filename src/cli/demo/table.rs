//! What the demo found, for the terminal and for programs.

use std::path::Path;
use std::time::Duration;

use serde_json::{Value as Json, json};

use super::measure::{Figures, Findings, PER_PROMPT, Ranking, Sample};
use super::runs::{PAIRS, QUERIES, SEED, STAGES, Source};
use crate::Result;
use crate::cli::output::Output;
use crate::train::evaluate_completions::Mean;

/// Headings of the table's columns
pub(super) const COLUMNS: [&str; 7] =
    ["gold reward", "proxy reward", "KL to SFT", "tokens", "ended", "reward queries", "time"];
/// Columns of one of two texts side by side
const WIDTH: usize = 45;

/// What was found, and how long each stage took
pub(super) struct Results {
    pub findings: Findings,
    /// In the order of the stages
    pub times: Vec<Duration>,
    pub total: Duration,
}

impl Results {
    /// The cells of a model's row
    pub fn cells(&self, model: &Figures) -> [String; 7] {
        let mean = |mean: Mean, digits: usize| format!("{:.digits$} ± {:.digits$}", mean.mean, mean.standard_error());
        let signed = |mean: Mean| format!("{:+.2} ± {:.2}", mean.mean, mean.standard_error());
        let stage = STAGES.iter().position(|stage| stage.label == model.label);
        let queries = stage.map_or("–".to_owned(), |stage| match STAGES[stage].source {
            Source::Judge => QUERIES.to_string(),
            Source::Preferences => format!("{PAIRS} pairs"),
            Source::Reviews => "–".to_owned(),
        });
        [
            signed(model.gold),
            signed(model.proxy),
            mean(model.kl, 1),
            format!("{:.0}", model.length),
            percent(model.ended),
            queries,
            stage.map_or("–".to_owned(), |stage| format!("{:.0} s", self.times[stage].as_secs_f64())),
        ]
    }

    /// What the columns mean
    pub fn notes(&self) -> [String; 3] {
        let prompts = self.findings.prompts.len();
        [
            format!(
                "Each model wrote {PER_PROMPT} reviews to each of {prompts} prompts about things that no run met; ± is \
                 a standard error over prompts. Gold: the lexicon's score, from -1 to 1, of which no run knew; the \
                 preferences were drawn from it."
            ),
            format!(
                "Proxy: the reward model, learnt from {PAIRS} preferences. PPO, GRPO and GRL were paid by it for \
                 {QUERIES} reviews each; DPO learnt from the same {PAIRS} preferences and asked nobody."
            ),
            "KL: how far the model has moved from SFT, in nats a review.".to_owned(),
        ]
    }

    /// Figures for programs; times are the only ones that differ from run to run
    pub fn json(&self) -> Json {
        let mean = |mean: Mean| json!({"mean": mean.mean, "standard_error": mean.standard_error()});
        let models = self.findings.models.iter().map(|model| {
            let stage = STAGES.iter().position(|stage| stage.label == model.label);
            let source = stage.map(|stage| STAGES[stage].source);
            let figures = json!({
                "gold": mean(model.gold),
                "proxy": mean(model.proxy),
                "kl": mean(model.kl),
                "length": model.length,
                "ended": model.ended,
                "different": model.different,
                "reward_queries": if source == Some(Source::Judge) { QUERIES } else { 0 },
                "preference_pairs": if source == Some(Source::Preferences) { PAIRS } else { 0 },
                "seconds": stage.map(|stage| self.times[stage].as_secs_f64()),
            });
            (model.label.to_lowercase(), figures)
        });
        let Ranking { whole, bins, gold_accuracy } = &self.findings.ranking;
        json!({
            "finished": true,
            "version": env!("CARGO_PKG_VERSION"),
            "seed": SEED,
            "prompts": self.findings.prompts.len(),
            "completions_per_prompt": PER_PROMPT,
            "models": models.collect::<serde_json::Map<_, _>>(),
            "reward_model": {
                "pairs": whole.pairs,
                "accuracy": whole.observed,
                "accuracy_95": whole.interval,
                "expected_accuracy": whole.predicted,
                "gold_accuracy": gold_accuracy,
                "calibration": bins.iter().map(|bin| json!({
                    "pairs": bin.pairs, "predicted": bin.predicted, "observed": bin.observed, "observed_95": bin.interval,
                })).collect::<Vec<_>>(),
            },
            "seconds": self.total.as_secs_f64(),
        })
    }

    /// Writes table, notes and samples
    pub fn print(&self, folder: &Path, parting: &str) -> Result<()> {
        let mut out = Output::open();
        self.print_table(&mut out)?;
        out.line("")?;
        let ranking = ranking(&self.findings.ranking);
        let notes = self.notes();
        for note in notes.iter().map(String::as_str).chain([ranking.as_str(), parting]) {
            paragraph(&mut out, note)?;
        }
        self.print_samples(&mut out)?;
        let at = |name: &str| folder.join(name).display().to_string();
        for line in [
            format!("Curves, frontier, calibration and every review: {}", at("report.html")),
            format!("  collimate generate --model {} --prompt \"{}\"", at("grpo"), self.findings.prompts[0]),
            format!("  collimate grpo --config {} --beta 0 --output_dir {}", at("grpo/config.yaml"), at("grpo-no-kl")),
        ] {
            out.line(&line)?;
        }
        out.flush()
    }

    fn print_table(&self, out: &mut Output) -> Result<()> {
        let names = [""].into_iter().chain(self.findings.models.iter().map(|model| model.label));
        let cells = self.findings.models.iter().map(|model| self.cells(model));
        let rows: Vec<[String; 7]> = [COLUMNS.map(str::to_owned)].into_iter().chain(cells).collect();
        let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
        for (name, row) in names.zip(&rows) {
            let cells: Vec<String> =
                row.iter().enumerate().map(|(i, cell)| format!("  {cell:>0$}", width(i))).collect();
            out.line(&format!("{name:<4}{}", cells.concat()))?;
        }
        Ok(())
    }

    /// The same prompt before and after: to each aligned model the first review of another prompt
    fn print_samples(&self, out: &mut Output) -> Result<()> {
        let Some((start, aligned)) = self.findings.models.get(1..).and_then(<[Figures]>::split_first) else {
            return Ok(());
        };
        for (i, model) in aligned.iter().enumerate() {
            out.line("")?;
            out.line(&self.findings.prompts[i])?;
            let side = |model: &Figures| {
                let Sample { text, gold, proxy } = &model.samples[i];
                let mut lines = vec![format!("{}  gold {gold:+.2}  proxy {proxy:+.2}", model.label)];
                lines.extend(wrapped(text, WIDTH));
                lines
            };
            let (left, right) = (side(start), side(model));
            for line in 0..left.len().max(right.len()) {
                let of = |side: &[String]| side.get(line).cloned().unwrap_or_default();
                out.line(format!("  {:<WIDTH$}   {}", of(&left), of(&right)).trim_end())?;
            }
        }
        out.line("")
    }
}

/// How far the reward model can be believed
pub(super) fn ranking(found: &Ranking) -> String {
    let Ranking { whole, gold_accuracy, .. } = found;
    let [low, high] = whole.interval;
    format!(
        "The reward model ranks {} of {} held-out pairs as labelled (95 % interval {} to {}) and expects {} of itself; \
         the gold score ranks {}, the rest of the labels is noise.",
        percent(whole.observed),
        whole.pairs,
        percent(low),
        percent(high),
        percent(whole.predicted),
        percent(*gold_accuracy)
    )
}

fn percent(share: f64) -> String {
    format!("{:.0} %", 100.0 * share)
}

fn paragraph(out: &mut Output, text: &str) -> Result<()> {
    wrapped(text, 2 * WIDTH + 5).iter().try_for_each(|line| out.line(line))
}

/// A text in lines of at most `width` characters; a longer word has a line of its own
fn wrapped(text: &str, width: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.chars().count() + 1 + word.chars().count() <= width => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::wrapped;

    #[test]
    fn words_are_never_broken() {
        assert_eq!(wrapped("one two three", 7), ["one two", "three"]);
        assert_eq!(wrapped(" a  wonderful b", 5), ["a", "wonderful", "b"]);
        assert!(wrapped("  ", 5).is_empty());
    }
}
