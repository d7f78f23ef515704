//! What runs look like side by side: statistics over runs and tasks, curves, one HTML page.

pub mod chart;
mod completions;
pub mod page;
pub mod run;
pub mod scatter;
pub mod section;
pub mod statistics;
mod template;

pub use page::{render, render_after};
pub use run::Run;
