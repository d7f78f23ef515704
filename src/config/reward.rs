//! The keys of reward modelling.

use super::config_keys;
use super::keys::Range;
use crate::Result;

config_keys! {
    /// The keys of reward modelling
    pub struct RewardKeys {
        "Reward modelling" {
            /// Weight of the squared sum of a pair's rewards, which keeps rewards near zero; 0.01 is usual
            center_rewards_coefficient: Option<f64> = None, Range::at_least(0.0);
            /// Token that ends a text; the tokenizer's own where not set
            eos_token: Option<String> = None;
            /// Chat template: a Jinja file, or the folder or id of a tokenizer that has one
            chat_template_path: Option<String> = None;
            /// Pairs that give the mean and standard deviation of the scores, stored with the final model: the first
            /// held-out rows, or training rows where there are none; 0 stores none
            reward_statistics_rows: usize = 256;
        }
    }
}

impl RewardKeys {
    #[expect(clippy::unused_self, clippy::unnecessary_wraps, reason = "no two of these keys exclude each other")]
    fn check(&self) -> Result<()> {
        Ok(())
    }
}
