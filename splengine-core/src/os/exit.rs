//! Ends of processes.

use std::os::unix::process::ExitStatusExt;
use std::time::Duration;

use crate::os::Signal;

/// End of a process, as an [`Execute`](crate::Execute) found it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ExitStatus {
    /// The process exited with this code.
    Code(i32),
    /// The process was killed by this signal.
    Signal(Signal),
}

impl ExitStatus {
    /// Returns the exit code, as a shell tells it: 128+n when signal n ended it.
    #[must_use]
    pub fn exit_code(self) -> i32 {
        match self {
            Self::Code(code) => code,
            Self::Signal(signal) => 128 + signal.number(),
        }
    }

    /// Returns the signal that ended the process, if any.
    #[must_use]
    pub fn signal(self) -> Option<Signal> {
        match self {
            Self::Code(_) => None,
            Self::Signal(signal) => Some(signal),
        }
    }
}

impl From<std::process::ExitStatus> for ExitStatus {
    /// Takes over how a process of the host's own ended, for executors that start some. One that
    /// is only stopped, which [`wait`](std::process::Child::wait) tells of none, counts as exited
    /// with code 1.
    fn from(status: std::process::ExitStatus) -> Self {
        let signal = status.signal().and_then(Signal::from_number);
        signal.map_or(Self::Code(status.code().unwrap_or(1)), Self::Signal)
    }
}

/// Resources that a run used, as far as the kernel tells.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Usage {
    /// Processor time, in user mode and in the kernel: of the whole tree where it has a cgroup, else
    /// of the first process and of all that were waited for.
    pub cpu_time: Option<Duration>,
    /// Maximum memory, in bytes, that one process had resident, of the first one and of all that
    /// were waited for. Of [`LocalExecutor`](crate::LocalExecutor) it is known only where it is
    /// more than the engine's own process ever had: the kernel tells no less of a child.
    pub peak_memory: Option<u64>,
    /// Maximum number of processes and threads that the whole tree had at once. Of
    /// [`LocalExecutor`](crate::LocalExecutor) it is known with a cgroup and its pids controller,
    /// since Linux 6.1.
    pub processes: Option<u64>,
}
