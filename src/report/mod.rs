//! What runs look like side by side: statistics over runs and tasks, curves, HTML pages.

pub mod chart;
pub mod claims;
pub mod compare_page;
pub mod comparison;
mod completions;
pub mod curve;
pub mod intervals;
pub mod page;
pub mod paired;
pub mod run;
pub mod scatter;
pub mod section;
pub mod statistics;
mod template;
pub mod verdict;
pub mod verdict_doubt;

pub use comparison::Comparison;
pub use page::{render, render_after};
pub use run::Run;
