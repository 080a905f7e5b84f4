use std::convert::Infallible;
use std::fmt;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body::{Body as _, Frame, SizeHint};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use splengine_core::auth::{ClientCertificate, CredentialSource};
use splengine_core::net::{
    Activity, Closing, ConnectionHandle, ConnectionLimits, HttpBounds, HttpStream, ListenAddr,
    Listener, Peer, PeerAddress, Server, UnreadBody, serve_connections,
};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::time::{Instant, timeout, timeout_at};
use tower::Service as _;

use crate::connection::{self, Accepted};
use crate::framing::{Frames, PREFIX, Sasl, WireFormat};
use crate::prefixed_io::Rewind;
use crate::responder::Responder;
use crate::service::{AvroService, head_bytes, lacks_memory};
#[cfg(feature = "tls")]
use crate::tls::{Tls, TlsError};

/// The Avro RPC server on an address of its own. Serves while it is awaited, or
/// [run](Self::run_until).
///
/// ```no_run
/// use std::time::Duration;
/// use splengine_avro::AvroServer;
/// use splengine_core::auth::Authenticator;
/// use splengine_core::{Engine, LocalExecutor};
///
/// # async fn example(
/// #     authenticator: impl Authenticator,
/// #     signal: impl Future<Output = ()>,
/// # ) -> Result<(), Box<dyn std::error::Error>> {
/// let engine = Engine::builder(LocalExecutor::new("/srv/work")?).build()?;
/// let server = AvroServer::builder(engine.clone())
///     .authenticate(authenticator)
///     .bind("127.0.0.1:9090")
///     .await?;
/// let shutdown = async {
///     signal.await;
///     engine.drain(Duration::from_secs(30)).await;
/// };
/// server.run_until(shutdown).await;
/// # Ok(())
/// # }
/// ```
#[must_use = "a server does nothing unless it is awaited"]
pub struct AvroServer {
    listener: Listener,
    local_addr: ListenAddr,
    responder: Responder,
    limits: ConnectionLimits,
    connections: ConnectionOptions,
    max_linger: Duration,
}

/// How connections are served.
#[derive(Clone)]
struct ConnectionOptions {
    max_calls: usize,
    /// Whether what begins without TLS is served.
    plain_text: bool,
    #[cfg(feature = "tls")]
    tls: Option<Tls>,
}

impl AvroServer {
    pub(crate) fn new(listener: Listener, local_addr: ListenAddr, responder: Responder) -> Self {
        let connections = ConnectionOptions {
            max_calls: 1024,
            plain_text: true,
            #[cfg(feature = "tls")]
            tls: None,
        };
        let (limits, max_linger) = (ConnectionLimits::new(), Duration::from_secs(5));
        Self { listener, local_addr, responder, limits, connections, max_linger }
    }

    /// Sets the maximum number of calls of one connection that are worked at, at least 1; the next
    /// one is read when one of them is answered. Default 1024. In the specification's framing it is
    /// always one.
    ///
    /// Of one caller 256 are worked at over all connections; the next waits for 30 s at most, and then
    /// fails with `RESOURCE_EXHAUSTED`. `cancel`, `endSession` and `keepAlive` do not wait. The calls of
    /// a connection that wait, or of which it is not known yet whose they are, take 64 KiB at most, 1 KiB
    /// each beside their messages: then no further one is read.
    pub fn max_calls(mut self, count: usize) -> Self {
        self.connections.max_calls = count.max(1);
        self
    }

    /// Sets the bounds on connections. Default: those of [`ConnectionLimits::new`]. A connection counts as
    /// authenticated from the first call on that was let in. Until then it may lie idle after its
    /// handshake, but makes room for others. Its unauthenticated timeout is the
    /// [handshake timeout](crate::AvroServerBuilder::handshake_timeout), whatever `limits` say.
    pub fn connection_limits(mut self, limits: ConnectionLimits) -> Self {
        self.limits = limits;
        self
    }

    /// Sets the maximum number of connections served at once, at least 1, default 1024; see
    /// [`ConnectionLimits::max_connections`].
    pub fn max_connections(mut self, count: usize) -> Self {
        self.limits = self.limits.max_connections(count);
        self
    }

    /// Sets the time that connections have, once the server ends, to finish their work. Default
    /// 5 s.
    pub fn max_linger(mut self, time: Duration) -> Self {
        self.max_linger = time;
        self
    }

    /// Serves TLS, too, to clients that begin with it: with this chain of certificates and this private
    /// key, both in PEM. Clients without TLS are served as before.
    ///
    /// # Errors
    ///
    /// [`TlsError`](TlsError) when they can't be read or do not fit each other.
    #[cfg(feature = "tls")]
    pub fn tls(
        self,
        certificates: &[u8],
        key: &splengine_core::auth::Secret,
    ) -> Result<Self, TlsError> {
        Ok(self.serve_tls(Tls::new(certificates, key)?))
    }

    /// Sets whether clients that begin without TLS are served, beside those that begin with it.
    /// Default true. Where it is false, a request of HTTP is answered with 400, and everything else
    /// closed.
    #[cfg(feature = "tls")]
    pub fn plain_text(mut self, served: bool) -> Self {
        self.connections.plain_text = served;
        self
    }

    /// Serves TLS with a certificate and key that can be [replaced](Tls::replace) while they
    /// are in use, and that may [ask clients](Tls::client_ca) for theirs.
    #[cfg(feature = "tls")]
    pub fn serve_tls(mut self, tls: Tls) -> Self {
        self.connections.tls = Some(tls);
        self
    }

    /// Returns the address that the server listens on.
    #[must_use]
    pub fn local_addr(&self) -> ListenAddr {
        self.local_addr.clone()
    }

    /// Serves until `shutdown` resolves; then accepts no more connections and calls, answers the calls
    /// in progress, and closes what is left after [`max_linger`](Self::max_linger).
    ///
    /// While `shutdown` is pending everything is answered. If the engine is drained within it, clients
    /// are told of the end (`UNAVAILABLE`) before it comes.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future closes the listener and all connections.
    pub async fn run_until(self, shutdown: impl Future<Output = ()>) {
        let Self { listener, responder, limits, connections, max_linger, .. } = self;
        // The time until its framing is known, and then for a handshake.
        let handshakes = responder.options.handshake_timeout.saturating_mul(2);
        let limits = limits.unauthenticated_timeout(handshakes).counted_by(&responder.engine);
        serve_connections(listener, limits, max_linger, shutdown, |stream, closing| {
            let opening = NewConnection {
                responder: responder.clone(),
                handle: stream.handle(),
                peer: stream.peer().ok(),
                certificate: None,
                closing,
                options: connections.clone(),
            };
            Some(opening.serve(stream))
        })
        .await;
    }
}

impl Server for AvroServer {
    fn local_addr(&self) -> ListenAddr {
        self.local_addr.clone()
    }

    async fn run_until(self, shutdown: impl Future<Output = ()> + Send + 'static) {
        Self::run_until(self, shutdown).await;
    }
}

impl IntoFuture for AvroServer {
    type Output = Infallible;
    type IntoFuture = Pin<Box<dyn Future<Output = Infallible> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(Server::run(self))
    }
}

impl fmt::Debug for AvroServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AvroServer").field("local_addr", &self.local_addr).finish_non_exhaustive()
    }
}

/// A connection of which nothing is known yet.
struct NewConnection {
    responder: Responder,
    handle: ConnectionHandle,
    peer: Option<Peer>,
    /// That TLS has verified.
    certificate: Option<ClientCertificate>,
    closing: Closing,
    options: ConnectionOptions,
}

impl NewConnection {
    async fn serve<S>(self, mut stream: S) -> io::Result<()>
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let until = Instant::now() + self.responder.options.handshake_timeout;
        let mut read = BytesMut::with_capacity(1024);
        let speech = self.within(until, self.listen(&mut stream, &mut read)).await?;
        #[cfg(feature = "tls")]
        if speech == WireFormat::Tls
            && let Some(tls) = &self.options.tls
        {
            let (acceptor, max_bytes) = tls.acceptor();
            let bounded = Rewind::bounded(read, stream, max_bytes);
            let mut stream = timeout_at(until, acceptor.accept(bounded)).await??;
            let (bounded, session) = stream.get_mut();
            bounded.lift();
            let chain = session.peer_certificates().unwrap_or_default();
            let certificate = chain.first().map(|own| ClientCertificate::new(own.as_ref()));
            let secured = Self { certificate, ..self };
            let mut read = BytesMut::with_capacity(1024);
            let speech = secured.within(until, secured.listen(&mut stream, &mut read)).await?;
            return secured.speak(speech, read, stream, until).await;
        }
        if !self.options.plain_text {
            return self.within(until, refuse_plain_text(speech, &mut stream)).await;
        }
        self.speak(speech, read, stream, until).await
    }

    fn source(&self) -> CredentialSource {
        let unknown = || CredentialSource::new("avro", None);
        let source = self.peer.map_or_else(unknown, |peer| peer.credential_source("avro"));
        match &self.certificate {
            Some(certificate) => source.with_certificate(certificate.clone()),
            None => source,
        }
    }

    /// Does something unless it takes too long, or the server ends.
    async fn within<T>(
        &self,
        until: Instant,
        work: impl Future<Output = io::Result<T>>,
    ) -> io::Result<T> {
        let mut closing = self.closing.clone();
        tokio::select! {
            done = timeout_at(until, work) => done?,
            () = closing.closed() => Err(io::ErrorKind::ConnectionAborted.into()),
        }
    }

    async fn listen<S>(&self, stream: &mut S, read: &mut BytesMut) -> io::Result<WireFormat>
    where
        S: AsyncRead + Unpin,
    {
        loop {
            if let Some(first) = read.first_chunk::<PREFIX>() {
                return Ok(WireFormat::of(first, self.responder.options.max_frame));
            }
            if stream.read_buf(read).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }

    async fn speak<S>(
        self,
        speech: WireFormat,
        mut read: BytesMut,
        mut stream: S,
        until: Instant,
    ) -> io::Result<()>
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let max_frame = self.responder.options.max_frame;
        let frames = match speech {
            WireFormat::Http => return self.serve_http(Rewind::new(read, stream)).await,
            WireFormat::Netty => Frames::netty(max_frame),
            WireFormat::Classic => Frames::classic(max_frame),
            WireFormat::Sasl => {
                self.within(until, start_sasl(&mut stream, &mut read)).await?;
                Frames::classic(max_frame)
            }
            WireFormat::Tls | WireFormat::Unknown => {
                let problem = "it begins with nothing that is spoken here";
                return Err(io::Error::new(io::ErrorKind::InvalidData, problem));
            }
        };
        let source = self.source();
        let Self { responder, handle, closing, options, .. } = self;
        let accepted = Accepted { handle, source, closing, max_calls: options.max_calls };
        connection::serve(&responder, frames, read, stream, accepted).await
    }

    async fn serve_http<S>(mut self, stream: Rewind<S>) -> io::Result<()>
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let service = AvroService::new(self.responder.clone());
        let source = self.source();
        let address = self.peer.and_then(|peer| peer.ip()).map(PeerAddress::new);
        let handle = self.handle.clone();
        let service = service_fn(move |mut request: http::Request<Incoming>| {
            let mut activity = handle.begin();
            let is_stream = request.version() == http::Version::HTTP_2;
            request.extensions_mut().insert(handle.clone());
            if let Some(address) = address {
                request.extensions_mut().insert(address);
            }
            request.extensions_mut().insert(source.clone());
            let (mut service, connection) = (service.clone(), handle.clone());
            let request = request.map(|body| ReceivedBody::new(body, is_stream, &activity));
            async move {
                let head_bytes = head_bytes(&request);
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
                let answered = match answered {
                    Ok(answered) => answered?,
                    Err(error) => {
                        let refusal = lacks_memory(&error, connection.is_authenticated());
                        return Ok(refusal.map(|body| body.of(activity)));
                    }
                };
                activity.release_head();
                Ok::<_, Infallible>(answered.map(|body| body.of(activity)))
            }
        });
        let frame_timeout = self.responder.options.frame_timeout.min(HttpBounds::MAX_TIMEOUT);
        let stream = TokioIo::new(HttpStream::new(stream, self.handle.clone()));
        let mut builder = auto::Builder::new(TokioExecutor::new());
        builder
            .http1()
            .timer(TokioTimer::new())
            .header_read_timeout(frame_timeout)
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
        let mut connection = std::pin::pin!(builder.serve_connection(stream, service));
        tokio::select! {
            ended = connection.as_mut() => return ended.map_err(io::Error::other),
            () = self.closing.closed() => connection.as_mut().graceful_shutdown(),
            // hyper has no such time for HTTP/2, where pings would keep a connection for ever.
            () = self.handle.idle_for(frame_timeout) => {
                self.handle.count_idle_timeout();
                connection.as_mut().graceful_shutdown();
            }
            // Other streams of a client that is known, which may be a proxy, get as much time.
            () = self.handle.answer_unread() => {
                if !self.handle.is_authenticated() {
                    return Ok(());
                }
                connection.as_mut().graceful_shutdown();
                let ended = timeout(self.handle.write_timeout(), connection.as_mut()).await;
                return ended.unwrap_or(Ok(())).map_err(io::Error::other);
            }
        }
        // What is left of an answer may be in hyper's buffers, for a client that reads slowly.
        tokio::select! {
            ended = connection.as_mut() => ended.map_err(io::Error::other),
            () = self.handle.idle_for(self.handle.write_timeout()) => Ok(()),
            () = self.handle.answer_unread() => Ok(()),
        }
    }
}

/// The body of a request, of which the connection is told what was read.
struct ReceivedBody {
    body: Incoming,
    /// Until the end of one that lies in buffers.
    unread: Option<UnreadBody>,
}

impl ReceivedBody {
    fn new(body: Incoming, is_stream: bool, activity: &Activity) -> Self {
        let unread = (is_stream && !body.is_end_stream()).then(|| activity.body());
        Self { body, unread }
    }
}

impl http_body::Body for ReceivedBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let Self { body, unread, .. } = &mut *self;
        match unread {
            None => Pin::new(body).poll_frame(cx),
            Some(unread) => unread.poll(
                cx,
                |cx| Pin::new(body).poll_frame(cx),
                |frame| frame.as_ref().map_or(0, |frame| frame.data_ref().map_or(0, Bytes::len)),
            ),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Says that it takes TLS, to a client that can be told.
async fn refuse_plain_text<S>(speech: WireFormat, stream: &mut S) -> io::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    if speech == WireFormat::Http {
        stream.write_all(TAKES_TLS).await?;
        stream.shutdown().await?;
        // A connection that is closed with something unread is reset, and the answer lost.
        let mut rest = stream.take(MAX_UNREAD);
        let _ = timeout(REFUSAL_TIMEOUT, tokio::io::copy(&mut rest, &mut tokio::io::sink())).await;
    }
    let problem = "it begins without TLS, which is demanded here";
    Err(io::Error::new(io::ErrorKind::PermissionDenied, problem))
}

const TAKES_TLS: &[u8] = b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain; charset=utf-8\r\n\
    Content-Length: 28\r\nConnection: close\r\n\r\nthis port takes TLS (https)\n";
/// So much of a request that is refused is read and thrown away, and for so long.
const MAX_UNREAD: u64 = 1 << 20;
const REFUSAL_TIMEOUT: Duration = Duration::from_secs(2);

async fn start_sasl<S>(stream: &mut S, read: &mut BytesMut) -> io::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let broken = || io::Error::from(io::ErrorKind::InvalidData);
    loop {
        match Sasl::start(read).map_err(|_| broken())? {
            Sasl::Anonymous => return stream.write_all(Sasl::COMPLETE).await,
            Sasl::Other => {
                stream.write_all(Sasl::FAIL).await?;
                stream.shutdown().await?;
                return Err(broken());
            }
            Sasl::Unfinished => {
                if stream.read_buf(read).await? == 0 {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
            }
        }
    }
}
