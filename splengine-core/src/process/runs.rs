//! The runs of this process that have a leader: the children that the engine waits for itself.

use std::collections::{BTreeMap, HashMap};
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

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

/// A leader that is being started: until it is claimed, nobody can tell it from a stray. Ends when
/// it is dropped, behind the claim.
pub(crate) struct Starting {
    number: u64,
    pub(crate) since: u64,
}

impl Starting {
    pub(crate) fn begin() -> Self {
        let since = ticks_now();
        let (next, all) = &mut *starting();
        *next += 1;
        all.insert(*next, since);
        Self { number: *next, since }
    }
}

impl Drop for Starting {
    fn drop(&mut self) {
        starting().1.remove(&self.number);
    }
}

/// Waits until all leaders are claimed whose start has begun, for 100 ms at most: loading a program
/// may take its time. Gives since when the oldest is being started that is not. Blocks.
pub(crate) fn await_starting() -> Option<u64> {
    let begun = starting().0;
    for _ in 0..100 {
        starting().1.range(..=begun).next()?;
        std::thread::sleep(Duration::from_millis(1));
    }
    starting().1.range(..=begun).map(|(_, since)| *since).min()
}

fn starting() -> MutexGuard<'static, (u64, BTreeMap<u64, u64>)> {
    static STARTING: LazyLock<Mutex<(u64, BTreeMap<u64, u64>)>> = LazyLock::new(Mutex::default);
    STARTING.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The present time as the kernel gives the start times of processes.
pub(crate) fn ticks_now() -> u64 {
    let now = clock_gettime(ClockId::Boottime);
    let per_second = rustix::param::clock_ticks_per_second();
    let seconds = u64::try_from(now.tv_sec).unwrap_or_default();
    let nanos = u64::try_from(now.tv_nsec).unwrap_or_default();
    seconds * per_second + nanos * per_second / 1_000_000_000
}
