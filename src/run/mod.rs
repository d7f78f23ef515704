//! What every run shares, whatever it trains: the run folder, checkpoints, metrics, signals, progress.
//!
//! ```text
//! RunFolder::open ─► (load, check) ─► PendingRun::begin ─► Manifest::start ─► steps ─► write_model ─► Manifest::finish
//!                                                                            │
//!             StepClock, Window ─► MetricsWriter, EventWriter, Progress ◄────┤
//!                                             CheckpointWriter, rotate ◄─────┤
//!                                                  Signals::received ────────┘
//! ```
//! Nothing here knows what a step computes.

pub mod atomic;
mod checkpoint;
pub mod clock;
mod folder;
pub mod manifest;
pub mod metrics;
pub mod names;
pub mod progress;
mod signals;
mod table;
mod tensorboard;
mod tensors;

pub use checkpoint::{Checkpoint, CheckpointWriter};
pub use clock::{Part, StepClock};
pub use folder::{OpenMode, PendingRun, Resume, RunFolder, checkpoints};
pub use manifest::{Manifest, Start};
pub use metrics::{Metrics, MetricsWriter, Row, Window};
pub use progress::Progress;
pub use signals::Signals;
pub use table::{Column, write_table};
pub use tensorboard::EventWriter;
pub use tensors::{Element, Slice, TensorFile};
