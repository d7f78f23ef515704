//! What runs look like side by side: statistics over runs and tasks, curves, one HTML page.

pub mod chart;
mod completions;
pub mod page;
pub mod paired;
pub mod run;
pub mod statistics;
pub mod verdict;
pub mod verdict_doubt;

pub use page::render;
pub use run::Run;
