//! What is compared: methods with their responses to a prompt and gradient steps for each batch of queries.

use super::methods::{Field, Method, Settings};

/// Reward queries between updates
const BATCH: usize = 64;

/// Responses that are kept
const WINDOW: usize = 1024;

/// A method as it is compared
#[derive(Debug, Clone, Copy)]
pub struct Arm {
    /// Its name in configs and tables
    pub name: &'static str,
    /// What it is
    pub about: &'static str,
    /// The method
    pub method: Method,
    /// Responses to a prompt
    pub generations: usize,
    /// Gradient steps for each batch
    pub steps: usize,
}

impl Arm {
    const fn new(name: &'static str, about: &'static str, method: Method, generations: usize, steps: usize) -> Self {
        Self { name, about, method, generations, steps }
    }

    /// How a run of it goes
    pub fn settings(&self, queries: usize, rate: f64) -> Settings {
        let (generations, steps) = (self.generations, self.steps);
        Settings { queries, batch: BATCH, generations, steps, window: WINDOW, rate }
    }
}

/// All arms
pub const ARMS: [Arm; 14] = [
    Arm::new("ppo", "PPO, values of a network", Method::Ppo, 1, 4),
    Arm::new("ppo_field", "PPO, values of a smooth field", Method::PpoField, 1, 4),
    Arm::new("rloo", "RLOO, 4 responses", Method::Rloo, 4, 1),
    Arm::new("dro", "DRO (values of a network) with replay", Method::Dro, 1, 4),
    Arm::new("tba", "TBA/VarGrad with replay, 4 responses", Method::Tba, 4, 4),
    Arm::new("grl_mean", "GRL, one value for all prompts", Method::Grl(Field::Mean), 1, 4),
    Arm::new("grl_rbf_1", "GRL, smooth kernel, no replay", Method::Grl(Field::Smooth), 1, 1),
    Arm::new("grl_rbf", "GRL, smooth kernel", Method::Grl(Field::Smooth), 1, 4),
    Arm::new("grl_rbf_8", "GRL, smooth kernel, 8 steps", Method::Grl(Field::Smooth), 1, 8),
    Arm::new("grl_one", "GRL, 1 response", Method::Grl(Field::Composite), 1, 4),
    Arm::new("grl", "GRL, 2 responses", Method::Grl(Field::Composite), 2, 4),
    Arm::new("grl_no_replay", "GRL, 2 responses, no replay", Method::Grl(Field::Composite), 2, 1),
    Arm::new("grl_delta", "GRL, 2 responses, identity kernel", Method::Grl(Field::Identity), 2, 4),
    Arm::new("grl_permuted", "GRL, 2 responses, features permuted", Method::Grl(Field::Permuted), 2, 4),
];
