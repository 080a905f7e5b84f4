//! What the operating system has words for: limits, signals, ends of processes.

mod exit;
mod limits;
mod signal;

pub use exit::{ExitStatus, Usage};
pub use limits::{LimitKind, Limits};
pub use signal::Signal;
