//! The engine: what adapters hold.

mod admission;
mod builder;
mod executions;
mod fair_queue;
mod guessing;
mod handle;
mod readiness;
mod stats;
mod supervise;
mod terms;

pub(crate) use admission::{Offered, Permit};
pub use builder::{BuildError, EngineBuilder};
pub use executions::{Admitted, ExecutionInfo, ExecutionState, QueuedRun};
pub(crate) use handle::Inner;
pub use handle::{Engine, Resumed};
pub use readiness::{PartState, Readiness};
pub use stats::{EngineStats, HistogramStats};
pub(crate) use supervise::Shutdown;
pub(crate) use terms::{SESSION_VARIABLE, check_counts, check_env};
