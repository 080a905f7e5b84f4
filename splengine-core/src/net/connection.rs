use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use rustix::net::{SendFlags, Shutdown, send, shutdown, sockopt};
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::{Instant, Sleep, sleep, sleep_until};

use crate::auth::{Caller, Network};
use crate::net::activity::Activity;
use crate::net::listen_addr::ListenAddr;
use crate::net::peer::Peer;
use crate::net::state::ConnectionState;
use crate::net::stream::Stream;
use crate::net::table::{Progress, Table, TableEntry};

/// A connection that was [accepted](crate::net::serve_connections), as a stream of bytes.
///
/// Writing to a client that reads nothing fails with [`TimedOut`](io::ErrorKind::TimedOut) after the
/// [write timeout](crate::net::ConnectionLimits::write_timeout).
#[derive(Debug)]
pub struct Connection {
    socket: Arc<Socket>,
    /// Since when the client takes nothing.
    blocked: Option<Blocked>,
    /// Whether the socket takes something although it does not count as writable.
    has_remainder: bool,
    /// How much was read since others had their turn.
    read_at_once: usize,
}

/// Handle on a [`Connection`], by which its server tells what is known of its client. Cheap to
/// clone; it does not keep the connection open.
///
/// Our servers put one into the extensions of each request of HTTP.
///
/// ```
/// use splengine_core::Caller;
/// use splengine_core::net::ConnectionHandle;
///
/// fn on_request(connection: &ConnectionHandle, caller: Option<&Caller>) {
///     // The connection is at work until the guard is dropped.
///     let _activity = connection.begin();
///     if let Some(caller) = caller {
///         connection.set_authenticated(caller);
///     }
/// }
/// ```
#[derive(Debug, Clone)]
pub struct ConnectionHandle(pub(super) Arc<ConnectionState>);

/// Keeps the beginning of an answer announced until it is dropped. Made by
/// [`ConnectionHandle::announce`].
#[derive(Debug)]
#[must_use = "nothing is announced any more when this is dropped"]
pub struct Announced(Arc<ConnectionState>);

/// The socket, which gives its place back when it is closed.
#[derive(Debug)]
pub(crate) struct Socket {
    pub(crate) stream: Arc<Stream>,
    pub(crate) handle: ConnectionHandle,
}

#[derive(Debug)]
struct Blocked {
    since: Instant,
    look: Pin<Box<Sleep>>,
}

impl Connection {
    /// Takes in what was accepted `waited` ago, if there is a place for it.
    pub(crate) fn enter(
        stream: &Arc<Stream>,
        network: Network,
        waited: Duration,
        table: &Arc<Table>,
    ) -> Option<Self> {
        let progress = Progress::new();
        let place = table.enter(stream, &progress, network, waited)?;
        Some(Self::of(Arc::clone(stream), progress, Some(place)))
    }

    fn of(stream: Arc<Stream>, progress: Arc<Progress>, place: Option<TableEntry>) -> Self {
        let handle = ConnectionHandle(Arc::new(ConnectionState::new(progress, place)));
        Self {
            socket: Arc::new(Socket { stream, handle }),
            blocked: None,
            has_remainder: false,
            read_at_once: 0,
        }
    }

    pub(crate) fn socket(&self) -> Arc<Socket> {
        Arc::clone(&self.socket)
    }

    /// Returns the handle by which the server reports authentication and requests in progress.
    #[must_use]
    pub fn handle(&self) -> ConnectionHandle {
        self.socket.handle.clone()
    }

    /// Returns who is at the other end.
    ///
    /// # Errors
    ///
    /// When a connection of TCP is closed already.
    pub fn peer(&self) -> io::Result<Peer> {
        self.socket.stream.peer()
    }

    /// Returns the address that the peer has connected to.
    ///
    /// # Errors
    ///
    /// When the connection is closed already.
    pub fn local_addr(&self) -> io::Result<ListenAddr> {
        self.socket.stream.local_addr()
    }

    /// Writes by `attempt`, which is given up when the client has taken nothing for too long; `first`
    /// is the beginning of what there is to write.
    fn write(
        &mut self,
        cx: &mut Context<'_>,
        first: &[u8],
        attempt: impl Fn(&Stream) -> io::Result<usize>,
    ) -> Poll<io::Result<usize>> {
        let state = &self.socket.handle.0;
        state.is_unflushed.store(true, Relaxed);
        let ahead = state.sent_ahead.load(Relaxed).min(first.len());
        if ahead > 0 {
            state.sent_ahead.fetch_sub(ahead, Relaxed);
            return Poll::Ready(Ok(ahead));
        }
        let written = loop {
            match self.socket.stream.poll_write_ready(cx) {
                Poll::Pending if self.has_remainder => match self.send_now(first) {
                    Ok(written) => break Poll::Ready(Ok(written)),
                    Err(_) => self.has_remainder = false,
                },
                Poll::Pending => break self.check_blocked(cx, first),
                Poll::Ready(ready) => ready?,
            }
            match attempt(&self.socket.stream) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                written => break Poll::Ready(written),
            }
        };
        if written.is_ready() {
            self.blocked = None;
        }
        self.socket.handle.0.is_blocked.store(written.is_pending(), Relaxed);
        written
    }

    fn check_blocked(&mut self, cx: &mut Context<'_>, first: &[u8]) -> Poll<io::Result<usize>> {
        let timeout = self.socket.handle.write_timeout();
        let blocked = self.blocked.get_or_insert_with(|| Blocked {
            since: Instant::now(),
            look: Box::pin(sleep(timeout)),
        });
        loop {
            ready!(blocked.look.as_mut().poll(cx));
            // It may have authenticated since.
            let left = timeout.saturating_sub(blocked.since.elapsed());
            if left.is_zero() {
                break;
            }
            blocked.look = Box::pin(sleep(left));
        }
        // A socket counts as writable only when a third of its buffer is free; who reads slowly may
        // have taken less than that. All of what is free is filled before the client has its time
        // again: else one who reads nothing would have it for each piece that still fits.
        match self.send_now(first) {
            Ok(written) => {
                self.has_remainder = true;
                Poll::Ready(Ok(written))
            }
            Err(_) => Poll::Ready(Err(self.cut())),
        }
    }

    /// Sends what fits of `bytes`, which is at least one byte, whether the socket counts as writable
    /// or not.
    fn send_now(&self, bytes: &[u8]) -> io::Result<usize> {
        match send(&*self.socket.stream, bytes, SEND)? {
            0 => Err(io::ErrorKind::WouldBlock.into()),
            written => Ok(written),
        }
    }

    fn cut(&self) -> io::Error {
        if let Some(place) = &self.socket.handle.0.place {
            place.count_write_timeout();
        }
        // What it does not read need not be kept by the operating system either.
        let _ = sockopt::set_socket_linger(&*self.socket.stream, Some(Duration::ZERO));
        io::Error::new(io::ErrorKind::TimedOut, "the client reads nothing of what is written to it")
    }
}

impl ConnectionHandle {
    /// Notes that `caller` was authenticated on the connection: it is not closed any more for taking
    /// too long, nor for others, unless this caller has more than
    /// [their share](crate::net::ConnectionLimits::max_connections) of connections. Only the first caller
    /// on a connection counts; a guest counts as the one who has [invited](Caller::accounted_user) them.
    pub fn set_authenticated(&self, caller: &Caller) {
        if self.0.is_authenticated.swap(true, Relaxed) {
            return;
        }
        // It is set once.
        let _ = self.0.user.set(caller.accounted_user().clone());
        let is_multiplexed = self.0.is_multiplexed.load(Relaxed);
        let memory = &self.0.http2_memory;
        let is_first = memory.set_authenticated(caller, is_multiplexed);
        self.0.is_first.store(is_first, Relaxed);
        self.0.answers.set_authenticated();
        if let Some(place) = &self.0.place {
            place.set_authenticated(caller.accounted_user());
        }
        self.0.count_held();
    }

    /// Returns whether a client has authenticated on the connection.
    #[must_use]
    pub fn is_authenticated(&self) -> bool {
        self.0.is_authenticated.load(Relaxed)
    }

    /// Returns the time for which its client, as it stands now, may take nothing of what is written
    /// to it; [`Duration::MAX`] without limits.
    #[must_use]
    pub fn write_timeout(&self) -> Duration {
        match &self.0.place {
            None => Duration::MAX,
            Some(place) if self.is_authenticated() => place.limits().write_timeout,
            Some(place) => place.limits().unauthenticated_write_timeout,
        }
    }

    /// Notes that a whole request, or the like, was received: the connection has sent something within
    /// the [time that it has](crate::net::ConnectionLimits::unauthenticated_timeout), and is not
    /// [idle](Self::idle_for) while the request is worked at.
    pub fn begin(&self) -> Activity {
        self.0.has_begun.store(true, Relaxed);
        self.0.arriving.send_replace(None);
        Activity::begin(Arc::clone(&self.0))
    }

    /// Resolves, and counts the connection as one that reads nothing, when a client of a
    /// connection of [HTTP/2](crate::net::HttpStream) has taken nothing of one of its answers for the
    /// [write timeout](Self::write_timeout): it may give no room to that stream though it reads
    /// everything else, by which nothing that is written fails. What waits for the client is told by
    /// its [`Activity`]. It may be noticed later by a quarter of the time.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future has no effect.
    pub async fn answer_unread(&self) {
        let is_multiplexed = || self.0.is_multiplexed.load(Relaxed);
        self.0.answers.unread_for(|| (self.write_timeout(), is_multiplexed())).await;
        if let Some(place) = &self.0.place {
            place.count_write_timeout();
        }
    }

    /// Resolves when no [request](Self::begin) was worked at for `time`, none has begun to arrive, and
    /// nothing that was written waits for the client.
    ///
    /// # Cancel safety
    ///
    /// Safe; called again, it waits for all of `time` again.
    pub async fn idle_for(&self, time: Duration) {
        let mut active = self.0.progress.active.subscribe();
        loop {
            // The sender lives in `self`: neither wait can fail.
            let _ = active.wait_for(|count| *count == 0).await;
            tokio::select! {
                biased;
                _ = active.changed() => {}
                () = sleep(time) => {
                    let is_waited_for =
                        self.0.is_blocked.load(Relaxed) || self.0.arriving.borrow().is_some();
                    if !is_waited_for {
                        return;
                    }
                }
            }
        }
    }

    /// Resolves when a request has begun to arrive `time` ago and is not [whole](Self::begin) yet.
    /// Of a connection of [HTTP/2](crate::net::HttpStream) that is not known: never.
    ///
    /// # Cancel safety
    ///
    /// Safe; called again, it goes by the same beginning.
    pub async fn stalled_for(&self, time: Duration) {
        let mut arriving = self.0.arriving.subscribe();
        loop {
            let since = *arriving.borrow_and_update();
            let deadline = async {
                match since.and_then(|since| since.checked_add(time)) {
                    Some(deadline) => sleep_until(deadline).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                // The sender lives in `self`.
                _ = arriving.changed() => {}
                () = deadline => return,
            }
        }
    }

    /// Notes that requests come in pieces between one another, as over HTTP/2: that something arrives
    /// does not tell that a request begins.
    pub(super) fn set_multiplexed(&self) {
        self.0.is_multiplexed.store(true, Relaxed);
        if self.0.arriving.borrow().is_some() {
            self.0.arriving.send_replace(None);
        }
    }

    /// Lets the client end its own half of the connection, once it has sent all of its requests, and
    /// still get its answers. Without this, default, that counts as leaving.
    ///
    /// One that has left altogether looks the same until something is written to it. While the
    /// beginning of an answer is [announced](Self::announce), single bytes of it are sent ahead, by
    /// which such a client is found out within 2 s. When this server ends the connection, what the
    /// client sends meanwhile is read and thrown away for 2 s at most, so that the last answer is not
    /// lost to a reset.
    pub fn allow_half_close(&self) {
        self.0.half_close.store(true, Relaxed);
    }

    /// Announces the bytes with which the next answer will begin in any case (`HTTP/1.`), while nothing
    /// of it can be written yet. Until the returned value is dropped, some of them may be sent ahead, to
    /// find out whether the client has left (see [`allow_half_close`](Self::allow_half_close)).
    pub fn announce(&self, beginning: &'static [u8]) -> Announced {
        *self.0.announced() = Some(beginning);
        Announced(Arc::clone(&self.0))
    }

    /// Resolves when the client has ended its half of the connection, or has left, which may be
    /// noticed a second later: a server that streams to it had better write something soon, by
    /// which the one is told from the other.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future has no effect.
    pub async fn read_closed(&self) {
        let mut closed = self.0.read_closed.subscribe();
        // The sender lives in `self`.
        let _ = closed.wait_for(|closed| *closed).await;
    }

    /// Counts the connection, which its server closes for that, among those that lay idle for too
    /// long.
    pub fn count_idle_timeout(&self) {
        if let Some(place) = &self.0.place {
            place.count_timeout();
        }
    }
}

impl Socket {
    /// Resolves when the peer has closed the connection, or its half of it where that is all the
    /// same, for a while: what serves it notices that by itself when it reads, and it may not read
    /// while it is at something.
    pub(crate) async fn peer_left(&self) {
        let state = &self.handle.0;
        let mut looks = 0_u32;
        loop {
            sleep(POLL_INTERVAL).await;
            let interest = Interest::READABLE | Interest::WRITABLE;
            let ready = std::pin::pin!(self.stream.ready(interest))
                .poll(&mut Context::from_waker(Waker::noop()));
            let Poll::Ready(Ok(ready)) = ready else { continue };
            if !ready.is_read_closed() {
                looks = 0;
                continue;
            }
            looks = looks.saturating_add(1);
            // It was reset: what is sent to one that has left is answered so.
            if ready.is_write_closed() && !state.write_closed.load(Relaxed) {
                return;
            }
            state.read_closed.send_if_modified(|closed| !std::mem::replace(closed, true));
            let is_answered = *state.progress.active.borrow() > 0;
            if !state.half_close.load(Relaxed) || !is_answered {
                if looks >= 2 {
                    return;
                }
            } else if looks.is_power_of_two()
                && let Some(byte) = state.next_ahead()
                && self.stream.try_write(&[byte]).is_ok()
            {
                state.sent_ahead.fetch_add(1, Relaxed);
            }
        }
    }

    /// Reads and throws away what still comes after the server has ended its half, until the client
    /// has ended its own, for a while at most: what lies unread in a socket that is closed resets the
    /// connection, by which the client may lose what was sent to it.
    pub(crate) async fn linger(&self) {
        let state = &self.handle.0;
        if !state.half_close.load(Relaxed) || !state.write_closed.load(Relaxed) {
            return;
        }
        let drained = async {
            let mut buffer = vec![0; 4096];
            while self.stream.ready(Interest::READABLE).await.is_ok() {
                match self.stream.try_read(&mut buffer) {
                    Ok(0) => break,
                    Ok(_) => {}
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    Err(_) => break,
                }
            }
        };
        tokio::select! {
            () = drained => {}
            () = sleep(LINGER) => {}
            () = self.evicted() => {}
        }
    }

    /// Resolves when the connection has to make room for another.
    pub(crate) async fn evicted(&self) {
        match &self.handle.0.place {
            Some(place) => place.evicted().await,
            None => std::future::pending().await,
        }
    }

    /// Resolves when it has shown nothing in time.
    pub(crate) async fn showed_nothing(&self) {
        let state = &self.handle.0;
        if let Some(place) = &state.place {
            sleep(place.limits().unauthenticated_timeout).await;
            if !state.is_authenticated.load(Relaxed) && !state.has_begun.load(Relaxed) {
                return place.count_timeout();
            }
        }
        std::future::pending().await
    }

    /// Notes that what the accept loop was given to serve it is over.
    pub(crate) fn set_served(&self) {
        if let Some(place) = &self.handle.0.place {
            place.set_served();
        }
    }
}

impl From<TcpStream> for Connection {
    /// A connection without limits, which counts nowhere.
    fn from(stream: TcpStream) -> Self {
        Self::of(Arc::new(stream.into()), Progress::new(), None)
    }
}

impl From<UnixStream> for Connection {
    /// A connection without limits, which counts nowhere.
    fn from(stream: UnixStream) -> Self {
        Self::of(Arc::new(stream.into()), Progress::new(), None)
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        if let Some(place) = &self.handle.0.place {
            place.leave();
        }
    }
}

impl Drop for Announced {
    fn drop(&mut self) {
        *self.0.announced() = None;
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        // What reads all that is there may work long at it: of a protocol with small frames that are
        // answered none, thousands are in one piece.
        if self.read_at_once >= MAX_READ_AT_ONCE {
            self.read_at_once = 0;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        loop {
            let is_ready = self.socket.stream.poll_read_ready(cx);
            if is_ready.is_pending() {
                self.read_at_once = 0;
            }
            ready!(is_ready)?;
            match self.socket.stream.try_read_buf(buffer) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                read => {
                    let bytes = read.as_ref().copied().unwrap_or_default();
                    self.read_at_once += bytes;
                    let state = &self.socket.handle.0;
                    if !state.is_authenticated.load(Relaxed) {
                        state.progress.has_read();
                    }
                    state.has_arrived();
                    return Poll::Ready(read.map(drop));
                }
            }
        }
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.write(cx, bytes, |stream| stream.try_write(bytes))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let first = slices.iter().find(|slice| !slice.is_empty());
        let first = first.map_or(&[][..], |slice| slice);
        self.write(cx, first, |stream| stream.try_write_vectored(slices))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.socket.handle.0.is_unflushed.store(false, Relaxed);
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.socket.handle.0.write_closed.store(true, Relaxed);
        Poll::Ready(shutdown(&*self.socket.stream, Shutdown::Write).map_err(Into::into))
    }
}

/// Without waiting, and without a signal where the peer has closed the socket; on Apple's systems the
/// [socket itself](Stream::set_up) says the latter.
#[cfg(not(target_vendor = "apple"))]
const SEND: SendFlags = SendFlags::DONTWAIT.union(SendFlags::NOSIGNAL);
#[cfg(target_vendor = "apple")]
const SEND: SendFlags = SendFlags::DONTWAIT;
/// After so many bytes others have their turn.
const MAX_READ_AT_ONCE: usize = 32 << 10;
/// How often to look for a peer that left.
const POLL_INTERVAL: Duration = Duration::from_secs(1);
/// Time for a client to end a connection that the server has ended.
const LINGER: Duration = Duration::from_secs(2);
