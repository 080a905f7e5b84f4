//! Requests that are worked at on a connection, and whether their answers are read.

use std::collections::BTreeMap;
use std::sync::atomic::{
    AtomicBool, AtomicU64, AtomicUsize,
    Ordering::{Acquire, Relaxed, Release},
};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, sleep_until};

use crate::net::connection::Shared;

/// A request that is worked at, until this is dropped and all of its answer that was
/// [handed out](Self::hand_out). Made by [`ConnectionHandle::begin`].
///
/// [`ConnectionHandle::begin`]: crate::net::ConnectionHandle::begin
#[derive(Debug)]
#[must_use = "the request is over when this is dropped"]
pub struct Activity {
    shared: Arc<Shared>,
    number: u64,
    answer: Arc<Answer>,
    /// Held by a request of an unauthenticated connection that is at its turn.
    turn: Option<OwnedSemaphorePermit>,
}

/// The requests of one connection that are not over.
#[derive(Debug)]
pub(crate) struct Answers {
    begun: Instant,
    next: AtomicU64,
    open: Mutex<BTreeMap<u64, Arc<Answer>>>,
    /// For requests of an unauthenticated connection; closed when it is authenticated.
    turns: Arc<Semaphore>,
}

/// How far the client has taken an answer.
#[derive(Debug)]
struct Answer {
    /// Some of it is there and waits for the client.
    is_ready: AtomicBool,
    /// How many pieces of it were handed out and not written to the end.
    unwritten: AtomicUsize,
    /// When the client last took some of it, in milliseconds since `Answers::begun`.
    moved: AtomicU64,
}

impl Answers {
    pub(crate) fn new(max_unauthenticated: usize) -> Self {
        let turns = Semaphore::new(max_unauthenticated.clamp(1, Semaphore::MAX_PERMITS));
        Self {
            begun: Instant::now(),
            next: AtomicU64::new(0),
            open: Mutex::default(),
            turns: Arc::new(turns),
        }
    }

    /// Lets all requests have their turn at once.
    pub(crate) fn set_authenticated(&self) {
        self.turns.close();
    }

    fn begin(&self) -> (u64, Arc<Answer>) {
        let number = self.next.fetch_add(1, Relaxed);
        let answer = Arc::new(Answer {
            is_ready: AtomicBool::new(false),
            unwritten: AtomicUsize::new(0),
            moved: AtomicU64::new(0),
        });
        self.lock().insert(number, Arc::clone(&answer));
        (number, answer)
    }

    /// Resolves when an answer waits for the client for the time that `timeout` returns then,
    /// with whether answers that wait are meant by then.
    pub(crate) async fn unread_for(&self, timeout: impl Fn() -> (Duration, bool)) {
        loop {
            let (now, (timeout, is_meant)) = (Instant::now(), timeout());
            let oldest = self.lock().values().filter_map(|answer| answer.waits_since()).min();
            let since = oldest.filter(|_| is_meant);
            let since = since.map(|moved| self.begun + Duration::from_millis(moved));
            if since.is_some_and(|since| now.saturating_duration_since(since) >= timeout) {
                return;
            }
            // One that begins to wait just now is looked at a little late.
            let next = match since {
                Some(since) => since.checked_add(timeout),
                None => {
                    let look = (timeout / LOOKS).clamp(MIN_LOOK_INTERVAL, MAX_LOOK_INTERVAL);
                    now.checked_add(look)
                }
            };
            match next {
                Some(next) => sleep_until(next).await,
                None => std::future::pending().await,
            }
        }
    }

    fn touch(&self, answer: &Answer) {
        let time = u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        answer.moved.store(time, Relaxed);
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, Arc<Answer>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Answer {
    fn waits_since(&self) -> Option<u64> {
        // What is seen to wait has the time at which it began to.
        let waits = self.is_ready.load(Acquire) || self.unwritten.load(Acquire) > 0;
        waits.then(|| self.moved.load(Relaxed))
    }
}

impl Activity {
    pub(crate) fn begin(shared: Arc<Shared>) -> Self {
        shared.progress.active.send_modify(|count| *count += 1);
        let (number, answer) = shared.answers.begin();
        Self { shared, number, answer, turn: None }
    }

    /// Waits until the request may be answered: on an unauthenticated connection at most
    /// [`max_unauthenticated_requests`](crate::net::ConnectionLimits::max_unauthenticated_requests)
    /// are worked at at once, each until its answer was written, so that a client which reads none
    /// of them holds little memory. Once somebody has authenticated, none waits any more.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future gives up the place in the line.
    pub async fn turn(&mut self) {
        self.turn = Arc::clone(&self.shared.answers.turns).acquire_owned().await.ok();
    }

    /// Notes whether a part of the answer is ready, for which the client has no room yet. See
    /// [`ConnectionHandle::answer_unread`](crate::net::ConnectionHandle::answer_unread).
    pub fn set_waits_for_client(&self, waits: bool) {
        self.shared.answers.touch(&self.answer);
        self.answer.is_ready.store(waits, Release);
    }

    /// Returns `data`, a part of the answer, such that the request is not over before all of it is
    /// dropped: for what lies in the buffers of a protocol until the client has room.
    #[must_use]
    pub fn hand_out(self: &Arc<Self>, data: Bytes) -> Bytes {
        self.shared.answers.touch(&self.answer);
        self.answer.unwritten.fetch_add(1, Release);
        Bytes::from_owner(Part { data, activity: Arc::clone(self) })
    }
}

impl Drop for Activity {
    fn drop(&mut self) {
        let Shared { answers, progress, place, .. } = &*self.shared;
        answers.lock().remove(&self.number);
        progress.active.send_modify(|count| *count -= 1);
        if let Some(place) = place {
            place.set_idle();
        }
    }
}

/// A part of an answer that was handed out.
struct Part {
    data: Bytes,
    activity: Arc<Activity>,
}

impl AsRef<[u8]> for Part {
    fn as_ref(&self) -> &[u8] {
        &self.data
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        let Activity { shared, answer, .. } = &*self.activity;
        shared.answers.touch(answer);
        answer.unwritten.fetch_sub(1, Release);
    }
}

/// In the time for which an answer may wait, so many looks are taken whether one does.
const LOOKS: u32 = 4;
/// A timeout of zero must not keep a processor busy.
const MIN_LOOK_INTERVAL: Duration = Duration::from_millis(10);
/// The timeout is another one when somebody has authenticated.
const MAX_LOOK_INTERVAL: Duration = Duration::from_secs(15);
