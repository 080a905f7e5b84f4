//! What the servers of all doors do with sockets. Knows bytes, not protocols.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use rustix::net::{Shutdown, shutdown, sockopt};
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

/// An address that can't be had.
#[derive(Debug, thiserror::Error)]
#[error("can't listen on {address}")]
#[non_exhaustive]
pub struct BindError {
    /// The address.
    pub address: String,
    /// What the operating system said.
    #[source]
    pub source: io::Error,
}

impl BindError {
    /// That `address` can't be had.
    pub fn new(address: impl Into<String>, source: io::Error) -> Self {
        Self { address: address.into(), source }
    }
}

/// Whether the name under which a client says that it has found this host, with a port or without,
/// is one that anybody can have: any with a dot that is no address. The DNS of such a name may lead
/// here for a moment, and a page from there is then, to its browser, one of this server's own (DNS
/// rebinding). What it shows no credentials for it must not be given.
#[must_use]
pub fn is_anybodys_name(host: &str) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    let name = name.strip_suffix('.').unwrap_or(name);
    let is_address = name.starts_with('[') || name.parse::<Ipv4Addr>().is_ok();
    // RFC 6761, section 6.3: what ends so is this host to whoever asks.
    let is_local = name.to_ascii_lowercase().ends_with(".localhost");
    name.contains('.') && !is_address && !is_local
}

/// Accepts connections and serves each of them in a task of its own, until `shutdown` resolves.
/// Then it takes no more, tells those that there are by their [`Closing`], and ends what is left
/// after `max_linger`.
///
/// What is written to a connection is sent at once. A peer that is gone without a word is found out
/// within 45 s, and one that has closed the connection, or its half of it, within 2 s, also while
/// nobody reads: then what serves it is dropped. At `max_connections`, and at least one, the next
/// waits unaccepted. `serve` gives what serves a connection, or nothing for one that is to be closed
/// at once.
///
/// # Cancel safety
///
/// Dropping the future closes the listener and all connections.
pub async fn serve_connections<F>(
    listener: TcpListener,
    max_connections: usize,
    max_linger: Duration,
    shutdown: impl Future<Output = ()>,
    mut serve: impl FnMut(Connection, Closing) -> Option<F>,
) where
    F: Future<Output = io::Result<()>> + Send + 'static,
{
    let places = Arc::new(Semaphore::new(max_connections.clamp(1, Semaphore::MAX_PERMITS)));
    let (close, closing) = watch::channel(false);
    let mut connections = JoinSet::new();
    let mut shutdown = std::pin::pin!(shutdown);
    loop {
        while connections.try_join_next().is_some() {}
        let accepted = async {
            let place = Arc::clone(&places).acquire_owned().await;
            (accept(&listener).await, place)
        };
        let (stream, place) = tokio::select! {
            accepted = accepted => accepted,
            () = &mut shutdown => break,
        };
        let peer = stream.peer_addr().ok();
        let stream = Arc::new(stream);
        let connection = Connection(Arc::clone(&stream));
        let Some(served) = serve(connection, Closing(closing.clone())) else { continue };
        connections.spawn(async move {
            tokio::select! {
                ended = served => {
                    if let Err(error) = ended {
                        tracing::debug!(%error, ?peer, "a connection ended badly");
                    }
                }
                () = peer_left(&stream) => tracing::debug!(?peer, "a client has left"),
            }
            drop(place);
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

/// The address at the other end of a connection. Our own servers put it into the extensions of each
/// request of HTTP; a host that nests one of our services does so itself, or bounds that count by
/// address see one client in all of its.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct PeerAddress {
    /// The address. An IPv4 address that was mapped into IPv6 is an IPv4 address here.
    pub ip: IpAddr,
}

impl PeerAddress {
    /// The address `ip`.
    #[must_use]
    pub fn new(ip: IpAddr) -> Self {
        Self { ip: ip.to_canonical() }
    }
}

/// A connection that was [accepted](serve_connections).
#[derive(Debug)]
pub struct Connection(Arc<TcpStream>);

impl Connection {
    /// Who is at the other end.
    ///
    /// # Errors
    ///
    /// When they are gone already.
    pub fn peer_addr(&self) -> io::Result<SocketAddr> {
        self.0.peer_addr()
    }

    fn write(
        &self,
        cx: &mut Context<'_>,
        attempt: impl Fn(&TcpStream) -> io::Result<usize>,
    ) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.0.poll_write_ready(cx))?;
            match attempt(&self.0) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                written => return Poll::Ready(written),
            }
        }
    }
}

impl From<TcpStream> for Connection {
    fn from(stream: TcpStream) -> Self {
        Self(Arc::new(stream))
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            ready!(self.0.poll_read_ready(cx))?;
            match self.0.try_read_buf(buffer) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                read => return Poll::Ready(read.map(drop)),
            }
        }
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.write(cx, |stream| stream.try_write(bytes))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.write(cx, |stream| stream.try_write_vectored(slices))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(shutdown(&*self.0, Shutdown::Write).map_err(Into::into))
    }
}

/// Resolves when the peer has closed the connection, or its half of it, for a while: what serves it
/// notices that by itself when it reads, and it may not read while it is at something.
async fn peer_left(stream: &TcpStream) {
    let mut left_before = false;
    loop {
        sleep(LOOK).await;
        let ready = std::pin::pin!(stream.ready(Interest::READABLE))
            .poll(&mut Context::from_waker(Waker::noop()));
        let left = matches!(ready, Poll::Ready(Ok(ready)) if ready.is_read_closed());
        if left && left_before {
            return;
        }
        left_before = left;
    }
}

/// The next connection, however many attempts fail before.
async fn accept(listener: &TcpListener) -> TcpStream {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                let _ = stream.set_nodelay(true);
                let _ = sockopt::set_socket_keepalive(&stream, true);
                let _ = sockopt::set_tcp_keepidle(&stream, Duration::from_secs(30));
                let _ = sockopt::set_tcp_keepintvl(&stream, Duration::from_secs(5));
                let _ = sockopt::set_tcp_keepcnt(&stream, 3);
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
            // Out of files or memory: others must end first.
            Err(error) => {
                tracing::warn!(%error, "can't accept connections; trying again");
                sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

/// How often to look for a peer that left.
const LOOK: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_anybody_are_told_from_those_of_this_host() {
        for host in
            ["127.0.0.1:80", "10.1.2.3", "[::1]:80", "[fe80::1.2.3.4]", "localhost:1", "box"]
        {
            assert!(!is_anybodys_name(host), "{host}");
        }
        for host in ["App.Localhost:80", "app.localhost.", ""] {
            assert!(!is_anybodys_name(host), "{host}");
        }
        for host in ["evil.example", "evil.example:8080", "127.0.0.1.evil.example", "127.1", "a.b."]
        {
            assert!(is_anybodys_name(host), "{host}");
        }
    }
}
