use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

use tokio::sync::Notify;

use crate::net::HttpBounds;
use crate::net::state::ConnectionState;

/// The body of a request on a multiplexed connection, which its library may hold parts of until they are read.
/// Made by [`Activity::body`](crate::net::Activity::body); the body is over when this is dropped.
#[derive(Debug)]
#[must_use = "the body is over when this is dropped"]
pub struct UnreadBody {
    arrival: Arc<Arrival>,
    /// How much was read of the connection at some time, and how much of the body was taken since.
    mark: u64,
    taken: u64,
    /// Whether somebody has begun to read it.
    is_touched: bool,
}

/// Is told when more of a body has come that waited for it.
#[derive(Debug)]
struct Arrival {
    state: Arc<ConnectionState>,
    number: u64,
    /// Whether it was told since the body was polled.
    is_told: AtomicBool,
    reader: Mutex<Option<Waker>>,
}

impl UnreadBody {
    pub(super) fn begin(state: Arc<ConnectionState>, refused: Arc<Notify>) -> Self {
        let (number, mark) = (state.unread.add(refused), state.unread.read());
        let (is_told, reader) = (AtomicBool::new(false), Mutex::default());
        Self {
            arrival: Arc::new(Arrival { state, number, is_told, reader }),
            mark,
            taken: 0,
            is_touched: false,
        }
    }

    /// Polls the body by `poll` for its next frame, and notes what that gives: a frame, of whose length `bytes` tells,
    /// the end, or nothing for now. In the last case the body holds nothing until the task is woken.
    pub fn poll<T>(
        &mut self,
        cx: &mut Context<'_>,
        poll: impl FnOnce(&mut Context<'_>) -> Poll<Option<T>>,
        bytes: impl FnOnce(&T) -> usize,
    ) -> Poll<Option<T>> {
        let Arrival { state, number, is_told, .. } = &*self.arrival;
        if !std::mem::replace(&mut self.is_touched, true) {
            state.unread.set_touched(*number);
        }
        *self.arrival.reader() = Some(cx.waker().clone());
        is_told.store(false, SeqCst);
        let waker = Waker::from(Arc::clone(&self.arrival));
        let polled = poll(&mut Context::from_waker(&waker));
        match &polled {
            Poll::Pending => {
                (self.mark, self.taken) = (state.unread.read(), 0);
                state.unread.set_drained_at(*number, None);
                // It may have been told before it was known to wait.
                if is_told.load(SeqCst) {
                    state.unread.set_woken(*number);
                }
                state.count_held();
            }
            Poll::Ready(None) => self.end(),
            Poll::Ready(Some(frame)) => {
                state.unread.set_woken(*number);
                let bytes = bytes(frame);
                if bytes > 0 {
                    state.unread.set_taken(bytes);
                }
                self.taken = self.taken.saturating_add(bytes as u64);
                // What there was of it at the mark is taken: there is never more than its window.
                if self.taken > u64::from(HttpBounds::MAX_UNREAD_BODY_BYTES) {
                    state.unread.set_drained_at(*number, Some(self.mark));
                    (self.mark, self.taken) = (state.unread.read(), 0);
                    state.count_held();
                }
            }
        }
        polled
    }

    fn end(&self) {
        let Arrival { state, number, .. } = &*self.arrival;
        state.unread.remove(*number);
        state.count_held();
    }
}

impl Drop for UnreadBody {
    fn drop(&mut self) {
        self.end();
    }
}

impl Arrival {
    fn reader(&self) -> MutexGuard<'_, Option<Waker>> {
        self.reader.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Wake for Arrival {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.is_told.store(true, SeqCst);
        self.state.unread.set_woken(self.number);
        let reader = self.reader().clone();
        if let Some(reader) = reader {
            reader.wake();
        }
    }
}
