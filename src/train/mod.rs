//! Training recipes for language models: one file each, and the step loop that they share.
//!
//! A recipe names its keys ([`CommandSpec`](crate::config::CommandSpec)), turns rows into examples, and is an
//! [`objective::Objective`]: rows in, loss and metrics out. The rest is common: [`session`] finds model, data and
//! folder, [`plan`] says which rows make a step, [`step_loop`] takes the steps. [`evaluate`] looks without training.

pub mod actor;
pub mod collate;
pub mod collect;
pub mod completions;
pub mod cpo;
pub mod datasets;
pub mod dpo;
pub mod evaluate;
pub mod evaluate_completions;
pub mod evaluate_policy;
pub mod evaluate_reward;
pub mod grl;
pub mod group;
pub mod grpo;
pub mod kto;
pub mod objective;
pub mod online_dpo;
pub mod orpo;
pub mod pairs;
pub mod plan;
pub mod ppo;
pub mod reference;
pub mod reference_free;
pub mod reference_model;
pub mod registry;
pub mod reward;
pub mod reward_model;
pub mod rloo;
pub mod rounds;
pub mod scored;
pub mod session;
pub mod sft;
pub mod source;
pub mod step_loop;
