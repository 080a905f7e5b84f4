//! Limits, signals and ends of processes, as the operating system defines them.

mod exit;
mod limits;
mod signal;

pub use exit::{ExitStatus, Usage};
pub use limits::{LimitKind, Limits};
pub use signal::Signal;
