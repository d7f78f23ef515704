//! Rewards of the completion's tokens, whatever they say.

use std::collections::BTreeSet;

use super::text::PerSample;
use super::{Reward, Sample};
use crate::{Error, Result};

pub(super) fn length() -> Box<dyn Reward> {
    Box::new(PerSample { name: "length", function: |sample: &Sample<'_>| Ok(Some(sample.completion_ids.len() as f64)) })
}

/// Eq. 13 of DAPO <https://arxiv.org/abs/2503.14476>: 0 up to `MAX − CACHE` tokens, then down to −1 at `MAX`
///
/// The defaults are those of TRL's command line.
pub(super) fn soft_overlong(arguments: Option<&str>) -> Result<Box<dyn Reward>> {
    let (max, cache) = match arguments {
        None => (1280, 256),
        Some(text) => pair::<i64, i64>(text, "MAX:CACHE")?,
    };
    if max < 1 || cache < 0 || cache > max {
        return Err(Error::usage(format!(
            "`get_soft_overlong_punishment:{max}:{cache}`: expected 0 ≤ CACHE ≤ MAX, MAX > 0"
        )));
    }
    let function = move |sample: &Sample<'_>| {
        let over = sample.completion_ids.len() as i64 - (max - cache);
        Ok(Some(match over {
            ..=0 => 0.0,
            _ if over <= cache => -(over as f64) / cache as f64,
            _ => -1.0,
        }))
    };
    Ok(Box::new(PerSample { name: "soft_overlong_punishment_reward", function }))
}

/// Share of repeated n-grams of tokens, times a penalty that is not positive <https://arxiv.org/abs/2502.03373>, C.2
pub(super) fn repetition(arguments: Option<&str>) -> Result<Box<dyn Reward>> {
    let (size, penalty) = match arguments {
        None => (3, -1.0),
        Some(text) => pair::<usize, f64>(text, "N:PENALTY")?,
    };
    if size == 0 || !penalty.is_finite() || penalty > 0.0 {
        return Err(Error::usage(format!(
            "`get_repetition_penalty_reward:{size}:{penalty}`: expected N ≥ 1, PENALTY ≤ 0"
        )));
    }
    let function = move |sample: &Sample<'_>| {
        let grams = sample.completion_ids.windows(size);
        let total = grams.len();
        let different = grams.collect::<BTreeSet<_>>().len();
        Ok(Some(if different == total { 0.0 } else { (1.0 - different as f64 / total as f64) * penalty }))
    };
    Ok(Box::new(PerSample { name: "repetition_penalty_reward", function }))
}

/// Right answers from 1 down to ½ over `max` tokens, wrong ones from −1 up to −½ <https://arxiv.org/abs/2502.03373>, C.1
pub(super) fn cosine(right: bool, tokens: usize, max: usize) -> f64 {
    let (low, high) = if right { (0.5, 1.0) } else { (-0.5, -1.0) };
    let progress = (tokens as f64 / max as f64).min(1.0);
    low + 0.5 * (high - low) * (1.0 + (progress * std::f64::consts::PI).cos())
}

fn pair<A: std::str::FromStr, B: std::str::FromStr>(text: &str, expected: &str) -> Result<(A, B)> {
    let both = text.split_once(':').and_then(|(a, b)| Some((a.trim().parse().ok()?, b.trim().parse().ok()?)));
    both.ok_or_else(|| {
        Error::usage(format!("expected the two numbers `{expected}` after the reward's name, got `{text}`"))
    })
}
