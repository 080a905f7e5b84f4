//! The accept loop of all servers.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::sockopt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};

use crate::net::connection::Connection;
use crate::net::limits::ConnectionLimits;
use crate::net::table::Table;

/// Accepts connections and serves each of them in a task of its own, until `shutdown` resolves.
/// Then it takes no more, tells those that there are by their [`Closing`], and ends what is left
/// after `max_linger`.
///
/// What is written to a connection is sent at once. A peer that is gone without a word is found out
/// within 45 s, and one that has closed the connection, or its half of it where the server does not
/// [allow](crate::ConnectionHandle::allow_half_close) that, within 2 s, also while nobody reads: then what
/// serves it is dropped. So it is when an unauthenticated connection has to
/// make room or shows nothing in time, as `limits` say; by its
/// [handle](Connection::handle) `serve` tells when that is over. `serve` gives what serves a
/// connection, or nothing for one that is to be closed at once.
///
/// When the process is out of file descriptors, connections beyond their caller's share, and
/// unauthenticated ones that have been there for a second, are closed for new ones.
///
/// # Cancel safety
///
/// Dropping the future closes the listener and all connections.
pub async fn serve_connections<F>(
    listener: TcpListener,
    limits: ConnectionLimits,
    max_linger: Duration,
    shutdown: impl Future<Output = ()>,
    mut serve: impl FnMut(Connection, Closing) -> Option<F>,
) where
    F: Future<Output = io::Result<()>> + Send + 'static,
{
    let table = Table::new(limits);
    let (close, closing) = watch::channel(false);
    let mut connections = JoinSet::new();
    let mut shutdown = std::pin::pin!(shutdown);
    let mut trims = interval(TRIM_INTERVAL);
    trims.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        while connections.try_join_next().is_some() {}
        let accepted = async {
            loop {
                table.has_place().await;
                tokio::select! {
                    biased;
                    () = table.is_full() => {}
                    accepted = accept(&listener, &table) => return accepted,
                }
            }
        };
        let (stream, peer) = tokio::select! {
            accepted = accepted => accepted,
            _ = trims.tick(), if table.has_surplus() => {
                table.trim();
                continue;
            }
            () = &mut shutdown => break,
        };
        if table.limits.refuses(peer.ip()) {
            table.limits.counters.refused.fetch_add(1, Relaxed);
            continue;
        }
        let connection = Connection::enter(stream, peer, &table);
        let socket = connection.socket();
        let Some(served) = serve(connection, Closing(closing.clone())) else { continue };
        connections.spawn(async move {
            tokio::select! {
                ended = served => {
                    if let Err(error) = ended {
                        tracing::debug!(%error, %peer, "a connection ended badly");
                    }
                }
                () = socket.peer_left() => tracing::debug!(%peer, "a client has left"),
                () = socket.evicted() => {
                    tracing::debug!(%peer, "a connection is closed for another");
                }
                () = socket.showed_nothing() => {
                    tracing::debug!(%peer, "nobody authenticated on a connection in time");
                }
            }
            socket.set_served();
            socket.linger().await;
        });
    }
    drop(listener);
    close.send_replace(true);
    let all = async { while connections.join_next().await.is_some() {} };
    if timeout(max_linger, all).await.is_err() {
        tracing::info!("closing connections that did not finish in time");
    }
}

/// Whether the server of a connection [takes no more](serve_connections).
#[derive(Debug, Clone)]
pub struct Closing(watch::Receiver<bool>);

impl Closing {
    /// Whether the connection is to end as soon as what it is at is done.
    #[must_use]
    pub fn is_closing(&self) -> bool {
        *self.0.borrow()
    }

    /// Resolves when it is.
    ///
    /// # Cancel safety
    ///
    /// Safe.
    pub async fn closed(&mut self) {
        // A server that is gone itself has ended this task, too.
        if self.0.wait_for(|closing| *closing).await.is_err() {
            std::future::pending().await
        }
    }
}

/// Returns the next connection, however many attempts fail before.
async fn accept(listener: &TcpListener, table: &Arc<Table>) -> (TcpStream, SocketAddr) {
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => {
                let _ = stream.set_nodelay(true);
                let _ = sockopt::set_socket_keepalive(&stream, true);
                let _ = sockopt::set_tcp_keepidle(&stream, Duration::from_secs(30));
                let _ = sockopt::set_tcp_keepintvl(&stream, Duration::from_secs(5));
                let _ = sockopt::set_tcp_keepcnt(&stream, 3);
                return (stream, peer);
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
            Err(_) if !is_pending(listener) => sleep(Duration::from_millis(20)).await,
            // Out of files or memory: others must end first.
            Err(error) => {
                if table.make_room() {
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

/// Whether somebody waits to be accepted.
fn is_pending(listener: &TcpListener) -> bool {
    let mut polled = [PollFd::new(listener, PollFlags::IN)];
    // What can't be looked at is taken for so.
    poll(&mut polled, Some(&Timespec::default())).map_or(true, |count| count > 0)
}

/// How often to look for what addresses have beyond their share.
const TRIM_INTERVAL: Duration = Duration::from_millis(250);
