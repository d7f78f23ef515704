//! Classical reinforcement learning.
//!
//! | part | holds |
//! |---|---|
//! | [`mod@env`] | Gymnasium's environments, vectorised; no tensor library |
//! | [`agents`] | planning and learning agents |
//! | [`token_problem`] | a token MDP small enough that its optimum is known exactly, and the methods that are compared on it |

pub mod agents;
pub mod dataset;
pub mod env;
pub mod evaluate;
pub mod hindsight;
pub mod mlp;
pub mod n_step;
pub mod normalize;
pub mod observer;
pub mod optimizer;
pub mod policy;
pub mod priority;
pub mod random;
pub mod replay;
pub mod rollout;
pub mod saved;
pub mod state;
pub mod token_problem;
pub mod train;
