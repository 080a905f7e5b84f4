use std::collections::BTreeMap;
use std::time::Duration;

use splengine_core::Engine;
use splengine_core::auth::{Authenticator, NoAuthenticator, SharedAuthenticator};
use splengine_core::net::{BindError, Listener};
use tokio::net::ToSocketAddrs;

use crate::context::Options;
use crate::responder::Responder;
use crate::server::AvroServer;
use crate::service::AvroService;

/// Sets up the Avro RPC server. Made by [`AvroServer::builder`]; it can be opened only after
/// [`authenticate`](Self::authenticate). Settings of connections, TLS among them, are methods of the
/// [`AvroServer`] that [`bind`](Self::bind) and [`listen`](Self::listen) return: the server as a
/// [service](Self::into_service) has no connections.
///
/// ```no_run
/// use std::time::Duration;
/// use splengine_avro::AvroServer;
/// use splengine_core::Engine;
/// use splengine_core::auth::Authenticator;
///
/// # async fn example(
/// #     engine: Engine,
/// #     authenticator: impl Authenticator,
/// # ) -> Result<(), Box<dyn std::error::Error>> {
/// let server = AvroServer::builder(engine)
///     .authenticate(authenticator)
///     .interface("rest", "http://engine.example.org:8080")
///     .max_frame(4 << 20)
///     .frame_timeout(Duration::from_secs(10))
///     .bind("127.0.0.1:9090")
///     .await?
///     .max_connections(256)
///     .max_calls(64);
/// # server.await;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
#[must_use]
pub struct AvroServerBuilder<A> {
    engine: Engine,
    authenticator: A,
    options: Options,
}

impl AvroServer {
    /// Returns a builder of a server of `engine`, with defaults.
    pub fn builder(engine: Engine) -> AvroServerBuilder<NoAuthenticator> {
        AvroServerBuilder {
            engine,
            authenticator: NoAuthenticator::new(),
            options: Options {
                interfaces: BTreeMap::new(),
                max_frame: 16 << 20,
                max_buffered: 256 << 20,
                handshake_timeout: Duration::from_secs(10),
                frame_timeout: Duration::from_secs(30),
            },
        }
    }
}

impl<A> AvroServerBuilder<A> {
    /// Sets the authenticator, which finds the user behind a call's credentials: its metadata
    /// `spl-authorization`, over HTTP also the header `Authorization`.
    pub fn authenticate(
        self,
        authenticator: impl Authenticator,
    ) -> AvroServerBuilder<SharedAuthenticator> {
        AvroServerBuilder {
            engine: self.engine,
            authenticator: SharedAuthenticator::new(authenticator),
            options: self.options,
        }
    }

    /// Lists a further server in the answer of `describe`, such as `rest` and its address.
    pub fn interface(mut self, name: impl Into<String>, place: impl Into<String>) -> Self {
        self.options.interfaces.insert(name.into(), place.into());
        self
    }

    /// Sets the maximum size of a message, in bytes. A connection that announces a larger one is
    /// closed, before any of it is kept; over HTTP it is refused with 413. Default 16 MiB.
    pub fn max_frame(mut self, bytes: usize) -> Self {
        self.options.max_frame = bytes;
        self
    }

    /// Sets the maximum number of bytes that all connections together hold of messages that are not
    /// complete or whose calls are worked at, beyond 64 KiB of each; of one that is the largest message
    /// and 1 MiB. A caller has half of what the others leave, and one message beyond, over all of their
    /// connections; unauthenticated ones, and bodies of HTTP whose credentials may stand within them,
    /// have a quarter. What the values of a message of another schema than the server's take in memory
    /// until they are read as its own counts likewise from 64 KiB on; beyond 4 MiB and 128 times its
    /// bytes, or 64 MiB, the call is refused. At the bound connections wait to be read from. A message
    /// for which there is no memory for as long as [one may take](Self::frame_timeout) is refused, with
    /// `RESOURCE_EXHAUSTED` if the caller's own share is used up, else with `UNAVAILABLE`, and its
    /// connection closed; over HTTP it is refused after 5 s, with 429 or 503 and `Retry-After`. Default
    /// 256 MiB, within
    /// [`EngineBuilder::max_buffered_bytes`](splengine_core::engine::EngineBuilder::max_buffered_bytes),
    /// which is lower by default (192 MiB).
    ///
    /// As much again is the maximum memory of answers of more than 64 KiB that are not sent yet, of a
    /// caller half of what the others leave and one answer beyond it. A call that only looks fails at
    /// once with the same codes if its answer finds none; `stepOutput` and `readFile` wait for it
    /// before they read, as long as [a message may take](Self::frame_timeout). The answer to work that
    /// is done waits for up to 5 s, at most 8 of a caller and 64 of all at once; then the call fails
    /// with `INTERNAL` and a text that says that the work was done, so that no client calls it again.
    pub fn max_buffered(mut self, bytes: usize) -> Self {
        self.options.max_buffered = bytes;
        self
    }

    /// Sets the maximum time until the first bytes of a connection show its framing, and then for its
    /// first handshake, before it is closed; and for a protocol that is not known yet to be parsed,
    /// before the calls of its client are answered by an error that says so. Default 10 s each.
    ///
    /// Protocols are parsed off the runtime's workers, one at a time; of clients that were not
    /// authenticated one of each address waits for that, and the others behind it. A protocol is
    /// refused, in the answers to its client's calls, beyond 256 KiB of text, 1,000 types and
    /// messages, 64 aliases, 8,192 fields, references and symbols, or types 64 deep in each other;
    /// those that are known are kept within 16 MiB.
    pub fn handshake_timeout(mut self, timeout: Duration) -> Self {
        self.options.handshake_timeout = timeout;
        self
    }

    /// Sets the maximum time for a message from its first byte to its last, and for a client to leave
    /// its answers unread, before its connection is closed. Default 30 s. Between messages a connection
    /// may be idle for any time.
    pub fn frame_timeout(mut self, timeout: Duration) -> Self {
        self.options.frame_timeout = timeout;
        self
    }
}

impl AvroServerBuilder<SharedAuthenticator> {
    /// Makes a service of the server over HTTP alone, to be nested in a stack of one's own.
    ///
    /// A service has no connections, so that no setting of them can be set before:
    ///
    /// ```compile_fail
    /// # use splengine_core::auth::SharedAuthenticator;
    /// # use splengine_avro::AvroServerBuilder;
    /// # fn example(builder: AvroServerBuilder<SharedAuthenticator>) {
    /// let service = builder.max_connections(8).into_service();
    /// # }
    /// ```
    #[must_use]
    pub fn into_service(self) -> AvroService {
        AvroService::new(Responder::new(self.engine, self.authenticator, self.options))
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
    ) -> Result<AvroServer, BindError> {
        self.listen(Listener::bind(address).await?)
    }

    /// Makes a server on an existing listener, of a UNIX socket or inherited; nothing is served before
    /// the server is awaited.
    ///
    /// # Errors
    ///
    /// [`BindError`] when the listener has no address.
    pub fn listen(self, listener: impl Into<Listener>) -> Result<AvroServer, BindError> {
        let listener = listener.into();
        let local_addr = listener.local_addr()?;
        let responder = Responder::new(self.engine, self.authenticator, self.options);
        Ok(AvroServer::new(listener, local_addr, responder))
    }
}
