//! What a worker says of its environments when they are made.

use serde::Deserialize;

use super::frame::PROTOCOL;
use crate::rl::env::{BoxSpace, Space};

/// What stands in the JSON of a hello
#[derive(Debug, Deserialize)]
struct About {
    python: String,
    gymnasium: String,
    max_episode_steps: Option<u32>,
    reward_threshold: Option<f64>,
    observation: AboutSpace,
    action: AboutSpace,
}

#[derive(Debug, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
enum AboutSpace {
    Discrete {
        n: u32,
    },
    Box {
        shape: Vec<usize>,
        /// Bytes from 0 to 255, which become numbers from 0 to 1
        image: bool,
    },
}

/// The environments of a worker
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Hello {
    pub(super) python: String,
    pub(super) gymnasium: String,
    pub(super) max_episode_steps: Option<u32>,
    pub(super) reward_threshold: Option<f64>,
    pub(super) observation_space: Space,
    pub(super) action_space: Space,
    /// Whether observations come as bytes
    pub(super) is_image: bool,
}

impl Hello {
    /// Reads the payload; what is wrong with it goes on from «the worker …»
    pub(super) fn parse(payload: &[u8]) -> Result<Self, String> {
        let (version, rest) = payload.split_first().ok_or("said nothing in its hello")?;
        if *version != PROTOCOL {
            return Err(format!("speaks version {version} of the protocol, and this program version {PROTOCOL}"));
        }
        let cut = || "sent a hello that is cut off".to_owned();
        let (length, rest) = rest.split_first_chunk::<4>().ok_or_else(cut)?;
        let (json, bounds) = rest.split_at_checked(u32::from_le_bytes(*length) as usize).ok_or_else(cut)?;
        let about: About = serde_json::from_slice(json).map_err(|cause| format!("sent a hello with {cause}"))?;
        let (bounds, rest) = bounds.as_chunks::<4>();
        if !rest.is_empty() {
            return Err(cut());
        }
        let bounds: Vec<f32> = bounds.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
        let mut bounds = bounds.as_slice();
        let is_image = matches!(about.observation, AboutSpace::Box { image: true, .. });
        let observation_space = space(about.observation, &mut bounds)?;
        let action_space = space(about.action, &mut bounds)?;
        if !bounds.is_empty() {
            return Err(format!("sent {} bounds more than its spaces have", bounds.len()));
        }
        if let Space::Box(BoxSpace { low, high, .. }) = &action_space
            && let Some(at) = low.iter().zip(high).position(|(low, high)| low.is_nan() || high.is_nan() || low > high)
        {
            return Err(format!("has actions from {} to {}", low[at], high[at]));
        }
        let About { python, gymnasium, max_episode_steps, reward_threshold, .. } = about;
        Ok(Self { python, gymnasium, max_episode_steps, reward_threshold, observation_space, action_space, is_image })
    }
}

/// A space; its bounds are taken from the front of those that are left
fn space(about: AboutSpace, bounds: &mut &[f32]) -> Result<Space, String> {
    let (shape, image) = match about {
        AboutSpace::Discrete { n: 0 } => return Err("has a discrete space without elements".to_owned()),
        AboutSpace::Discrete { n } => return Ok(Space::Discrete { n }),
        AboutSpace::Box { shape, image } => (shape, image),
    };
    let size = shape.iter().try_fold(1_usize, |size, side| size.checked_mul(*side));
    let size = size.filter(|size| (1..1 << 28).contains(size)).ok_or_else(|| format!("has a box of {shape:?}"))?;
    if image {
        return Ok(Space::Box(BoxSpace { shape, low: vec![0.0; size], high: vec![1.0; size] }));
    }
    let mut take = || {
        let (taken, rest) = bounds.split_at_checked(size).ok_or("sent fewer bounds than its spaces have")?;
        *bounds = rest;
        Ok::<_, String>(taken.to_vec())
    };
    Ok(Space::Box(BoxSpace { low: take()?, high: take()?, shape }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn payload(observation: &str, action: &str, bounds: &[f32]) -> Vec<u8> {
        let json = format!(
            r#"{{"python": "3", "gymnasium": "1", "max_episode_steps": 7, "reward_threshold": null,
                "observation": {observation}, "action": {action}}}"#
        );
        let mut payload = vec![PROTOCOL];
        payload.extend((json.len() as u32).to_le_bytes());
        payload.extend(json.as_bytes());
        payload.extend(bounds.iter().flat_map(|bound| bound.to_le_bytes()));
        payload
    }

    const TWO: &str = r#"{"kind": "box", "shape": [2], "image": false}"#;
    const DISCRETE: &str = r#"{"kind": "discrete", "n": 3}"#;

    #[test]
    fn spaces_come_with_their_bounds() {
        let hello = Hello::parse(&payload(TWO, TWO, &[-1.0, -2.0, 1.0, 2.0, -3.0, -3.0, 3.0, 4.0])).unwrap();
        let Space::Box(actions) = hello.action_space else { panic!("actions are a box") };
        assert_eq!((actions.low, actions.high), (vec![-3.0; 2], vec![3.0, 4.0]));
        let image = r#"{"kind": "box", "shape": [4, 8, 8], "image": true}"#;
        let hello = Hello::parse(&payload(image, DISCRETE, &[])).unwrap();
        assert_eq!((hello.observation_space.len(), hello.is_image, hello.max_episode_steps), (256, true, Some(7)));
    }

    #[test]
    fn what_does_not_fit_is_told() {
        let mut old = payload(DISCRETE, DISCRETE, &[]);
        old[0] = 9;
        for (payload, expected) in [
            (old, "version 9 of the protocol"),
            (Vec::new(), "said nothing"),
            (payload(DISCRETE, DISCRETE, &[])[..20].to_vec(), "cut off"),
            (payload(DISCRETE, "{}", &[]), "missing field"),
            (payload(TWO, DISCRETE, &[0.0; 3]), "fewer bounds"),
            (payload(TWO, DISCRETE, &[0.0; 6]), "2 bounds more"),
            (payload(DISCRETE, TWO, &[0.0, 1.0, 1.0, 0.5]), "actions from 1 to 0.5"),
            (payload(DISCRETE, TWO, &[0.0, f32::NAN, 1.0, 0.5]), "actions from NaN"),
            (payload(r#"{"kind": "discrete", "n": 0}"#, DISCRETE, &[]), "without elements"),
            (payload(r#"{"kind": "box", "shape": [0], "image": true}"#, DISCRETE, &[]), "a box of [0]"),
        ] {
            let problem = Hello::parse(&payload).expect_err(expected);
            assert!(problem.contains(expected), "{problem}");
        }
    }
}
