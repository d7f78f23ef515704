//! Statistics against published code.

use std::fs;
use std::path::Path;

use collimate::report::statistics::{
    Bootstrap, Estimate, Scores, iqm, mean, median, optimality_gap, performance_profile, probability_of_improvement,
};
use serde_json::Value;

fn golden() -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/goldens/report/statistics.json");
    serde_json::from_slice(&fs::read(path).expect("the golden is there")).expect("JSON")
}

fn numbers(value: &Value) -> Vec<f64> {
    value.as_array().expect("a list").iter().map(|x| x.as_f64().expect("a number")).collect()
}

fn scores(table: &Value) -> Scores {
    Scores::new(table["tasks"].as_array().expect("tasks").iter().map(numbers).collect()).expect("scores")
}

#[track_caller]
fn assert_close(found: f64, expected: &Value, tolerance: f64, what: &str) {
    let expected = expected.as_f64().expect("a number");
    assert!((found - expected).abs() <= tolerance, "{what}: expected {expected}, found {found}");
}

/// Points to rounding, ends of the interval to what two bootstraps with different generators differ by
#[track_caller]
fn assert_estimate(found: Estimate, expected: &Value, noise: f64, what: &str) {
    assert_close(found.point, &expected["point"], 1e-12, what);
    assert_close(found.low, &expected["low"], noise, what);
    assert_close(found.high, &expected["high"], noise, what);
}

#[test]
fn aggregates_are_rliables() {
    let golden = golden();
    let target = golden["target"].as_f64().expect("a target");
    // The tests run unoptimised too: fewer resamples than by default, and a tolerance to match
    let bootstrap = Bootstrap { resamples: 20_000, ..Bootstrap::default() };
    for (name, table) in golden["tables"].as_object().expect("tables") {
        let scores = scores(table);
        let figures = |s: &Scores| vec![mean(s), median(s), iqm(s), optimality_gap(s, target)];
        let estimates = bootstrap.estimates(&scores, figures);
        for (figure, estimate) in ["mean", "median", "iqm", "optimality_gap"].into_iter().zip(estimates) {
            let width = estimate.high - estimate.low;
            assert!(width > 0.0, "{name}: {figure} has an empty interval");
            assert_estimate(estimate, &table[figure], 0.03 * width + 0.002, &format!("{name}: {figure}"));
        }
        let thresholds = numbers(&golden["thresholds"]);
        assert_eq!(performance_profile(&scores, &thresholds), numbers(&table["profile"]), "{name}");
    }
}

#[test]
fn the_probability_of_improvement_is_rliables() {
    let golden = golden();
    let (x, y) = (scores(&golden["tables"]["strong"]), scores(&golden["tables"]["weak"]));
    let bootstrap = Bootstrap { resamples: 2_000, ..Bootstrap::default() };
    let found = bootstrap.improvement(&x, &y).expect("the same tasks");
    assert_estimate(found, &golden["strong_over_weak"], 0.015, "strong over weak");
    let reverse = probability_of_improvement(&y, &x).expect("the same tasks");
    assert!((found.point + reverse - 1.0).abs() < 1e-12);
    let other = scores(&golden["tables"]["single_task"]);
    assert!(probability_of_improvement(&x, &other).unwrap_err().message().contains("found 5 and 1"));
}
