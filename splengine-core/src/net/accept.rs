//! The accept loop of all servers.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{RecvFlags, recv};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, sleep_until, timeout};

use crate::auth::Network;
use crate::net::connection::{Connection, Socket};
use crate::net::limits::ConnectionLimits;
use crate::net::listener::Listener;
use crate::net::stream::Stream;
use crate::net::table::Table;
use crate::spare_thread::SpareThread;

/// Accepts connections and serves each of them in a task of its own, until `shutdown` resolves. Then it
/// accepts no more, notifies the open connections by their [`Closing`], and ends what is left after
/// `max_linger`.
///
/// What is written to a connection is sent at once. A peer that is gone without closing the connection
/// is noticed within 45 s, and one that has closed the connection, or its half of it where the server
/// does not [allow](crate::net::ConnectionHandle::allow_half_close) that, within 2 s, also while
/// nothing reads: then the future that serves it is dropped. That future is also dropped when a
/// connection is closed for another one, or when its client does not authenticate in time, as `limits`
/// say; `serve` reports by the connection's [handle](Connection::handle) that the client has
/// authenticated. `serve` returns the future that serves a connection, or `None` for a connection that
/// is to be closed at once.
///
/// While the process has no file descriptor for a new connection, others are closed for it: connections
/// beyond their caller's share with no request in progress, unauthenticated ones that have been there
/// for a second, and after a second without a file descriptor all connections beyond their caller's
/// share.
///
/// ```
/// use std::time::Duration;
/// use splengine_core::net::{ConnectionLimits, serve_connections};
/// use tokio::io::{AsyncReadExt, AsyncWriteExt};
/// use tokio::net::{TcpListener, TcpStream};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let listener = TcpListener::bind("127.0.0.1:0").await?;
/// let address = listener.local_addr()?;
/// let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
/// let shutdown = async { drop(stopped.await) };
/// let limits = ConnectionLimits::new();
/// let max_linger = Duration::from_secs(5);
/// let server = serve_connections(listener, limits, max_linger, shutdown, |mut connection, closing| {
///     // Once the server shuts down, a connection that is still waiting is served no more.
///     (!closing.is_closing()).then(|| async move { connection.write_all(b"hello").await })
/// });
/// let client = async {
///     let mut received = Vec::new();
///     TcpStream::connect(address).await?.read_to_end(&mut received).await?;
///     drop(stop);
///     std::io::Result::Ok(received)
/// };
/// let ((), received) = tokio::join!(server, client);
/// assert_eq!(received?, b"hello");
/// # Ok(())
/// # }
/// ```
///
/// # Cancel safety
///
/// Dropping the future closes the listener and all connections.
pub async fn serve_connections<F>(
    listener: impl Into<Listener>,
    limits: ConnectionLimits,
    max_linger: Duration,
    shutdown: impl Future<Output = ()>,
    mut serve: impl FnMut(Connection, Closing) -> Option<F>,
) where
    F: Future<Output = io::Result<()>> + Send + 'static,
{
    let listener = listener.into();
    let _spare = SpareThread::keep();
    let table = Table::new(limits);
    let (close, closing) = watch::channel(false);
    let mut connections = JoinSet::new();
    let mut held = Backlog::default();
    let mut shortage = None;
    let mut shutdown = std::pin::pin!(shutdown);
    let mut trims = interval(TRIM_INTERVAL);
    trims.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        while connections.try_join_next().is_some() {}
        let placed = table.may_have_place();
        let now = Instant::now();
        while let Some(connection) = held.next(&table, now) {
            let socket = connection.socket();
            if let Some(served) = serve(connection, Closing(closing.clone())) {
                connections.spawn(run(served, socket));
            }
        }
        let next_try = held.oldest().and_then(|since| since.checked_add(table.limits.busy_timeout));
        let next_try = next_try.filter(|time| *time > now);
        let placed = async {
            tokio::select! {
                () = placed => {}
                () = until(next_try) => {}
            }
        };
        let accepted = async {
            loop {
                table.has_place().await;
                tokio::select! {
                    biased;
                    () = table.is_full() => {}
                    accepted = accept(&listener, &table, &mut shortage) => return accepted,
                }
            }
        };
        tokio::select! {
            accepted = accepted, if held.connections.len() < MAX_HELD => {
                if let Some(accepted) = Accepted::new(accepted, &table.limits) {
                    held.connections.push_back(accepted);
                    held.is_last_new = true;
                }
            }
            () = placed, if !held.connections.is_empty() => {}
            _ = trims.tick(), if table.has_surplus() => table.trim(),
            () = &mut shutdown => break,
        }
    }
    drop(held);
    drop(listener);
    close.send_replace(true);
    let all = async { while connections.join_next().await.is_some() {} };
    if timeout(max_linger, all).await.is_err() {
        tracing::info!("closing connections that did not finish in time");
    }
}

/// Accepted connections that are not served yet, oldest first.
#[derive(Default)]
struct Backlog {
    connections: VecDeque<Accepted>,
    /// Whether it was not tried yet to find a place for the last of them.
    is_last_new: bool,
}

impl Backlog {
    /// Takes out one for which there is a place: the oldest, or one that has just come, whose address
    /// may be another.
    fn next(&mut self, table: &Arc<Table>, now: Instant) -> Option<Connection> {
        while let Some(first) = self.connections.front() {
            if first.is_gone() {
                self.connections.pop_front();
                continue;
            }
            if let Some(connection) = first.enter(table, now) {
                self.connections.pop_front();
                return Some(connection);
            }
            let is_last_new = std::mem::take(&mut self.is_last_new);
            let last = self.connections.back().filter(|_| is_last_new)?;
            let connection = last.enter(table, now)?;
            self.connections.pop_back();
            return Some(connection);
        }
        None
    }

    /// When the oldest was accepted.
    fn oldest(&self) -> Option<Instant> {
        self.connections.front().map(|first| first.since)
    }
}

/// A connection that was accepted.
struct Accepted {
    stream: Arc<Stream>,
    network: Network,
    since: Instant,
}

impl Accepted {
    /// `None` for one that is gone again, or whose address is refused.
    fn new(stream: Stream, limits: &ConnectionLimits) -> Option<Self> {
        let peer = stream.peer().ok()?;
        if limits.refuses(&peer) {
            limits.counters.refused.fetch_add(1, Relaxed);
            return None;
        }
        stream.set_up();
        let network = peer.network();
        Some(Self { stream: Arc::new(stream), network, since: Instant::now() })
    }

    fn enter(&self, table: &Arc<Table>, now: Instant) -> Option<Connection> {
        let waited = now.saturating_duration_since(self.since);
        Connection::enter(&self.stream, self.network, waited, table)
    }

    /// Whether its client has closed it, and has sent nothing before.
    fn is_gone(&self) -> bool {
        match recv(&*self.stream, &mut [0; 1], RecvFlags::PEEK | RecvFlags::DONTWAIT) {
            Ok((length, _)) => length == 0,
            Err(error) => !matches!(error, Errno::AGAIN | Errno::INTR),
        }
    }
}

/// Serves a connection to its end, or until it is to be closed.
async fn run(served: impl Future<Output = io::Result<()>>, socket: Arc<Socket>) {
    let peer = socket.stream.peer().ok();
    tokio::select! {
        ended = served => {
            if let Err(error) = ended {
                tracing::debug!(%error, ?peer, "a connection ended badly");
            }
        }
        () = socket.peer_left() => tracing::debug!(?peer, "a client has left"),
        () = socket.evicted() => tracing::debug!(?peer, "a connection is closed for another"),
        () = socket.showed_nothing() => {
            tracing::debug!(?peer, "nobody authenticated on a connection in time");
        }
    }
    socket.set_served();
    socket.linger().await;
}

async fn until(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time).await,
        None => std::future::pending().await,
    }
}

/// Handle that tells the task of a connection that its [server](serve_connections) is shutting down.
#[derive(Debug, Clone)]
pub struct Closing(watch::Receiver<bool>);

impl Closing {
    /// Returns whether the connection is to end as soon as the work on it is done.
    #[must_use]
    pub fn is_closing(&self) -> bool {
        *self.0.borrow()
    }

    /// Resolves when the server begins to shut down.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future has no effect.
    pub async fn closed(&mut self) {
        // A server that is gone itself has ended this task, too.
        if self.0.wait_for(|closing| *closing).await.is_err() {
            std::future::pending().await
        }
    }
}

/// Returns the next connection, however many attempts fail before; `shortage` is since when there is
/// no descriptor for it.
async fn accept(listener: &Listener, table: &Arc<Table>, shortage: &mut Option<Instant>) -> Stream {
    loop {
        match listener.accept().await {
            Ok(stream) => {
                *shortage = None;
                return stream;
            }
            // Of one connection, which went away again before it was accepted.
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::ConnectionAborted
                        | io::ErrorKind::ConnectionReset
                        | io::ErrorKind::ConnectionRefused
                ) => {}
            // The kernel looks for a descriptor before it looks whether anybody wants to connect.
            Err(_) if !is_pending(listener) => {
                *shortage = None;
                sleep(Duration::from_millis(20)).await;
            }
            // Out of files or memory: others must end first.
            Err(error) => {
                let since = *shortage.get_or_insert_with(Instant::now);
                if table.make_room(since.elapsed()) {
                    tracing::debug!(%error, "a connection is closed for another");
                    // Until it is gone.
                    sleep(Duration::from_millis(5)).await;
                } else {
                    tracing::warn!(%error, "can't accept connections; trying again");
                    sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }
}

/// Whether a connection waits to be accepted.
fn is_pending(listener: &Listener) -> bool {
    let mut polled = [PollFd::new(listener, PollFlags::IN)];
    // What can't be looked at is taken for so.
    poll(&mut polled, Some(&Timespec::default())).map_or(true, |count| count > 0)
}

/// Maximum number of accepted connections that wait for a place; while there are as many, no other is
/// accepted.
const MAX_HELD: usize = 64;
/// How often to look for what addresses have beyond their share.
const TRIM_INTERVAL: Duration = Duration::from_millis(250);
