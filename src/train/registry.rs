//! The training commands, in the order of `--help`.

use crate::config::CommandSpec;

/// Every recipe; the command line, config validation and the tests read this list
pub const RECIPES: &[CommandSpec] = &[
    super::sft::SFT,
    super::reward::REWARD,
    super::dpo::DPO,
    super::kto::KTO,
    super::orpo::ORPO,
    super::cpo::CPO,
    super::ppo::PPO,
    super::grpo::GRPO,
    super::rloo::RLOO,
    super::online_dpo::ONLINE_DPO,
    super::grl::GRL,
];

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::TrainKeys;

    #[test]
    fn defaults_of_every_recipe_are_keys_and_pass() {
        for spec in RECIPES {
            for (name, _) in spec.defaults {
                assert!(spec.keys().any(|key| key.name == *name), "`{}` has no key `{name}`", spec.name);
            }
            let (values, notices) = spec.load(None, []).unwrap();
            assert!(notices.is_empty());
            TrainKeys::from_values(&values).unwrap();
        }
    }

    #[test]
    fn the_config_of_every_recipe_is_read_without_a_notice() {
        for spec in RECIPES {
            let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("configs/{}.yaml", spec.name));
            let (values, notices) = spec.load(Some(&path), []).unwrap();
            assert!(notices.is_empty(), "{notices:?}");
            let train = TrainKeys::from_values(&values).unwrap();
            assert!(train.model().is_ok() && train.dataset().is_ok());
        }
    }
}
