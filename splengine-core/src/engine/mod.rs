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

pub(crate) use admission::{Offered, Permit};
pub use builder::{BuildError, EngineBuilder};
pub(crate) use drive::Shutdown;
pub use executions::{Admitted, ExecutionInfo, ExecutionState, QueuedRun};
pub use handle::{Engine, Resumed};
pub(crate) use handle::{Inner, SESSION_VARIABLE, check_env};
pub use readiness::{PartState, Readiness};
pub use stats::{EngineStats, HistogramStats};
