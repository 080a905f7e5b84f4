//! Running commands on this host.

mod builder;
mod environment;
mod executor;
mod launch;
mod lookup;
mod pty;
mod pty_host;
mod stdio;
mod terminal;
mod termios;

pub use builder::{CgroupMode, LocalExecutorBuilder, SetupError};
pub use environment::Environment;
pub use executor::LocalExecutor;
pub use pty_host::{PtyHost, PtyHostError, run_pty_host};
