//! Losses on log-probabilities, with their gradients worked out.
//!
//! Each takes plain slices and gives ∂loss/∂log π for every token; a trainer multiplies these, detached, with its own
//! log-probabilities and differentiates the sum. Per-sample values V are constants here unless a loss says otherwise.

mod batch;
mod group;
mod pair;
mod path;
mod policy;

pub use batch::{Batch, Reduction, Whole};
pub use group::group_means;
pub use pair::{Pair, PairLoss, pair};
pub(in crate::grl) use pair::{sigmoid, softplus};
pub use path::{PathLoss, SubPath, pcl, pcl_spans, residuals};
pub use policy::{PolicyLoss, awr, clip, reinforce, topr};
