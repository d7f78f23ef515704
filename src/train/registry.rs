//! The training commands, in the order of `--help`.

use crate::config::CommandSpec;

/// Every recipe; the command line, config validation and the tests read this list
pub const RECIPES: &[CommandSpec] = &[super::sft::SFT, super::dpo::DPO];
