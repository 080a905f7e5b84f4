//! The answers on a connection, and how far its client has taken them.

use std::collections::BTreeMap;
use std::sync::atomic::{
    AtomicBool, AtomicU64, AtomicUsize,
    Ordering::{Acquire, Relaxed},
};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep_until};

use crate::net::http2_frames::Arrived;

/// The requests of one connection that are not over.
#[derive(Debug)]
pub(crate) struct Answers {
    begun: Instant,
    next: AtomicU64,
    open: Mutex<BTreeMap<u64, Arc<Answer>>>,
    arriving: Mutex<Arriving>,
    most: AtomicUsize,
    /// For requests of an unauthenticated connection; closed when it is authenticated.
    pub(super) turns: Arc<Semaphore>,
}

/// What has come on the connection since no request was open.
#[derive(Debug)]
struct Arriving {
    /// How many requests have come since a time that are not begun. Those that the library refuses never are.
    requests: usize,
    since: Instant,
    /// How many had come before; forgotten after a while.
    earlier_requests: usize,
    /// How many have come last, which the library does not have yet.
    withheld_requests: usize,
    /// How many came with what was read last.
    last_requests: usize,
    /// How much memory trailers take.
    trailers: usize,
}

/// How far the client has taken an answer.
#[derive(Debug)]
pub(super) struct Answer {
    /// Some of it is there and waits for the client.
    pub(super) is_ready: AtomicBool,
    /// How many pieces of it were handed out and not written to the end.
    pub(super) unwritten: AtomicUsize,
    /// When the client last took some of it, in milliseconds since `Answers::begun`.
    pub(super) moved: AtomicU64,
}

impl Answers {
    pub(crate) fn new(max_unauthenticated: usize) -> Self {
        let turns = Semaphore::new(max_unauthenticated.clamp(1, Semaphore::MAX_PERMITS));
        Self {
            begun: Instant::now(),
            next: AtomicU64::new(0),
            open: Mutex::default(),
            arriving: Mutex::new(Arriving::new()),
            most: AtomicUsize::new(0),
            turns: Arc::new(turns),
        }
    }

    /// Lets all requests have their turn at once.
    pub(crate) fn set_authenticated(&self) {
        self.turns.close();
    }

    pub(super) fn begin(&self) -> (u64, Arc<Answer>) {
        self.arriving().begin();
        let number = self.next.fetch_add(1, Relaxed);
        let answer = Arc::new(Answer {
            is_ready: AtomicBool::new(false),
            unwritten: AtomicUsize::new(0),
            moved: AtomicU64::new(0),
        });
        self.lock().insert(number, Arc::clone(&answer));
        (number, answer)
    }

    /// Counts requests that are to begin, and trailers that have come.
    pub(super) fn count(&self, arrived: Arrived) {
        if arrived.requests == 0 && arrived.trailers == 0 {
            self.arriving().last_requests = 0;
            return;
        }
        let open = self.lock().len();
        let mut arriving = self.arriving();
        arriving.begin_anew(open);
        arriving.requests = arriving.requests.saturating_add(arrived.requests);
        arriving.last_requests = arrived.requests;
        arriving.trailers = arriving.trailers.saturating_add(arrived.trailers);
        self.most.fetch_max(open.saturating_add(arriving.count()), Relaxed);
    }

    /// Notes whether the library does not have yet what has come last.
    pub(super) fn set_withheld(&self, is_withheld: bool) {
        let mut arriving = self.arriving();
        if is_withheld {
            let requests = std::mem::take(&mut arriving.last_requests).min(arriving.requests);
            arriving.requests -= requests;
            arriving.withheld_requests += requests;
        } else {
            arriving.forget_refused();
            arriving.requests += std::mem::take(&mut arriving.withheld_requests);
        }
    }

    /// How many requests are open, or have come and are not begun yet.
    pub(super) fn coming(&self) -> usize {
        let open = self.lock().len();
        open.saturating_add(self.arriving().count())
    }

    /// Counts so many requests as if they were open at once.
    pub(super) fn set_most(&self, count: usize) {
        self.most.fetch_max(count, Relaxed);
    }

    /// The largest number of requests that were open at once.
    pub(super) fn most(&self) -> usize {
        self.most.load(Relaxed)
    }

    /// How much memory trailers may take, which they do until the answer was written, if those of one request take
    /// `max` at most.
    pub(super) fn held_trailers(&self, max: usize) -> usize {
        let open = self.lock().len();
        let mut arriving = self.arriving();
        arriving.begin_anew(open);
        arriving.trailers.min(open.saturating_add(arriving.count()).saturating_mul(max))
    }

    fn arriving(&self) -> MutexGuard<'_, Arriving> {
        self.arriving.lock().unwrap_or_else(PoisonError::into_inner)
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

    pub(super) fn touch(&self, answer: &Answer) {
        let time = u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        answer.moved.store(time, Relaxed);
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, Arc<Answer>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Arriving {
    fn new() -> Self {
        Self {
            requests: 0,
            since: Instant::now(),
            earlier_requests: 0,
            withheld_requests: 0,
            last_requests: 0,
            trailers: 0,
        }
    }

    fn count(&self) -> usize {
        let handed_on = self.requests.saturating_add(self.earlier_requests);
        handed_on.saturating_add(self.withheld_requests)
    }

    /// Notes that one of the requests has begun.
    fn begin(&mut self) {
        let from = match self.earlier_requests {
            0 => &mut self.requests,
            _ => &mut self.earlier_requests,
        };
        *from = from.saturating_sub(1);
    }

    fn forget_refused(&mut self) {
        let age = self.since.elapsed();
        if age >= ALL_HAVE_BEGUN {
            self.earlier_requests = if age < 2 * ALL_HAVE_BEGUN { self.requests } else { 0 };
            (self.requests, self.since) = (0, Instant::now());
        }
    }

    /// Forgets requests that the library has had for a while and that have not begun, and all where nothing is `open`
    /// and nothing comes any more.
    fn begin_anew(&mut self, open: usize) {
        self.forget_refused();
        if open == 0 && self.count() == 0 {
            *self = Self::new();
        }
    }
}

impl Answer {
    fn waits_since(&self) -> Option<u64> {
        // What is seen to wait has the time at which it began to.
        let waits = self.is_ready.load(Acquire) || self.unwritten.load(Acquire) > 0;
        waits.then(|| self.moved.load(Relaxed))
    }
}

/// The library has refused what was not begun by then.
const ALL_HAVE_BEGUN: Duration = Duration::from_secs(1);
/// In the time for which an answer may wait, so many looks are taken whether one does.
const LOOKS: u32 = 4;
/// A timeout of zero must not keep a processor busy.
const MIN_LOOK_INTERVAL: Duration = Duration::from_millis(10);
/// The timeout is another one once a client has authenticated.
const MAX_LOOK_INTERVAL: Duration = Duration::from_secs(15);

#[cfg(test)]
mod tests {
    use super::*;

    fn arrived(requests: usize) -> Arrived {
        Arrived { requests, ..Arrived::default() }
    }

    #[tokio::test(start_paused = true)]
    async fn requests_that_the_library_has_refused_are_forgotten_beside_one_that_is_open() {
        let answers = Answers::new(usize::MAX);
        answers.count(arrived(1));
        answers.begin();
        for _ in 0..1000 {
            // More come all the time, of which each second one begins.
            answers.count(arrived(2));
            let (number, _) = answers.begin();
            answers.lock().remove(&number);
            tokio::time::sleep(ALL_HAVE_BEGUN / 20).await;
        }
        assert!(answers.coming() <= 100, "{} requests", answers.coming());
        assert!(answers.most() <= 100, "{} requests", answers.most());
    }

    #[tokio::test(start_paused = true)]
    async fn requests_that_wait_for_memory_are_not_forgotten() {
        let answers = Answers::new(usize::MAX);
        answers.count(arrived(20));
        answers.set_withheld(true);
        tokio::time::sleep(10 * ALL_HAVE_BEGUN).await;
        answers.held_trailers(0);
        assert_eq!(answers.coming(), 20);
        answers.set_withheld(false);
        answers.held_trailers(0);
        assert_eq!(answers.coming(), 20);
        tokio::time::sleep(2 * ALL_HAVE_BEGUN).await;
        answers.held_trailers(0);
        assert_eq!(answers.coming(), 0);
    }
}
