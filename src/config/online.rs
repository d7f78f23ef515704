//! The keys that every online trainer has: what is generated, and what judges it.

use super::config_keys;
use super::keys::Range;
use crate::{Error, Result};

config_keys! {
    /// The keys of generation and rewards
    pub struct OnlineKeys {
        "Generation" {
            /// Completions of each prompt
            num_generations: usize = 8, Range::at_least(1.0);
            /// Completions of each prompt in evaluation; num_generations where not set
            num_generations_eval: Option<usize> = None, Range::at_least(1.0);
            /// Most tokens of a completion, the end-of-text token included
            max_completion_length: usize = 512, Range::at_least(1.0);
            /// Divides the logits, in sampling and in training alike
            temperature: f64 = 1.0, Range::above(0.0);
            /// Keep the likeliest tokens until their probability reaches this; 1 keeps all
            top_p: f64 = 1.0, Range::within(0.0, 1.0);
            /// Keep this many of the likeliest tokens; 0 keeps all
            top_k: usize = 0;
            /// Keep tokens of at least this share of the likeliest one's probability
            min_p: Option<f64> = None, Range::within(0.0, 1.0);
            /// Divides positive and multiplies negative logits of tokens that occurred
            repetition_penalty: f64 = 1.0, Range::above(0.0);
            /// Further tokens that end a completion, by text or id
            stop_tokens: Vec<String> = Vec::new();
            /// Draw the prompts in random order
            shuffle_dataset: bool = true;
            /// Take completions (and rewards) from this file in place of sampling
            replay_completions: Option<String> = None;
        }
        "Rewards" {
            /// What judges completions: reward models, built-ins, `command:PROGRAM`, `http://…`
            reward_funcs: Vec<String> = Vec::new();
            /// Weights of the rewards; 1 each where not set
            reward_weights: Option<Vec<f64>> = None;
            /// A reward model, added to reward_funcs
            reward_model_name_or_path: Option<String> = None;
            /// Scores of reward models minus their mean, by their standard deviation, where the model keeps these
            normalize_reward_model: bool = false;
            /// Longest wait for a program or server, in seconds
            reward_timeout: f64 = 300.0, Range::above(0.0);
            /// Further attempts after a program or server failed
            reward_retries: usize = 2;
            /// Write each logged step's completions to `completions/`
            log_completions: bool = false;
        }
    }
}

impl OnlineKeys {
    fn check(&self) -> Result<()> {
        if self.reward_funcs.is_empty() && self.reward_model_name_or_path.is_none() && self.replay_completions.is_none()
        {
            return Err(Error::usage("no reward: set `reward_funcs` or `reward_model_name_or_path`")
                .hint("`collimate doctor --rewards` lists what there is"));
        }
        Ok(())
    }

    /// All rewards as `reward_funcs` would name them
    pub fn rewards(&self) -> Vec<String> {
        self.reward_funcs.iter().chain(&self.reward_model_name_or_path).cloned().collect()
    }
}
