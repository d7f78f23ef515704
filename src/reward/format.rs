//! `format:think`: reasoning between tags, then the answer.

use super::text::PerSample;
use super::{Reward, Sample};

/// 1 where the text begins with `<think>`, which comes once, and `</think>` follows
pub(super) fn think(name: &'static str) -> Box<dyn Reward> {
    let function = |sample: &Sample<'_>| Ok(Some(f64::from(u8::from(is_think(&sample.completion_text())))));
    Box::new(PerSample { name, function })
}

fn is_think(text: &str) -> bool {
    text.strip_prefix("<think>").is_some_and(|rest| !rest.contains("<think>") && rest.contains("</think>"))
}
