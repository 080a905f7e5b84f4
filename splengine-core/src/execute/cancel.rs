//! Telling a run to stop.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use crate::execute::Reason;

/// How hard a run is told to stop, and why.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Level {
    None,
    Stop(Reason),
    Kill(Reason),
}

/// What an [`Execute`](crate::Execute) listens to while it runs a command.
///
/// A stop may come once, and may be followed by the demand to kill at once.
#[derive(Debug, Clone)]
pub struct Cancel(Arc<Word>);

/// What a run was told, and who waits for it to change.
#[derive(Debug)]
struct Word {
    level: Mutex<Level>,
    changed: Notify,
}

impl Cancel {
    /// Resolves when the run is to end: politely first, by force after the command's
    /// [`grace`](crate::Command::grace). Never resolves if it never is.
    ///
    /// # Cancel safety
    ///
    /// Safe: nothing is lost when the future is dropped.
    pub async fn stop_requested(&self) {
        self.level_reached(|level| level != Level::None).await;
    }

    /// Resolves when the run is to be killed without further grace.
    ///
    /// # Cancel safety
    ///
    /// Safe: nothing is lost when the future is dropped.
    pub async fn kill_requested(&self) {
        self.level_reached(|level| matches!(level, Level::Kill(_))).await;
    }

    async fn level_reached(&self, reached: impl Fn(Level) -> bool) {
        let mut changed = std::pin::pin!(self.0.changed.notified());
        loop {
            changed.as_mut().enable();
            if reached(*self.0.lock()) {
                return;
            }
            changed.as_mut().await;
            changed.set(self.0.changed.notified());
        }
    }
}

/// The engine's end of a [`Cancel`]. The first reason given is the one that counts.
#[derive(Debug, Clone)]
pub(crate) struct CancelSource(Arc<Word>);

impl CancelSource {
    pub(crate) fn new() -> (Self, Cancel) {
        let word = Arc::new(Word { level: Mutex::new(Level::None), changed: Notify::new() });
        (Self(Arc::clone(&word)), Cancel(word))
    }

    pub(crate) fn stop(&self, reason: Reason) {
        let mut level = self.0.lock();
        if *level == Level::None {
            *level = Level::Stop(reason);
            drop(level);
            self.0.changed.notify_waiters();
        }
    }

    pub(crate) fn kill(&self, reason: Reason) {
        let mut level = self.0.lock();
        *level = match *level {
            Level::None => Level::Kill(reason),
            Level::Stop(first) => Level::Kill(first),
            Level::Kill(_) => return,
        };
        drop(level);
        self.0.changed.notify_waiters();
    }

    /// Why the run was told to stop, if it was.
    pub(crate) fn reason(&self) -> Option<Reason> {
        match *self.0.lock() {
            Level::None => None,
            Level::Stop(reason) | Level::Kill(reason) => Some(reason),
        }
    }
}

impl Word {
    fn lock(&self) -> MutexGuard<'_, Level> {
        self.level.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_first_reason_counts_and_kill_outranks_stop() {
        let (source, cancel) = CancelSource::new();
        assert_eq!(source.reason(), None);
        source.stop(Reason::TimedOut);
        source.stop(Reason::Cancelled);
        cancel.stop_requested().await;
        source.kill(Reason::Cancelled);
        cancel.kill_requested().await;
        assert_eq!(source.reason(), Some(Reason::TimedOut));
    }
}
