//! A training command as the command line sees it, and the one place where its keys are admitted.

use std::path::Path;

use super::keys::{Key, nearest};
use super::trl::{self, Disposition};
use super::value::Value;
use super::values::{Entry, Values};
use crate::{Error, Result};

/// What a run must know of how it was called
#[derive(Debug, Clone, Default)]
pub struct Context {
    /// The command line, program first, for the manifest
    pub command_line: Vec<String>,
}

/// A training command: its name, its keys, what it runs
#[derive(Clone, Copy)]
pub struct CommandSpec {
    /// As typed: `sft`
    pub name: &'static str,
    /// One line for the list of commands
    pub about: &'static str,
    /// Its groups of keys, in the order of `--help` and of `config.yaml`
    pub groups: &'static [&'static [Key]],
    /// Defaults that differ from the groups' own, as text
    pub defaults: &'static [(&'static str, &'static str)],
    /// The run; the values are admitted, not yet typed
    pub run: fn(&Values, &Context) -> Result<()>,
}

impl CommandSpec {
    /// All its keys
    pub fn keys(&self) -> impl Iterator<Item = &'static Key> + use<> {
        self.groups.iter().flat_map(|group| group.iter())
    }

    fn has(&self, name: &str) -> bool {
        self.keys().any(|key| key.name == name)
    }

    /// The default of a key as `--help` shows it
    pub fn default_text(&self, key: &Key) -> String {
        let own = self.defaults.iter().find(|(name, _)| *name == key.name);
        own.map_or_else(|| key.default_text(), |(_, text)| (*text).to_owned())
    }

    /// Renames, accepts or refuses each key that is not this command's own, and sets the command's defaults.
    ///
    /// Returns the accepted keys that change nothing here, in the order they were set.
    ///
    /// # Errors
    /// A key that TRL has and this program does not have the effect of; a key that nobody knows
    pub fn admit(&self, values: &mut Values) -> Result<Vec<String>> {
        self.rename(values)?;
        let mut notices = Vec::new();
        let mut foreign = Vec::new();
        for entry in values.entries() {
            if !self.has(&entry.key) {
                notices.push(self.judge(entry)?);
                foreign.push(entry.key.clone());
            }
        }
        for name in foreign {
            values.remove(&name);
        }
        for (name, text) in self.defaults {
            values.set_default(name, text);
        }
        Ok(notices)
    }

    fn rename(&self, values: &mut Values) -> Result<()> {
        let renamed: Vec<_> = trl::keys_of(self.name)
            .filter_map(|key| match key.disposition {
                Disposition::Renamed { to, allowed } => values.get(key.name).map(|found| (key, to, allowed, found)),
                _ => None,
            })
            .map(|(key, to, allowed, (value, place))| {
                let refuse = |message: String| Err(place.locate(Error::usage(message)));
                if !allowed(value) {
                    return refuse(format!("`{}` {}, got {value}", key.name, key.reason));
                }
                if values.get(to).is_some() {
                    return refuse(format!("`{}` and `{to}` are the same key, and both are set", key.name));
                }
                Ok((key.name, to))
            })
            .collect::<Result<_>>()?;
        for (from, to) in renamed {
            values.rename(from, to);
        }
        Ok(())
    }

    /// The notice for a key that is accepted without effect
    fn judge(&self, Entry { key: name, key_place, value, place }: &Entry) -> Result<String> {
        let Some(key) = trl::keys_of(self.name).find(|key| key.name == name) else {
            return Err(key_place.locate(self.unknown(name)));
        };
        match key.disposition {
            Disposition::Only(allowed) if !allowed(value) => {
                let set = if value.as_scalar().is_some() { format!("be {value}") } else { "be set".to_owned() };
                let error = Error::usage(format!("`{name}` cannot {set} here: {}", key.reason));
                Err(place.locate(error.hint(format!("leave out `{name}`"))))
            }
            // A renamed key never comes here: it bears its new name by now
            Disposition::Ignored | Disposition::Only(_) | Disposition::Renamed { .. } => Ok(format!("`{name}`")),
        }
    }

    /// The error for a key that nobody knows; also what the command line says of an unknown flag
    pub fn unknown(&self, name: &str) -> Error {
        let error = Error::usage(format!("unknown key `{name}` for `{}`", self.name));
        let own: Vec<_> = self.keys().map(|key| key.name).collect();
        // A key of the program itself is a better guess than a foreign one that would do nothing
        let near = nearest(name, own).or_else(|| nearest(name, trl::keys_of(self.name).map(|key| key.name)));
        match near {
            Some(near) => error.hint(format!("did you mean `{near}`?")),
            None => error.hint(format!("`collimate {} --help` lists the keys", self.name)),
        }
    }

    /// Reads the config file, puts the flags over it and admits the result
    pub fn load(
        &self,
        config: Option<&Path>,
        flags: impl IntoIterator<Item = (String, Value)>,
    ) -> Result<(Values, Vec<String>)> {
        let mut values = match config {
            Some(path) => Values::from_yaml_file(path)?,
            None => Values::default(),
        };
        for (name, value) in flags {
            values.set_flag(&name, value);
        }
        let notices = self.admit(&mut values)?;
        Ok((values, notices))
    }
}

impl std::fmt::Debug for CommandSpec {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CommandSpec").field("name", &self.name).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{DpoKeys, Place, TrainKeys, to_yaml};

    const DPO: CommandSpec = CommandSpec {
        name: "dpo",
        about: "",
        groups: &[TrainKeys::KEYS, DpoKeys::KEYS],
        defaults: &[("learning_rate", "1e-6"), ("disable_dropout", "true")],
        run: |_, _| Ok(()),
    };

    fn read(text: &str) -> Result<(TrainKeys, DpoKeys, Vec<String>)> {
        let mut values = Values::from_yaml(text, "dpo.yaml")?;
        let notices = DPO.admit(&mut values)?;
        Ok((TrainKeys::from_values(&values)?, DpoKeys::from_values(&values)?, notices))
    }

    fn message(text: &str) -> String {
        read(text).unwrap_err().to_string()
    }

    #[test]
    fn defaults_of_the_command_beat_those_of_the_group() {
        let (train, _, notices) = read("").unwrap();
        assert_eq!((train.learning_rate, train.disable_dropout), (1e-6, true));
        assert!(notices.is_empty());
        let (train, ..) = read("learning_rate: 5e-7\ndisable_dropout: no").unwrap();
        assert_eq!((train.learning_rate, train.disable_dropout), (5e-7, false));
    }

    #[test]
    fn flag_beats_file() {
        let mut values = Values::from_yaml("beta: 0.2\nseed: 3", "dpo.yaml").unwrap();
        values.set_flag("beta", Value::text("0.3"));
        DPO.admit(&mut values).unwrap();
        assert_eq!(DpoKeys::from_values(&values).unwrap().beta, 0.3);
        assert_eq!(TrainKeys::from_values(&values).unwrap().seed, 3);
    }

    #[test]
    fn errors_name_key_place_expected_and_found() {
        for (text, expected) in [
            ("seed: 1\nbeta: -1", "dpo.yaml:2:7: `beta` must be at least 0, got `-1`"),
            ("beta: high", "dpo.yaml:1:7: `beta` must be a number, got `high`"),
            ("beta: .nan", "dpo.yaml:1:7: a number must be finite, got `.nan`"),
            ("beta: [1]", "dpo.yaml:1:7: `beta` must be a number, got a list"),
            ("max_length: 1.5", "dpo.yaml:1:13: `max_length` must be a whole number from 0 up, or `null`, got `1.5`"),
            ("per_device_train_batch_size: 0", "`per_device_train_batch_size` must be at least 1, got `0`"),
            ("per_device_train_batch_size: -4", "must be a whole number from 0 up, got `-4`"),
            ("output_dir: true", "`output_dir` must be text, got `true`"),
            ("loss_type: sigmod", "got `sigmod`\nhint: did you mean `sigmoid`?"),
            ("train_sampling_strategy: batch_rebalance", "`train_sampling_strategy` cannot be `batch_rebalance` here"),
            (
                "learning_rat: 1",
                "dpo.yaml:1:1: unknown key `learning_rat` for `dpo`\nhint: did you mean `learning_rate`?",
            ),
            ("- a\n- b", "dpo.yaml:1: a config is a map of keys to values, got a list"),
            ("beta: 1\nseed: 2\nbeta: 3", "dpo.yaml:3:1: `beta` is set twice"),
            ("beta: [1\nseed: 2", "dpo.yaml:2:5: not valid as YAML: "),
            ("just text", "dpo.yaml:1: a config is a map of keys to values, got `just text`"),
            ("fp16: true", "dpo.yaml:1:7: `fp16` cannot be `true` here"),
            ("dataloader_drop_last: true", "`dataloader_drop_last` cannot be `true` here"),
            ("warmup_ratio: 0.1\nwarmup_steps: 5", "`warmup_ratio` and `warmup_steps` are the same key"),
            ("warmup_ratio: 2", "`warmup_ratio` must be at least 0 and below 1, got `2`"),
            ("logging_steps: 2.5", "`logging_steps` must be a whole number from 1 up, or a share"),
            ("max_steps: 0", "`max_steps` must be"),
            ("train_sampling_strategy: batch_rebalance", "`train_sampling_strategy` cannot be `batch_rebalance`"),
        ] {
            let message = message(text);
            assert!(message.contains(expected), "{text:?} says {message:?}, not {expected:?}");
        }
    }

    #[test]
    fn python_and_yaml_1_1_habits_are_read() {
        let (train, dpo, _) = read(
            "learning_rate: 1e-5\nweight_decay: '1e-2'\nadam_epsilon: 1.0e-8\nbf16: False\ndisable_dropout: True\n\
             max_length: None\nsave_strategy: no\neval_strategy: steps\neval_steps: 0.25\nloss_type: sigmoid\n\
             resume_from_checkpoint: true\nmodel_revision: 1.10\nwarmup_ratio: 0.1\nreport_to: none",
        )
        .unwrap();
        assert_eq!((train.learning_rate, train.weight_decay, train.adam_epsilon), (1e-5, 0.01, 1e-8));
        assert_eq!((train.max_length, train.model_revision.as_str()), (None, "1.10"));
        assert_eq!(train.save_strategy.as_str(), "no");
        assert_eq!((train.warmup_steps, train.warmup(100)), (0.1, 10));
        assert_eq!(train.eval_steps.map(|steps| steps.of(1000)), Some(250));
        assert_eq!(dpo.loss_type.len(), 1);
    }

    #[test]
    fn keys_without_an_effect_are_noticed_in_order() {
        let (.., notices) = read("use_cpu: true\noptim: adamw_torch_fused\nseed: 1\ndtype: float32").unwrap();
        assert_eq!(notices, ["`use_cpu`", "`optim`", "`dtype`"]);
        assert!(message("optim: sgd").contains("`optim` cannot be `sgd` here"));
    }

    #[test]
    fn resolved_config_read_back_is_the_same() {
        let text = "columns: {question: prompt, 'yes': chosen}\nlearning_rate: 3.3e-7\nseed: 18446744073709551615\n\
                    loss_weights: [0.5]\noutput_dir: 'no'\nmodel_name_or_path: '123'\ndataset_name: \"a: b # c\"\n\
                    resume_from_checkpoint: true\nsave_steps: 0.1\nreport_to: []\nmodel_revision: '1e5'\n";
        let (train, dpo, _) = read(text).unwrap();
        let resolved = to_yaml(train.to_values().into_iter().chain(dpo.to_values())).unwrap();
        let (train_again, dpo_again, notices) = read(&resolved).unwrap();
        assert_eq!((train_again, dpo_again), (train, dpo));
        assert!(notices.is_empty());
        assert!(resolved.starts_with("model_name_or_path: "), "{resolved}");
    }

    #[test]
    fn no_key_is_declared_twice() {
        let mut names: Vec<_> = DPO.keys().map(|key| key.name).chain(trl::keys_of("dpo").map(|key| key.name)).collect();
        names.sort_unstable();
        let count = names.len();
        names.dedup();
        assert_eq!(names.len(), count, "a key stands in two groups, or in a group and in the table of foreign keys");
    }

    #[test]
    fn defaults_pass_their_own_checks() {
        for (name, ..) in DPO.defaults {
            assert!(DPO.keys().any(|key| key.name == *name), "{name} is no key");
        }
        for key in DPO.keys() {
            assert!(key.range.first_outside(&(key.default)()).is_none(), "the default of {} is out of range", key.name);
        }
    }

    #[test]
    fn place_of_a_default_is_not_shown() {
        let error = Place::Default.locate(Error::usage("x"));
        assert_eq!(error.message(), "x");
    }
}
