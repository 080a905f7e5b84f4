//! What the servers of all doors do with sockets. Knows bytes, not protocols.

use std::io;
use std::time::Duration;

use rustix::net::sockopt;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::sleep;

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

/// The next connection, however many attempts fail before. What is written to it is sent at once,
/// and a peer that is gone without a word is found out within 45 s.
///
/// # Cancel safety
///
/// No connection is lost when the future is dropped.
pub async fn accept(listener: &TcpListener) -> TcpStream {
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
