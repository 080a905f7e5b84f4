//! Requests to stop a run.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use crate::execute::Reason;
use crate::os::Signal;

/// How hard a run is told to stop, and why.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum CancelLevel {
    None,
    Stop(Reason),
    Kill(Reason),
}

/// Requests to stop, for which an [`Execute`](crate::Execute) waits while it runs a command.
///
/// A request to stop may come once, and may be followed by one to kill at once. Signals may come any
/// number of times.
///
/// ```
/// use std::time::Duration;
/// use splengine_core::execute::{Cancel, Command, Exit, ExitStatus, Output, Stdin};
/// use splengine_core::{Caller, Engine, Execute, ExecuteError, Reason, Request};
///
/// /// Waits for an hour, or until it is told to stop.
/// struct Wait;
///
/// impl Execute for Wait {
///     async fn execute(
///         &self,
///         _command: Command,
///         _stdin: Stdin,
///         output: Output,
///         cancel: Cancel,
///     ) -> Result<Exit, ExecuteError> {
///         output.started();
///         tokio::select! {
///             () = cancel.stop_requested() => Ok(Exit::new(ExitStatus::Code(143)).stopped()),
///             () = tokio::time::sleep(Duration::from_secs(3600)) => {
///                 Ok(Exit::new(ExitStatus::Code(0)))
///             }
///         }
///     }
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let engine = Engine::builder(Wait).build()?;
/// let alice = Caller::new("alice")?.with_all_scopes();
/// let run = engine.execute(&alice, Request::new("anything")).await?;
/// run.stopper().stop();
/// assert_eq!(run.capture().await.end.reason, Reason::Cancelled);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct Cancel(Arc<CancelState>);

/// What a run was told, and who waits for it to change.
#[derive(Debug)]
struct CancelState {
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Debug)]
struct State {
    level: CancelLevel,
    signals: VecDeque<Signal>,
}

impl Cancel {
    /// Resolves when the run is to end: it is to be asked first, and killed after the command's
    /// [`grace`](crate::execute::Command::grace). Never resolves if there is no such request.
    ///
    /// # Cancel safety
    ///
    /// Safe: nothing is lost when the future is dropped.
    pub async fn stop_requested(&self) {
        self.level_reached(|level| level != CancelLevel::None).await;
    }

    /// Resolves when the run is to be killed without further grace.
    ///
    /// # Cancel safety
    ///
    /// Safe: nothing is lost when the future is dropped.
    pub async fn kill_requested(&self) {
        self.level_reached(|level| matches!(level, CancelLevel::Kill(_))).await;
    }

    /// Waits for the next signal that the program is to get, in the order in which they were sent. An
    /// executor whose programs can't get signals need not call it.
    ///
    /// # Cancel safety
    ///
    /// Safe: no signal is lost when the future is dropped.
    pub async fn signalled(&self) -> Signal {
        self.once(|state| state.signals.pop_front()).await
    }

    async fn level_reached(&self, reached: impl Fn(CancelLevel) -> bool) {
        self.once(|state| reached(state.level).then_some(())).await;
    }

    async fn once<T>(&self, mut look: impl FnMut(&mut State) -> Option<T>) -> T {
        let mut changed = std::pin::pin!(self.0.changed.notified());
        loop {
            changed.as_mut().enable();
            if let Some(found) = look(&mut self.0.lock()) {
                return found;
            }
            changed.as_mut().await;
            changed.set(self.0.changed.notified());
        }
    }
}

/// The engine's end of a [`Cancel`]. The first reason given is the one that counts.
#[derive(Debug, Clone)]
pub(crate) struct CancelSource(Arc<CancelState>);

impl CancelSource {
    pub(crate) fn new() -> (Self, Cancel) {
        let state = State { level: CancelLevel::None, signals: VecDeque::new() };
        let word = Arc::new(CancelState { state: Mutex::new(state), changed: Notify::new() });
        (Self(Arc::clone(&word)), Cancel(word))
    }

    pub(crate) fn stop(&self, reason: Reason) {
        let mut state = self.0.lock();
        if state.level == CancelLevel::None {
            state.level = CancelLevel::Stop(reason);
            drop(state);
            self.0.changed.notify_waiters();
        }
    }

    pub(crate) fn kill(&self, reason: Reason) {
        let mut state = self.0.lock();
        state.level = match state.level {
            CancelLevel::None => CancelLevel::Kill(reason),
            CancelLevel::Stop(first) => CancelLevel::Kill(first),
            CancelLevel::Kill(_) => return,
        };
        drop(state);
        self.0.changed.notify_waiters();
    }

    pub(crate) fn signal(&self, signal: Signal) {
        let mut state = self.0.lock();
        if state.signals.len() < MAX_SIGNALS {
            state.signals.push_back(signal);
            drop(state);
            self.0.changed.notify_waiters();
        }
    }

    /// Why the run was told to stop, if it was.
    pub(crate) fn reason(&self) -> Option<Reason> {
        match self.0.lock().level {
            CancelLevel::None => None,
            CancelLevel::Stop(reason) | CancelLevel::Kill(reason) => Some(reason),
        }
    }
}

impl CancelState {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How many signals wait for an executor that does not ask for them.
const MAX_SIGNALS: usize = 16;

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
