use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use rustix::net::{SendFlags, Shutdown, send, shutdown, sockopt};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep, sleep};

use crate::net::peer::network_of;
use crate::net::table::{Place, Progress, Table};

/// A connection that was [accepted](crate::serve_connections), as a stream of bytes.
///
/// Writing to a client that reads nothing fails with [`TimedOut`](io::ErrorKind::TimedOut) after the
/// [write timeout](crate::ConnectionLimits::write_timeout).
#[derive(Debug)]
pub struct Connection {
    socket: Arc<Socket>,
    /// Since when the client takes nothing.
    blocked: Option<Blocked>,
    /// Whether the socket takes something although it does not count as writable.
    has_remainder: bool,
}

/// A handle on a [`Connection`], by which whoever serves it tells what is known of its client. Cheap
/// to clone; it does not keep the connection open.
///
/// Our servers put one into the extensions of each request of HTTP.
///
/// ```
/// use splengine_core::ConnectionHandle;
///
/// fn on_request(connection: &ConnectionHandle, credentials_are_valid: bool) {
///     // The connection is at work until the guard is dropped.
///     let _activity = connection.begin();
///     if credentials_are_valid {
///         connection.set_authenticated();
///     }
/// }
/// ```
#[derive(Debug, Clone)]
pub struct ConnectionHandle(Arc<Shared>);

/// A request that is worked at, until this is dropped. Made by [`ConnectionHandle::begin`].
#[derive(Debug)]
#[must_use = "the request is over when this is dropped"]
pub struct Activity(Arc<Shared>);

/// What is known of a connection.
#[derive(Debug)]
struct Shared {
    is_authenticated: AtomicBool,
    has_begun: AtomicBool,
    /// The client takes nothing at the moment.
    is_blocked: AtomicBool,
    progress: Arc<Progress>,
    /// None of one that was made of a mere socket.
    place: Option<Place>,
}

/// The socket, which gives its place back when it is closed.
#[derive(Debug)]
pub(crate) struct Socket {
    pub(crate) stream: Arc<TcpStream>,
    pub(crate) handle: ConnectionHandle,
}

#[derive(Debug)]
struct Blocked {
    since: Instant,
    look: Pin<Box<Sleep>>,
}

impl Connection {
    /// Takes in what was accepted.
    pub(crate) fn enter(stream: TcpStream, peer: SocketAddr, table: &Arc<Table>) -> Self {
        let stream = Arc::new(stream);
        let progress = Progress::new();
        let place = table.enter(&stream, &progress, network_of(peer.ip()));
        Self::of(stream, progress, Some(place))
    }

    fn of(stream: Arc<TcpStream>, progress: Arc<Progress>, place: Option<Place>) -> Self {
        let handle = ConnectionHandle(Arc::new(Shared {
            is_authenticated: AtomicBool::new(false),
            has_begun: AtomicBool::new(false),
            is_blocked: AtomicBool::new(false),
            progress,
            place,
        }));
        Self { socket: Arc::new(Socket { stream, handle }), blocked: None, has_remainder: false }
    }

    pub(crate) fn socket(&self) -> Arc<Socket> {
        Arc::clone(&self.socket)
    }

    /// Returns the handle by which its server tells what is known of its client.
    #[must_use]
    pub fn handle(&self) -> ConnectionHandle {
        self.socket.handle.clone()
    }

    /// Returns the address of the peer.
    ///
    /// # Errors
    ///
    /// When the connection is closed already.
    pub fn peer_addr(&self) -> io::Result<SocketAddr> {
        self.socket.stream.peer_addr()
    }

    /// Writes by `attempt`, which is given up when the client has taken nothing for too long; `first`
    /// is the beginning of what there is to write.
    fn write(
        &mut self,
        cx: &mut Context<'_>,
        first: &[u8],
        attempt: impl Fn(&TcpStream) -> io::Result<usize>,
    ) -> Poll<io::Result<usize>> {
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
        match send(&*self.socket.stream, bytes, SendFlags::DONTWAIT | SendFlags::NOSIGNAL)? {
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
    /// Notes that somebody was authenticated on the connection: it is not closed any more for taking
    /// too long, nor for others.
    pub fn set_authenticated(&self) {
        if !self.0.is_authenticated.swap(true, Relaxed)
            && let Some(place) = &self.0.place
        {
            place.set_authenticated();
        }
    }

    /// Whether somebody was authenticated on it.
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

    /// Notes that a whole request, or the like, has come: the connection has shown something within
    /// the [time that it has](crate::ConnectionLimits::unauthenticated_timeout), and is not
    /// [idle](Self::idle_for) while the request is worked at.
    pub fn begin(&self) -> Activity {
        self.0.has_begun.store(true, Relaxed);
        self.0.progress.active.send_modify(|count| *count += 1);
        Activity(Arc::clone(&self.0))
    }

    /// Resolves when no [request](Self::begin) was worked at for `time`, and nothing that was
    /// written waits for the client.
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
                _ = active.changed() => {}
                () = sleep(time) => {
                    if !self.0.is_blocked.load(Relaxed) {
                        return;
                    }
                }
            }
        }
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
    /// Resolves when the connection has to make room for another.
    pub(crate) async fn evicted(&self) {
        match &self.handle.0.place {
            Some(place) => place.evicted().await,
            None => std::future::pending().await,
        }
    }

    /// Resolves when it has shown nothing in time.
    pub(crate) async fn showed_nothing(&self) {
        let shared = &self.handle.0;
        if let Some(place) = &shared.place {
            sleep(place.limits().unauthenticated_timeout).await;
            if !shared.is_authenticated.load(Relaxed) && !shared.has_begun.load(Relaxed) {
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
        Self::of(Arc::new(stream), Progress::new(), None)
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        if let Some(place) = &self.handle.0.place {
            place.leave();
        }
    }
}

impl Drop for Activity {
    fn drop(&mut self) {
        self.0.progress.active.send_modify(|count| *count -= 1);
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            ready!(self.socket.stream.poll_read_ready(cx))?;
            match self.socket.stream.try_read_buf(buffer) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                read => {
                    let shared = &self.socket.handle.0;
                    if !shared.is_authenticated.load(Relaxed) {
                        shared.progress.has_read();
                    }
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
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(shutdown(&*self.socket.stream, Shutdown::Write).map_err(Into::into))
    }
}
