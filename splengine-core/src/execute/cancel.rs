//! Telling a run to stop.

use std::sync::Arc;

use tokio::sync::watch;

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
pub struct Cancel(watch::Receiver<Level>);

impl Cancel {
    /// Resolves when the run is to end: politely first, by force after the command's
    /// [`grace`](crate::Command::grace). Never resolves if it never is.
    ///
    /// # Cancel safety
    ///
    /// Safe: nothing is lost when the future is dropped.
    pub async fn stop_requested(&self) {
        self.level_reached(|level| *level != Level::None).await;
    }

    /// Resolves when the run is to be killed without further grace.
    ///
    /// # Cancel safety
    ///
    /// Safe: nothing is lost when the future is dropped.
    pub async fn kill_requested(&self) {
        self.level_reached(|level| matches!(level, Level::Kill(_))).await;
    }

    async fn level_reached(&self, reached: impl FnMut(&Level) -> bool) {
        if self.0.clone().wait_for(reached).await.is_err() {
            // The engine let go of the run, so no word will come any more.
            std::future::pending::<()>().await;
        }
    }
}

/// The engine's end of a [`Cancel`]. The first reason given is the one that counts.
#[derive(Debug, Clone)]
pub(crate) struct CancelSource(Arc<watch::Sender<Level>>);

impl CancelSource {
    pub(crate) fn new() -> (Self, Cancel) {
        let (sender, receiver) = watch::channel(Level::None);
        (Self(Arc::new(sender)), Cancel(receiver))
    }

    pub(crate) fn stop(&self, reason: Reason) {
        self.0.send_if_modified(|level| {
            let first = *level == Level::None;
            if first {
                *level = Level::Stop(reason);
            }
            first
        });
    }

    pub(crate) fn kill(&self, reason: Reason) {
        self.0.send_if_modified(|level| match *level {
            Level::None => {
                *level = Level::Kill(reason);
                true
            }
            Level::Stop(first) => {
                *level = Level::Kill(first);
                true
            }
            Level::Kill(_) => false,
        });
    }

    /// Why the run was told to stop, if it was.
    pub(crate) fn reason(&self) -> Option<Reason> {
        match *self.0.borrow() {
            Level::None => None,
            Level::Stop(reason) | Level::Kill(reason) => Some(reason),
        }
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
