//! Admission: the queue before the executor, which draining closes.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, oneshot};

use crate::execute::ExecuteError;
use crate::run::fair_queue::{Capacity, FairQueue, Offer, QueuePosition};
use crate::user_name::UserName;

/// Decides under one lock who runs, waits or is refused.
#[derive(Debug)]
pub(crate) struct Admission {
    state: Mutex<State>,
    idle: Notify,
}

#[derive(Debug)]
struct State {
    fair_queue: FairQueue,
    open: bool,
    /// Those who wait. Dropping the sender refuses them.
    waiting: HashMap<QueuePosition, oneshot::Sender<()>>,
}

/// The right to run one command, or a place in the queue for it; dropping it lets the next one in.
#[derive(Debug)]
pub(crate) struct Permit {
    admission: Arc<Admission>,
    user: UserName,
    position: Option<QueuePosition>,
}

/// A permit as a run has it: the place is free when the run has ended, or when what shares the permit
/// lets go of it as well.
#[expect(dead_code, reason = "they are only held")]
pub(crate) enum RunPermit {
    Alone(Permit),
    Shared(Arc<Permit>),
}

/// What came of asking to run.
pub(crate) enum Offered {
    Now(Permit),
    Later(QueueSlot),
}

/// A place in the queue, given up when dropped.
pub(crate) struct QueueSlot {
    permit: Permit,
    called: oneshot::Receiver<()>,
    retry_after: Duration,
}

impl QueueSlot {
    /// Waits for its turn; an error when it is closed before.
    pub(crate) async fn turn(self) -> Result<Permit, ExecuteError> {
        match self.called.await {
            Ok(()) => Ok(self.permit),
            Err(_) => Err(ExecuteError::Draining { retry_after: self.retry_after }),
        }
    }
}

impl Admission {
    pub(crate) fn new(capacity: Capacity) -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::new(State {
                fair_queue: FairQueue::new(capacity),
                open: true,
                waiting: HashMap::new(),
            }),
            idle: Notify::new(),
        })
    }

    /// Lets `user` in, gives them a place in the queue, or refuses them.
    pub(crate) fn offer(
        self: &Arc<Self>,
        user: &UserName,
        retry_after: impl FnOnce() -> Duration,
    ) -> Result<Offered, ExecuteError> {
        self.offer_by(user, retry_after, FairQueue::offer)
    }

    /// The same, never refused but when it is closed: for the steps of batches, of which there
    /// are so many only.
    pub(crate) fn offer_unbounded(
        self: &Arc<Self>,
        user: &UserName,
    ) -> Result<Offered, ExecuteError> {
        self.offer_by(user, || Duration::from_secs(1), FairQueue::offer_unbounded)
    }

    fn offer_by(
        self: &Arc<Self>,
        user: &UserName,
        retry_after: impl FnOnce() -> Duration,
        offer: impl FnOnce(&mut FairQueue, &UserName) -> Offer,
    ) -> Result<Offered, ExecuteError> {
        let mut state = self.lock();
        let permit =
            |position| Permit { admission: Arc::clone(self), user: user.clone(), position };
        let offered = if state.open { Some(offer(&mut state.fair_queue, user)) } else { None };
        let called = match offered {
            Some(Offer::Run) => return Ok(Offered::Now(permit(None))),
            Some(Offer::Wait(position)) => {
                let (sender, called) = oneshot::channel();
                state.waiting.insert(position, sender);
                Some((permit(Some(position)), called))
            }
            _ => None,
        };
        let waiting = state.fair_queue.waiting();
        // It asks for the lock, too.
        drop(state);
        let retry_after = retry_after();
        match (called, offered) {
            (Some((permit, called)), _) => {
                Ok(Offered::Later(QueueSlot { permit, called, retry_after }))
            }
            (None, Some(Offer::CallerLimit(limit))) => {
                Err(ExecuteError::CallerLimit { limit, retry_after })
            }
            (None, Some(_)) => Err(ExecuteError::Full { waiting, retry_after }),
            (None, None) => Err(ExecuteError::Draining { retry_after }),
        }
    }

    /// Refuses all who wait and all who come.
    pub(crate) fn close(&self) {
        let mut state = self.lock();
        state.open = false;
        // Their permits leave the fair_queue as they drop.
        let refused = std::mem::take(&mut state.waiting);
        drop(state);
        drop(refused);
    }

    pub(crate) fn is_open(&self) -> bool {
        self.lock().open
    }

    /// How many run, and how many wait.
    pub(crate) fn counts(&self) -> (usize, usize) {
        let state = self.lock();
        (state.fair_queue.running(), state.fair_queue.waiting())
    }

    /// Resolves when nothing runs. Only to be asked when it is closed.
    pub(crate) async fn idle(&self) {
        let mut idle = std::pin::pin!(self.idle.notified());
        loop {
            idle.as_mut().enable();
            if self.counts().0 == 0 {
                return;
            }
            idle.as_mut().await;
            idle.set(self.idle.notified());
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut state = self.admission.lock();
        if let Some(position) = self.position
            && state.fair_queue.withdraw(&self.user, position)
        {
            state.waiting.remove(&position);
            return;
        }
        // Whoever is called but has gone meanwhile hands the place on when its own permit drops.
        if let Some(next) = state.fair_queue.release(&self.user)
            && let Some(sender) = state.waiting.remove(&next)
        {
            let _ = sender.send(());
        }
        // Nobody waits for that before it is closed.
        if !state.open && state.fair_queue.running() == 0 {
            self.admission.idle.notify_waiters();
        }
    }
}
