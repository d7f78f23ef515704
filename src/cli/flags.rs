//! Flags out of config keys, and what was typed back into config values.

use clap::{Arg, ArgAction, ArgMatches, Command};

use crate::config::{CommandSpec, Key, Shape, Value, trl};

/// The command with a flag for each key, under the keys' headings; TRL's other keys are flags that `--help` hides
pub(super) fn add_keys(mut command: Command, spec: &CommandSpec) -> Command {
    for key in spec.keys() {
        let flag = one(key.name, key.shape)
            .help_heading(key.heading)
            .value_name(key.value_name)
            .help(help(key, &spec.default_text(key)));
        command = command.arg(flag);
        if key.shape == Shape::Switch {
            command = command.arg(negated(key.name));
        }
    }
    for key in trl::keys_of(spec.name) {
        let flag = Arg::new(key.name).long(key.name).num_args(0..).default_missing_value("true");
        command = command.arg(flag.action(ArgAction::Append).allow_negative_numbers(true).hide(true));
        command = command.arg(negated(key.name));
    }
    command
}

/// What was typed, in the order of the keys
pub(super) fn typed(matches: &ArgMatches, spec: &CommandSpec) -> Vec<(String, Value)> {
    let own = spec.keys().map(|key| (key.name, key.shape));
    // A foreign key is judged by its value alone, so its shape does not matter
    let foreign = trl::keys_of(spec.name).map(|key| (key.name, Shape::One));
    own.chain(foreign)
        .filter_map(|(name, shape)| {
            if matches.try_get_one::<bool>(&negated_id(name)).ok().flatten() == Some(&true) {
                return Some((name.to_owned(), Value::Bool(false)));
            }
            let words: Vec<&String> = matches.get_many(name)?.collect();
            Some((name.to_owned(), value(&words, shape)))
        })
        .collect()
}

fn one(name: &'static str, shape: Shape) -> Arg {
    let flag = Arg::new(name).long(name).allow_negative_numbers(true);
    match shape {
        // The last one counts, as with TRL
        Shape::One => flag.action(ArgAction::Set).overrides_with(name),
        Shape::Switch => flag.action(ArgAction::Set).overrides_with(name).num_args(0..=1).default_missing_value("true"),
        Shape::Many | Shape::Pairs => flag.action(ArgAction::Append).num_args(1..),
    }
}

fn negated_id(name: &str) -> String {
    format!("no_{name}")
}

/// TRL's parser makes `--no_key` for each switch; it hides here because `--key false` says the same
fn negated(name: &'static str) -> Arg {
    let id = negated_id(name);
    Arg::new(id.clone()).long(id).action(ArgAction::SetTrue).overrides_with(name).hide(true)
}

fn value(words: &[&String], shape: Shape) -> Value {
    match (words, shape) {
        ([word], Shape::One | Shape::Switch) => Value::text(*word),
        // One whole list or map in JSON or YAML
        ([word], _) if word.trim_start().starts_with(['[', '{']) => Value::text(*word),
        (words, Shape::Many | Shape::Pairs) => {
            let parts = words.iter().flat_map(|word| items(word)).map(str::trim);
            Value::List(parts.filter(|part| !part.is_empty()).map(Value::text).collect())
        }
        (words, _) => Value::List(words.iter().map(|word| Value::text(*word)).collect()),
    }
}

/// Splits at commas; what stands behind a colon, such as `regex:a{1,2}` or `command:judge a,b`, is one item to its end
fn items(word: &str) -> impl Iterator<Item = &str> {
    let mut rest = Some(word);
    std::iter::from_fn(move || {
        let text = rest?;
        match text.find([',', ':']) {
            Some(at) if text.as_bytes()[at] == b',' => {
                rest = Some(&text[at + 1..]);
                Some(&text[..at])
            }
            _ => rest.take(),
        }
    })
}

fn help(key: &Key, default: &str) -> String {
    let mut parts: Vec<String> = key.help.split_whitespace().map(str::to_owned).collect();
    let choices = (key.choices)();
    if choices.len() > 1 {
        parts.push(format!("[{}]", choices.join(", ")));
    }
    if !default.is_empty() {
        parts.push(format!("[default: {default}]"));
    }
    parts.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{args, train};
    use crate::config::{DpoKeys, DpoLoss, Map, Resume, TrainKeys};
    use crate::{Error, Result};

    fn parse(line: &str) -> Result<(TrainKeys, DpoKeys, Vec<String>)> {
        let spec = crate::train::registry::RECIPES.iter().find(|spec| spec.name == "dpo").unwrap();
        let command = args::both_spellings(train::command(spec));
        let words = std::iter::once("dpo").chain(line.split(' ').filter(|word| !word.is_empty()));
        let matches = command.try_get_matches_from(words).map_err(|error| Error::usage(error.to_string()))?;
        let (values, notices) = spec.load(None, typed(&matches, spec))?;
        Ok((TrainKeys::from_values(&values)?, DpoKeys::from_values(&values)?, notices))
    }

    #[test]
    fn what_follows_a_colon_is_one_item() {
        assert_eq!(items("length, exact_match").collect::<Vec<_>>(), ["length", " exact_match"]);
        assert_eq!(items("length,regex:a{1,2}").collect::<Vec<_>>(), ["length", "regex:a{1,2}"]);
        assert_eq!(items("command:judge a,b").collect::<Vec<_>>(), ["command:judge a,b"]);
    }

    #[test]
    fn booleans_have_four_spellings() {
        for (line, expected) in [
            ("", true),
            ("--disable_dropout", true),
            ("--disable_dropout true", true),
            ("--disable_dropout false", false),
            ("--disable_dropout=False", false),
            ("--disable-dropout false", false),
            ("--no_disable_dropout", false),
            ("--no_disable_dropout --disable_dropout", true),
            ("--disable_dropout --no-disable-dropout", false),
        ] {
            assert_eq!(parse(line).unwrap().0.disable_dropout, expected, "{line}");
        }
        let (train, ..) = parse("--bf16 --seed 3").unwrap();
        assert_eq!((train.bf16, train.seed), (true, 3));
    }

    #[test]
    fn lists_have_four_spellings() {
        for line in [
            "--loss_type sigmoid sigmoid --beta 1",
            "--loss_type sigmoid,sigmoid",
            "--loss-type sigmoid --loss_type sigmoid",
            "--loss_type [\"sigmoid\",\"sigmoid\"]",
        ] {
            assert_eq!(parse(line).unwrap().1.loss_type, [DpoLoss::Sigmoid; 2], "{line}");
        }
        assert_eq!(parse("--loss_weights -1").unwrap().1.loss_weights, Some(vec![-1.0]));
    }

    #[test]
    fn maps_are_pairs_or_json() {
        let expected = Map(vec![("q".to_owned(), "prompt".to_owned()), ("a".to_owned(), "chosen".to_owned())]);
        for line in [
            "--columns q=prompt a=chosen",
            "--columns q=prompt,a=chosen",
            "--columns q=prompt --columns a=chosen",
            "--columns {\"q\":\"prompt\",\"a\":\"chosen\"}",
        ] {
            assert_eq!(parse(line).unwrap().0.columns, expected, "{line}");
        }
        assert!(parse("--columns q").is_err());
        assert!(parse("--columns q=a q=b").is_err());
    }

    #[test]
    fn last_of_a_repeated_flag_counts() {
        assert_eq!(parse("--seed 1 --seed 2").unwrap().0.seed, 2);
    }

    #[test]
    fn resume_takes_nothing_a_truth_value_or_a_folder() {
        let resume = |line| parse(line).unwrap().0.resume_from_checkpoint;
        assert_eq!(resume("--resume_from_checkpoint"), Resume::Newest);
        assert_eq!(resume("--resume_from_checkpoint true"), Resume::Newest);
        assert_eq!(resume("--resume_from_checkpoint out/checkpoint-5"), Resume::Folder("out/checkpoint-5".to_owned()));
        assert_eq!(resume("--resume_from_checkpoint false"), Resume::No);
    }

    #[test]
    fn flags_of_trl_are_accepted_with_a_notice() {
        let line =
            "--no_remove_unused_columns --use_cpu --dataloader_num_workers 4 --lora_target_modules q v --dtype float32";
        let (.., notices) = parse(line).unwrap();
        for key in ["remove_unused_columns", "use_cpu", "dataloader_num_workers", "lora_target_modules", "dtype"] {
            assert!(notices.contains(&format!("`{key}`")), "{key} is not in {notices:?}");
        }
        assert_eq!(notices.len(), 5);
        assert!(parse("--use_peft").is_err());
        assert!(parse("--no_use_peft").is_ok());
    }
}
