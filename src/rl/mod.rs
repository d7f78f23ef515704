//! Classical reinforcement learning.
//!
//! | part | holds |
//! |---|---|
//! | [`mod@env`] | Gymnasium's environments, vectorised; no tensor library |
//! | [`token_problem`] | a token MDP small enough that its optimum is known exactly, and the methods that are compared on it |

pub mod env;
pub mod token_problem;
