//! What runs look like side by side: statistics over runs and tasks, curves, one HTML page.

pub mod chart;
mod completions;
pub mod page;
pub mod run;
pub mod statistics;

pub use page::render;
pub use run::Run;
