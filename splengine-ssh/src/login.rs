//! The state of a connection's login, for the tasks that wait for it.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};

use splengine_core::Caller;
use splengine_core::net::{Activity, ConnectionHandle};
use tokio::sync::watch;

use crate::users::{Entry, Users};

/// How far the login of a connection has come, and what runs on it since.
#[derive(Clone)]
pub(crate) struct Login(Arc<LoginState>);

/// Held while something runs whose end its client is to be told of.
pub(crate) struct Running(Login);

struct LoginState {
    connection: ConnectionHandle,
    succeeded: watch::Sender<bool>,
    /// The grant that the client logged in with.
    entry: OnceLock<Entry>,
    tried: AtomicBool,
    checking: AtomicBool,
    /// Whether a failure was counted already.
    counted: AtomicBool,
    running: watch::Sender<usize>,
}

impl Login {
    pub(crate) fn new(connection: ConnectionHandle) -> Self {
        Self(Arc::new(LoginState {
            connection,
            succeeded: watch::channel(false).0,
            entry: OnceLock::new(),
            tried: AtomicBool::new(false),
            checking: AtomicBool::new(false),
            counted: AtomicBool::new(false),
            running: watch::channel(0).0,
        }))
    }

    /// Notes that a channel is served, for as long as the activity is kept: the connection is not one
    /// on which nothing is worked at.
    pub(crate) fn begin(&self) -> Activity {
        self.0.connection.begin()
    }

    pub(crate) fn running(&self) -> Running {
        self.0.running.send_modify(|count| *count += 1);
        Running(self.clone())
    }

    /// Waits until nothing runs any more.
    pub(crate) async fn idle(&self) {
        drop(self.0.running.subscribe().wait_for(|count| *count == 0).await);
    }

    pub(crate) async fn succeeded(&self) {
        // The sender lives in `self`: the wait can't fail.
        drop(self.0.succeeded.subscribe().wait_for(|succeeded| *succeeded).await);
    }

    /// Who has logged in.
    pub(crate) fn caller(&self) -> Option<&Caller> {
        self.0.entry.get().map(|entry| &entry.grant().caller)
    }

    /// Waits until the user who logged in may not stay connected: their rights were taken back, or
    /// `users` would not let them in any more. `rechecks` is from before they were let in.
    pub(crate) async fn taken_back(&self, users: &Users, mut rechecks: watch::Receiver<u64>) {
        let Some(entry) = self.0.entry.get() else { return std::future::pending().await };
        let refused = async {
            loop {
                if rechecks.changed().await.is_err() {
                    std::future::pending::<()>().await;
                }
                if !users.would_let_in(entry).await {
                    return;
                }
            }
        };
        tokio::select! {
            () = entry.grant().caller.revoked() => {}
            () = refused => {}
        }
    }

    /// Stores the grant that the client logged in with.
    pub(crate) fn enter(&self, entry: Entry) {
        let _ = self.0.entry.set(entry);
    }

    pub(crate) fn succeed(&self) {
        self.0.succeeded.send_replace(true);
    }

    /// Says that a failure was counted.
    pub(crate) fn count_failure(&self) {
        self.0.counted.store(true, Relaxed);
    }

    pub(crate) fn has_been_tried(&self) -> bool {
        self.0.tried.load(Relaxed)
    }

    /// Whether there was an attempt to log in, none succeeded, and none was counted as a failure: who
    /// has several keys offers one after the other, and only all of them together tell anything.
    pub(crate) fn has_failed_uncounted(&self) -> bool {
        self.has_been_tried() && !*self.0.succeeded.borrow() && !self.0.counted.load(Relaxed)
    }

    pub(crate) fn is_checking(&self) -> bool {
        self.0.checking.load(Relaxed)
    }

    pub(crate) async fn check<T>(&self, work: impl Future<Output = T>) -> T {
        self.0.checking.store(true, Relaxed);
        let done = work.await;
        self.0.checking.store(false, Relaxed);
        self.0.tried.store(true, Relaxed);
        done
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.0.running.send_modify(|count| *count -= 1);
    }
}
