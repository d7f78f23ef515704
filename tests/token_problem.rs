//! `collimate rl tokens`: it repeats to the byte, says no more than its runs allow, and refuses what makes no sense.

#[path = "common/training.rs"]
mod training;

use std::path::Path;

use training::{bytes, command, json, outcome, text};

const SMALL: [&str; 16] = [
    "--prompts",
    "48",
    "--queries",
    "512",
    "--seeds",
    "3",
    "--learning_rates",
    "0.08",
    "0.16",
    "--tuning_seeds",
    "1",
    "--tuning_queries",
    "512",
    "--calibration_seeds",
    "2",
    "--calibration_queries",
];

fn tokens(out: &Path, flags: &[&str]) -> training::Outcome {
    outcome(command(&[&["rl", "tokens", "--quiet", "--output_dir", text(out)], &SMALL[..], &["512"], flags].concat()))
}

#[test]
fn a_comparison_repeats_and_claims_nothing_from_three_runs() {
    let folder = tempfile::tempdir().unwrap();
    let methods = ["--methods", "ppo", "ppo_field", "tba", "grl", "grl_permuted", "grl_no_replay"];
    let (one, two) = (folder.path().join("one"), folder.path().join("two"));
    let first = tokens(&one, &methods);
    assert_eq!(first.code, Some(0), "{first:?}");
    let second = tokens(&two, &[&methods[..], &["--threads", "1"]].concat());
    assert_eq!(first.stdout, second.stdout);
    assert_eq!(bytes(&one.join("results.json")), bytes(&two.join("results.json")));
    assert_eq!(first.stdout.trim_end().as_bytes(), bytes(&one.join("results.md")).trim_ascii_end());

    let results = json(&one.join("results.json"));
    assert_eq!(results["cells"].as_array().unwrap().len(), 12);
    for cell in results["cells"].as_array().unwrap() {
        assert_eq!(cell["tried"].as_array().unwrap().len(), 2, "as many rates for each method");
        let queries: Vec<u64> =
            cell["runs"][0]["points"].as_array().unwrap().iter().map(|p| p["queries"].as_u64().unwrap()).collect();
        assert_eq!(queries, [64, 128, 256, 512]);
    }
    // 10 contrasts of 5 pairs of methods in 2 strata, and 3 seeds of the 20 that a claim needs
    assert_eq!(results["contrasts"].as_array().unwrap().len(), 10);
    for verdict in results["verdicts"].as_array().unwrap() {
        assert_ne!(verdict["answer"], "established", "{verdict}");
    }
    assert_ne!(results["uncertainty"]["verdict"]["answer"], "established");
    assert!(first.stdout.contains("3 seeds of 20 needed"), "{}", first.stdout);
    // Finished results are not lost by a second start
    assert_eq!(tokens(&one, &methods).code, Some(2));
}

#[test]
fn requests_that_make_no_sense_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    for (flags, reason) in [
        (&["--methods", "grll"][..], "did you mean `grl`?"),
        (&["--learning_rates", "0"], "`learning_rates` must be above 0"),
        (&["--queries", "100"], "`queries` must be at least 512"),
        (&["--sedes", "3"], "unknown key `sedes`"),
    ] {
        let outcome = tokens(folder.path(), flags);
        assert_eq!(outcome.code, Some(2), "{flags:?}: {outcome:?}");
        assert!(outcome.stderr.contains(reason), "{flags:?}: {}", outcome.stderr);
    }
}
