//! Taxi: fetch a passenger at one of four places and bring them to another (Dietterich 2000).

use super::{Direction, Grid};
use crate::rl::env::tabular::{Outcome, Tabular};

const GRID: Grid = Grid { rows: 5, columns: 5 };

/// Red, green, yellow, blue
const PLACES: [u32; 4] = [0, 4, 20, 23];
/// The passenger's place while they ride
const IN_TAXI: u32 = 4;

/// The cells with a wall on their right
const WALLS: [u32; 6] = [1, 6, 15, 17, 20, 22];

/// Taxi's cell, passenger's place and destination, as one number
fn encode(taxi: u32, passenger: u32, destination: u32) -> u32 {
    (taxi * 5 + passenger) * 4 + destination
}

pub(crate) fn model() -> Tabular {
    let states = GRID.len() as u32 * 5 * 4;
    let initial: Vec<_> = (0..states)
        .map(|state| {
            let (passenger, destination) = (state / 4 % 5, state % 4);
            f64::from(u8::from(passenger != IN_TAXI && passenger != destination))
        })
        .collect();
    Tabular::new(&initial, 6, |state, action| [follow(state, action)])
}

fn follow(state: u32, action: u32) -> Outcome {
    let (taxi, passenger, destination) = (state / 20, state / 4 % 5, state % 4);
    let place = PLACES.iter().position(|place| *place == taxi).map(|place| place as u32);
    let driven = |direction| {
        let wall = match direction {
            Direction::Right => WALLS.contains(&taxi),
            Direction::Left => taxi % 5 > 0 && WALLS.contains(&(taxi - 1)),
            Direction::Up | Direction::Down => false,
        };
        let taxi = if wall { taxi } else { GRID.neighbour(taxi, direction) };
        (taxi, passenger, -1.0, false)
    };
    let (taxi, passenger, reward, terminated) = match (action, place) {
        (0, _) => driven(Direction::Down),
        (1, _) => driven(Direction::Up),
        (2, _) => driven(Direction::Right),
        (3, _) => driven(Direction::Left),
        (4, Some(place)) if place == passenger => (taxi, IN_TAXI, -1.0, false),
        (5, Some(place)) if passenger == IN_TAXI && place == destination => (taxi, place, 20.0, true),
        // Set down at another of the places
        (5, Some(place)) if passenger == IN_TAXI => (taxi, place, -1.0, false),
        _ => (taxi, passenger, -10.0, false),
    };
    Outcome { probability: 1.0, next_state: encode(taxi, passenger, destination), reward, terminated }
}
