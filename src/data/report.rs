//! What became of the rows: used, dropped and why.

use serde::{Deserialize, Serialize};

use super::record::{Place, list_names};
use crate::error::{Error, Result};

/// Examples ready for training, and the account of the rows that they came from
#[derive(Debug, Clone)]
pub struct Prepared<T> {
    /// In the order of the rows; never empty
    pub examples: Vec<T>,
    /// The account
    pub report: RowReport,
}

/// The account of a dataset's rows, as it goes into the manifest
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct RowReport {
    /// Rows read
    pub read: usize,
    /// Rows that became an example
    pub used: usize,
    /// Rows left out, by reason
    pub dropped: Vec<Dropped>,
    /// Rows whose tokenised prompt is not a prefix of the tokenised prompt and completion
    pub boundary_moved: usize,
    /// Preference rows whose chosen and rejected completions are equal (used, as in TRL, though they teach nothing)
    pub equal_pairs: usize,
}

/// Rows left out for one reason
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Dropped {
    /// Why
    pub reason: String,
    /// How many
    pub count: usize,
    /// The first few
    pub first: Vec<Place>,
}

impl RowReport {
    /// Says what was left out, and which pairs are equal
    pub(super) fn warn(&self, dataset: &str) {
        for Dropped { reason, count, first } in &self.dropped {
            tracing::warn!("dropped {count} of {} rows of `{dataset}`: {reason} (first at {})", self.read, first[0]);
        }
        if self.equal_pairs > 0 {
            tracing::warn!("{} rows of `{dataset}` have equal chosen and rejected completions", self.equal_pairs);
        }
    }
}

/// What one row became
pub(super) enum Outcome<T> {
    Used { example: T, boundary: Option<String>, equal: bool },
    Dropped(&'static str),
}

impl<T> Outcome<T> {
    pub(super) fn used(example: T) -> Self {
        Self::Used { example, boundary: None, equal: false }
    }
}

/// Puts the rows' outcomes together in order, warns once for each matter, and refuses an empty result
pub(super) fn collect<'a, T>(
    dataset: &std::path::Path,
    outcomes: impl IntoIterator<Item = (&'a Place, Result<Outcome<T>>)>,
) -> Result<Prepared<T>> {
    const FIRST: usize = 5;
    let mut examples = Vec::new();
    let mut report = RowReport::default();
    let mut lost: Option<(String, &Place)> = None;
    for (place, outcome) in outcomes {
        report.read += 1;
        match outcome? {
            Outcome::Used { example, boundary, equal } => {
                examples.push(example);
                report.used += 1;
                report.equal_pairs += usize::from(equal);
                if let Some(text) = boundary {
                    report.boundary_moved += 1;
                    lost.get_or_insert((text, place));
                }
            }
            Outcome::Dropped(reason) => {
                let position = report.dropped.iter().position(|dropped| dropped.reason == reason);
                let index = position.unwrap_or_else(|| {
                    report.dropped.push(Dropped { reason: reason.to_string(), count: 0, first: Vec::new() });
                    report.dropped.len() - 1
                });
                let dropped = &mut report.dropped[index];
                dropped.count += 1;
                if dropped.first.len() < FIRST {
                    dropped.first.push(place.clone());
                }
            }
        }
    }
    let dataset = dataset.display();
    report.warn(&dataset.to_string());
    if let Some((text, place)) = lost {
        tracing::warn!(
            "in {} of {} rows of `{dataset}` the tokens of the prompt change when the completion follows; the completion \
             then begins where they part, and this end of the prompt is left out at {place}: {text:?}; end prompts on a \
             token boundary to avoid it",
            report.boundary_moved,
            report.used
        );
    }
    if examples.is_empty() {
        let reasons: Vec<String> =
            report.dropped.iter().map(|dropped| format!("{} × {}", dropped.count, dropped.reason)).collect();
        let first: Vec<String> =
            report.dropped.iter().flat_map(|dropped| &dropped.first).take(3).map(ToString::to_string).collect();
        return Err(Error::usage(format!(
            "none of the {} rows of `{dataset}` can be used: {}",
            report.read,
            reasons.join("; ")
        ))
        .hint(format!("look at {}", list_names(&first))));
    }
    Ok(Prepared { examples, report })
}
