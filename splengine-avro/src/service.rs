//! The server over HTTP.

use std::convert::Infallible;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header::{
    ALLOW, AUTHORIZATION, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_TYPE, EXPECT, HOST, HeaderMap,
    HeaderName, HeaderValue, ORIGIN, RETRY_AFTER, WWW_AUTHENTICATE, X_CONTENT_TYPE_OPTIONS,
};
use http::uri::Authority;
use http::{Method, Request, Response, StatusCode, Version};
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt as _;
use splengine_core::auth::{ClientCertificate, CredentialSource, Credentials};
use splengine_core::net::{Activity, ConnectionHandle, HttpBounds, OriginPolicy, PeerAddress};
use splengine_core::quota::{GatherError, GatherLimits, MemoryError};
use splengine_core::{Caller, ErrorKind};
use tokio::time::timeout;
use tower::Service;

use crate::answer::Written;
use crate::error::Failure;
use crate::framing::Frames;
use crate::handshake::Received;
use crate::protocol;
use crate::records::ErrorCode;
use crate::responder::{Memory, Origin, Presented, Responder};

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// The Avro RPC server over HTTP as a [`tower::Service`], to be nested in a stack of one's own: `POST
/// /` and `POST /avro` take calls, `GET /avro/protocol` gives the protocol's text. Cheap to clone,
/// always ready, and never fails. A request that carries a [`Caller`] among its extensions was
/// authenticated by the server around this one. A [`ClientCertificate`] among them is one that the server
/// around has verified.
///
/// A request must name one host. Credentials in its head are checked before its body is read, and
/// refused with 401. If credentials are required and neither the head nor the connection has any that are
/// valid, they must be in the call's metadata, and the body may have 512 KiB.
///
/// ```
/// use http_body_util::{BodyExt as _, Empty};
/// use splengine_avro::AvroServer;
/// use splengine_core::auth::StaticTokens;
/// use splengine_core::{Engine, LocalExecutor};
/// use tower::Service as _;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let engine = Engine::builder(LocalExecutor::new(".")?).build()?;
/// let mut service = AvroServer::builder(engine).authenticate(StaticTokens::new()).into_service();
/// let request = http::Request::get("/avro/protocol").header("host", "localhost");
/// let response = service.call(request.body(Empty::<bytes::Bytes>::new())?).await?;
/// let text = response.into_body().collect().await?.to_bytes();
/// assert_eq!(text, splengine_avro::protocol());
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct AvroService(Responder);

/// The body of a response.
#[derive(Debug)]
pub struct ResponseBody {
    rest: Bytes,
    /// Its request is worked at until the last of it was written.
    activity: Option<Arc<Activity>>,
}

/// The future of a response. Dropping it cancels the run that it waits for.
pub struct ResponseFuture(
    Pin<Box<dyn Future<Output = Result<Response<ResponseBody>, Infallible>> + Send>>,
);

impl AvroService {
    pub(crate) fn new(responder: Responder) -> Self {
        Self(responder)
    }
}

impl<B> Service<Request<B>> for AvroService
where
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    type Response = Response<ResponseBody>;
    type Error = Infallible;
    type Future = ResponseFuture;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> ResponseFuture {
        let responder = self.0.clone();
        ResponseFuture(Box::pin(async move {
            let answered = answer(&responder, request).await;
            let mut response = answered.unwrap_or_else(Refusal::answer);
            let corp = HeaderName::from_static("cross-origin-resource-policy");
            for (name, value) in [
                (CACHE_CONTROL, "no-store"),
                (X_CONTENT_TYPE_OPTIONS, "nosniff"),
                (corp, "same-origin"),
            ] {
                response.headers_mut().insert(name, HeaderValue::from_static(value));
            }
            Ok(response.map(|rest| ResponseBody { rest, activity: None }))
        }))
    }
}

type Answer = Response<Bytes>;

async fn answer<B>(responder: &Responder, request: Request<B>) -> Result<Answer, Refusal>
where
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    check_host(&request)?;
    let is_read = matches!(*request.method(), Method::GET | Method::HEAD);
    match request.uri().path() {
        "/avro/protocol" if is_read => {
            let text = Bytes::from_static(protocol::text().as_bytes());
            Ok(typed(StatusCode::OK, "application/json", text))
        }
        "/avro/protocol" => Err(not_allowed("GET, HEAD")),
        "/" | "/avro" if request.method() == Method::POST => {
            let (parts, body) = request.into_parts();
            let body = Lingering::new(&parts.headers, body);
            let (found, peer) = (parts.extensions.get(), parts.extensions.get::<PeerAddress>());
            let certificate = parts.extensions.get::<ClientCertificate>();
            let source =
                CredentialSource::of_request("avro", found, peer.map(|peer| peer.ip), certificate);
            let of_connection = responder.or_of_connection(Credentials::None, &source);
            check_origin(&parts, &of_connection)?;
            let kind = parts.headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
            let kind = kind.and_then(|kind| kind.split(';').next()).unwrap_or_default().trim();
            if !kind.eq_ignore_ascii_case(BINARY) {
                let problem = "Content-Type must be avro/binary";
                return Err(refusal(StatusCode::UNSUPPORTED_MEDIA_TYPE, problem));
            }
            if is_encoded(&parts.headers) {
                let problem = "Content-Encoding must be left out here";
                return Err(refusal(StatusCode::UNSUPPORTED_MEDIA_TYPE, problem));
            }
            let connection = parts.extensions.get::<ConnectionHandle>().cloned();
            let caller = parts.extensions.get::<Caller>().cloned();
            // Before the body is read.
            let in_head = credentials(&parts.headers)?;
            let (by_head, sender) = if caller.is_some() {
                (None, Sender::Recognised)
            } else {
                let is_in_head = in_head.is_some();
                let shown = in_head.unwrap_or(of_connection);
                let is_anonymous = matches!(shown, Credentials::None);
                match responder.caller(shown, &source).await {
                    Ok(_) if is_anonymous => (None, Sender::Anonymous),
                    Ok(recognised) => {
                        if let Some(connection) = &connection {
                            connection.set_authenticated(&recognised);
                        }
                        (Some(recognised), Sender::Recognised)
                    }
                    // Unless it is let in without, what it shows is in the message.
                    Err(failure) if failure.code == ErrorCode::Unauthenticated && !is_in_head => {
                        (None, Sender::Unknown)
                    }
                    Err(failure) => return Err(Refusal::of(failure)),
                }
            };
            let recognised = caller.as_ref().or(by_head.as_ref());
            let (message, memory) = read(responder, body, sender, recognised).await?;
            let shown = Presented { caller, by_head, recognised: None, connection };
            let bytes = respond(responder, message, memory, source, shown).await?;
            Ok(typed(StatusCode::OK, BINARY, bytes))
        }
        "/" | "/avro" => Err(not_allowed("POST")),
        _ => Err(refusal(StatusCode::NOT_FOUND, "there is /avro and /avro/protocol")),
    }
}

/// Whether a body is compressed.
fn is_encoded(headers: &HeaderMap) -> bool {
    let values = headers.get_all(CONTENT_ENCODING).iter();
    let mut names = values.flat_map(|value| value.to_str().unwrap_or("?").split(','));
    names.any(|name| !["", "identity"].contains(&name.trim().to_ascii_lowercase().as_str()))
}

async fn respond(
    responder: &Responder,
    message: Bytes,
    memory: Box<Memory>,
    source: CredentialSource,
    shown: Presented,
) -> Result<Bytes, Refusal> {
    let malformed = |problem: &str| refusal(StatusCode::BAD_REQUEST, problem);
    let size = message.len();
    let frames = Frames::classic(responder.options.max_frame);
    let mut framing = Frames::classic(responder.options.max_frame);
    let mut input = BytesMut::from(message);
    let message = framing.next(&mut input);
    let is_all = matches!(framing.next(&mut input), Ok(None)) && !framing.is_midway(&input);
    let message = match message {
        Ok(Some((_, message))) if is_all => message,
        _ if size > responder.options.max_frame => return Err(too_large(responder)),
        _ => return Err(malformed("the body must be one message in the specification's framing")),
    };
    let mut conversation = responder.conversation(true);
    let received = conversation.open(message);
    let opened = match received {
        Ok(Received::Opened(opened)) => opened,
        Ok(Received::Unknown(mut unknown)) => {
            let caller = shown.caller.as_ref().or(shown.by_head.as_ref());
            let parsed = responder.parse(&mut unknown, &source, caller).await;
            conversation.learn(unknown, parsed)
        }
        Err(_) => return Err(malformed("the message must begin with a handshake")),
    };
    let mut bytes = BytesMut::new();
    let answer = match opened.call {
        None => Some(opened.answer.into()),
        Some((client, call)) => {
            let (shown, memory) = (Some(Box::new(shown)), Some(memory));
            let origin = Origin { source, shown, memory, waits: None };
            responder.clone().respond(client, call, opened.answer, true, origin).await
        }
    };
    let Written { bytes: answer, memory } = answer.unwrap_or_else(|| Vec::new().into());
    frames.write(0, &answer, &mut bytes);
    let bytes = bytes.freeze();
    Ok(match memory {
        Some(memory) => memory.hold(bytes),
        None => bytes,
    })
}

/// Who sends a message, as far as its head tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sender {
    Recognised,
    Anonymous,
    /// May show credentials within the message.
    Unknown,
}

/// Reads the body within the bounds of a message and of the memory of its caller. A client that nobody
/// has recognised has its part of the memory only, and one that is to show credentials yet a small
/// message.
async fn read<B>(
    responder: &Responder,
    body: B,
    sender: Sender,
    caller: Option<&Caller>,
) -> Result<(Bytes, Box<Memory>), Refusal>
where
    B: Body<Data = Bytes> + Unpin,
{
    // A large message has a length before each of its buffers.
    let mut most =
        responder.options.max_frame.saturating_add(responder.options.max_frame / 64 + 64);
    if sender == Sender::Unknown {
        most = most.min(MAX_UNKNOWN_BYTES);
    }
    let budget = match caller {
        Some(caller) => responder.budgets.of(caller.accounted_user()),
        None => responder.unknown.clone(),
    };
    let mut limits = GatherLimits::new(most, responder.options.frame_timeout, &budget);
    if caller.is_none() {
        // While it waited, the library would hold what nobody is accountable for.
        limits = limits.memory_timeout(Duration::ZERO);
    }
    // Who asks first whether they may send it is told before.
    let announced = limits.check(body.size_hint().lower());
    announced.map_err(|error: GatherError<B::Error>| refused(responder, sender, &error))?;
    let mut body = body;
    let pieces = limits.gather(move |cx| {
        let frame = Pin::new(&mut body).poll_frame(cx);
        frame.map_ok(|frame| frame.into_data().unwrap_or_default())
    });
    match pieces.await {
        Ok(whole) => {
            let (message, reservation) = whole.into_parts();
            Ok((message, Box::new(Memory { reservation, is_callers: caller.is_some() })))
        }
        Err(error) => Err(refused(responder, sender, &error)),
    }
}

fn refused<E>(responder: &Responder, sender: Sender, error: &GatherError<E>) -> Refusal {
    match error {
        GatherError::TooLarge { .. }
            if sender == Sender::Unknown && responder.options.max_frame > MAX_UNKNOWN_BYTES =>
        {
            let problem = format!(
                "without credentials in the header Authorization a message may have \
                 {MAX_UNKNOWN_BYTES} bytes"
            );
            refusal(StatusCode::PAYLOAD_TOO_LARGE, &problem)
        }
        GatherError::TooLarge { .. } => too_large(responder),
        GatherError::TooSlow { .. } => {
            refusal(StatusCode::REQUEST_TIMEOUT, "the body did not arrive in time")
        }
        GatherError::Broken(_) => refusal(StatusCode::BAD_REQUEST, "the body broke off"),
        GatherError::NoMemory(shortage) => Refusal::of((*shortage).into()),
        _ => refusal(StatusCode::INTERNAL_SERVER_ERROR, "the body was not read"),
    }
}

fn too_large(responder: &Responder) -> Refusal {
    let problem = format!("a message may have {} bytes", responder.options.max_frame);
    refusal(StatusCode::PAYLOAD_TOO_LARGE, &problem)
}

/// A request's body. What is left of it when it is dropped is read and thrown away, within bounds:
/// a client that still sends when its connection is closed may never see its answer.
struct Lingering<B>
where
    B: Body<Data = Bytes> + Send + 'static,
{
    body: Option<Pin<Box<B>>>,
    /// Its client waits to be told to send (`Expect: 100-continue`), which the first read does.
    waits_for_word: bool,
}

impl<B> Lingering<B>
where
    B: Body<Data = Bytes> + Send + 'static,
{
    fn new(headers: &HeaderMap, body: B) -> Self {
        Self { body: Some(Box::pin(body)), waits_for_word: headers.contains_key(EXPECT) }
    }
}

impl<B> Body for Lingering<B>
where
    B: Body<Data = Bytes> + Send + 'static,
{
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        self.waits_for_word = false;
        let Some(body) = &mut self.body else { return Poll::Ready(None) };
        let frame = body.as_mut().poll_frame(cx);
        if matches!(frame, Poll::Ready(None | Some(Err(_)))) {
            self.body = None;
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(|body| body.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map_or_else(|| SizeHint::with_exact(0), |body| body.size_hint())
    }
}

impl<B> Drop for Lingering<B>
where
    B: Body<Data = Bytes> + Send + 'static,
{
    fn drop(&mut self) {
        let Some(mut body) = self.body.take().filter(|_| !self.waits_for_word) else { return };
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(timeout(LINGER, async move {
                while let Ok(Some(Ok(_))) = timeout(READ_TIMEOUT, body.frame()).await {}
            }));
        }
    }
}

/// Refuses a request that does not name one host, which every server on the way would take it for:
/// HTTP/1.1 must name it in the header Host, HTTP/2 may in `:authority`.
fn check_host<B>(request: &Request<B>) -> Result<(), Refusal> {
    let mut hosts = request.headers().get_all(HOST).iter();
    let authority = request.uri().authority().filter(|_| request.version() >= Version::HTTP_2);
    let problem = match (hosts.next(), hosts.next()) {
        (_, Some(_)) => "there must be one header Host, not several",
        (None, None) if authority.is_some() || request.version() <= Version::HTTP_10 => {
            return Ok(());
        }
        (None, None) => "the header Host is missing",
        (Some(host), None) => {
            let is_same = |authority: &Authority| {
                authority.as_str().as_bytes().eq_ignore_ascii_case(host.as_bytes())
            };
            let is_host =
                Authority::try_from(host.as_bytes()).is_ok_and(|host| !host.as_str().contains('@'));
            if (host.is_empty() || is_host) && authority.is_none_or(is_same) {
                return Ok(());
            }
            "the header Host must be a host, with or without a port"
        }
    };
    Err(refusal(StatusCode::BAD_REQUEST, problem))
}

fn credentials(headers: &HeaderMap) -> Result<Option<Credentials>, Refusal> {
    let values = headers.get_all(AUTHORIZATION).iter().map(HeaderValue::as_bytes);
    match Credentials::from_authorization(values) {
        Ok(Credentials::None) => Ok(None),
        Ok(shown) => Ok(Some(shown)),
        Err(error) => Err(Refusal::of(Failure::of_kind(error.kind(), error.to_string(), None))),
    }
}

/// A page that a browser has open may send requests to any address that the browser reaches.
fn check_origin(parts: &http::request::Parts, of_connection: &Credentials) -> Result<(), Refusal> {
    let Some(origin) = parts.headers.get(ORIGIN) else { return Ok(()) };
    let host = parts.uri.authority().map(Authority::as_str);
    let host = host.or_else(|| parts.headers.get(HOST).and_then(|host| host.to_str().ok()));
    let policy = OriginPolicy::new();
    // Under anybody's name it would be let in for nothing but that.
    let has_credentials =
        parts.headers.contains_key(AUTHORIZATION) || !of_connection.are_open_to_rebinding();
    if policy.is_allowed(origin.to_str().unwrap_or_default(), host)
        && (has_credentials || policy.is_anonymous_allowed(host))
    {
        return Ok(());
    }
    Err(refusal(StatusCode::FORBIDDEN, "requests from pages of this origin are not allowed"))
}

fn typed(status: StatusCode, kind: &'static str, body: Bytes) -> Answer {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

/// What a request takes in memory before its body, about.
pub(crate) fn head_bytes<B>(request: &Request<B>) -> usize {
    let (uri, headers) = (request.uri(), request.headers().iter());
    let authority = uri.authority().map_or(0, |authority| authority.as_str().len());
    let path = uri.path_and_query().map_or(0, |path| path.as_str().len());
    let headers = headers.map(|(name, value)| (name.as_str().len(), value.len()));
    HttpBounds::head_bytes(authority + path, headers)
}

/// The answer to a request that there is no memory for. Unless its client has authenticated it has no body: that
/// might wait for the client.
pub(crate) fn lacks_memory(error: &MemoryError, has_body: bool) -> Response<ResponseBody> {
    let status = match error.kind() {
        ErrorKind::CallerLimit => StatusCode::TOO_MANY_REQUESTS,
        _ => StatusCode::SERVICE_UNAVAILABLE,
    };
    let retry_after = Some(error.retry_after());
    let answer = Refusal { retry_after, ..refusal(status, &error.to_string()) }.answer();
    let rest = |rest| if has_body { rest } else { Bytes::new() };
    answer.map(|whole| ResponseBody { rest: rest(whole), activity: None })
}

/// Why a request is none that holds a call.
struct Refusal {
    status: StatusCode,
    problem: String,
    /// The methods that there are.
    allow: Option<&'static str>,
    /// Whether other credentials would help.
    asks: bool,
    /// When it may work, if it is a matter of time.
    retry_after: Option<Duration>,
}

impl Refusal {
    fn answer(self) -> Answer {
        let problem = Bytes::from(format!("{}\n", self.problem));
        let mut response = typed(self.status, "text/plain; charset=utf-8", problem);
        if let Some(methods) = self.allow {
            response.headers_mut().insert(ALLOW, HeaderValue::from_static(methods));
        }
        if self.asks {
            response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if let Some(after) = self.retry_after {
            let seconds = after.as_secs() + u64::from(after.subsec_nanos() > 0);
            response.headers_mut().insert(RETRY_AFTER, seconds.max(1).into());
        }
        response
    }

    /// Of what a request is refused for before its call.
    fn of(failure: Failure) -> Self {
        let status = match failure.code {
            ErrorCode::InvalidRequest => StatusCode::BAD_REQUEST,
            ErrorCode::Unauthenticated => StatusCode::UNAUTHORIZED,
            ErrorCode::ResourceExhausted => StatusCode::TOO_MANY_REQUESTS,
            ErrorCode::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        };
        let asks = status == StatusCode::UNAUTHORIZED;
        let retry_after = failure.retry_after;
        Self { asks, retry_after, ..refusal(status, &failure.message) }
    }
}

fn refusal(status: StatusCode, problem: &str) -> Refusal {
    Refusal { status, problem: problem.to_owned(), allow: None, asks: false, retry_after: None }
}

fn not_allowed(methods: &'static str) -> Refusal {
    let problem = format!("there is {methods}");
    Refusal { allow: Some(methods), ..refusal(StatusCode::METHOD_NOT_ALLOWED, &problem) }
}

impl Future for ResponseFuture {
    type Output = Result<Response<ResponseBody>, Infallible>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.0.as_mut().poll(cx)
    }
}

impl ResponseBody {
    /// The same for a request of a connection of ours.
    pub(crate) fn of(self, activity: Activity) -> Self {
        if self.rest.is_empty() {
            return self;
        }
        activity.set_waits_for_client(true);
        Self { activity: Some(Arc::new(activity)), ..self }
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = Infallible;

    /// Gives small pieces, of which hyper takes as many as the client has room for.
    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if self.rest.is_empty() {
            self.activity = None;
            return Poll::Ready(None);
        }
        let length = self.rest.len().min(MAX_PIECE_BYTES);
        let mut piece = self.rest.split_to(length);
        if let Some(activity) = &self.activity {
            piece = activity.hand_out(piece);
        }
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.rest.len() as u64)
    }
}

impl fmt::Debug for AvroService {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AvroService").finish_non_exhaustive()
    }
}

impl fmt::Debug for ResponseFuture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture").finish_non_exhaustive()
    }
}

/// Maximum size of a message whose head shows no credentials where these are demanded: enough for a
/// client's protocol and a call.
const MAX_UNKNOWN_BYTES: usize = 512 << 10;
/// As much as one frame of HTTP/2 has.
const MAX_PIECE_BYTES: usize = 16 << 10;
const BINARY: &str = "avro/binary";
/// How long the rest of a body is read in all, and how long a piece of it is waited for.
const LINGER: Duration = Duration::from_secs(30);
const READ_TIMEOUT: Duration = Duration::from_secs(2);
