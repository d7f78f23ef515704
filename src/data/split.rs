//! `train`, `train[:10%]`, `train+test[100:]`: splits and parts of them, as `datasets.load_dataset` reads them.

use std::ops::Range;

use crate::error::{Error, Result};

/// A split, or a run of its rows
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SplitPart {
    /// The split
    pub name: String,
    from: Bound,
    to: Bound,
}

const FIRST: Bound = Bound::Percent(0);
const LAST: Bound = Bound::Percent(100);

/// Where a run begins or ends
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Bound {
    /// Rows from the beginning; below 0, from the end
    Row(i64),
    /// Percent of all rows, to the nearest row; below 0, from the end
    Percent(i64),
}

/// The parts of which rows are asked for, in this order
pub(super) fn parse(text: &str) -> Result<Vec<SplitPart>> {
    let parts: Option<Vec<_>> = text.split('+').map(|part| parse_part(part.trim())).collect();
    parts.ok_or_else(|| {
        Error::usage(format!("`{text}` is neither a split nor a part of one"))
            .hint("for example `train`, `train[:1000]`, `train[10%:20%]`, `train+test`")
    })
}

/// The splits that `text` names
pub fn split_names(text: &str) -> Result<Vec<String>> {
    Ok(parse(text)?.into_iter().map(|part| part.name).collect())
}

fn parse_part(text: &str) -> Option<SplitPart> {
    let Some((name, range)) = text.split_once('[') else {
        let plain = !text.is_empty() && !text.contains(']');
        return plain.then(|| SplitPart { name: text.to_owned(), from: FIRST, to: LAST });
    };
    let (from, to) = range.strip_suffix(']')?.split_once(':')?;
    let name = name.trim_end();
    (!name.is_empty()).then_some(())?;
    Some(SplitPart { name: name.to_owned(), from: bound(from, FIRST)?, to: bound(to, LAST)? })
}

/// A bound, or `otherwise` where nothing stands; `None` for what is no bound
fn bound(text: &str, otherwise: Bound) -> Option<Bound> {
    match text.trim() {
        "" => Some(otherwise),
        text => match text.strip_suffix('%') {
            Some(percent) => percent.parse().ok().filter(|p| (-100..=100).contains(p)).map(Bound::Percent),
            None => text.parse().ok().map(Bound::Row),
        },
    }
}

impl SplitPart {
    /// Whether this is the whole split
    pub fn is_whole(&self) -> bool {
        self.from == FIRST && self.to == LAST
    }

    /// Which of `rows` rows are meant
    pub fn range(&self, rows: usize) -> Result<Range<usize>> {
        let outside = |number: i64| {
            let message = format!("`{}` has {rows} rows, and the part asked for begins or ends at {number}", self.name);
            Error::usage(message).hint("a part is FROM:TO in rows, or in percent such as `[:10%]`")
        };
        let place = |bound: Bound| -> Result<usize> {
            let number = match bound {
                Bound::Row(number) => number,
                Bound::Percent(percent) => (percent as f64 * rows as f64 / 100.0).round_ties_even() as i64,
            };
            let place = if number < 0 { rows as i64 + number } else { number };
            usize::try_from(place).ok().filter(|place| *place <= rows).ok_or_else(|| outside(number))
        };
        let range = place(self.from)?..place(self.to)?;
        if range.is_empty() {
            return Err(Error::usage(format!(
                "the part of `{}` that is asked for holds none of its {rows} rows",
                self.name
            )));
        }
        Ok(range)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ranges(text: &str, rows: usize) -> Vec<(String, Range<usize>)> {
        parse(text).unwrap().into_iter().map(|part| (part.name.clone(), part.range(rows).unwrap())).collect()
    }

    // Ranges are those of `datasets.ReadInstruction.from_spec(..).to_absolute` 5.0
    #[test]
    fn parts_are_those_of_datasets() {
        let cases = [
            ("train", 10, 0..10),
            ("train[:3]", 10, 0..3),
            ("train[-3:]", 10, 7..10),
            ("train[2:-2]", 10, 2..8),
            ("train[:50%]", 9, 0..4),
            ("train[50%:]", 9, 4..9),
            ("train[10%:20%]", 1234, 123..247),
            ("train[-10%:]", 25, 23..25),
            ("train[ 1 : 2 ]", 5, 1..2),
        ];
        for (text, rows, expected) in cases {
            assert_eq!(ranges(text, rows), [("train".to_owned(), expected)], "{text}");
        }
        assert_eq!(ranges("train[:1]+test", 4), [("train".to_owned(), 0..1), ("test".to_owned(), 0..4)]);
    }

    #[test]
    fn what_is_no_part_is_refused() {
        for text in ["train[", "train[3]", "[:3]", "train[:x]", "train[:101%]", "train+", "train]"] {
            assert!(parse(text).unwrap_err().message().contains(text), "{text}");
        }
        for text in ["train[:11]", "train[-11:]", "train[5:5]", "train[6:3]"] {
            assert!(parse(text).unwrap()[0].range(10).is_err(), "{text}");
        }
    }
}
