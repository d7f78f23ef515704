//! Classical reinforcement learning on Gymnasium's tasks.
//!
//! | part | holds |
//! |---|---|
//! | [`mod@env`] | the environments, vectorised; no tensor library |

pub mod env;
