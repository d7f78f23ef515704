//! What a run needs to go on exactly where it stopped: one walk over an agent's fields takes them out and puts them back.

use std::collections::BTreeMap;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::env::VectorEnv;
use crate::run::{Checkpoint, CheckpointWriter, Slice};
use crate::{Error, Result};

const TENSORS: &str = "agent.safetensors";

/// Named numbers of an agent, on their way out of it or back
#[derive(Debug, Default)]
pub struct State {
    restoring: bool,
    /// Of the names of the part that is walked
    prefix: String,
    tensors: BTreeMap<String, Vec<f32>>,
    values: BTreeMap<String, Value>,
}

/// What stands beside the tensors
#[derive(Serialize, Deserialize)]
struct Saved<R> {
    run: R,
    agent: BTreeMap<String, Value>,
}

impl State {
    /// One that takes out what it meets
    pub fn new() -> Self {
        Self::default()
    }

    /// Walks a part whose names stand under `name`, so that several of a kind stay apart
    ///
    /// # Errors
    /// What the walk meets
    pub fn part(&mut self, name: &str, walk: impl FnOnce(&mut Self) -> Result<()>) -> Result<()> {
        let outer = self.prefix.len();
        self.prefix.push_str(name);
        self.prefix.push('.');
        let outcome = walk(self);
        self.prefix.truncate(outer);
        outcome
    }

    /// Takes out numbers, or overwrites them with what was taken
    ///
    /// # Errors
    /// What was taken has another size
    pub fn tensor(&mut self, name: &str, numbers: &mut [f32]) -> Result<()> {
        let name = format!("{}{name}", self.prefix);
        if !self.restoring {
            self.tensors.insert(name, numbers.to_vec());
            return Ok(());
        }
        match self.tensors.get(&name) {
            Some(saved) if saved.len() == numbers.len() => {
                numbers.copy_from_slice(saved);
                Ok(())
            }
            Some(saved) => Err(unfit(format!("`{name}` has {} numbers, the agent {}", saved.len(), numbers.len()))),
            None => Err(unfit(format!("there is no `{name}`"))),
        }
    }

    /// Takes out any other value, or overwrites it with what was taken
    ///
    /// # Errors
    /// What was taken is of another kind
    pub fn value<T: Serialize + DeserializeOwned>(&mut self, name: &str, value: &mut T) -> Result<()> {
        let name = format!("{}{name}", self.prefix);
        if !self.restoring {
            let json = serde_json::to_value(&*value).map_err(|cause| Error::run(format!("`{name}`: {cause}")))?;
            self.values.insert(name, json);
            return Ok(());
        }
        let saved = self.values.remove(&name).ok_or_else(|| unfit(format!("there is no `{name}`")))?;
        *value = serde_json::from_value(saved).map_err(|cause| unfit(format!("`{name}`: {cause}")))?;
        Ok(())
    }

    /// Takes out where environments stand, or leads them there again
    ///
    /// # Errors
    /// Environments that keep no history
    pub fn environments(&mut self, env: &mut dyn VectorEnv) -> Result<()> {
        let mut histories = env.histories()?.ok_or_else(|| {
            Error::run(format!("`{}` keeps no history, so that no run in it can be resumed", env.spec().id))
        })?;
        let found = histories.len();
        self.value("environments", &mut histories)?;
        if histories.len() != found {
            return Err(unfit(format!("it has {} environments, the agent {found}", histories.len())));
        }
        if self.restoring { env.replay(&histories) } else { Ok(()) }
    }

    /// Writes what was taken into a checkpoint, beside `run`, which the run itself needs
    pub fn write<R: Serialize>(self, checkpoint: &CheckpointWriter, run: R) -> Result<()> {
        checkpoint.write_state(&Saved { run, agent: self.values })?;
        checkpoint
            .write_tensors(TENSORS, self.tensors.iter().map(|(name, numbers)| (name.as_str(), Slice::flat(numbers))))
    }

    /// Reads a checkpoint: one that puts back what was taken, and what the run itself needs
    pub fn read<R: DeserializeOwned>(checkpoint: &Checkpoint) -> Result<(Self, R)> {
        let Saved { run, agent } = checkpoint.state::<Saved<R>>()?;
        let mut file = checkpoint.tensors(TENSORS)?;
        let names = file.names();
        let tensors = names
            .into_iter()
            .map(|name| Ok((name.clone(), file.read(&name)?)))
            .collect::<Result<BTreeMap<_, Vec<f32>>>>()?;
        Ok((Self { restoring: true, prefix: String::new(), tensors, values: agent }, run))
    }
}

fn unfit(what: String) -> Error {
    Error::usage(format!("the checkpoint is of another agent: {what}")).hint("resume with the config of the run")
}
