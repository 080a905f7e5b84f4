use std::convert::Infallible;

use crate::net::listen_addr::ListenAddr;

/// A server that has its address, and serves once it is run.
///
/// Servers of an engine are run together by [`Servers`](crate::engine::Servers), whatever their
/// protocols. Implement it with a plain `async fn`:
///
/// ```
/// use std::time::Duration;
/// use splengine_core::net::{ConnectionLimits, ListenAddr, Listener, Server, serve_connections};
/// use tokio::io::AsyncWriteExt;
///
/// struct Greeter(Listener, ListenAddr);
///
/// impl Server for Greeter {
///     fn local_addr(&self) -> ListenAddr {
///         self.1.clone()
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
/// let listener = Listener::bind("127.0.0.1:0").await?;
/// let local_addr = listener.local_addr()?;
/// let greeter = Greeter(listener, local_addr);
/// assert!(greeter.local_addr().tcp().is_some_and(|address| address.port() != 0));
/// greeter.run_until(async {}).await;
/// # Ok(())
/// # }
/// ```
#[diagnostic::on_unimplemented(note = "`Servers` runs types that implement `Server`")]
pub trait Server: Send + 'static {
    /// Returns the address that it listens on.
    fn local_addr(&self) -> ListenAddr;

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
