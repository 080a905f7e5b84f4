//! A thread for blocking work that is there when the host makes no further one.

use std::time::Duration;

use tokio::task::{AbortHandle, spawn_blocking};
use tokio::time::{MissedTickBehavior, interval};

/// At least one idle thread in the runtime's pool for blocking work, for as long as this lives.
///
/// The pool ends threads that were idle for ten seconds. Where it has none and the host makes none,
/// `spawn_blocking` panics, and yet the work is done once there is a thread: a command would run that
/// its client was told nothing of. With one thread the work waits for it, and the host's refusal is
/// met by whoever starts a process, who can tell it.
pub(crate) struct SpareThread(AbortHandle);

impl SpareThread {
    /// Must be called within a tokio runtime with time enabled.
    pub(crate) fn keep() -> Self {
        let kept = tokio::spawn(async {
            let mut uses = interval(USE_INTERVAL);
            uses.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                uses.tick().await;
                let _ = spawn_blocking(|| ()).await;
            }
        });
        Self(kept.abort_handle())
    }
}

impl Drop for SpareThread {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// How often an idle thread is used, so that not all of them end.
const USE_INTERVAL: Duration = Duration::from_secs(3);
