use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use splengine_core::Engine;
use splengine_core::auth::{Authenticator, NoAuthenticator, SharedAuthenticator};
use splengine_core::net::{BindError, Listener, OriginError, OriginPolicy};
use splengine_http::{HttpServer, HttpService};
use tokio::net::ToSocketAddrs;

use crate::context::{Context, Options};
use crate::server::{WsServer, WsService};

/// Sets up the WebSocket server. Made by [`WsServer::builder`]; it can be opened only after
/// [`authenticate`](Self::authenticate). Bounds on connections are set on the [`WsServer`] that
/// [`bind`](Self::bind) and [`listen`](Self::listen) return: the server as a
/// [service](Self::into_service) has no connections.
///
/// ```no_run
/// use std::time::Duration;
/// use splengine_core::Engine;
/// use splengine_core::auth::SharedAuthenticator;
/// use splengine_http::HttpServer;
/// use splengine_ws::WsServer;
///
/// # async fn example(
/// #     engine: Engine,
/// #     authenticator: SharedAuthenticator,
/// # ) -> Result<(), Box<dyn std::error::Error>> {
/// let api = HttpServer::builder(engine.clone()).authenticate(authenticator.clone()).into_service();
/// let server = WsServer::builder(engine)
///     .authenticate(authenticator)
///     .api(api)
///     .keep_logins("/var/lib/my-server/logins")
///     .allow_origin("https://app.example.org")?
///     .ping_every(Duration::from_secs(30))
///     .bind("127.0.0.1:8081")
///     .await?;
/// # server.await;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
#[must_use]
pub struct WsServerBuilder<A> {
    engine: Engine,
    authenticator: A,
    api: Option<HttpService>,
    options: Options,
    logins: Option<PathBuf>,
}

impl WsServer {
    /// Returns a builder of a server of `engine`, with defaults.
    pub fn builder(engine: Engine) -> WsServerBuilder<NoAuthenticator> {
        WsServerBuilder {
            engine,
            authenticator: NoAuthenticator::new(),
            api: None,
            options: Options {
                origins: OriginPolicy::new(),
                console: true,
                max_clients: 1024,
                max_message: 4 << 20,
                max_buffered: 256 << 20,
                ping_every: Duration::from_secs(15),
                max_linger: Duration::from_secs(5),
            },
            logins: None,
        }
    }
}

impl<A> WsServerBuilder<A> {
    /// Sets the authenticator, which finds the user behind a client's credentials.
    pub fn authenticate(
        self,
        authenticator: impl Authenticator,
    ) -> WsServerBuilder<SharedAuthenticator> {
        WsServerBuilder {
            engine: self.engine,
            authenticator: SharedAuthenticator::new(authenticator),
            api: self.api,
            options: self.options,
            logins: self.logins,
        }
    }

    /// Sets the HTTP server that is served at this server's address as well; the console uses it.
    /// Default: one with the defaults of its builder, for the same engine and authenticator.
    pub fn api(mut self, api: HttpService) -> Self {
        self.api = Some(api);
        self
    }

    /// Sets whether there is a web console, with its login and the HTTP server. Default true.
    /// Without it `/terminal` is all there is.
    pub fn console(mut self, console: bool) -> Self {
        self.options.console = console;
        self
    }

    /// Sets the file that keeps the console's logins across a restart; made where there is none, with
    /// its directory. A person who reads the file can't log in by it: it has only the hash of a cookie,
    /// and the token encrypted with the cookie. Default: they end with the server.
    ///
    /// A login lasts 7 days, or 24 hours without use; a user has 32 at most, and there are 4,096 in
    /// all: beyond that the least recently used one ends. A login also ends when its token is not valid
    /// any more.
    pub fn keep_logins(mut self, file: impl Into<PathBuf>) -> Self {
        self.logins = Some(file.into());
        self
    }

    /// Lets pages of this origin open terminals. Default: only those of this server itself.
    ///
    /// # Errors
    ///
    /// [`OriginError`] when `origin` is not a scheme, a host and perhaps a port.
    pub fn allow_origin(mut self, origin: &str) -> Result<Self, OriginError> {
        self.options.origins = self.options.origins.allow(origin)?;
        Ok(self)
    }

    /// Sets the maximum number of WebSockets of known callers that are open at once; the next one is refused
    /// with 503. Default 1024. A caller, with the guests that they have invited, may have as many as are left
    /// to others (half of all, if there is no other), one guest 16, and guests no more than leave some to
    /// their host; the next upgrade is refused with 429. Clients that have yet to show a ticket are bounded
    /// by the [limits of connections](WsServer::connection_limits), or there are as many of them where the
    /// [service](crate::WsService) is used without these; one for which there is no place then is closed
    /// with 4429.
    pub fn max_clients(mut self, count: usize) -> Self {
        self.options.max_clients = count;
        self
    }

    /// Sets the maximum size of a message of a client, in bytes, at least 1 KiB; a larger one closes its
    /// WebSocket with 4413. Before a ticket was shown it is 16 KiB. Default 4 MiB, which is enough for
    /// a paste of 1 MiB in one JSON frame.
    pub fn max_message(mut self, bytes: usize) -> Self {
        self.options.max_message = bytes.max(1 << 10);
        self
    }

    /// Sets the maximum number of bytes that all clients together hold of bodies and messages that are
    /// being read or wait to be typed. A caller has half of what the others leave, and one message
    /// beyond, over all of their WebSockets and those of the guests that they have invited; clients
    /// that have shown no credentials have a quarter of it. A message for which there is no memory
    /// waits for 5 s, and then closes its WebSocket: with 4429 if the caller's own share is used up,
    /// else with 1013. The body of a login is then refused with 503 and `Retry-After`. Messages below
    /// 16 KiB are not counted. Default 256 MiB, within
    /// [`EngineBuilder::max_buffered_bytes`](splengine_core::engine::EngineBuilder::max_buffered_bytes),
    /// which is lower by default (192 MiB). The [API](Self::api) has a bound of its own.
    pub fn max_buffered(mut self, bytes: usize) -> Self {
        self.options.max_buffered = bytes;
        self
    }

    /// Sets the interval at which clients are pinged. A client from which nothing is received for twice
    /// this and ten seconds is disconnected. Default 15 s, which notices a broken connection within 40.
    pub fn ping_every(mut self, time: Duration) -> Self {
        self.options.ping_every = time.max(Duration::from_millis(10));
        self
    }

    /// Sets the maximum time for which the end of the server waits until its clients were told. Default
    /// 5 s.
    pub fn max_linger(mut self, time: Duration) -> Self {
        self.options.max_linger = time;
        self
    }
}

impl WsServerBuilder<SharedAuthenticator> {
    fn into_context(self) -> Arc<Context> {
        let Self { engine, authenticator, api, options, logins } = self;
        let api = api.unwrap_or_else(|| {
            HttpServer::builder(engine.clone()).authenticate(authenticator.clone()).into_service()
        });
        Arc::new(Context::new(engine, authenticator, api, options, logins))
    }

    /// Makes a service of the server, to be nested in a stack of one's own, under any path. Draining
    /// the engine disconnects its clients; [`WsService::close`] disconnects all others.
    ///
    /// A service has no connections, so that no setting of them can be set before:
    ///
    /// ```compile_fail
    /// # use splengine_core::auth::SharedAuthenticator;
    /// # use splengine_ws::WsServerBuilder;
    /// # fn example(builder: WsServerBuilder<SharedAuthenticator>) {
    /// let service = builder.max_connections(8).into_service();
    /// # }
    /// ```
    #[must_use]
    pub fn into_service(self) -> WsService {
        WsService::new(self.into_context())
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
    ) -> Result<WsServer, BindError> {
        self.listen(Listener::bind(address).await?)
    }

    /// Makes a server on an existing listener, of a UNIX socket or inherited; nothing is served before the
    /// server is awaited.
    ///
    /// # Errors
    ///
    /// [`BindError`] when the listener has no address.
    pub fn listen(self, listener: impl Into<Listener>) -> Result<WsServer, BindError> {
        let listener = listener.into();
        let local_addr = listener.local_addr()?;
        let engine = self.engine.clone();
        Ok(WsServer::new(listener, local_addr, self.into_service(), engine))
    }
}
