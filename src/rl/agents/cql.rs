//! Conservative Q-learning on a data set, with discrete actions.
//!
//! Kumar et al. 2020, <https://arxiv.org/abs/2006.04779>: double Q-learning, with a term that pushes down what the data
//! does not show. A weight of 0 is Q-learning as it is, which trusts in values that nothing ever tested.

use super::q_learner::{QLearner, QOptions};
use super::{Agent, Figures, Schedule};
use crate::rl::dataset::{Dataset, RecordedActions};
use crate::rl::env::rng::Pcg64;
use crate::rl::env::{EnvSpec, Episode};
use crate::rl::observer::{ActionSpace, Observer};
use crate::rl::policy::Policy;
use crate::rl::replay::{Replay, Sample};
use crate::rl::state::State;
use crate::{Error, Result};

/// Updates between two looks at signals and metrics
pub(super) const UPDATES_AT_ONCE: u64 = 100;

/// Settings of CQL
#[derive(Debug, Clone, PartialEq)]
pub struct CqlOptions {
    /// Learning rate
    pub learning_rate: Schedule,
    /// Transitions of an update
    pub batch_size: usize,
    /// γ
    pub gamma: f64,
    /// By which share the target follows after every update
    pub tau: f64,
    /// Weight of the conservative term
    pub cql_alpha: f64,
    /// Largest norm of the gradients
    pub max_grad_norm: f64,
    /// Widths of the hidden layers
    pub hidden: Vec<usize>,
}

impl Default for CqlOptions {
    fn default() -> Self {
        Self {
            learning_rate: Schedule::constant(3e-4),
            batch_size: 256,
            gamma: 0.99,
            tau: 0.005,
            cql_alpha: 1.0,
            max_grad_norm: 10.0,
            hidden: vec![256, 256],
        }
    }
}

/// The agent with its data; its time steps are updates
#[derive(Debug)]
pub struct Cql {
    options: CqlOptions,
    observer: Observer,
    replay: Replay<usize>,
    learner: QLearner,
    sample: Sample<usize>,
    rng: Pcg64,
    updates: u64,
}

impl Cql {
    /// The network is drawn from `seed`
    ///
    /// # Errors
    /// Continuous actions
    pub fn new(spec: &EnvSpec, data: &Dataset, options: CqlOptions, seed: u64) -> Result<Self> {
        let actions = ActionSpace::of(spec).count("cql", &spec.id)?;
        let RecordedActions::Discrete(done) = &data.actions else {
            return Err(Error::usage("the data set has continuous actions").hint("`iql` takes both"));
        };
        let observer = Observer::new(&spec.observation_space, false);
        let mut rng = Pcg64::new(u128::from(seed));
        let network = QOptions {
            hidden: options.hidden.clone(),
            max_grad_norm: options.max_grad_norm,
            double: true,
            dueling: false,
            conservative: options.cql_alpha,
        };
        let learner = QLearner::new(observer.width(), actions, options.batch_size, network, &mut rng);
        Ok(Self {
            replay: data.replay(&observer, options.gamma, 1, |row, action| action[0] = done[row] as usize),
            sample: Sample::new(options.batch_size, observer.width(), 1),
            learner,
            observer,
            rng,
            updates: 0,
            options,
        })
    }
}

impl Agent for Cql {
    fn iterate(&mut self, total: u64) -> Result<Figures> {
        let learning_rate = self.options.learning_rate.at((self.updates as f64 / total as f64).min(1.0));
        let updates = UPDATES_AT_ONCE.min(total.saturating_sub(self.updates)).max(1);
        let mut sums = [0.0; 3];
        for _ in 0..updates {
            self.replay.sample(0.0, &mut self.rng, &mut self.sample);
            let last = self.learner.update(&self.sample, learning_rate);
            self.learner.follow(self.options.tau);
            sums.iter_mut().zip(last).for_each(|(sum, figure)| *sum += figure);
        }
        self.updates += updates;
        let figures = ["loss", "q_value", "grad_norm"].into_iter().zip(sums.map(|sum| sum / updates as f64));
        Ok([("learning_rate", learning_rate)].into_iter().chain(figures).collect())
    }

    fn timesteps(&self) -> u64 {
        self.updates
    }

    fn take_episodes(&mut self) -> Vec<Episode> {
        Vec::new()
    }

    fn persist(&mut self, state: &mut State) -> Result<()> {
        self.learner.persist(state)?;
        state.value("rng", &mut self.rng)?;
        state.value("updates", &mut self.updates)
    }

    fn policy(&self) -> Policy {
        self.learner.policy(self.observer.clone(), 0.0)
    }
}
