//! RF-SARSA: reinforcement learning on a field, in the three forms that the literature gives it.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::grl::field::{Field, MemoryUpdate, StateAction, StepSize};
use crate::grl::kernel::Kernel;
use crate::grl::target::{Backup, Next};

/// Which of the three
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Form {
    /// A table learns by TD, and a Gaussian process spreads the table's values; targets come from the table alone. Needs
    /// states that recur
    TwoLayer {
        /// Step size of the table
        alpha: f64,
        /// σ_n² of the process
        noise: f64,
    },
    /// Targets come from the field, and a Gaussian process regresses on them
    FieldBootstrapped {
        /// σ_n² of the process
        noise: f64,
    },
    /// Kernel TD on the field: with an identity kernel this is tabular SARSA or Q-learning to the last bit
    FunctionalTd {
        /// Step size
        step: StepSize,
        /// Errors of at most this size add no particle
        novelty: f64,
    },
}

/// One step of experience
#[derive(Debug, Clone, Copy)]
pub struct Transition<'a> {
    /// (s, a)
    pub at: StateAction<'a>,
    /// r
    pub reward: f64,
    /// What comes next; `None` where the episode ended by itself
    pub next: Option<Successor<'a>>,
}

/// The next state with all actions
#[derive(Debug, Clone, Copy)]
pub struct Successor<'a> {
    /// (s′, a) for every action a
    pub choices: &'a [StateAction<'a>],
    /// Which one was taken
    pub action: usize,
    /// log π(·|s′); empty where the backup does not read it
    pub log_policy: &'a [f64],
    /// log π_ref(·|s′); empty where the backup does not read it
    pub log_reference: &'a [f64],
}

/// A learner
#[derive(Debug, Clone)]
pub struct RfSarsa {
    form: Form,
    backup: Backup,
    gamma: f64,
    tau: f64,
    field: Field,
    table: HashMap<(u64, u64), f64>,
}

impl RfSarsa {
    /// A learner with an empty field of at most `capacity` particles; `gamma` discounts, and `tau` weighs the distance
    /// from the reference (0 for plain reinforcement learning)
    pub fn new(
        form: Form,
        backup: Backup,
        (gamma, tau): (f64, f64),
        (states, actions): (Kernel, Kernel),
        capacity: usize,
    ) -> Result<Self> {
        if !((0.0..=1.0).contains(&gamma) && tau >= 0.0 && tau.is_finite()) {
            return Err(Error::usage(format!(
                "gamma is {gamma} and tau {tau}, expected gamma in [0, 1] and tau from 0"
            )));
        }
        let update = match form {
            Form::TwoLayer { noise, .. } => MemoryUpdate::GaussianProcess { noise, replace: true },
            Form::FieldBootstrapped { noise } => MemoryUpdate::GaussianProcess { noise, replace: false },
            Form::FunctionalTd { step, novelty } => MemoryUpdate::KernelTd { step, novelty },
        };
        let field = Field::new(states, actions, update, capacity)?;
        Ok(Self { form, backup, gamma, tau, field, table: HashMap::new() })
    }

    /// Q⁺(s, a), from which the policy acts
    pub fn value(&self, z: StateAction<'_>) -> f64 {
        self.field.value(z)
    }

    /// The field
    pub fn field(&self) -> &Field {
        &self.field
    }

    fn tabled(&self, z: StateAction<'_>) -> f64 {
        self.table.get(&(z.state.key, z.action.key)).copied().unwrap_or(0.0)
    }

    /// Learns from one step and gives its TD error
    pub fn learn(&mut self, step: &Transition<'_>) -> Result<f64> {
        if !step.reward.is_finite() {
            return Err(Error::run(format!("a reward is {}, expected a finite number", step.reward)));
        }
        let from_table = matches!(self.form, Form::TwoLayer { .. });
        let q: Option<Vec<f64>> = step.next.map(|next| {
            let value = |z: &StateAction<'_>| if from_table { self.tabled(*z) } else { self.field.value(*z) };
            next.choices.iter().map(value).collect()
        });
        let next = step.next.as_ref().zip(q.as_ref()).map(|(next, q)| Next {
            q,
            log_policy: next.log_policy,
            log_reference: next.log_reference,
            action: next.action,
        });
        let target = self.backup.target(step.reward, self.gamma, next, self.tau);
        if let Form::TwoLayer { alpha, .. } = self.form {
            let error = target - self.tabled(step.at);
            let entry = self.table.entry((step.at.state.key, step.at.action.key)).or_insert(0.0);
            *entry += alpha * error;
            let value = *entry;
            self.field.learn(step.at, value)?;
            return Ok(error);
        }
        self.field.learn(step.at, target)
    }
}
