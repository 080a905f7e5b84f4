//! What the servers of all doors do with sockets. Knows bytes, not protocols.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use rustix::net::sockopt;
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

/// Accepts connections and serves each of them in a task of its own, until `shutdown` resolves.
/// Then it takes no more, tells those that there are by their [`Closing`], and ends what is left
/// after `max_linger`.
///
/// What is written to a connection is sent at once, and a peer that is gone without a word is found
/// out within 45 s. At `max_connections`, and at least one, the next waits unaccepted. `serve` gives
/// what serves a connection, or nothing for one that is to be closed at once.
///
/// # Cancel safety
///
/// Dropping the future closes the listener and all connections.
pub async fn serve_connections<F>(
    listener: TcpListener,
    max_connections: usize,
    max_linger: Duration,
    shutdown: impl Future<Output = ()>,
    mut serve: impl FnMut(TcpStream, Closing) -> Option<F>,
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
        let Some(served) = serve(stream, Closing(closing.clone())) else { continue };
        connections.spawn(async move {
            if let Err(error) = served.await {
                tracing::debug!(%error, ?peer, "a connection ended badly");
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
