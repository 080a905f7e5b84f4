//! The engine: what adapters hold.

mod authenticate;
mod builder;
mod connections;
#[expect(clippy::module_inception, reason = "the type that the folder is named for")]
mod engine;
mod executions;
mod readiness;
mod stats;

pub use crate::part_state::PartState;
pub use crate::run::{Admitted, ExecutionInfo, ExecutionState, HistogramStats, QueuedRun};
pub use builder::{BuildError, EngineBuilder};
pub use engine::{Engine, Resumed};
pub use readiness::Readiness;
pub use stats::EngineStats;
