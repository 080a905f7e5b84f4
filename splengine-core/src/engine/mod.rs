//! The engine: what adapters hold.

mod admission;
mod builder;
mod drive;
mod executions;
mod guessing;
mod handle;
mod readiness;
mod rota;
mod stats;
mod terms;

pub(crate) use admission::{Offered, Permit};
pub use builder::{BuildError, EngineBuilder};
pub(crate) use drive::Shutdown;
pub use executions::{Admitted, ExecutionInfo, ExecutionState, QueuedRun};
pub(crate) use handle::Inner;
pub use handle::{Engine, Resumed};
pub use readiness::{PartState, Readiness};
pub use stats::{EngineStats, HistogramStats};
pub(crate) use terms::{SESSION_VARIABLE, check_counts, check_env};
