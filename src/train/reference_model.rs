//! A copy of the policy as it was at the start, frozen or following the policy.

use candle_core::Tensor;

use crate::Result;
use crate::model::gpt2::Gpt2;
use crate::run::{Checkpoint, CheckpointWriter};

/// Weights of a reference model that follows the policy, in a checkpoint
const FILE: &str = "reference.safetensors";

/// The reference model of a run
pub struct ReferenceModel {
    model: Box<Gpt2>,
    /// Share of the policy that is mixed in after every so many steps
    sync: Option<(f64, u64)>,
}

impl ReferenceModel {
    /// A copy of the policy as it is now
    pub fn new(policy: &Gpt2, sync: Option<(f64, u64)>) -> Result<Self> {
        Ok(Self { model: Box::new(policy.frozen_copy()?), sync })
    }

    /// As it is now
    pub fn get(&self) -> &Gpt2 {
        &self.model
    }

    /// TR-DPO (Gorbatovski et al. 2024, <https://arxiv.org/abs/2404.09656>): π_ref ← (1 − α)·π_ref + α·π, where that is
    /// due after step `step`, counted from 0
    pub fn end_step(&mut self, policy: &Gpt2, step: u64) -> Result<()> {
        let Some((share, every)) = self.sync else { return Ok(()) };
        if !(step + 1).is_multiple_of(every) {
            return Ok(());
        }
        let weights = policy.weights().iter().map(|(_, tensor)| tensor.detach()).collect::<Vec<_>>();
        let mut policy = weights.into_iter();
        let mixed = self.model.with_weights(|_, own| match policy.next() {
            Some(policy) => Ok(((own * (1.0 - share))? + (policy * share)?)?),
            None => Ok(own.clone()),
        })?;
        *self.model = mixed;
        Ok(())
    }

    /// Writes what a resumed run cannot take from the start again
    pub fn save(&self, checkpoint: &CheckpointWriter) -> Result<()> {
        match self.sync {
            Some(_) => checkpoint.write_tensors(FILE, self.model.weights().iter().map(|(name, tensor)| (name, tensor))),
            None => Ok(()),
        }
    }

    /// Puts it back
    pub fn restore(&mut self, checkpoint: &Checkpoint) -> Result<()> {
        if self.sync.is_none() {
            return Ok(());
        }
        let mut file = checkpoint.tensors(FILE)?;
        let saved = self
            .model
            .with_weights(|name, own| Ok(Tensor::from_vec(file.read::<f32>(name)?, own.shape(), own.device())?))?;
        *self.model = saved;
        Ok(())
    }
}
