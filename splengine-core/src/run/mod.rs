//! Runs of commands: checked, let in one after the other, supervised to their ends.

mod admission;
mod admit;
mod executions;
mod fair_queue;
mod policy;
mod resolve;
mod rights;
mod runner;
mod shutdown_stage;
mod start;
mod stats;
mod supervise;

pub(crate) use admission::{Admission, Offered, Permit};
pub use admit::{Admitted, QueuedRun};
pub use executions::{ExecutionInfo, ExecutionState};
pub(crate) use fair_queue::Capacity;
pub(crate) use policy::Policy;
pub(crate) use resolve::{SESSION_VARIABLE, SessionPlace, check_counts, check_env};
pub(crate) use rights::may_execute;
pub(crate) use runner::Runner;
pub(crate) use shutdown_stage::ShutdownStage;
pub use stats::HistogramStats;
pub(crate) use stats::{Counters, counts};
#[cfg(feature = "testing")]
pub(crate) use supervise::{ABANDON_AFTER, verdict};
