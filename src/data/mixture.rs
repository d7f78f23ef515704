//! Several datasets as one, and rows held out of one.

use std::path::PathBuf;

use super::reader::Dataset;
use super::record::{Row, list_names};
use super::sampler::{Sampler, Strategy};
use crate::error::{Error, Result};

/// One after the other, each as a share of the whole where `fraction` says so.
///
/// The shares are normalised. The whole is as large as it can be without a row being used twice: N = min n_i / w_i,
/// of which each dataset gives its first round(w_i N) rows, as TRL's `get_dataset` has it. `None` for all takes all rows.
///
/// # Errors
/// Shares for some and not for others, or all 0
pub fn mix(parts: Vec<(Dataset, Option<f64>)>) -> Result<Dataset> {
    let sum: f64 = parts.iter().filter_map(|(_, fraction)| *fraction).sum();
    let given = parts.iter().filter(|(_, fraction)| fraction.is_some()).count();
    if given > 0 && given < parts.len() {
        return Err(
            Error::usage("`datasets`: some have a `fraction` and some have none").hint("set it for all or for none")
        );
    }
    if given > 0 && sum <= 0.0 {
        return Err(Error::usage("`datasets`: every `fraction` is 0").hint("set one above 0"));
    }
    let weighted = parts.iter().filter_map(|(dataset, fraction)| Some((dataset.rows.len() as f64, (*fraction)? / sum)));
    let total =
        weighted.filter(|(_, weight)| *weight > 0.0).map(|(rows, weight)| rows / weight).fold(f64::INFINITY, f64::min);
    let names: Vec<String> = parts.iter().map(|(dataset, _)| dataset.path.display().to_string()).collect();
    let mut mixture =
        Dataset { path: PathBuf::from(names.join(" + ")), files: Vec::new(), columns: Vec::new(), rows: Vec::new() };
    for (mut dataset, fraction) in parts {
        if let Some(fraction) = fraction {
            // Python rounds halves to even
            dataset.rows.truncate((fraction / sum * total).round_ties_even() as usize);
        }
        tracing::info!("{} rows of `{}`", dataset.rows.len(), dataset.path.display());
        mixture.rows.append(&mut dataset.rows);
        mixture.files.append(&mut dataset.files);
        let new = dataset.columns.into_iter().filter(|name| !mixture.columns.contains(name)).collect::<Vec<_>>();
        mixture.columns.extend(new);
    }
    Ok(mixture)
}

impl Dataset {
    /// These columns alone; all where none is named
    ///
    /// # Errors
    /// One that no row has
    pub fn select_columns(mut self, names: &[String]) -> Result<Self> {
        if names.is_empty() {
            return Ok(self);
        }
        if let Some(name) = names.iter().find(|name| !self.columns.contains(name)) {
            let message =
                format!("`{}` has no column `{name}`, it has {}", self.path.display(), list_names(&self.columns));
            return Err(Error::usage(message).hint("`columns` of a dataset names those that are kept"));
        }
        self.columns.retain(|name| names.contains(name));
        for row in &mut self.rows {
            row.fields.retain(|name, _| names.contains(name));
        }
        Ok(self)
    }

    /// The rows that stay and those that are held out, both in their order. `size` is a number of rows, or below 1 their
    /// share, rounded up as in `datasets.train_test_split`; which ones is drawn by `seed`
    ///
    /// # Errors
    /// A size that leaves nothing on one side
    pub fn hold_out(self, size: f64, seed: u64) -> Result<[Self; 2]> {
        let rows = self.rows.len();
        let count = if size < 1.0 { (size * rows as f64).ceil() } else { size };
        if count.fract() != 0.0 || count >= rows as f64 {
            let message = format!("`test_split_size` is {size}, and `{}` has {rows} rows", self.path.display());
            return Err(Error::usage(message).hint("give a share below 1, or a whole number of rows"));
        }
        // An order that no epoch of a run uses
        let order = Sampler::new(Strategy::Random, &vec![1; rows], seed, 1).epoch(u64::MAX - 1);
        let mut held = vec![false; rows];
        order[..count as usize].iter().for_each(|&row| held[row] = true);
        let (mut train, mut test): (Vec<Row>, Vec<Row>) = (Vec::new(), Vec::new());
        for (row, held) in self.rows.into_iter().zip(held) {
            if held { test.push(row) } else { train.push(row) }
        }
        let with =
            |rows| Self { rows, path: self.path.clone(), files: self.files.clone(), columns: self.columns.clone() };
        Ok([with(train), with(test)])
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Map, Value};

    use super::super::record::Place;
    use super::*;

    fn dataset(name: &str, rows: usize) -> Dataset {
        let row = |line: usize| Row {
            fields: Map::from_iter([
                ("text".to_owned(), Value::from(format!("{name}{line}"))),
                (name.to_owned(), line.into()),
            ]),
            place: Place { file: name.into(), line },
        };
        Dataset {
            path: name.into(),
            files: vec![name.into()],
            columns: vec!["text".to_owned(), name.to_owned()],
            rows: (1..=rows).map(row).collect(),
        }
    }

    fn lines(dataset: &Dataset) -> Vec<String> {
        dataset.rows.iter().map(|row| row.place.to_string()).collect()
    }

    // Counts are those of trl.scripts.utils.get_dataset 1.16
    #[test]
    fn shares_are_normalised_and_no_row_is_used_twice() {
        let counts = |sizes: &[usize], fractions: &[f64]| {
            let parts = sizes.iter().zip(fractions).map(|(size, fraction)| (dataset("a", *size), Some(*fraction)));
            let mixed = mix(parts.collect()).unwrap();
            let starts: Vec<_> =
                mixed.rows.iter().enumerate().filter(|(_, row)| row.place.line == 1).map(|(i, _)| i).collect();
            let ends = starts.iter().skip(1).copied().chain([mixed.rows.len()]);
            starts.iter().zip(ends).map(|(start, end)| end - start).collect::<Vec<_>>()
        };
        assert_eq!(counts(&[10, 10], &[0.5, 0.5]), [10, 10]);
        assert_eq!(counts(&[100, 10], &[0.7, 0.3]), [23, 10]);
        assert_eq!(counts(&[7, 9], &[2.0, 1.0]), [7, 4]);
        assert_eq!(counts(&[5, 5], &[1.0, 0.0]), [5]);
        let all = mix(vec![(dataset("a", 2), None), (dataset("b", 3), None)]).unwrap();
        assert_eq!(lines(&all), ["a:1", "a:2", "b:1", "b:2", "b:3"]);
        assert_eq!(all.columns, ["text", "a", "b"]);
        assert_eq!(all.path, PathBuf::from("a + b"));
    }

    #[test]
    fn a_share_for_some_alone_is_refused() {
        let error = mix(vec![(dataset("a", 2), Some(0.5)), (dataset("b", 3), None)]).unwrap_err();
        assert!(error.message().contains("fraction"), "{error}");
        assert!(mix(vec![(dataset("a", 2), Some(0.0))]).is_err());
    }

    #[test]
    fn held_out_rows_are_a_share_or_a_number_drawn_by_the_seed() {
        let sizes = |size: f64| dataset("a", 10).hold_out(size, 1).map(|parts| parts.map(|part| part.rows.len())).ok();
        assert_eq!([sizes(0.25), sizes(3.0), sizes(0.01)], [Some([7, 3]), Some([7, 3]), Some([9, 1])]);
        assert_eq!([sizes(10.0), sizes(2.5), sizes(0.95)], [None; 3]);
        let [train, test] = dataset("a", 50).hold_out(0.2, 1).unwrap();
        assert_eq!(lines(&test), lines(&dataset("a", 50).hold_out(0.2, 1).unwrap()[1]));
        assert_ne!(lines(&test), lines(&dataset("a", 50).hold_out(0.2, 2).unwrap()[1]));
        let mut all: Vec<_> = train.rows.iter().chain(&test.rows).map(|row| row.place.line).collect();
        assert!(test.rows.is_sorted_by_key(|row| row.place.line));
        all.sort_unstable();
        assert_eq!(all, (1..=50).collect::<Vec<_>>());
    }

    #[test]
    fn columns_are_selected() {
        let kept = dataset("a", 2).select_columns(&["text".to_owned()]).unwrap();
        assert_eq!((kept.columns.len(), kept.rows[0].fields.len()), (1, 1));
        assert!(dataset("a", 2).select_columns(&["txt".to_owned()]).unwrap_err().message().contains("`txt`"));
    }
}
