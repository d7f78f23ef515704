//! GridWorld: from one corner of a 5 x 5 grid to the other, around three obstacles.
//!
//! The obstacles are not observed, so they stay where they are from episode to episode, in all environments of a vector:
//! they follow from the seed of its reset, or from `layout_seed`.

use super::{Direction, Grid};
use crate::rl::env::rng::Pcg64;
use crate::rl::env::tabular::{Outcome, Tabular};

const GRID: Grid = Grid { rows: 5, columns: 5 };
const START: u32 = 0;
const GOAL: u32 = 24;
const OBSTACLES: usize = 3;

const ACTIONS: [Direction; 4] = [Direction::Up, Direction::Right, Direction::Down, Direction::Left];

/// The grid of a seed
pub(crate) fn model(seed: u64) -> Tabular {
    let obstacles = layout(seed);
    let mut initial = vec![0.0; GRID.len()];
    initial[START as usize] = 1.0;
    Tabular::new(&initial, 4, |state, action| {
        let next_state = towards(state, ACTIONS[action as usize], &obstacles);
        let terminated = next_state == GOAL;
        let reward = if terminated { 1.0 } else { -0.01 };
        [Outcome { probability: 1.0, next_state, reward, terminated }]
    })
}

/// The next cell: an obstacle stops the move as the border does
fn towards(cell: u32, direction: Direction, obstacles: &[u32]) -> u32 {
    let next = GRID.neighbour(cell, direction);
    if obstacles.contains(&next) { cell } else { next }
}

/// Three cells that leave a way; drawn until they do
fn layout(seed: u64) -> [u32; OBSTACLES] {
    let mut rng = Pcg64::new(u128::from(seed));
    loop {
        let obstacles = [(); OBSTACLES].map(|()| rng.integers(i64::from(START) + 1, i64::from(GOAL)) as u32);
        let distinct = (1..OBSTACLES).all(|i| !obstacles[..i].contains(&obstacles[i]));
        if distinct && is_solvable(&obstacles) {
            return obstacles;
        }
    }
}

fn is_solvable(obstacles: &[u32]) -> bool {
    let mut reached = [false; GRID.rows as usize * GRID.columns as usize];
    let mut frontier = vec![START];
    while let Some(cell) = frontier.pop() {
        if !std::mem::replace(&mut reached[cell as usize], true) {
            frontier.extend(ACTIONS.map(|direction| towards(cell, direction, obstacles)));
        }
    }
    reached[GOAL as usize]
}
