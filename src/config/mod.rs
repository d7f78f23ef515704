//! Typed configs: YAML and flags in, one checked struct out, and the resolved YAML back.
//!
//! A group of keys is declared once, by `config_keys!`: the doc comment of a field is its
//! `--help` text, its range stands beside its default. From that come the flags, the messages, the help, and the
//! `config.yaml` of a run folder. No candle here, no files but the config file, no printing.
//!
//! ```
//! use collimate::config::{CommandSpec, SftKeys, TrainKeys, Value, Values, to_yaml};
//!
//! let spec = CommandSpec {
//!     name: "sft",
//!     about: "Supervised fine-tuning",
//!     groups: &[TrainKeys::KEYS, SftKeys::KEYS],
//!     defaults: &[("learning_rate", "2e-5")],
//!     run: |_, _| Ok(()),
//! };
//! let mut values = Values::from_yaml("seed: 7\nuse_cpu: true\n", "sft.yaml")?;
//! values.set_flag("max_length", Value::Text("256".to_owned()));
//! let notices = spec.admit(&mut values)?;
//! assert_eq!(notices, ["`use_cpu`"]);
//! let train = TrainKeys::from_values(&values)?;
//! assert_eq!((train.seed, train.max_length, train.learning_rate), (7, Some(256), 2e-5));
//! let resolved = to_yaml(train.to_values().into_iter().chain(SftKeys::from_values(&values)?.to_values()))?;
//! assert!(resolved.contains("max_length: 256"));
//! # Ok::<(), collimate::Error>(())
//! ```

mod command;
mod convert;
mod cpo;
mod dpo;
mod grl;
mod grpo;
mod keys;
mod kto;
mod mixture;
mod online;
mod orpo;
mod ppo;
mod reference;
mod reward;
mod rl;
mod sft;
mod steps;
mod token_problem;
mod train;
pub mod trl;
mod value;
mod values;
mod yaml;

pub use command::{CommandSpec, Context};
pub use convert::{ConfigValue, Map, Problem, Shape};
pub use cpo::{CpoKeys, CpoLoss};
pub use dpo::{Divergence, DpoKeys, DpoLoss};
pub use grl::{FieldBackup, FieldTokens, GrlKeys, GrlMode, MemoryKernel, PromptAcquisition, ValueEstimator};
pub use grpo::{Aggregation, GrpoKeys, GrpoLoss, ImportanceLevel, KlTerm, RlooKeys, ScaleRewards};
pub use keys::{Key, Range, nearest};
pub(crate) use keys::{choice_name, choice_problem, config_choice, config_keys, one_of};
pub use kto::{KtoKeys, KtoLoss};
pub use mixture::DatasetPart;
pub use online::OnlineKeys;
pub use orpo::OrpoKeys;
pub use ppo::{LossKl, OnlineDpoKeys, OnlineDpoLoss, PpoKeys, RewardKl, ValueNetwork};
pub use reference::{ReferenceKeys, SyncKeys};
pub use reward::RewardKeys;
pub use rl::{
    AgentSpec, EntropyWeight, ExplorationRule, Falling, GymKeys, OffPolicyKeys, OnPolicyKeys, RlAgent, RlConfig,
    RlKeys, TabularKeys,
};
pub use sft::{PackingStrategy, SftKeys, SftLoss};
pub use steps::{Resume, Steps};
pub use token_problem::TokenProblemKeys;
pub use train::{LrScheduler, SamplingStrategy, Strategy, Tracker, TrainKeys, TruncationMode};
pub use value::Value;
pub use values::{Entry, Place, Values};
pub use yaml::to_yaml;
