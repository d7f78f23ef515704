//! Agents, one file each.
//!
//! | kind | agents |
//! |---|---|
//! | [`planning`], which knows the model | policy evaluation, value iteration, policy iteration |
//! | [`tabular`], on finite environments | Q-learning, SARSA, expected SARSA, with an [`Exploration`] |

mod exploration;
pub mod planning;
pub mod tabular;

pub use exploration::Exploration;
pub use tabular::{TabularAgent, TabularMethod, TabularOptions};
