//! The executor of this host, and the process that keeps its terminals.
//!
//! [`LocalExecutor`] runs commands as child processes below a root directory; its
//! [builder](LocalExecutorBuilder) says what they begin with, of which the [`Environment`] is a part.
//! With a [`PtyHost`] the programs of sessions continue when this process ends, and the next one takes
//! them over. [`Workdirs`] and [`Environment::variables`] are for other executors of this host.
//!
//! Linux only, with the feature `local` (default).

mod builder;
mod cgroup_mode;
mod environment;
mod executor;
mod launch;
mod lookup;
mod pty;
mod pty_host;
mod stdio;
mod terminal;
mod termios;
mod workdirs;

pub use builder::{LocalExecutorBuilder, SetupError};
pub use cgroup_mode::CgroupMode;
pub use environment::Environment;
pub use executor::LocalExecutor;
pub use pty_host::{PtyHost, PtyHostError, run_pty_host};
pub use workdirs::{Workdirs, WorkdirsBuilder};
