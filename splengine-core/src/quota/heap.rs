//! Memory that was freed, given back to the system.

use std::sync::Once;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::time::sleep;

use crate::process::{return_large_allocations, trim_heap};

/// Has the allocator of this process keep no large pieces of memory that are free: glibc's does by
/// default.
pub(crate) fn keep_small() {
    static ONCE: Once = Once::new();
    ONCE.call_once(return_large_allocations);
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

/// Ends also with its runtime, so that another's can be the next.
struct Due(&'static AtomicBool);

impl Drop for Due {
    fn drop(&mut self) {
        self.0.store(false, SeqCst);
    }
}

/// Less than that is not worth the locks of the allocator.
const MIN_TRIMMED_BYTES: usize = 1 << 20;
const TRIM_DELAY: Duration = Duration::from_secs(1);
