//! Running commands on this host.

mod attend;
mod builder;
mod environment;
mod executor;
mod holder;
mod host;
mod lookup;
mod modes;
mod pty;
mod root;
mod terminal;

pub use builder::{CgroupMode, LocalExecutorBuilder, SetupError};
pub use environment::Environment;
pub use executor::LocalExecutor;
pub use holder::{HoldError, Holder, hold};
pub(crate) use root::{Root, exhausted_or_internal};
