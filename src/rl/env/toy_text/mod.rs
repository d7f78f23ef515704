//! Gymnasium's toy-text environments, and a small grid world: each is a table, built from a map.

pub(super) mod cliff_walking;
pub(super) mod frozen_lake;
pub(super) mod grid_world;
pub(super) mod taxi;

/// A cell and its neighbours in a grid of `rows` by `columns`, numbered row by row
#[derive(Debug, Clone, Copy)]
struct Grid {
    rows: u32,
    columns: u32,
}

/// A move in a grid
#[derive(Debug, Clone, Copy, PartialEq)]
enum Direction {
    Up,
    Right,
    Down,
    Left,
}

impl Grid {
    fn len(self) -> usize {
        (self.rows * self.columns) as usize
    }

    fn cell(self, row: u32, column: u32) -> u32 {
        row * self.columns + column
    }

    fn place(self, cell: u32) -> (u32, u32) {
        (cell / self.columns, cell % self.columns)
    }

    /// The neighbour, or the cell itself at the border
    fn neighbour(self, cell: u32, direction: Direction) -> u32 {
        let (row, column) = self.place(cell);
        match direction {
            Direction::Up => self.cell(row.saturating_sub(1), column),
            Direction::Right => self.cell(row, (column + 1).min(self.columns - 1)),
            Direction::Down => self.cell((row + 1).min(self.rows - 1), column),
            Direction::Left => self.cell(row, column.saturating_sub(1)),
        }
    }
}
