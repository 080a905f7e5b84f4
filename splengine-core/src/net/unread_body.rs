use std::sync::Arc;
use std::task::Poll;

use crate::net::HttpBounds;
use crate::net::state::ConnectionState;

/// The body of a request on a multiplexed connection, which its library may hold parts of until they are read.
/// Made by [`Activity::body`](crate::net::Activity::body); the body is over when this is dropped.
#[derive(Debug)]
#[must_use = "the body is over when this is dropped"]
pub struct UnreadBody {
    state: Arc<ConnectionState>,
    number: u64,
    /// How much was read of the connection at some time, and how much of the body was taken since.
    mark: u64,
    taken: u64,
}

impl UnreadBody {
    pub(super) fn begin(state: Arc<ConnectionState>) -> Self {
        let (number, mark) = (state.unread.add(), state.unread.read());
        Self { state, number, mark, taken: 0 }
    }

    /// Notes what a poll of the body has given: that many bytes of it, its end, or that nothing is at hand.
    pub fn note(&mut self, polled: Poll<Option<usize>>) {
        let read = self.state.unread.read();
        match polled {
            Poll::Pending => self.set_drained_at(read),
            Poll::Ready(None) => self.end(),
            Poll::Ready(Some(bytes)) => {
                self.taken = self.taken.saturating_add(bytes as u64);
                // What there was of it at the mark is taken: there is never more than its window.
                if self.taken > u64::from(HttpBounds::MAX_UNREAD_BODY_BYTES) {
                    self.set_drained_at(self.mark);
                }
            }
        }
    }

    fn set_drained_at(&mut self, read: u64) {
        let unread = &self.state.unread;
        (self.mark, self.taken) = (unread.read(), 0);
        unread.set_drained_at(self.number, read);
        self.state.count_unread();
    }

    fn end(&self) {
        self.state.unread.remove(self.number);
        self.state.count_unread();
    }
}

impl Drop for UnreadBody {
    fn drop(&mut self) {
        self.end();
    }
}
