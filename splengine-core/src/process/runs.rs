//! The runs of this process that have a leader: the children that the engine waits for itself.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, Ordering::Acquire};
use std::sync::{Arc, Condvar, LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::process::Pid;
use rustix::time::{ClockId, clock_gettime};
use tokio::time::Instant;

use crate::process::tag::Tag;

/// A run whose leader somebody waits for, and which was not reaped yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ClaimedRun {
    pub(crate) tag: Tag,
    /// No process of the run is older: in the kernel's clock ticks since it was booted.
    pub(crate) started: u64,
}

/// Those that are claimed, by their leaders.
pub(crate) type ClaimedRuns = HashMap<Pid, ClaimedRun>;

/// Somebody waits for this child, and nobody else reaps it.
pub(crate) fn claim(leader: Pid, run: ClaimedRun) {
    claimed().insert(leader, run);
}

/// Nobody waits for this child any more.
pub(crate) fn unclaim(leader: Pid) {
    claimed().remove(&leader);
}

/// Those that are claimed now.
pub(crate) fn claimed() -> MutexGuard<'static, ClaimedRuns> {
    static CLAIMED: LazyLock<Mutex<ClaimedRuns>> = LazyLock::new(Mutex::default);
    CLAIMED.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A leader that is being started: until it is claimed, nobody can tell it from a stray. Ends when
/// it is dropped, behind the claim.
pub(crate) struct Starting {
    number: u64,
    pub(crate) since: u64,
    /// Set by the child once it holds nothing that it has inherited.
    pub(crate) has_closed: Arc<AtomicBool>,
}

#[derive(Debug)]
struct Started {
    since: u64,
    has_closed: Arc<AtomicBool>,
}

/// The number of the last one, and those that last.
type Starts = (u64, BTreeMap<u64, Started>);

impl Starting {
    pub(crate) fn begin() -> Self {
        let since = ticks_now();
        let has_closed = Arc::new(AtomicBool::new(false));
        let (next, all) = &mut *starting();
        *next += 1;
        all.insert(*next, Started { since, has_closed: Arc::clone(&has_closed) });
        Self { number: *next, since, has_closed }
    }
}

impl Drop for Starting {
    fn drop(&mut self) {
        starting().1.remove(&self.number);
        STARTED.notify_all();
    }
}

/// Waits until all leaders are claimed whose start has begun, for 100 ms at most: loading a program
/// may take its time. Gives since when the oldest is being started that is not. Blocks.
pub(crate) fn await_starting() -> Option<u64> {
    let state = starting();
    let begun = state.0;
    let lasts = |state: &mut Starts| state.1.range(..=begun).next().is_some();
    let waited = STARTED.wait_timeout_while(state, Duration::from_millis(100), lasts);
    let (state, _) = waited.unwrap_or_else(PoisonError::into_inner);
    state.1.range(..=begun).map(|(_, started)| started.since).min()
}

/// Waits until no child that is being started holds a descriptor any more that this process has
/// closed before the call: between its birth and the program that it loads, a child has all of them.
/// A file that was written can be run then. It does not wait until the program is loaded, which may take long: from a
/// slow file system, or where somebody holds a lease on it. Waits for [`MAX_INHERITED`] at most. Blocks.
pub(crate) fn await_inherited_closed() {
    let mut state = starting();
    let (begun, since) = (state.0, Instant::now());
    let holds = |started: &Started| !started.has_closed.load(Acquire);
    while state.1.range(..=begun).any(|(_, started)| holds(started))
        && since.elapsed() < MAX_INHERITED
    {
        // A child can't notify.
        let waited = STARTED.wait_timeout(state, LOOK_INTERVAL);
        (state, _) = waited.unwrap_or_else(PoisonError::into_inner);
    }
}

fn starting() -> MutexGuard<'static, Starts> {
    static STARTING: LazyLock<Mutex<Starts>> = LazyLock::new(Mutex::default);
    STARTING.lock().unwrap_or_else(PoisonError::into_inner)
}

static STARTED: Condvar = Condvar::new();

/// The present time as the kernel gives the start times of processes.
pub(crate) fn ticks_now() -> u64 {
    let now = clock_gettime(ClockId::Boottime);
    let per_second = rustix::param::clock_ticks_per_second();
    let seconds = u64::try_from(now.tv_sec).unwrap_or_default();
    let nanos = u64::try_from(now.tv_nsec).unwrap_or_default();
    seconds * per_second + nanos * per_second / 1_000_000_000
}

const MAX_INHERITED: Duration = Duration::from_secs(1);
const LOOK_INTERVAL: Duration = Duration::from_micros(500);
