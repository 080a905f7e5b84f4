//! Memory that was freed, given back to the system.

use std::num::NonZero;
use std::sync::Once;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::time::sleep;

#[cfg(all(target_os = "linux", target_env = "gnu"))]
use crate::process::{limit_free_memory, trim_heap};

/// Has the allocator of this process keep little memory that is free: by default glibc's keeps large pieces, and
/// has 8 arenas for each processor, each of which keeps what its threads have freed.
pub(crate) fn keep_small() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let processors = std::thread::available_parallelism().map_or(1, NonZero::get);
        limit_free_memory(ARENAS_PER_PROCESSOR * processors);
    });
}

/// Notes that so many bytes are about to be freed. Of many, the pages are given back to the system
/// within a second, on a thread that may wait; once, however often this is called meanwhile.
pub(crate) fn note_freed(bytes: usize) {
    static IS_DUE: AtomicBool = AtomicBool::new(false);
    if bytes < MIN_TRIMMED_BYTES || IS_DUE.load(SeqCst) {
        return;
    }
    let Ok(runtime) = Handle::try_current() else { return };
    if IS_DUE.swap(true, SeqCst) {
        return;
    }
    runtime.spawn(async {
        let due = Due(&IS_DUE);
        sleep(TRIM_DELAY).await;
        drop(due);
        tokio::task::spawn_blocking(trim_heap);
    });
}

/// Notes that a connection is closed: what it had in the buffers of its protocol is counted nowhere. Of every
/// [`CONNECTIONS`] it is [given back](note_freed).
pub(crate) fn note_connection_closed() {
    static CLOSED: AtomicUsize = AtomicUsize::new(0);
    if CLOSED.fetch_add(1, SeqCst) % CONNECTIONS == CONNECTIONS - 1 {
        note_freed(CONNECTIONS * CONNECTION_BYTES);
    }
}

/// Ends also with its runtime, so that another's can be the next.
struct Due(&'static AtomicBool);

impl Drop for Due {
    fn drop(&mut self) {
        self.0.store(false, SeqCst);
    }
}

/// Only glibc's allocator keeps much, and can be told not to.
#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
fn limit_free_memory(_arenas: usize) {}

#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
fn trim_heap() {}

/// Less than that is not worth the locks of the allocator.
const MIN_TRIMMED_BYTES: usize = 1 << 20;
const CONNECTIONS: usize = 64;
/// What a connection may have had in buffers.
const CONNECTION_BYTES: usize = 64 << 10;
const ARENAS_PER_PROCESSOR: usize = 2;
const TRIM_DELAY: Duration = Duration::from_secs(1);
