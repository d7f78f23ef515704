//! Classical reinforcement learning.
//!
//! | part | holds |
//! |---|---|
//! | [`token_problem`] | a token MDP small enough that its optimum is known exactly, and the methods that are compared on it |

pub mod token_problem;
