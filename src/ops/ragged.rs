//! How the rows of a flat (N, C) stream fall into sequences.

use candle_core::{Result, bail};

/// A run of consecutive rows that are one sequence, or the continuation of an earlier one
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// First row
    pub start: usize,
    /// Number of rows, at least 1
    pub len: usize,
    /// The segment that comes before this one in its sequence (a shared prompt), if any
    pub prefix: Option<usize>,
}

/// The layout of a ragged batch: real tokens only, laid end to end.
///
/// Several segments may continue the same prefix: a prompt that answers share is stored and computed once.
/// A prefix has no prefix itself. Attention stays inside a segment and its prefix; positions count from the
/// prefix's first token.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ragged {
    segments: Vec<Segment>,
    rows: usize,
}

impl Ragged {
    /// An empty batch
    pub fn new() -> Self {
        Self::default()
    }

    /// One segment for each length, none with a prefix
    pub fn from_lengths(lengths: impl IntoIterator<Item = usize>) -> Result<Self> {
        let mut ragged = Self::new();
        for len in lengths {
            ragged.push(len, None)?;
        }
        Ok(ragged)
    }

    /// Appends `len` rows that continue `prefix`; returns the segment's index
    pub fn push(&mut self, len: usize, prefix: Option<usize>) -> Result<usize> {
        if len == 0 {
            bail!("a segment of a ragged batch must have at least one row");
        }
        if let Some(p) = prefix
            && self.segments.get(p).is_none_or(|segment| segment.prefix.is_some())
        {
            bail!("segment {p} cannot be a prefix: it does not exist or has a prefix itself");
        }
        self.segments.push(Segment { start: self.rows, len, prefix });
        self.rows += len;
        Ok(self.segments.len() - 1)
    }

    /// The segments in order
    pub fn segments(&self) -> &[Segment] {
        &self.segments
    }

    /// Total rows N
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Rows before this segment in its sequence
    pub fn prefix_len(&self, segment: &Segment) -> usize {
        segment.prefix.map_or(0, |p| self.segments[p].len)
    }

    /// Longest sequence, prefix included
    pub fn max_len(&self) -> usize {
        self.segments.iter().map(|s| self.prefix_len(s) + s.len).max().unwrap_or(0)
    }

    /// Position of every row in its sequence, (N,)
    pub fn positions(&self) -> Vec<u32> {
        let mut positions = Vec::with_capacity(self.rows);
        for segment in &self.segments {
            let first = self.prefix_len(segment);
            positions.extend((first..first + segment.len).map(|p| p as u32));
        }
        positions
    }

    /// Groups of segments that share keys: a root with all that continue it. Groups touch disjoint rows.
    pub fn families(&self) -> Vec<Vec<usize>> {
        let mut families = Vec::new();
        let mut of_root = vec![usize::MAX; self.segments.len()];
        for (i, segment) in self.segments.iter().enumerate() {
            match segment.prefix {
                None => {
                    of_root[i] = families.len();
                    families.push(vec![i]);
                }
                Some(p) => families[of_root[p]].push(i),
            }
        }
        families
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_continue_a_shared_prefix() {
        let mut ragged = Ragged::new();
        let prompt = ragged.push(3, None).unwrap();
        ragged.push(2, Some(prompt)).unwrap();
        ragged.push(1, Some(prompt)).unwrap();
        ragged.push(2, None).unwrap();
        assert_eq!(ragged.positions(), [0, 1, 2, 3, 4, 3, 0, 1]);
        assert_eq!(ragged.families(), [vec![0, 1, 2], vec![3]]);
        assert_eq!((ragged.rows(), ragged.max_len()), (8, 5));
    }

    #[test]
    fn empty_segments_and_chains_are_refused() {
        let mut ragged = Ragged::new();
        assert!(ragged.push(0, None).is_err());
        assert!(ragged.push(1, Some(0)).is_err());
        let root = ragged.push(1, None).unwrap();
        let child = ragged.push(1, Some(root)).unwrap();
        assert!(ragged.push(1, Some(child)).is_err());
    }
}
