//! FrozenLake: across the ice to the goal; it is slippery, and there are holes.

use serde_json::Value;

use super::{Direction, Grid};
use crate::error::Result;
use crate::rl::env::kwargs::KwargReader;
use crate::rl::env::tabular::{Outcome, Tabular};

const SMALL: &[&str] = &["SFFF", "FHFH", "FFFH", "HFFG"];
const LARGE: &[&str] =
    &["SFFFFFFF", "FFFFFFFF", "FFFHFFFF", "FFFFFHFF", "FFFHFFFF", "FHHFFFHF", "FHFFHFHF", "FFFHFFFG"];

/// Actions 0 to 3; those beside an action are the two to slip into
const ACTIONS: [Direction; 4] = [Direction::Left, Direction::Down, Direction::Right, Direction::Up];

/// With `map_name` as the map that the id stands for
pub(crate) fn model(kwargs: &mut KwargReader<'_>, map_name: &'static str) -> Result<Tabular> {
    let named = kwargs.take("map_name", map_name, "`4x4` or `8x8`", |value| match value.as_str()? {
        "4x4" => Some("4x4"),
        "8x8" => Some("8x8"),
        _ => None,
    })?;
    let named = if named == "4x4" { SMALL } else { LARGE }.iter().map(|row| (*row).to_owned()).collect();
    let map = kwargs.take("desc", named, "a list of equally long texts of S, F, H and G, with an S", map)?;
    let is_slippery = kwargs.bool("is_slippery", true)?;
    let success_rate = kwargs.probability("success_rate", 1.0 / 3.0)?;
    Ok(table(&map, is_slippery.then_some(success_rate)))
}

/// The rows of a map, if they are one
fn map(value: &Value) -> Option<Vec<String>> {
    let rows: Option<Vec<String>> = value.as_array()?.iter().map(|row| row.as_str().map(str::to_owned)).collect();
    let rows = rows?;
    let good = |row: &String| row.len() == rows[0].len() && row.bytes().all(|letter| b"SFHG".contains(&letter));
    (rows.iter().all(good) && rows.iter().any(|row| row.contains('S'))).then_some(rows)
}

/// `success_rate` is the probability of going where one wanted; `None` where the ice is not slippery
fn table(map: &[String], success_rate: Option<f64>) -> Tabular {
    let grid = Grid { rows: map.len() as u32, columns: map[0].len() as u32 };
    let letters: Vec<u8> = map.iter().flat_map(|row| row.bytes()).collect();
    let letter = |cell: u32| letters[cell as usize];
    let initial: Vec<f64> = letters.iter().map(|letter| f64::from(u8::from(*letter == b'S'))).collect();
    Tabular::new(&initial, 4, |state, action| {
        if matches!(letter(state), b'G' | b'H') {
            return vec![Outcome { probability: 1.0, next_state: state, reward: 0.0, terminated: true }];
        }
        let towards = |action: u32, probability| {
            let next_state = grid.neighbour(state, ACTIONS[(action % 4) as usize]);
            let reward = f64::from(u8::from(letter(next_state) == b'G'));
            Outcome { probability, next_state, reward, terminated: matches!(letter(next_state), b'G' | b'H') }
        };
        let Some(success) = success_rate else { return vec![towards(action, 1.0)] };
        let slip = (1.0 - success) / 2.0;
        vec![towards(action + 3, slip), towards(action, success), towards(action + 1, slip)]
    })
}
