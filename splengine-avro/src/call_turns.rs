//! Bounds on the calls that are worked at for one caller, and on the calls of one connection that wait.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use splengine_core::quota::{KeyedPermit, KeyedSemaphore};
use splengine_core::{ErrorKind, UserName};
use tokio::sync::Notify;
use tokio::time::timeout;

use crate::error::Failure;

/// Turns of callers: of each so many calls are worked at at once, over all connections. The next waits
/// for one of them to be over.
#[derive(Debug)]
pub(crate) struct CallTurns(KeyedSemaphore<UserName>);

/// Calls of one connection that are not at their turn, which is not known before it is known whose they are.
/// Their messages are in memory; at the bound no further one is read.
#[derive(Debug, Clone, Default)]
pub(crate) struct WaitingCalls(Arc<Waiting>);

#[derive(Debug, Default)]
struct Waiting {
    bytes: AtomicUsize,
    freed: Notify,
}

/// A call that is not at its turn.
#[derive(Debug)]
pub(crate) struct WaitingCall {
    of: WaitingCalls,
    bytes: usize,
}

impl CallTurns {
    /// Waits for the turn of a call of `user`. Nothing else may be held that another call of theirs waits
    /// for while it has its turn.
    pub(crate) async fn turn(&self, user: &UserName) -> Result<KeyedPermit<UserName>, Failure> {
        let turn = async {
            let mut turn = self.0.enter(user.clone()).ok()?;
            turn.wait().await;
            Some(turn)
        };
        timeout(TIMEOUT, turn).await.ok().flatten().ok_or_else(|| {
            let message = format!(
                "{MAX_CALLS_PER_CALLER} calls of yours are being worked at, the maximum; try again in \
                 a second"
            );
            Failure::of_kind(ErrorKind::CallerLimit, message, Some(Duration::from_secs(1)))
        })
    }
}

impl Default for CallTurns {
    fn default() -> Self {
        // How many wait is bounded by the connections, and by what those of each hold.
        Self(KeyedSemaphore::new(MAX_CALLS_PER_CALLER))
    }
}

impl WaitingCalls {
    /// Counts a call, until it is dropped. So many bytes of its message are not counted elsewhere.
    pub(crate) fn begin(&self, bytes: usize) -> WaitingCall {
        let bytes = bytes + CALL_BYTES;
        self.0.bytes.fetch_add(bytes, Relaxed);
        WaitingCall { of: self.clone(), bytes }
    }

    pub(crate) fn are_too_many(&self) -> bool {
        self.0.bytes.load(Relaxed) >= MAX_WAITING_BYTES
    }

    /// Waits until they are fewer.
    pub(crate) async fn fewer(&self) {
        self.0.freed.notified().await;
    }
}

impl Drop for WaitingCall {
    fn drop(&mut self) {
        let waiting = &self.of.0;
        if waiting.bytes.fetch_sub(self.bytes, Relaxed) >= MAX_WAITING_BYTES {
            waiting.freed.notify_one();
        }
    }
}

/// Whether a call of `message` is worked at whatever else its caller waits for: those that end something,
/// or keep it, which takes no time.
pub(crate) fn needs_no_turn(message: &str) -> bool {
    matches!(message, "cancel" | "endSession" | "keepAlive")
}

/// Calls of one caller that are worked at at once.
const MAX_CALLS_PER_CALLER: usize = 256;
/// How long a call waits for its turn.
const TIMEOUT: Duration = Duration::from_secs(30);
/// What the calls of a connection that wait take at most, but for the last of them.
const MAX_WAITING_BYTES: usize = 64 << 10;
/// What a call takes beside its message, about.
const CALL_BYTES: usize = 1 << 10;
