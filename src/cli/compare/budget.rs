//! What every cell of a comparison may spend, and the key that makes a run spend it.

use crate::cli::rl_agents::TRAIN;
use crate::config::{GrpoKeys, OnlineKeys, RlooKeys, TrainKeys, Value, Values};
use crate::data::{ReadOptions, read_dataset};
use crate::model::hub::Hub;
use crate::{Error, Result};

/// What is counted
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Unit {
    /// Completions that rewards judge
    RewardQueries,
    /// Steps of an environment
    Timesteps,
    /// Optimiser steps
    Steps,
}

const UNITS: [(&str, Unit); 3] =
    [("reward_queries", Unit::RewardQueries), ("timesteps", Unit::Timesteps), ("steps", Unit::Steps)];

/// A budget, the same for every cell
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Budget {
    unit: Unit,
    amount: u64,
}

impl Budget {
    /// The key `budget`
    pub fn read(values: &Values, file: &str) -> Result<Self> {
        let hint = "for example `budget: {reward_queries: 2000}`; also `timesteps` and `steps`";
        let Some((value, place)) = values.get("budget") else {
            return Err(Error::usage(format!("{file}: `budget` is not set")).hint(hint));
        };
        let wrong = |what: String| place.locate(Error::usage(what).hint(hint));
        let Value::Map(entries) = value else { return Err(wrong(format!("`budget` must be a map, got {value}"))) };
        let [(name, amount)] = &entries[..] else {
            return Err(wrong(format!("`budget` must have one entry, got {}", entries.len())));
        };
        let Some((_, unit)) = UNITS.iter().find(|(known, _)| known == name) else {
            return Err(wrong(format!("`budget` has no unit `{name}`")));
        };
        let parsed = amount.as_scalar().and_then(|text| text.parse::<f64>().ok());
        match parsed.filter(|amount| *amount >= 1.0 && amount.fract() == 0.0) {
            Some(amount) => Ok(Self { unit: *unit, amount: amount as u64 }),
            None => Err(wrong(format!("`budget`: `{name}` must be a whole number from 1 up, got {amount}"))),
        }
    }

    /// Refuses a command that has no such unit
    pub fn admits(&self, command: &str) -> Result<()> {
        let classical = command == TRAIN.name;
        match self.unit {
            Unit::Timesteps if !classical => {
                Err(Error::usage(format!("`{command}` has no environment whose `timesteps` could be counted"))
                    .hint("`budget: {reward_queries: …}` or `budget: {steps: …}`"))
            }
            Unit::RewardQueries | Unit::Steps if classical => {
                Err(Error::usage("`rl train` counts `timesteps`").hint("`budget: {timesteps: …}`"))
            }
            Unit::RewardQueries if !ONLINE.contains(&command) => {
                Err(Error::usage(format!("`{command}` asks no rewards while it trains"))
                    .hint("`budget: {steps: …}` compares at equal optimiser steps"))
            }
            _ => Ok(()),
        }
    }

    /// The key of a run of `command` that makes it end at the budget: never beyond, and less than a step before
    pub fn key(&self, command: &str, values: &Values) -> Result<(String, Value)> {
        let number = |amount: u64| Value::Number(amount.to_string());
        Ok(match self.unit {
            Unit::Timesteps => ("total_timesteps".to_owned(), number(self.amount)),
            Unit::Steps => ("max_steps".to_owned(), number(self.amount)),
            Unit::RewardQueries => {
                let steps = steps_within(self.amount, command, values)?;
                if steps == 0 {
                    return Err(Error::usage(format!(
                        "{} reward queries are less than the first step takes",
                        self.amount
                    ))
                    .hint("a smaller batch, or a larger budget"));
                }
                ("max_steps".to_owned(), number(steps))
            }
        })
    }

    /// How much
    pub fn amount(&self) -> f64 {
        self.amount as f64
    }

    /// The column that counts it
    pub fn column(&self) -> &'static str {
        match self.unit {
            Unit::RewardQueries => "reward_queries",
            Unit::Timesteps | Unit::Steps => "step",
        }
    }

    /// What it counts, in words
    pub fn label(&self) -> &'static str {
        match self.unit {
            Unit::RewardQueries => "reward queries",
            Unit::Timesteps => "environment steps",
            Unit::Steps => "optimiser steps",
        }
    }

    /// The metric of its runs, where nothing else is said; a loss is none, for less of it is better
    pub fn metric(&self) -> Option<&'static str> {
        match self.unit {
            Unit::RewardQueries => Some("reward"),
            Unit::Timesteps => Some("return"),
            Unit::Steps => None,
        }
    }
}

const ONLINE: [&str; 5] = ["ppo", "grpo", "rloo", "online_dpo", "grl"];

/// The most optimiser steps in which no more completions are judged than `budget`
fn steps_within(budget: u64, command: &str, values: &Values) -> Result<u64> {
    let (train, online) = (TrainKeys::from_values(values)?, OnlineKeys::from_values(values)?);
    let (batch, accumulation) = (train.per_device_train_batch_size, train.gradient_accumulation_steps);
    let each = online.num_generations;
    let of_groups = |iterations: usize| budget * iterations as u64 / (batch * accumulation) as u64;
    Ok(match command {
        // A batch of completions, gone through several times
        "grpo" => of_groups(GrpoKeys::from_values(values)?.num_iterations),
        "rloo" => of_groups(RlooKeys::from_values(values)?.num_iterations),
        "online_dpo" => of_groups(1),
        // Batches of prompts, the last one of an epoch smaller: PPO counts prompts, GRL completions
        "ppo" => steps_of_prompts(budget, prompts(&train, &online)?, batch * accumulation, each),
        _ => steps_of_prompts(budget, prompts(&train, &online)?, batch / each * accumulation, each),
    })
}

/// Prompts in the dataset of a run
fn prompts(train: &TrainKeys, online: &OnlineKeys) -> Result<usize> {
    let columns = train.columns.iter().map(|(found, expected)| (found.to_owned(), expected.clone())).collect();
    let (config, split) = (train.dataset_config.clone(), train.dataset_train_split.clone());
    let (name, options) = match &online.replay_completions {
        Some(path) => (path.as_str(), ReadOptions::default()),
        None => (train.dataset()?, ReadOptions { split, config, columns }),
    };
    let path = Hub::from_env(train.offline)?.dataset(name, None, train.dataset_config.as_deref())?;
    Ok(read_dataset(&path, &options)?.rows.len())
}

/// Steps of `per_step` prompts, `each` completions of a prompt, through a dataset again and again
fn steps_of_prompts(budget: u64, prompts: usize, per_step: usize, each: usize) -> u64 {
    let per_step = per_step.max(1);
    let (epoch, steps) = ((prompts * each) as u64, prompts.div_ceil(per_step) as u64);
    let within = (budget % epoch) / (per_step.min(prompts) * each) as u64;
    budget / epoch * steps + within
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_step_of_an_epoch_may_be_smaller() {
        // 10 prompts in steps of 4, 4 and 2, twice each: 8, 16, 20, 28, 36, 40 completions
        let expected = [(7, 0), (8, 1), (15, 1), (16, 2), (19, 2), (20, 3), (27, 3), (28, 4), (40, 6), (100, 15)];
        for (budget, steps) in expected {
            assert_eq!(steps_of_prompts(budget, 10, 4, 2), steps, "{budget}");
        }
        // Fewer prompts than a step asks for
        assert_eq!(steps_of_prompts(6400, 20, 320, 16), 20);
    }
}
