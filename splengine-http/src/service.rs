use std::convert::Infallible;
use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};

use axum::Router;
use axum::body::Body;
use bytes::Bytes;
use http_body::{Frame, SizeHint};
use tower::Service;

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// The HTTP server as a [`tower::Service`], to be nested in a stack of one's own. Cheap to clone,
/// always ready, and never fails: refusals are responses.
///
/// Nested in an application of axum's that authenticates its users by itself:
///
/// ```
/// use axum::Router;
/// use axum::extract::Request;
/// use axum::middleware::{Next, from_fn};
/// use splengine_core::auth::HostAuthenticator;
/// use splengine_core::{Caller, Engine, LocalExecutor, Scope};
/// use splengine_http::HttpServer;
/// use tower::ServiceExt as _;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let engine = Engine::builder(LocalExecutor::new(".")?).build()?;
/// let service = HttpServer::builder(engine).authenticate(HostAuthenticator::new()).into_service();
/// let alice = Caller::new("alice")?.with(Scope::Execute);
/// let app = Router::new().nest_service("/engine", service).layer(from_fn(
///     move |mut request: Request, next: Next| {
///         // Whom the application has recognised, by whatever means.
///         request.extensions_mut().insert(alice.clone());
///         next.run(request)
///     },
/// ));
///
/// let request = http::Request::post("/engine/execute")
///     .header("host", "localhost")
///     .header("content-type", "application/json")
///     .body(axum::body::Body::from(r#"{"command": "echo hello"}"#))?;
/// assert_eq!(app.oneshot(request).await?.status(), 200);
/// # Ok(())
/// # }
/// ```
///
/// An application that serves TLS itself hands the certificates of its clients on in the same way, once its TLS
/// has verified them. An authenticator that accepts such credentials knows a client by its certificate.
///
/// ```
/// use http::Request;
/// use hyper::body::Incoming;
/// use splengine_core::auth::ClientCertificate;
/// use splengine_http::HttpService;
/// use tower::{Service, ServiceExt as _};
///
/// /// Serves the requests of a connection on which TLS has verified this certificate (DER).
/// fn of_connection(
///     service: HttpService,
///     verified: &[u8],
/// ) -> impl Service<Request<Incoming>> + Clone {
///     let certificate = ClientCertificate::new(verified);
///     service.map_request(move |mut request: Request<Incoming>| {
///         request.extensions_mut().insert(certificate.clone());
///         request
///     })
/// }
/// ```
#[derive(Clone)]
pub struct HttpService(Router);

/// The body of a response. Dropping one that streams a run cancels the run.
#[derive(Debug)]
pub struct ResponseBody(Body);

/// The future of a response. Dropping it cancels the run that it waits for.
pub struct ResponseFuture(
    Pin<Box<dyn Future<Output = Result<http::Response<ResponseBody>, Infallible>> + Send>>,
);

impl ResponseBody {
    /// Wraps any body.
    pub fn new<B>(body: B) -> Self
    where
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        Self(Body::new(body))
    }
}

impl ResponseFuture {
    /// Any future of a response.
    pub fn new(
        response: impl Future<Output = Result<http::Response<ResponseBody>, Infallible>>
        + Send
        + 'static,
    ) -> Self {
        Self(Box::pin(response))
    }
}

impl HttpService {
    pub(crate) fn new(router: Router) -> Self {
        Self(router)
    }
}

impl<B> Service<http::Request<B>> for HttpService
where
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    type Response = http::Response<ResponseBody>;
    type Error = Infallible;
    type Future = ResponseFuture;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<B>) -> ResponseFuture {
        let response = self.0.call(request.map(Body::new));
        ResponseFuture::new(async move { Ok(response.await?.map(ResponseBody)) })
    }
}

impl Future for ResponseFuture {
    type Output = Result<http::Response<ResponseBody>, Infallible>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.0.as_mut().poll(cx)
    }
}

impl http_body::Body for ResponseBody {
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

impl fmt::Debug for HttpService {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpService").finish_non_exhaustive()
    }
}

impl fmt::Debug for ResponseFuture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture").finish_non_exhaustive()
    }
}
