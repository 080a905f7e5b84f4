use std::io;
use std::net::SocketAddr;

use tokio::net::{TcpListener, ToSocketAddrs};

/// Failure to listen on an address.
#[derive(Debug, thiserror::Error)]
#[error("can't listen on {address}")]
#[non_exhaustive]
pub struct BindError {
    /// The address.
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
    let listener = TcpListener::bind(&address).await.map_err(failed)?;
    let local_addr = listener.local_addr().map_err(failed)?;
    Ok((listener, local_addr))
}
