//! Requests that are worked at on a connection, until their answers were written.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering::{Relaxed, Release};

use bytes::Bytes;
use tokio::sync::{Notify, OwnedSemaphorePermit};
use tokio::task::yield_now;

use crate::net::UnreadBody;
use crate::net::answers::Answer;
use crate::net::state::{ConnectionState, UNAUTHENTICATED_HEAD_BYTES};
use crate::net::table::StartPermit;
use crate::quota::MemoryError;

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
    /// The memory that its head is counted for.
    head_bytes: usize,
    /// Its place among the requests that have not begun, unless it waits for its turn.
    start: Option<StartPermit>,
    /// Notified when it is to be refused.
    refused: Arc<Notify>,
}

impl Activity {
    pub(crate) fn begin(state: Arc<ConnectionState>) -> Self {
        state.progress.active.send_modify(|count| *count += 1);
        let (number, answer) = state.answers.begin();
        // What multiplexed connections have read counts before it begins.
        let is_multiplexed = state.is_multiplexed.load(Relaxed);
        let start = is_multiplexed.then(|| state.start_turn()).flatten();
        let refused = Arc::default();
        Self { state, number, answer, turn: None, head_bytes: 0, start, refused }
    }

    /// Waits until the request may be answered: on an unauthenticated connection at most
    /// [`max_unauthenticated_requests`](crate::net::ConnectionLimits::max_unauthenticated_requests) are
    /// worked at at once, each until its answer was written, so that a client which reads none of them
    /// holds little memory. Once a client has authenticated, none waits any more. The request's head,
    /// which takes `head_bytes` of memory, is counted among those of
    /// [all](crate::net::ConnectionLimits::max_http2_bytes) meanwhile, and until it is
    /// [released](Self::release_head); of an unauthenticated connection what is over 4 KiB, since
    /// [`HttpStream`](crate::net::HttpStream) counts these before the request begins.
    ///
    /// # Errors
    ///
    /// [`MemoryError`] when there is no memory for the head: the request is to be refused.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future gives up the place in the line.
    pub async fn turn(&mut self, head_bytes: usize) -> Result<(), MemoryError> {
        self.release_head();
        let turns = Arc::clone(&self.state.answers.turns);
        self.turn = Arc::clone(&turns).try_acquire_owned().ok();
        let is_authenticated = turns.is_closed();
        let counted = if is_authenticated { 0 } else { UNAUTHENTICATED_HEAD_BYTES };
        let bytes = head_bytes.saturating_sub(counted);
        if bytes > 0 {
            self.state.http2_memory.take(bytes)?;
            self.head_bytes = bytes;
        }
        let waits = self.turn.is_none() && !is_authenticated;
        if waits {
            // A head may hold what was read with it, as a body does.
            let _held = self.body();
            self.start = None;
            self.turn = turns.acquire_owned().await.ok();
        }
        Ok(())
    }

    /// Runs `work`, which answers the request. At most 32 requests of one caller, and of all unauthenticated clients, are
    /// at the beginning of their work at once, on all connections of a server: up to where it first waits for something;
    /// of one network of unauthenticated clients at most 4. Others wait for that, so that thousands of requests do not keep those of
    /// other callers waiting. A connection is its first authenticated caller's. On a connection that does not
    /// multiplex, each request also waits until the other tasks of the runtime have had their turn: all that is
    /// pipelined on it is one task.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future drops `work`.
    pub async fn start<T>(&mut self, work: impl Future<Output = T>) -> T {
        let mut turn = self.start.take().or_else(|| self.state.start_turn());
        if let Some(turn) = &mut turn {
            turn.wait().await;
        }
        if !self.state.is_multiplexed.load(Relaxed) {
            // Else no two of them would ever wait for each other.
            yield_now().await;
        }
        let mut work = pin!(work);
        std::future::poll_fn(|cx| {
            let polled = work.as_mut().poll(cx);
            turn = None;
            polled
        })
        .await
    }

    /// Notes that the request's head is dropped, or about to be.
    pub fn release_head(&mut self) {
        let head = std::mem::take(&mut self.head_bytes);
        if head > 0 {
            self.state.http2_memory.give_back(head);
        }
    }

    /// Begins the body of the request on a connection of HTTP/2, whose library may hold parts of it until they
    /// are read. What all such bodies of a connection may hold, with what was read of the connection beside, is
    /// counted by [`max_http2_bytes`](crate::net::ConnectionLimits::max_http2_bytes), beyond what each connection may
    /// have uncounted; so are trailers of requests that are not over, as 128 bytes for each header and two for each
    /// byte, and the buffers that compressed headers refer to. While there is no memory for it, no more is read of
    /// the connection by its [`HttpStream`](crate::net::HttpStream).
    pub fn body(&self) -> UnreadBody {
        UnreadBody::begin(Arc::clone(&self.state), Arc::clone(&self.refused))
    }

    /// Resolves when the request is to be refused, for which nothing of its [body](Self::body) was read yet: for more
    /// than a second there is no memory for what its connection of HTTP/2 holds of bodies, so that requests which are
    /// worked at get no more of theirs either. Of those that wait, the latest are refused first.
    ///
    /// # Cancel safety
    ///
    /// Once it was polled, dropping the future may lose that.
    pub fn refused(&self) -> impl Future<Output = MemoryError> + Send + use<> {
        let (refused, state) = (Arc::clone(&self.refused), Arc::clone(&self.state));
        async move {
            refused.notified().await;
            match state.is_authenticated.load(Relaxed) {
                true => MemoryError::CallerLimit,
                false => MemoryError::Unavailable,
            }
        }
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
        self.release_head();
        let ConnectionState { answers, progress, place, .. } = &*self.state;
        answers.lock().remove(&self.number);
        self.state.count_held();
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

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;
    use std::time::Duration;

    use tokio::net::{TcpListener, TcpStream};
    use tokio::time::timeout;

    use super::*;
    use crate::auth::Network;
    use crate::net::ConnectionLimits;
    use crate::net::stream::Stream;
    use crate::net::table::{MAX_SITE_STARTS, MAX_STARTS, MAX_UNSTARTED, Progress, Table};
    use crate::user_name::UserName;

    fn table() -> Arc<Table> {
        Table::new(ConnectionLimits::new().max_http2_bytes(64 << 10))
    }

    async fn connection() -> Arc<ConnectionState> {
        connection_in(&table(), 1).await
    }

    /// One of a client of its own network.
    async fn connection_in(table: &Arc<Table>, last: u8) -> Arc<ConnectionState> {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
        let address = listener.local_addr().expect("bound");
        let stream = TcpStream::connect(address).await.expect("connected");
        let stream = Arc::new(Stream::from(stream));
        let network = Network::Ip(Ipv4Addr::new(127, 0, 0, last).into());
        let progress = Progress::new();
        let place = table.enter(&stream, &progress, network, Duration::ZERO);
        let state = ConnectionState::new(progress, Some(place.expect("there is a place")));
        Arc::new(state)
    }

    #[tokio::test]
    async fn a_request_has_one_head() {
        let mut activity = Activity::begin(connection().await);
        for _ in 0..10 {
            activity.turn(8 << 10).await.expect("there is memory for two");
        }
    }

    #[tokio::test]
    async fn on_one_task_each_request_lets_others_have_their_turn() {
        let state = connection().await;
        for (is_multiplexed, expected) in [(false, 2), (true, 1)] {
            state.is_multiplexed.store(is_multiplexed, Relaxed);
            let mut activity = Activity::begin(Arc::clone(&state));
            let mut answer = pin!(activity.start(async {}));
            let mut polls = 0;
            std::future::poll_fn(|cx| {
                polls += 1;
                answer.as_mut().poll(cx)
            })
            .await;
            assert_eq!(polls, expected, "multiplexed: {is_multiplexed}");
        }
    }

    #[tokio::test]
    async fn of_all_unauthenticated_requests_so_many_begin_at_once() {
        let (table, mut sites) = (table(), Vec::new());
        for last in 1..10 {
            sites.push(connection_in(&table, last).await);
        }
        let start = |state: &Arc<ConnectionState>, user: Option<&UserName>| {
            let place = state.place.as_ref().expect("it has one");
            place.start(user).expect("unbounded")
        };
        let (mut busy, other) = (Vec::new(), sites.pop().expect("nine"));
        for state in &sites {
            for _ in 0..MAX_SITE_STARTS {
                let mut turn = start(state, None);
                turn.wait().await;
                busy.push(turn);
            }
            let mut next = start(state, None);
            let of_site = timeout(Duration::from_millis(20), next.wait()).await;
            assert!(of_site.is_err(), "one site has so many");
        }
        assert_eq!(busy.len(), MAX_STARTS);
        let alice: UserName = "alice".parse().expect("a user name");
        start(&sites[0], Some(&alice)).wait().await;
        let mut start = start(&other, None);
        assert!(timeout(Duration::from_millis(50), start.wait()).await.is_err());
        busy.pop();
        start.wait().await;
    }

    #[tokio::test]
    async fn of_a_caller_so_many_requests_begin_at_once() {
        let state = connection().await;
        state.is_multiplexed.store(true, Relaxed);
        let alice: UserName = "alice".parse().expect("a user name");
        state.user.set(alice.clone()).expect("not set");
        let place = state.place.as_ref().expect("it has one");
        let mut busy = Vec::new();
        for _ in 0..MAX_STARTS {
            let mut turn = place.start(Some(&alice)).expect("unbounded");
            turn.wait().await;
            busy.push(turn);
        }
        let mut activity = Activity::begin(Arc::clone(&state));
        let mut answer = std::pin::pin!(activity.start(async { 7 }));
        assert!(timeout(Duration::from_millis(50), &mut answer).await.is_err());
        busy.pop();
        assert_eq!(answer.await, 7);
        // Where it waits for something, the next begins.
        let mut activity = Activity::begin(Arc::clone(&state));
        let mut pending = std::pin::pin!(activity.start(std::future::pending::<()>()));
        assert!(timeout(Duration::from_millis(50), &mut pending).await.is_err());
        assert_eq!(Activity::begin(Arc::clone(&state)).start(async { 8 }).await, 8);
        drop(busy);
        // While many have not begun, no more are read.
        assert!(place.read(Some(&alice)).is_none());
        let mut unstarted: Vec<_> =
            (0..MAX_UNSTARTED).map(|_| Activity::begin(Arc::clone(&state))).collect();
        let mut read = std::pin::pin!(place.read(Some(&alice)).expect("it waits"));
        assert!(timeout(Duration::from_millis(50), &mut read).await.is_err());
        let other: UserName = "bob".parse().expect("a user name");
        assert!(place.read(Some(&other)).is_none());
        unstarted[0].start(async {}).await;
        read.await;
    }
}
