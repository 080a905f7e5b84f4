use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use splengine_core::Engine;
use splengine_core::auth::{Authenticator, NoAuthenticator, SharedAuthenticator};
use splengine_core::batch::BatchResults;
use splengine_core::net::{BindError, Listener, OriginError, OriginPolicy};
use tokio::net::ToSocketAddrs;
use tower::util::BoxCloneSyncService;
use tower::{Service, ServiceExt as _};

use crate::base_path::{BasePath, BasePathError};
use crate::context::{Context, Options};
use crate::result_formats::{BoxError, ResultFormat};
use crate::server::{HttpServer, RequestBody};
use crate::service::HttpService;

/// Sets up the HTTP server. Made by [`HttpServer::builder`]; it can be opened only after
/// [`authenticate`](Self::authenticate). Settings of connections are methods of the [`HttpServer`] that
/// [`bind`](Self::bind) and [`listen`](Self::listen) return: the server as a
/// [service](Self::into_service) has no connections.
///
/// ```no_run
/// use std::time::Duration;
/// use splengine_core::Engine;
/// use splengine_core::auth::Authenticator;
/// use splengine_http::HttpServer;
///
/// # async fn example(
/// #     engine: Engine,
/// #     authenticator: impl Authenticator,
/// # ) -> Result<(), Box<dyn std::error::Error>> {
/// let server = HttpServer::builder(engine)
///     .authenticate(authenticator)
///     .allow_origin("https://app.example.org")?
///     .max_body(1 << 20)
///     .body_timeout(Duration::from_secs(10))
///     .bind("127.0.0.1:8080")
///     .await?
///     .max_connections(256)
///     .header_timeout(Duration::from_secs(10));
/// # server.await;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
#[must_use]
pub struct HttpServerBuilder<A> {
    engine: Engine,
    authenticator: A,
    options: Options,
}

impl HttpServer {
    /// Returns a builder of a server of `engine`, with defaults.
    pub fn builder(engine: Engine) -> HttpServerBuilder<NoAuthenticator> {
        HttpServerBuilder {
            engine,
            authenticator: NoAuthenticator::new(),
            options: Options {
                mounted: Vec::new(),
                forms: Vec::new(),
                origins: OriginPolicy::new(),
                max_body: 16 << 20,
                body_timeout: Duration::from_secs(30),
                max_buffered: 256 << 20,
                interfaces: BTreeMap::new(),
                base_path: None,
                console: None,
            },
        }
    }
}

impl<A> HttpServerBuilder<A> {
    /// Sets the authenticator, which finds the user behind a request's credentials.
    pub fn authenticate(
        self,
        authenticator: impl Authenticator,
    ) -> HttpServerBuilder<SharedAuthenticator> {
        HttpServerBuilder {
            engine: self.engine,
            authenticator: SharedAuthenticator::new(authenticator),
            options: self.options,
        }
    }

    /// Lets pages of this origin use the server from a browser (CORS). Default: none may.
    ///
    /// # Errors
    ///
    /// [`OriginError`] when `origin` is not a scheme, a host and perhaps a port.
    pub fn allow_origin(mut self, origin: &str) -> Result<Self, OriginError> {
        self.options.origins = self.options.origins.allow(origin)?;
        Ok(self)
    }

    /// Sets the maximum size of a JSON body, in bytes; a larger one is refused with 413. Default 16
    /// MiB. Input that is streamed in has no such bound: it is read no faster than the command takes
    /// it.
    pub fn max_body(mut self, bytes: usize) -> Self {
        self.options.max_body = bytes;
        self
    }

    /// Sets the maximum time for a JSON body to arrive, before it is refused with 408. Default
    /// 30 s.
    pub fn body_timeout(mut self, timeout: Duration) -> Self {
        self.options.body_timeout = timeout;
        self
    }

    /// Sets the maximum memory in bytes of all bodies together while they are read. Default 256 MiB,
    /// within
    /// [`EngineBuilder::max_buffered_bytes`](splengine_core::engine::EngineBuilder::max_buffered_bytes),
    /// which is lower by default (192 MiB). A body for which there is no memory left waits for 5 s, and
    /// is then refused with 503 and `Retry-After`; one of them at a time may go beyond the bound. One
    /// caller may have half of what the others leave, and one body beyond that; further ones are
    /// refused with 429. What is streamed (a command's input, a file) is never whole in memory.
    ///
    /// Decoders of compressed bodies have a quarter of it, a caller half of what the others leave of
    /// that quarter, and all unauthenticated clients a quarter of it.
    ///
    /// As much again is the maximum memory of all answers together that lie whole in memory until their
    /// clients have read them; of a caller half of what the others leave, and one answer beyond it, and of clients without
    /// credentials a quarter. An answer for which there is none left is refused at once with 429 or 503 and
    /// `Retry-After` where it can be asked for again; where something was done, after 5 s with 500, and
    /// with 202 where a batch was waited for. Followers of batches hold as much again.
    /// The results of a batch are written in JSON as they are read, and take 256 KiB each beside the
    /// batch's record; answers of 4 KiB are not counted.
    pub fn max_buffered(mut self, bytes: usize) -> Self {
        self.options.max_buffered = bytes;
        self
    }

    /// Sets the path below which clients find this server, such as `/engine`, where a proxy takes it away
    /// before it passes requests on; a `/` at its end makes no difference. With it begin `Location`, the
    /// addresses in the service definition, the `servers` of the OpenAPI document and the links of shares.
    /// Default: what routers of axum 0.8 that this service is nested in have taken away.
    ///
    /// # Errors
    ///
    /// [`BasePathError`] when `path` is not the absolute path of a URL.
    pub fn base_path(mut self, path: &str) -> Result<Self, BasePathError> {
        self.options.base_path = Some(BasePath::parse(path)?);
        Ok(self)
    }

    /// Lists a further server in the service definition, such as `websocket` and where it is.
    pub fn interface(mut self, name: impl Into<String>, place: impl Into<String>) -> Self {
        self.options.interfaces.insert(name.into(), place.into());
        self
    }

    /// Sets the address of the web console, with which the links of shares begin. Default: the
    /// address that a request names.
    pub fn console(mut self, url: impl Into<String>) -> Self {
        self.options.console = Some(url.into());
        self
    }

    /// Mounts another service at `path`, such as that of another server over HTTP. The service
    /// authenticates its callers by itself.
    ///
    /// ```
    /// use std::convert::Infallible;
    /// use splengine_core::auth::StaticTokens;
    /// use splengine_core::{Engine, LocalExecutor};
    /// use splengine_http::HttpServer;
    /// use tower::ServiceExt as _;
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let greeting = tower::service_fn(|_request| async {
    ///     Ok::<_, Infallible>(http::Response::new("hello".to_owned()))
    /// });
    /// let engine = Engine::builder(LocalExecutor::new(".")?).build()?;
    /// let service = HttpServer::builder(engine)
    ///     .authenticate(StaticTokens::new())
    ///     .mount("/greeting", greeting)
    ///     .into_service();
    /// let request = http::Request::get("/greeting").header("host", "localhost").body(String::new())?;
    /// assert_eq!(service.oneshot(request).await?.status(), 200);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Panics
    ///
    /// The server, when it is set up, where `path` does not begin with `/` or is taken.
    pub fn mount<S, B>(mut self, path: &str, service: S) -> Self
    where
        S: Service<http::Request<RequestBody>, Response = http::Response<B>, Error = Infallible>
            + Clone
            + Send
            + Sync
            + 'static,
        S::Future: Send + 'static,
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let service = service
            .map_request(|request: http::Request<Body>| request.map(RequestBody))
            .map_response(|response| response.map(Body::new));
        self.options.mounted.push((path.to_owned(), BoxCloneSyncService::new(service)));
        self
    }

    /// Offers a batch's results in a further form than JSON, such as `application/avro`, to clients
    /// that ask for its media type (`Accept`): as a file, called after the batch with `extension`.
    /// What there is to write is bounded, as [`Batches::results`](splengine_core::Batches::results)
    /// says.
    ///
    /// `form` is called where it may block. Its error is for the log; the client is told 500.
    ///
    /// ```
    /// use std::convert::Infallible;
    /// use splengine_core::auth::StaticTokens;
    /// use splengine_core::batch::BatchResults;
    /// use splengine_core::{Engine, LocalExecutor};
    /// use splengine_http::HttpServer;
    ///
    /// fn csv(results: &BatchResults) -> Result<Vec<u8>, Infallible> {
    ///     let lines = results.steps.iter().map(|result| {
    ///         format!("{},{}\r\n", result.step.id, result.step.exit_code.unwrap_or(-1))
    ///     });
    ///     Ok(lines.collect::<String>().into_bytes())
    /// }
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let engine = Engine::builder(LocalExecutor::new(".")?).build()?;
    /// let builder = HttpServer::builder(engine)
    ///     .authenticate(StaticTokens::new())
    ///     .results_as("text/csv", "csv", csv);
    /// # drop(builder);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Panics
    ///
    /// Where `media_type` is not a type and a subtype in lower case, without parameters; or where
    /// `extension` is not made of what such names are.
    pub fn results_as<B, E>(
        mut self,
        media_type: &'static str,
        extension: &'static str,
        form: impl Fn(&BatchResults) -> Result<B, E> + Send + Sync + 'static,
    ) -> Self
    where
        B: Into<Bytes>,
        E: Into<BoxError>,
    {
        let write = move |results: &BatchResults| match form(results) {
            Ok(bytes) => Ok(bytes.into()),
            Err(error) => Err(error.into()),
        };
        self.options.forms.push(ResultFormat::new(media_type, extension, Arc::new(write)));
        self
    }
}

impl HttpServerBuilder<SharedAuthenticator> {
    /// Makes a service of the server, to be nested in a stack of one's own.
    ///
    /// A service has no connections, so that no setting of them can be set before:
    ///
    /// ```compile_fail
    /// # use splengine_core::auth::SharedAuthenticator;
    /// # use splengine_http::HttpServerBuilder;
    /// # fn example(builder: HttpServerBuilder<SharedAuthenticator>) {
    /// let service = builder.max_connections(8).into_service();
    /// # }
    /// ```
    #[must_use]
    pub fn into_service(self) -> HttpService {
        let Self { engine, authenticator, options } = self;
        HttpService::new(Context::new(engine, authenticator, options).router())
    }

    /// Binds `address`; port 0 takes a free port. Nothing is served before the server is awaited.
    ///
    /// # Errors
    ///
    /// [`BindError`] when the address is not available.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future releases the address.
    pub async fn bind(
        self,
        address: impl ToSocketAddrs + std::fmt::Debug,
    ) -> Result<HttpServer, BindError> {
        self.listen(Listener::bind(address).await?)
    }

    /// Makes a server on an existing listener, of a UNIX socket or inherited; nothing is served before the
    /// server is awaited.
    ///
    /// # Errors
    ///
    /// [`BindError`] when the listener has no address.
    pub fn listen(self, listener: impl Into<Listener>) -> Result<HttpServer, BindError> {
        let listener = listener.into();
        let local_addr = listener.local_addr()?;
        let Self { engine, authenticator, options } = self;
        let context = Context::new(engine.clone(), authenticator, options);
        let service = HttpService::new(context.router());
        let connections = context.metrics.connections.clone();
        Ok(HttpServer::new(listener, local_addr, service, connections, engine))
    }
}
