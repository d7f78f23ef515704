//! Packing: several texts in one row of a batch, as TRL 1.16's `pack_dataset` puts them together.
//!
//! A packed row is a list of sequences that never see each other; only `wrapped` joins texts into one. Rows are packed in
//! blocks of 1000, as the reference's `datasets` hands them over.

use std::collections::{BTreeMap, VecDeque};

use super::tokenize::LmExample;

const BLOCK: usize = 1000;

/// How texts are put together
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Packing {
    /// Best fit, longest first; what is longer than a row is cut off
    BestFit,
    /// Best fit, longest first; what is longer than a row becomes several sequences
    BestFitSplit,
    /// One stream of tokens, cut into rows
    Wrapped,
}

/// Rows of at most `length` tokens, each of one or more sequences
pub fn pack(examples: &[LmExample], length: usize, packing: Packing) -> Vec<Vec<LmExample>> {
    let pack = |block: &[LmExample]| match packing {
        Packing::BestFit => best_fit(block.iter().map(|example| part(example, 0, length)).collect(), length),
        Packing::BestFitSplit => best_fit(block.iter().flat_map(|example| parts(example, length)).collect(), length),
        Packing::Wrapped => {
            let joined = block.iter().fold(LmExample { ids: Vec::new(), loss: Vec::new() }, |mut joined, example| {
                joined.ids.extend_from_slice(&example.ids);
                joined.loss.extend_from_slice(&example.loss);
                joined
            });
            parts(&joined, length).map(|row| vec![row]).collect()
        }
    };
    examples.chunks(BLOCK).flat_map(pack).collect()
}

fn part(example: &LmExample, start: usize, length: usize) -> LmExample {
    let end = example.ids.len().min(start + length);
    LmExample { ids: example.ids[start..end].to_vec(), loss: example.loss[start..end].to_vec() }
}

fn parts(example: &LmExample, length: usize) -> impl Iterator<Item = LmExample> {
    (0..example.ids.len()).step_by(length).map(move |start| part(example, start, length))
}

/// Best-fit decreasing: each sequence goes into the row with the least room that is enough, among equals into the one
/// that has had that room longest
fn best_fit(mut sequences: Vec<LmExample>, length: usize) -> Vec<Vec<LmExample>> {
    sequences.sort_by_key(|sequence| std::cmp::Reverse(sequence.ids.len()));
    let mut rows: Vec<Vec<LmExample>> = Vec::new();
    // Room → rows that have it
    let mut free: BTreeMap<usize, VecDeque<usize>> = BTreeMap::new();
    for sequence in sequences {
        let needed = sequence.ids.len();
        let found = free.range_mut(needed..).next().and_then(|(room, rows)| Some((*room, rows.pop_front()?)));
        let (room, row) = found.unwrap_or_else(|| {
            rows.push(Vec::new());
            (length, rows.len() - 1)
        });
        if free.get(&room).is_some_and(VecDeque::is_empty) {
            free.remove(&room);
        }
        rows[row].push(sequence);
        free.entry(room - needed).or_default().push_back(row);
    }
    rows
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Texts of these lengths; the ids of text i are 100·i and up
    fn texts(lengths: &[usize]) -> Vec<LmExample> {
        let text = |(i, &length): (usize, &usize)| LmExample {
            ids: (0..length as u32).map(|token| 100 * i as u32 + token).collect(),
            loss: (0..length).map(|token| token > 0).collect(),
        };
        lengths.iter().enumerate().map(text).collect()
    }

    fn ids(rows: &[Vec<LmExample>]) -> Vec<Vec<Vec<u32>>> {
        rows.iter().map(|row| row.iter().map(|sequence| sequence.ids.clone()).collect()).collect()
    }

    // The example of TRL's documentation
    #[test]
    fn rows_are_those_of_the_reference() {
        let texts = texts(&[5, 2, 3, 1]);
        let rows = pack(&texts, 4, Packing::BestFit);
        assert_eq!(ids(&rows), [vec![vec![0, 1, 2, 3]], vec![vec![200, 201, 202], vec![300]], vec![vec![100, 101]]]);
        let rows = pack(&texts, 4, Packing::BestFitSplit);
        let expected = [vec![vec![0, 1, 2, 3]], vec![vec![200, 201, 202], vec![4]], vec![vec![100, 101], vec![300]]];
        assert_eq!(ids(&rows), expected);
        let rows = pack(&texts, 4, Packing::Wrapped);
        assert_eq!(ids(&rows), [[[0, 1, 2, 3].to_vec()], [[4, 100, 101, 200].to_vec()], [[201, 202, 300].to_vec()]]);
        assert_eq!(rows[1][0].loss, [true, false, true, false]);
    }

    #[test]
    fn the_row_with_the_least_room_is_filled_first_and_the_oldest_among_equals() {
        let rows = pack(&texts(&[5, 5, 6, 1, 1, 4]), 8, Packing::BestFit);
        let lengths: Vec<Vec<usize>> =
            rows.iter().map(|row| row.iter().map(|sequence| sequence.ids.len()).collect()).collect();
        assert_eq!(lengths, [vec![6, 1, 1], vec![5], vec![5], vec![4]]);
        let rows = pack(&texts(&[5, 5, 3]), 8, Packing::BestFit);
        assert_eq!(rows[0][1].ids, [200, 201, 202]);
    }

    #[test]
    fn blocks_are_packed_apart_and_no_token_is_lost() {
        let lengths: Vec<usize> = (0..1300).map(|i| i * 7 % 23 + 1).collect();
        for packing in [Packing::BestFit, Packing::BestFitSplit, Packing::Wrapped] {
            let rows = pack(&texts(&lengths), 32, packing);
            let mut tokens: Vec<u32> = rows.iter().flatten().flat_map(|sequence| sequence.ids.clone()).collect();
            assert!(rows.iter().all(|row| row.iter().map(|sequence| sequence.ids.len()).sum::<usize>() <= 32));
            let first_block =
                rows.iter().position(|row| row.iter().any(|sequence| sequence.ids[0] >= 100_000)).unwrap();
            assert!(rows[first_block..].iter().flatten().all(|sequence| sequence.ids[0] >= 100_000));
            tokens.sort_unstable();
            let mut expected: Vec<u32> = texts(&lengths).into_iter().flat_map(|text| text.ids).collect();
            expected.sort_unstable();
            assert_eq!(tokens, expected);
        }
    }
}
