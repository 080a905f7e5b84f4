use std::convert::Infallible;
use std::net::SocketAddr;

use tokio::net::{TcpListener, ToSocketAddrs};

use crate::net::BindError;

/// A server that has its address, and serves once it is run.
///
/// Servers of an engine are run together by [`Servers`](crate::engine::Servers), whatever their
/// protocols. Implement it with a plain `async fn`:
///
/// ```
/// use std::net::SocketAddr;
/// use std::time::Duration;
/// use splengine_core::net::{ConnectionLimits, Server, bind, serve_connections};
/// use tokio::io::AsyncWriteExt;
/// use tokio::net::TcpListener;
///
/// struct Greeter(TcpListener, SocketAddr);
///
/// impl Server for Greeter {
///     fn local_addr(&self) -> SocketAddr {
///         self.1
///     }
///
///     async fn run_until(self, shutdown: impl Future<Output = ()> + Send + 'static) {
///         let (limits, max_linger) = (ConnectionLimits::new(), Duration::from_secs(5));
///         serve_connections(self.0, limits, max_linger, shutdown, |mut connection, _| {
///             Some(async move { connection.write_all(b"hello\n").await })
///         })
///         .await;
///     }
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let (listener, local_addr) = bind("127.0.0.1:0").await?;
/// let greeter = Greeter(listener, local_addr);
/// assert_ne!(greeter.local_addr().port(), 0);
/// greeter.run_until(async {}).await;
/// # Ok(())
/// # }
/// ```
#[diagnostic::on_unimplemented(note = "`Servers` runs types that implement `Server`")]
pub trait Server: Send + 'static {
    /// Returns the address that it listens on.
    fn local_addr(&self) -> SocketAddr;

    /// Serves until `shutdown` resolves; then accepts no more connections, notifies the clients, and
    /// returns when their connections are over, or were closed after a time that the server sets.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future closes the listener and all connections.
    fn run_until(
        self,
        shutdown: impl Future<Output = ()> + Send + 'static,
    ) -> impl Future<Output = ()> + Send;

    /// Serves for ever.
    ///
    /// # Cancel safety
    ///
    /// As [`run_until`](Self::run_until).
    fn run(self) -> impl Future<Output = Infallible> + Send
    where
        Self: Sized,
    {
        async {
            self.run_until(std::future::pending()).await;
            std::future::pending().await
        }
    }
}

/// Listens on `address`, and returns the listener with its address; port 0 takes a free port.
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
    let local_addr = local_addr(&listener)?;
    Ok((listener, local_addr))
}

/// Returns the address that `listener` is bound to.
///
/// # Errors
///
/// [`BindError`] when the listener has no address.
pub fn local_addr(listener: &TcpListener) -> Result<SocketAddr, BindError> {
    listener.local_addr().map_err(|source| BindError::new(format!("{listener:?}"), source))
}
