//! The keys of the classical agents; names are Stable-Baselines3's.
//!
//! Each file declares the keys of one kind of agents. [`RlAgent::spec`] says which headings an agent takes and which
//! defaults are its own; everything else follows from that table: what is refused, what `--help` shows, what
//! `config.yaml` holds.

mod agent;
mod falling;
mod general;
mod gymnasium;
mod off_policy;
mod on_policy;
mod tabular;

pub use agent::{AgentSpec, RlAgent};
pub use falling::{EntropyWeight, Falling};
pub use general::RlKeys;
pub use gymnasium::GymKeys;
pub use off_policy::OffPolicyKeys;
pub use on_policy::OnPolicyKeys;
pub use tabular::{ExplorationRule, TabularKeys};

use super::{Entry, Key, Range, Value, Values};
use crate::{Error, Result};

/// The keys of a run, whichever agent it has
#[derive(Debug, Clone, PartialEq)]
pub struct RlConfig {
    /// Those of several kinds of agents
    pub general: RlKeys,
    /// Those of environments that Gymnasium steps
    pub gym: GymKeys,
    /// Those of on-policy agents
    pub on_policy: OnPolicyKeys,
    /// Those of off-policy agents
    pub off_policy: OffPolicyKeys,
    /// Those of agents in finite environments
    pub tabular: TabularKeys,
}

impl RlConfig {
    /// The groups of keys, in the order of `--help` and of `config.yaml`
    pub const GROUPS: &'static [&'static [Key]] =
        &[RlKeys::KEYS, GymKeys::KEYS, OnPolicyKeys::KEYS, OffPolicyKeys::KEYS, TabularKeys::KEYS];

    /// Types and checks the keys, with the defaults of their agent
    ///
    /// # Errors
    /// A key that its agent does not take: it would do nothing, which nobody means
    pub fn from_values(values: &Values) -> Result<Self> {
        let agent = values.read("agent", Range::ANY, || RlAgent::Ppo)?;
        values.entries().iter().try_for_each(|entry| refuse_key_of_others(entry, agent))?;
        let mut values = values.clone();
        for (name, text) in agent.spec().defaults {
            values.set_default(name, text);
        }
        Ok(Self {
            general: RlKeys::from_values(&values)?,
            gym: GymKeys::from_values(&values)?,
            on_policy: OnPolicyKeys::from_values(&values)?,
            off_policy: OffPolicyKeys::from_values(&values)?,
            tabular: TabularKeys::from_values(&values)?,
        })
    }

    /// The resolved values of the keys that the agent takes, so that they can be read again
    pub fn to_values(&self) -> Vec<(&'static str, Value)> {
        let Self { general, gym, on_policy, off_policy, tabular } = self;
        let mut all = vec![general.to_values(), gym.to_values()];
        all.extend([on_policy.to_values(), off_policy.to_values(), tabular.to_values()]);
        let keys = Self::GROUPS.iter().copied().flatten();
        keys.zip(all.into_iter().flatten())
            .filter(|(key, _)| self.general.agent.takes(key))
            .map(|(_, value)| value)
            .collect()
    }
}

fn refuse_key_of_others(entry: &Entry, agent: RlAgent) -> Result<()> {
    let mut keys = RlConfig::GROUPS.iter().copied().flatten();
    let Some(key) = keys.find(|key| key.name == entry.key).filter(|key| !agent.takes(key)) else { return Ok(()) };
    let name = key.name;
    let takers: Vec<_> = RlAgent::all().filter(|agent| agent.takes(key)).map(|agent| format!("`{agent}`")).collect();
    let error = Error::usage(format!("agent `{agent}` does not take `{name}`, which is for {}", takers.join(", ")));
    Err(entry.key_place.locate(error.hint(format!("leave out `{name}`"))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::to_yaml;

    fn read(text: &str) -> Result<RlConfig> {
        RlConfig::from_values(&Values::from_yaml(&format!("output_dir: out\n{text}"), "agent.yaml")?)
    }

    #[test]
    fn tables_name_keys_and_headings_that_exist() {
        let keys = || RlConfig::GROUPS.iter().copied().flatten();
        for agent in RlAgent::all() {
            let AgentSpec { headings, without, defaults } = agent.spec();
            for heading in headings {
                assert!(keys().any(|key| key.heading == *heading), "{agent}: {heading}");
            }
            for name in without {
                assert!(
                    keys().any(|key| key.name == *name
                        && (headings.contains(&key.heading) || agent::EVERYWHERE.contains(&key.heading))),
                    "{agent}: {name}"
                );
            }
            for (name, _) in defaults {
                assert!(keys().any(|key| key.name == *name && agent.takes(key)), "{agent}: {name}");
            }
        }
        for key in keys() {
            assert!(RlAgent::all().any(|agent| agent.takes(key)), "no agent takes `{}`", key.name);
        }
    }

    #[test]
    fn every_agent_reads_its_own_resolved_config() {
        for agent in RlAgent::all() {
            let config = read(&format!("agent: {agent}\n")).unwrap();
            let resolved = to_yaml(config.to_values()).unwrap();
            let again = RlConfig::from_values(&Values::from_yaml(&resolved, "config.yaml").unwrap()).unwrap();
            assert_eq!(again, config, "{agent}");
        }
    }

    #[test]
    fn a_key_of_another_agent_is_refused_where_it_stands() {
        let error = read("agent: dqn\nn_epochs: 3\n").unwrap_err();
        assert_eq!(error.exit_code(), 2);
        let text = error.to_string();
        assert!(text.contains("agent.yaml:3:1") && text.contains("agent `dqn` does not take `n_epochs`"), "{text}");
    }

    #[test]
    fn defaults_are_the_agent_s() {
        let (ppo, dqn) = (read("agent: ppo\n").unwrap().general, read("agent: dqn\n").unwrap().general);
        assert_eq!((ppo.learning_rate, ppo.batch_size), (Falling::constant(3e-4), 64));
        assert_eq!((dqn.learning_rate, dqn.batch_size), (Falling::constant(1e-4), 32));
        assert_eq!(read("agent: dqn\nbatch_size: 8\n").unwrap().general.batch_size, 8);
    }
}
