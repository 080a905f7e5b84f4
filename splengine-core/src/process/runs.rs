//! The runs of this process that have a leader: the children that the engine waits for itself.

use std::collections::HashMap;
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};

use rustix::process::Pid;
use rustix::time::{ClockId, clock_gettime};

use crate::process::tag::Tag;

/// A run whose leader was not reaped yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Run {
    pub(crate) tag: Tag,
    /// No process of the run is older: in the kernel's clock ticks since it was booted.
    pub(crate) started: u64,
}

/// Runs by their leaders.
pub(crate) type Runs = HashMap<Pid, Run>;

/// Somebody waits for this child, and nobody else reaps it.
pub(crate) fn claim(leader: Pid, run: Run) {
    claimed().insert(leader, run);
}

/// Nobody waits for this child any more.
pub(crate) fn unclaim(leader: Pid) {
    claimed().remove(&leader);
}

/// Those that are claimed now.
pub(crate) fn claimed() -> MutexGuard<'static, Runs> {
    static CLAIMED: LazyLock<Mutex<Runs>> = LazyLock::new(Mutex::default);
    CLAIMED.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The present time as the kernel gives the start times of processes.
pub(crate) fn ticks_now() -> u64 {
    let now = clock_gettime(ClockId::Boottime);
    let per_second = rustix::param::clock_ticks_per_second();
    let seconds = u64::try_from(now.tv_sec).unwrap_or_default();
    let nanos = u64::try_from(now.tv_nsec).unwrap_or_default();
    seconds * per_second + nanos * per_second / 1_000_000_000
}
