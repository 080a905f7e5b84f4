//! Runs of commands: checked, let in one after the other, supervised to their ends.

mod admission;
mod executions;
mod fair_queue;
mod policy;
mod resolve;
mod runner;
mod stats;
mod supervise;

pub(crate) use admission::{Admission, Offered, Permit};
pub use executions::{Admitted, ExecutionInfo, ExecutionState, QueuedRun};
pub(crate) use fair_queue::Capacity;
pub(crate) use policy::Policy;
pub(crate) use resolve::{SESSION_VARIABLE, SessionPlace, check_counts, check_env};
pub(crate) use runner::{Runner, may_execute};
pub use stats::HistogramStats;
pub(crate) use stats::{Counters, counts};
pub(crate) use supervise::Shutdown;
