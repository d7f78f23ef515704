//! Sequences laid end to end for scoring, what neighbours begin with laid down once.

use std::ops::Range;
use std::sync::Arc;

use crate::Result;
use crate::ops::Ragged;

/// Tokens of one forward pass; a longer family of sequences makes a pass of its own
const PASS: usize = 8192;

/// Sequences end to end, a beginning that neighbours share once
pub(super) struct Packed {
    /// Token ids, (N,)
    pub ids: Vec<u32>,
    /// Where sequences begin and end
    pub layout: Arc<Ragged>,
    /// The row of each sequence's last token
    pub last_rows: Vec<u32>,
}

impl Packed {
    /// Of sequences that have a token each
    pub fn new(sequences: &[&[u32]]) -> Result<Self> {
        let (mut ids, mut layout) = (Vec::new(), Ragged::new());
        let mut last_rows = Vec::with_capacity(sequences.len());
        for Family { start, end, shared } in families(sequences) {
            let mut prefix = None;
            if shared > 0 {
                ids.extend_from_slice(&sequences[start][..shared]);
                prefix = Some(layout.push(shared, None)?);
            }
            for sequence in &sequences[start..end] {
                ids.extend_from_slice(&sequence[shared..]);
                layout.push(sequence.len() - shared, prefix)?;
                last_rows.push((layout.rows() - 1) as u32);
            }
        }
        Ok(Self { ids, layout: Arc::new(layout), last_rows })
    }
}

/// Consecutive sequences start..end whose first `shared` tokens are the same
#[derive(Debug, PartialEq)]
struct Family {
    start: usize,
    end: usize,
    shared: usize,
}

impl Family {
    /// Tokens that sharing saves
    fn saved(&self) -> usize {
        (self.end - self.start - 1) * self.shared
    }

    /// Rows of a pass with the whole family
    fn rows(&self, sequences: &[&[u32]]) -> usize {
        sequences[self.start..self.end].iter().map(|ids| ids.len()).sum::<usize>() - self.saved()
    }
}

/// Puts each sequence into the family before it where that saves more tokens than it costs the others
fn families(sequences: &[&[u32]]) -> Vec<Family> {
    let mut families: Vec<Family> = Vec::new();
    for (i, ids) in sequences.iter().enumerate() {
        if let Some(family) = families.last_mut() {
            let first = sequences[family.start];
            // Each sequence keeps its last token to itself: that is where it is scored
            let common = first.iter().zip(ids.iter()).take_while(|(a, b)| a == b).count();
            let room = first.len().min(ids.len()) - 1;
            let alone = family.end - family.start == 1;
            let shared = common.min(room).min(if alone { usize::MAX } else { family.shared });
            let joined = Family { start: family.start, end: i + 1, shared };
            if joined.saved() > family.saved() && joined.rows(sequences) <= PASS {
                *family = joined;
                continue;
            }
        }
        families.push(Family { start: i, end: i + 1, shared: 0 });
    }
    families
}

/// Ranges of sequences for one forward pass each, families kept whole
pub(super) fn passes(sequences: &[&[u32]]) -> Vec<Range<usize>> {
    let mut passes: Vec<Range<usize>> = Vec::new();
    let mut rows = 0;
    for family in families(sequences) {
        let more = family.rows(sequences);
        match passes.last_mut() {
            Some(pass) if rows + more <= PASS => {
                pass.end = family.end;
                rows += more;
            }
            _ => {
                passes.push(family.start..family.end);
                rows = more;
            }
        }
    }
    passes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_share_a_beginning_where_that_saves_tokens() {
        let share =
            |sequences: &[&[u32]]| families(sequences).iter().map(|f| (f.start, f.end, f.shared)).collect::<Vec<_>>();
        assert_eq!(share(&[&[1, 2, 3], &[1, 2, 4], &[5]]), [(0, 2, 2), (2, 3, 0)]);
        // The third shares one token with the first two, which share three: together they would save less
        assert_eq!(share(&[&[1, 2, 3, 4], &[1, 2, 3, 5], &[1, 9]]), [(0, 2, 3), (2, 3, 0)]);
        assert_eq!(share(&[&[1, 2, 3, 4], &[1, 2, 3, 5], &[1, 2, 9]]), [(0, 3, 2)]);
        // Equal sequences and beginnings of each other keep a last token each
        assert_eq!(share(&[&[1, 2], &[1, 2], &[1, 2, 3]]), [(0, 3, 1)]);
        let packed = Packed::new(&[&[1, 2, 3], &[1, 2, 4], &[5]]).unwrap();
        assert_eq!((packed.ids, packed.last_rows), (vec![1, 2, 3, 4, 5], vec![2, 3, 4]));
    }

    #[test]
    fn a_pass_takes_families_whole_and_has_a_bound() {
        let long = vec![1; PASS];
        let short: &[u32] = &[2, 3];
        assert_eq!(passes(&[short, short, &long, short, short]), [0..2, 2..3, 3..5]);
        let other = [vec![1; PASS / 2], vec![4]].concat();
        assert_eq!(passes(&[&long, &other]), [0..1, 1..2]);
    }
}
