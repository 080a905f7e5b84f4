//! The engine, its builder, and its statistics.
//!
//! [`Engine::builder`] begins an [`Engine`], of which every server holds a clone. [`EngineStats`]
//! has its counters, [`Readiness`] whether its parts take work, and [`ExecutionInfo`] what runs or
//! waits. [`Admitted`] is for adapters that tell their clients that a command waits. [`Servers`] runs the
//! servers of an engine, and ends them with it.

mod authenticate;
mod build_error;
mod builder;
mod connections;
#[expect(clippy::module_inception, reason = "the type that the folder is named for")]
mod engine;
mod executions;
mod guessing;
mod opening;
mod readiness;
mod servers;
mod stats;

pub use crate::part_state::PartState;
pub use crate::run::{Admitted, ExecutionInfo, ExecutionState, HistogramStats, QueuedRun};
pub use build_error::BuildError;
pub use builder::EngineBuilder;
pub use engine::{Engine, Resumed};
pub use readiness::Readiness;
pub use servers::Servers;
pub use stats::EngineStats;
