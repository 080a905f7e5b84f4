use std::convert::Infallible;
use std::fmt;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::Body;
use axum::http::header::CONNECTION;
use axum::http::{HeaderName, HeaderValue, Version};
use bytes::Bytes;
use http_body::{Body as _, Frame, SizeHint};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use prometheus_client::metrics::gauge::Gauge;
use splengine_core::Engine;
use splengine_core::auth::CredentialSource;
use splengine_core::net::{
    Activity, ConnectionLimits, HttpBounds, HttpStream, ListenAddr, Listener, PeerAddress, Server,
    UnreadBody, serve_connections,
};
use tokio::time::timeout;
use tower::Service;

use crate::problem::Problem;
use crate::service::HttpService;
use crate::tracked::Tracked;

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// The HTTP server on an address of its own: HTTP/1.1, and HTTP/2 without TLS to clients that begin
/// with it. Serves while it is awaited, or [run](Self::run_until).
///
/// ```no_run
/// use std::time::Duration;
/// use splengine_core::auth::{Secret, StaticTokens};
/// use splengine_core::{Caller, Engine, LocalExecutor};
/// use splengine_http::HttpServer;
///
/// # async fn example(token: Secret) -> Result<(), Box<dyn std::error::Error>> {
/// let engine = Engine::builder(LocalExecutor::new("/srv/work")?).build()?;
/// let mut tokens = StaticTokens::new();
/// tokens.insert(&token, Caller::new("alice")?.with_all_scopes())?;
/// let server = HttpServer::builder(engine.clone()).authenticate(tokens).bind("127.0.0.1:8080").await?;
/// let shutdown = async {
///     drop(tokio::signal::ctrl_c().await);
///     // Until this is done, `/ready` answers with 503, and everything else as before.
///     engine.drain(Duration::from_secs(30)).await;
/// };
/// server.run_until(shutdown).await;
/// # Ok(())
/// # }
/// ```
#[must_use = "a server does nothing unless it is awaited"]
pub struct HttpServer {
    listener: Listener,
    local_addr: ListenAddr,
    service: HttpService,
    connections: Gauge,
    /// Whose statistics count the connections.
    engine: Engine,
    timing: Timing,
}

/// The bounds on connections.
#[derive(Debug, Clone)]
pub(crate) struct Timing {
    pub(crate) limits: ConnectionLimits,
    pub(crate) header_timeout: Duration,
    pub(crate) keep_alive_timeout: Duration,
    pub(crate) max_linger: Duration,
}

impl Timing {
    /// When a connection that lies idle is closed: later than clients are told, so that a request that
    /// was sent just in time is not on its way by then.
    fn idle_timeout(&self) -> Duration {
        let margin = self.keep_alive_timeout.min(MAX_KEEP_ALIVE_MARGIN);
        self.keep_alive_timeout.saturating_add(margin).min(HttpBounds::MAX_TIMEOUT)
    }

    /// What clients are told of it (RFC 2068, section 19.7.1.1).
    fn keep_alive(&self) -> Option<HeaderValue> {
        let seconds = self.keep_alive_timeout.min(HttpBounds::MAX_TIMEOUT).as_secs();
        HeaderValue::try_from(format!("timeout={seconds}")).ok().filter(|_| seconds > 0)
    }
}

impl HttpServer {
    pub(crate) fn new(
        listener: Listener,
        local_addr: ListenAddr,
        service: HttpService,
        connections: Gauge,
        engine: Engine,
    ) -> Self {
        let timing = Timing::default();
        Self { listener, local_addr, service, connections, engine, timing }
    }

    /// Sets the bounds on connections. Default: those of [`ConnectionLimits::new`]. A connection counts as
    /// authenticated from the first request on that was let in; a finished request that needs no
    /// credentials, such as `GET /health`, saves it from the unauthenticated timeout, but not from
    /// making room for others. Of the unauthenticated timeout and the
    /// [header timeout](Self::header_timeout) the shorter one counts.
    pub fn connection_limits(mut self, limits: ConnectionLimits) -> Self {
        self.timing.limits = limits;
        self
    }

    /// Sets the maximum number of connections served at once, at least 1, default 1024; see
    /// [`ConnectionLimits::max_connections`].
    pub fn max_connections(mut self, count: usize) -> Self {
        self.timing.limits = self.timing.limits.max_connections(count);
        self
    }

    /// Sets the maximum time for the head of a request of HTTP/1 to arrive, from its first byte on, before
    /// the connection is closed. Default 30 s.
    pub fn header_timeout(mut self, timeout: Duration) -> Self {
        self.timing.header_timeout = timeout;
        self
    }

    /// Sets the time for which a connection may lie idle between two requests; of HTTP/2 without open
    /// streams. Default 75 s. Clients of HTTP/1 are told it in whole seconds (`Keep-Alive: timeout=75`). The
    /// connection is closed up to 5 s later, so that no request is lost that is sent just in time.
    pub fn keep_alive_timeout(mut self, timeout: Duration) -> Self {
        self.timing.keep_alive_timeout = timeout;
        self
    }

    /// Sets the time that connections have, once the server ends, to finish their work. Default
    /// 5 s.
    pub fn max_linger(mut self, time: Duration) -> Self {
        self.timing.max_linger = time;
        self
    }

    /// Returns the server's service, for a further server, such as the WebSocket server's API: a
    /// request with an `Idempotency-Key` is then done once, whichever server gets it.
    #[must_use]
    pub fn service(&self) -> HttpService {
        self.service.clone()
    }

    /// Returns the address that the server listens on.
    #[must_use]
    pub fn local_addr(&self) -> ListenAddr {
        self.local_addr.clone()
    }

    /// Serves until `shutdown` resolves; then accepts no more connections, lets the open ones finish
    /// their requests, and closes what is left after [`max_linger`](Self::max_linger).
    ///
    /// While `shutdown` is pending everything is answered. If the engine is drained within it, load
    /// balancers (`/ready`) and clients (503) are told of the end before it comes.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future closes the listener and all connections but those that were upgraded.
    pub async fn run_until(self, shutdown: impl Future<Output = ()>) {
        let Self { listener, service, connections, engine, mut timing, .. } = self;
        timing.limits = timing.limits.counted_by(&engine);
        run(listener, service, connections, timing, shutdown).await;
    }
}

/// Serves any service as [`HttpServer`] serves its own, WebSocket upgrades included: for servers that
/// are HTTP and more. The bounds are the defaults of [`HttpServer`], with `limits` given. Each request
/// has the [`CredentialSource`], over TCP the [`PeerAddress`], and a
/// [`ConnectionHandle`](splengine_core::net::ConnectionHandle) among its extensions; the code that
/// authenticates the caller notes it in the handle. A connection that was upgraded is the service's; it
/// counts until its handle says that it is authenticated.
///
/// ```no_run
/// use std::convert::Infallible;
/// use splengine_core::net::ConnectionLimits;
/// use splengine_http::{RequestBody, serve};
///
/// # async fn example() -> std::io::Result<()> {
/// let service = tower::service_fn(|_request: http::Request<RequestBody>| async {
///     Ok::<_, Infallible>(http::Response::new("hello".to_owned()))
/// });
/// let listener = tokio::net::TcpListener::bind("127.0.0.1:8080").await?;
/// let shutdown = async { drop(tokio::signal::ctrl_c().await) };
/// serve(listener, service, ConnectionLimits::new(), shutdown).await;
/// # Ok(())
/// # }
/// ```
///
/// # Cancel safety
///
/// As [`HttpServer::run_until`].
pub async fn serve<S, B>(
    listener: impl Into<Listener>,
    service: S,
    limits: ConnectionLimits,
    shutdown: impl Future<Output = ()>,
) where
    S: Service<http::Request<RequestBody>, Response = http::Response<B>, Error = Infallible>
        + Clone
        + Send
        + 'static,
    S::Future: Send + 'static,
    B: http_body::Body<Data = Bytes> + Send + Unpin + 'static,
    B::Error: Into<BoxError>,
{
    let timing = Timing { limits, ..Timing::default() };
    run(listener.into(), service, Gauge::default(), timing, shutdown).await;
}

async fn run<S, B>(
    listener: Listener,
    service: S,
    connections: Gauge,
    timing: Timing,
    shutdown: impl Future<Output = ()>,
) where
    S: Service<http::Request<RequestBody>, Response = http::Response<B>, Error = Infallible>
        + Clone
        + Send
        + 'static,
    S::Future: Send + 'static,
    B: http_body::Body<Data = Bytes> + Send + Unpin + 'static,
    B::Error: Into<BoxError>,
{
    let (idle_timeout, keep_alive) = (timing.idle_timeout(), timing.keep_alive());
    let Timing { limits, header_timeout, max_linger, .. } = timing;
    let header_timeout = header_timeout.min(HttpBounds::MAX_TIMEOUT);
    // The header of the first request is what a connection shows.
    let limits = limits.unauthenticated_timeout_at_most(header_timeout);
    serve_connections(listener, limits, max_linger, shutdown, |connection, mut closing| {
        let service = service.clone();
        let handle = connection.handle();
        let peer = connection.peer().ok();
        let source = peer.map_or_else(
            || CredentialSource::new("http", None),
            |peer| peer.credential_source("http"),
        );
        let address = peer.and_then(|peer| peer.ip()).map(PeerAddress::new);
        handle.allow_half_close();
        let of_request = handle.clone();
        let (keep_alive, at_end) = (keep_alive.clone(), closing.clone());
        let service = service_fn(move |mut request: http::Request<Incoming>| {
            let mut activity = of_request.begin();
            let is_stream = request.version() == Version::HTTP_2;
            let is_old = request.version() == Version::HTTP_10;
            // An HTTP/1.0 request is answered as 1.0 has it; up to there they are the same.
            let announced = (!is_stream).then(|| of_request.announce(b"HTTP/1."));
            let keep_alive = keep_alive.clone().filter(|_| stays_open(&request));
            let at_end = at_end.clone();
            request.extensions_mut().insert(of_request.clone());
            if let Some(address) = address {
                request.extensions_mut().insert(address);
            }
            request.extensions_mut().insert(source.clone());
            let body = |body| RequestBody(Body::new(Whole::new(body, is_stream, &activity)));
            let (mut service, request) = (service.clone(), request.map(body));
            let connection = of_request.clone();
            async move {
                let head_bytes = head_bytes(&request);
                let refusal = |error, activity| {
                    let refusal = Problem::from(error).into_whole_response();
                    // A body might wait for its client, as long as those do whose turn it is.
                    let is_told = connection.is_authenticated();
                    let text = |text| if is_told { text } else { Bytes::new() };
                    Ok(refusal.map(|whole| Tracked::whole(text(whole), activity)))
                };
                let refused = activity.refused();
                let work = async {
                    if is_stream {
                        activity.turn(head_bytes).await?;
                    }
                    Ok(activity.start(async { service.call(request).await }).await)
                };
                let answered = tokio::select! {
                    biased;
                    answered = work => answered,
                    error = refused => Err(error),
                };
                let response = match answered {
                    Ok(response) => response?,
                    Err(error) => return refusal(error, activity),
                };
                activity.release_head();
                let mut response = response.map(|body| Tracked::new(body, activity, is_stream));
                drop(announced);
                if is_old && response.body().size_hint().exact().is_none() {
                    // Its end is that of the connection, which a client of HTTP/1.0 is not to be told
                    // will stay.
                    *response.version_mut() = Version::HTTP_10;
                    return Ok(response);
                }
                if let Some(keep_alive) = keep_alive.filter(|_| !at_end.is_closing()) {
                    let headers = response.headers_mut();
                    if !headers.contains_key(CONNECTION) {
                        headers.insert(CONNECTION, HeaderValue::from_static("keep-alive"));
                        headers.insert(HeaderName::from_static("keep-alive"), keep_alive);
                    }
                }
                Ok::<_, Infallible>(response)
            }
        });
        let connections = connections.clone();
        Some(async move {
            connections.inc();
            // Counted down even if a handler panics.
            let _open = Open(connections);
            let builder = connection_builder();
            let stream = TokioIo::new(HttpStream::new(connection, handle.clone()));
            let mut served =
                std::pin::pin!(builder.serve_connection_with_upgrades(stream, service));
            tokio::select! {
                // A request that has arrived by then is not passed over.
                biased;
                ended = served.as_mut() => return ended.map_err(io::Error::other),
                () = closing.closed() => served.as_mut().graceful_shutdown(),
                () = handle.stalled_for(header_timeout) => {
                    handle.count_idle_timeout();
                    return Ok(());
                }
                // Pings are no requests, so that they keep no connection.
                () = handle.idle_for(idle_timeout) => {
                    handle.count_idle_timeout();
                    served.as_mut().graceful_shutdown();
                }
                // Other streams of a client that is known, which may be a proxy, get as much time.
                () = handle.answer_unread() => {
                    if !handle.is_authenticated() {
                        return Ok(());
                    }
                    served.as_mut().graceful_shutdown();
                    let ended = timeout(handle.write_timeout(), served.as_mut()).await;
                    return ended.unwrap_or(Ok(())).map_err(io::Error::other);
                }
            }
            // What is left of an answer may be in hyper's buffers, for a client that reads slowly.
            tokio::select! {
                ended = served.as_mut() => ended.map_err(io::Error::other),
                () = handle.idle_for(handle.write_timeout()) => Ok(()),
                () = handle.answer_unread() => Ok(()),
            }
        })
    })
    .await;
}

/// A body that ends only where its client has ended it. What hyper has for the end of a stream of
/// HTTP/2 may be that it was reset with `NO_ERROR`, as proxies do with those of clients that leave.
struct Whole {
    body: Incoming,
    is_stream: bool,
    /// Until the end of one that lies in buffers.
    unread: Option<UnreadBody>,
}

impl Whole {
    fn new(body: Incoming, is_stream: bool, activity: &Activity) -> Self {
        let unread = (is_stream && !body.is_end_stream()).then(|| activity.body());
        Self { body, is_stream, unread }
    }
}

impl http_body::Body for Whole {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let Self { body, unread, .. } = &mut *self;
        let polled = match unread {
            None => Pin::new(body).poll_frame(cx),
            Some(unread) => unread.poll(
                cx,
                |cx| Pin::new(body).poll_frame(cx),
                |frame| frame.as_ref().map_or(0, |frame| frame.data_ref().map_or(0, Bytes::len)),
            ),
        };
        match ready!(polled) {
            None if self.is_stream && !self.body.is_end_stream() => {
                let broken = io::Error::from(io::ErrorKind::UnexpectedEof);
                Poll::Ready(Some(Err(broken.into())))
            }
            frame => Poll::Ready(frame.map(|frame| frame.map_err(Into::into))),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// The body of a request, as [`serve`] and the builder's
/// [`mount`](crate::HttpServerBuilder::mount) hand it on.
#[derive(Debug)]
pub struct RequestBody(pub(crate) Body);

impl http_body::Body for RequestBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        Pin::new(&mut self.0).poll_frame(cx).map_err(Into::into)
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.0.size_hint()
    }
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            limits: ConnectionLimits::new(),
            header_timeout: Duration::from_secs(30),
            keep_alive_timeout: Duration::from_secs(75),
            max_linger: Duration::from_secs(5),
        }
    }
}

impl Server for HttpServer {
    fn local_addr(&self) -> ListenAddr {
        self.local_addr.clone()
    }

    async fn run_until(self, shutdown: impl Future<Output = ()> + Send + 'static) {
        Self::run_until(self, shutdown).await;
    }
}

impl IntoFuture for HttpServer {
    type Output = Infallible;
    type IntoFuture = Pin<Box<dyn Future<Output = Infallible> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(Server::run(self))
    }
}

impl fmt::Debug for HttpServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpServer").field("local_addr", &self.local_addr).finish_non_exhaustive()
    }
}

struct Open(Gauge);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// Whether the client of HTTP/1 keeps the connection for further requests.
fn stays_open<B>(request: &http::Request<B>) -> bool {
    let options = request.headers().get_all(CONNECTION).iter();
    let mut options = options.filter_map(|value| value.to_str().ok()).flat_map(|v| v.split(','));
    let mut has = |name: &str| options.any(|option| option.trim().eq_ignore_ascii_case(name));
    match request.version() {
        Version::HTTP_11 => !has("close"),
        Version::HTTP_10 => has("keep-alive"),
        _ => false,
    }
}

fn connection_builder() -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    // Its one time is both for the header and for the connection to lie idle.
    builder
        .http1()
        .half_close(true)
        .header_read_timeout(None)
        .max_buf_size(HttpBounds::MAX_BUFFERED_BYTES);
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(HttpBounds::PING_INTERVAL)
        .keep_alive_timeout(HttpBounds::PING_TIMEOUT)
        .max_concurrent_streams(HttpBounds::MAX_STREAMS)
        .initial_stream_window_size(HttpBounds::MAX_UNREAD_BODY_BYTES)
        .initial_connection_window_size(HttpBounds::MAX_UNREAD_BYTES)
        .max_header_list_size(HttpBounds::MAX_HEAD_BYTES);
    builder
}

/// What a head takes in memory, about.
fn head_bytes<B>(request: &http::Request<B>) -> usize {
    let (uri, headers) = (request.uri(), request.headers().iter());
    let authority = uri.authority().map_or(0, |authority| authority.as_str().len());
    let path = uri.path_and_query().map_or(0, |path| path.as_str().len());
    let headers = headers.map(|(name, value)| (name.as_str().len(), value.len()));
    HttpBounds::head_bytes(authority + path, headers)
}

/// From the end that clients are told to that of the connection.
const MAX_KEEP_ALIVE_MARGIN: Duration = Duration::from_secs(5);
