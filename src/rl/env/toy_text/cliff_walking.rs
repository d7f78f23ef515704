//! CliffWalking: Sutton & Barto's example 6.6, along a cliff from the lower left corner to the lower right one.

use super::{Direction, Grid};
use crate::error::Result;
use crate::rl::env::kwargs::KwargReader;
use crate::rl::env::tabular::{Outcome, Tabular};

const GRID: Grid = Grid { rows: 4, columns: 12 };
const START: u32 = 36;
const GOAL: u32 = 47;

/// Actions 0 to 3; those beside an action are the two to slip into
const ACTIONS: [Direction; 4] = [Direction::Up, Direction::Right, Direction::Down, Direction::Left];

/// With `is_slippery` as the id has it
pub(crate) fn model(kwargs: &mut KwargReader<'_>, is_slippery: bool) -> Result<Tabular> {
    let is_slippery = kwargs.bool("is_slippery", is_slippery)?;
    let mut initial = vec![0.0; GRID.len()];
    initial[START as usize] = 1.0;
    Ok(Tabular::new(&initial, 4, |state, action| {
        let moves = if is_slippery { vec![action + 3, action, action + 1] } else { vec![action] };
        let probability = 1.0 / moves.len() as f64;
        moves.into_iter().map(move |action| {
            let reached = GRID.neighbour(state, ACTIONS[(action % 4) as usize]);
            // A fall costs, but does not end the episode
            let (next_state, reward) =
                if (START + 1..GOAL).contains(&reached) { (START, -100.0) } else { (reached, -1.0) };
            Outcome { probability, next_state, reward, terminated: next_state == GOAL }
        })
    }))
}
