//! Planning as an agent: an iteration is a sweep or a round, and no step is taken in the environment.

use super::planning::{Plan, PolicyIteration, ValueIteration, action_value, not_converged, start_value};
use super::{Agent, Figures};
use crate::rl::env::{EnvSpec, Episode, Tabular, VectorEnv};
use crate::rl::policy::Policy;
use crate::{Error, Result};

/// How to plan
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum PlanningMethod {
    /// Until no value can be further from the optimum than this
    ValueIteration {
        /// Largest error
        tolerance: f64,
    },
    /// Until no action can be improved
    PolicyIteration,
}

#[derive(Debug)]
enum State {
    Values(ValueIteration),
    Policies(PolicyIteration),
}

/// Plans in the model of a finite environment
#[derive(Debug)]
pub struct Planner {
    spec: EnvSpec,
    model: Tabular,
    gamma: f64,
    max_rounds: usize,
    state: State,
    rounds: usize,
    converged: bool,
}

impl Planner {
    /// For the model that `env` has after a reset with `seed`
    ///
    /// # Errors
    /// An environment without a table
    pub fn new(
        mut env: Box<dyn VectorEnv>,
        method: PlanningMethod,
        gamma: f64,
        max_rounds: usize,
        seed: u64,
    ) -> Result<Self> {
        let spec = env.spec().clone();
        let mut observations = vec![0.0; env.num_envs() * spec.observation_space.len()];
        env.reset(Some(seed), &mut observations)?;
        let Some(model) = env.tabular().cloned() else {
            return Err(Error::usage(format!("`{}` has no table of what follows an action", spec.id))
                .hint("`value_iteration` and `policy_iteration` plan by one; `ppo` and others learn without"));
        };
        let state = match method {
            PlanningMethod::ValueIteration { tolerance } => {
                State::Values(ValueIteration::new(&model, gamma, tolerance))
            }
            PlanningMethod::PolicyIteration => State::Policies(PolicyIteration::new(&model, gamma)),
        };
        Ok(Self { spec, model, gamma, max_rounds, state, rounds: 0, converged: false })
    }

    /// What is known by now
    pub fn plan(&self) -> Plan {
        match &self.state {
            State::Values(state) => state.plan(&self.model),
            State::Policies(state) => state.plan(&self.model),
        }
    }

    fn values(&self) -> &[f64] {
        match &self.state {
            State::Values(state) => state.values(),
            State::Policies(state) => state.values(),
        }
    }
}

impl Agent for Planner {
    fn iterate(&mut self, _total: u64) -> Result<Figures> {
        if self.rounds >= self.max_rounds {
            return Err(not_converged("planning", self.max_rounds));
        }
        self.rounds += 1;
        let figure = match &mut self.state {
            State::Values(state) => {
                let (change, converged) = state.advance(&self.model);
                self.converged = converged;
                ("largest_change", change)
            }
            State::Policies(state) => {
                let improved = state.advance(&self.model)?;
                self.converged = improved == 0;
                ("improved_states", improved as f64)
            }
        };
        Ok(vec![figure, ("start_value", start_value(&self.model, self.values()))])
    }

    fn timesteps(&self) -> u64 {
        self.rounds as u64
    }

    fn is_done(&self, _total: u64) -> bool {
        self.converged
    }

    fn take_episodes(&mut self) -> Vec<Episode> {
        Vec::new()
    }

    fn policy(&self) -> Policy {
        let (model, values) = (&self.model, self.values());
        let states = (0..model.num_states()).flat_map(|s| (0..model.num_actions()).map(move |a| (s, a)));
        let table: Vec<f32> = states.map(|(s, a)| action_value(model, values, self.gamma, s, a) as f32).collect();
        Policy::table(&self.spec, &table, 0.0)
    }
}
