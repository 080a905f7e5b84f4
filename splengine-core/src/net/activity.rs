//! Requests that are worked at on a connection, until their answers were written.

use std::sync::Arc;
use std::sync::atomic::Ordering::Release;

use bytes::Bytes;
use tokio::sync::OwnedSemaphorePermit;

use crate::net::answers::Answer;
use crate::net::state::ConnectionState;

/// A request that is worked at, until this is dropped and all of its answer that was
/// [handed out](Self::hand_out). Made by [`ConnectionHandle::begin`].
///
/// [`ConnectionHandle::begin`]: crate::net::ConnectionHandle::begin
#[derive(Debug)]
#[must_use = "the request is over when this is dropped"]
pub struct Activity {
    state: Arc<ConnectionState>,
    number: u64,
    answer: Arc<Answer>,
    /// Held by a request of an unauthenticated connection that is at its turn.
    turn: Option<OwnedSemaphorePermit>,
}

impl Activity {
    pub(crate) fn begin(state: Arc<ConnectionState>) -> Self {
        state.progress.active.send_modify(|count| *count += 1);
        let (number, answer) = state.answers.begin();
        Self { state, number, answer, turn: None }
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
        self.turn = Arc::clone(&self.state.answers.turns).acquire_owned().await.ok();
    }

    /// Notes whether a part of the answer is ready, for which the client has no room yet. See
    /// [`ConnectionHandle::answer_unread`](crate::net::ConnectionHandle::answer_unread).
    pub fn set_waits_for_client(&self, waits: bool) {
        self.state.answers.touch(&self.answer);
        self.answer.is_ready.store(waits, Release);
    }

    /// Returns `data`, a part of the answer, such that the request is not over before all of it is
    /// dropped: for what lies in the buffers of a protocol until the client has room.
    #[must_use]
    pub fn hand_out(self: &Arc<Self>, data: Bytes) -> Bytes {
        self.state.answers.touch(&self.answer);
        self.answer.unwritten.fetch_add(1, Release);
        Bytes::from_owner(Part { data, activity: Arc::clone(self) })
    }
}

impl Drop for Activity {
    fn drop(&mut self) {
        let ConnectionState { answers, progress, place, .. } = &*self.state;
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
        let Activity { state, answer, .. } = &*self.activity;
        state.answers.touch(answer);
        answer.unwritten.fetch_sub(1, Release);
    }
}
