use std::io;
use std::net::SocketAddr;

use tokio::net::{TcpListener, TcpSocket, ToSocketAddrs, lookup_host};

/// Failure to listen on an address.
#[derive(Debug, thiserror::Error)]
#[error("can't listen on {address}")]
#[non_exhaustive]
pub struct BindError {
    /// Address that could not be bound.
    pub address: String,
    /// Error of the operating system.
    #[source]
    pub source: io::Error,
}

impl BindError {
    /// Makes the error of listening on `address`.
    pub fn new(address: impl Into<String>, source: io::Error) -> Self {
        Self { address: address.into(), source }
    }
}

/// Listens on an address of TCP, and returns the listener with its address; port 0 takes a free port.
/// See [`Listener`](crate::net::Listener) for UNIX sockets.
///
/// # Errors
///
/// [`BindError`] when the address is not available.
///
/// # Cancel safety
///
/// Dropping the future releases the address.
pub async fn bind(
    address: impl ToSocketAddrs + std::fmt::Debug,
) -> Result<(TcpListener, SocketAddr), BindError> {
    let failed = |source| BindError::new(format!("{address:?}"), source);
    let listener = listen(&address).await.map_err(failed)?;
    let local_addr = listener.local_addr().map_err(failed)?;
    Ok((listener, local_addr))
}

/// The first of the addresses that is available.
async fn listen(address: impl ToSocketAddrs) -> io::Result<TcpListener> {
    let none = || io::Error::new(io::ErrorKind::InvalidInput, "it names no address");
    let mut failure = None;
    for address in lookup_host(address).await? {
        let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() };
        let listening = socket.and_then(|socket| {
            // So that a server that starts anew gets the address of the one before.
            socket.set_reuseaddr(true)?;
            socket.bind(address)?;
            socket.listen(BACKLOG)
        });
        match listening {
            Ok(listener) => return Ok(listener),
            Err(error) => failure = Some(error),
        }
    }
    Err(failure.unwrap_or_else(none))
}

/// Maximum number of connections that wait to be accepted, where the system allows as many. With the 128 of
/// the standard library a burst of connects made others wait for a second or more.
const BACKLOG: u32 = 4096;
