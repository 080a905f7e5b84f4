use std::convert::Infallible;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{self, Poll};

use axum::Router;
use axum::body::Body;
use bytes::Bytes;
use splengine_core::Engine;
use splengine_core::net::{ConnectionLimits, ListenAddr, Listener, Server};
use splengine_http::{ResponseBody, ResponseFuture};
use tower::Service;

use crate::context::Context;

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// The WebSocket server on an address of its own. Serves while it is awaited, or
/// [run](Self::run_until).
///
/// ```no_run
/// use std::time::Duration;
/// use splengine_core::auth::Authenticator;
/// use splengine_core::{Engine, LocalExecutor};
/// use splengine_ws::WsServer;
///
/// # async fn example(
/// #     authenticator: impl Authenticator,
/// #     signal: impl Future<Output = ()>,
/// # ) -> Result<(), Box<dyn std::error::Error>> {
/// let engine = Engine::builder(LocalExecutor::new("/srv/work")?).build()?;
/// let server =
///     WsServer::builder(engine.clone()).authenticate(authenticator).bind("127.0.0.1:8081").await?;
/// let shutdown = async {
///     signal.await;
///     // Clients hear of the restart, and come back by themselves.
///     engine.drain(Duration::from_secs(30)).await;
/// };
/// server.run_until(shutdown).await;
/// # Ok(())
/// # }
/// ```
#[must_use = "a server does nothing unless it is awaited"]
pub struct WsServer {
    listener: Listener,
    local_addr: ListenAddr,
    service: WsService,
    limits: ConnectionLimits,
    /// Whose statistics count the connections.
    engine: Engine,
}

impl WsServer {
    pub(crate) fn new(
        listener: Listener,
        local_addr: ListenAddr,
        service: WsService,
        engine: Engine,
    ) -> Self {
        Self { listener, local_addr, service, limits: ConnectionLimits::new(), engine }
    }

    /// Sets the bounds on connections. Default: those of [`ConnectionLimits::new`]. A connection counts as
    /// authenticated from the first request on that was let in, a WebSocket once its caller is known
    /// by its headers or its ticket; until then it makes room for others.
    pub fn connection_limits(mut self, limits: ConnectionLimits) -> Self {
        self.limits = limits;
        self
    }

    /// Sets the maximum number of connections served at once, at least 1, default 1024; see
    /// [`ConnectionLimits::max_connections`]. WebSockets whose callers are known are not among them.
    pub fn max_connections(mut self, count: usize) -> Self {
        self.limits = self.limits.max_connections(count);
        self
    }

    /// Returns the address that the server listens on.
    #[must_use]
    pub fn local_addr(&self) -> ListenAddr {
        self.local_addr.clone()
    }

    /// Serves until `shutdown` resolves; then accepts no more connections, and
    /// [closes](WsService::close) the open ones.
    ///
    /// While `shutdown` is pending everything is served. If the engine is drained within it, clients
    /// are disconnected with 1012, upon which they connect again.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future closes the listener and all connections but the WebSockets that are open:
    /// they stay until their sessions end.
    pub async fn run_until(self, shutdown: impl Future<Output = ()>) {
        let Self { listener, service, limits, engine, .. } = self;
        let limits = limits.counted_by(&engine);
        splengine_http::serve(listener, service.clone(), limits, shutdown).await;
        service.close().await;
    }
}

impl Server for WsServer {
    fn local_addr(&self) -> ListenAddr {
        self.local_addr.clone()
    }

    async fn run_until(self, shutdown: impl Future<Output = ()> + Send + 'static) {
        Self::run_until(self, shutdown).await;
    }
}

impl IntoFuture for WsServer {
    type Output = Infallible;
    type IntoFuture = Pin<Box<dyn Future<Output = Infallible> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(Server::run(self))
    }
}

impl fmt::Debug for WsServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WsServer").field("local_addr", &self.local_addr).finish_non_exhaustive()
    }
}

/// The WebSocket server as a [`tower::Service`], to be nested in a stack of one's own, by one that
/// serves upgrades. Cheap to clone, always ready, and never fails: refusals are responses.
///
/// ```
/// use splengine_core::auth::StaticTokens;
/// use splengine_core::{Engine, LocalExecutor};
/// use splengine_ws::WsServer;
/// use tower::ServiceExt as _;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let engine = Engine::builder(LocalExecutor::new(".")?).build()?;
/// let terminals =
///     WsServer::builder(engine).authenticate(StaticTokens::new()).console(false).into_service();
/// let app = axum::Router::new().nest_service("/shell", terminals.clone());
///
/// // Without the headers of an upgrade it is refused.
/// let request = http::Request::get("/shell/terminal").header("host", "localhost");
/// let response = app.oneshot(request.body(axum::body::Body::empty())?).await?;
/// assert!(response.status().is_client_error());
/// terminals.close().await;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct WsService {
    router: Router,
    context: Arc<Context>,
}

impl WsService {
    pub(crate) fn new(context: Arc<Context>) -> Self {
        Self { router: context.router(), context }
    }

    /// Disconnects every client with 1001, and waits until they are gone, for the builder's
    /// `max_linger` at most. Their sessions continue, unless the engine is drained.
    ///
    /// # Cancel safety
    ///
    /// Clients are disconnected all the same.
    pub async fn close(&self) {
        self.context.close().await;
    }
}

impl<B> Service<http::Request<B>> for WsService
where
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    type Response = http::Response<ResponseBody>;
    type Error = Infallible;
    type Future = ResponseFuture;

    fn poll_ready(&mut self, _: &mut task::Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<B>) -> ResponseFuture {
        let response = self.router.call(request.map(Body::new));
        ResponseFuture::new(async move { Ok(response.await?.map(ResponseBody::new)) })
    }
}

impl fmt::Debug for WsService {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WsService").finish_non_exhaustive()
    }
}
