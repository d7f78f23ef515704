//! The keys of the comparison on the enumerable token problem.

use super::config_keys;
use super::keys::Range;
use crate::{Error, Result};

config_keys! {
    /// The keys of the comparison on the enumerable token problem
    pub struct TokenProblemKeys {
        "Comparison" {
            /// Runs of each method, each on an instance of its own; the same instances for all
            seeds: usize = 20, Range::at_least(1.0);
            /// Seed of the first instance
            first_seed: u64 = 0;
            /// Prompts of an instance
            prompts: usize = 768, Range::within(16.0, 4096.0);
            /// Reward queries of a run
            queries: usize = 4096, Range::within(512.0, 1_000_000.0);
            /// Methods; all where not set
            methods: Option<Vec<String>> = None;
            /// Folder of the results
            output_dir: String = String::new();
            /// Replace the results that `output_dir` holds
            overwrite_output_dir: bool = false;
        }
        "Tuning" {
            /// Learning rates that are tried for each method and kind of prompts
            learning_rates: Vec<f64> = vec![0.02, 0.04, 0.08, 0.16], Range::above(0.0);
            /// Instances on which they are tried, none of which is compared on
            tuning_seeds: usize = 4, Range::at_least(1.0);
            /// Reward queries after which the rate with the largest mean score is taken
            tuning_queries: usize = 1024, Range::within(512.0, 1_000_000.0);
        }
        "Uncertainty" {
            /// Instances on which the field's doubt is judged; 0 for none
            calibration_seeds: usize = 20;
            /// Reward queries before it is asked
            calibration_queries: usize = 2048, Range::at_least(512.0);
        }
    }
}

impl TokenProblemKeys {
    fn check(&self) -> Result<()> {
        if self.output_dir.is_empty() {
            return Err(Error::usage("`output_dir` is not set").hint("for example `--output_dir runs/token_problem`"));
        }
        if self.learning_rates.is_empty() {
            return Err(Error::usage("`learning_rates` must hold at least one rate"));
        }
        Ok(())
    }
}
